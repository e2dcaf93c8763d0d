"""Snapshots and volumes are deleted in any order, and when nobody is left all space is free."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from blockyard.block.file import FileDevice, create
from blockyard.pool.pool import Pool
from blockyard.pool.pool import create as create_pool
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
