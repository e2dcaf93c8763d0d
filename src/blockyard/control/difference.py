"""What differs between two configurations, in lines for people."""

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


def _tables(old: dict[str, Any], new: dict[str, Any], path: str) -> Iterator[str]:
    for name in [*old, *(name for name in new if name not in old)]:
        at = join(path, key(name))
        if old.get(name) == new.get(name):
            continue
        if isinstance(old.get(name, {}), dict) and isinstance(new.get(name, {}), dict):
            if name not in new or name not in old:
                yield f"{'+' if name in new else '-'} {at}"
            yield from _tables(old.get(name, {}), new.get(name, {}), at) if name in old and name in new else ()
        elif name not in old:
            yield f"+ {at} = {value_text(new[name])}"
        elif name not in new:
            yield f"- {at} = {value_text(old[name])}"
        else:
            yield f"~ {at}: {value_text(old[name])} → {value_text(new[name])}"
