"""What volumes take and may take: counts, quotas, reservations, thresholds; a full pool; other sizes; zeros."""

from __future__ import annotations

import errno
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from blockyard.block.device import Run
from blockyard.block.device import Space as DeviceSpace
from blockyard.block.file import create as create_file
from blockyard.pool.pool import Pool
from blockyard.pool.pool import create as create_pool
from blockyard.pool.resizing import resize
from blockyard.pool.space import SLAB
from blockyard.pool.usage import Level, Threshold
from blockyard.pool.volume import SnapshotDevice, VolumeDevice

SHIFT = 16
CHUNK = 1 << SHIFT
A_SLAB = SLAB // CHUNK  # chunks
SLABS = 4


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    create_file(tmp_path / "member", (1 + SLABS) * SLAB)
    create_pool(tmp_path, ["member"])
    with Pool(tmp_path) as found:
        for name in ("a", "b"):
            found.create_volume(name, 16 * SLAB, SHIFT)
        yield found


def fill(pool: Pool, name: str, start: int, count: int, byte: int = 1) -> None:
    device = VolumeDevice(pool, name)
    for chunk in range(start, start + count):
        device.pwritev([bytes([byte]) * CHUNK], chunk * CHUNK)


def content(pool: Pool, name: str, chunk: int) -> int:
    """The byte that a chunk has all over."""
    data = bytearray(CHUNK)
    VolumeDevice(pool, name).preadv([memoryview(data)], chunk * CHUNK)
    assert data == data[:1] * CHUNK
    return data[0]


def copy(directory: Path) -> Path:
    """A pool as it would be found if its process died now."""
    return Path(shutil.copytree(directory, directory / "copy", ignore=shutil.ignore_patterns("copy")))


# ---- counts


def test_usage_of_pool_and_volumes(pool: Pool) -> None:
    fill(pool, "a", 0, 10)
    fill(pool, "b", 0, 3)
    pool.snapshot(["a"], "s", 1.0)
    fill(pool, "a", 5, 10)
    assert pool.usage_of("a").mapped == 15 * CHUNK
    assert pool.usage_of("a").used == 20 * CHUNK, "five are the snapshot's alone"
    assert pool.usage_of("b").used == pool.usage_of("b").mapped == 3 * CHUNK
    usage = pool.usage
    assert (usage.size, usage.used, usage.free) == (4 * SLAB, 23 * CHUNK, 4 * SLAB - 23 * CHUNK)
    assert (usage.provisioned, usage.ratio) == (32 * SLAB, 8.0)
    assert 0 < usage.metadata < 1 << 20
    VolumeDevice(pool, "a").discard(0, 15 * CHUNK)
    assert pool.usage_of("a").used == 10 * CHUNK
    assert pool.usage.waiting == 10 * CHUNK
    pool.flush()
    assert (pool.usage.waiting, pool.usage.used) == (0, 13 * CHUNK)
    pool.delete_snapshot("a", "s")
    while pool.work_off():
        pass
    assert pool.usage_of("a").used == 0


def test_counts_survive_the_death_of_the_process(pool: Pool, tmp_path: Path) -> None:
    fill(pool, "a", 0, 10)
    pool.snapshot(["a"], "s", 1.0)
    fill(pool, "a", 0, 4)  # in the journal alone
    before = pool.usage_of("a")
    with Pool(copy(tmp_path)) as other:
        assert other.usage_of("a") == before
        assert before.used == 14 * CHUNK


def test_a_volume_that_was_rolled_back_has_what_its_snapshots_have(pool: Pool) -> None:
    fill(pool, "a", 0, 10)
    pool.snapshot(["a"], "s", 1.0)
    fill(pool, "a", 0, 4)
    pool.roll_back("a", "s")
    while pool.work_off():
        pass
    assert pool.usage_of("a").used == 10 * CHUNK
    fill(pool, "a", 0, 1)
    assert pool.usage_of("a").used == 11 * CHUNK


# ---- what a volume may take


