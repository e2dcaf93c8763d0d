"""The kinds of layers that there are: each by its name, with the module whose KINDS have it.

A module is imported when one of its kinds is asked for, so that nobody pays for libraries that he does not use.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from importlib import import_module

from blockyard.block.layers import Kind

MODULES = {
    "auto": "blockyard.block.leaves",
    "cache": "blockyard.block.cache.ram",
    "compressed": "blockyard.block.compressed.device",
    "concat": "blockyard.block.linear",
    "delay": "blockyard.block.faults",
    "faults": "blockyard.block.faults",
    "file": "blockyard.block.leaves",
    "iscsi": "blockyard.remote.disk",
    "luks": "blockyard.block.cipher.administration",
    "memory": "blockyard.block.leaves",
    "moving": "blockyard.block.moving",
    "nbd": "blockyard.block.nbd.kinds",
    "nbdkit": "blockyard.block.engines.kinds",
    "overlay": "blockyard.block.cow",
    "pool": "blockyard.block.leaves",
    "qemu": "blockyard.block.engines.kinds",
    "raid0": "blockyard.block.raid.kinds",
    "raid1": "blockyard.block.raid.kinds",
    "raid10": "blockyard.block.raid.kinds",
    "raid5": "blockyard.block.raid.kinds",
    "raid6": "blockyard.block.raid.kinds",
    "rbd": "blockyard.block.rbd.device",
    "readonly": "blockyard.block.readonly",
    "record": "blockyard.block.record",
    "slice": "blockyard.block.linear",
    "ssd-cache": "blockyard.block.cache.ssd_opening",
    "throttle": "blockyard.block.throttle",
    "vhd": "blockyard.block.leaves",
    "vhdx": "blockyard.block.leaves",
}


def kind(name: str) -> Kind:
    """Raises LookupError where there is none, OSError (ImportError's text) where what it needs is not installed."""
    if name not in MODULES:
        close = difflib.get_close_matches(name, MODULES, 1)
        there = f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(MODULES))}"
        raise LookupError(f"there is no kind of layer {name!r}; {there}")
    rows: tuple[Kind, ...] = import_module(MODULES[name]).KINDS
    return next(row for row in rows if row.name == name)


def kinds() -> Iterator[Kind]:
    """All of them, by name."""
    return (kind(name) for name in sorted(MODULES))
