"""Segments: the journal of continuous data protection (CDP), and what a moment was according to it.

While CDP is on, no write goes in place: each gets a new place, and the journal of the volume notes it with its time. A segment
is that part of a journal which belongs to one generation of a tree: it begins with a snapshot, which for most of them has
no name and is nobody's but the journal's, and ends with the next. So a moment is the snapshot before its segment, and over it
what the segment has noted until then.

What a chunk was before a write belongs

* to the history, as with any snapshot, if the snapshot before the segment has it,
* to the segment, if it was written in the same segment: the note says so, and it is freed with the segment.
"""

from __future__ import annotations

import json
import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from blockyard.pool.livemap import HOLE
from blockyard.pool.space import NOWHERE
from blockyard.pool.store import Transaction

_NOTE = struct.Struct(">QQQQI")
_KEY = struct.Struct(">QQ")
_INDEX = struct.Struct(">Q")
_VALUE = 112 * _NOTE.size  # bytes: what fits into one page of the store
_FIELDS = ("volume", "size", "start", "end", "held", "last", "kept", "dropped", "stored")
_pack = _NOTE.pack


class Note(NamedTuple):
    """At `time` (nanoseconds since 1970) a chunk came to be at `place`.

    `owned` is where it was before, if that belongs to this segment alone.
    """

    time: int
    chunk: int
    place: int
    owned: int
    sum: int


@dataclass
class Segment:
    """One segment. Everything here happens under the lock of the pool."""

    volume: str  # whose journal it is in; "" when it is only kept for those who need it
    tree: int
    generation: int
    size: int  # of the volume, in bytes
    start: int  # nanoseconds since 1970; moments from here on are in it
    end: int = 0  # moments from here on are not; 0 while it is written
    held: int = 0  # chunks that nobody but the journal needs any more
    last: int = 0  # time of the last note
    kept: int = 0  # generation of the newest snapshot with a name: what that has, the journal does not pay for
    dropped: bool = False  # nobody can reach it any more; what it owns is being freed
    stored: int = 0  # notes in the store
    fresh: bytearray = field(default_factory=bytearray)  # notes that are not committed
    sealed: bytes = b""  # those of a commit that is under way
    users: int = 0  # moments that are open
    _description: bytes = b""

    @property
    def key(self) -> tuple[int, int]:
        return self.tree, self.generation

    @property
    def notes(self) -> int:
        return self.stored + (len(self.sealed) + len(self.fresh)) // _NOTE.size

    def note(self, time: int, chunk: int, place: int, owned: int, sum: int) -> None:
        """Something was written. On the way of every write: the less happens here the better."""
        self.fresh += _pack(time, chunk, place, owned, sum)
        self.last = time

    def seal(self) -> None:
        """What has been noted so far belongs to the commit that begins. `store` and `settle` follow."""
        self.sealed, self.fresh = bytes(self.fresh), bytearray()
        fields = {name: getattr(self, name) for name in _FIELDS}
        self._description = json.dumps(fields | {"stored": self.notes}).encode()

    def store(self, transaction: Transaction) -> None:
        """Put the notes that are sealed with those that are stored, and the segment as it was then."""
        key, sealed = segment_key(self), self.sealed
        values = (
            (key + _INDEX.pack(self.stored + at // _NOTE.size), sealed[at : at + _VALUE])
            for at in range(0, len(sealed), _VALUE)
        )
        transaction.put_all("notes", values)
        transaction.put("segments", segment_key(self), self._description)

    def settle(self) -> None:
        """The commit is durable."""
        self.stored += len(self.sealed) // _NOTE.size
        self.sealed = b""

    @classmethod
    def load(cls, key: bytes, value: bytes) -> Self:
        """What `store` has stored. Raises ValueError for what makes no sense."""
        tree, generation = _KEY.unpack(key)
        return cls(tree=tree, generation=generation, **json.loads(value))


def segment_key(segment: Segment) -> bytes:
    return _KEY.pack(*segment.key)


def notes_in(data: bytes | bytearray) -> Iterator[Note]:
    return map(Note._make, _NOTE.iter_unpack(data))


def stored_values(transaction: Transaction, segment: Segment) -> Iterator[bytes]:
    """The notes of a segment that are stored, in order, some at a time."""
    return (value for _, value in transaction.items("notes", segment_key(segment)))


def take_notes(transaction: Transaction, segment: Segment, limit: int) -> list[Note]:
    """Take about `limit` notes out of the store; none when there are none left."""
    taken: list[Note] = []
    keys = []
    for key, value in transaction.items("notes", segment_key(segment)):
        keys.append(key)
        taken += notes_in(value)
        if len(taken) >= limit:
            break
    for key in keys:
        transaction.delete("notes", key)
    return taken


class Table:
    """What chunks a segment has changed until a moment, and where they are: two arrays, as there may be very many."""

    def __init__(self, values: Iterable[bytes], until: int) -> None:
        """`values` are notes as they are stored, in order."""
        newest: dict[int, tuple[int, ...]] = {}  # by chunk
        for value in values:
            for note in _NOTE.iter_unpack(value):
                if note[0] > until:
                    break
                newest[note[1]] = note
        order = sorted(newest)
        self.chunks = array("Q", order)
        self.places = array("Q", [newest[chunk][2] for chunk in order])
        self.sums = array("I", [newest[chunk][4] for chunk in order])

    def __len__(self) -> int:
        return len(self.chunks)

    def get(self, chunk: int) -> tuple[int, int] | None:
        """Place (NOWHERE for zeros) and checksum of a chunk; None when it is what it was when the segment began."""
        at = bisect_left(self.chunks, chunk)
        if at == len(self.chunks) or self.chunks[at] != chunk:
            return None
        return self._place(at), self.sums[at]

    def between(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The chunks from `start` on, before `end`, and their places, in order."""
        for at in range(bisect_left(self.chunks, start), bisect_left(self.chunks, end)):
            yield self.chunks[at], self._place(at)

    def _place(self, at: int) -> int:
        place = self.places[at]
        return NOWHERE if place == HOLE else place
