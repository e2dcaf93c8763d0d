"""What differs between two configurations: in lines for people, and as data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from blockyard.block import records
from blockyard.block.records import join, key
from blockyard.control.configuration_file import value_text
from blockyard.worker.configuration import Configuration


def differences(old: Configuration, new: Configuration) -> list[str]:
    """A line for each key that has come (+), gone (-) or changed (~), with the key path to it."""
    return list(_tables(records.write(old), records.write(new), ""))


def changed(old: Configuration, new: Configuration) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of both what the other does not have, as plain data."""
    return _parts(records.write(old), records.write(new))


def _parts(old: dict[str, Any], new: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    for name in [*old, *(name for name in new if name not in old)]:
        if name in old and name in new and isinstance(old[name], dict) and isinstance(new[name], dict):
            parts: tuple[Any, Any] = _parts(old[name], new[name])
        else:
            parts = old.get(name), new.get(name)
        if old.get(name) != new.get(name):
            before |= {name: parts[0]} if name in old else {}
            after |= {name: parts[1]} if name in new else {}
    return before, after


def _tables(old: dict[str, Any], new: dict[str, Any], path: str) -> Iterator[str]:
    for name in [*old, *(name for name in new if name not in old)]:
        at = join(path, key(name))
        if old.get(name) == new.get(name):
            continue
        if isinstance(old.get(name, {}), dict) and isinstance(new.get(name, {}), dict):
            before, after = old.get(name, {}), new.get(name, {})
            if (name in new and name in old) or (not path and _holds_tables(before | after)):
                yield from _tables(before, after, at)
            else:
                yield f"{'+' if name in new else '-'} {at}"
        elif name not in old:
            yield f"+ {at} = {value_text(new[name])}"
        elif name not in new:
            yield f"- {at} = {value_text(old[name])}"
        else:
            yield f"~ {at}: {value_text(old[name])} → {value_text(new[name])}"


def _holds_tables(table: dict[str, Any]) -> bool:
    """Whether it is a table of named ones, such as `volumes`, of which each is told."""
    return bool(table) and all(isinstance(value, dict) for value in table.values())
