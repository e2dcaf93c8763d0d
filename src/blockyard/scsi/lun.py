"""Logical unit numbers as 64-bit fields (SAM-5 4.7)."""

from __future__ import annotations

MAX_LUN = (1 << 14) - 1  # what flat space addressing can name


def encode_lun(lun: int) -> int:
    """A LUN as a 64-bit field: peripheral device addressing where it fits, else flat space (SAM-5 4.7).

    Raises ValueError outside 0 to MAX_LUN.
    """
    if not 0 <= lun <= MAX_LUN:
        raise ValueError(f"LUN {lun} is not from 0 to {MAX_LUN}")
    return (lun if lun < 256 else 0x4000 | lun) << 48


def decode_lun(field: int) -> int:
    """The LUN that a 64-bit field names; -1 for one in a form that no unit here has."""
    first = field >> 48
    method, number = first >> 14, first & 0x3FFF
    if field & ((1 << 48) - 1):  # further levels of a hierarchy
        return -1
    if method == 1 or (method == 0 and number < 256):  # flat space; peripheral device on bus 0
        return number
    return -1
