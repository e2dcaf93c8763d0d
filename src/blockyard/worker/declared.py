"""Layers that are declared by themselves: a stack as a tree of tables, the same as the text in one line.

[layers.fast]
kind = "cache"
on = ["array"]
ram = "1G"
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from blockyard.block.records import RecordError, join, key
from blockyard.block.stack import Call, StackError, Value, Word, parse


@dataclass(frozen=True)
class DeclaredLayer:
    """A layer that stacks have by its name. In a table its options stand beside its kind and what it is `on`."""

    name: str
    written: Call

    @classmethod
    def read(cls, data: object) -> DeclaredLayer:
        """Of a table with the keys name, kind and on, and options. Raises RecordError."""
        if not isinstance(data, dict):
            raise RecordError("", "a layer is a table with a kind")
        options: dict[str, object] = dict(data)
        name, kind, on = options.pop("name"), options.pop("kind", None), options.pop("on", [])
        if not isinstance(kind, str):
            raise RecordError("kind", "it is missing: `blockyard layer kinds` lists what there is")
        if not isinstance(on, list) or not all(isinstance(each, str) for each in on):
            raise RecordError("on", "that is not a list of names of layers, paths and stacks")
        arguments = []
        for number, each in enumerate(on):
            try:
                arguments.append(parse(each))
            except StackError as error:
                raise RecordError(f"on[{number}]", str(error)) from None
        words = tuple((option, _value(option, value)) for option, value in options.items())
        return cls(str(name), Call(kind, tuple(arguments), words))

    def write(self) -> dict[str, Any]:
        """The table."""
        table: dict[str, Any] = {"name": self.name, "kind": self.written.name}
        if self.written.arguments:
            table["on"] = list(map(str, self.written.arguments))
        return table | {name: _plain(value) for name, value in self.written.options}


def _value(at: str, value: object) -> Value:
    if isinstance(value, list):
        return tuple(_word(join(key(at), f"[{number}]"), each) for number, each in enumerate(value))
    return _word(key(at), value)


def _word(at: str, value: object) -> Word:
    if isinstance(value, bool):
        return Word("true" if value else "false")
    if isinstance(value, str | int | float):
        return Word(str(value))
    raise RecordError(
        at, "a layer has no such option: an option is a text, a number, true or false, or a list of these"
    )


def _plain(value: Value) -> Any:
    return value.text if isinstance(value, Word) else [each.text for each in value]
