"""How fast a drive is, and is asked to be (MMC-6). It reads as fast as it can whatever is said; what was said is shown."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from blockyard.optical.kinds import BLOCK, Writing
from blockyard.scsi.sense import invalid_field, invalid_parameter, parameter_list_length_error

if TYPE_CHECKING:
    from blockyard.optical.drive import OpticalDrive
    from blockyard.scsi.task import Buffer, Task

BUFFER = 2 << 20  # bytes that the drive says it buffers: the page cache is larger
_FULL_SPEED = 0xFFFF
_PERFORMANCE, _WRITE_SPEED = 0x00, 0x03  # TYPE
_WRITE_SPEEDS = 3  # that are told: the fastest, and halves of it
_DESCRIPTOR = 28  # bytes of a performance descriptor


def set_cd_speed(drive: OpticalDrive, task: Task) -> Buffer:
    fields = task.fields
    drive.speed = _asked(fields["read_speed"])
    drive.write_speed = _asked(fields["write_speed"])
    drive.update()
    return b""


def _asked(speed: int) -> int | None:
    """None: as fast as it can."""
    return None if speed in (0, _FULL_SPEED) else speed


def check_set_streaming(drive: OpticalDrive, task: Task) -> None:
    if task.fields["type"]:
        raise invalid_field(8)  # 05h is the size of a cache for defects
    if task.fields["parameter_list_length"] not in (0, _DESCRIPTOR):
        raise parameter_list_length_error()


def set_streaming(drive: OpticalDrive, task: Task) -> Buffer:
    data = bytes(task.data_out)
    if not data:
        return b""
    if len(data) < _DESCRIPTOR:
        raise parameter_list_length_error()
    start, end, size, time, write_size, write_time = struct.unpack_from(">IIIIII", data, 4)
    if end < start:
        raise invalid_parameter(8)
    if data[0] & 0x04:  # RDD: as it was at first
        drive.speed = drive.write_speed = None
    else:
        drive.speed = _rate(size, time, drive.speed)
        drive.write_speed = _rate(write_size, write_time, drive.write_speed)
    drive.update()
    return b""


def _rate(size: int, time: int, before: int | None) -> int | None:
    """Kilobytes a second; the time is in milliseconds, and nothing is said where it is 0."""
    return min(size * 1000 // time, _FULL_SPEED) if time else before


def check_get_performance(drive: OpticalDrive, task: Task) -> None:
    if task.fields["type"] not in (_PERFORMANCE, _WRITE_SPEED):
        raise invalid_field(10)


def get_performance(drive: OpticalDrive, task: Task) -> Buffer:
    """Nominal performance, the same from the first block to the last. Discs that are written are so at the same speed."""
    fields = task.fields
    disc = drive.loaded()
    write, exceptions = fields["data_type"] & 0x04, fields["data_type"] & 0x03
    last, most = max(disc.capacity - 1, 0), fields["maximum_descriptors"]
    writes = disc.kind.writing is not Writing.NEVER
    if fields["type"] == _WRITE_SPEED and writes and most:
        speeds = [disc.kind.speed >> shift for shift in range(_WRITE_SPEEDS)][:most]
        descriptors = (struct.pack(">4xIII", last, disc.kind.speed, speed) for speed in speeds)
        return struct.pack(">I4x", 4 + 16 * len(speeds)) + b"".join(descriptors)
    if fields["type"] == _WRITE_SPEED or (write and not writes) or exceptions or not most:
        flags = (write >> 1) | (exceptions != 0) if fields["type"] == _PERFORMANCE else 0
        return struct.pack(">IB3x", 4, flags)
    speed = drive.current_write_speed if write else drive.current_speed
    return struct.pack(">IB3xIIII", 4 + 16, write >> 1, 0, speed, last, speed)


def read_buffer_capacity(drive: OpticalDrive, task: Task) -> Buffer:
    unit = BLOCK if task.fields["block"] else 1
    return struct.pack(">HxBII", 10, task.fields["block"], BUFFER // unit, BUFFER // unit)
