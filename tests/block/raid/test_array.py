"""Arrays of every level, whole and without what they can do without: what was written is read."""

from __future__ import annotations

import errno
import itertools
import random

import pytest

from blockyard.block.raid.creation import Plan
from blockyard.block.raid.member import MemberError
from tests.block.raid.disks import PLANS, SECTOR, Disk, made, opened, read, work

LEVELS = list(PLANS)


def filled(array, seed: int = 1) -> bytes:  # type: ignore[no-untyped-def]
    data = random.Random(seed).randbytes(array.size)
    array.pwritev([data], 0)
    return data


@pytest.mark.parametrize("level", LEVELS)
def test_what_is_written_is_read(level: str) -> None:
    plan, count, _ = PLANS[level]
    disks = made(plan, count)
    array = opened(disks)
    assert array.report()["health"] == "ok"
    model = bytearray(filled(array))
    chance = random.Random(2)
    for _ in range(60):
        offset = chance.randrange(array.size // 512) * 512
        length = min(array.size - offset, chance.choice((512, 4096, 8192, 40960)))
        piece = chance.randbytes(length)
        array.pwritev([piece[:512], piece[512:]], offset)
        model[offset : offset + length] = piece
        assert read(array, offset, length) == piece
    array.write_zeroes(SECTOR, 3 * SECTOR)
    model[SECTOR : 4 * SECTOR] = bytes(3 * SECTOR)
    assert read(array, 0, array.size) == model
    array.close()
    assert all(disk.closed for disk in disks)
    chance.shuffle(disks)
    again = opened(disks)
    assert read(again, 0, again.size) == model
    if plan.level:
        assert again.check(0, again.members.bitmap.size, repair=False) == 0


@pytest.mark.parametrize("level", LEVELS)
def test_members_that_are_lost_while_it_is_used(level: str) -> None:
    plan, count, may_lose = PLANS[level]
    for lost in itertools.combinations(range(count), may_lose):
        disks = made(plan, count)
        array = opened(disks)
        model = bytearray(filled(array))
        for number in lost:
            disks[number].dead = errno.ENXIO
            array.pwritev([b"x" * 5 * SECTOR], 3 * SECTOR)
            model[3 * SECTOR : 8 * SECTOR] = b"x" * 5 * SECTOR
        assert read(array, 0, array.size) == model
        array.pwritev([b"y" * 2 * SECTOR], SECTOR)
        model[SECTOR : 3 * SECTOR] = b"y" * 2 * SECTOR
        assert read(array, 0, array.size) == model
        if lost:
            assert array.report()["health"] == "degraded"
        array.close()
        left = [disk.after_death() for number, disk in enumerate(disks) if number not in lost]
        assert read(opened(left), 0, array.size) == model
        # the ones that were lost are out of date when they come back
        back = opened([disk.after_death() for disk in disks])
        assert read(back, 0, array.size) == model
        assert len(back.left_out) == len(lost)


@pytest.mark.parametrize("level", [level for level in LEVELS if level != "raid0"])
def test_a_lost_member_is_rebuilt_on_a_spare(level: str) -> None:
    plan, count, _ = PLANS[level]
    for lost in range(count):
        disks = made(plan, count, spares=1)
        array = opened(disks)
        model = bytearray(filled(array))
        disks[lost].dead = errno.EIO
        array.pwritev([b"x" * SECTOR], 0)
        model[:SECTOR] = b"x" * SECTOR
        array.flush()
        assert not array.members.complete
        work(array)
        assert array.members.complete
        assert read(array, 0, array.size) == model
        assert array.check(0, array.members.bitmap.size, repair=False) == 0
        array.close()
        assert read(opened([disk for disk in disks if not disk.dead]), 0, array.size) == model


def test_a_disk_of_raid0_that_fails_is_an_error() -> None:
    plan, count, _ = PLANS["raid0"]
    disks = made(plan, count)
    array = opened(disks)
    filled(array)
    disks[1].dead = errno.EIO
    with pytest.raises(OSError, match="/d1"):
        read(array, 0, array.size)
    with pytest.raises(OSError, match="/d1"):
        array.pwritev([bytes(8192)], 8192)
    disks[1].dead = 0
    array.pwritev([bytes(8192)], 8192)


@pytest.mark.parametrize("level", [level for level in LEVELS if level != "raid0"])
def test_bad_sectors_are_restored_and_written_anew(level: str) -> None:
    plan, count, _ = PLANS[level]
    disks = made(plan, count)
    array = opened(disks)
    model = filled(array)
    first = array.members.all[0].data_offset // SECTOR
    for number, disk in enumerate(disks):
        disk.bad = {first + 2 * (2 * number), first + 2 * (2 * number) + 1}  # no two in one row
    for offset in range(0, array.size, SECTOR):
        assert read(array, offset, SECTOR) == model[offset : offset + SECTOR]
    assert array.check(0, array.members.bitmap.size, repair=True) == 0
    assert not any(disk.bad for disk in disks)
    assert array.members.complete
    assert sum(member.corrected for member in array.members.all) >= count
    assert read(array, 0, array.size) == model


@pytest.mark.parametrize("level", ["raid1", "raid10", "raid5"])
def test_bad_sectors_of_two_members_in_one_read(level: str) -> None:
    plan, count, _ = PLANS[level]
    disks = made(plan, count)
    array = opened(disks)
    model = filled(array)
    first = array.members.all[0].data_offset // SECTOR
    disks[0].bad, disks[1].bad = {first}, {first + 1}
    assert read(array, 0, array.size) == model
    assert array.members.complete
    assert not disks[0].bad or not disks[1].bad


@pytest.mark.parametrize("level", ["raid1", "raid5", "raid6"])
def test_a_sector_that_cannot_be_written_either_fails_its_member(level: str) -> None:
    plan, count, _ = PLANS[level]
    disks = made(plan, count)
    array = opened(disks)
    model = filled(array)
    first = array.members.all[0].data_offset // SECTOR
    disks[0].bad, disks[0].frail = {first + 2}, {first + 2}
    assert read(array, 0, array.size) == model
    assert list(array.left_out) == [disks[0]]


def test_too_many_lost_members_of_raid5() -> None:
    plan = Plan(5, chunk=4096, region=32768, journal_size=65536)
    disks = made(plan, 3)
    array = opened(disks)
    filled(array)
    disks[0].dead = disks[1].dead = errno.EIO
    with pytest.raises(OSError, match=r"."):
        array.pwritev([bytes(8192)], 0)
    with pytest.raises(OSError, match=r"."):
        array.pwritev([bytes(8192)], 0)
    assert array.report()["health"] == "failed"
    array.background.close()


def test_a_member_that_fails_in_many_writes_at_once_is_lost_once() -> None:
    """As those have it that have come into the journal together."""
    plan, count, _ = PLANS["raid5 with journal"]
    disks = made(plan, count)
    array = opened(disks)
    model = filled(array)
    member = array.members.all[1]
    disks[1].dead = errno.EIO
    array.fail([MemberError(member, OSError(errno.EIO, "Input/output error")) for _ in range(3)])
    assert list(array.left_out) == [disks[1]]
    array.pwritev([b"x" * SECTOR], 0)
    assert read(array, 0, array.size) == b"x" * SECTOR + model[SECTOR:]


def test_members_stay_open_when_it_is_taken_out() -> None:
    disks = made(Plan(1), 2)
    array = opened(disks)
    array.pwritev([b"x" * SECTOR], 0)
    array.detach()
    assert not any(disk.closed for disk in disks)
    assert read(opened(disks), 0, SECTOR) == b"x" * SECTOR


def test_quick_is_none_for_disks_without_descriptors() -> None:
    array = opened(made(Plan(1), 2))
    assert not array.quick.read([memoryview(bytearray(512))], 0, 512)
    assert isinstance(array.own_children[0], Disk)
