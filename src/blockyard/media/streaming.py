"""Blocks of variable length on their way between a tape and the network, without a detour (worker/streaming.py).

What is usual is done here, and only that: a plain block that waits for no disk and changes nothing else. Whatever is not so is
left as it was, for the handlers of READ and WRITE (media/transfer.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard.media.record import HEADER_LENGTH
from blockyard.media.transfer import MAX_BLOCK, before_warning, reports_early_warning

if TYPE_CHECKING:
    from blockyard.media.drive import TapeDrive
    from blockyard.media.tape import Tape
    from blockyard.scsi.nexus import Nexus


class Stream:
    """A batch of blocks for one nexus. It has the drive's lock until it is closed."""

    __slots__ = ("_reads", "_room", "_tape", "_unit")

    def __init__(self, unit: TapeDrive, tape: Tape, nexus: Nexus) -> None:
        held = unit.encryption.of(nexus)
        self._unit = unit
        self._tape = tape
        self._reads = held.plain and not reports_early_warning(unit)
        writes = unit.buffered and not unit.compression and not held.encryption and not nexus.read_only
        self._room = 0  # bytes of records until something else than writing is to be done or told
        if writes and tape.position == tape.partition.objects and unit.may_write(tape):
            self._room = min(before_warning(unit, tape), tape.partition.before_checkpoint)

    def write(self, block: memoryview) -> bool:
        """Write a block at the end of data; False where that is not all that there is to do."""
        tape, unit, length = self._tape, self._unit, len(block)
        room = self._room - HEADER_LENGTH - length
        if room < 0 or length > MAX_BLOCK or tape.position != tape.partition.objects:
            return False
        try:
            tape.append(block)
        except OSError:
            return False
        self._room = room
        unit.counters.other_ops += 1
        unit.counters.write_bytes += length
        return True

    def read(self, buffer: memoryview) -> bool:
        """Read the next block, which is as long as the buffer; False where it is not, or something else stands in the way."""
        unit, length = self._unit, len(buffer)
        if not self._reads or not self._tape.read_at_once(buffer):
            return False
        unit.counters.other_ops += 1
        unit.counters.read_bytes += length
        return True

    def close(self) -> None:
        self._unit.lock.release()


def stream(unit: TapeDrive, nexus: Nexus) -> Stream | None:
    """For blocks that go now; None while somebody else moves the tape, or there is none."""
    if not unit.lock.acquire(blocking=False):
        return None
    tape = unit.tape
    if tape is None:
        unit.lock.release()
        return None
    try:
        return Stream(unit, tape, nexus)
    except BaseException:
        unit.lock.release()
        raise
