"""Commands whose whole range changes in one step: ORWRITE and WRITE ATOMIC (SBC-4).

Both run alone in their unit, as COMPARE AND WRITE does, so that no other command sees them half done. ORWRITE promises
no more than that. WRITE ATOMIC promises that a crash leaves all of the old data or all of the new: what is to be
written goes to a journal first (block/journal.py), and is written again when the unit is opened after a crash.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard.block.information import LENGTH
from blockyard.block.protected import join
from blockyard.scsi import limits, medium, protection
from blockyard.scsi.sense import Asc, CheckCondition, SenseKey, invalid_field

if TYPE_CHECKING:
    from blockyard.scsi.task import Buffer, Task
    from blockyard.scsi.unit import LogicalUnit

_PAGE = 4096  # bytes: what is written in part has to be read first, and takes two writes of a disk


def granularity(unit: LogicalUnit) -> int:
    """ATOMIC ALIGNMENT and ATOMIC TRANSFER LENGTH GRANULARITY (SBC-4, VPD page B0h) in blocks."""
    return max(1, _PAGE >> unit.shift)


def max_blocks(unit: LogicalUnit) -> int:
    """MAXIMUM ATOMIC TRANSFER LENGTH (SBC-4, VPD page B0h)."""
    return limits.ATOMIC_BYTES >> unit.shift


def orwrite(unit: LogicalUnit, task: Task) -> Buffer:
    """Set the bits that are set in the Data-Out; those that have not been sent leave the medium as it is."""
    fields = task.fields
    if not task.data_out:
        return b""
    data, information = protection.received(unit, task, task.data_out)
    sent = bytes(data)
    rest = -len(sent) % unit.block_size
    old = medium.read(unit, fields["lba"] << unit.shift, len(sent) + rest)
    both = int.from_bytes(old, "little") | int.from_bytes(sent, "little")
    new = both.to_bytes(len(old), "little")
    if information is not None and unit.protection is not None:
        information = unit.protection.fitting(
            new, information, fields["lba"]
        )  # tags as they were sent, guards as they are now
    medium.write(unit, new, fields["lba"] << unit.shift, stable=fields["fua"], information=information)
    return b""


def check_write_atomic(unit: LogicalUnit, task: Task) -> None:
    fields = task.fields
    step, most = granularity(unit), max_blocks(unit)
    boundary = fields["atomic_boundary"]
    if fields["lba"] % step:
        raise invalid_field(2)
    if fields["count"] % step or fields["count"] > most:
        raise invalid_field(12)
    if boundary % step or boundary > most:
        raise invalid_field(10)
    if task.data_out_length != task.expected:  # part of it would be neither all nor nothing
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT)


def write_atomic(unit: LogicalUnit, task: Task) -> Buffer:
    """ATOMIC BOUNDARY lets the device server write in several atomic steps; one for all is never less than that."""
    fields = task.fields
    if not task.data_out:
        return b""
    data, information = protection.received(unit, task, task.data_out)
    if unit.protection is None:
        unit.journal.write(data, fields["lba"] << unit.shift)
    else:
        if information is None:
            information = unit.protection.generate(data, fields["lba"])
        image = join(data, information, unit.block_size)
        unit.journal.write(image, fields["lba"] * (unit.block_size + LENGTH))
    return b""
