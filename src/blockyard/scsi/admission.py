"""What a logical unit would say to a command, asked for somebody who acts on an initiator's behalf (SPC-5, copy manager)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from blockyard.scsi.sense import Asc, CheckCondition, SenseKey
from blockyard.scsi.task import Task
from blockyard.scsi.tokens import revoke

if TYPE_CHECKING:
    from blockyard.scsi.nexus import Nexus
    from blockyard.scsi.unit import LogicalUnit

TEST_UNIT_READY, READ, WRITE = 0x00, 0x88, 0x8A  # operation codes of the commands that are asked for


def admit(unit: LogicalUnit, nexus: Nexus, opcode: int, lba: int = 0, count: int = 0) -> None:
    """Raise what the command would end with now: the checks of LogicalUnit but for unit attentions, which stay pending.

    A WRITE that is admitted is on its way: tokens of what it changes are revoked.
    """
    command = unit.commands.get(opcode, None)
    assert command is not None
    task = Task(nexus, struct.pack(">BxQIxx", opcode, lba, count))
    unit.reservations.check(command, task)
    nexus.ports.check(command, nexus)
    if nexus.read_only and command.writes:
        raise CheckCondition(SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED)
    unit.check_admitted(command)
    fields = {"lba": lba, "count": count}
    unit.check_medium(command, fields)
    unit.count(command, fields)
    if command.writes:
        revoke(unit, lba, count)
