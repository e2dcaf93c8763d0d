"""READ DISC STRUCTURE (MMC-6): what the lead-in of a DVD or BD says about it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from blockyard.optical.disc import Disc
from blockyard.optical.kinds import DVD, Writing
from blockyard.scsi.sense import Asc, CheckCondition, SenseKey, invalid_field

if TYPE_CHECKING:
    from blockyard.optical.drive import OpticalDrive
    from blockyard.scsi.task import Buffer, Task

MEDIA_TYPES = ("dvd", "bd")  # families of discs by MEDIA TYPE
_MEDIA_ID = b"BLOCKYRD"
LIST = 0xFF
_MINUS = ("dvd-r", "dvd-rw", "dvd-r-dl")
_OF_KINDS = {  # those of some kinds of disc only
    (0, 0x09): ("dvd-ram",), (0, 0x0E): _MINUS, (0, 0x10): _MINUS, (0, 0x11): ("dvd+r", "dvd+rw", "dvd+r-dl", "dvd+rw-dl"),
}  # fmt: skip
_READABLE = 0x40  # RDS
_DVD_START = 0x030000  # physical sector number of the first block (ECMA-267)
_SECTOR_MASK = 0xFFFFFF

_LAYER_TYPES = {Writing.NEVER: 0x01, Writing.ONCE: 0x02, Writing.AGAIN: 0x04, Writing.ANYWHERE: 0x04}  # embossed, …
_BD_TYPES = {Writing.NEVER: b"BDO\0", Writing.ONCE: b"BDR\0", Writing.ANYWHERE: b"BDW\0"}

Structure = Callable[[Disc, int], bytes]  # of a layer


def _dvd_physical(disc: Disc, layer: int) -> bytes:
    """Physical format information of a DVD (ECMA-267 16.1 and its sisters): two layers lie on opposite track paths."""
    blocks = disc.blocks or disc.capacity
    last, last_of_first = _DVD_START + blocks - 1, 0
    if disc.layers > 1:  # the second layer is read from the outside in: its numbers are the complement of the first's
        first = -(-blocks // 2 // DVD.blocking) * DVD.blocking
        last_of_first = _DVD_START + first - 1
        last = (~last_of_first & _SECTOR_MASK) + blocks - first - 1
    layers = (disc.layers - 1) << 5 | (disc.layers > 1) << 4 | _LAYER_TYPES[disc.kind.writing]
    return struct.pack(
        ">BBBBIII", disc.kind.book << 4 | 0x01, 0x0F, layers, 0x00, _DVD_START, last, last_of_first
    ).ljust(2048, b"\0")


def _copyright(disc: Disc, layer: int) -> bytes:
    return bytes(4)  # no protection system; all regions


def _manufacturing(disc: Disc, layer: int) -> bytes:
    return bytes(2048)


def _pre_recorded(disc: Disc, layer: int) -> bytes:
    """What DVD-R and DVD-RW have in their lead-in at first: fields of eight bytes, among them the manufacturer."""
    fields = [
        b"\x01\x40\0\0\0\0\0\0",
        bytes(8),
        b"\x03" + _MEDIA_ID[:6] + b"\0",
        b"\x04" + _MEDIA_ID[6:].ljust(7, b"\0"),
    ]
    return b"".join(fields).ljust(40, b"\0")


def _groove(disc: Disc, layer: int) -> bytes:
    """ADIP of DVD+R and DVD+RW: the physical format, with the manufacturer at byte 19."""
    data = bytearray(_dvd_physical(disc, layer)[:256])
    data[19:27] = _MEDIA_ID
    return bytes(data)


def _ram_status(disc: Disc, layer: int) -> bytes:
    """Medium status of a DVD-RAM: not in a cartridge, nothing protected."""
    return bytes(4)


def _bd_information(disc: Disc, layer: int) -> bytes:
    """Disc information: one unit for each layer (BD white paper, physical format of BD-ROM)."""
    units = b"".join(
        struct.pack(">2sBBBxB", b"DI", 1, disc.layers << 3 | number, number, 98)
        + _BD_TYPES[disc.kind.writing] + struct.pack(">BBB", 0, disc.layers << 4 | 0x01, 0x00)
        for number in range(disc.layers)
    )  # fmt: skip
    return units.ljust(4096, b"\0")


STRUCTURES: dict[tuple[int, int], tuple[int, Structure]] = {  # media type and format → length, content
    (0, 0x00): (2048, _dvd_physical),
    (0, 0x01): (4, _copyright),
    (0, 0x04): (2048, _manufacturing),
    (0, 0x09): (4, _ram_status),
    (0, 0x0E): (40, _pre_recorded),
    (0, 0x10): (2048, _dvd_physical),
    (0, 0x11): (256, _groove),
    (1, 0x00): (4096, _bd_information),
}


def read_disc_structure(drive: OpticalDrive, task: Task) -> Buffer:
    fields = task.fields
    disc, kind, wanted = drive.loaded(), fields["media_type"], fields["format"]
    if wanted == LIST:
        return _counted(_list(kind, disc))
    if kind >= len(MEDIA_TYPES) or disc.kind.family != MEDIA_TYPES[kind]:
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.CANNOT_READ_MEDIUM_INCOMPATIBLE_FORMAT)
    if (kind, wanted) not in STRUCTURES or not _has(disc, kind, wanted):
        raise invalid_field(7)
    if fields["layer"] >= disc.layers:
        raise invalid_field(6)
    return _counted(STRUCTURES[kind, wanted][1](disc, fields["layer"]))


def _list(kind: int, disc: Disc) -> bytes:
    """The structures of a media type: format, RDS, length with the header."""
    return b"".join(
        struct.pack(">BBH", code, _READABLE, 4 + length)
        for (of, code), (length, _) in STRUCTURES.items()
        if of == kind and _has(disc, of, code)
    )


def _has(disc: Disc, kind: int, code: int) -> bool:
    return disc.kind.name in _OF_KINDS.get((kind, code), (disc.kind.name,))


def _counted(data: bytes) -> bytes:
    return struct.pack(">Hxx", len(data) + 2) + data
