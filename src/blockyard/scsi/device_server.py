"""Device servers: what answers at a LUN, be there a logical unit or not (SAM-5).

A transport hands a task over in two steps (scsi/task.py). What these have in common, whatever kind of device answers, is here:
decoding by the command table, the road that errors take, what is counted and logged.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from threading import Lock

from blockyard import __version__
from blockyard.block.device import Overlapped, Quick
from blockyard.block.protected import ProtectedDevice
from blockyard.scsi.cdb import Command, CommandTable
from blockyard.scsi.commands import COMMANDS
from blockyard.scsi.designators import VENDOR
from blockyard.scsi.nexus import Nexus
from blockyard.scsi.operation import Operation
from blockyard.scsi.sense import Asc, CheckCondition, FieldPointer, SenseKey, StatusCondition, condition, failure
from blockyard.scsi.task import Buffer, Result, Task
from blockyard.scsi.taskset import Queueing, TaskSet
from blockyard.scsi.traffic import Ledger

log = logging.getLogger(__name__)

_QUIET = 60.0  # seconds between two log entries about the same kind of failure


class Counters:
    """What a logical unit has done. `errors` counts commands that failed, unit attentions and miscompares aside."""

    __slots__ = ("errors", "other_ops", "read_bytes", "read_ops", "write_bytes", "write_ops")

    def __init__(self) -> None:
        self.read_ops = 0
        self.read_bytes = 0
        self.write_ops = 0
        self.write_bytes = 0
        self.other_ops = 0
        self.errors = 0

    def as_dict(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in self.__slots__}


class Unit:
    """What answers at a LUN."""

    commands: CommandTable = COMMANDS
    peripheral: int  # PERIPHERAL QUALIFIER and PERIPHERAL DEVICE TYPE (SPC-5)
    tasks: TaskSet | None = None  # set by whoever runs its tasks; None where nothing waits or is aborted

    # what the data path looks at
    gate: object | None = None  # anything but None: every command takes the slow road
    fd: int = -1
    shift: int = 9
    blocks: int = 0
    quick: Quick | None = None
    read_flags: int = 0
    fast_read: bool = False
    fast_write: bool = False
    deferred: Overlapped | None = None  # where accesses begin that are answered later, unless something forbids that
    defer_writes: bool = False

    def __init__(self) -> None:
        self.counters = Counters()
        self.traffic = Ledger()
        self._counting = Lock()
        self._last_logged: dict[str, float] = {}

    # ---- the two steps of a task

    def begin(self, task: Task) -> Result | None:
        """Decode and check a task. None when nothing stands in the way, else the result it ends with."""
        if self.tasks is not None:
            self.tasks.enter(task)
        try:
            self._begin(task)
        except Exception as error:
            return self._failed(task, error)
        if self.tasks is not None:
            self.tasks.accept(task)
        return None

    def run(self, task: Task) -> Result:
        """Carry out a task that has begun, with its data in `task.data_out`."""
        command = task.command
        assert command is not None
        if command.in_pieces:
            ended: list[Result] = []
            self.operation(task, ended.append).start()
            return ended[0]
        try:
            return self._succeeded(task, command.run(self, task))
        except Exception as error:
            return self._failed(task, error)

    def operation(self, task: Task, done: Callable[[Result], None]) -> Operation:
        """What carries out a task whose command goes on in pieces, to be started; `done` gets the result."""
        command = task.command
        assert command is not None

        def end(outcome: Buffer | Exception) -> None:
            if isinstance(outcome, Exception):
                done(self._failed(task, outcome))
            else:
                done(self._succeeded(task, outcome))

        return Operation(command.run(self, task), end)

    def _succeeded(self, task: Task, data: Buffer) -> Result:
        assert task.command is not None
        if task.command.allocates and len(data) > task.fields["allocation_length"]:
            data = data[: task.fields["allocation_length"]]
        return Result(data=data, expected=task.expected)

    def _begin(self, task: Task) -> None:
        raise NotImplementedError

    def _decode(self, task: Task, command: Command | None) -> Command:
        """Take the CDB apart and check what holds for every command."""
        if command is None:
            raise self._unknown(task.cdb)
        length = command.length
        if len(task.cdb) < length:
            raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)
        number = int.from_bytes(task.cdb[:length], "big")
        task.command = command
        task.fields = fields = command.decode(number)
        task.expected = command.data_out(fields, self.block_length)
        command.check_reserved(number)
        return command

    @property
    def block_length(self) -> int:
        """The bytes of a block, as commands count them."""
        return 1 << self.shift

    def _unknown(self, cdb: bytes) -> CheckCondition:
        if self.commands.has_actions(cdb[0]):  # the operation code is known, its service action is not
            return CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB, pointer=FieldPointer(1, 4))
        return CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.INVALID_COMMAND_OPERATION_CODE, pointer=FieldPointer(0))

    def _failed(self, task: Task, error: Exception) -> Result:
        """The result of a task that ended with `error`, accounted for and logged."""
        if isinstance(error, StatusCondition):  # nothing has failed: another nexus stands in the way
            return failure(error, expected=task.expected)
        found = condition(error)
        if found is None or found.key not in (SenseKey.UNIT_ATTENTION, SenseKey.MISCOMPARE):
            with self._counting:
                self.counters.errors += 1
        fault = error.__cause__ if isinstance(error.__cause__, OSError) else error
        if fault is not found:
            self._log(task, fault, known=found is not None)
        return failure(error, descriptor=self.descriptor_sense, expected=task.expected)

    def _log(self, task: Task, error: Exception, *, known: bool) -> None:
        """Log a failure that is not the initiator's doing; of the same kind only one a minute."""
        kind = f"{type(error).__name__} {error}"
        now = time.monotonic()
        if now - self._last_logged.get(kind, -_QUIET) < _QUIET:
            return
        if len(self._last_logged) >= 100:
            self._last_logged.clear()
        self._last_logged[kind] = now
        name = task.command.name if task.command else f"command {task.cdb[0]:02X}h"
        if known:
            log.error("%s: %s of %s failed: %s", self, name, task.nexus.initiator, error)
        else:
            log.error("%s: %s of %s failed: %r", self, name, task.nexus.initiator, error, exc_info=error)

    # ---- what commands ask

    protection: ProtectedDevice | None = None  # its blocks have protection information, if only of type 0
    # what INQUIRY tells
    vendor = VENDOR
    product = "Virtual Disk"
    revision = ".".join(__version__.split(".")[:2])
    standards: tuple[int, ...] = (0x00A0, 0x0960, 0x0460, 0x04C0)  # SAM-5, iSCSI, SPC-4, SBC-3: version descriptors
    copies_for_others = True  # 3PC
    reports_port_groups = True  # TPGS: it has the commands for asymmetric access
    removable: bool = False  # RMB: its medium can be taken out
    descriptor_sense: bool = False  # D_SENSE: sense data in descriptor format
    queueing = Queueing()

    def pending_condition(self, nexus: Nexus) -> CheckCondition | None:
        """What REQUEST SENSE reports."""
        raise NotImplementedError

    def vpd_page(self, nexus: Nexus, code: int) -> bytes | None:
        """A VPD page, or None where there is none of this code."""
        raise NotImplementedError

    # ---- nexuses and life

    def attach(self, nexus: Nexus) -> None:
        """A nexus has come: it is told of what changes from now on."""

    def detach(self, nexus: Nexus) -> None:
        """A nexus is gone."""

    def reset(self) -> None:
        """LOGICAL UNIT RESET, after every task has been aborted (SAM-5 6.3.3)."""

    def ended(self, task: Task) -> None:
        """A task is over, on the loop's thread: count what it took."""

    def close(self) -> None:
        """Let go of everything."""


class AbsentUnit(Unit):
    """What answers where there is no logical unit (SPC-5, INQUIRY, REPORT LUNS, REQUEST SENSE)."""

    peripheral = 0x7F  # qualifier 011b: not capable of having a device here; type 1Fh: unknown

    def __str__(self) -> str:
        return "absent logical unit"

    def _begin(self, task: Task) -> None:
        command = self.commands.find(task.cdb)
        if command is None or not command.absent:
            raise self.pending_condition(task.nexus)
        self._decode(task, command)
        if command.check is not None:
            command.check(self, task)

    def pending_condition(self, nexus: Nexus) -> CheckCondition:
        return CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.LOGICAL_UNIT_NOT_SUPPORTED)

    def vpd_page(self, nexus: Nexus, code: int) -> bytes | None:
        return bytes([self.peripheral, 0, 0, 1, 0]) if code == 0 else None
