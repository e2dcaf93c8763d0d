"""The elements of a library, and how they are addressed (SMC-3)."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class Kind(IntEnum):
    """ELEMENT TYPE CODE (SMC-3)."""

    TRANSPORT = 1
    SLOT = 2
    IMPORT_EXPORT = 3
    DRIVE = 4


_NAMES = {Kind.TRANSPORT: "arm", Kind.SLOT: "slot", Kind.IMPORT_EXPORT: "io", Kind.DRIVE: "drive"}


class Element(NamedTuple):
    """A place for one cartridge, counted from 0 among those of its kind."""

    kind: Kind
    number: int

    def __str__(self) -> str:
        return f"{_NAMES[self.kind]}-{self.number + 1}"


def element(text: str) -> Element:
    """An element as people write it: slot-3, drive-1, io-1. Raises ValueError."""
    name, _, number = text.rpartition("-")
    kind = next((kind for kind, known in _NAMES.items() if known == name.lower() and kind is not Kind.TRANSPORT), None)
    if kind is None or not number.isdecimal() or not int(number):
        raise ValueError(f"{text!r} is no element: write for example slot-3, drive-1 or io-1")
    return Element(kind, int(number) - 1)
