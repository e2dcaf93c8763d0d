"""What VHD and VHDX have in common: a disk in blocks of one size, each of which has a place in the file or none.

A block is ABSENT (it reads from the parent, or as zeros), ZERO, PRESENT (all of it is here), or PARTIAL: then a bitmap says
which of its sectors are here. The formats say how that is kept on disk, and in which order it has to get there:

* `_allocate` finds a place that reads as zeros and that nothing refers to;
* `_point` and `_cover` change what is known in memory, and note what of the file that changes;
* `_publish` writes what was noted. It survives the death of the process when it returns; what of it may only be on stable
  storage after the data that it leads to is the format's business.

Reads, and writes to what is here already, go side by side and take no lock for longer than it takes to count them. What changes
a map takes `_lock`, which is held over I/O: one allocation at a time. What takes a place away from a block waits until
nobody is under way (`Gate`), so that nobody can come late to a place that has become another block's.
"""

from __future__ import annotations

import errno
from abc import abstractmethod
from array import array
from collections.abc import Callable, Iterator, Sequence
from threading import RLock
from typing import NamedTuple

from blockyard.block.device import Device, Extent, Run, Space, merged
from blockyard.block.free_places import FreePlaces
from blockyard.block.gate import Gate
from blockyard.block.image_quick import QuickImage
from blockyard.block.image_states import ABSENT, NOWHERE, PARTIAL, PRESENT, ZERO, bit_runs, ones

_PIECE = 1 << 20  # bytes of zeros that are written at a time
_ZEROS = bytes(_PIECE)
_WINDOW = 1 << 12  # blocks
Progress = Callable[[int, int], None]  # of how many are done


class Piece(NamedTuple):
    """A run of the device that comes from one place."""

    offset: int
    length: int
    position: int = NOWHERE  # in the file
    inherited: bool = False  # from the parent; else, if it is nowhere, it is zeros


