"""FORMAT UNIT (SBC-4): all blocks are initialized.

Without an initialization pattern they are freed, and read as zeros. Capacity and block length stay as they are: MODE
SELECT refuses others. There are no defects, so that a list of them is refused, and the bits that say what to do about
them (DPRY, DCRT, STPF) mean nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blockyard.scsi.overhaul import Overhaul
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
_DEFAULT, _REPEAT = 0x00, 0x01  # INITIALIZATION PATTERN TYPE


class Format(Overhaul):
    """A format operation. One that has failed leaves a medium that cannot be used until it is formatted."""

    kind = "format"
    in_progress = Asc.LOGICAL_UNIT_NOT_READY_FORMAT_IN_PROGRESS
    failure = Asc.FORMAT_COMMAND_FAILED

    @classmethod
    def resumed(cls, unit: LogicalUnit, document: dict[str, Any]) -> Format:
        pattern = document["pattern"]
        return cls(unit, [pattern and bytes.fromhex(pattern)], done=document["done"], failed=document["failed"])

    def document(self) -> dict[str, Any]:
        (block,) = self.passes
        return {"pattern": block and block.hex()}

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
    if not fields["fmtdata"]:
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
    block, immed = (
        _parameters(unit, bytes(task.data_out), long=bool(fields["longlist"])) if task.data_out else (None, 0)
    )
    fields["immed"] = immed
    task.overhaul = Format(unit, [block])
    task.overhaul.begin()
    return b""


def _parameters(unit: LogicalUnit, data: bytes, *, long: bool) -> tuple[bytes | None, int]:
    """What the parameter list asks for: the contents of each block (None: its space is freed), and IMMED."""
    header = 8 if long else 4
    if data[0]:
        raise invalid_parameter(0)
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
