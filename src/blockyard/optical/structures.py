"""READ DISC STRUCTURE (MMC-6): what the lead-in of a DVD or BD says about it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from blockyard.optical.disc import Disc
from blockyard.optical.kinds import BD, BD_RE, DVD, Kind
from blockyard.scsi.sense import Asc, CheckCondition, SenseKey, invalid_field

if TYPE_CHECKING:
    from blockyard.optical.drive import OpticalDrive
    from blockyard.scsi.task import Buffer, Task

MEDIA_TYPES: tuple[tuple[Kind, ...], ...] = ((DVD,), (BD, BD_RE))  # by MEDIA TYPE
LIST = 0xFF
_READABLE = 0x40  # RDS
_DVD_START = 0x030000  # physical sector number of the first block (ECMA-267)
_SECTOR_MASK = 0xFFFFFF

Structure = Callable[[Disc, int], bytes]  # of a layer


def _dvd_physical(disc: Disc, layer: int) -> bytes:
    """Physical format information of a DVD-ROM (ECMA-267 16.1): two layers lie on opposite track paths."""
    last, last_of_first = _DVD_START + disc.blocks - 1, 0
    if disc.layers > 1:  # the second layer is read from the outside in: its numbers are the complement of the first's
        first = -(-disc.blocks // 2 // DVD.blocking) * DVD.blocking
        last_of_first = _DVD_START + first - 1
        last = (~last_of_first & _SECTOR_MASK) + disc.blocks - first - 1
    layers = (disc.layers - 1) << 5 | (disc.layers > 1) << 4 | 0x01  # embossed
    return struct.pack(">BBBBIII", 0x01, 0x0F, layers, 0x00, _DVD_START, last, last_of_first).ljust(2048, b"\0")


def _copyright(disc: Disc, layer: int) -> bytes:
    return bytes(4)  # no protection system; all regions


def _manufacturing(disc: Disc, layer: int) -> bytes:
    return bytes(2048)


def _bd_information(disc: Disc, layer: int) -> bytes:
    """Disc information: one unit for each layer (BD white paper, physical format of BD-ROM)."""
    units = b"".join(
        struct.pack(">2sBBBxB", b"DI", 1, disc.layers << 3 | number, number, 98)
        + (b"BDW\0" if disc.kind.writable else b"BDO\0") + struct.pack(">BBB", 0, disc.layers << 4 | 0x01, 0x00)
        for number in range(disc.layers)
    )  # fmt: skip
    return units.ljust(4096, b"\0")


STRUCTURES: dict[tuple[int, int], tuple[int, Structure]] = {  # media type and format → length, content
    (0, 0x00): (2048, _dvd_physical),
    (0, 0x01): (4, _copyright),
    (0, 0x04): (2048, _manufacturing),
    (1, 0x00): (4096, _bd_information),
}


def read_disc_structure(drive: OpticalDrive, task: Task) -> Buffer:
    fields = task.fields
    disc, kind, wanted = drive.loaded(), fields["media_type"], fields["format"]
    if wanted == LIST:
        return _counted(_list(kind))
    if kind >= len(MEDIA_TYPES) or disc.kind not in MEDIA_TYPES[kind]:
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.CANNOT_READ_MEDIUM_INCOMPATIBLE_FORMAT)
    if (kind, wanted) not in STRUCTURES:
        raise invalid_field(7)
    if fields["layer"] >= disc.layers:
        raise invalid_field(6)
    return _counted(STRUCTURES[kind, wanted][1](disc, fields["layer"]))


def _list(kind: int) -> bytes:
    """The structures of a media type: format, RDS, length with the header."""
    return b"".join(
        struct.pack(">BBH", code, _READABLE, 4 + length) for (of, code), (length, _) in STRUCTURES.items() if of == kind
    )


def _counted(data: bytes) -> bytes:
    return struct.pack(">Hxx", len(data) + 2) + data
