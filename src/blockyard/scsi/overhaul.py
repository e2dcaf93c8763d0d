"""Work on the whole medium that outlasts its command: SANITIZE and FORMAT UNIT.

An overhaul begins while nothing else runs in its unit. What it is to do is on stable storage before it touches the
medium, so that it goes on when the unit is opened again, after a restart or a loss of power; and so is that it failed.
From then on the unit refuses what needs it to be ready. The work is done in pieces in the thread pool (operation.py),
one after the other, so that it takes one thread at a time and the event loop goes on; with `background_rate` it takes
no more than so many bytes per second, and leaves the rest to others. Aborting the task that has begun it, a reset or
the loss of its nexus does not end it (SBC-4, sanitize operations).
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from blockyard.scsi import limits
from blockyard.scsi.operation import Aborted, Operation, Piece, Steps
from blockyard.scsi.sense import PROGRESS_DONE, Asc, CheckCondition, SenseKey

if TYPE_CHECKING:
    from blockyard.scsi.cdb import Command
    from blockyard.scsi.task import Buffer
    from blockyard.scsi.unit import LogicalUnit

log = logging.getLogger(__name__)

KIND = "overhaul"  # of the durable document
_ERASE_PIECE = 1 << 30  # bytes that are freed at a time
_CHECKPOINT = 4 << 30  # bytes after which it is noted how far the work has come

Ended = Callable[[CheckCondition | None], None]


class Overhaul(ABC):
    """One or several passes over the medium, each of which writes a block's worth of bytes everywhere, or frees all.

    `done` counts bytes over all passes.
    """

    kind: str  # in the durable document
    in_progress: Asc  # what commands are told meanwhile
    failure: Asc  # how it ends when it cannot do its work

    def __init__(
        self, unit: LogicalUnit, passes: Sequence[bytes | None], *, done: int = 0, failed: bool = False
    ) -> None:
        self.unit = unit
        self.passes = passes
        self.done = done
        self.failed = failed
        self._saved = done
        self._size = unit.blocks << unit.shift
        self._waiting: list[Ended] = []
        self._operation: Operation | None = None

    # ---- what others ask

    @abstractmethod
    def document(self) -> dict[str, Any]:
        """What has to be known to take it up again."""

    @abstractmethod
    def admits(self, command: Command) -> bool:
        """Whether a command may run now."""

    @abstractmethod
    def refusal(self) -> CheckCondition:
        """What a command is told that may not run now, and REQUEST SENSE reports."""

    def not_ready(self) -> CheckCondition:
        """NOT READY with PROGRESS INDICATION (SPC-5)."""
        progress = PROGRESS_DONE * self.done // (len(self.passes) * self._size)
        return CheckCondition(SenseKey.NOT_READY, self.in_progress, progress=progress)

    # ---- its life

    def begin(self) -> None:
        """Make it known, before anything is done. In the thread of the command, which runs alone."""
        self._save()
        self.unit.overhaul = self
        self.unit.update()

    def start(self, ended: Ended | None = None) -> None:
        """Go to work, on the loop's thread; `ended` is told on it too how that came out."""
        if ended is not None:
            self._waiting.append(ended)
        self._operation = Operation(self._steps(), self._end)
        self._operation.start()

    def stop(self) -> None:
        """The unit is closed: the work goes on when it is opened again."""
        if self._operation is not None:
            self._operation.abort()

    def leave(self) -> None:
        """It is over, and the unit is ready again."""
        self.unit.durable.save(KIND, None)
        self.unit.overhaul = None
        self.unit.update()

    def _save(self) -> None:
        self._saved = self.done
        self.unit.durable.save(KIND, {"kind": self.kind, "done": self.done, "failed": self.failed, **self.document()})

    def _steps(self) -> Steps:
        try:
            while self.done < len(self.passes) * self._size:
                yield Piece((self.unit,), self._work)
            yield Piece((self.unit,), self._finish)
        except Aborted:
            raise
        except Exception as error:
            yield Piece((self.unit,), partial(self._fail, error))
            raise CheckCondition(SenseKey.MEDIUM_ERROR, self.failure) from error
        return b""

    def _work(self) -> None:
        number, at = divmod(self.done, self._size)
        block = self.passes[number]
        if block is None:
            length = min(self._size - at, _ERASE_PIECE)
            self.unit.device.discard(at, length)
        else:
            began = time.monotonic()
            rate = self.unit.background_rate
            piece = min(4 * limits.PIECE, max(rate // 8, len(block))) if rate else 4 * limits.PIECE
            length = min(self._size - at, piece - piece % len(block))
            _fill(self.unit, block, at, length)
            if rate:
                time.sleep(max(0.0, length / rate - (time.monotonic() - began)))
        self.done += length
        if self.done - self._saved >= _CHECKPOINT:
            self.unit.device.flush()  # what is noted as done must not be lost
            self._save()

    def _finish(self) -> None:
        self.unit.device.flush()
        self.unit.journal.erase()
        self.leave()

    def _fail(self, error: Exception) -> None:
        log.error("%s: %s failed: %s", self.unit, self.kind, error)
        self.failed = True
        self._save()

    def _end(self, outcome: Buffer | Exception) -> None:
        self._operation = None
        error = outcome if isinstance(outcome, CheckCondition) else None
        for ended in self._waiting:
            ended(error)
        self._waiting.clear()


def _fill(unit: LogicalUnit, block: bytes, at: int, length: int) -> None:
    """Write `block` over and over. Zeros go only where something else can be: a hole stays one."""
    zeros = unit.thin and not any(block)
    runs = [(run.offset, run.length) for run in unit.device.runs(at, length) if run.mapped] if zeros else [(at, length)]
    data = memoryview(block * max(1, limits.PIECE // len(block)))
    for start, size in runs:
        for offset in range(0, size, len(data)):
            piece = data[: size - offset]
            if unit.protection is not None:
                unit.protection.initialize(piece, start + offset)
            else:
                unit.device.pwritev([piece], start + offset)
