"""Journals of volumes: what stays, what goes, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from blockyard.block.device import Device
from blockyard.block.file import FileDevice, create
from blockyard.pool.cdp import SECOND, NoMoment
from blockyard.pool.clock import Clock
from blockyard.pool.moment import MomentDevice
from blockyard.pool.pool import Pool
from blockyard.pool.pool import create as create_pool
from blockyard.pool.volume import VolumeDevice

SHIFT = 12
CHUNK = 1 << SHIFT
SIZE = 64 * CHUNK
START = 1_700_000_000 * SECOND


class Time:
    """A machine's two clocks."""

    def __init__(self) -> None:
        self.wall = START
        self.steady = 5 * SECOND

    def pass_by(self, seconds: float) -> None:
        self.wall += int(seconds * SECOND)
        self.steady += int(seconds * SECOND)

    def clock(self) -> Clock:
        return Clock(lambda: self.wall, lambda: self.steady)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def pool(tmp_path: Path, time: Time) -> Iterator[Pool]:
    create(tmp_path / "member", 64 << 20)
    create_pool(tmp_path, [str(tmp_path / "member")])
    with Pool(tmp_path, FileDevice, clock=time.clock()) as pool:
        pool.create_volume("v", SIZE, SHIFT)
        pool.cdp.turn_on("v")
        yield pool


def write(pool: Pool, byte: int, chunk: int = 0, name: str = "v") -> int:
    """Write a chunk; the moment after it."""
    VolumeDevice(pool, name).pwritev([bytes([byte]) * CHUNK], chunk * CHUNK)
    return pool.cdp.clock.now()


def first_bytes(device: Device, chunks: int = 4) -> bytes:
    data = bytearray(chunks * CHUNK)
    device.preadv([memoryview(data)], 0)
    return bytes(data[::CHUNK])


def moment(pool: Pool, time: int, name: str = "v") -> bytes:
    device = MomentDevice(pool, name, time)
    try:
        return first_bytes(device)
    finally:
        device.close()


def settle(pool: Pool) -> None:
    while pool.work_off():
        pass
    pool.flush()


def test_every_write_is_a_moment(pool: Pool) -> None:
    before = pool.cdp.clock.now()
    times = [write(pool, byte) for byte in range(1, 9)]
    assert moment(pool, before) == bytes(4)
    assert [moment(pool, time)[0] for time in times] == list(range(1, 9))
    assert pool.cdp.reach("v").writes == 8


def test_a_discard_is_one_too(pool: Pool) -> None:
    written = write(pool, 1)
    VolumeDevice(pool, "v").discard(0, CHUNK)
    gone = pool.cdp.clock.now()
    write(pool, 2)
    assert (moment(pool, written)[0], moment(pool, gone)[0]) == (1, 0)


def test_a_moment_cannot_be_written_and_stays_while_it_is_open(pool: Pool, time: Time) -> None:
    write(pool, 1)
    device = MomentDevice(pool, "v", pool.cdp.clock.now())
    with pytest.raises(OSError, match="does not change"):
        device.pwritev([bytes(CHUNK)], 0)
    with pytest.raises(OSError, match="does not change"):
        device.discard(0, CHUNK)
    write(pool, 2)
    pool.cdp.turn_off("v")
    settle(pool)
    for byte in range(3, 9):
        write(pool, byte)
        pool.flush()
    assert first_bytes(device)[0] == 1
    device.close()
    settle(pool)
    assert pool.used == CHUNK


def test_moments_that_there_are_not(pool: Pool) -> None:
    with pytest.raises(NoMoment, match="not come yet"):
        MomentDevice(pool, "v", pool.cdp.clock.now() + SECOND)
    with pytest.raises(NoMoment, match="does not reach"):
        MomentDevice(pool, "v", START - SECOND)
    pool.create_volume("w", SIZE, SHIFT)
    with pytest.raises(NoMoment, match="w is not protected"):
        MomentDevice(pool, "w", START)
    with pytest.raises(KeyError):
        MomentDevice(pool, "x", START)
    with pytest.raises(ValueError, match="negative"):
        pool.cdp.turn_on("w", time=-1)
    assert pool.cdp.journals() == ["v"]


def test_times_survive_the_death_of_the_process(tmp_path: Path, time: Time) -> None:
    create(tmp_path / "member", 64 << 20)
    create_pool(tmp_path, [str(tmp_path / "member")])
    pool = Pool(tmp_path, FileDevice, clock=time.clock())
    pool.create_volume("v", SIZE, SHIFT)
    pool.cdp.turn_on("v")
    times = [write(pool, byte) for byte in range(1, 6)]
    pool.abandon()
    with Pool(tmp_path, FileDevice, clock=time.clock()) as pool:
        assert [moment(pool, time)[0] for time in times] == [1, 2, 3, 4, 5]
        assert write(pool, 6) > times[-1]


