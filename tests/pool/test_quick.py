"""The short road goes where it should, and leaves the rest to the long one. That it does it right is in the model tests too."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from blockyard.block.faults import FaultDevice
from blockyard.block.file import FileDevice, create
from blockyard.pool.pool import Pool
from blockyard.pool.pool import create as create_pool
from blockyard.pool.volume import VolumeDevice
from tests.pool.roads import read

SHIFT = 14
CHUNK = 1 << SHIFT
SIZE = 64 * CHUNK


def _make(tmp_path: Path) -> Pool:
    for number in range(2):
        create(tmp_path / f"member-{number}", 8 << 20 if number == 0 else 32 << 20)
    create_pool(tmp_path, [str(tmp_path / f"member-{number}") for number in range(2)])
    pool = Pool(tmp_path, FileDevice)
    pool.create_volume("v", SIZE, SHIFT)
    return pool


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    with _make(tmp_path) as pool:
        yield pool


def _write(device: VolumeDevice, offset: int, length: int, byte: int) -> bool:
    assert device.quick is not None
    return device.quick.write(memoryview(bytes([byte]) * length), offset)


def test_where_it_goes(pool: Pool) -> None:
    device = VolumeDevice(pool, "v")
    expected = bytearray(SIZE)
    assert device.quick is not None
    assert not device.quick.read([memoryview(bytearray(512))], 0, 512), "the map is not in memory"
    device.pwritev([b"\1" * 4096], 0)
    expected[:4096] = b"\1" * 4096
    places = [
        (512, 1024),  # in place
        (CHUNK, CHUNK),  # a new chunk
        (2 * CHUNK + 512, 512),  # part of a new chunk
        (CHUNK - 512, 2 * CHUNK),  # several, all there
        (3 * CHUNK - 512, 6 * CHUNK + 1024),  # several, some there, the last in part
        (0, SIZE),
    ]
    for round_number in range(3):
        for number, (offset, length) in enumerate(places):
            byte = 16 * round_number + number + 2
            assert _write(device, offset, length, byte), places[number]
            expected[offset : offset + length] = bytes([byte]) * length
            assert read(device, 0, SIZE) == expected
        for offset, length in places:
            assert device.quick.read([memoryview(bytearray(length))], offset, length)
        pool.snapshot(["v"], f"s{round_number}", float(round_number))


def test_all_of_it_survives_the_process(tmp_path: Path) -> None:
    pool = _make(tmp_path)
    device = VolumeDevice(pool, "v")
    device.pwritev([b"\1" * SIZE], 0)
    pool.snapshot(["v"], "s", 0.0)
    assert _write(device, CHUNK // 2, 3 * CHUNK, 2)
    assert _write(device, 9 * CHUNK, 512, 3)
    expected = read(device, 0, SIZE)
    pool.abandon()
    with Pool(tmp_path, FileDevice) as again:
        assert read(VolumeDevice(again, "v"), 0, SIZE) == expected


def test_it_does_not_wait(pool: Pool) -> None:
    """Neither for a snapshot that is being taken, nor for somebody who moves the chunk; nor where a disk may have to be read."""
    device = VolumeDevice(pool, "v")
    tree = pool.tree(pool.volume("v").tree)
    device.pwritev([b"\1" * CHUNK], 0)
    with tree.gate.alone():
        assert not _write(device, 0, 512, 2)
    with tree.claims.claimed([1]):
        assert not _write(device, CHUNK, 512, 2)
        assert not _write(device, 0, 2 * CHUNK, 2)
        assert _write(device, 2 * CHUNK, 512, 2)
    used = pool.used
    with tree.claims.claimed([1]):
        assert not _write(device, 0, 4 * CHUNK, 2)
    assert pool.used == used, "nothing is kept of what could not be done"
    pool.snapshot(["v"], "s", 0.0)
    pool.clone("v", "s", "clone")
    clone = VolumeDevice(pool, "clone")
    clone.pwritev([b"\4" * 512], 63 * CHUNK)
    assert clone.quick is not None
    buffers = [memoryview(bytearray(2 * CHUNK))]
    assert not clone.quick.read(buffers, 0, 2 * CHUNK), "what the origin has is a matter of the store"
    assert not _write(clone, 0, 512, 3)
    assert _write(clone, CHUNK, CHUNK, 3)
    read(clone, 0, SIZE)
    assert clone.quick.read(buffers, 0, 2 * CHUNK), "now it is known"
    assert _write(clone, 0, 512, 4)
    assert read(clone, 0, 2 * CHUNK) == b"\4" * 512 + b"\1" * (CHUNK - 512) + b"\3" * CHUNK


def test_members_without_a_file_have_none(tmp_path: Path) -> None:
    create(tmp_path / "member", 16 << 20)
    create_pool(tmp_path, [str(tmp_path / "member")])
    with Pool(tmp_path, lambda name: FaultDevice(FileDevice(name))) as pool:
        pool.create_volume("v", SIZE, SHIFT)
        device = VolumeDevice(pool, "v")
        device.pwritev([b"\1" * CHUNK], 0)
        assert device.quick is not None
        assert not device.quick.read([memoryview(bytearray(512))], 0, 512)
        assert not _write(device, 0, 512, 2)
        assert not _write(device, CHUNK, 512, 2)
        assert read(device, 0, 2 * CHUNK) == b"\1" * CHUNK + bytes(CHUNK)


def test_a_snapshot_waits_for_who_is_writing_in_place(pool: Pool) -> None:
    """The one of the short road says so without a lock."""
    gate = pool.tree(pool.volume("v").tree).gate
    gate.quick = True
    taken = threading.Event()

    def snapshot() -> None:
        pool.snapshot(["v"], "s", 0.0)
        taken.set()

    thread = threading.Thread(target=snapshot)
    thread.start()
    while not gate.shut:
        assert not taken.is_set()
    assert not taken.is_set()
    gate.leave()
    assert taken.wait(120)
    thread.join()


def test_huge_and_almost_empty(pool: Pool) -> None:
    """What is mapped of it is found without a look at all that is not; of a clone too, and of what has been rolled back."""
    pool.create_volume("huge", 1 << 60, 12)
    device = VolumeDevice(pool, "huge")
    far = (1 << 59) + (3 << 12)
    device.pwritev([b"\1" * 8192], far)
    device.pwritev([b"\2" * 4096], 4096)
    expected = [(0, False), (4096, True), (8192, False), (far, True), (far + 8192, False)]
    for flushed in range(2):
        assert [(run.offset, run.mapped) for run in device.runs(0, 1 << 60)] == expected
        if not flushed:
            pool.flush()
    pool.snapshot(["huge"], "s", 0.0)
    device.discard(0, 1 << 60)
    pool.clone("huge", "s", "other")
    for committed in range(2):
        assert [(run.offset, run.mapped) for run in device.runs(0, 1 << 60)] == [(0, False)]
        clone = VolumeDevice(pool, "other")
        assert [(run.offset, run.mapped) for run in clone.runs(0, 1 << 60)] == expected
        if not committed:
            pool.flush()
    clone.discard(0, 8192)
    clone.pwritev([b"\3" * 4096], 1 << 50)
    assert [(run.offset, run.mapped) for run in clone.runs(0, 1 << 60)] == [
        (0, False), (1 << 50, True), ((1 << 50) + 4096, False), (far, True), (far + 8192, False),
    ]  # fmt: skip