class BlockImage(Device):
    """A device in blocks of `block_size`, kept in the file `below`, on top of `parent` if there is one.

    It owns both. Whoever derives from it sets `places` (where the data of each block is) and `states`.
    """

    format: str  # "vhd" or "vhdx"
    kind: str  # "fixed", "dynamic" or "differencing"
    sector_size = 512  # what a bit of a bitmap stands for
    _free: FreePlaces
    can_be_zero = False  # the format has a state for blocks that are zeros whatever the parent has

    def __init__(self, below: Device, path: str, parent: Device | None, *, size: int, block_size: int) -> None:
        self.below = below
        self.path = path
        self.parent = parent
        self.size = size
        self.block_size = block_size
        self.read_only = below.read_only
        self.rotational = below.rotational
        self.notes: list[str] = []  # what was found at opening that is not as it should be, and could be borne with
        self.gate = Gate()
        self._lock = RLock()
        self.begun = False  # it is marked as modified, so that data may be written without a word to this layer
        count = -(-size // block_size)
        self.places = array("q", [NOWHERE]) * count
        self.states = bytearray(count)
        self.quick = QuickImage(self) if below.fd >= 0 else None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path!r}, {self.kind}, {self.size} bytes)"

    # ---- what the formats do in their own ways

    def _begin(self) -> None:
        """Mark the image as modified, before the first change since it was opened."""

    @abstractmethod
    def _bits(self, block: int) -> int:
        """Which sectors of a PARTIAL block are here, the first as the lowest bit. May make the block PRESENT."""

    def _known_bits(self, block: int) -> int | None:
        """The same if it can be told without reading; else None."""
        return None

    @abstractmethod
    def _allocate(self) -> int:
        """A place for a block, that reads as zeros and is nobody's. Raises OSError."""

    @abstractmethod
    def _give_back(self, place: int) -> None:
        """A place is not needed after all."""

    @abstractmethod
    def _point(self, block: int, state: int, place: int, bits: int = 0) -> None:
        """Let a block be in `state`, with `bits` if that is PARTIAL. The place that it had before is free for others."""

    @abstractmethod
    def _cover(self, block: int, bits: int) -> None:
        """Sectors of a PARTIAL block are here from now on."""

    @abstractmethod
    def _publish(self) -> None:
        """Write out what `_point` and `_cover` have changed."""

    # ---- where things are

    def _pieces(self, offset: int, length: int) -> Iterator[Piece]:
        """A range as pieces that each come from one place, in order and without gaps."""
        end = offset + length
        while offset < end:
            block, inside = divmod(offset, self.block_size)
            size = min(self.block_size - inside, end - offset)
            state = self.states[block]
            if state == PARTIAL:
                yield from self._parts(block, inside, size, self._bits(block))
            elif state == PRESENT:
                yield Piece(offset, size, self.places[block] + inside)
            else:
                size = min(self._alike(block) * self.block_size - inside, end - offset)
                yield Piece(offset, size, inherited=state == ABSENT and self.parent is not None)
            offset += size

    def _alike(self, block: int) -> int:
        """How many blocks from this one on are in the same state, as far as one looks at once."""
        some = self.states[block : block + _WINDOW]
        return len(some) - len(some.lstrip(some[:1]))

    def _parts(self, block: int, inside: int, length: int, bits: int) -> Iterator[Piece]:
        start, end, place = block * self.block_size, inside + length, self.places[block]
        sector = self.sector_size
        for first, last, here in bit_runs(bits, inside // sector, -(-end // sector)):
            at, stop = max(first * sector, inside), min(last * sector, end)
            inherited = not here and self.parent is not None
            yield Piece(start + at, stop - at, place + at if here else NOWHERE, inherited)

    def resolve(self, offset: int, length: int) -> Sequence[Extent] | None:
        """Where all of the range is here. Until the first write (`begun`) it is for reading only."""
        extents: list[Extent] = []
        end = offset + length
        while offset < end:
            block, inside = divmod(offset, self.block_size)
            size = min(self.block_size - inside, end - offset)
            if self.states[block] != PRESENT and not self.covers(block, inside, size):
                return None
            found = self.below.resolve(self.places[block] + inside, size)
            if found is None:
                return None
            extents += found
            offset += size
        return extents

    def covers(self, block: int, inside: int, length: int) -> bool:
        """Whether a part of a PARTIAL block is here, as far as that is known without reading."""
        if self.states[block] != PARTIAL:
            return False
        bits = self._known_bits(block)
        wanted = ones(inside // self.sector_size, -(-(inside + length) // self.sector_size))
        return bits is not None and bits & wanted == wanted

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        """What is allocated, and in it what the file below has no hole for."""
        with self.gate.shared():
            pieces = list(self._pieces(offset, length))
        yield from merged(part for piece in pieces for part in self._piece_runs(piece))

    def _piece_runs(self, piece: Piece) -> Iterator[Run]:
        end = piece.offset + piece.length
        if piece.position >= 0:
            shift = piece.offset - piece.position
            for run in self.below.runs(piece.position, piece.length):
                yield Run(run.offset + shift, run.length, run.mapped)
        elif piece.inherited and self.parent is not None and piece.offset < self.parent.size:
            stop = min(end, self.parent.size)
            yield from self.parent.runs(piece.offset, stop - piece.offset)
            if stop < end:
                yield Run(stop, end - stop, False)
        else:
            yield Run(piece.offset, piece.length, False)

    def own_pieces(self) -> Iterator[Piece]:
        """All that is not the parent's: what a merge has to bring to it."""
        for block in range(len(self.states)):
            if self.states[block] != ABSENT:
                start = block * self.block_size
                for piece in self._pieces(start, min(self.block_size, self.size - start)):
                    if not piece.inherited:
                        yield piece

    # ---- reading

    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        with self.gate.shared():
            for buffer in buffers:
                self._read(buffer, offset)
                offset += len(buffer)

    def _read(self, buffer: memoryview, offset: int) -> None:
        for piece in self._pieces(offset, len(buffer)):
            part = buffer[piece.offset - offset :][: piece.length]
            if piece.position >= 0:
                self.below.preadv([part], piece.position)
            elif piece.inherited:
                self._inherit(part, piece.offset)
            else:
                part[:] = bytes(len(part))

    def _inherit(self, buffer: memoryview, offset: int) -> None:
        """From the parent; beyond its end there are zeros (a child may be larger)."""
        assert self.parent is not None
        length = max(0, min(len(buffer), self.parent.size - offset))
        if length:
            self.parent.preadv([buffer[:length]], offset)
        buffer[length:] = bytes(len(buffer) - length)

    def prefetch(self, offset: int, length: int) -> None:
        with self.gate.shared():
            for piece in self._pieces(offset, length):
                if piece.position >= 0:
                    self.below.prefetch(piece.position, piece.length)
                elif piece.inherited and self.parent is not None and piece.offset < self.parent.size:
                    self.parent.prefetch(piece.offset, min(piece.length, self.parent.size - piece.offset))

    # ---- writing

    def pwritev(self, buffers: Sequence[memoryview | bytes | bytearray], offset: int) -> None:
        self._begin_writing()
        with self.gate.shared():
            for buffer in buffers:
                self._write(memoryview(buffer).cast("B"), offset)
                offset += len(buffer)

    def _begin_writing(self) -> None:
        if self.read_only:
            raise OSError(errno.EROFS, "It is open for reading only", self.path)
        if not self.begun:
            with self._lock:
                if not self.begun:
                    self._begin()
                    self.begun = True

    def _write(self, data: memoryview, offset: int) -> None:
        """One buffer: at once what has its place, then the rest."""
        late: list[tuple[int, int, memoryview]] = []
        at = 0
        while at < len(data):
            block, inside = divmod(offset + at, self.block_size)
            part = data[at : at + self.block_size - inside]
            if self.states[block] == PRESENT or self.covers(block, inside, len(part)):
                self.below.pwritev([part], self.places[block] + inside)
            else:
                late.append((block, inside, part))
            at += len(part)
        if late:
            with self._lock:
                for block, inside, part in late:
                    self._write_new(block, inside, part)
                self._publish()

    def _write_new(self, block: int, inside: int, part: memoryview) -> None:
        """Write to a block that had no place for it when somebody looked. Under the lock."""
        bits = self._bits(block) if self.states[block] == PARTIAL else 0
        state = self.states[block]
        if state == PRESENT:
            self.below.pwritev([part], self.places[block] + inside)
        elif state == PARTIAL:
            inside, part = self._filled(block, inside, part, bits)
            self.below.pwritev([part], self.places[block] + inside)
            self._cover(block, self._sectors(inside, len(part)))
        else:
            place = self._allocate()
            try:
                if state == ABSENT and self.parent is not None and not self._is_whole(block, inside, len(part)):
                    inside, part = self._filled(block, inside, part, 0)
                    self.below.pwritev([part], place + inside)
                    self._point(block, PARTIAL, place, self._sectors(inside, len(part)))
                else:
                    self.below.pwritev([part], place + inside)
                    self._point(block, PRESENT, place)
            except BaseException:
                self._give_back(place)
                raise

    def _sectors(self, inside: int, length: int) -> int:
        return ones(inside // self.sector_size, -(-(inside + length) // self.sector_size))

    def _is_whole(self, block: int, inside: int, length: int) -> bool:
        """Whether a part is all of a block that there is of the device."""
        return inside == 0 and length >= min(self.block_size, self.size - block * self.block_size)

    def _filled(self, block: int, inside: int, part: memoryview, bits: int) -> tuple[int, memoryview]:
        """The part with what else its first and last sector hold, where these are not here yet."""
        sector, end = self.sector_size, inside + len(part)
        head = 0 if bits >> inside // sector & 1 else inside % sector
        tail = 0 if bits >> (end - 1) // sector & 1 else -end % sector
        if not head and not tail:
            return inside, part
        data = memoryview(bytearray(head + len(part) + tail))
        start = block * self.block_size + inside - head
        if self.parent is not None:
            if head:
                self._inherit(data[:head], start)
            if tail:
                self._inherit(data[-tail:], start + len(data) - tail)
        data[head : head + len(part)] = part
        return inside - head, data

    # ---- zeros

    def discard(self, offset: int, length: int) -> None:
        self._begin_writing()
        if not self.granularity:
            self.write_zeroes(offset, length)
            return
        with self.gate.alone():
            self._zero(offset, length, free=True)

    def write_zeroes(self, offset: int, length: int) -> None:
        """What has a place keeps it; what has none reads as zeros without."""
        self._begin_writing()
        with self.gate.shared():
            self._zero(offset, length, free=False)

    def _zero(self, offset: int, length: int, *, free: bool) -> None:
        end = offset + length
        with self._lock:
            while offset < end:
                block, inside = divmod(offset, self.block_size)
                size = min(self.block_size - inside, end - offset)
                if self.states[block] == ZERO or (self.states[block] == ABSENT and self.parent is None):
                    size = min(self._alike(block) * self.block_size - inside, end - offset)
                else:
                    self._zero_part(block, inside, size, free=free)
                offset += size
            self._publish()

    def _zero_part(self, block: int, inside: int, length: int, *, free: bool) -> None:
        state, place = self.states[block], self.places[block]
        whole = self._is_whole(block, inside, length)
        if whole and (self.can_be_zero or self.parent is None) and (free or state == ABSENT):
            self._point(block, ZERO if self.can_be_zero else ABSENT, NOWHERE)
        elif state == PRESENT and free:
            self.below.discard(place + inside, length)
        elif state == PRESENT:
            self.below.write_zeroes(place + inside, length)
        elif whole and state == ABSENT:
            self._point(block, PRESENT, self._allocate())
        else:
            for at in range(inside, inside + length, _PIECE):
                self._write_new(block, at, memoryview(_ZEROS)[: min(_PIECE, inside + length - at)])

    # ---- administration, while nobody uses it

    def free_zeros(self, progress: Progress) -> None:
        """Take their places from blocks that hold nothing but zeros."""
        if not self.can_be_zero and self.parent is not None:
            return
        self._begin_writing()
        for block in range(len(self.states)):
            start = block * self.block_size
            length = min(self.block_size, self.size - start)
            if self.states[block] == PRESENT and self._is_zero(self.places[block], length):
                with self._lock:
                    self._point(block, ZERO if self.can_be_zero else ABSENT, NOWHERE)
                    self._publish()
            progress(start + length, self.size)
        self.flush()

    def _is_zero(self, position: int, length: int) -> bool:
        for run in self.below.runs(position, length):
            for at in range(run.offset, run.offset + run.length, _PIECE) if run.mapped else ():
                data = bytearray(min(_PIECE, run.offset + run.length - at))
                self.below.preadv([memoryview(data)], at)
                if data.count(0) != len(data):
                    return False
        return True

    def move_down(self, progress: Progress) -> int:
        """Move the blocks that are last in the file to free places before them; how many they were."""
        self._begin_writing()
        last = sorted(((place, block) for block, place in enumerate(self.places) if place != NOWHERE), reverse=True)
        self._free.free.sort(reverse=True)
        for count, (place, block) in enumerate(last):
            progress(count, len(last))
            with self._lock:
                target = self._allocate_below(place)
                if target is None:
                    return count
                for run in self.below.runs(place, self.block_size):
                    if run.mapped:
                        self._copy_within(run.offset, target + run.offset - place, run.length)
                bits = self._bits(block) if self.states[block] == PARTIAL else 0
                self.below.flush()
                self._point(block, self.states[block], target, bits)
                self._publish()
        return len(last)

    def _copy_within(self, source: int, target: int, length: int) -> None:
        buffer = memoryview(bytearray(min(_PIECE, length)))
        for at in range(0, length, _PIECE):
            part = buffer[: min(_PIECE, length - at)]
            self.below.preadv([part], source + at)
            self.below.pwritev([part], target + at)

    def _allocate_below(self, place: int) -> int | None:
        """The first free place, where it is before `place`."""
        if not self._free.free or self._free.free[-1] >= place:
            return None
        return self._allocate()

    # ---- the rest

    def space(self) -> Space | None:
        return self.below.space()

    def close(self) -> None:
        try:
            self.below.close()
        finally:
            if self.parent is not None:
                self.parent.close()
