"""Logical unit numbers as 64-bit fields (SAM-5 4.7)."""

from __future__ import annotations

MAX_LUN = (1 << 14) - 1  # what flat space addressing can name
_EXTENDED, _LONG_EXTENDED = 0xD2, 0xE2  # method 11b, length 01b or 10b, extended method 2h: flat space (SAM-5 4.7.7.5)


def encode_lun(lun: int) -> int:
    """A LUN as a 64-bit field: peripheral device addressing where it fits, else flat space (SAM-5 4.7).

    Raises ValueError outside 0 to MAX_LUN.
    """
    if not 0 <= lun <= MAX_LUN:
        raise ValueError(f"LUN {lun} is not from 0 to {MAX_LUN}")
    return (lun if lun < 256 else 0x4000 | lun) << 48


def decode_lun(field: int) -> int:
    """The LUN that a 64-bit field names; -1 for one in a form that no unit here has.

    An initiator may use any form that can express a number: peripheral device addressing on bus 0, flat space,
    extended flat space (24 bits), long extended flat space (40 bits).
    """
    first = field >> 56
    if first >> 6 == 0 or first >> 6 == 1:
        number, rest = field >> 48 & 0x3FFF, field & (1 << 48) - 1
        if first >> 6 == 0 and number > 255:  # another bus
            return -1
    elif first == _EXTENDED:
        number, rest = field >> 32 & (1 << 24) - 1, field & (1 << 32) - 1
    elif first == _LONG_EXTENDED:
        number, rest = field >> 16 & (1 << 40) - 1, field & (1 << 16) - 1
    else:
        return -1
    return -1 if rest else number  # further levels of a hierarchy


def canonical(field: int) -> int:
    """The field in the form that `encode_lun` gives it, so that one logical unit has one name; itself where there is none."""
    number = decode_lun(field)
    return encode_lun(number) if 0 <= number <= MAX_LUN else field