def test_a_clock_that_is_set_back(pool: Pool, time: Time) -> None:
    first = write(pool, 1)
    time.wall -= 3600 * SECOND
    time.steady += SECOND
    second = write(pool, 2)
    assert second - first >= 0.99 * SECOND
    assert pool.cdp.clock.offset == pytest.approx(3601 * SECOND, abs=SECOND)
    assert (moment(pool, first)[0], moment(pool, second)[0]) == (1, 2)


def test_a_bookmark_is_never_in_the_future(tmp_path: Path, time: Time) -> None:
    """Also when the clock was set back, nothing was written after it, and the pool is opened anew."""
    create(tmp_path / "member", 64 << 20)
    create_pool(tmp_path, [str(tmp_path / "member")])
    with Pool(tmp_path, FileDevice, clock=time.clock()) as pool:
        pool.create_volume("v", SIZE, SHIFT)
        pool.cdp.turn_on("v")
        write(pool, 1)
        time.pass_by(60)
        mark = pool.cdp.set_bookmark("v", "b", keep=True)
    time.wall -= 3600 * SECOND
    time.steady = 0
    with Pool(tmp_path, FileDevice, clock=time.clock()) as pool:
        assert pool.cdp.now() > mark.time
        pool.cdp.turn_off("v")
        write(pool, 2)
        assert moment(pool, mark.time)[0] == 1


def test_the_window_moves(pool: Pool, time: Time) -> None:
    pool.cdp.turn_on("v", time=60 * SECOND)
    times = []
    for byte in range(1, 101):
        times.append((write(pool, byte), byte))
        time.pass_by(2)
        settle(pool)
    now = pool.cdp.clock.now()
    for at, byte in times:
        if at >= now - 60 * SECOND:
            assert moment(pool, at)[0] == byte
        elif at < now - 64 * SECOND:
            with pytest.raises(NoMoment):
                moment(pool, at)
    (span,) = pool.cdp.reach("v").spans
    assert 60 * SECOND <= span.end - span.start <= 64 * SECOND
    assert pool.used <= 34 * CHUNK


def test_a_window_by_size(pool: Pool, time: Time) -> None:
    pool.cdp.turn_on("v", time=0, size=32 * CHUNK)
    for byte in range(1, 101):
        write(pool, byte, byte % 3)
        settle(pool)
        assert pool.cdp.reach("v").held <= 33 * CHUNK
    assert pool.cdp.reach("v").held >= 30 * CHUNK
    assert pool.used <= 40 * CHUNK


def test_what_snapshots_have_costs_the_journal_nothing(pool: Pool) -> None:
    for chunk in range(8):
        write(pool, 1, chunk)
    pool.snapshot(["v"], "s", 0.0)
    for chunk in range(8):
        write(pool, 2, chunk)
    assert pool.cdp.reach("v").held == 0
    write(pool, 3)
    assert pool.cdp.reach("v").held == CHUNK


def test_a_snapshot_that_is_deleted_takes_no_moment_along(pool: Pool) -> None:
    first = write(pool, 1)
    pool.snapshot(["v"], "s", 0.0)
    second = write(pool, 2)
    third = write(pool, 3)
    pool.delete_snapshot("v", "s")
    settle(pool)
    assert [moment(pool, at)[0] for at in (first, second, third)] == [1, 2, 3]
    pool.cdp.turn_off("v")
    settle(pool)
    assert pool.used == CHUNK


def test_rolling_back_can_be_undone(pool: Pool) -> None:
    first, second = write(pool, 1), write(pool, 2)
    pool.cdp.roll_back("v", first)
    assert first_bytes(VolumeDevice(pool, "v"))[0] == 1
    third = write(pool, 3, 1)
    assert moment(pool, second)[:2] == bytes([2, 0])
    assert moment(pool, third)[:2] == bytes([1, 3])
    pool.cdp.roll_back("v", second)
    assert first_bytes(VolumeDevice(pool, "v"))[:2] == bytes([2, 0])
    (span,) = pool.cdp.reach("v").spans
    assert span.start <= first
    pool.cdp.turn_off("v")
    pool.delete_volume("v")
    settle(pool)
    assert pool.used == 0


def test_a_clone_of_a_moment_borrows_and_gives_back(pool: Pool) -> None:
    first = write(pool, 1)
    write(pool, 2)
    pool.cdp.clone("v", first, "c")
    pool.cdp.turn_off("v")
    settle(pool)
    pool.snapshot(["c"], "s", 0.0)
    write(pool, 7, name="c")
    pool.delete_snapshot("c", "s")
    settle(pool)
    write(pool, 3)
    write(pool, 8, 1, name="c")
    pool.flush()
    assert first_bytes(VolumeDevice(pool, "v"))[0] == 3
    assert first_bytes(VolumeDevice(pool, "c"))[:2] == bytes([7, 8])
    pool.delete_volume("c")
    settle(pool)
    assert pool.used == CHUNK


