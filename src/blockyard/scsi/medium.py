"""Reading and writing the medium: what every handler that touches blocks goes through."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from blockyard.block.information import LENGTH
from blockyard.block.protected import Part, ProtectionError
from blockyard.scsi.sense import MEDIUM_ERRNOS, Asc, CheckCondition, MediumFailure, ReadFailure, SenseKey

if TYPE_CHECKING:
    from blockyard.scsi.task import Buffer
    from blockyard.scsi.unit import LogicalUnit


_FAILED = {
    Part.GUARD: Asc.LOGICAL_BLOCK_GUARD_CHECK_FAILED,
    Part.APPLICATION_TAG: Asc.LOGICAL_BLOCK_APPLICATION_TAG_CHECK_FAILED,
    Part.REFERENCE_TAG: Asc.LOGICAL_BLOCK_REFERENCE_TAG_CHECK_FAILED,
}


def read(unit: LogicalUnit, offset: int, length: int) -> bytearray:
    """Bytes of the medium. An OSError comes out as a ReadFailure."""
    data = bytearray(length)

    def attempt(start: int, size: int) -> None:
        unit.device.preadv([memoryview(data)[:size]], start)

    access(ReadFailure, unit, attempt, offset, length)
    return data


def write(unit: LogicalUnit, data: Buffer, offset: int, *, stable: int, information: bytes | None = None) -> None:
    """Write bytes to the medium; on stable storage when this returns if `stable`, or the write cache is off.

    `information` is the protection information of whole blocks on a unit that has some; else it is made.
    """

    def attempt(start: int, size: int) -> None:
        piece = memoryview(data)[start - offset : start - offset + size]
        if information is None:
            unit.device.pwritev([piece], start)
        else:
            assert unit.protection is not None
            first, number = start - offset >> unit.shift, size >> unit.shift
            own = information[LENGTH * first : LENGTH * (first + number)]
            unit.protection.write_blocks(start >> unit.shift, piece, own)

    access(MediumFailure, unit, attempt, offset, len(data))
    if stable or not unit.write_back:
        unit.device.flush()


def access(
    kind: type[MediumFailure], unit: LogicalUnit, attempt: Callable[[int, int], None], offset: int, length: int
) -> None:
    """Attempt to access a range of the medium; a failure names the block that is to blame, where there is one."""
    try:
        attempt(offset, length)
    except ProtectionError as error:
        raise failed_check(error) from error
    except OSError as error:
        raise _located(kind, error, unit, offset, length, attempt) from error


def failed_check(error: ProtectionError) -> CheckCondition:
    """What an initiator is told of protection information that does not fit its block (SBC-4)."""
    return CheckCondition(SenseKey.ABORTED_COMMAND, _FAILED[error.part], information=error.lba)


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
