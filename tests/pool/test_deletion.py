"""Snapshots and volumes are deleted in any order, and when nobody is left all space is free."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from blockyard.block.file import FileDevice, create
from blockyard.pool.datafile import Damaged
from blockyard.pool.engine import Gates
from blockyard.pool.pool import Pool
from blockyard.pool.pool import create as create_pool
from blockyard.pool.store import THREE, Transaction
from blockyard.pool.volume import VolumeDevice

SHIFT = 12
CHUNK = 1 << SHIFT
WORDS = ("v@a", "v@b", "c@s", "c", "d")  # snapshots and volumes
ORDERS = [order for order in itertools.permutations(WORDS) if order.index("c@s") < order.index("c")]


def settle(pool: Pool) -> None:
    while pool.work_off():
        pass
    pool.flush()


@pytest.mark.parametrize("order", ORDERS[::5], ids=" ".join)
def test_in_any_order(order: tuple[str, ...], tmp_path: Path) -> None:
    create(tmp_path / "member", 16 << 20)
    create_pool(tmp_path, [str(tmp_path / "member")])
    expected: dict[str, int] = {}
    with Pool(tmp_path, FileDevice) as pool:

        def write(name: str, byte: int) -> None:
            VolumeDevice(pool, name).pwritev([bytes([byte]) * CHUNK], 0)
            expected[name] = byte

        pool.create_volume("v", 1 << 20, SHIFT)
        write("v", 1)
        pool.snapshot(["v"], "a", 1.0)
        write("v", 2)
        pool.snapshot(["v"], "b", 2.0)
        write("v", 3)
        pool.clone("v", "a", "c")
        pool.clone("v", "b", "d")
        pool.roll_back("v", "a")
        expected |= {"v": 1, "c": 1, "d": 2}
        pool.snapshot(["c"], "s", 3.0)
        write("c", 4)
    for number, word in enumerate(order):
        with Pool(tmp_path, FileDevice) as pool:
            volume, _, snapshot = word.partition("@")
            if snapshot:
                pool.delete_snapshot(volume, snapshot)
            else:
                pool.delete_volume(volume)
                del expected[volume]
            if number % 2:
                settle(pool)
            for name, byte in expected.items():
                data = bytearray(CHUNK)
                VolumeDevice(pool, name).preadv([memoryview(data)], 0)
                assert data == bytes([byte]) * CHUNK, name
    with Pool(tmp_path, FileDevice) as pool:
        pool.delete_volume("v")
        settle(pool)
        assert pool.check().is_clean
        assert pool.used == 0


def test_what_cannot_be_read_shows_before_anything_is_freed(tmp_path: Path) -> None:
    """Else what the first of two snapshots had would be free in memory, and the store would lead to it for ever."""
    create(tmp_path / "member", 16 << 20)
    create_pool(tmp_path, [str(tmp_path / "member")])
    with Pool(tmp_path, FileDevice) as pool:
        pool.create_volume("v", 1 << 20, SHIFT)
        device = VolumeDevice(pool, "v")
        for number in range(2):
            device.pwritev([bytes([number + 1]) * CHUNK], 0)
            pool.snapshot(["v"], f"s{number}", float(number))
        device.pwritev([b"3" * CHUNK], 0)
        pool.flush()
        first, second = pool.snapshots("v")
        pool.commit(lambda transaction: transaction.delete("lost", THREE.pack(second.tree, 0, second.generation)))
        pool.delete_snapshots("v", [first.name, second.name])
        used = pool.used
        for _ in range(2):
            with pytest.raises(Damaged):
                pool.work_off()
            pool.flush()
            assert pool.used == used


class _Together(Pool):
    """Commits are made by several at once, as far as they come one after another."""

    barrier: threading.Barrier | None = None

    def commit(self, change: Callable[[Transaction], None] | None = None, gates: Gates = tuple) -> None:
        if self.barrier is not None:
            self.barrier.wait(120)
        super().commit(change, gates)


def _leave_a_volume(pool: Pool) -> None:
    pool.delete_volume("v")
    for _ in range(2):  # its chunks are freed, and then its map is empty
        pool.work_off()


def _leave_a_journal(pool: Pool) -> None:
    pool.cdp.turn_on("v")
    VolumeDevice(pool, "v").pwritev([b"2" * CHUNK], 0)
    pool.cdp.turn_off("v")
    pool.work_off()


@pytest.mark.parametrize("leave", [_leave_a_volume, _leave_a_journal])
def test_two_work_off_the_same(leave: Callable[[Pool], None], tmp_path: Path) -> None:
    """As when a writer makes room while it is done in the background anyway."""
    create(tmp_path / "member", 16 << 20)
    create_pool(tmp_path, [str(tmp_path / "member")])
    with _Together(tmp_path, FileDevice) as pool:
        pool.create_volume("v", 1 << 20, SHIFT)
        VolumeDevice(pool, "v").pwritev([b"1" * CHUNK], 0)
        leave(pool)
        failures: list[Exception] = []

        def work() -> None:
            try:
                pool.work_off()
            except Exception as error:
                failures.append(error)

        pool.barrier = threading.Barrier(2)
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        pool.barrier = None
        assert not failures
        settle(pool)
        assert pool.check().is_clean


def test_a_snapshot_of_a_volume_that_is_named_twice(tmp_path: Path) -> None:
    create(tmp_path / "member", 16 << 20)
    create_pool(tmp_path, [str(tmp_path / "member")])
    with Pool(tmp_path, FileDevice) as pool:
        pool.create_volume("v", 1 << 20, SHIFT)
        device = VolumeDevice(pool, "v")
        device.pwritev([b"1" * CHUNK], 0)
        pool.snapshot(["v", "v"], "s", 1.0)
        device.pwritev([b"2" * CHUNK], 0)
        pool.delete_snapshot("v", "s")
        pool.delete_volume("v")
        settle(pool)
        assert pool.used == 0
