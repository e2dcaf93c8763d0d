"""Commands that write to discs of which any block can be written, again and again: BD-RE (MMC-6, random writable).

The page cache is the drive's: what was written survives the death of the process, and power loss after SYNCHRONIZE CACHE.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard.optical.kinds import BLOCK
from blockyard.optical.reading import check_range, read_blocks
from blockyard.scsi.sense import invalid_parameter, parameter_list_length_error

if TYPE_CHECKING:
    from blockyard.optical.drive import OpticalDrive
    from blockyard.scsi.task import Buffer, Task

_PIECE = 512  # blocks that VERIFY reads together
_FORMAT_LIST = 12  # bytes: header and one format descriptor
_FULL_FORMAT, _BD_FORMATS = 0x00, (0x30, 0x31)  # FORMAT TYPE


def blocks(fields: dict[str, int], block_size: int) -> int:
    """The Data-Out of WRITE."""
    return fields["count"] * block_size


def format_list(fields: dict[str, int], block_size: int) -> int:
    """The Data-Out of FORMAT UNIT."""
    return _FORMAT_LIST if fields["fmtdata"] else 0


def write(drive: OpticalDrive, task: Task) -> Buffer:
    """WRITE (10) and (12): what has come of whole blocks."""
    assert task.command is not None
    drive.check_same_medium(task)  # while the data came
    drive.check_ready(task.command, task)
    disc, data = drive.loaded(), memoryview(task.data_out)
    whole = len(data) // BLOCK * BLOCK
    if whole:
        disc.write(task.fields["lba"] * BLOCK, data[:whole])
    if task.fields["fua"]:
        disc.flush()
    return b""


def verify(drive: OpticalDrive, task: Task) -> Buffer:
    """VERIFY (10): the blocks are read."""
    disc, lba, count = drive.loaded(), task.fields["lba"], task.fields["count"]
    check_range(disc, lba, count)
    for at in range(lba, lba + count, _PIECE):
        read_blocks(disc, at, min(_PIECE, lba + count - at))
    return b""


def synchronize_cache(drive: OpticalDrive, task: Task) -> Buffer:
    disc = drive.disc
    if disc is not None:
        disc.flush()
    return b""


def format_unit(drive: OpticalDrive, task: Task) -> Buffer:
    """Discs come formatted, and formatting keeps what is on them (MMC-6: the contents are not specified)."""
    data, disc = bytes(task.data_out), drive.loaded()
    if not task.fields["fmtdata"]:
        return b""
    if len(data) < _FORMAT_LIST:
        raise parameter_list_length_error()
    kind = data[8] >> 2
    if kind not in (_FULL_FORMAT, *_BD_FORMATS):
        raise invalid_parameter(8, 7)
    if kind == _FULL_FORMAT and int.from_bytes(data[4:8], "big") not in (0, disc.blocks):
        raise invalid_parameter(4)
    return b""
