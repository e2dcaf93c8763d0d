"""The short road to a volume: reads and writes that wait for nothing, on the thread of the event loop.

What takes a disk to be read, space to be prepared or somebody else to be waited for is left to the long road (volume.py), from
its beginning: what the short one has done of it by then does no harm.

It is on the way of every command (worker/fastpath.py) and shaped by speed: closures, as their variables are found in less time
than attributes, and no lock for what can be looked up without. Three things make that safe. The interpreter runs one thread at
a time, so that each look is at one moment. `Reclaimer.quick_epoch` says that somebody is inside, before the first look: a
place that is seen stays what it was until it says otherwise. And the gate keeps snapshots away between the look that finds
a place to write over and the writing.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Sequence
from functools import cache
from os import preadv, pwrite, pwritev

from blockyard.pool.engine import Engine
from blockyard.pool.livemap import CHUNKS, HOLE, PAGE_SHIFT
from blockyard.pool.parts import Cursor, Part, parts, zero
from blockyard.pool.space import MEMBER_SHIFT, NOWHERE, UNIT_MASK, UNIT_SHIFT, member_of, offset_of
from blockyard.pool.tree import Tree

_INDEX = CHUNKS - 1
_SECOND = 1 << MEMBER_SHIFT  # places up to this one are in the first member
_NO_MEMBER = -1


class _Run:
    """Bytes that lie together: at byte `position` of a member, or zeros that are in none."""

    __slots__ = ("length", "member", "position")

    def __init__(self, member: int, position: int, length: int) -> None:
        self.member = member
        self.position = position
        self.length = length


class Quick:
    """The short road to the live map of a tree. For one thread alone, the same for all trees of an engine."""

    def __init__(self, engine: Engine, tree: Tree) -> None:
        self._engine = engine
        self._tree = tree
        self._shift = tree.shift
        self._size = 1 << tree.shift
        self._pages = tree.map.pages
        self.read = self._reader()
        self.write = self._writer()

    def _reader(self) -> Callable[[Sequence[memoryview], int, int], bool]:
        engine, pages, several = self._engine, self._pages, self._read_several
        shift, size, mask, page_shift = self._shift, self._size, self._size - 1, self._shift + PAGE_SHIFT
        first, reclaimer = engine.devices[0], engine.reclaimer
        flags = _flags(engine, 0)

        def read(buffers: Sequence[memoryview], offset: int, length: int) -> bool:
            """Fill `buffers`, of `length` bytes together, from `offset` on. False when that takes waiting, or fails."""
            reclaimer.quick_epoch = reclaimer.epoch
            try:
                inside = offset & mask
                if inside + length <= size and (page := pages.get(offset >> page_shift)) is not None:
                    place = page.places[offset >> shift & _INDEX]
                    if NOWHERE < place <= _SECOND:
                        return preadv(first.fd, buffers, (place - 1 << UNIT_SHIFT) + inside, flags) == length
                return several(buffers, offset, length)
            except OSError:
                return False
            finally:
                reclaimer.quick_epoch = None

        return read

    def _writer(self) -> Callable[[memoryview, int], bool]:
        engine, tree, pages, gate = self._engine, self._tree, self._pages, self._tree.gate
        shift, size, mask, page_shift = self._shift, self._size, self._size - 1, self._shift + PAGE_SHIFT
        first, reclaimer, several, move = engine.devices[0], engine.reclaimer, self._write_several, self._move_one

        def write(data: memoryview, offset: int) -> bool:
            """Write `data` at `offset`, to survive the death of the process. False when that takes waiting, or fails."""
            reclaimer.quick_epoch = reclaimer.epoch
            gate.quick = True
            try:
                inside, length = offset & mask, len(data)
                page = pages.get(offset >> page_shift)
                if gate.shut or page is None or engine.failed is not None:
                    return False
                if inside + length > size:
                    return several(data, offset)
                index = offset >> shift & _INDEX
                place = page.places[index]
                if page.births[index] <= tree.floor or place == HOLE:
                    return move(offset >> shift, inside, data)
                if place <= _SECOND:
                    return pwrite(first.fd, data, (place - 1 << UNIT_SHIFT) + inside) == length
                return pwrite(engine.devices[member_of(place)].fd, data, offset_of(place) + inside) == length
            except OSError:
                return False
            finally:
                gate.leave()
                reclaimer.quick_epoch = None

        return write

    # ---- reading

    def _read_several(self, buffers: Sequence[memoryview], offset: int, length: int) -> bool:
        """Read of several chunks, or of one that is nowhere or not in the first member."""
        runs = self._runs(offset, length)
        if runs is None:
            return False
        if len(runs) == 1:
            return self._read_run(buffers, runs[0])
        cursor = Cursor(buffers)
        return all(self._read_run(cursor.take(run.length), run) for run in runs)

    def _read_run(self, buffers: Sequence[memoryview], run: _Run) -> bool:
        if run.member == _NO_MEMBER:
            zero(buffers)
            return True
        fd = self._engine.devices[run.member].fd
        return preadv(fd, buffers, run.position, _flags(self._engine, run.member)) == run.length

    def _together(self, offset: int, length: int, floor: int) -> _Run | None:
        """A range as one run, which most are that were written in one go; None where it is not, or in several pages."""
        first = offset >> self._shift
        count, index = (offset + length - 1 >> self._shift) - first + 1, first & _INDEX
        page = self._pages.get(first >> PAGE_SHIFT)
        if page is None or index + count > CHUNKS:
            return None
        place, step = page.places[index], self._size >> UNIT_SHIFT
        if not NOWHERE < place < HOLE or min(page.births[index : index + count]) <= floor:
            return None
        if page.places[index : index + count] != array("Q", range(place, place + count * step, step)):
            return None
        return _Run(member_of(place), offset_of(place) + (offset & self._size - 1), length)

    def _runs(self, offset: int, length: int, floor: int = -1) -> list[_Run] | None:
        """Where a range lies. None when the map in memory does not tell, or some of it was not born after `floor`."""
        whole = self._together(offset, length, floor)
        if whole is not None:
            return [whole]
        runs: list[_Run] = []
        pages, shift, page_shift = self._pages, self._shift, self._shift + PAGE_SHIFT
        step, below = self._size >> UNIT_SHIFT, self._tree.origin is not None
        end, following = offset + length, HOLE
        while offset < end:
            page, index = pages.get(offset >> page_shift), offset >> shift & _INDEX
            if page is None or page.births[index] <= floor:
                return None
            place = page.places[index]
            if place == NOWHERE and below:
                place = page.below[index] if page.below is not None else NOWHERE
                if place == NOWHERE:  # what the origin has there is a matter of the store
                    return None
            part = min((offset >> shift) + 1 << shift, end) - offset
            if place == following and runs:
                runs[-1].length += part
            elif NOWHERE < place < HOLE:
                runs.append(_Run(member_of(place), offset_of(place) + (offset & self._size - 1), part))
            else:
                runs.append(_Run(_NO_MEMBER, 0, part))
            following = place + step if NOWHERE < place < HOLE else place
            offset += part
        return runs

    # ---- writing

    def _write_several(self, data: memoryview, offset: int) -> bool:
        """Write to several chunks."""
        runs = self._runs(offset, len(data), self._tree.floor)
        if runs is None or any(run.member == _NO_MEMBER for run in runs):
            return self._move(list(parts(self._shift, offset, len(data))), data)
        at = 0
        for run in runs:
            if not self._put(run, [data[at : at + run.length]]):
                return False
            at += run.length
        return True

    def _put(self, run: _Run, buffers: Sequence[memoryview]) -> bool:
        return pwritev(self._engine.devices[run.member].fd, buffers, run.position) == run.length

    def _move_one(self, chunk: int, inside: int, data: memoryview) -> bool:
        """Write to a chunk that needs a new place: what `_move` does, without its lists."""
        tree, engine = self._tree, self._engine
        if not tree.claims.take((chunk,)):
            return False
        place = NOWHERE
        try:
            taken = engine.take(tree) if self._in_place(chunk) == NOWHERE else None
            if taken is None:
                return False
            place, is_zero = taken
            if len(data) < self._size:
                image = self._image(chunk, inside, data, 0, is_zero)
                if image is None:
                    return False
                data, inside = image
            fd = engine.devices[(place - 1) >> MEMBER_SHIFT].fd
            if pwrite(fd, data, ((place - 1 & UNIT_MASK) << UNIT_SHIFT) + inside) != len(data):
                return False
            engine.remap(tree, ((chunk, place),))
            place = NOWHERE
            return True
        finally:
            if place != NOWHERE:
                engine.give_back(tree, place)
            tree.claims.release((chunk,))

    def _move(self, covered: Sequence[Part], data: memoryview) -> bool:
        """Write to chunks of which at least one needs a new place."""
        tree = self._tree
        moving = [part.chunk for part in covered if self._in_place(part.chunk) == NOWHERE]
        if not tree.claims.take(moving):
            return False
        moved: list[tuple[int, int]] = []
        try:
            if not self._write_and_note(covered, data, moving, moved):
                return False
            if moved:  # it is empty when somebody has been quicker
                self._engine.remap(tree, moved)
                moved = []
            return True
        finally:
            for _, place in moved:
                self._engine.give_back(tree, place)
            tree.claims.release(moving)

    def _write_and_note(
        self, covered: Sequence[Part], data: memoryview, moving: Sequence[int], moved: list[tuple[int, int]]
    ) -> bool:
        """Write, and note in `moved` which new places that took, whether it could be done or not."""
        run, buffers, at = _Run(_NO_MEMBER, 0, 0), list[memoryview](), 0
        for part in covered:
            piece, inside, place = data[at : at + part.length], part.inside, self._in_place(part.chunk)
            at += part.length
            if place == NOWHERE:
                taken = self._engine.take(self._tree) if part.chunk in moving else None
                if taken is None:
                    return False
                place, is_zero = taken
                moved.append((part.chunk, place))
                if part.length < self._size:
                    image = self._image(part.chunk, inside, piece, part is covered[-1], is_zero)
                    if image is None:
                        return False
                    piece, inside = image
            member, position = member_of(place), offset_of(place) + inside
            if member == run.member and position == run.position + run.length:
                run.length += len(piece)
                buffers.append(piece)
            else:
                if buffers and not self._put(run, buffers):
                    return False
                run, buffers = _Run(member, position, len(piece)), [piece]
        return self._put(run, buffers)

    def _in_place(self, chunk: int) -> int:
        """The place of a chunk where it may be written; NOWHERE when it needs a new one, or nothing is known of it."""
        page = self._pages.get(chunk >> PAGE_SHIFT)
        if page is None:
            return NOWHERE
        place, birth = page.places[chunk & _INDEX], page.births[chunk & _INDEX]
        return place if birth > self._tree.floor and place != HOLE else NOWHERE

    def _image(
        self, chunk: int, inside: int, data: memoryview, room: int, is_zero: bool
    ) -> tuple[memoryview, int] | None:
        """What to write to a chunk's new place of which `data` is a part, and where in it; None when that takes waiting.

        `room` says in which of the two images it is put together, `is_zero` that the new place reads as zeros.
        """
        page = self._pages.get(chunk >> PAGE_SHIFT)
        if page is None:
            return None
        place = page.places[chunk & _INDEX]
        if place == NOWHERE and self._tree.origin is not None:
            place = page.below[chunk & _INDEX] if page.below is not None else NOWHERE
            if place == NOWHERE:
                return None
        image = _images(self._size)[room]
        if NOWHERE < place < HOLE:
            member = (place - 1) >> MEMBER_SHIFT
            fd, position = self._engine.devices[member].fd, (place - 1 & UNIT_MASK) << UNIT_SHIFT
            if preadv(fd, (image,), position, _flags(self._engine, member)) != self._size:
                return None
        elif is_zero:
            return data, inside
        else:
            zero((image,))
        image[inside : inside + len(data)] = data
        return image, 0


@cache
def _images(size: int) -> list[memoryview]:
    """Room for the two chunks that a write may cover in part. The one thread that is on the short road of any volume has it."""
    return [memoryview(bytearray(size)) for _ in range(2)]


def _flags(engine: Engine, member: int) -> int:
    """For a read that does not wait for a disk; where a device does not know them there is none."""
    return os.RWF_NOWAIT if engine.devices[member].nowait else 0
