"""REPORT SUPPORTED OPERATION CODES, told from the command table (SPC-5)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from blockyard.scsi.sense import invalid_field

if TYPE_CHECKING:
    from blockyard.scsi.cdb import Command
    from blockyard.scsi.primary import PrimaryUnit
    from blockyard.scsi.task import Buffer, Task

_ALL, _BY_OPCODE, _BY_SERVICE_ACTION, _BY_EITHER = 0, 1, 2, 3  # REPORTING OPTIONS
_NOT_SUPPORTED, _SUPPORTED = 1, 3  # SUPPORT: as a standard says


def check(unit: PrimaryUnit, task: Task) -> None:
    fields = task.fields
    options, opcode = fields["reporting_options"], fields["requested_operation_code"]
    has_actions = unit.commands.has_actions(opcode)
    if options > _BY_EITHER:
        raise invalid_field(2, 2)
    if (options == _BY_OPCODE and has_actions) or (options == _BY_SERVICE_ACTION and not has_actions):
        known = has_actions or unit.find_command(opcode, None) is not None
        if known:  # of an unknown operation code nobody can say which of the two it should have been
            raise invalid_field(2, 2)


def report(unit: PrimaryUnit, task: Task) -> Buffer:
    fields = task.fields
    timeouts = bool(fields["rctd"])
    options = fields["reporting_options"]
    if options == _ALL:
        descriptors = b"".join(_descriptor(command, timeouts) for command in unit.supported_commands())
        return len(descriptors).to_bytes(4, "big") + descriptors
    action: int | None = fields["requested_service_action"]
    if options == _BY_OPCODE or (
        options == _BY_EITHER and not action and not unit.commands.has_actions(fields["requested_operation_code"])
    ):
        action = None
    command = unit.find_command(fields["requested_operation_code"], action)
    if command is None:
        return bytes([0, _NOT_SUPPORTED, 0, 0])
    usage = command.usage(protection=unit.protection is not None)
    head = struct.pack(">xBH", _SUPPORTED | (0x80 if timeouts else 0), len(usage)) + usage
    return head + (_timeouts(command) if timeouts else b"")


def _descriptor(command: Command, timeouts: bool) -> bytes:
    """A command descriptor (SPC-5): CTDP says that timeouts follow, SERVACTV that there is a service action."""
    flags = (0x02 if timeouts else 0) | (0 if command.service_action is None else 0x01)
    head = struct.pack(">BxHxBH", command.opcode, command.service_action or 0, flags, command.length)
    return head + (_timeouts(command) if timeouts else b"")


def _timeouts(command: Command) -> bytes:
    """A command timeouts descriptor (SPC-5): the nominal time is not indicated."""
    return struct.pack(">HxBII", 10, 0, 0, command.timeout)
