"""Reading and writing the medium: what every handler that touches blocks goes through."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from blockyard.scsi.sense import MEDIUM_ERRNOS, MediumFailure, ReadFailure

if TYPE_CHECKING:
    from blockyard.scsi.task import Buffer
    from blockyard.scsi.unit import LogicalUnit


def read(unit: LogicalUnit, offset: int, length: int) -> bytearray:
    """Bytes of the medium. An OSError comes out as a ReadFailure."""
    data = bytearray(length)
    try:
        unit.device.preadv([memoryview(data)], offset)
    except OSError as error:

        def again(start: int, size: int) -> None:
            unit.device.preadv([memoryview(data)[:size]], start)

        raise _located(ReadFailure, error, unit, offset, length, again) from error
    return data


def write(unit: LogicalUnit, data: Buffer, offset: int, *, stable: int) -> None:
    """Write bytes to the medium; on stable storage when this returns if `stable`, or the write cache is off."""
    try:
        unit.device.pwritev([data], offset)
    except OSError as error:

        def again(start: int, size: int) -> None:
            unit.device.pwritev([memoryview(data)[start - offset : start - offset + size]], start)

        raise _located(MediumFailure, error, unit, offset, len(data), again) from error
    if stable or not unit.write_back:
        unit.device.flush()


def _located(
    kind: type[MediumFailure],
    error: OSError,
    unit: LogicalUnit,
    offset: int,
    length: int,
    again: Callable[[int, int], None],
) -> MediumFailure:
    """`error` as a failure that names the first block that cannot be accessed: halves are tried until one block is left."""
    failure = kind(error.errno, error.strerror, error.filename)
    if error.errno not in MEDIUM_ERRNOS:
        return failure
    while length > unit.block_size:
        half = (length // unit.block_size + 1) // 2 * unit.block_size
        if _works(again, offset, half):
            offset, length = offset + half, length - half
        else:
            length = half
    if length > 0 and not _works(
        again, offset, length
    ):  # else it was a passing trouble, of no block that could be named
        failure.lba = offset >> unit.shift
    return failure


def _works(attempt: Callable[[int, int], None], offset: int, length: int) -> bool:
    try:
        attempt(offset, length)
    except OSError:
        return False
    return True