def test_quota(pool: Pool) -> None:
    pool.set_options("a", quota=10 * CHUNK)
    fill(pool, "a", 0, 10)
    assert VolumeDevice(pool, "a").space() == DeviceSpace(0, 10 * CHUNK)
    with pytest.raises(OSError, match="quota of 640 KiB is used up") as caught:
        fill(pool, "a", 10, 1)
    assert caught.value.errno == errno.EDQUOT
    fill(pool, "a", 0, 10, 2)  # in place
    pool.snapshot(["a"], "s", 1.0)
    with pytest.raises(OSError, match="quota"):
        fill(pool, "a", 0, 1)
    assert content(pool, "a", 0) == 2
    fill(pool, "b", 0, 20)
    pool.delete_snapshot("a", "s")
    fill(pool, "a", 0, 10, 3)  # nobody else has these any more
    VolumeDevice(pool, "a").discard(0, CHUNK)
    fill(pool, "a", 10, 1)
    pool.set_options("a", quota=0)
    fill(pool, "a", 11, 20)


def test_a_snapshot_that_is_deleted_makes_room_within_a_quota(pool: Pool) -> None:
    pool.set_options("a", quota=10 * CHUNK)
    fill(pool, "a", 0, 5)
    pool.snapshot(["a"], "s", 1.0)
    fill(pool, "a", 0, 5)
    with pytest.raises(OSError, match="quota"):
        fill(pool, "a", 5, 1)
    pool.delete_snapshot("a", "s")
    fill(pool, "a", 5, 5)  # nobody has called work_off: the writer does what is needed


def test_reservation(pool: Pool) -> None:
    pool.set_options("a", reservation=2 * SLAB)
    assert pool.usage.reserved == 2 * SLAB
    fill(pool, "b", 0, 2 * A_SLAB)
    assert VolumeDevice(pool, "b").space().available == 0
    assert VolumeDevice(pool, "a").space().available == 2 * SLAB
    with pytest.raises(OSError, match="reserved for other volumes") as caught:
        fill(pool, "b", 2 * A_SLAB, 1)
    assert caught.value.errno == errno.ENOSPC
    fill(pool, "a", 0, 2 * A_SLAB)
    assert pool.usage.reserved == 0
    with pytest.raises(OSError, match="full"):
        fill(pool, "a", 2 * A_SLAB, 1)
    with pytest.raises(OSError, match="not so much space"):
        pool.set_options("b", reservation=2 * SLAB + 1)
    pool.set_options("b", reservation=2 * SLAB)  # it has that much


def test_reserved_space_is_not_lost_to_other_sizes_of_chunks(pool: Pool) -> None:
    """Chunks of 4 KiB could begin slabs that are of no use for chunks of 64 KiB."""
    pool.create_volume("small", SLAB, 12)
    pool.set_options("a", reservation=3 * SLAB)
    device = VolumeDevice(pool, "small")
    device.pwritev([b"x" * 4096], 0)
    with pytest.raises(OSError, match="not so much space"):
        pool.set_options("b", reservation=CHUNK)
    fill(pool, "a", 0, 3 * A_SLAB)
    device.pwritev([b"x" * (SLAB - 4096)], 4096)
    assert pool.usage.free == 0


def test_limits_that_make_no_sense(pool: Pool) -> None:
    with pytest.raises(ValueError, match="makes no sense"):
        pool.set_options("a", quota=CHUNK, reservation=2 * CHUNK)
    with pytest.raises(KeyError):
        pool.set_options("x", quota=CHUNK)
    assert pool.volume("a").quota == 0


def test_options_are_kept(pool: Pool, tmp_path: Path) -> None:
    pool.set_options("a", quota=8 * SLAB, reservation=SLAB, zero_detection=True)
    pool.set_thresholds("80%", "1M")
    with Pool(copy(tmp_path)) as again:
        volume = again.volume("a")
        assert (volume.quota, volume.reservation, volume.zero_detection) == (8 * SLAB, SLAB, True)
        assert again.usage.reserved == SLAB
        assert again.ledger.settings == {"soft": "80%", "hard": "1M"}


# ---- thresholds, and a pool that is full


@pytest.mark.parametrize(("text", "left"), [("80%", 20), ("100%", 0), ("10", 10), ("none", -1), ("", -1)])
def test_thresholds(text: str, left: int) -> None:
    assert Threshold.read(text).bytes_left(100) == left
    assert Threshold.read(str(Threshold.read(text))) == Threshold.read(text)


@pytest.mark.parametrize("text", ["0%", "101%", "x%", "-1", "x"])
def test_what_is_no_threshold(text: str) -> None:
    with pytest.raises(ValueError, match="is not a"):
        Threshold.read(text)