def test_what_was_discarded_is_not_mapped_in_a_clone(pool: Pool) -> None:
    first = write(pool, 1)
    pool.cdp.roll_back("v", first)
    write(pool, 2)
    VolumeDevice(pool, "v").discard(0, CHUNK)
    pool.cdp.clone("v", pool.cdp.now(), "c")
    assert first_bytes(VolumeDevice(pool, "c"))[0] == 0
    assert pool.tree(pool.volume("c").tree).mapped == 0


def test_a_volume_with_a_journal_can_be_deleted_while_clones_stand_on_it(pool: Pool) -> None:
    first = write(pool, 1)
    write(pool, 2)
    pool.cdp.clone("v", first, "c")
    pool.delete_volume("v")
    settle(pool)
    assert pool.cdp.journals() == []
    assert first_bytes(VolumeDevice(pool, "c"))[0] == 1
    pool.delete_volume("c")
    settle(pool)
    assert pool.used == 0


def test_a_moment_has_the_size_that_the_volume_had(pool: Pool) -> None:
    small = write(pool, 1)
    pool.resize("v", 2 * SIZE)
    large = pool.cdp.clock.now()
    sizes = []
    for at in (small, large):
        device = MomentDevice(pool, "v", at)
        sizes.append(device.size)
        device.close()
    assert sizes == [SIZE, 2 * SIZE]
    pool.cdp.roll_back("v", small)
    assert pool.volume("v").size == SIZE


def test_what_a_moment_holds(pool: Pool) -> None:
    write(pool, 1, 1)
    write(pool, 1, 5)
    pool.snapshot(["v"], "s", 0.0)
    write(pool, 2, 2)
    VolumeDevice(pool, "v").discard(5 * CHUNK, CHUNK)
    device = MomentDevice(pool, "v", pool.cdp.clock.now())
    write(pool, 3, 7)
    mapped = [(run.offset // CHUNK, run.length // CHUNK) for run in device.runs(0, SIZE) if run.mapped]
    assert mapped == [(1, 2)]
    assert [tuple(run) for run in device.runs(CHUNK + 512, CHUNK)] == [(CHUNK + 512, CHUNK, True)]
    assert sum(run.length for run in device.runs(512, SIZE - 1024)) == SIZE - 1024
    device.close()


def test_bookmarks(pool: Pool, time: Time) -> None:
    pool.cdp.turn_on("v", time=60 * SECOND)
    write(pool, 1)
    assert pool.cdp.set_bookmark("v", "upgrade").time < pool.cdp.clock.now()
    kept = pool.cdp.set_bookmark("v", "monday", keep=True)
    with pytest.raises(FileExistsError):
        pool.cdp.set_bookmark("v", "monday")
    with pytest.raises(NoMoment):
        pool.cdp.set_bookmark("v", "before", START - SECOND)
    with pytest.raises(ValueError, match="cannot be the name"):
        pool.cdp.set_bookmark("v", "-5m")
    assert pool.cdp.when("v", "Monday") == kept.time
    assert pool.cdp.clock.now() - pool.cdp.when("v", "-5m") == pytest.approx(300 * SECOND, rel=0.01)
    with pytest.raises(NoMoment, match="v: there is no bookmark"):
        pool.cdp.when("v", "tuesday")
    for byte in range(2, 50):
        time.pass_by(5)
        write(pool, byte)
        settle(pool)
    assert set(pool.cdp.reach("v").bookmarks) == {"upgrade", "monday"}  # of the same segment
    assert moment(pool, kept.time)[0] == 1
    assert len(pool.cdp.reach("v").spans) == 2
    pool.cdp.turn_off("v")
    settle(pool)
    assert moment(pool, kept.time)[0] == 1
    pool.cdp.delete_bookmark("v", "monday")
    with pytest.raises(NoMoment):
        pool.cdp.delete_bookmark("v", "tuesday")
    settle(pool)
    assert pool.cdp.journals() == []
    assert pool.used == CHUNK


def test_damaged_journals_are_refused(tmp_path: Path) -> None:
    create(tmp_path / "member", 64 << 20)
    create_pool(tmp_path, [str(tmp_path / "member")])
    with Pool(tmp_path, FileDevice) as pool:
        pool.create_volume("v", SIZE, SHIFT)
        pool.cdp.turn_on("v")
        pool.commit(lambda transaction: transaction.delete("journals", b"v"))
    for _ in range(2):  # and nothing stays open
        with pytest.raises(ValueError, match="journal of v"):
            Pool(tmp_path, FileDevice)
