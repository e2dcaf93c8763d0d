"""Compressed disks: a model with power that fails, damage, full devices, and what they take."""

from __future__ import annotations

import errno
import itertools
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from blockyard.block.building import open_stack
from blockyard.block.compressed.device import CompressedDevice, Compressing, create_compressed, open_compressed
from blockyard.block.compressed.layout import SEGMENT, TABLE, CompressedError, read_superblock
from blockyard.block.device import Device
from blockyard.block.faults import Fault, FaultDevice, Operation
from blockyard.block.file import FileDevice, create
from blockyard.block.layers import Opening
from blockyard.block.memory import MemoryDevice
from blockyard.block.size import Size
from tests.block.disks import Disk

SECTOR = 512
CHUNK = 16 << 10
CELLS = CHUNK // SECTOR


def nobody(done: int, total: int) -> None:
    """Nobody looks at the progress."""


def read(device: Device, offset: int, length: int) -> bytes:
    data = bytearray(length)
    device.preadv([memoryview(data)], offset)
    return bytes(data)


def assembled(below: Device) -> CompressedDevice:
    """Without the thread that compacts."""
    superblock = read_superblock(below)
    assert superblock is not None
    return CompressedDevice(below, superblock, read_only=below.read_only, notify=Opening().notify)


def pattern(seed: int, length: int) -> bytes:
    """Bytes that compress a little, and tell which write they are of."""
    return (
        bytes([seed]) * 256 + random.Random(seed).randbytes(SECTOR - 256)
        if length == SECTOR
        else b"".join(pattern(seed, SECTOR) for _ in range(length // SECTOR))
    )


class Compressed(RuleBasedStateMachine):
    """Writes, zeros, flushes, compaction, openings; and power that fails."""

    CHUNKS = 9

    def __init__(self) -> None:
        super().__init__()
        self.size = self.CHUNKS * CHUNK - 3 * SECTOR
        self.cells = [c for chunk in range(self.CHUNKS) for c in (chunk * CELLS, chunk * CELLS + 1, chunk * CELLS + 20)]
        self.disk = Disk(data=bytes(4096))
        create_compressed([self.disk], Compressing(size=Size(self.size), chunk=Size(CHUNK), level=1), Opening())
        self.values = itertools.cycle(range(1, 256))
        self.now = dict.fromkeys(self.cells, 0)
        self.possible = {cell: {0} for cell in self.cells}
        self.device = assembled(self.disk)

    def changed(self, start: int, end: int, value: int) -> None:
        for cell in self.cells:
            if start <= cell < end:
                self.now[cell] = value
                self.possible[cell].add(value)

    @rule(
        chunk=st.integers(0, CHUNKS - 1),
        cell=st.sampled_from((0, 0, 1, 20)),
        count=st.sampled_from((1, 4, CELLS, 3 * CELLS)),
    )
    def write(self, chunk: int, cell: int, count: int) -> None:
        start = chunk * CELLS + cell
        end, value = min(start + count, self.size // SECTOR), next(self.values)
        data = pattern(value, (end - start) * SECTOR)
        self.device.pwritev([data[:SECTOR], data[SECTOR:]], start * SECTOR)
        self.changed(start, end, value)

    @rule(
        chunk=st.integers(0, CHUNKS - 1),
        cell=st.sampled_from((0, 0, 5)),
        count=st.sampled_from((1, CELLS, 2 * CELLS + 3)),
    )
    def zero(self, chunk: int, cell: int, count: int) -> None:
        start = chunk * CELLS + cell
        end = min(start + count, self.size // SECTOR)
        self.device.discard(start * SECTOR, (end - start) * SECTOR)
        self.changed(start, end, 0)

    @rule()
    def flush(self) -> None:
        self.device.flush()
        self.possible = {cell: {value} for cell, value in self.now.items()}

    @rule()
    def another_segment(self) -> None:
        """As if this one were full."""
        segment = self.device.log.segments.get(self.device.log._current)
        if segment is not None:
            segment.end = SEGMENT // SECTOR

    @rule()
    def compact(self) -> None:
        number = self.device.log.emptiest(1)
        if number is not None:
            self.device.log.empty(number)
            self.flush()

    @rule()
    def the_process_dies(self) -> None:
        self.device = assembled(self.disk)

    @rule(seed=st.integers(0, 1 << 32), density=st.sampled_from((0.0, 0.2, 0.5, 0.8, 0.97, 1.0)))
    def the_power_fails(self, seed: int, density: float) -> None:
        self.disk.lose_power(seed, density)
        self.device = assembled(self.disk)
        for cell in self.cells:
            found = self.read(cell)
            assert found in self.possible[cell], f"cell {cell} is {found}, and may be {self.possible[cell]}"
            self.now[cell] = found
        self.flush()

    @rule()
    def reads_as_written(self) -> None:
        for cell in self.cells:
            assert self.read(cell) == self.now[cell], cell
        for run in self.device.runs(0, self.size):
            if not run.mapped:
                assert not any(read(self.device, run.offset, run.length))

    @invariant()
    def what_is_alive_is_counted(self) -> None:
        log = self.device.log
        assert sum(segment.live for segment in log.segments.values()) * SECTOR == log.live_bytes

    def read(self, cell: int) -> int:
        data = read(self.device, cell * SECTOR, SECTOR)
        assert data == (pattern(data[0], SECTOR) if data[0] else bytes(SECTOR)), (
            "a sector has bytes of more than one write"
        )
        return data[0]


Compressed.TestCase.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
TestCompressed = Compressed.TestCase


@pytest.mark.parametrize("chunk", [0, 1])
def test_a_record_that_was_lost_is_not_taken_for_a_later_one(chunk: int) -> None:
    """Its number and its place are given again: what its sectors still have of it is none of the new one's."""
    state = Compressed()
    state.write(cell=0, chunk=0, count=1)
    state.the_power_fails(density=0.5, seed=414)
    state.write(cell=0, chunk=chunk, count=1)
    state.the_power_fails(density=0.5, seed=52650911)


def made(path: Path, size: int = 64 << 20, **options: Any) -> CompressedDevice:
    create(path, 4096)
    below = FileDevice(path)
    create_compressed([below], Compressing(size=Size(size), **options), Opening())
    return open_compressed([below], None, Opening())  # type: ignore[arg-type]


TEXT = b"".join(b"%08d what is written often says the same\n" % number for number in range(200_000))[: 8 << 20]


def test_a_segment_that_was_lost_in_part_does_not_come_back_whole() -> None:
    """Its table and a record have arrived, but not the length of the file."""
    state = Compressed()
    state.write(cell=0, chunk=0, count=1)
    state.the_power_fails(density=0.2, seed=655)
    assert state.now[0] == 0
    state.write(cell=0, chunk=0, count=1)
    state.the_power_fails(density=0.2, seed=1)


def test_what_it_takes(tmp_path: Path) -> None:
    device = made(tmp_path / "disk")
    device.pwritev([TEXT], 0)
    device.pwritev([random.Random(1).randbytes(2 << 20)], 16 << 20)
    device.pwritev([bytes(4 << 20)], 32 << 20)
    device.flush()
    gauges = device.report()["gauges"]
    assert isinstance(gauges, dict)
    assert gauges["mapped_bytes"] == 10 << 20
    assert (2 << 20) < gauges["stored_bytes"] < (4 << 20), "text becomes a quarter at most, noise stays, zeros go"
    assert (tmp_path / "disk").stat().st_blocks * 512 < 5 << 20
    device.discard(16 << 20, 2 << 20)
    assert device.report()["gauges"]["mapped_bytes"] == 8 << 20  # type: ignore[index]
    device.close()
    again = open_stack(f"compressed({tmp_path}/disk)")
    assert read(again, 0, len(TEXT)) == TEXT
    assert read(again, 16 << 20, 2 << 20) == bytes(2 << 20)
    again.close()


def test_compaction_gives_space_back(tmp_path: Path) -> None:
    device, chance = made(tmp_path / "disk", chunk=Size(1 << 20)), random.Random(2)
    for _ in range(3):
        for at in range(16):
            device.pwritev([chance.randbytes(1 << 20)], at << 20)
    latest = read(device, 0, 16 << 20)
    device.flush()
    done: list[tuple[int, int]] = []
    said = device.actions()["compact"].run(None, lambda now, all: done.append((now, all)))
    assert "free again" in said or device.dead < 3 * SEGMENT, "the thread has done it already"
    device.flush()
    assert device.dead <= device.log.live_bytes
    assert (tmp_path / "disk").stat().st_blocks * 512 < 34 << 20
    assert read(device, 0, 16 << 20) == latest
    device.close()


def test_a_full_device_is_compacted_before_it_says_no() -> None:
    below = MemoryDevice(5 * SEGMENT)
    create_compressed([below], Compressing(size=Size(1 << 30), chunk=Size(1 << 20)), Opening())
    device, chance = assembled(below), random.Random(3)
    model = [b""] * 12
    for number in range(60):
        model[number % 12] = chance.randbytes(1 << 20)
        device.pwritev([model[number % 12]], number % 12 << 20)
    assert read(device, 0, 12 << 20) == b"".join(model)
    with pytest.raises(OSError, match="no more room") as caught:
        for number in range(12, 40):
            device.pwritev([chance.randbytes(1 << 20)], number << 20)
    assert caught.value.errno == errno.ENOSPC
    assert read(device, 0, 12 << 20) == b"".join(model)
    device.discard(0, 1 << 30)
    device.pwritev([b"x" * 4096], 0)
    device.close()


def test_threads(tmp_path: Path) -> None:
    """Writers, readers and compaction at once."""
    device = made(tmp_path / "disk", size=4 << 20, chunk=Size(CHUNK), level=1)
    wrong: list[str] = []

    def use(number: int) -> None:
        chance, seen = random.Random(number), {}
        for round in range(150):
            cell = chance.randrange(0, 256, 4) + number
            if chance.random() < 0.6:
                seen[cell] = round % 255 + 1
                device.pwritev([pattern(seen[cell], 4096)], cell * 4096)
            elif (found := read(device, cell * 4096, 4096)) != (
                pattern(seen[cell], 4096) if cell in seen else bytes(4096)
            ):
                wrong.append(f"{cell} is {found[0]}, not {seen.get(cell)}")

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        with device.log._appending:  # not while somebody puts a record there
            segment = device.log.segments.get(device.log._current)
            if segment is not None:
                segment.end = SEGMENT // SECTOR
        number = device.log.emptiest(1)
        if number is not None:
            device.log.empty(number)
    for thread in threads:
        thread.join()
    assert not wrong
    device.close()


def test_the_segment_that_is_written_to_is_not_emptied(tmp_path: Path) -> None:
    """Who waited for his turn to empty it finds it in use again."""
    device = made(tmp_path / "disk", size=4 << 20, chunk=Size(CHUNK), level=1)
    device.pwritev([pattern(1, 4096)], 0)
    device.log.empty(device.log._current)
    device.pwritev([pattern(2, 4096)], CHUNK)
    assert read(device, 0, 4096) == pattern(1, 4096)
    assert read(device, CHUNK, 4096) == pattern(2, 4096)
    device.close()


def test_damage_is_an_error_and_nothing_else(tmp_path: Path) -> None:
    device = made(tmp_path / "disk", chunk=Size(CHUNK))
    device.pwritev([TEXT[: 64 * CHUNK]], 0)
    device.close()
    path, chance = tmp_path / "disk", random.Random(4)
    sound = bytearray(path.read_bytes())
    used = sound.rstrip(b"\0")
    places: tuple[Callable[[], int], ...] = (
        lambda: chance.randrange(8192),
        lambda: SEGMENT + chance.randrange(4096),
        lambda: SEGMENT + TABLE + chance.randrange(len(used) - SEGMENT - TABLE),
    )
    for _ in range(80):
        data = bytearray(sound)
        data[chance.choice(places)()] ^= 1 << chance.randrange(8)
        below = MemoryDevice(len(data))
        below.data[:] = data
        below.read_only = True
        try:
            damaged = open_compressed([below], None, Opening())  # type: ignore[arg-type]
        except CompressedError:
            continue
        for chunk in range(64):
            try:
                found = read(damaged, chunk * CHUNK, CHUNK)
            except OSError as error:
                if error.errno != errno.EBADMSG:
                    raise
            else:
                known = damaged.report().get("health") == "degraded"
                assert found == TEXT[chunk * CHUNK : (chunk + 1) * CHUNK] or (known and not any(found))


def test_a_write_that_fails_leaves_what_was_there() -> None:
    faults = FaultDevice(MemoryDevice(4 * SEGMENT))
    create_compressed([faults], Compressing(size=Size(1 << 20), chunk=Size(CHUNK)), Opening())
    device = assembled(faults)
    device.pwritev([pattern(1, CHUNK)], 0)
    for skip in (0, 1):
        fault = faults.inject(Fault(Operation.WRITE, errno=errno.EIO, skip=skip))
        with pytest.raises(OSError, match="Input/output"):
            device.pwritev([pattern(2, CHUNK)], 0)
        faults.heal(fault)
        assert read(device, 0, CHUNK) == pattern(1, CHUNK)
    device.pwritev([pattern(3, CHUNK)], CHUNK)
    device.flush()
    again = assembled(faults)
    assert read(again, 0, CHUNK) in (pattern(1, CHUNK), pattern(2, CHUNK))
    assert read(again, CHUNK, CHUNK) == pattern(3, CHUNK)


def test_what_is_refused(tmp_path: Path) -> None:
    below = MemoryDevice(2 * SEGMENT)
    with pytest.raises(CompressedError, match="is no compressed disk"):
        open_compressed([below], None, Opening())  # type: ignore[arg-type]
    below.pwritev([b"x"], 9000)
    with pytest.raises(CompressedError, match="holds something"):
        create_compressed([below], Compressing(size=Size(1 << 20)), Opening())
    create_compressed([below], Compressing(size=Size(1 << 20), force=True), Opening())
    for wrong in ({"chunk": Size(1000)}, {"level": 40}, {"size": Size(100)}):
        with pytest.raises(ValueError, match="is"):
            Compressing(**{"size": Size(1 << 20), **wrong})  # type: ignore[arg-type]


def test_what_another_disk_has_left_is_not_this_ones() -> None:
    below = MemoryDevice(4 * SEGMENT)
    for round in range(2):
        create_compressed([below], Compressing(size=Size(1 << 20), chunk=Size(CHUNK), force=True), Opening())
        device = assembled(below)
        assert read(device, 0, 1 << 20) == bytes(1 << 20)
        for chunk in range(4 - 3 * round):
            device.pwritev([pattern(9, CHUNK)], chunk * CHUNK)
        device.flush()
    assert read(assembled(below), 0, 4 * CHUNK) == pattern(9, CHUNK) + bytes(3 * CHUNK)
