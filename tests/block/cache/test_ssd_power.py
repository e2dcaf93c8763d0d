"""A cache on a persistent device against a plain model; the process dies, and both devices lose power with any part of what was
not flushed, each its own.

Then what was flushed and not written since is there; what was written since is, sector by sector, the old or one of the new; and
it stays so: what is written back, evicted and read again does not change.
"""

from __future__ import annotations

from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule, run_state_machine_as_test

from blockyard.block.cache.layout import read_mark
from blockyard.block.cache.slots import CLEAN, CLEARED, DIRTY, FREE, OLD, WRITTEN
from blockyard.block.cache.ssd import SsdCache
from blockyard.block.cache.ssd_opening import assemble, create_cache
from blockyard.block.cache.ssd_options import Resizing, SsdCreation, SsdOptions, Switching
from blockyard.block.layers import Opening
from blockyard.block.size import Size
from tests.block.disks import SECTOR, Disk
from tests.block.power import Sectors

LINE = 4096
SECTORS = LINE // SECTOR
SLOTS = 20


def nobody(done: int, total: int) -> None:
    """Nobody looks at the progress."""


class Caches(Sectors):
    """Writes, zeros, flushes, writing back, openings; and power that fails."""

    mode: ClassVar[str] = "back"
    LINES: ClassVar[int] = 34

    def __init__(self) -> None:
        super().__init__()
        self.size = self.LINES * LINE - 3 * SECTOR  # the last block is not whole
        self.follow(line * SECTORS + sector for line in range(self.LINES) for sector in (0, 1, 5))
        self.origin = Disk(data=bytes(self.size))
        self.device = Disk(data=bytes((1 << 20) + SLOTS * (LINE + 32) + (64 << 10)))
        create_cache((self.origin, self.device), SsdCreation(), Opening())
        self.open()

    @property
    def disk_now(self) -> SsdCache:
        return self.cache

    def open(self) -> None:
        options = SsdOptions(mode=self.mode, dirty=80)
        self.cache: SsdCache = assemble((self.origin, self.device), options, Opening())
        assert self.cache.size == self.size

    def make_room(self) -> None:
        """There is no thread that does: it would be another one at each run."""
        if self.cache.slots.dirty_count + 9 > self.cache.limit:
            self.cache.write_back.sweep()

    @rule(line=st.integers(0, LINES - 1), sector=st.integers(0, 7), count=st.sampled_from((1, 2, 8, 8, 8, 17, 40)))
    def write(self, line: int, sector: int, count: int) -> None:
        start = line * SECTORS + (sector if count < 8 else 0)
        end = min(start + count, self.size // SECTOR)
        if start < end:
            self.make_room()
            byte = next(self.bytes)
            self.cache.pwritev([bytes([byte]) * SECTOR * (end - start)], start * SECTOR)
            self.changed(start, end, byte)

    @rule(line=st.integers(0, 3))
    def write_again(self, line: int) -> None:
        self.write(line, 0, SECTORS)

    @rule(
        line=st.integers(0, LINES - 1), sector=st.sampled_from((0, 0, 3)), count=st.integers(1, 60), free=st.booleans()
    )
    def zero(self, line: int, sector: int, count: int, free: bool) -> None:
        start = line * SECTORS + sector
        end = min(start + count, self.size // SECTOR)
        if start < end:
            self.make_room()
            (self.cache.discard if free else self.cache.write_zeroes)(start * SECTOR, (end - start) * SECTOR)
            self.changed(start, end, 0)

    @rule(line=st.integers(0, LINES - 1), count=st.integers(1, 12))
    def read_some(self, line: int, count: int) -> None:
        for cell in self.cells:
            if line * SECTORS <= cell < (line + count) * SECTORS:
                assert self.read(cell) == self.now[cell], cell

    @rule()
    def flush(self) -> None:
        self.cache.flush()
        self.settled()

    @rule()
    def barrier(self) -> None:
        self.cache.barrier()

    @rule()
    def write_back(self) -> None:
        self.cache.write_back.sweep()

    @rule(mode=st.sampled_from(("back", "through")))
    def switch(self, mode: str) -> None:
        self.cache.actions()["mode"].run(Switching(mode), nobody)
        assert self.cache.mode == mode
        if mode == "through":
            self.settled()
            assert not self.cache.slots.dirty_count

    @rule(slots=st.integers(16, 40))
    def resize(self, slots: int) -> None:
        mode = self.cache.mode
        size = (1 << 20) + slots * (LINE + 32) + (64 << 10)
        self.cache.actions()["resize"].run(Resizing(Size(size)), nobody)
        assert self.cache.mode == mode
        assert self.cache.slots.count == slots

    @rule()
    def close_and_open(self) -> None:
        cached = set(self.cache.slots.index)
        dirty = self.cache.slots.dirty_count
        self.cache.close()
        for disk in (self.origin, self.device):
            disk.lose_power(0, 0)  # close has flushed
        mark = read_mark(self.origin, self.size)
        assert mark is not None
        assert mark.state == (dirty > 0)
        self.open()
        assert set(self.cache.slots.index) == cached
        self.settled()

    @rule()
    def the_process_dies(self) -> None:
        self.open()

    @rule()
    def somebody_else_reads(self) -> None:
        before = bytes(self.origin.seen), bytes(self.device.seen)
        self.origin.read_only = self.device.read_only = True
        cache = self.cache
        self.open()
        self.reads_as_written()
        self.origin.read_only = self.device.read_only = False
        self.cache = cache
        assert (bytes(self.origin.seen), bytes(self.device.seen)) == before

    densities = st.sampled_from((0.0, 0.2, 0.5, 0.8, 0.97, 1.0))

    @rule(seed=st.integers(0, 1 << 32), origin=densities, device=densities)
    def the_power_fails(self, seed: int, origin: float, device: float) -> None:
        self.origin.lose_power(seed, origin)
        self.device.lose_power(seed + 1, device)
        self.open()
        self.check_survivors()
        self.cache.flush()
        self.settled()

    @rule(seed=st.integers(0, 1 << 32), origin=densities, device=densities)
    def the_power_fails_twice(self, seed: int, origin: float, device: float) -> None:
        """The second time while nothing was written since: as when the machine does not come up at once."""
        self.the_power_fails(seed, origin, device)
        self.the_power_fails(seed + 2, device, origin)

    @invariant()
    def slots_are_counted(self) -> None:
        slots = self.cache.slots
        states = {state: slots.states.count(state) for state in (FREE, DIRTY, OLD, WRITTEN, CLEARED, CLEAN)}
        assert states[DIRTY] == slots.dirty_count == sum(map(len, slots.dirty.values()))
        assert states[FREE] + states[CLEAN] == slots.available
        assert states[OLD] + states[CLEARED] == sum(slots.older.values())


class Through(Caches):
    mode = "through"


@pytest.mark.soak
@pytest.mark.timeout(3 * 3600)
@pytest.mark.parametrize("machine", [Caches, Through])
def test_for_long(machine: type[Caches]) -> None:
    run_state_machine_as_test(machine, settings=settings(max_examples=3000, stateful_step_count=80, deadline=None))


Caches.TestCase.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
Through.TestCase.settings = settings(max_examples=20, stateful_step_count=50, deadline=None)
TestCaches = Caches.TestCase
TestThrough = Through.TestCase
