"""What a logical unit has seen go wrong, and whether its initiators are told before they ask (SPC-5, SBC-4: informational
exceptions, mode page 1Ch and log page 2Fh).

There are two real sources of exceptions: a block that could not be read or written foretells more of them, and a file
system that is nearly full is a spare area that is nearly exhausted. TEST makes up a third.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from blockyard.scsi.sense import Asc, CheckCondition, SenseKey

if TYPE_CHECKING:
    from blockyard.block.device import Space
    from blockyard.scsi.cdb import Command
    from blockyard.scsi.unit import LogicalUnit

PAGE = 0x1C
NO_REPORT, BY_UNIT_ATTENTION, ON_REQUEST = 0x0, 0x2, 0x6  # MRIE
_REMEMBERED = 128  # medium errors
_VERIFY = frozenset({0x2E, 0x2F, 0x8E, 0x8F, 0xAE, 0xAF})
_NEARLY_FULL = 20  # the part of its capacity that must still be had: one of so many


class MediumError(NamedTuple):
    """A block that could not be accessed."""

    minutes: int  # since the unit was opened
    key: int
    asc: int
    lba: int


class Health:
    """The errors and the informational exception of one logical unit."""

    def __init__(self, unit: LogicalUnit) -> None:
        self._unit = unit
        self._opened = time.monotonic()
        self.errors = {"read": 0, "write": 0, "verify": 0}  # commands that the medium has failed
        self.medium_errors: deque[MediumError] = deque(maxlen=_REMEMBERED)
        self._media = self._space = self._test = False
        self.armed = False  # whether initiators are to be told without asking when space runs out

    @property
    def minutes(self) -> int:
        """How long the unit has been open: its power on minutes."""
        return int(time.monotonic() - self._opened) // 60

    @property
    def exception(self) -> int:
        """The exception that is to be reported, as ASC << 8 | ASCQ; 0 for none."""
        if self._unit.mode.get(PAGE, "dexcpt"):
            return 0
        if self._test:
            return Asc.FAILURE_PREDICTION_THRESHOLD_EXCEEDED_FALSE
        if self._media:
            return Asc.MEDIA_FAILURE_PREDICTION_THRESHOLD_EXCEEDED
        return Asc.SPARE_AREA_EXHAUSTION_PREDICTION_THRESHOLD_EXCEEDED if self._space else 0

    def failed(self, command: Command, error: CheckCondition) -> None:
        """A command has ended with MEDIUM ERROR."""
        kind = "verify" if command.opcode in _VERIFY else "write" if command.writes else "read"
        self.errors[kind] += 1
        if error.information is not None:
            self.medium_errors.append(MediumError(self.minutes, error.key, error.asc, error.information))
        before, self._media = self.exception, True
        self._tell(before)

    def look(self, space: Space | None) -> None:
        """Look at the space that is left."""
        capacity = self._unit.blocks << self._unit.shift
        before = self.exception
        self._space = (
            space is not None and space.used < capacity and space.available < (capacity - space.used) / _NEARLY_FULL
        )
        self._tell(before)

    def look_now(self) -> None:
        """Somebody asks: look at the space at once."""
        if self._unit.thin:
            with contextlib.suppress(OSError):
                self.look(self._unit.device.space())

    def update(self) -> None:
        """The mode page may have changed."""
        before = self.exception
        self._test = bool(self._unit.mode.get(PAGE, "test"))
        self.armed = self._unit.thin and self._unit.mode.get(PAGE, "mrie") == BY_UNIT_ATTENTION
        self._tell(before)

    def _tell(self, before: int) -> None:
        now = self.exception
        if now and now != before and self._unit.mode.get(PAGE, "mrie") == BY_UNIT_ATTENTION:
            self._unit.attention(now)

    def on_request(self) -> CheckCondition | None:
        """What REQUEST SENSE tells of it."""
        self.look_now()
        if self.exception and self._unit.mode.get(PAGE, "mrie") == ON_REQUEST:
            return CheckCondition(SenseKey.NO_SENSE, self.exception)
        return None
