"""Commands that read the disc: READ, READ CD and READ CAPACITY (MMC-6)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from blockyard.optical.kinds import BLOCK, lba_of
from blockyard.optical.sectors import SectorType, q_as_recorded, q_channel, raw_sub_channels, sector, select
from blockyard.scsi import limits
from blockyard.scsi.sense import Asc, CheckCondition, ReadFailure, SenseKey, invalid_field

if TYPE_CHECKING:
    from blockyard.optical.disc import Disc
    from blockyard.optical.drive import OpticalDrive
    from blockyard.optical.layout import Track
    from blockyard.scsi.task import Buffer, Task

MOST = limits.MAX_TRANSFER // BLOCK  # blocks of one command
RAW_MOST = 1024  # sectors of one READ CD: their codes are computed
_USER_DATA = 0x10


def read(drive: OpticalDrive, task: Task) -> Buffer:
    return read_blocks(drive.loaded(), task.fields["lba"], task.fields["count"])


def check_range(disc: Disc, lba: int, count: int) -> None:
    if disc.recorder is None and lba + (count or 1) > disc.blocks:  # of others only tracks know
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE)


def read_blocks(disc: Disc, lba: int, count: int) -> bytearray:
    """Raises CheckCondition, and ReadFailure with the block that cannot be read."""
    check_range(disc, lba, count)
    try:
        return disc.read(lba, count)
    except OSError as error:
        raise _located(disc, error, lba, count) from error


def _located(disc: Disc, error: OSError, lba: int, count: int) -> ReadFailure:
    """The error, naming the first block that cannot be read."""
    failure = ReadFailure(error.errno, error.strerror, error.filename)
    for block in range(lba, lba + count):
        try:
            disc.read(block, 1)
        except OSError:
            failure.lba = block
            break
    return failure


def read_capacity(drive: OpticalDrive, task: Task) -> Buffer:
    return struct.pack(">II", max(drive.loaded().blocks - 1, 0), BLOCK)


def seek(drive: OpticalDrive, task: Task) -> Buffer:
    check_range(drive.loaded(), task.fields["lba"], 0)
    return b""


# ---- READ CD


def check_read_cd(drive: OpticalDrive, task: Task) -> None:
    fields = task.fields
    if fields["sector_type"] > SectorType.FORM_2:
        raise invalid_field(1, 4)
    if fields["sub_channel"] not in _SUB_CHANNELS:
        raise invalid_field(10, 2)
    if fields["main_channel"] & 0x07:  # C2 error information, which drives without that feature have not
        raise invalid_field(9, 2)


def read_cd(drive: OpticalDrive, task: Task) -> Buffer:
    return _read_cd(drive, task, task.fields["lba"], task.fields["count"])


def read_cd_msf(drive: OpticalDrive, task: Task) -> Buffer:
    first, end = (_lba_at(task, name, byte) for name, byte in (("first", 3), ("end", 6)))
    if first < 0 or end < first:
        raise invalid_field(3 if first < 0 else 6)
    return _read_cd(drive, task, first, end - first)


def _lba_at(task: Task, name: str, byte: int) -> int:
    minute, second, frame = task.fields[name].to_bytes(3, "big")
    if second > 59 or frame > 74:
        raise invalid_field(byte)
    return lba_of(minute, second, frame)


def _read_cd(drive: OpticalDrive, task: Task, lba: int, count: int) -> Buffer:
    disc, fields = drive.loaded(), task.fields
    wanted, parts, sub = fields["sector_type"], fields["main_channel"], fields["sub_channel"]
    if disc.kind.family != "cd":  # other discs have no such sectors
        if parts not in (0, _USER_DATA) or sub or wanted not in (SectorType.ANY, SectorType.MODE_1):
            raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.ILLEGAL_MODE_FOR_THIS_TRACK)
    elif not (disc.plain and parts in (0, _USER_DATA) and not sub):
        return _whole_sectors(disc, lba, count, fields)
    if wanted not in (SectorType.ANY, SectorType.MODE_1):
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.ILLEGAL_MODE_FOR_THIS_TRACK)
    if count > MOST:
        raise invalid_field(6)
    data = read_blocks(disc, lba, count)
    return data if parts == _USER_DATA else b""


def _whole_sectors(disc: Disc, lba: int, count: int, fields: dict[str, int]) -> Buffer:
    """Main channel and sub-channels of each sector."""
    wanted, parts, sub = fields["sector_type"], fields["main_channel"], _SUB_CHANNELS[fields["sub_channel"]]
    if count > RAW_MOST:
        raise invalid_field(6)
    check_range(disc, lba, count)
    found = bytearray()
    try:
        for track, at, stored in disc.sectors(lba, count):
            whole = sector(track, at, stored)
            if wanted not in (SectorType.ANY, whole.kind):
                raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.ILLEGAL_MODE_FOR_THIS_TRACK)
            found += select(whole, parts if whole.kind is not SectorType.AUDIO or not parts else _USER_DATA)
            if sub is not None:
                found += sub(disc, track, at)
    except OSError as error:
        raise _located(disc, error, lba, count) from error
    return found


def _raw(disc: Disc, track: Track, lba: int) -> bytes:
    return raw_sub_channels(q_as_recorded(track, lba, disc.text.catalog), paused=lba < track.start)


def _position(disc: Disc, track: Track, lba: int) -> bytes:
    """Q, and P in the last bit (MMC-6, formatted Q sub-channel)."""
    return q_channel(track, lba) + bytes([0, 0, 0, (lba < track.start) << 7])


def _r_to_w(disc: Disc, track: Track, lba: int) -> bytes:
    """Nothing is in these channels."""
    return bytes(96)


_SUB_CHANNELS = {0: None, 1: _raw, 2: _position, 4: _r_to_w}
