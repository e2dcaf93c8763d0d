"""Scrubbing: reading all that a pool holds, so that what a disk has lost or falsified is found while there still is another copy.

It goes page by page: what is looked up stays what it is until it has been read, and others wait for nothing but the disk.
Places of a tree with checksums are verified, those of others only read.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import NamedTuple

from blockyard.pool.catalog import Snapshot
from blockyard.pool.livemap import HOLE, PAGE_SHIFT
from blockyard.pool.pool import Pool
from blockyard.pool.segment import notes_in
from blockyard.pool.space import NOWHERE
from blockyard.pool.store import LOST, THREE, Transaction
from blockyard.pool.tree import Tree

Progress = Callable[[int, int], None]
_STEP = 256  # places that are looked up together
_NAP = 0.5  # seconds that it sleeps at most before it tells how far it is, which is when it can be stopped
_NOTED = 1 << 64  # no chunk is born as late


@dataclass(frozen=True)
class Bad:
    """A chunk that cannot be read as it was written: `where` names all who have it, `offset` is in bytes of the volume."""

    where: tuple[str, ...]  # VOLUME, VOLUME@SNAPSHOT, or "the journal of VOLUME"
    offset: int
    length: int
    what: str


class _Place(NamedTuple):
    chunk: int
    place: int
    sum: int
    birth: int  # _NOTED: it is a journal's
    last: int | None = None  # generation; None: it is live


def _lost(key: bytes, value: bytes) -> _Place:
    _, chunk, last = THREE.unpack(key)
    place, birth, sum = LOST.unpack(value)
    return _Place(chunk, place, sum, birth, last)


def scrub(pool: Pool, progress: Progress = lambda done, total: None, rate: int = 0) -> list[Bad]:
    """Read everything, at most `rate` bytes a second (0: as fast as it goes). What is bad, in no order."""
    return _Scrub(pool, progress, rate).run()


class _Scrub:
    def __init__(self, pool: Pool, progress: Progress, rate: int) -> None:
        self._pool = pool
        self._progress = progress
        self._rate = rate
        self._total = pool.used
        self._began = time.monotonic()
        self._done = 0
        self._bad: list[Bad] = []

    def run(self) -> list[Bad]:
        self._pool.flush()  # what is not committed yet is looked at in memory alone
        for tree in self._pool.trees:
            self._live(tree)
            self._history(tree)
            self._journal(tree)
        self._progress(self._total, self._total)
        return self._bad

    def _read(self, tree: Tree, look: Callable[[], list[_Place]]) -> None:
        """Read places of a tree that `look` looks up."""
        epoch = self._pool.enter()
        try:
            places = look()
            for each in places:
                try:
                    self._read_place(tree, each)
                except OSError as error:
                    what = error.strerror or str(error)
                    self._bad.append(Bad(self._called(tree, each), each.chunk << tree.shift, 1 << tree.shift, what))
        finally:
            self._pool.leave(epoch)
        self._done += len(places) << tree.shift
        self._progress(min(self._done, self._total), self._total)
        if self._rate:
            self._wait(self._began + self._done / self._rate)

    def _wait(self, until: float) -> None:
        """So that it is not faster than it may be; whoever wants it to stop does not wait as long."""
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _NAP))
            self._progress(min(self._done, self._total), self._total)

    def _read_place(self, tree: Tree, found: _Place) -> None:
        data = memoryview(bytearray(1 << tree.shift))
        self._pool.read(found.place, [data], 0)
        if tree.checksums:
            self._pool.verifier.verify([data], found.sum, self._owner(tree), found.chunk)

    # ---- what there is

    def _live(self, tree: Tree) -> None:
        number: int | None = 0
        while number is not None:
            with self._pool.lock, self._pool.reading() as transaction:
                found = (transaction.next_page(tree.number, number), tree.map.next_waiting(number))
            number = min((each for each in found if each is not None), default=None)
            if number is not None:
                self._read(tree, partial(self._page, tree, number))
                number += 1

    def _page(self, tree: Tree, number: int) -> list[_Place]:
        with self._pool.lock:
            page = tree.map.page(number)
            sums = page.sums or [0] * len(page.places)
            return [
                _Place((number << PAGE_SHIFT) + index, place, sums[index], page.births[index])
                for index, place in enumerate(page.places)
                if place not in (NOWHERE, HOLE) and page.births[index]  # what is borrowed is read where it belongs
            ]

    def _history(self, tree: Tree) -> None:
        self._table(tree, "lost", _STEP, lambda transaction, key, value: [_lost(key, value)])

    def _journal(self, tree: Tree) -> None:
        self._table(
            tree, "notes", _STEP // 64, lambda transaction, key, value: self._noted(tree, transaction, key, value)
        )

    def _noted(self, tree: Tree, transaction: Transaction, key: bytes, value: bytes) -> Iterable[_Place]:
        """What a journal alone has."""
        segment = transaction.get("segments", key[:16])
        if segment is None or json.loads(segment)["dropped"]:
            return ()
        with self._pool.lock:
            return [
                _Place(note.chunk, note.place, note.sum, _NOTED)
                for note in notes_in(value)
                if note.place != tree.map.get(note.chunk)[0]
            ]

    def _table(
        self, tree: Tree, table: str, step: int, places: Callable[[Transaction, bytes, bytes], Iterable[_Place]]
    ) -> None:
        """Read what entries of a table lead to, `step` entries at a time."""
        prefix = tree.number.to_bytes(8, "big")
        start = prefix
        more = True

        def look() -> list[_Place]:
            nonlocal start, more
            found: list[_Place] = []
            with self._pool.reading() as transaction:
                entries = list(islice(transaction.items(table, prefix, start), step))
                for key, value in entries:
                    found += places(transaction, key, value)
                    start = key + b"\0"
            more = len(entries) == step
            return [each for each in found if each.place not in (NOWHERE, HOLE) and each.birth]

        while more:
            self._read(tree, look)

    # ---- whose it is

    def _owner(self, tree: Tree) -> str:
        """The volume that has a tree, or had it."""
        names = [name for name in self._pool.volumes if self._pool.volume(name).tree == tree.number]
        return next(iter([*names, *(name for name, _ in self._snapshots(tree))]), f"tree {tree.number}")

    def _snapshots(self, tree: Tree) -> list[tuple[str, Snapshot]]:
        found = ((name, each) for name in self._pool.volumes for each in self._pool.snapshots(name))
        return [(name, each) for name, each in found if each.tree == tree.number]

    def _called(self, tree: Tree, found: _Place) -> tuple[str, ...]:
        owner = self._owner(tree)
        if found.birth == _NOTED:
            return (f"the journal of {owner}",)
        names = [
            f"{name}@{each.name}"
            for name, each in self._snapshots(tree)
            if found.birth <= each.generation and (found.last is None or each.generation <= found.last)
        ]
        live = [owner] if found.last is None else []
        return tuple(live + names) or (f"what stands on {owner}",)
