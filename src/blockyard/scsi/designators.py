"""Designation descriptors: the names of logical units, ports and devices (SPC-5)."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blockyard.scsi.primary import Identity

VENDOR = "BLOCKYRD"  # T10 VENDOR IDENTIFICATION: eight characters

_ISCSI = 0x50  # PROTOCOL IDENTIFIER 5h, in the place where a designator has it
BINARY, ASCII, UTF8 = 1, 2, 3  # code sets
UNIT, PORT, DEVICE = 0x00, 0x90, 0xA0  # association, with PIV where the protocol matters
T10, NAA, RELATIVE_PORT, PORT_GROUP, NAME, UUID = 1, 3, 4, 5, 8, 0xA  # designator types


def designator(code_set: int, kind: int, value: bytes) -> bytes:
    """A designation descriptor (SPC-5); `kind` is association, PIV and designator type."""
    protocol = _ISCSI if kind & 0x80 else 0
    return bytes([protocol | code_set, kind, 0, len(value)]) + value


def name(text: str) -> bytes:
    """A SCSI name string: ended by a null and padded to a multiple of four (SPC-5)."""
    data = text.encode() + b"\x00"
    return data + bytes(-len(data) % 4)


def naa(identity: Identity) -> bytes:
    """The NAA Locally Assigned designator (SPC-5): 3h and 60 bits of the UUID.

    The registered formats (5h, 6h) need a company identifier that this project has not got. The bits
    are those of the UUID that are random in its version 4: its version and variant are left out.
    """
    number = identity.uuid.int
    random = (number & (1 << 48) - 1) | (number >> 116) << 48  # the node's 48 bits and the first 12
    return (0x3 << 60 | random).to_bytes(8, "big")


@lru_cache(maxsize=1 << 15)
def unit_designators(identity: Identity) -> tuple[bytes, ...]:
    """The designation descriptors that stand for a logical unit itself, the one to prefer first."""
    identifier = naa(identity)
    return (
        designator(BINARY, UNIT | NAA, identifier),
        designator(ASCII, UNIT | T10, f"{VENDOR:8}{identity.uuid.hex}".encode()),
        designator(UTF8, UNIT | NAME, name(f"naa.{identifier.hex()}")),
        designator(BINARY, UNIT | UUID, b"\x10\x00" + identity.uuid.bytes),
    )
