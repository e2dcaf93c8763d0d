"""Continuous data protection (CDP): journals of volumes, from which any moment of a window of time can be seen again.

Each volume that is protected has a journal: segments (pool/segment.py) one after the other, each on a snapshot. A segment ends
when it has become long, when the window demands it, and whenever a snapshot is taken. What falls out of the window is
dropped, a whole segment at a time: what it owns is freed in steps, and then the snapshots go that it needed and nobody else
does. A segment that somebody stands on (a clone, an open moment, a bookmark that is kept) stays.

Rolling back gives a volume another tree and leaves the journal as it is: the moments before can still be reached, so that
it can be undone in the same way.
"""

from __future__ import annotations

import errno
import json
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

from blockyard.pool.catalog import Volume
from blockyard.pool.instant import check_bookmark, parse
from blockyard.pool.livemap import CHUNKS, HOLE, PAGE_SHIFT, Page
from blockyard.pool.recorder import Recorder
from blockyard.pool.segment import Segment, Table, stored_values
from blockyard.pool.space import NOWHERE
from blockyard.pool.store import Transaction
from blockyard.pool.tree import Tree

if TYPE_CHECKING:
    from blockyard.pool.pool import Pool

SECOND = 1_000_000_000  # nanoseconds
WINDOW = 24 * 3600 * SECOND
NOTES = 1 << 19  # of a segment: opening a moment reads all of them
_PARTS = 64  # of a window, in segments: by so much more than the window is kept at most
_LONGEST = 600 * SECOND


class NoMoment(LookupError):
    """There is no such moment of a volume; the message says why."""


@dataclass(frozen=True)
class Bookmark:
    """A name for a moment (nanoseconds since 1970), which is kept beyond the window or not."""

    time: int
    keep: bool = False


@dataclass
class Journal:
    """The journal of a volume. `time` (nanoseconds) and `size` (bytes) are its window; 0 is no limit."""

    on: bool = False
    time: int = WINDOW
    size: int = 0
    bookmarks: dict[str, Bookmark] = field(default_factory=dict)
    segments: list[Segment] = field(default_factory=list)  # in order; those that are dropped are not among them

    def encode(self) -> bytes:
        bookmarks = {name: [mark.time, mark.keep] for name, mark in self.bookmarks.items()}
        return json.dumps({"on": self.on, "time": self.time, "size": self.size, "bookmarks": bookmarks}).encode()

    @classmethod
    def decode(cls, data: bytes) -> Journal:
        fields = json.loads(data)
        bookmarks = {name: Bookmark(*mark) for name, mark in fields.pop("bookmarks").items()}
        return cls(bookmarks=bookmarks, **fields)

    def at(self, time: int) -> Segment | None:
        """The segment that a moment is in."""
        found = bisect_right(self.segments, time, key=lambda segment: segment.start) - 1
        if found < 0:
            return None
        segment = self.segments[found]
        return segment if not segment.end or time < segment.end else None

    def is_kept(self, segment: Segment) -> bool:
        """Whether a bookmark keeps it beyond the window."""
        return any(mark.keep and self.at(mark.time) is segment for mark in self.bookmarks.values())


class Span(NamedTuple):
    """From `start` to `end` every moment can be reached (nanoseconds since 1970)."""

    start: int
    end: int


@dataclass(frozen=True)
class Reach:
    """What the journal of a volume can do, and what it costs."""

    on: bool
    time: int  # of the window, in nanoseconds; 0: no limit
    size: int  # of the window, in bytes; 0: no limit
    now: int  # by the journal's clock, in nanoseconds since 1970
    spans: list[Span]  # without gaps inside, in order
    writes: int  # chunks that were written, each of which is a moment
    held: int  # bytes of data that are there for the journal alone
    segments: int
    bookmarks: dict[str, Bookmark]


class Moment:
    """What a volume was at a time: a snapshot of its tree, and what changed from there on.

    `fresh` are the notes that were not stored when it was opened. All of them are read when something is looked up first.
    """

    def __init__(self, pool: Pool, segment: Segment, time: int, fresh: bytes) -> None:
        self.segment = segment
        self.base = segment.generation - 1  # generation of that snapshot
        self._pool = pool
        self._time = time
        self._fresh = fresh
        self._reading = Lock()
        self._table: Table | None = None

    @property
    def table(self) -> Table:
        """Raises OSError."""
        if self._table is None:
            self._read()
        assert self._table is not None
        return self._table

    def _read(self) -> None:
        with self._reading, self._pool.reading() as transaction:
            if self._table is None:
                self._table = Table((*stored_values(transaction, self.segment), self._fresh), self._time)


