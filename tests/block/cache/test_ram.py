"""The cache in memory: the same bytes as the device below at every moment, whatever is evicted, read ahead, or fails."""

from __future__ import annotations

import contextlib
import errno
import itertools
import random
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from blockyard.block.building import open_stack, tree
from blockyard.block.cache.ram import RamCache, RamOptions, Resizing, Window
from blockyard.block.device import Device
from blockyard.block.faults import Fault, FaultDevice, Operation
from blockyard.block.file import FileDevice, create
from blockyard.block.memory import MemoryDevice
from blockyard.block.size import Size
from blockyard.block.stack import StackError

SECTOR = 512
LINE = 4096
LEAST = RamOptions(ram=Size(64 * LINE), read_ahead=Window(8 * LINE))


def read(device: Device, offset: int, length: int, pieces: int = 1) -> bytes:
    data = bytearray(length)
    view = memoryview(data)
    cut = length // pieces // SECTOR * SECTOR or length
    device.preadv([view[at : at + cut] for at in range(0, length, cut)], offset)
    return bytes(data)


def quick_read(device: Device, offset: int, length: int) -> bytes | None:
    data = bytearray(length)
    assert device.quick is not None
    return bytes(data) if device.quick.read([memoryview(data)], offset, length) else None


class Model(RuleBasedStateMachine):
    """Any operations in any order, on a device of four times the size of the cache."""

    SIZE: ClassVar[int] = 256 * LINE - 3 * SECTOR

    def __init__(self) -> None:
        super().__init__()
        self.faults = FaultDevice(MemoryDevice(self.SIZE))
        self.cache = RamCache(self.faults, LEAST)
        self.bytes = bytearray(self.SIZE)
        self.values = itertools.cycle(range(1, 256))

    def teardown(self) -> None:
        self.cache.close()

    def clipped(self, start: int, count: int) -> tuple[int, int]:
        offset = start * SECTOR % self.SIZE
        return offset, min(count * SECTOR, self.SIZE - offset)

    starts = st.integers(0, 256 * 8)
    counts = st.sampled_from((1, 7, 8, 9, 16, 64, 300))

    @rule(start=starts, count=counts, aligned=st.booleans())
    def write(self, start: int, count: int, aligned: bool) -> None:
        offset, length = self.clipped(start // 8 * 8 if aligned else start, count)
        data = bytes([next(self.values)]) * length
        self.cache.pwritev([data[: length // 2 // SECTOR * SECTOR], data[length // 2 // SECTOR * SECTOR :]], offset)
        self.bytes[offset : offset + length] = data

    @rule(start=starts, count=counts)
    def write_that_fails(self, start: int, count: int) -> None:
        """Half of it is done below: who reads sees what is there."""
        offset, length = self.clipped(start, count)
        half = length // 2 // SECTOR * SECTOR
        data = bytes([next(self.values)]) * length
        self.faults.below.pwritev([data[:half]], offset)
        fault = self.faults.inject(Fault(Operation.WRITE, errno=errno.EIO))
        with pytest.raises(OSError, match="Input/output"):
            self.cache.pwritev([data], offset)
        self.faults.heal(fault)
        self.bytes[offset : offset + half] = data[:half]

    @rule(start=starts, count=counts, free=st.booleans())
    def zero(self, start: int, count: int, free: bool) -> None:
        offset, length = self.clipped(start, count)
        (self.cache.discard if free else self.cache.write_zeroes)(offset, length)
        self.bytes[offset : offset + length] = bytes(length)

    @rule(start=starts, count=counts, pieces=st.integers(1, 3))
    def compare(self, start: int, count: int, pieces: int) -> None:
        offset, length = self.clipped(start, count)
        assert read(self.cache, offset, length, pieces) == self.bytes[offset : offset + length]

    @rule(start=starts, count=counts)
    def read_that_fails(self, start: int, count: int) -> None:
        offset, length = self.clipped(start, count)
        fault = self.faults.inject(Fault(Operation.READ, errno=errno.EIO))
        with contextlib.suppress(OSError):
            assert read(self.cache, offset, length) == self.bytes[offset : offset + length]
        self.faults.heal(fault)

    @rule(start=starts, count=counts)
    def hit(self, start: int, count: int) -> None:
        """What was read just now is there on the short road, if the cache is as large as that."""
        offset, length = self.clipped(start, count)
        if length > 16 * LINE:
            return
        found = quick_read(self.cache, offset, length)
        assert found is None or found == self.bytes[offset : offset + length]
        read(self.cache, offset, length)
        assert quick_read(self.cache, offset, length) in (self.bytes[offset : offset + length], None)

    @rule(start=starts)
    def read_in_sequence(self, start: int) -> None:
        for line in range(start // 8, min(start // 8 + 40, self.SIZE // LINE)):
            assert read(self.cache, line * LINE, LINE) == self.bytes[line * LINE : (line + 1) * LINE]

    @rule(lines=st.integers(64, 300))
    def resize(self, lines: int) -> None:
        self.cache.actions()["resize"].run(Resizing(Size(lines * LINE)), lambda done, total: None)

    @rule(grow=st.booleans())
    def the_device_changes_its_size(self, grow: bool) -> None:
        below = self.faults.below
        assert isinstance(below, MemoryDevice)
        size = self.SIZE + (5 * SECTOR if grow else 0)
        below.data[self.SIZE :] = bytes(size - self.SIZE)
        below.size = self.faults.size = size
        self.cache.refresh()
        assert read(self.cache, self.SIZE - SECTOR, size - self.SIZE + SECTOR)[SECTOR:] == bytes(size - self.SIZE)
        below.size = self.faults.size = self.SIZE
        self.cache.refresh()

    @invariant()
    def budget(self) -> None:
        assert self.cache.lines.used <= self.cache.ram
        assert len(self.cache.lines.index) <= self.cache.lines.fifo.capacity


Model.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestModel = Model.TestCase


class Counting(MemoryDevice):
    """Counts reads, and holds them while `hold` is not set."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.reads: list[tuple[int, int]] = []
        self.go = threading.Event()
        self.go.set()
        self.begun = threading.Event()

    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        self.reads.append((offset, sum(map(len, buffers))))
        super().preadv(buffers, offset)
        self.begun.set()
        self.go.wait()


def test_what_is_read_once_is_not_read_again() -> None:
    below = Counting(64 * LINE)
    cache = RamCache(below, LEAST)
    assert quick_read(cache, LINE, LINE) is None
    read(cache, LINE + SECTOR, SECTOR)
    assert below.reads == [(LINE, LINE)]
    assert quick_read(cache, LINE, LINE) == bytes(LINE)
    read(cache, LINE, LINE)
    assert below.reads == [(LINE, LINE)]
    assert cache.report()["counters"] == {"hits": 2, "misses": 1, "evictions": 0, "read_ahead_lines": 0}
    cache.close()


def test_a_read_that_is_older_than_a_write_does_not_get_into_the_cache() -> None:
    below = Counting(64 * LINE)
    cache = RamCache(below, LEAST)
    below.go.clear()
    reader = threading.Thread(target=read, args=(cache, 0, 2 * LINE))
    reader.start()
    below.begun.wait()
    cache.pwritev([b"x" * SECTOR], SECTOR)
    below.go.set()
    reader.join()
    assert read(cache, 0, LINE) == bytes(SECTOR) + b"x" * SECTOR + bytes(LINE - 2 * SECTOR)
    cache.close()


def test_sequential_reads_are_fetched_ahead_and_wait_for_what_is_coming() -> None:
    below = Counting(1024 * LINE)
    cache = RamCache(below, RamOptions(ram=Size(2 << 20), read_ahead=Window(64 * LINE)))
    for line in range(600):
        read(cache, line * LINE, LINE)
    assert cache.read_ahead >= 590
    assert len(below.reads) < 40, "lines come in large pieces"
    assert cache.misses <= 3
    cache.close()


def test_random_reads_are_not_fetched_ahead() -> None:
    below = Counting(1 << 28)
    cache = RamCache(below, LEAST)
    chance = random.Random(3)
    for line in chance.sample(range((1 << 28) // LINE), 300):
        read(cache, line * LINE, LINE)
    assert cache.read_ahead == 0
    assert cache.lines.evicted > 200
    cache.close()


def test_read_ahead_that_fails_is_nobodys_business() -> None:
    faults = FaultDevice(MemoryDevice(256 * LINE))
    cache = RamCache(faults, LEAST)
    faults.inject(Fault(Operation.READ, 8 * LINE, LINE, errno=errno.EIO))
    for line in range(8):
        read(cache, line * LINE, LINE)
    with pytest.raises(OSError, match="Input/output"):
        read(cache, 8 * LINE, LINE)
    faults.heal()
    read(cache, 8 * LINE, LINE)
    cache.close()


def test_detached() -> None:
    below = Counting(64 * LINE)
    cache = RamCache(below, LEAST)
    cache.pwritev([b"a" * LINE], 0)
    cache.actions()["detach"].run(None, lambda done, total: None)
    assert cache.report()["text"] == "detached"
    assert cache.report()["gauges"] == {"memory_bytes": 0, "lines": 0}
    assert cache.actions() == {}
    assert quick_read(cache, 0, LINE) is None
    cache.pwritev([b"b" * LINE], 0)
    assert read(cache, 0, LINE) == b"b" * LINE
    cache.close()


def test_threads() -> None:
    """Many at once on a cache much smaller than what they use: each sees what it has written last."""
    below = MemoryDevice(512 * LINE)
    cache = RamCache(below, LEAST)
    wrong: list[str] = []

    def use(number: int) -> None:
        chance = random.Random(number)
        mine = list(range(number, 512 * 8, 4))  # sectors: neighbours are others'
        seen = dict.fromkeys(mine, 0)
        for _ in range(1500):
            sector = chance.choice(mine[:300])
            if chance.random() < 0.4:
                seen[sector] = chance.randrange(1, 256)
                cache.pwritev([bytes([seen[sector]]) * SECTOR], sector * SECTOR)
            elif chance.random() < 0.1:
                cache.discard(sector * SECTOR, SECTOR)
                seen[sector] = 0
            else:
                found = quick_read(cache, sector * SECTOR, SECTOR) or read(cache, sector * SECTOR, SECTOR)
                if found != bytes([seen[sector]]) * SECTOR:
                    wrong.append(f"sector {sector} is {found[0]}, not {seen[sector]}")

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    data = read(cache, 0, below.size)
    assert data == below.data
    cache.close()


def test_as_a_layer_of_a_stack() -> None:
    device = open_stack("cache(ram=1M, block=16K, read_ahead=off, memory(4M))")
    assert device.label == "cache(ram=1M, block=16K, read_ahead=off)"
    assert set(tree(device)["actions"]) == {"resize", "flush", "clear", "detach"}
    device.close()
    with pytest.raises(StackError, match="power of two"):
        open_stack("cache(block=5000, memory(4M))")
    with pytest.raises(OSError, match="less memory"):
        open_stack("cache(ram=1E, memory(4M))")


def test_short_road_of_writes(tmp_path: Path) -> None:
    """Where a write below waits for nothing, neither does it through the cache."""
    create(tmp_path / "disk", 256 * LINE)
    below = FileDevice(tmp_path / "disk")
    cache = RamCache(below, LEAST)
    assert cache.quick is not None
    model, chance = bytearray(256 * LINE), random.Random(5)
    for number in range(2000):
        line, count = chance.randrange(250), chance.choice((1, 1, 1, 6))
        if chance.random() < 0.5:
            data = bytes([number % 255 + 1]) * LINE * count
            assert cache.quick.write(memoryview(data), line * LINE)
            model[line * LINE : (line + count) * LINE] = data
        else:
            found = quick_read(cache, line * LINE, LINE * count) or read(cache, line * LINE, LINE * count)
            assert found == model[line * LINE : (line + count) * LINE]
    assert (tmp_path / "disk").read_bytes() == model
    with cache.writers.taken(LINE, 2 * LINE):
        assert not cache.quick.write(memoryview(bytes(LINE)), LINE), "somebody else is writing there"
    cache.close()


def test_memory_is_as_much_as_it_says(tmp_path: Path) -> None:
    """What the process has more of when the cache is full is what `ram` says, index included."""
    program = """
import sys
from blockyard.block.cache.ram import RamCache, RamOptions
from blockyard.block.file import FileDevice, create
from blockyard.block.memory import MemoryDevice
from blockyard.block.size import Size

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

class Nothing(MemoryDevice):
    def preadv(self, buffers, offset):
        pass

below = Nothing(4096)
below.size = 1 << 40
before = resident()
cache = RamCache(below, RamOptions(ram=Size(96 << 20)))
buffer = memoryview(bytearray(1 << 20))
for at in range(300):
    cache.preadv([buffer], (at << 30) + 4096)
print((resident() - before) / (96 << 20))
assert cache.lines.used > 95 << 20
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 0.9 < float(done.stdout) < 1.1
