"""How fast a drive is, and is asked to be (MMC-6). It reads as fast as it can whatever is said; what was said is shown."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from blockyard.optical.kinds import BLOCK
from blockyard.scsi.sense import invalid_field, invalid_parameter, parameter_list_length_error

if TYPE_CHECKING:
    from blockyard.optical.drive import OpticalDrive
    from blockyard.scsi.task import Buffer, Task

BUFFER = 2 << 20  # bytes that the drive says it buffers: the page cache is larger
_FULL_SPEED = 0xFFFF
_PERFORMANCE, _WRITE_SPEED = 0x00, 0x03  # TYPE
_DESCRIPTOR = 28  # bytes of a performance descriptor


def set_cd_speed(drive: OpticalDrive, task: Task) -> Buffer:
    speed = task.fields["read_speed"]
    drive.speed = None if speed == _FULL_SPEED else speed
    drive.update()
    return b""


def check_set_streaming(drive: OpticalDrive, task: Task) -> None:
    if task.fields["type"]:
        raise invalid_field(8)  # 05h, the size of a cache, is of drives that write
    if task.fields["parameter_list_length"] not in (0, _DESCRIPTOR):
        raise parameter_list_length_error()


def set_streaming(drive: OpticalDrive, task: Task) -> Buffer:
    data = bytes(task.data_out)
    if not data:
        return b""
    if len(data) < _DESCRIPTOR:
        raise parameter_list_length_error()
    start, end, size, time = struct.unpack_from(">IIII", data, 4)
    if end < start:
        raise invalid_parameter(8)
    if data[0] & 0x04 or not time:  # RDD: as it was at first
        drive.speed = None if data[0] & 0x04 else drive.speed
    else:
        drive.speed = min(size * 1000 // time, _FULL_SPEED)  # kilobytes a second; the time is in milliseconds
    drive.update()
    return b""


def check_get_performance(drive: OpticalDrive, task: Task) -> None:
    if task.fields["type"] not in (_PERFORMANCE, _WRITE_SPEED):
        raise invalid_field(10)


def get_performance(drive: OpticalDrive, task: Task) -> Buffer:
    """Nominal performance, the same from the first block to the last. Discs that are written are so at the same speed."""
    fields = task.fields
    disc = drive.loaded()
    write, exceptions = fields["data_type"] & 0x04, fields["data_type"] & 0x03
    if fields["type"] == _WRITE_SPEED and disc.kind.writable and fields["maximum_descriptors"]:
        speed = disc.kind.speed
        return struct.pack(">I4x4xIII", 4 + 16, disc.blocks - 1, speed, speed)
    if (
        fields["type"] == _WRITE_SPEED
        or (write and not disc.kind.writable)
        or exceptions
        or not fields["maximum_descriptors"]
    ):
        flags = (write >> 1) | (exceptions != 0) if fields["type"] == _PERFORMANCE else 0
        return struct.pack(">IB3x", 4, flags)
    speed = drive.current_speed
    return struct.pack(">IB3xIIII", 4 + 16, write >> 1, 0, speed, disc.blocks - 1, speed)


def read_buffer_capacity(drive: OpticalDrive, task: Task) -> Buffer:
    unit = BLOCK if task.fields["block"] else 1
    return struct.pack(">HxBII", 10, task.fields["block"], BUFFER // unit, BUFFER // unit)
