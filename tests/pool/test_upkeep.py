"""What a pool commits by itself, and who waits for it when there is too much."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from blockyard.block.file import FileDevice, create
from blockyard.pool.pool import Pool
from blockyard.pool.pool import create as create_pool
from blockyard.pool.upkeep import Upkeep
from blockyard.pool.volume import VolumeDevice
from tests.pool.roads import write
from tests.waiting import eventually

SHIFT = 12
STEP = 256 << SHIFT  # bytes that a map page covers


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    create(tmp_path / "member", 64 << 20)
    create_pool(tmp_path, [str(tmp_path / "member")])
    with Pool(tmp_path, FileDevice) as pool:
        pool.create_volume("v", 1 << 40, SHIFT)
        yield pool


def _until_clean(pool: Pool) -> None:
    eventually(lambda: not pool.dirty)


def test_what_has_waited_long_enough_is_committed(pool: Pool) -> None:
    upkeep = Upkeep(pool, age=0.05)
    device = VolumeDevice(pool, "v")
    for chunk in range(3):
        device.pwritev([bytes(4096)], chunk << SHIFT)
        _until_clean(pool)
    upkeep.close()


class _Full(Pool):
    """The first commits find no room for metadata."""

    lacking = 2

    def flush(self) -> None:
        if self.lacking:
            self.lacking -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        super().flush()


def test_what_could_not_be_committed_is_tried_again(tmp_path: Path) -> None:
    create(tmp_path / "member", 64 << 20)
    create_pool(tmp_path, [str(tmp_path / "member")])
    with _Full(tmp_path, FileDevice) as pool:
        pool.create_volume("v", 1 << 40, SHIFT)
        upkeep = Upkeep(pool, age=0.05)
        VolumeDevice(pool, "v").pwritev([bytes(4096)], 0)
        _until_clean(pool)
        assert not pool.lacking
        upkeep.close()


def test_much_is_committed_at_once(pool: Pool) -> None:
    upkeep = Upkeep(pool, age=1e6)
    device = VolumeDevice(pool, "v")
    device.pwritev([b"\1" * 4096], 0)
    for number in range(1, 2100):
        device.pwritev([b"\1" * 4096], number * STEP)
    eventually(lambda: pool.dirty < 2048)
    upkeep.close()


def test_memory_is_bounded_without_anybody_who_commits(pool: Pool) -> None:
    device = VolumeDevice(pool, "v")
    most = 0
    for number in range(13000):
        device.pwritev([b"\1" * 4096], number * STEP)
        most = max(most, pool.dirty)
    assert most <= 4096
    assert not write(device, b"\2" * 512, 0, short=True), "its page is not in memory any more"
    assert write(device, b"\2" * 512, 0, short=True)
