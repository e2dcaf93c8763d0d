"""Which lines leave a cache first."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from blockyard.block.cache.fifo import MARK, NOTHING, Fifo

SLOTS = 100


class Cache:
    """Lines in slots, as the tiers use them."""

    def __init__(self, capacity: int = SLOTS) -> None:
        self.fifo = Fifo(capacity)
        self.index: dict[int, int] = {}
        self.free = list(range(capacity))

    def use(self, line: int) -> bool:
        """Whether it was there."""
        slot = self.index.get(line)
        if slot is not None:
            self.fifo.uses[slot] = min(3, self.fifo.uses[slot] + 1)
            return True
        if self.free:
            slot = self.free.pop()
        else:
            slot = self.fifo.evict()
            if self.fifo.lines[slot] != NOTHING:
                del self.index[self.fifo.lines[slot]]
        self.fifo.insert(slot, line)
        self.index[line] = slot
        return False


def test_a_scan_leaves_what_is_in_use() -> None:
    cache = Cache()
    hot = range(60)
    for _ in range(4):
        for line in hot:
            cache.use(line)
    for line in range(1000, 1000 + 10 * SLOTS):
        cache.use(line)
    assert all(line in cache.index for line in hot)


def test_what_comes_back_soon_stays() -> None:
    cache = Cache()
    for line in range(SLOTS):
        cache.use(line)
    cache.use(500)  # 0 leaves, unused
    assert 0 not in cache.index
    cache.use(0)
    for line in range(1000, 1000 + 10 * SLOTS):
        cache.use(line)
    assert 0 in cache.index


def test_what_was_in_use_leaves_in_the_end() -> None:
    cache = Cache()
    for _ in range(4):
        for line in range(SLOTS):
            cache.use(line)
    for _ in range(8):
        for line in range(1000, 1000 + SLOTS):
            cache.use(line)
    assert sum(line in cache.index for line in range(1000, 1000 + SLOTS)) >= 85


@given(st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=300), st.integers(1, 30))
def test_every_slot_is_in_one_queue(uses: list[tuple[int, bool]], capacity: int) -> None:
    cache = Cache(capacity)
    for line, clear in uses:
        cache.use(line)
        assert len(cache.fifo) + len(cache.free) == capacity
        assert all(cache.fifo.lines[slot] == line for line, slot in cache.index.items())
        if clear:
            cache.fifo.clear(cache.index.pop(line))
    seen = {cache.fifo.evict() for _ in range(len(cache.fifo))}
    assert len(seen) + len(cache.free) == capacity


def test_marks_are_no_uses() -> None:
    cache = Cache()
    for line in range(SLOTS):
        cache.use(line)
        cache.fifo.uses[cache.index[line]] |= MARK
    cache.use(1000)
    assert 0 not in cache.index


def test_a_line_is_given_up_in_bounded_time() -> None:
    cache = Cache(100_000)
    for _ in range(4):
        for line in range(100_000):
            cache.use(line)
    for line in range(1 << 20, (1 << 20) + 1000):
        cache.use(line)
    assert sum(line >= 1 << 20 for line in cache.index) == 1000


def test_resized() -> None:
    cache = Cache()
    chance = random.Random(2)
    for _ in range(1000):
        cache.use(chance.randrange(150))
    cache.fifo.resize(40)
    assert sorted(cache.fifo.evict() for _ in range(len(cache.fifo))) == list(range(40))
