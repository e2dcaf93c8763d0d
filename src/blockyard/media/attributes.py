"""Attributes of the medium auxiliary memory (MAM): which there are, and how they are written (SPC-5, READ ATTRIBUTE).

What the drive knows of itself it fills in when it is asked (media/mam.py); what hosts write is kept with the cartridge.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from blockyard.scsi.sense import invalid_parameter, parameter_list_length_error


class Format(IntEnum):
    """The FORMAT field."""

    BINARY = 0
    ASCII = 1
    TEXT = 2


class Attribute(NamedTuple):
    """An attribute; `length` is that of its value, or the most that it can have where it is `variable`."""

    identifier: int
    name: str
    format: Format
    length: int
    writable: bool = False
    variable: bool = False


B, A, T = Format.BINARY, Format.ASCII, Format.TEXT

ATTRIBUTES = {
    attribute.identifier: attribute
    for attribute in (
        Attribute(0x0000, "Remaining capacity in partition", B, 8),
        Attribute(0x0001, "Maximum capacity in partition", B, 8),
        Attribute(0x0002, "TapeAlert flags", B, 8),
        Attribute(0x0003, "Load count", B, 8),
        Attribute(0x0004, "MAM space remaining", B, 8),
        Attribute(0x0005, "Assigning organization", A, 8),
        Attribute(0x0006, "Formatted density code", B, 1),
        Attribute(0x0007, "Initialization count", B, 2),
        Attribute(0x0009, "Volume change reference", B, 4),
        Attribute(0x020A, "Device vendor and serial number at last load", A, 40),
        Attribute(0x020B, "Device vendor and serial number at load before", A, 40),
        Attribute(0x0220, "Total MiB written in medium life", B, 8),
        Attribute(0x0221, "Total MiB read in medium life", B, 8),
        Attribute(0x0222, "Total MiB written in this load", B, 8),
        Attribute(0x0223, "Total MiB read in this load", B, 8),
        Attribute(0x0400, "Medium manufacturer", A, 8),
        Attribute(0x0401, "Medium serial number", A, 32),
        Attribute(0x0402, "Medium length", B, 4),
        Attribute(0x0403, "Medium width", B, 4),
        Attribute(0x0404, "Assigning organization of the medium", A, 8),
        Attribute(0x0405, "Medium density code", B, 1),
        Attribute(0x0406, "Medium manufacture date", A, 8),
        Attribute(0x0407, "MAM capacity", B, 8),
        Attribute(0x0408, "Medium type", B, 1),
        Attribute(0x0409, "Medium type information", B, 2),
        Attribute(0x0800, "Application vendor", A, 8, writable=True),
        Attribute(0x0801, "Application name", A, 32, writable=True),
        Attribute(0x0802, "Application version", A, 8, writable=True),
        Attribute(0x0803, "User medium text label", T, 160, writable=True),
        Attribute(0x0804, "Date and time last written", A, 12, writable=True),
        Attribute(0x0805, "Text localization identifier", B, 1, writable=True),
        Attribute(0x0806, "Barcode", A, 32, writable=True),
        Attribute(0x0807, "Owning host textual name", T, 80, writable=True),
        Attribute(0x0808, "Media pool", T, 160, writable=True),
        Attribute(0x0809, "Partition user text label", A, 16, writable=True),
        Attribute(0x080A, "Load/unload at partition", B, 1, writable=True),
        Attribute(0x080B, "Application format version", A, 16, writable=True),
        Attribute(0x080C, "Volume coherency information", B, 70, writable=True, variable=True),
        Attribute(0x0820, "Medium globally unique identifier", B, 36, writable=True),
        Attribute(0x0821, "Media pool globally unique identifier", B, 36, writable=True),
    )
}
CAPACITY = 16384  # bytes that a MAM is said to have
_HEADER = struct.Struct(">HBH")
_READ_ONLY = 0x80


def encode(identifier: int, value: bytes) -> bytes:
    """An attribute as READ ATTRIBUTE returns it."""
    attribute = ATTRIBUTES[identifier]
    return _HEADER.pack(identifier, (0 if attribute.writable else _READ_ONLY) | attribute.format, len(value)) + value


def parse(data: bytes) -> dict[int, bytes]:
    """The attributes of a WRITE ATTRIBUTE parameter list; an empty value takes one away. Raises CheckCondition."""
    if len(data) < 4:
        raise parameter_list_length_error()
    end = 4 + int.from_bytes(data[:4], "big")
    if end != len(data):
        raise invalid_parameter(0)
    found: dict[int, bytes] = {}
    at = 4
    while at < end:
        if at + _HEADER.size > end:
            raise parameter_list_length_error()
        identifier, form, length = _HEADER.unpack_from(data, at)
        attribute = ATTRIBUTES.get(identifier)
        if attribute is None or not attribute.writable:
            raise invalid_parameter(at)
        if form & 0x03 != attribute.format:
            raise invalid_parameter(at + 2, 1)
        if length and (length > attribute.length or (length < attribute.length and not attribute.variable)):
            raise invalid_parameter(at + 3)
        at += _HEADER.size
        if at + length > end:
            raise parameter_list_length_error()
        found[identifier] = data[at : at + length]
        at += length
    return found
