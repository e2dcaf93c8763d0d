"""Volumes with checksums: what a disk has falsified is not handed out, and all else is."""

from __future__ import annotations

import errno
import itertools
import threading
from pathlib import Path

import pytest

from blockyard.block.device import Device
from blockyard.block.file import FileDevice, create
from blockyard.pool.moment import MomentDevice
from blockyard.pool.pool import Pool
from blockyard.pool.pool import create as create_pool
from blockyard.pool.scrub import scrub
from blockyard.pool.space import offset_of
from blockyard.pool.volume import SnapshotDevice, VolumeDevice

SHIFT = 14
CHUNK = 1 << SHIFT
SIZE = 8 * CHUNK


def make(directory: Path) -> Pool:
    create(directory / "member", 32 << 20)
    create_pool(directory, [str(directory / "member")])
    pool = Pool(directory, FileDevice)
    pool.create_volume("a", SIZE, SHIFT, checksums=True)
    for chunk in range(4):
        VolumeDevice(pool, "a").pwritev([bytes([chunk + 1]) * CHUNK], chunk * CHUNK)
    return pool


def falsify(pool: Pool, directory: Path, chunk: int) -> None:
    """As a disk may do: one bit of a chunk is another."""
    at = offset_of(pool.tree(pool.volume("a").tree).where(chunk)) + CHUNK // 2
    with open(directory / "member", "r+b") as member:
        member.seek(at)
        (byte,) = member.read(1)
        member.seek(at)
        member.write(bytes([byte ^ 4]))


def read(device: Device, offset: int = 0, length: int = CHUNK) -> bytes:
    data = bytearray(length)
    device.preadv([memoryview(data)], offset)
    return bytes(data)


def test_only_what_is_falsified_cannot_be_read(tmp_path: Path) -> None:
    with make(tmp_path) as pool:
        pool.snapshot(["a"], "s", 1.0)
        pool.clone("a", "s", "b")
        pool.cdp.turn_on("a")
        falsify(pool, tmp_path, 1)
        devices = [VolumeDevice(pool, "a"), SnapshotDevice(pool, pool.snapshots("a")[0]), VolumeDevice(pool, "b")]
        devices.append(MomentDevice(pool, "a", pool.cdp.clock.now()))
        for device in devices:
            assert device.quick is None
            for offset, length in ((CHUNK, CHUNK), (CHUNK, 512), (2 * CHUNK - 512, 512), (0, SIZE)):
                with pytest.raises(OSError, match="The checksum of chunk 1 is wrong") as caught:
                    read(device, offset, length)
                assert caught.value.errno == errno.EBADMSG, "which is a MEDIUM ERROR"
            assert read(device) == bytes([1]) * CHUNK
            assert read(device, 2 * CHUNK + 512, 1024) == bytes([3]) * 1024
            assert read(device, 6 * CHUNK) == bytes(CHUNK)
            device.close()


def test_a_part_of_a_falsified_chunk_cannot_be_written_and_all_of_it_can(tmp_path: Path) -> None:
    with make(tmp_path) as pool:
        device = VolumeDevice(pool, "a")
        falsify(pool, tmp_path, 1)
        with pytest.raises(OSError, match="checksum of chunk 1"):
            device.pwritev([bytes(512)], CHUNK)
        device.pwritev([bytes([9]) * CHUNK], CHUNK)
        assert read(device, CHUNK) == bytes([9]) * CHUNK
        device.pwritev([bytes([8]) * 512], CHUNK)
        assert read(device, CHUNK) == bytes([8]) * 512 + bytes([9]) * (CHUNK - 512)


def test_checksums_outlive_the_process(tmp_path: Path) -> None:
    """By way of the intent journal, and by way of the maps."""
    pool = make(tmp_path)
    falsify(pool, tmp_path, 2)
    pool.abandon()
    for _ in range(2):
        with Pool(tmp_path, FileDevice) as pool:
            device = VolumeDevice(pool, "a")
            assert read(device, CHUNK) == bytes([2]) * CHUNK
            with pytest.raises(OSError, match="checksum of chunk 2"):
                read(device, 2 * CHUNK)


def test_scrubbing_finds_what_is_bad_and_whose_it_is(tmp_path: Path) -> None:
    """In the live volume and its snapshots, in a snapshot alone, in what a journal alone has."""
    with make(tmp_path) as pool:
        told: list[tuple[int, int]] = []
        assert scrub(pool, lambda done, total: told.append((done, total))) == []
        assert told[-1] == (pool.used, pool.used)
        falsify(pool, tmp_path, 0)
        pool.snapshot(["a"], "s", 1.0)
        falsify(pool, tmp_path, 1)
        device = VolumeDevice(pool, "a")
        device.pwritev([bytes([9]) * CHUNK], CHUNK)
        pool.snapshot(["a"], "t", 2.0)
        pool.cdp.turn_on("a")
        device.pwritev([bytes([8]) * CHUNK], 2 * CHUNK)
        falsify(pool, tmp_path, 2)
        device.pwritev([bytes([7]) * CHUNK], 2 * CHUNK)
        found = {(bad.where, bad.offset, bad.length) for bad in scrub(pool)}
        assert found == {
            (("a", "a@s", "a@t"), 0, CHUNK),
            (("a@s",), CHUNK, CHUNK),
            (("the journal of a",), 2 * CHUNK, CHUNK),
        }


def test_scrubbing_while_the_volume_is_written(tmp_path: Path) -> None:
    with make(tmp_path) as pool:
        device = VolumeDevice(pool, "a")
        stop = threading.Event()

        def work() -> None:
            for number in itertools.count():
                if stop.is_set():
                    return
                device.pwritev([bytes([number % 250]) * CHUNK], number % 8 * CHUNK)
                if number % 16 == 0:
                    pool.flush()

        writer = threading.Thread(target=work)
        writer.start()
        try:
            assert [scrub(pool) for _ in range(10)] == [[]] * 10
        finally:
            stop.set()
            writer.join()


def test_the_rate_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that only sleeping moves on."""
    slept: list[float] = []
    with make(tmp_path) as pool:
        monkeypatch.setattr("blockyard.pool.scrub.time.monotonic", lambda: sum(slept))
        monkeypatch.setattr("blockyard.pool.scrub.time.sleep", slept.append)
        scrub(pool, rate=1 << 20)
        monkeypatch.undo()
        assert sum(slept) == pool.used / (1 << 20)


def test_it_can_be_stopped_while_it_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the server ends: at a byte a second it would sleep for days."""
    slept: list[float] = []

    def stop(done: int, total: int) -> None:
        if slept:
            raise InterruptedError

    with make(tmp_path) as pool:
        monkeypatch.setattr("blockyard.pool.scrub.time.sleep", slept.append)
        with pytest.raises(InterruptedError):
            scrub(pool, stop, rate=1)
        monkeypatch.undo()
        assert sum(slept) <= 1
