"""Blocks of variable length on their way between a tape and the network, without a detour (worker/streaming.py).

What is usual is done here, and only that: a plain block that waits for no disk and changes nothing else. Whatever is not so is
left as it was, for the handlers of READ and WRITE (media/transfer.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastcrc.crc32 import iscsi as crc32c

from blockyard.media.record import HEADER_LENGTH
from blockyard.media.transfer import MAX_BLOCK, before_warning, reports_early_warning

if TYPE_CHECKING:
    from blockyard.media.drive import TapeDrive
    from blockyard.media.tape import Tape
    from blockyard.scsi.nexus import Nexus


class Stream:
    """Blocks for one nexus, batch after batch, for as long as nothing else is done in the drive (TapeDrive.streaming).

    It has the drive's lock from `stream` until it is closed: that is a batch.
    """

    __slots__ = ("_counters", "_reads", "_room", "_tape", "_unit", "nexus")

    def __init__(self, unit: TapeDrive, tape: Tape, nexus: Nexus) -> None:
        self._unit = unit
        self._tape = tape
        self.nexus = nexus
        self._counters = unit.counters
        self._reads: bool | None = None  # whether that is all that there is to do; None: that has not been looked at
        self._room: int | None = (
            None  # bytes of records until something else than writing is to be done or told; likewise
        )

    def write(self, block: memoryview, checksum: int | None) -> bool:
        """Write a block at the end of data, its checksum where that is known; False where that is not all that there is to do."""
        tape, length = self._tape, len(block)
        room = self._find_room() if self._room is None else self._room
        self._room = room = room - HEADER_LENGTH - length
        if room < 0 or length > MAX_BLOCK or tape.position != tape.partition.objects or self.nexus.read_only:
            return False
        try:
            tape.append_at_once(block, crc32c(block) if checksum is None else checksum)
        except OSError:
            return False
        counters = self._counters
        counters.other_ops += 1
        counters.write_bytes += length
        return True

    def _find_room(self) -> int:
        unit, tape = self._unit, self._tape
        plain = unit.buffered and not unit.compression and not unit.encryption.of(self.nexus).encryption
        if not plain or tape.position != tape.partition.objects or not unit.may_write(tape):
            return 0
        return min(before_warning(unit, tape), tape.partition.before_checkpoint)

    def read(self, buffer: memoryview) -> int | None:
        """Read the next record, which is as long as the buffer, and return the checksum of its block.

        None where it is not, or something else stands in the way.
        """
        if self._reads is None:
            self._reads = self._unit.encryption.of(self.nexus).plain and not reports_early_warning(self._unit)
        if not self._reads or (checksum := self._tape.read_at_once(buffer)) is None:
            return None
        counters = self._counters
        counters.other_ops += 1
        counters.read_bytes += len(buffer) - HEADER_LENGTH
        return checksum

    def close(self) -> None:
        self._unit.lock.release()


def stream(unit: TapeDrive, nexus: Nexus) -> Stream | None:
    """For blocks that go now; None while somebody else moves the tape, or there is none."""
    if not unit.lock.acquire(blocking=False):
        return None
    found, tape = unit.streaming, unit.tape
    if found is not None and found.nexus is nexus:
        return found
    if tape is None:
        unit.lock.release()
        return None
    found = unit.streaming = Stream(unit, tape, nexus)
    return found
