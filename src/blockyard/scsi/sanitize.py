"""SANITIZE (SBC-4): what was on the medium cannot be read any more.

OVERWRITE writes over all that the volume holds. BLOCK ERASE gives its space back; after it, what is read is zeros.
CRYPTOGRAPHIC ERASE throws the key of an encrypted volume away, which takes no longer for a large one, and then gives back the
space if that can be done; where it cannot, noise is read. Of a volume without a key it does what BLOCK ERASE does.

When a sanitize operation fails, the unit stays in failure mode, over restarts too: it can only be sanitized again, or,
when the one that failed allowed it (AUSE), be left as it is by EXIT FAILURE MODE.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blockyard.scsi.overhaul import Overhaul
from blockyard.scsi.sense import Asc, CheckCondition, SenseKey, invalid_parameter, parameter_list_length_error

if TYPE_CHECKING:
    from blockyard.scsi.cdb import Command
    from blockyard.scsi.task import Buffer, Task
    from blockyard.scsi.unit import LogicalUnit

OPCODE = 0x48
OVERWRITE, BLOCK_ERASE, CRYPTOGRAPHIC_ERASE, EXIT_FAILURE_MODE = 0x01, 0x02, 0x03, 0x1F
_HEADER = 4  # bytes of the OVERWRITE parameter list before its pattern


class Sanitize(Overhaul):
    """A sanitize operation. `ause`: it may be given up when it has failed."""

    kind = "sanitize"
    in_progress = Asc.LOGICAL_UNIT_NOT_READY_SANITIZE_IN_PROGRESS
    failure = Asc.SANITIZE_COMMAND_FAILED

    def __init__(
        self, unit: LogicalUnit, passes: list[bytes | None], *, ause: bool, keys: bool = False, done: int = 0,
        failed: bool = False,
    ) -> None:  # fmt: skip
        """`keys`: those go first."""
        super().__init__(unit, passes, done=done, failed=failed)
        self.ause = ause
        self.keys = keys

    @classmethod
    def resumed(cls, unit: LogicalUnit, document: dict[str, Any]) -> Sanitize:
        passes = [None if text is None else bytes.fromhex(text) for text in document["passes"]]
        return cls(
            unit,
            passes,
            ause=document["ause"],
            keys=document.get("keys", False),
            done=document["done"],
            failed=document["failed"],
        )

    def document(self) -> dict[str, Any]:
        return {"passes": [block and block.hex() for block in self.passes], "ause": self.ause, "keys": self.keys}

    def _work(self) -> None:
        if self.keys and not self.done and self.unit.device.erase_keys() and not self.unit.device.granularity:
            self.done = self._size
        else:
            super()._work()

    def admits(self, command: Command) -> bool:
        return command.exempt or command.unready or (self.failed and command.opcode == OPCODE)

    def refusal(self) -> CheckCondition:
        if self.failed:
            return CheckCondition(SenseKey.MEDIUM_ERROR, Asc.SANITIZE_COMMAND_FAILED)
        return self.not_ready()


def _failed(unit: LogicalUnit) -> Sanitize | None:
    return unit.overhaul if isinstance(unit.overhaul, Sanitize) and unit.overhaul.failed else None


def check(unit: LogicalUnit, task: Task) -> None:
    fields, command = task.fields, task.command
    assert command is not None
    length = fields["parameter_list_length"]
    right = _HEADER < length <= _HEADER + unit.block_size if fields["service_action"] == OVERWRITE else not length
    if not right:
        raise command.invalid("parameter_list_length")
    failed = _failed(unit)
    if failed is not None and not failed.ause:
        if fields["service_action"] == EXIT_FAILURE_MODE:
            raise command.invalid("service_action")
        if fields["ause"]:  # what failed in restricted completion mode is not got rid of in this way
            raise command.invalid("ause")
    if task.data_out_length < task.expected:
        raise parameter_list_length_error()


def overwrite(unit: LogicalUnit, task: Task) -> Buffer:
    data = bytes(task.data_out)
    count, test = data[0] & 0x1F, data[0] >> 5 & 3
    length = int.from_bytes(data[2:4], "big")
    if test:
        raise invalid_parameter(0, 6)
    if not count:
        raise invalid_parameter(0, 4)
    if not 0 < length <= unit.block_size or length > len(data) - _HEADER:
        raise invalid_parameter(2)
    pattern = data[_HEADER : _HEADER + length]
    block = (pattern * (unit.block_size // length + 1))[: unit.block_size]
    inverted = bytes(byte ^ 0xFF for byte in block) if data[0] & 0x80 else block
    # with INVERT the passes alternate, so that the last one leaves the pattern itself
    return _begin(unit, task, [block if (count - number) % 2 else inverted for number in range(count)])


def erase(unit: LogicalUnit, task: Task) -> Buffer:
    return _begin(unit, task, [None])


def erase_keys(unit: LogicalUnit, task: Task) -> Buffer:
    return _begin(unit, task, [None], keys=True)


def _begin(unit: LogicalUnit, task: Task, passes: list[bytes | None], *, keys: bool = False) -> Buffer:
    task.overhaul = Sanitize(unit, passes, ause=bool(task.fields["ause"]), keys=keys)
    task.overhaul.begin()
    return b""


def exit_failure_mode(unit: LogicalUnit, task: Task) -> Buffer:
    failed = _failed(unit)
    if failed is not None:
        failed.leave()
    return b""