def test_levels(pool: Pool) -> None:
    pool.set_thresholds("50%", "4M")
    levels = []
    for slab in range(3):
        levels.append(pool.ledger.level)
        fill(pool, "a", slab * A_SLAB, A_SLAB)
    levels.append(pool.ledger.level)
    with pytest.raises(OSError, match=r"hard threshold \(4M\)") as caught:
        fill(pool, "a", 3 * A_SLAB, 1)
    assert caught.value.errno == errno.ENOSPC
    fill(pool, "a", 0, 1, 9)
    pool.set_options("b", reservation=SLAB)
    fill(pool, "b", 0, A_SLAB)  # what is reserved for it may be taken
    levels.append(pool.ledger.level)
    VolumeDevice(pool, "a").discard(0, 2 * SLAB)
    pool.flush()
    levels.append(pool.ledger.level)
    assert levels == [Level.GOOD, Level.GOOD, Level.SOFT, Level.HARD, Level.FULL, Level.SOFT]


def test_levels_do_not_go_up_and_down(pool: Pool) -> None:
    pool.set_thresholds(soft="50%")
    fill(pool, "a", 0, 2 * A_SLAB)
    assert pool.ledger.level_after(Level.GOOD) is Level.SOFT
    VolumeDevice(pool, "a").discard(0, CHUNK)
    pool.flush()
    assert pool.ledger.level is Level.GOOD
    assert pool.ledger.level_after(Level.SOFT) is Level.SOFT
    VolumeDevice(pool, "a").discard(0, SLAB + CHUNK)
    pool.flush()
    assert pool.ledger.level_after(Level.SOFT) is Level.GOOD


def test_a_full_pool_stuns_writers_until_there_is_space(pool: Pool, tmp_path: Path) -> None:
    fill(pool, "a", 0, 4 * A_SLAB, 1)
    pool.snapshot(["a"], "s", 1.0)
    for name in ("a", "b"):
        with pytest.raises(OSError, match="full") as caught:
            fill(pool, name, 0, 1, 2)
        assert caught.value.errno == errno.ENOSPC
    assert content(pool, "a", 0) == 1, "nothing of a write that failed is to be seen"
    pool.flush()
    pool.delete_snapshot("a", "s")  # metadata has space of its own
    fill(pool, "a", 0, 4 * A_SLAB, 3)
    VolumeDevice(pool, "a").discard(0, CHUNK)
    fill(pool, "b", 0, 1, 4)
    with pytest.raises(OSError, match="full"):
        fill(pool, "b", 1, 1, 4)
    create_file(tmp_path / "more", 2 * SLAB)
    pool.add_member("more")
    fill(pool, "b", 1, A_SLAB, 4)
    assert {content(pool, "a", chunk) for chunk in range(1, 4 * A_SLAB)} == {3}
    with Pool(copy(tmp_path)) as again:
        assert {content(again, "a", chunk) for chunk in range(1, 4 * A_SLAB)} == {3}
        assert {content(again, "b", chunk) for chunk in range(A_SLAB + 1)} == {4}


def test_many_writers_of_a_full_pool_share_what_becomes_free(pool: Pool) -> None:
    fill(pool, "a", 0, 4 * A_SLAB)
    VolumeDevice(pool, "a").discard(0, 40 * CHUNK)
    failures: list[OSError] = []

    def write(first: int) -> None:
        try:
            fill(pool, "b", first, 10)
        except OSError as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number * 10,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert pool.usage.free == 0


