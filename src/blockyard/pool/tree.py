"""Trees: the maps and the history of what a volume is, and was at its snapshots.

A tree counts generations. A chunk that is written gets the generation of its tree as its birth; a snapshot takes the present
generation for its own, and the tree goes on to the next. So what was born later than the newest snapshot belongs to the live
map alone and is written in place; anything else goes to a new place, and its old one is *lost* from the live map: an entry of
the history says up to which generation it was there.

Read a snapshot of generation g: of a chunk, the first entry of its history that reaches to g or beyond tells, if it was born
by then; otherwise the live map does, if what is there was born by then; otherwise there was nothing.

A clone is a tree with an origin: where its own map and history have nothing, its origin's snapshot is seen. A clone of a
moment begins with a map of what had changed since that snapshot: these places are *borrowed*, which a birth of 0 says, and
not the clone's to free.

While continuous data protection is on, a tree has a segment (pool/segment.py), nothing is written in place, and the segment
gets to know of each write.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from blockyard.block.gate import Gate
from blockyard.pool.claims import Claims
from blockyard.pool.livemap import CHUNKS, HOLE, PAGE_SHIFT, Budget, Image, LiveMap
from blockyard.pool.segment import Segment
from blockyard.pool.space import NOWHERE
from blockyard.pool.store import Lost, Store, Transaction

NEVER = 1 << 64  # no birth is later


class Found(NamedTuple):
    """Where a chunk is (NOWHERE for zeros), and its checksum if the tree has such."""

    place: int
    sum: int


_NOTHING = Found(NOWHERE, 0)


class Tree:
    """One tree, with what is not committed of it. Everything here happens under the lock of the pool."""

    def __init__(
        self,
        number: int,
        store: Store,
        budget: Budget,
        shift: int,
        *,
        generation: int = 1,
        snapshots: Sequence[int] = (),
        origin: Tree | None = None,
        origin_generation: int = 0,
        checksums: bool = False,
    ) -> None:
        self.number = number
        self.shift = shift  # of a chunk's size in bytes
        self.generation = generation
        self.snapshots = list(snapshots)  # generations, ascending
        self.newest = max(snapshots, default=0)
        self.origin = origin
        self.origin_generation = origin_generation
        self.checksums = checksums  # its chunks have such, and those of its origin and its clones
        self.moment = 0  # generation of the origin's segment that places are borrowed from
        self.segment: Segment | None = None  # that is being written
        self.floor = 0  # what was born later is the live map's alone, and written in place
        self._fading = 0  # as `floor`, for snapshots whose deletion is not durable: a crash would bring them back
        self.held = 0  # chunks that are this tree's: live, history and journal
        self.mapped = 0  # chunks that its live map has, borrowed ones too
        self.buried = False  # no volume's any more, and its live map is empty
        self.changed = True  # what `describe` says is not stored yet
        self.map = LiveMap(self._load, budget, checksums)
        # Who has found a place to write over writes before a snapshot is taken, or looks again: after it that is not allowed.
        self.gate = Gate()
        self.claims = Claims()  # of those who move chunks
        self._store = store
        self._lost: dict[int, list[Lost]] = {}  # chunk → entries that are not committed, ascending
        self._sealed: dict[int, list[Lost]] = {}  # those of a commit that is under way
        self._set_floor()

    def _load(self, page: int) -> bytes | None:
        with self._store.read() as transaction:
            return transaction.page(self.number, page)

    # ---- reading

    def where(self, chunk: int) -> int:
        """The place of a chunk in the live map, or in what it has been cloned from; NOWHERE for zeros."""
        return self._look(chunk).place

    def find(self, chunk: int) -> Found:
        """Place and checksum, likewise; and what is found in the origin, which does not change, is noted beside the map."""
        found = self._look(chunk)
        if self.origin is not None:
            self.map.note(chunk, found.place or HOLE)
        return found

    def _look(self, chunk: int) -> Found:
        place, _ = self.map.get(chunk)
        if place == NOWHERE and self.origin is not None:
            return self.origin.find_at(chunk, self.origin_generation)
        return _NOTHING if place == HOLE else Found(place, self.map.sum(chunk))

    def find_at(self, chunk: int, generation: int) -> Found:
        """Place and checksum of a chunk in the snapshot of that generation."""
        lost = self._lost_at(chunk, generation)
        place, birth = (lost.place, lost.birth) if lost is not None else self.map.get(chunk)
        if place == NOWHERE or birth > generation:
            return _NOTHING if self.origin is None else self.origin.find_at(chunk, self.origin_generation)
        return _NOTHING if place == HOLE else Found(place, self.map.sum(chunk) if lost is None else lost.sum)

    def _lost_at(self, chunk: int, generation: int) -> Lost | None:
        with self._store.read() as transaction:
            found = [transaction.lost_at(self.number, chunk, generation)]
        for pending in (self._sealed, self._lost):
            found += [lost for lost in pending.get(chunk, ()) if lost.last >= generation]
        return min((lost for lost in found if lost is not None), key=lambda lost: lost.last, default=None)

    def next_page(self, number: int, *, history: bool) -> int | None:
        """The first page from `number` on in which this, or what it has been cloned from, may have anything; None: there is none.

        With `history`, what its snapshots have counts as well.
        """
        chunk = number << PAGE_SHIFT
        with self._store.read() as transaction:
            found = [transaction.next_page(self.number, number)]
            lost = transaction.next_lost(self.number, chunk) if history else None
        found.append(self.map.next_waiting(number))
        if history:
            waiting = (each for pending in (self._sealed, self._lost) for each in pending if each >= chunk)
            lost = min((each for each in (lost, min(waiting, default=None)) if each is not None), default=None)
            found.append(None if lost is None else lost >> PAGE_SHIFT)
        if self.origin is not None:
            found.append(self.origin.next_page(number, history=True))
        return min((each for each in found if each is not None), default=None)

    # ---- changing

    def in_place(self, chunk: int) -> int:
        """The place of a chunk where it may be written; NOWHERE when it needs a new one."""
        place, birth = self.map.get(chunk)
        return place if birth > self.floor and place != HOLE else NOWHERE

    def remap(self, chunk: int, place: int, free: Callable[[int, int], None], time: int = 0, sum: int = 0) -> None:
        """A chunk is at `place` from now on. What was there before becomes history, is the segment's, or is freed."""
        page, index = self.map.page(chunk >> PAGE_SHIFT), chunk & (CHUNKS - 1)
        old, birth = page.places[index], page.births[index]
        owned = NOWHERE
        if old != NOWHERE:
            if birth <= self.newest:
                if self.newest:  # else it is borrowed
                    was = 0 if page.sums is None else page.sums[index]
                    self._lose(Lost(self.number, chunk, self.newest, old, birth, was))
            elif old != HOLE:
                if self.segment is None:
                    self.release(old, free)
                else:
                    owned = old
        if self.segment is not None:
            if old not in (NOWHERE, HOLE) and birth > self.segment.kept:
                self.segment.held += 1
            self.segment.note(time, chunk, place, owned, sum)
        is_real = NOWHERE < place < HOLE
        self.held += is_real
        self.mapped += is_real - (NOWHERE < old < HOLE)
        self.map.set_in(page, chunk, place, self.generation, sum)

    def release(self, place: int, free: Callable[[int, int], None]) -> None:
        """A place is the tree's no more."""
        self.held -= 1
        self.changed = True
        free(place, self.shift)

    def unmapped(self) -> int:
        """The place to remap a chunk to that shall read as zeros."""
        return NOWHERE if self.origin is None else HOLE

    def _lose(self, lost: Lost) -> None:
        entries = self._lost.get(lost.chunk)
        if entries is None:
            self._lost[lost.chunk] = [lost]
        else:
            insort(entries, lost)

    # ---- commits

    @property
    def dirty(self) -> int:
        return self.map.dirty + self.losts

    @property
    def losts(self) -> int:
        """Chunks of which there is new history that waits for a commit."""
        return len(self._lost)

    def seal(self) -> tuple[list[tuple[int, Image]], list[Lost]]:
        """What the next commit stores: map pages, and new history. `settle` follows when it is durable."""
        self.changed = False
        pages = self.map.seal()
        lost = [each for entries in self._lost.values() for each in entries]
        self._sealed, self._lost = self._lost, {}
        return pages, lost

    def settle(self) -> None:
        self.map.settle()
        self._sealed = {}
        self._fading = 0
        self._set_floor()

    # ---- snapshots

    def take_snapshot(self) -> int:
        """The generation of a snapshot of now."""
        self.newest = self.generation
        self.snapshots.append(self.newest)
        self.generation += 1
        self.changed = True
        self._set_floor()
        return self.newest

    def delete_snapshot(self, generation: int) -> None:
        self.snapshots.remove(generation)
        self.newest = self.snapshots[-1] if self.snapshots else 0
        self.changed = True
        self._fading = max(self._fading, generation)
        self._set_floor()

    def record(self, segment: Segment | None) -> None:
        """Tell `segment` of all writes from now on; or nobody."""
        if segment is None and self.segment is not None:
            self._fading = NEVER
        self.segment = segment
        self._set_floor()

    def _set_floor(self) -> None:
        redirects = self.segment is not None or self.checksums
        self.floor = NEVER if redirects else max(self.newest, self._fading)

    def describe(self) -> dict[str, Any]:
        """What is stored of the tree itself."""
        return {
            "shift": self.shift,
            "generation": self.generation,
            "snapshots": list(self.snapshots),
            "origin": self.origin.number if self.origin is not None else 0,
            "origin_generation": self.origin_generation,
            "moment": self.moment,
            "held": self.held,
            "mapped": self.mapped,
            "buried": self.buried,
            "checksums": self.checksums,
        }

    def bury(self, pages: Sequence[int], free: Callable[[int, int], None]) -> bool:
        """Take the chunks of some pages out of the live map for good; whether there were any pages.

        What snapshots have of them becomes history, all else is freed.
        """
        loaded = [
            (number, self.map.page(number)) for number in pages
        ]  # what cannot be read shows before anything changes
        for number, page in loaded:
            for index, place in enumerate(page.places):
                if place != NOWHERE:
                    self.remap((number << PAGE_SHIFT) + index, NOWHERE, free)
        return bool(pages)

    def neighbour_below(self, generation: int) -> int:
        """Generation of the snapshot before that one; 0 when it is the first."""
        at = bisect_left(self.snapshots, generation)
        return self.snapshots[at - 1] if at else 0


def forget(
    transaction: Transaction, tree: Tree, generation: int, entries: Sequence[Lost], free: Callable[[int, int], None]
) -> None:
    """Work off history that reaches to a snapshot that is deleted, and no further.

    What the snapshot before it has as well now reaches to that one; all else is freed.
    """
    below = tree.neighbour_below(generation)
    for lost in entries:
        transaction.delete_lost(lost)
        if below and lost.birth <= below:
            transaction.put_lost(lost._replace(last=below))
        elif lost.place not in (NOWHERE, HOLE) and lost.birth:
            tree.release(lost.place, free)
