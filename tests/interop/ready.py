"""Disks that are somewhere else: whoever serves them may be slow for a moment, and then they are becoming ready."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from blockyard.initiator import ScsiError, SenseKey
from tests.waiting import eventually

T = TypeVar("T")
BECOMING_READY = (SenseKey.NOT_READY, 0x04, 0x01)


def when_ready(command: Callable[[], T]) -> T:
    """What a command brings, as soon as the disk does not say any more that it is becoming ready."""
    found: list[T] = []

    def done() -> bool:
        try:
            found.append(command())
        except ScsiError as error:
            sense = error.sense
            if sense is None or (sense.key, sense.asc, sense.ascq) != BECOMING_READY:
                raise
            return False
        return True

    eventually(done, "the disk is ready")
    return found[0]