class Cdp:
    """The journals of a pool. Whatever changes something is durable when it returns, and raises KeyError for no volume."""

    def __init__(self, pool: Pool, recorder: Recorder) -> None:
        self.clock = recorder.clock
        self._pool = pool
        self._recorder = recorder
        self._journals: dict[str, Journal] = {}

    # ---- the pool tells, under the lock

    def load(self, transaction: Transaction) -> None:
        """Read what is stored. Raises ValueError for what makes no sense."""
        for name, value in transaction.items("journals"):
            journal = self._journals[name.decode()] = Journal.decode(value)
            for mark in journal.bookmarks.values():
                self.clock.reached(mark.time)
        for segment in self._recorder.segments.values():
            if segment.volume and not segment.dropped:
                if segment.volume not in self._journals:
                    raise ValueError(f"a segment is of the journal of {segment.volume}, which has none")
                self._journals[segment.volume].segments.append(segment)
        for journal in self._journals.values():
            journal.segments.sort(key=lambda segment: segment.start)

    def turn(self, tree: Tree, size: int = 0) -> None:
        """A tree has gone on to another generation: so does its segment, if it has one."""
        segment = tree.segment
        if segment is not None:
            self._begin(segment.volume, tree, size or segment.size, self._recorder.end(tree))

    def cut(self, tree: Tree, size: int = 0) -> None:
        """End the segment of a tree, if it has one, and begin the next, in which the volume has that size."""
        if tree.segment is not None:
            tree.take_snapshot()
            self.turn(tree, size)

    def move(self, name: str, old: Tree, new: Tree, size: int) -> None:
        """A volume has another tree from now on."""
        if old.segment is not None:
            end = self._recorder.stop(old)
            new.take_snapshot()
            self._begin(name, new, size, end)

    def forget(self, transaction: Transaction, name: str, tree: Tree) -> None:
        """A volume is gone, and so is its journal."""
        if journal := self._journals.pop(name, None):
            if tree.segment is not None:
                self._recorder.stop(tree)
            for segment in journal.segments:
                self._recorder.disown(segment)
            transaction.delete("journals", name.encode())

    def _begin(self, name: str, tree: Tree, size: int, start: int) -> None:
        kept = max((each.generation for each in self._pool.named_snapshots(tree.number)), default=0)
        self._journals[name].segments.append(self._recorder.begin(name, tree, size, start, kept))

    def _is_in_use(self, segment: Segment) -> bool:
        """Whether a moment of it is open, or a clone stands on one."""
        return bool(segment.users) or any(
            tree.moment == segment.generation and tree.origin is not None and tree.origin.number == segment.tree
            for tree in self._pool.trees
        )

    # ---- administration

    def turn_on(self, name: str, time: int = WINDOW, size: int = 0) -> None:
        """Protect a volume, or give its journal another window: `time` in nanoseconds, `size` in bytes, 0 for no limit."""

        if time < 0 or size < 0:
            raise ValueError("a window cannot be negative")

        def change(transaction: Transaction) -> None:
            volume = self._pool.volume(name)
            journal = self._journals.setdefault(name, Journal())
            journal.time, journal.size = time, size
            if not journal.on:
                journal.on = True
                tree = self._pool.tree(volume.tree)
                tree.take_snapshot()
                self._begin(name, tree, volume.size, self.clock.now())
            self._put(transaction, name)

        self._pool.commit(change, lambda: [self._pool.tree(self._pool.volume(name).tree).gate])

    def turn_off(self, name: str) -> None:
        """Protect a volume no more. All moments are gone, except those that a bookmark keeps."""

        def change(transaction: Transaction) -> None:
            journal = self._journal(name)
            if journal.on:
                journal.on = False
                self._recorder.stop(self._pool.tree(self._pool.volume(name).tree))
            self._drop(transaction, self._droppable(name))
            self._put(transaction, name)

        self._pool.commit(change)

    def now(self) -> int:
        """The present, in nanoseconds since 1970: all that was acknowledged is before it, what comes is after."""
        with self._pool.lock:
            return self.clock.now()

    def when(self, name: str, text: str, now: int = 0) -> int:
        """The moment that somebody means (pool/instant.py), in nanoseconds since 1970. Raises NoMoment.

        `now` is a reading of the clock, when what several volumes were at one moment is wanted.
        """
        with self._pool.lock:
            bookmarks = {label: mark.time for label, mark in self._journal(name).bookmarks.items()}
            try:
                return parse(text, now or self.clock.now(), bookmarks)
            except ValueError as error:
                raise NoMoment(f"{name}: {error}") from None

    def set_bookmark(self, name: str, label: str, time: int | None = None, *, keep: bool = False) -> Bookmark:
        """Give a moment a name: that of now, or another. Raises FileExistsError, NoMoment, ValueError for the name."""
        check_bookmark(label)

        def change(transaction: Transaction) -> None:
            nonlocal time
            time = self.clock.now() if time is None else time
            journal = self._journal(name)
            if label in journal.bookmarks:
                raise FileExistsError(errno.EEXIST, "There is a bookmark of this name", label)
            self._find(name, time)
            journal.bookmarks[label] = Bookmark(time, keep)
            self._put(transaction, name)

        self._pool.commit(change)
        return self._journal(name).bookmarks[label]

    def delete_bookmark(self, name: str, label: str) -> None:
        """Forget the name of a moment. Raises NoMoment where there is no such bookmark."""

        def change(transaction: Transaction) -> None:
            if self._journal(name).bookmarks.pop(label, None) is None:
                raise NoMoment(f"{name} has no bookmark {label}")
            self._put(transaction, name)

        self._pool.commit(change)

    def reach(self, name: str) -> Reach:
        """How far the journal of a volume goes back, and what it costs. Raises NoMoment for a volume without."""
        with self._pool.lock:
            journal = self._journal(name)
            now = self.clock.now()
            segments = journal.segments
            return Reach(
                on=journal.on,
                time=journal.time,
                size=journal.size,
                now=now,
                spans=_spans(segments, now),
                writes=sum(segment.notes for segment in segments),
                held=self._held(journal),
                segments=len(segments),
                bookmarks=dict(journal.bookmarks),
            )

    def journals(self) -> list[str]:
        """The volumes that have a journal."""
        with self._pool.lock:
            return sorted(self._journals)

    def _put(self, transaction: Transaction, name: str) -> None:
        journal = self._journals.get(name)
        if journal is not None and (journal.on or journal.segments):
            transaction.put("journals", name.encode(), journal.encode())
        else:
            self._journals.pop(name, None)
            transaction.delete("journals", name.encode())

    def _journal(self, name: str) -> Journal:
        self._pool.volume(name)
        if name not in self._journals:
            raise NoMoment(f"{name} is not protected continuously: switch it on with `cdp on`")
        return self._journals[name]

    # ---- moments

    def hold(self, name: str, time: int) -> Moment:
        """A moment of a volume (nanoseconds since 1970), which stays until `release`. Raises NoMoment, KeyError."""
        with self._pool.lock:
            segment = self._find(name, time)
            segment.users += 1
            return Moment(self._pool, segment, time, segment.sealed + segment.fresh)

    def release(self, segment: Segment) -> None:
        with self._pool.lock:
            segment.users -= 1

    def _find(self, name: str, time: int) -> Segment:
        journal = self._journal(name)
        if time > self.clock.now():
            raise NoMoment(f"{name}: that moment has not come yet")
        segment = journal.at(time)
        if segment is None:
            raise NoMoment(f"{name}: the journal does not reach to that moment")
        return segment

    def clone(self, name: str, time: int, new: str) -> None:
        """A new volume that begins as a moment of another. Raises NoMoment, FileExistsError."""
        moment = self.hold(name, time)
        try:

            def change(transaction: Transaction) -> None:
                self._pool.check_new(new)
                tree = self._plant(transaction, moment)
                self._pool.bind(transaction, new, Volume(tree.number, moment.segment.size, str(uuid4())))

            self._commit(change, moment)
        finally:
            self.release(moment.segment)

    def roll_back(self, name: str, time: int) -> None:
        """Make a volume what it was at a moment. Its journal stays, so that this can be undone. Nobody may be using it.

        Raises NoMoment.
        """
        moment = self.hold(name, time)
        try:

            def change(transaction: Transaction) -> None:
                volume = self._pool.volume(name)
                tree = self._plant(transaction, moment)
                self._pool.replace_tree(transaction, name, replace(volume, tree=tree.number, size=moment.segment.size))

            self._commit(change, moment)
        finally:
            self.release(moment.segment)

    def _commit(self, change: Callable[[Transaction], None], moment: Moment) -> None:
        self._pool.reserve(len(moment.table))
        self._pool.commit(change)

    def _plant(self, transaction: Transaction, moment: Moment) -> Tree:
        """A new tree that begins as a moment: on its snapshot, with places borrowed from its segment."""
        origin = self._pool.tree(moment.segment.tree)
        if origin.segment is moment.segment:  # it will be kept: no longer than need be
            self.cut(origin)
        tree = self._pool.plant(origin.shift, origin, moment.base)
        tree.moment = moment.segment.generation
        tree.mapped = sum(NOWHERE < place < HOLE for place in moment.table.places)
        for number, page in _pages(moment.table, tree.checksums):
            transaction.put_page(tree.number, number, page.image().encode())
        return tree

    # ---- the window moves

    def work_off(self) -> bool:
        """Do a part of what is due: end segments, drop them, free what they hold. Whether there is more to be done now."""
        with self._pool.lock:
            due = bool(self._recorder.dropped or self._to_cut()) or any(self._to_drop())
        if due:
            self._pool.commit(self._move_on)
        return due

    def _move_on(self, transaction: Transaction) -> None:
        """What is due by now: others do so as well, and may have been quicker."""
        if dropped := next(iter(self._recorder.dropped.values()), None):
            self._free(transaction, dropped)
            return
        for tree in self._to_cut():
            self.cut(tree)
        self._drop(transaction, list(self._to_drop()))

    def _to_cut(self) -> list[Tree]:
        """The trees whose segments are long enough."""
        now = self.clock.now()
        found = []
        for segment in self._recorder.open.values():
            journal, tree = self._journals[segment.volume], self._pool.tree(segment.tree)
            longest = min(max(journal.time // _PARTS, SECOND), _LONGEST) if journal.time else _LONGEST
            heaviest = journal.size // _PARTS if journal.size else segment.held << tree.shift
            if segment.notes and (
                now - segment.start >= longest or segment.notes >= NOTES or segment.held << tree.shift > heaviest
            ):
                found.append(tree)
        return found

    def _to_drop(self) -> Iterator[Segment]:
        """What is out of the window, or nobody's, and that nobody stands on."""
        for name in self._journals:
            yield from self._droppable(name)
        for segment in self._recorder.segments.values():
            if not segment.volume and not segment.dropped and not self._is_in_use(segment):
                yield segment

    def _droppable(self, name: str) -> list[Segment]:
        journal = self._journals[name]
        oldest = self.clock.now() - journal.time if journal.time else 0
        excess = self._held(journal) - journal.size if journal.size else 0
        found = []
        for segment in journal.segments:
            if not segment.end or (journal.on and segment.end >= oldest and excess <= 0):
                break
            if not journal.is_kept(segment) and not self._is_in_use(segment):
                excess -= self._bytes(segment)
                found.append(segment)
        return found

    def _drop(self, transaction: Transaction, segments: list[Segment]) -> None:
        """Nobody can reach these any more, nor the bookmarks in them."""
        for segment in segments:
            self._recorder.drop(segment)
            if segment.volume:
                self._journals[segment.volume].segments.remove(segment)
        for name in {segment.volume for segment in segments} & self._journals.keys():
            journal = self._journals[name]
            journal.bookmarks = {label: mark for label, mark in journal.bookmarks.items() if journal.at(mark.time)}
            self._put(transaction, name)

    def _free(self, transaction: Transaction, segment: Segment) -> None:
        """Free some of what a dropped segment owns; after the last of it, the snapshots that it stood on."""
        tree = self._pool.tree(segment.tree)
        if self._recorder.free(transaction, segment, lambda place: self._pool.free(tree, place)):
            for generation in (segment.generation - 1, segment.generation):
                self._pool.doom_unless_needed(tree, generation)

    def _bytes(self, segment: Segment) -> int:
        return segment.held << self._pool.tree(segment.tree).shift

    def _held(self, journal: Journal) -> int:
        return sum(map(self._bytes, journal.segments))


def _pages(table: Table, checksums: bool) -> Iterator[tuple[int, Page]]:
    """A map in which the chunks of a table are borrowed."""
    entries = zip(table.chunks, table.places, table.sums, strict=True)
    for number, chunks in groupby(entries, lambda each: each[0] >> PAGE_SHIFT):
        page = Page(checksums)
        for chunk, place, sum in chunks:
            page.places[chunk & (CHUNKS - 1)] = place or HOLE
            if page.sums is not None:
                page.sums[chunk & (CHUNKS - 1)] = sum
        yield number, page


def _spans(segments: list[Segment], now: int) -> list[Span]:
    spans: list[Span] = []
    for segment in segments:
        end = segment.end or now
        if spans and spans[-1].end == segment.start:
            spans[-1] = Span(spans[-1].start, end)
        else:
            spans.append(Span(segment.start, end))
    return spans
