"""A reshape: disks are added to an array, and what it holds is spread over all of them while it is in use.

What is before the position lies in the new layout, the rest in the old one. A step reads what is behind the position, and
writes it where it is to be: first, with the position after it, into the journal, as the new place overlaps the old one near the
beginning. A crash leaves the array before or after the step. Nobody else is inside of the gate during a step. When everything has
been moved, the room that has been won is filled with zeros in the same way, so that its parity is right.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from blockyard.block.device import Run
from blockyard.block.raid.bitmap import Bitmap, room
from blockyard.block.raid.engine import Buffers, Engine, Slices, write_all
from blockyard.block.raid.geometry import Copies, Rows
from blockyard.block.raid.journal import Entry, Write
from blockyard.block.raid.member import Member, MemberError, MembersFailed

if TYPE_CHECKING:
    from blockyard.block.raid.array import Array

_ROWS = 64  # in a step at most: their ranges have to fit an entry of the journal
_STEP = 4 << 20  # bytes of the array


class Reshape:
    """Of an array that has one: `step` goes on with it. While it lasts, the array's engine is one that knows both layouts."""

    def __init__(self, array: Array) -> None:
        members = array.members
        self._array = array
        self.old = array.engine_of(members.identity.disks - members.added_disks)
        self.new = array.engine_of(members.identity.disks)
        if members.journal is None or not self._step_size():
            raise OSError(errno.EINVAL, "The journal has no room for a row of the array: it cannot be reshaped")
        array.engine = _Both(array, self)
        array.size = self.old.geometry.size

    @property
    def position(self) -> int:
        return self._array.members.reshape_position or 0

    @property
    def total(self) -> int:
        return self.new.geometry.size

    def _step_size(self) -> int:
        where, journal = self.new.geometry, self._array.members.journal
        assert journal is not None
        stripe = where.stripe if isinstance(where, Rows) else where.chunk * where.disks
        rows = min(_ROWS, journal.limit // where.chunk, max(1, _STEP // stripe))
        return rows * stripe

    def step(self) -> int:
        """Move some more. How many bytes of each member that were, about."""
        array, start = self._array, self.position
        end = min(start + self._step_size(), self.total)
        try:
            with array.changing, array.gate.alone():
                if array.broken:
                    return 0
                if start < self.total:
                    self._move(start, end)
                if self.position == self.total:
                    self._finish()
        except MembersFailed as failed:  # before anything was moved
            array.fail(failed.errors)
            return 0
        return (end - start) // max(1, array.members.identity.disks - 1)

    def _move(self, start: int, end: int) -> None:
        """Raises MembersFailed, with nothing moved."""
        members, journal = self._array.members, self._array.members.journal
        assert journal is not None
        data = bytearray(end - start)
        there = min(end, self.old.geometry.size) - start
        if there > 0:
            self.old.read([memoryview(data)[:there]], start)
        entry = Entry(self.new.plan(memoryview(data), start), end)
        journal.commit(entry)
        errors: Sequence[MemberError] = ()
        try:
            write_all(entry.writes)
        except MembersFailed as failed:
            errors = failed.errors  # all others have it: it is done, and has to go on without these
        finally:
            journal.done(entry)
        before, members.reshape_position = members.reshape_position, end
        try:
            self._array.lose(errors or self._array.record())
        except OSError:
            members.reshape_position = before
            raise

    def _finish(self) -> None:
        array, members = self._array, self._array.members
        members.reshape_position, members.added_disks = None, 0
        array.reshaping, array.engine, array.size = None, self.new, self.total
        if isinstance(self.new.geometry, Copies):
            members.bitmap = self._bitmap(self.new.geometry.size)
            array.attach_bitmap()
        array.arranged()
        array.lose(array.record())
        array.opening.notify(
            "info", "raid-reshaped", f"array {array.name}: it has been spread over {members.identity.disks} members"
        )

    def _bitmap(self, size: int) -> Bitmap:
        """Its size is that of the array: another one, with what is not known to be in line as large as before."""
        old = self._array.members.bitmap
        region = old.region
        while room(-(-size // region)) > len(old.image):
            region <<= 1
        bitmap = Bitmap(self._array.members.identity.array, size, region)
        if not self._array.members.complete or old.distrusted or not self._array.members.identity.level:
            bitmap.fill()
        if old.distrusted:
            bitmap.distrust_all()
        bitmap.cleared_at = self._array.members.events + 1
        return bitmap


class _Both(Engine):
    """What is before the position is the new layout's, the rest the old one's. The position stands still: see Reshape.step."""

    zero_step = 4 << 20

    def __init__(self, array: Array, reshape: Reshape) -> None:
        super().__init__(array)
        self._reshape = reshape
        self.geometry = reshape.new.geometry

    def _parts(self, offset: int, length: int) -> Iterator[tuple[Engine, int, int]]:
        end, position = offset + length, self._reshape.position
        if offset < position:
            yield self._reshape.new, offset, min(end, position) - offset
        if end > position:
            start = max(offset, position)
            yield self._reshape.old, start, end - start

    def read(self, buffers: Sequence[memoryview], offset: int) -> None:
        slices = Slices(buffers)
        for engine, at, length in self._parts(offset, sum(map(len, buffers))):
            engine.read(slices.take(length), at)

    def write(self, buffers: Buffers, offset: int) -> None:
        slices = Slices([memoryview(buffer) for buffer in buffers])
        for engine, at, length in self._parts(offset, sum(map(len, buffers))):
            engine.write(slices.take(length), at)

    def plan(self, data: memoryview, offset: int) -> list[Write]:
        return [
            write
            for engine, at, length in self._parts(offset, len(data))
            for write in engine.plan(data[at - offset : at - offset + length], at)
        ]

    def zero(self, offset: int, length: int, *, free: bool) -> None:
        for engine, at, part in self._parts(offset, length):
            engine.zero(at, part, free=free)

    def dirty_range(self, offset: int, length: int) -> tuple[int, int]:
        ranges = [engine.dirty_range(at, part) for engine, at, part in self._parts(offset, length)]
        return min(start for start, _ in ranges), max(end for _, end in ranges)

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        yield Run(offset, length, True)

    def prefetch(self, offset: int, length: int) -> None:
        for engine, at, part in self._parts(offset, length):
            engine.prefetch(at, part)

    def _in_line(self, start: int, end: int) -> Iterator[tuple[Engine, int, int]]:
        """A range of the bitmap; of rows those between the layouts hold nothing that counts any more."""
        old, new, position = self._reshape.old, self._reshape.new, self._reshape.position
        first, last = position, position
        if isinstance(new.geometry, Rows) and isinstance(old.geometry, Rows):
            last = -(-position // new.geometry.stripe) * new.geometry.chunk
            first = position // old.geometry.stripe * old.geometry.chunk
        if start < last:
            yield new, start, min(end, last)
        if end > max(first, start) and position < old.geometry.size:
            yield old, max(first, start), end

    def resync(self, start: int, end: int) -> None:
        for engine, first, last in self._in_line(start, end):
            engine.resync(first, last)

    def check(self, start: int, end: int, *, repair: bool) -> int:
        return sum(engine.check(first, last, repair=repair) for engine, first, last in self._in_line(start, end))

    def survives(self, lost: set[int]) -> bool:
        old = self._reshape.old.geometry
        return self.geometry.survives(lost) and old.survives({slot for slot in lost if slot < old.disks})

    def restore(self, member: Member, start: int, end: int) -> None:
        raise OSError(errno.EBUSY, "Members are rebuilt when the reshape has ended")


def begin(array: Array, added: Sequence[Member]) -> None:
    """Let an array have more disks; called alone in its gate. Raises OSError, with nothing changed."""
    members = array.members
    if array.reshaping is not None:
        raise OSError(errno.EBUSY, "The array is being reshaped already")
    if not members.complete or members.bitmap.distrusted:
        raise OSError(errno.EBUSY, "The array is not in sync: have that done first")
    identity = members.identity
    before = identity.disks
    identity.disks += len(added)
    members.added_disks, members.reshape_position = len(added), 0
    try:
        array.reshaping = Reshape(array)
    except OSError:
        identity.disks, members.added_disks, members.reshape_position = before, 0, None
        raise
