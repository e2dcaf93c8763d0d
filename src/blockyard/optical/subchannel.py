"""READ SUB-CHANNEL: a position, the catalog number of a CD, the ISRC of a track (MMC-6)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from blockyard.optical.kinds import msf
from blockyard.scsi.sense import Asc, CheckCondition, SenseKey, invalid_field

if TYPE_CHECKING:
    from blockyard.optical.disc import Disc
    from blockyard.optical.drive import OpticalDrive
    from blockyard.scsi.task import Buffer, Task

_POSITION, _CATALOG, _ISRC = 1, 2, 3  # SUB-CHANNEL PARAMETER LIST
_NO_STATUS = 0x15  # AUDIO STATUS: nothing is played


def check_read_sub_channel(drive: OpticalDrive, task: Task) -> None:
    if task.fields["subq"] and not _POSITION <= task.fields["parameter_list"] <= _ISRC:
        raise invalid_field(3)


def read_sub_channel(drive: OpticalDrive, task: Task) -> Buffer:
    fields, disc = task.fields, drive.loaded()
    if disc.kind.family != "cd":
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.CANNOT_READ_MEDIUM_INCOMPATIBLE_FORMAT)
    data = b""
    if fields["subq"]:
        wanted = fields["parameter_list"]
        if wanted == _POSITION:
            data = _position(disc, in_msf=bool(fields["msf"]))
        elif wanted == _CATALOG:
            data = _code(_CATALOG, 0, 0, disc.text.catalog, 15)
        else:
            data = _isrc(disc, fields["track"])
    return struct.pack(">BBH", 0, _NO_STATUS, len(data)) + data


def _position(disc: Disc, *, in_msf: bool) -> bytes:
    """That of a head which has just come in: the beginning of the first track."""
    track = disc.tracks[0] if disc.tracks else None
    control = track.control if track is not None else 0
    absolute = b"\0" + msf(0) if in_msf else bytes(4)
    return bytes([_POSITION, 0x10 | control, 1, 1]) + absolute + bytes(4)


def _isrc(disc: Disc, number: int) -> bytes:
    if not 1 <= number <= len(disc.tracks):
        raise invalid_field(6)
    track = disc.tracks[number - 1]
    return _code(_ISRC, _ISRC << 4 | track.control, number, track.isrc, 15)


def _code(kind: int, control: int, number: int, text: str, width: int) -> bytes:
    """VALID and the characters of a number, where there is one."""
    return bytes([kind, control, number, 0, bool(text) << 7]) + text.encode("latin-1", "replace")[:width].ljust(
        width, b"\0"
    )
