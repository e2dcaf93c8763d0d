"""Dataclasses from and to plain tables, as JSON and TOML have them: strict about names and types.

`read` makes an instance of a class of a table; `write` is its inverse, and leaves out what has its default. A record that
stands in a table by its name (`dict[str, Volume]`) has that key for its field `name`. A type with a class method `read` makes
its values of plain data by itself, and one with a method `write` makes plain data of them. What is wrong is told with the key
path to it, in the form in which TOML writes one, and where it fits with what would be right.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import types
from collections.abc import Iterable
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+\Z")
_NAMES = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    tuple: "a list",
    dict: "a table",
}


class RecordError(ValueError):
    """A table does not make a record. `at` is the key path to what is wrong; empty for the whole."""

    def __init__(self, at: str, problem: str) -> None:
        super().__init__(f"{at}: {problem}" if at else problem)
        self.at = at
        self.problem = problem

    def below(self, path: str) -> RecordError:
        """The same error, for someone who sees the record as a part of something larger."""
        return RecordError(join(path, self.at), self.problem)


def key(name: str | int) -> str:
    """A key as it stands in a key path."""
    text = str(name)
    return text if _BARE_KEY.match(text) else json.dumps(text, ensure_ascii=False)


def join(*parts: str) -> str:
    """A key path of shorter ones."""
    return "".join(f".{part}" if at and part[:1] != "[" else part for at, part in enumerate(filter(None, parts)))


def read(kind: type[T], data: object) -> T:
    """An instance of `kind`. Raises RecordError."""
    result: T = _read(kind, data)
    return result


def write(record: object) -> Any:
    """A record, or a list or table of them, as plain data: what `read` takes."""
    if callable(getattr(type(record), "write", None)):
        return record.write()  # type: ignore[attr-defined]
    if dataclasses.is_dataclass(record):
        return {
            field.name: write(value)
            for field in dataclasses.fields(record)
            if (value := getattr(record, field.name)) != _default(field)
        }
    if isinstance(record, dict):
        return {str(name): _without_name(value) for name, value in record.items()}
    if isinstance(record, tuple):
        return [write(value) for value in record]
    return record


def _without_name(value: object) -> Any:
    data = write(value)
    if _is_named(type(value)):
        del data["name"]
    return data


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _read(kind: Any, data: object) -> Any:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):  # X | None: None is what is not there
        (inner,) = (one for one in get_args(kind) if one is not type(None))
        return _read(inner, data)
    if callable(getattr(kind, "read", None)):
        try:
            return kind.read(data)
        except RecordError:
            raise
        except ValueError as error:
            raise RecordError("", str(error)) from None
    if dataclasses.is_dataclass(kind):
        return _read_record(kind, _of_type(dict, data))
    if origin is tuple:
        inner = get_args(kind)[0]
        return tuple(_part(f"[{at}]", inner, value) for at, value in enumerate(_of_type(list, data)))
    if origin is dict:
        key_kind, inner = get_args(kind)
        return _read_table(key_kind, inner, _of_type(dict, data))
    return _of_type(kind, data)


def _of_type(kind: Any, data: object) -> Any:
    if type(data) is kind:  # a bool is no int here
        return data
    if kind is float and type(data) is int:
        return float(data)
    wanted = _NAMES[tuple if kind is list else kind]
    raise RecordError("", f"{_shown(data)} is not {wanted}")


def _shown(data: object) -> str:
    text = json.dumps(data, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "…"


def _part(at: str, kind: Any, data: object) -> Any:
    try:
        return _read(kind, data)
    except RecordError as error:
        raise error.below(at) from None


def _read_table(key_kind: Any, kind: Any, data: dict[str, object]) -> dict[Any, Any]:
    result = {}
    for name, value in data.items():
        index: str | int = name
        if key_kind is int:
            if not re.fullmatch(r"0|[1-9][0-9]{0,17}", name):
                raise RecordError(key(name), "the key is not a whole number")
            index = int(name)
        result[index] = _part(key(name), kind, _with_name(name, value) if _is_named(kind) else value)
    return result


def _with_name(name: str, data: object) -> object:
    if not isinstance(data, dict):
        return data
    if "name" in data:
        raise RecordError(join(key(name), "name"), "the name is the key already: leave this out")
    return {"name": name, **data}


def _read_record(kind: Any, data: dict[str, object]) -> Any:
    known = {field.name: field for field in dataclasses.fields(kind)}
    for name in data:
        if name not in known:
            raise RecordError(key(name), _unknown(name, known))
    for name, field in known.items():
        if name not in data and _default(field) is dataclasses.MISSING:
            raise RecordError(key(name), "it is missing")
    hints = _hints(kind)
    values = {name: _part(key(name), hints[name], value) for name, value in data.items()}
    try:
        return kind(**values)
    except ValueError as error:  # what the class itself says of its values
        raise RecordError("", str(error)) from None


def _unknown(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    if close:
        return f"there is no such key; did you mean {close[0]}?"
    return f"there is no such key; there are {', '.join(name for name in known if name != 'name')}"


def _is_named(kind: Any) -> bool:
    return isinstance(kind, type) and dataclasses.is_dataclass(kind) and "name" in _hints(kind)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)
