"""Failures beneath a pool: of any call at all, and of those moments that have lost something once."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from blockyard.block.device import Device
from blockyard.block.faults import Fault, FaultDevice, Operation
from blockyard.block.file import FileDevice, create
from blockyard.pool.pool import Pool
from blockyard.pool.pool import create as create_pool
from blockyard.pool.volume import VolumeDevice
from tests.pool import interposed

CHUNK = 4096
BOOTS = ["one".ljust(36), "two".ljust(36)]


def test_every_call_of_every_operation_fails_in_its_turn(tmp_path: Path) -> None:
    """See faults.py."""
    told = interposed.run("tests.pool.faults", directory=tmp_path).splitlines()
    calls = [int(line.split()[-2]) for line in told]
    assert len(calls) > 60
    assert all(calls), "each operation touches files"


def _pool(directory: Path) -> None:
    create(directory / "member", 8 << 20)
    create_pool(directory, [str(directory / "member")])
    with Pool(directory, FileDevice) as pool:
        pool.create_volume("a", 8 * CHUNK, 12)


def _read(pool: Pool, chunk: int) -> int:
    data = bytearray(CHUNK)
    VolumeDevice(pool, "a").preadv([memoryview(data)], chunk * CHUNK)
    assert data == data[:1] * CHUNK
    return data[0]


def _write(pool: Pool, chunk: int, byte: int) -> None:
    VolumeDevice(pool, "a").pwritev([bytes([byte]) * CHUNK], chunk * CHUNK)


def test_records_of_an_earlier_boot_stay_ignored(tmp_path: Path) -> None:
    """They are still in the file when a commit of the same number begins in this boot."""
    _pool(tmp_path)
    pool = Pool(tmp_path, FileDevice, boot=BOOTS[0])
    _write(pool, 0, 1)
    pool.abandon()
    for _ in range(2):
        pool = Pool(tmp_path, FileDevice, boot=BOOTS[1])
        assert _read(pool, 0) == 0
        pool.abandon()


@pytest.mark.parametrize("damage", ["header", "record", "length", "all"])
def test_a_journal_that_is_not_what_was_written(tmp_path: Path, damage: str) -> None:
    """What had been acknowledged would be lost without a word."""
    _pool(tmp_path)
    pool = Pool(tmp_path, FileDevice)
    _write(pool, 0, 1)
    pool.flush()
    for chunk in range(1, 4):
        _write(pool, chunk, 2)
    journal = tmp_path / f"intent-{(pool._sequence + 1) % 2}"
    pool.abandon()
    data = bytearray(journal.read_bytes())
    if damage == "header":
        data[9] ^= 1
    elif damage == "record":
        data[4096 + 20] ^= 1
    elif damage == "length":
        del data[5000:]
    else:
        data.clear()
    journal.write_bytes(data)
    with pytest.raises(OSError, match=f"{journal.name} was cut short or overwritten: acknowledged changes"):
        Pool(tmp_path, FileDevice)


def test_a_commit_between_a_place_and_its_map(tmp_path: Path) -> None:
    """What it stores as taken nobody would ever give back; and what is replayed would find its place in use."""
    _pool(tmp_path)
    for remapped in (False, True):
        pool = Pool(tmp_path, FileDevice)
        used, tree = pool.used, pool.tree(pool.volume("a").tree)
        place, _ = pool.allocate(tree)
        _write(pool, 0, 1)
        pool.flush()
        if remapped:
            pool.remap(tree, [(5, place)])
        pool.abandon()
        pool = Pool(tmp_path, FileDevice)
        assert pool.used - used <= CHUNK
        pool.abandon()


def test_opening_may_be_cut_short_too(tmp_path: Path) -> None:
    """A pool that died within a commit has records of two; dying again while they are replayed must not lose or repeat any."""
    _pool(tmp_path)
    disk: FaultDevice

    def member(name: str) -> Device:
        nonlocal disk
        disk = FaultDevice(FileDevice(name), [Fault(Operation.FLUSH, errno=errno.EIO)] if failing else [])
        return disk

    failing = False
    pool = Pool(tmp_path, member)

    class WritesMeanwhile(FaultDevice):
        def flush(self) -> None:
            _write(pool, 1, 2)
            raise OSError(errno.EIO, "The power fails")

    pool.devices[0] = WritesMeanwhile(disk)
    _write(pool, 0, 1)
    with pytest.raises(OSError, match="power"):
        pool.flush()
    with pytest.raises(OSError, match="failed to commit"):
        _write(pool, 2, 3)
    pool.abandon()
    failing = True
    for _ in range(2):
        with pytest.raises(OSError, match=r"Input/output"):
            Pool(tmp_path, member)
    failing = False
    with Pool(tmp_path, member) as pool:
        assert [_read(pool, chunk) for chunk in range(3)] == [1, 2, 0]
