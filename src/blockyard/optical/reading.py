"""Commands that read the disc: READ, READ CD, READ CAPACITY and READ FORMAT CAPACITIES (MMC-6)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from blockyard.optical.kinds import BLOCK, CD, lba_of
from blockyard.optical.sectors import select
from blockyard.scsi import limits
from blockyard.scsi.sense import Asc, CheckCondition, ReadFailure, SenseKey, invalid_field

if TYPE_CHECKING:
    from blockyard.optical.disc import Disc
    from blockyard.optical.drive import OpticalDrive
    from blockyard.scsi.task import Buffer, Task

MOST = limits.MAX_TRANSFER // BLOCK  # blocks of one command
RAW_MOST = 1024  # sectors of one READ CD: their codes are computed
_ANY, _MODE_1 = 0, 2  # EXPECTED SECTOR TYPE
_USER_DATA = 0x10
_FORMATTED, _NO_MEDIUM = 2, 3  # DESCRIPTOR TYPE
_FULL_FORMAT = 0x00  # FORMAT TYPE


def read(drive: OpticalDrive, task: Task) -> Buffer:
    return read_blocks(drive.loaded(), task.fields["lba"], task.fields["count"])


def check_range(disc: Disc, lba: int, count: int) -> None:
    if lba + (count or 1) > disc.blocks:
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE)


def read_blocks(disc: Disc, lba: int, count: int) -> bytearray:
    """Raises CheckCondition, and ReadFailure with the block that cannot be read."""
    check_range(disc, lba, count)
    try:
        return disc.read(lba * BLOCK, count * BLOCK)
    except OSError as error:
        raise _located(disc, error, lba, count) from error


def _located(disc: Disc, error: OSError, lba: int, count: int) -> ReadFailure:
    """The error, naming the first block that cannot be read."""
    failure = ReadFailure(error.errno, error.strerror, error.filename)
    for block in range(lba, lba + count):
        try:
            disc.read(block * BLOCK, BLOCK)
        except OSError:
            failure.lba = block
            break
    return failure


def read_capacity(drive: OpticalDrive, task: Task) -> Buffer:
    return struct.pack(">II", drive.loaded().blocks - 1, BLOCK)


def read_format_capacities(drive: OpticalDrive, task: Task) -> Buffer:
    """What the medium has, and what it can be formatted to: the same."""
    disc = drive.disc
    blocks, kind = (0, _NO_MEDIUM) if disc is None else (disc.blocks, _FORMATTED)
    formats = b"" if disc is None or not disc.kind.writable else struct.pack(">IBxxx", blocks, _FULL_FORMAT << 2)
    return struct.pack(">3xBIB", 8 + len(formats), blocks, kind) + BLOCK.to_bytes(3, "big") + formats


def seek(drive: OpticalDrive, task: Task) -> Buffer:
    check_range(drive.loaded(), task.fields["lba"], 0)
    return b""


# ---- READ CD


def check_read_cd(drive: OpticalDrive, task: Task) -> None:
    fields = task.fields
    if fields["sector_type"] not in (_ANY, _MODE_1):
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.ILLEGAL_MODE_FOR_THIS_TRACK)
    if fields["sub_channel"]:
        raise invalid_field(10, 2)
    if fields["main_channel"] & 0x07:  # C2 error information, which drives without that feature have not
        raise invalid_field(9, 2)


def read_cd(drive: OpticalDrive, task: Task) -> Buffer:
    fields = task.fields
    return _read_cd(drive, fields["lba"], fields["count"], fields["main_channel"])


def read_cd_msf(drive: OpticalDrive, task: Task) -> Buffer:
    first, end = (_lba_at(task, name, byte) for name, byte in (("first", 3), ("end", 6)))
    if first < 0 or end < first:
        raise invalid_field(3 if first < 0 else 6)
    return _read_cd(drive, first, end - first, task.fields["main_channel"])


def _lba_at(task: Task, name: str, byte: int) -> int:
    minute, second, frame = task.fields[name].to_bytes(3, "big")
    if second > 59 or frame > 74:
        raise invalid_field(byte)
    return lba_of(minute, second, frame)


def _read_cd(drive: OpticalDrive, lba: int, count: int, parts: int) -> Buffer:
    disc = drive.loaded()
    if disc.kind is not CD and parts not in (0, _USER_DATA):  # other discs have no such sectors
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.ILLEGAL_MODE_FOR_THIS_TRACK)
    if count > (MOST if parts in (0, _USER_DATA) else RAW_MOST):
        raise invalid_field(6)
    data = read_blocks(disc, lba, count)
    if parts == _USER_DATA:
        return data
    return b"".join(select(lba + at, data[at * BLOCK : (at + 1) * BLOCK], parts) for at in range(count) if parts)
