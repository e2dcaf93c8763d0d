"""FORMAT UNIT (SBC-4): all blocks are initialized.

Without an initialization pattern they are freed, and read as zeros. Capacity and block length stay as they are: MODE
SELECT refuses others. On a unit with protection information FMTPINFO and PROTECTION FIELD USAGE choose its type from then
on; the information of all blocks becomes FFh, which protects nothing.

There are no defects, so that a list of them is refused, and the bits that say what to do about them (DPRY, DCRT, STPF)
mean nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blockyard.scsi.overhaul import Overhaul
from blockyard.scsi.protection import change_type
from blockyard.scsi.sanitize import OPCODE as SANITIZE
from blockyard.scsi.sense import Asc, CheckCondition, SenseKey, invalid_parameter, parameter_list_length_error

if TYPE_CHECKING:
    from blockyard.scsi.cdb import Command
    from blockyard.scsi.task import Buffer, Task
    from blockyard.scsi.unit import LogicalUnit

OPCODE = 0x04
_MAX_LIST = (
    8 + 4 + 4096
)  # bytes of the longest parameter list that makes sense: long header, pattern descriptor, pattern
_FOV, _IP, _IMMED, _DEFECT_FLAGS, _OBSOLETE = 0x80, 0x08, 0x02, 0x70, 0x05  # byte 1 of the header
_TYPES = {(0, 0): 0, (2, 0): 1, (3, 0): 2, (3, 1): 3}  # protection type by FMTPINFO and PROTECTION FIELD USAGE
_DEFAULT, _REPEAT = 0x00, 0x01  # INITIALIZATION PATTERN TYPE


class Format(Overhaul):
    """A format operation. One that has failed leaves a medium that cannot be used until it is formatted."""

    kind = "format"
    in_progress = Asc.LOGICAL_UNIT_NOT_READY_FORMAT_IN_PROGRESS
    failure = Asc.FORMAT_COMMAND_FAILED

    def __init__(
        self, unit: LogicalUnit, block: bytes | None, *, protection_type: int, done: int = 0, failed: bool = False
    ) -> None:
        super().__init__(unit, [block], done=done, failed=failed)
        self.protection_type = protection_type

    @classmethod
    def resumed(cls, unit: LogicalUnit, document: dict[str, Any]) -> Format:
        pattern, kind = document["pattern"], document["protection_type"]
        block = None if pattern is None else bytes.fromhex(pattern)
        return cls(unit, block, protection_type=kind, done=document["done"], failed=document["failed"])

    def document(self) -> dict[str, Any]:
        (block,) = self.passes
        return {"pattern": None if block is None else block.hex(), "protection_type": self.protection_type}

    def leave(self) -> None:
        if self.unit.protection is not None:
            change_type(self.unit, self.protection_type)
        super().leave()

    def admits(self, command: Command) -> bool:
        if self.failed:
            return not command.medium or command.opcode in (OPCODE, SANITIZE)
        return command.exempt or command.unready

    def refusal(self) -> CheckCondition:
        if self.failed:
            return CheckCondition(SenseKey.MEDIUM_ERROR, Asc.MEDIUM_FORMAT_CORRUPTED)
        return self.not_ready()


def check(unit: LogicalUnit, task: Task) -> None:
    """Only the parameter list says how long it is, so that all that is announced is taken, within reason."""
    fields, command = task.fields, task.command
    assert command is not None
    if fields["fmtpinfo"] and unit.protection is None:
        raise command.invalid("fmtpinfo")
    if not fields["fmtdata"]:
        if (fields["fmtpinfo"], 0) not in _TYPES:
            raise command.invalid("fmtpinfo")
        if fields["longlist"]:
            raise command.invalid("longlist")
        if fields["cmplst"]:
            raise command.invalid("cmplst")
        return
    task.expected = task.data_out_length
    header = 8 if fields["longlist"] else 4
    if not header <= task.data_out_length <= _MAX_LIST:
        raise parameter_list_length_error()


def format_unit(unit: LogicalUnit, task: Task) -> Buffer:
    fields = task.fields
    data = bytes(task.data_out)
    usage = data[0] & 7 if data else 0
    if (fields["fmtpinfo"], usage) not in _TYPES:
        raise invalid_parameter(0, 2)
    block, immed = _parameters(unit, data, long=bool(fields["longlist"])) if data else (None, 0)
    fields["immed"] = immed
    task.overhaul = Format(unit, block, protection_type=_TYPES[fields["fmtpinfo"], usage])
    task.overhaul.begin()
    return b""


def _parameters(unit: LogicalUnit, data: bytes, *, long: bool) -> tuple[bytes | None, int]:
    """What the parameter list asks for: the contents of each block (None: its space is freed), and IMMED."""
    header = 8 if long else 4
    if data[0] & 0xF8:
        raise invalid_parameter(0, data[0].bit_length() - 1)
    if data[1] & _OBSOLETE:
        raise invalid_parameter(1, 2 if data[1] & 4 else 0)
    if not data[1] & _FOV and data[1] & (_DEFECT_FLAGS | _IP):
        raise invalid_parameter(1, (data[1] & (_DEFECT_FLAGS | _IP)).bit_length() - 1)
    if long and data[3]:
        raise invalid_parameter(3)
    length_at = header - (4 if long else 2)
    if any(data[length_at:header]):
        raise invalid_parameter(length_at)  # a defect list
    block = _pattern(unit, data, header) if data[1] & _IP else None
    return block, data[1] >> 1 & 1


def _pattern(unit: LogicalUnit, data: bytes, at: int) -> bytes | None:
    """The initialization pattern descriptor at `at`."""
    if len(data) < at + 4:
        raise parameter_list_length_error()
    kind, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
    pattern = data[at + 4 : at + 4 + length]
    if data[at] & 0xC0:  # obsolete: a header within each block
        raise invalid_parameter(at, 7)
    if kind not in (_DEFAULT, _REPEAT):
        raise invalid_parameter(at + 1)
    if length > unit.block_size or (length > 0) != (kind == _REPEAT):
        raise invalid_parameter(at + 2)
    if len(pattern) < length:
        raise parameter_list_length_error()
    if kind == _DEFAULT:
        return bytes(unit.block_size) if data[at] & 0x20 else None  # SI: what is there now has to be written over
    return (pattern * (unit.block_size // length + 1))[: unit.block_size]
