"""The segments of a pool: they are begun, written, ended and freed here; whose they are, and for how long, pool/cdp.py knows.

Everything here happens under the lock of the pool.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from blockyard.pool.clock import Clock
from blockyard.pool.segment import Segment, segment_key, take_notes
from blockyard.pool.space import NOWHERE
from blockyard.pool.store import Transaction
from blockyard.pool.tree import Tree

_STEP = 4096  # notes of a dropped segment that one commit works off


class Recorder:
    """All segments, by tree and generation."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.segments: dict[tuple[int, int], Segment] = {}
        self.open: dict[tuple[int, int], Segment] = {}  # that are being written
        self.dropped: dict[tuple[int, int], Segment] = {}  # and not worked off
        self._changed: dict[tuple[int, int], Segment] = {}  # otherwise than by notes, and not stored yet
        self._sealed: list[Segment] = []  # by a commit that is under way

    # ---- storing

    def load(self, transaction: Transaction, trees: Mapping[int, Tree]) -> None:
        """Read what is stored; trees go on being recorded. Raises ValueError for what makes no sense."""
        for key, value in transaction.items("segments"):
            segment = Segment.load(key, value)
            if segment.tree not in trees:
                raise ValueError(f"a segment is of tree {segment.tree}, which is none")
            self.segments[segment.key] = segment
            self.clock.reached(max(segment.last, segment.start, segment.end))
            if not segment.end:
                self.open[segment.key] = segment
                trees[segment.tree].record(segment)
            if segment.dropped:
                self.dropped[segment.key] = segment

    @property
    def dirty(self) -> int:
        """About how many entries a commit has to store."""
        return len(self._changed) + sum(1 + len(each.fresh) // (1 << 12) for each in self.open.values() if each.fresh)

    def seal(self) -> Callable[[Transaction], None]:
        """Close what a commit has to store: how to store it. `settle` follows when it is durable."""
        self._sealed = list((self._changed | {key: each for key, each in self.open.items() if each.fresh}).values())
        self._changed = {}
        for segment in self._sealed:
            segment.seal()

        def store(transaction: Transaction) -> None:
            for segment in self._sealed:
                segment.store(transaction)

        return store

    def settle(self) -> None:
        for segment in self._sealed:
            segment.settle()
        self._sealed = []

    # ---- a segment's life

    def begin(self, volume: str, tree: Tree, size: int, start: int, kept: int) -> Segment:
        """Record a tree from its newest snapshot on. See Segment for what the arguments are."""
        segment = Segment(volume, tree.number, tree.generation, size, start, kept=kept)
        self.segments[segment.key] = self.open[segment.key] = self._changed[segment.key] = segment
        tree.record(segment)
        return segment

    def end(self, tree: Tree) -> int:
        """What is recorded of a tree is a whole segment: the tree has gone on to another generation. When that was."""
        segment = tree.segment
        assert segment is not None
        segment.end = self.clock.now()
        del self.open[segment.key]
        self._changed[segment.key] = segment
        return segment.end

    def stop(self, tree: Tree) -> int:
        """Record a tree no more. What it is now becomes a snapshot, as the segment needs it. When that was."""
        tree.take_snapshot()
        end = self.end(tree)
        tree.record(None)
        return end

    def disown(self, segment: Segment) -> None:
        """A segment is in no journal any more."""
        segment.volume = ""
        self._changed[segment.key] = segment

    def drop(self, segment: Segment) -> None:
        """Nobody can reach a segment any more: it is to be freed."""
        segment.dropped = True
        self.dropped[segment.key] = self._changed[segment.key] = segment

    def free(self, transaction: Transaction, segment: Segment, free: Callable[[int], None]) -> bool:
        """Free some of what a dropped segment owns, or when all of that is done, the segment. Whether it is gone."""
        notes = take_notes(transaction, segment, _STEP)
        for note in notes:
            if note.owned != NOWHERE:
                free(note.owned)
        if notes:
            return False
        transaction.delete("segments", segment_key(segment))
        del self.segments[segment.key], self.dropped[segment.key]
        return True

    def needs(self, tree: Tree, generation: int) -> bool:
        """Whether a segment begins or ends with that snapshot of a tree."""
        return any((tree.number, number) in self.segments for number in (generation, generation + 1))
