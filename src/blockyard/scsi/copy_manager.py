"""The copy manager of a logical unit: its third-party copy operations, under way and ended (SPC-5).

An operation is known by its list identifier to the I_T nexus that began it, and to nobody else. What became of it is
kept until the nexus uses the identifier again or is lost, the logical unit is reset, or there are too many.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING

from blockyard.scsi import limits
from blockyard.scsi.operation import Aborted, Operation, Steps
from blockyard.scsi.sense import Asc, CheckCondition, SenseKey, failure
from blockyard.scsi.task import Result

if TYPE_CHECKING:
    from blockyard.scsi.nexus import Nexus
    from blockyard.scsi.task import Task
    from blockyard.scsi.unit import LogicalUnit


class OperationStatus(IntEnum):
    """COPY OPERATION STATUS (SPC-5, RECEIVE COPY STATUS (LID4))."""

    WITHOUT_ERRORS = 0x01
    WITH_ERRORS = 0x02
    FOREGROUND = 0x11
    BACKGROUND = 0x12
    TERMINATED = 0x60


class CopyOperation:
    """One third-party copy: what RECEIVE COPY RESULTS tells of it."""

    def __init__(self, nexus: Nexus, list_id: int | None, service_action: int, *, hold: bool, immediate: bool) -> None:
        self.nexus = nexus
        self.list_id = list_id
        self.service_action = service_action  # of the command that began it
        self.hold = hold
        self.immediate = immediate
        self.status = OperationStatus.BACKGROUND if immediate else OperationStatus.FOREGROUND
        self.segments = 0  # that are done
        self.transferred = 0  # bytes that were written
        self.counter = 0  # OPERATION COUNTER: how often somebody asked
        self.result: Result | None = None  # of what has ended
        self.token = b""
        self.abort: Callable[[], None] = lambda: None

    @property
    def running(self) -> bool:
        return self.result is None


class CopyManager:
    """All third-party copy operations that one logical unit was asked for."""

    def __init__(self, unit: LogicalUnit) -> None:
        self._unit = unit
        self._operations: dict[tuple[Nexus, int], CopyOperation] = {}  # the oldest first
        self._background: set[Operation] = set()

    def begin(self, task: Task, list_id: int | None, *, hold: bool = True, immediate: bool = False) -> CopyOperation:
        """An operation that `task` asks for. Raises CheckCondition when its list identifier is in use."""
        action = task.fields["service_action"]
        operation = CopyOperation(task.nexus, list_id, action, hold=hold, immediate=immediate)
        if list_id is not None:
            key = task.nexus, list_id
            earlier = self._operations.pop(key, None)
            if earlier is not None and earlier.running:
                self._operations[key] = earlier
                raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.OPERATION_IN_PROGRESS)
            self._make_room()
            self._operations[key] = operation
        tasks = self._unit.tasks
        if tasks is not None:
            operation.abort = lambda: tasks.abort(task)
        return operation

    def _make_room(self) -> None:
        if len(self._operations) >= limits.COPIES:
            ended = next((key for key, operation in self._operations.items() if not operation.running), None)
            if ended is None:
                raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.OPERATION_IN_PROGRESS)
            del self._operations[ended]

    def carry_out(self, operation: CopyOperation, steps: Steps) -> Steps:
        """The steps of a command that has `steps` done: before its status, or after it when it was told so (IMMED)."""
        if not operation.immediate:
            return (yield from self._recorded(operation, steps))
        background = Operation(self._recorded(operation, steps), lambda outcome: self._background.discard(background))
        self._background.add(background)
        operation.abort = background.abort
        background.start()
        return b""

    def _recorded(self, operation: CopyOperation, steps: Steps) -> Steps:
        try:
            data = yield from steps
        except Aborted as error:
            terminated = CheckCondition(SenseKey.COPY_ABORTED, Asc.IO_PROCESS_TERMINATED)
            self._end(operation, OperationStatus.TERMINATED, terminated)
            raise terminated from error
        except Exception as error:
            self._end(operation, OperationStatus.WITH_ERRORS, error)
            raise
        self._end(operation, OperationStatus.WITHOUT_ERRORS)
        return data

    def complete(self, operation: CopyOperation) -> None:
        """An operation that took no time has ended well."""
        self._end(operation, OperationStatus.WITHOUT_ERRORS)

    def _end(self, operation: CopyOperation, status: OperationStatus, error: Exception | None = None) -> None:
        operation.status = status
        operation.result = Result() if error is None else failure(error, descriptor=self._unit.descriptor_sense)
        if error is None and not operation.hold and operation.list_id is not None:
            self._operations.pop((operation.nexus, operation.list_id), None)

    def find(self, nexus: Nexus, list_id: int) -> CopyOperation | None:
        return self._operations.get((nexus, list_id))

    def discard(self, operation: CopyOperation) -> None:
        """Forget what became of an operation that has ended."""
        if operation.list_id is not None:
            self._operations.pop((operation.nexus, operation.list_id), None)

    def forget(self, nexus: Nexus) -> None:
        """The nexus is gone: its operations are aborted and forgotten."""
        for key in [key for key in self._operations if key[0] is nexus]:
            operation = self._operations.pop(key)
            if operation.running and operation.immediate:
                operation.abort()

    def reset(self) -> None:
        """LOGICAL UNIT RESET: what runs in the background ends, and nothing is remembered."""
        for background in self._background:
            background.abort()
        self._operations.clear()

    @property
    def running(self) -> int:
        """Operations that have a list identifier and have not ended."""
        return sum(operation.running for operation in self._operations.values())
