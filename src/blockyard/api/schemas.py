"""JSON Schemas of what can be configured, made of the dataclasses that say what that is (worker/configuration.py).

So that an option is declared once: what the configuration file takes, the API takes, in the same form. What an option means is
what stands beside it there as a comment.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
import types
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

from pydantic import Field

from blockyard.block import records
from blockyard.block.size import MAX_VOLUME, Size

_COMMENT = re.compile(r"^    (\w+): [^#\n]*?  # (.+)$", re.MULTILINE)
_CLASS = re.compile(r"^class (\w+)(.*\n(?:(?: .*)?\n)*)", re.MULTILINE)
_KEY = {"pattern": "^(0|[1-9][0-9]{0,4})$"}  # LUNs and tags, as names of members
_PLAIN: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    Size: {
        "anyOf": [{"type": "integer", "minimum": 0, "maximum": MAX_VOLUME}, {"type": "string"}],
        "examples": ["10G"],
    },
}


def of(kind: type) -> dict[str, Any]:
    """Of a record that stands in a table by its name, which is therefore not in it."""
    if hasattr(kind, "read"):  # it makes itself of whatever there is
        return {
            "type": "object",
            "title": kind.__name__,
            "properties": {"kind": {"type": "string"}},
            "required": ["kind"],
        }
    hints, told = get_type_hints(kind), _comments(kind)
    fields = [field for field in dataclasses.fields(kind) if field.name != "name"]
    properties = {
        field.name: {**_of(hints[field.name]), **({"description": told[field.name]} if field.name in told else {})}
        for field in fields
    }
    required = [
        field.name
        for field in fields
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    return {
        "type": "object",
        "title": kind.__name__,
        "properties": properties,
        "additionalProperties": False,
        **({"required": required} if required else {}),
    }


def _of(kind: Any) -> dict[str, Any]:
    origin = get_origin(kind)
    if kind in _PLAIN:
        return dict(_PLAIN[kind])
    if origin in (Union, types.UnionType):  # what is None is left out
        (inner,) = (each for each in get_args(kind) if each is not type(None))
        return _of(inner)
    if origin is tuple:
        return {"type": "array", "items": _of(get_args(kind)[0])}
    if origin is dict:
        key, inner = get_args(kind)
        return {"type": "object", "additionalProperties": _of(inner), **({"propertyNames": _KEY} if key is int else {})}
    return of(kind) if dataclasses.is_dataclass(kind) and isinstance(kind, type) and not hasattr(kind, "read") else {}


def field(kind: type) -> Any:
    """A field of an answer that has what is configured of an object, as PUT takes it."""

    def told(schema: dict[str, Any]) -> None:
        schema.clear()
        schema["description"] = "what is configured, which PUT and PATCH change; none for what was not configured here"
        schema["anyOf"] = [of(kind), {"type": "null"}]

    return Field(None, json_schema_extra=told)


def _comments(kind: type) -> dict[str, str]:
    """Of its fields, those of what it is derived from too."""
    return {
        name: text
        for each in reversed(kind.__mro__)
        if dataclasses.is_dataclass(each)
        for name, text in _COMMENT.findall(_classes(each.__module__).get(each.__name__, ""))
    }


@cache
def _classes(module: str) -> dict[str, str]:
    """The source of each class of a module; `inspect.getsource` would parse all of it for each."""
    try:
        return dict(_CLASS.findall(inspect.getsource(sys.modules[module])))
    except OSError:  # there is no source
        return {}


def whole(record: Any) -> Any:
    """A record as plain data, with its defaults, and without its name where it has one."""
    if dataclasses.is_dataclass(record) and not hasattr(record, "write"):
        fields = {
            field.name: getattr(record, field.name) for field in dataclasses.fields(record) if field.name != "name"
        }
        return {name: whole(value) for name, value in fields.items() if value is not None}
    if isinstance(record, dict):
        return {str(name): whole(value) for name, value in record.items()}
    if isinstance(record, tuple):
        return [whole(value) for value in record]
    return int(record) if isinstance(record, Size) else records.write(record)
