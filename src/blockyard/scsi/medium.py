"""Reading and writing the medium: what every handler that touches blocks goes through."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard.scsi.sense import ReadFailure

if TYPE_CHECKING:
    from blockyard.scsi.task import Buffer
    from blockyard.scsi.unit import LogicalUnit


def read(unit: LogicalUnit, offset: int, length: int) -> bytearray:
    """Bytes of the medium. An OSError comes out as a ReadFailure."""
    data = bytearray(length)
    try:
        unit.device.preadv([memoryview(data)], offset)
    except OSError as error:
        raise ReadFailure(error.errno, error.strerror, error.filename) from error
    return data


def write(unit: LogicalUnit, data: Buffer, offset: int, *, stable: int) -> None:
    """Write bytes to the medium; on stable storage when this returns if `stable`, or the write cache is off."""
    unit.device.pwritev([data], offset)
    if stable or not unit.write_back:
        unit.device.flush()
