"""Places for chunks: for many threads, of which some wait for a disk and others do not."""

from __future__ import annotations

import threading

from blockyard.pool.space import PoolFull, Space
from blockyard.pool.tree import Tree
from blockyard.pool.usage import Ledger


class Allocator:
    """Gives out places. `lock` is the pool's; `stirred` is set when slabs should be prepared."""

    def __init__(self, space: Space, ledger: Ledger, lock: threading.RLock, stirred: threading.Event) -> None:
        self._space = space
        self._ledger = ledger
        self._lock = lock
        self._stirred = stirred

    def allocate(self, tree: Tree) -> tuple[int, bool]:
        """A new place for a chunk, which belongs to nobody until it is in a map; whether it reads as zeros. Raises PoolFull."""
        while True:
            with self._lock:
                self._ledger.check(tree)
                if self._space.is_ready(tree.shift) or not self._space.free_slabs:
                    return self._take(tree)
            self._prepare(tree.shift)
            self.prepare()

    def take(self, tree: Tree) -> tuple[int, bool] | None:
        """The same, but None when that would take waiting for a disk."""
        with self._lock:
            if not self._space.is_ready(tree.shift):
                return None
            self._ledger.check(tree)
            return self._take(tree)

    def _take(self, tree: Tree) -> tuple[int, bool]:
        found = self._space.allocate(tree.shift)
        if self._space.hungry and not self._stirred.is_set():
            self._stirred.set()
        return found

    def admits(self, tree: Tree) -> bool:
        """Whether `allocate` would find a place."""
        with self._lock:
            try:
                self._ledger.check(tree)
            except PoolFull:
                return False
            return self._space.has_room(tree.shift)

    def give_back(self, tree: Tree, place: int) -> None:
        """A place was not needed after all."""
        with self._lock:
            self._space.free(place, tree.shift)

    def prepare(self) -> None:
        """Have space ready for those who will not wait for it."""
        while True:
            with self._lock:
                wanted = self._space.wanted()
            if not wanted:
                return
            self._prepare(wanted[0])

    def _prepare(self, shift: int) -> None:
        """Make one slab ready. Wiping it is I/O, and happens outside of the lock."""
        with self._lock:
            if not self._space.free_slabs:
                return
            slab = self._space.begin(shift)
        clean = self._space.wipe_slab(slab)
        with self._lock:
            self._space.prepare(slab, clean=clean)