def test_what_others_free_meanwhile_does_not_hide_that_there_is_space(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(pool, "a", 0, 4 * A_SLAB)
    device, drain = VolumeDevice(pool, "a"), pool.reclaimer.drain
    device.discard(0, CHUNK)

    def drained() -> None:
        drain()
        device.discard(CHUNK, CHUNK)  # as much waits again as before

    monkeypatch.setattr(pool.reclaimer, "drain", drained)
    fill(pool, "b", 0, 1)
    assert content(pool, "b", 0) == 1


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A pool whose metadata and sparse member of 1 GiB are on a file system of 48 MiB."""
    path = tmp_path / "small"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "none", str(path)], check=True, timeout=180)
    try:
        create_file(path / "member", 1 << 30)
        create_pool(path, ["member"])
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True, timeout=180)


def test_the_file_system_beneath_is_full_before_the_pool_is(small: Path) -> None:
    (small / "filler").write_bytes(bytes(8 << 20))
    with Pool(small) as pool:
        pool.set_thresholds(soft="16M")
        pool.create_volume("a", 1 << 30, SHIFT)
        usage = pool.usage
        assert usage.free < 48 << 20 < usage.size
        assert pool.ledger.level is Level.GOOD
        written = 0
        levels = []
        with pytest.raises(OSError, match="No space left") as caught:
            for written in range(48 * A_SLAB):
                fill(pool, "a", written, 1, written % 251 + 1)
                pool.look_beneath()
                levels.append(pool.ledger.level)
        assert caught.value.errno == errno.ENOSPC
        assert levels == sorted(levels)
        assert Level.SOFT in levels
        fill(pool, "a", 0, 10, 9)  # in place
        pool.flush()
        pool.snapshot(["a"], "s", 1.0)
        pool.delete_snapshot("a", "s")
        while pool.work_off():
            pass
        VolumeDevice(pool, "a").discard(0, 10 * CHUNK)
        fill(pool, "a", written, 5, 7)  # what has just been freed is enough for that
        (small / "filler").unlink()
        fill(pool, "a", written + 5, A_SLAB, 7)
        for chunk in range(10, written):
            assert content(pool, "a", chunk) == chunk % 251 + 1


# ---- other sizes


def test_growing(pool: Pool) -> None:
    fill(pool, "a", 0, 2)
    resize(pool, "a", 32 * SLAB)
    assert pool.volume("a").size == 32 * SLAB
    assert content(pool, "a", 1) == 1
    assert content(pool, "a", 32 * A_SLAB - 1) == 0


def test_shrinking_does_not_cut_off_data_unless_forced(pool: Pool) -> None:
    fill(pool, "a", 0, 10)
    pool.snapshot(["a"], "s", 1.0)
    resize(pool, "a", 10 * CHUNK)
    with pytest.raises(OSError, match="data beyond 256 KiB: up to 384 KiB, the last of it before 640 KiB") as caught:
        resize(pool, "a", 4 * CHUNK)
    assert caught.value.errno == errno.ENOTEMPTY
    assert pool.volume("a").size == 10 * CHUNK
    resize(pool, "a", 4 * CHUNK + 4096, force=True)
    assert pool.usage_of("a").mapped == 5 * CHUNK
    resize(pool, "a", 10 * CHUNK)
    data = bytearray(10 * CHUNK)
    VolumeDevice(pool, "a").preadv([memoryview(data)], 0)
    assert data == b"\1" * (4 * CHUNK + 4096) + bytes(6 * CHUNK - 4096), "what was cut off does not come back"
    kept = SnapshotDevice(pool, pool.find_snapshot("a", "s"))
    data = bytearray(10 * CHUNK)
    kept.preadv([memoryview(data)], 0)
    assert data == b"\1" * (10 * CHUNK), "snapshots keep it"


# ---- zeros


def test_zeros_that_take_no_space(pool: Pool) -> None:
    fill(pool, "a", 0, 2)
    fill(pool, "b", 0, 2)
    pool.set_options("a", zero_detection=True)
    device = VolumeDevice(pool, "a")
    assert device.quick is not None
    zeros = memoryview(bytes(CHUNK))
    for offset in (0, 5 * CHUNK):
        assert not device.quick.write(zeros, offset), "that is for the long road"
        device.pwritev([zeros[:4096], zeros[4096:]], offset)
    assert list(device.runs(0, 8 * CHUNK)) == [
        Run(0, CHUNK, False),
        Run(CHUNK, CHUNK, True),
        Run(2 * CHUNK, 6 * CHUNK, False),
    ]
    assert pool.usage_of("a").used == CHUNK
    assert device.quick.write(memoryview(b"\1" * CHUNK), CHUNK)
    assert device.quick.write(zeros[:4096], CHUNK), "not a whole chunk"
    almost = bytearray(CHUNK)
    almost[CHUNK // 2] = 7
    device.pwritev([almost], 0)
    data = bytearray(CHUNK)
    device.preadv([memoryview(data)], 0)
    assert data == almost
    mixed = (
        bytes(CHUNK // 2) + b"\2" * CHUNK + bytes(CHUNK + CHUNK // 2)
    )  # the third chunk is zeros, the others are not
    device.pwritev([mixed], 0)
    assert [content(pool, "a", 2), pool.usage_of("a").used] == [0, 2 * CHUNK]
    fill(pool, "b", 0, 1, 0)
    assert pool.usage_of("b").used == 2 * CHUNK, "only where it was asked for"
    pool.set_options("a", zero_detection=False)
    device.refresh()
    assert device.quick.write(zeros, 0)
