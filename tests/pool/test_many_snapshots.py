"""Very many snapshots of one volume: taken, read, deleted in any order, and worked off piece by piece."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from blockyard.block.file import create as create_file
from blockyard.pool.pool import Pool
from blockyard.pool.pool import create as create_pool
from blockyard.pool.volume import SnapshotDevice, VolumeDevice
from tests.memory import FAST

SHIFT = 12
CHUNKS = 64


@pytest.fixture
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="blockyard-pool-", dir=FAST))
    yield path
    shutil.rmtree(path)


@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.soak)])
def test_many_snapshots_of_one_volume(directory: Path, count: int) -> None:
    chance = random.Random(count)
    create_file(directory / "member", 1 << 30)
    create_pool(directory, ["member"])
    now = [0] * CHUNKS
    kept: dict[str, list[int]] = {}
    with Pool(directory) as pool:
        pool.create_volume("v", CHUNKS << SHIFT, SHIFT)
        device = VolumeDevice(pool, "v")
        for number in range(count):
            for chunk in chance.sample(range(CHUNKS), 3):
                now[chunk] = chance.randrange(1, 256)
                device.pwritev([bytes([now[chunk]]) * (1 << SHIFT)], chunk << SHIFT)
            pool.snapshot(["v"], f"s{number}", float(number))
            kept[f"s{number}"] = list(now)
        assert pool.usage_of("v").used == (3 * count << SHIFT)
    with Pool(directory) as pool:
        assert [snapshot.name for snapshot in pool.snapshots("v")] == list(kept)
        _compare(pool, kept, chance)
        doomed = chance.sample(sorted(kept), count * 9 // 10)
        for number, name in enumerate(doomed):
            pool.delete_snapshot("v", name)
            del kept[name]
            if number % 100 == 0:
                pool.work_off()
                _compare(pool, kept, chance)
    with Pool(directory) as pool:  # what is left to be done is known again
        while pool.work_off():
            pass
        _compare(pool, kept, chance)
        needed = {(chunk, image[chunk]) for chunk in range(CHUNKS) for image in kept.values()}
        assert pool.usage_of("v").used >= len(needed) << SHIFT
        with pytest.raises(KeyError):
            pool.delete_snapshots("v", [*kept, "other"])
        _compare(pool, kept, chance)
        pool.delete_snapshots("v", chance.sample(sorted(kept), len(kept)))
        while pool.work_off():
            pass
        assert pool.usage_of("v").used == sum(map(bool, now)) << SHIFT
        assert not pool.check().findings


def _compare(pool: Pool, kept: dict[str, list[int]], chance: random.Random) -> None:
    """Some of the snapshots are what they were."""
    for name in chance.sample(sorted(kept), min(20, len(kept))):
        data = bytearray(CHUNKS << SHIFT)
        SnapshotDevice(pool, pool.find_snapshot("v", name)).preadv([memoryview(data)], 0)
        assert [data[chunk << SHIFT] for chunk in range(CHUNKS)] == kept[name], name
