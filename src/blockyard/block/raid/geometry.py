"""Where the bytes of an array lie on its members: offsets are those in the data area of a member, a slot is a member's role.

RAID 0, 1 and 10 are one thing: chunks of which each has 1, all or some copies, next to each other in the order of slots and then
of rows (md's "near" layout). RAID 5 and 6 are the other: rows of a chunk on each member, of which one or two hold parity, in md's
left-symmetric layout: parity moves one member to the left from row to row, and the data begins behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

BLOCK = 4096  # bytes that a disk cannot read, at a time


class Place(NamedTuple):
    """Of some bytes of an array on one of its members."""

    slot: int
    offset: int


class Piece(NamedTuple):
    """A run of an array that lies in one run on each of its places."""

    offset: int
    length: int
    places: tuple[Place, ...]

    def blocks(self) -> Iterator[Piece]:
        """It, in parts that may be restored from different members."""
        at = 0
        while at < self.length:
            part = min(BLOCK - (self.offset + at) % BLOCK, self.length - at)
            yield Piece(self.offset + at, part, tuple(Place(slot, offset + at) for slot, offset in self.places))
            at += part


class Copies:
    """Of RAID 0, 1 and 10. `used` are the bytes of each member, whole chunks except for RAID 1."""

    def __init__(self, disks: int, copies: int, chunk: int, used: int) -> None:
        self.disks = disks
        self.copies = copies
        self.mirror = copies == disks  # offsets are the same everywhere
        self.chunk = used if self.mirror else chunk
        self.used = used
        self.size = used if self.mirror else used // chunk * disks // copies * chunk

    def pieces(self, offset: int, length: int) -> Iterator[Piece]:
        """Of a range of the array."""
        end = offset + length
        while offset < end:
            number, inside = divmod(offset, self.chunk)
            part = min(self.chunk - inside, end - offset)
            yield Piece(offset, part, self.places(number, inside))
            offset += part

    def places(self, number: int, inside: int = 0) -> tuple[Place, ...]:
        """Of a chunk, or of a byte inside of it."""
        places = []
        for at in range(number * self.copies, (number + 1) * self.copies):
            row, slot = divmod(at, self.disks)
            places.append(Place(slot, row * self.chunk + inside))
        return tuple(places)

    def on_member(self, slot: int, start: int, end: int) -> Iterator[Piece]:
        """What a member holds in a range of its data area."""
        while start < end:
            row, inside = divmod(start, self.chunk)
            part = min(self.chunk - inside, end - start)
            number = (row * self.disks + slot) // self.copies
            if (offset := number * self.chunk + inside) < self.size:
                yield Piece(offset, part, self.places(number, inside))
            start += part

    def survives(self, lost: set[int]) -> bool:
        """Whether every chunk has a copy outside of these slots."""
        if self.mirror:
            return len(lost) < self.disks
        return not any({place.slot for place in self.places(number)} <= lost for number in range(self.disks))


class Row(NamedTuple):
    """Which slot holds what in a row; `q` is -1 in RAID 5."""

    data: tuple[int, ...]
    p: int
    q: int

    @property
    def parities(self) -> tuple[int, ...]:
        return (self.p,) if self.q < 0 else (self.p, self.q)


class Segment(NamedTuple):
    """A part of a row, from column `start` to `end` of its chunks, in which a range covers some data chunks wholly.

    `first` is the index of the first of these; `at` where its data begins in the range, the others' follow a chunk apart.
    """

    row: int
    start: int
    end: int
    first: int
    chunks: int
    at: int


class Rows:
    """Of RAID 5 and 6."""

    def __init__(self, disks: int, parities: int, chunk: int, used: int) -> None:
        self.disks = disks
        self.parities = parities
        self.data = disks - parities
        self.chunk = chunk
        self.used = used // chunk * chunk
        self.stripe = self.data * chunk  # bytes of the array in a row
        self.size = self.used // chunk * self.stripe
        self.row = lru_cache(maxsize=disks)(self._row)  # they repeat after as many rows as there are disks

    def _row(self, number: int) -> Row:
        p = self.disks - 1 - number
        q = (p + 1) % self.disks if self.parities == 2 else -1
        first = p + self.parities
        return Row(tuple((first + index) % self.disks for index in range(self.data)), p, q)

    def at(self, row: int) -> Row:
        return self.row(row % self.disks)

    def pieces(self, offset: int, length: int) -> Iterator[Piece]:
        """Of a range of the array: each with the one place where it can be read when nothing is lost."""
        end = offset + length
        while offset < end:
            number, inside = divmod(offset, self.chunk)
            part = min(self.chunk - inside, end - offset)
            row, index = divmod(number, self.data)
            yield Piece(offset, part, (Place(self.at(row).data[index], row * self.chunk + inside),))
            offset += part

    def segments(self, offset: int, length: int) -> Iterator[Segment]:
        """The range in parts: in each the same chunks are covered, and the others of its row are not touched."""
        end, begin = offset + length, offset
        while offset < end:
            row, within = divmod(offset, self.stripe)
            last = min(self.stripe, within + end - offset)
            yield from self._in_row(row, within, last, row * self.stripe - begin)
            offset += last - within

    def _in_row(self, row: int, within: int, last: int, base: int) -> Iterator[Segment]:
        cuts = sorted({0, within % self.chunk, (last - 1) % self.chunk + 1, self.chunk})
        if within // self.chunk == (last - 1) // self.chunk:
            cuts = [within % self.chunk, (last - 1) % self.chunk + 1]
        for start, end in pairwise(cuts):
            first = -(-(within - start) // self.chunk)
            after = (last - end) // self.chunk + 1
            if after > first:
                yield Segment(row, start, end, first, after - first, base + first * self.chunk + start)

    def survives(self, lost: set[int]) -> bool:
        return len(lost) <= self.parities


Geometry = Copies | Rows


def geometry(level: int, disks: int, chunk: int, layout: int, used: int) -> Geometry:
    """Of an array with this many disks."""
    if level in (5, 6):
        return Rows(disks, level - 4, chunk, used)
    copies = {0: 1, 1: disks}.get(level, layout & 0xFF)
    return Copies(disks, copies, chunk, used if level == 1 else used // chunk * chunk)
