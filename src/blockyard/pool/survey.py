"""Which space of a volume is whose alone: what would be free if one of its snapshots were deleted.

That changes with every snapshot that comes or goes for chunks that nobody touches, so that no counter can keep it cheaply.
Instead all entries of the maps and the history of a volume are gone through once, as one commit has stored them: a view that
LMDB holds still while others write, so that it needs no lock. It takes a microsecond or two for each chunk.

An entry was there from its birth to the last generation that has it: all snapshots of generations between have it in common.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from blockyard.pool import catalog
from blockyard.pool.livemap import HOLE, decode
from blockyard.pool.space import NOWHERE
from blockyard.pool.store import Transaction

Progress = Callable[[int, int], None]

_STEP = 4096  # entries between two calls of the progress


@dataclass
class Share:
    """Bytes that a volume or a snapshot of it has."""

    seen: int = 0  # all that can be read there, but for what a clone has from what it was cloned from
    own: int = 0  # of this, what nobody else has


@dataclass
class Survey:
    """Shares of the volume as it is now, and of its snapshots by their names."""

    now: Share = field(default_factory=Share)
    snapshots: dict[str, Share] = field(default_factory=dict)
    unnamed: int = 0  # bytes that only snapshots without a name have: of journals, and of those that clones stand on
    leaving: int = 0  # bytes that nobody has any more, and that are still to be freed


class _Counts:
    """Chunks of one tree, by the snapshots that have them: these are numbered from 0, and the live map comes after them."""

    def __init__(self, generations: list[int]) -> None:
        self._generations = generations
        self._begins = [0] * (
            len(generations) + 2
        )  # where a run of snapshots with a chunk begins, less those that end there
        self.own = [0] * (len(generations) + 1)
        self.leaving = 0

    def add(self, birth: int, last: int | None, count: int = 1) -> None:
        """Chunks that were there from one generation to another, or are still (None)."""
        first = bisect_left(self._generations, birth)
        end = len(self._generations) if last is None else bisect_right(self._generations, last) - 1
        if end < first:
            self.leaving += count
            return
        self._begins[first] += count
        self._begins[end + 1] -= count
        if first == end:
            self.own[first] += count

    @property
    def seen(self) -> list[int]:
        return list(accumulate(self._begins))[:-1]


def survey(transaction: Transaction, volume: str, progress: Progress = lambda done, total: None) -> Survey:
    """What there is of a volume. `progress` is told how many entries of how many. Raises KeyError."""
    found = catalog.load(transaction)
    live = found.volumes[volume].tree
    named = {(each.tree, each.generation): each.name for each in found.snapshots.get(volume, {}).values()}
    trees = {number: _described(transaction, number) for number in sorted({live, *(tree for tree, _ in named)})}
    result = Survey(snapshots={name: Share() for name in named.values()})
    total, done = sum(description["held"] for description in trees.values()), 0
    for number, description in trees.items():
        counts = _Counts(description["snapshots"])
        newest = max(description["snapshots"], default=0)
        for birth, end, count in _entries(transaction, number, description["checksums"]):
            # what was the live map is nobody's any more but for the snapshots
            counts.add(birth, newest if end is None and number != live else end, count)
            done += count
            if done % _STEP < count:
                progress(min(done, total), total)
        labels = [named.get((number, generation)) for generation in description["snapshots"]]
        _share_out(result, counts, labels, description["shift"], is_live=number == live)
    progress(total, total)
    return result


def _share_out(result: Survey, counts: _Counts, labels: list[str | None], shift: int, *, is_live: bool) -> None:
    """Note what snapshots of these names have, None for those without one, and what the live map has that comes after them."""
    *snapshots, now = [Share(seen << shift, own << shift) for seen, own in zip(counts.seen, counts.own, strict=True)]
    for label, share in zip(labels, snapshots, strict=True):
        if label is None:
            result.unnamed += share.own
        else:
            result.snapshots[label] = share
    if is_live:
        result.now = now
    result.leaving += counts.leaving << shift


def _described(transaction: Transaction, tree: int) -> dict[str, Any]:
    value = transaction.get("trees", tree.to_bytes(8, "big"))
    if value is None:
        raise transaction.damaged(f"tree {tree} is missing")
    description: dict[str, Any] = json.loads(value)
    return description


def _entries(transaction: Transaction, tree: int, checksums: bool) -> Iterator[tuple[int, int | None, int]]:
    """Births, last generations, and how many chunks have these. What is borrowed (a birth of 0) is somebody else's."""
    for _, data in transaction.pages(tree):
        page = decode(data, checksums)
        births = Counter(
            birth for place, birth in zip(page.places, page.births, strict=True) if place not in (NOWHERE, HOLE)
        )
        for birth, count in births.items():
            if birth:
                yield birth, None, count
    for lost in transaction.losses(tree):
        if lost.place not in (NOWHERE, HOLE) and lost.birth:
            yield lost.birth, lost.last, 1
