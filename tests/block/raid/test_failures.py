"""Every member, and every pair of them, dies at every point of random runs: nothing is lost, and a spare gets all of it."""

from __future__ import annotations

import errno
import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockyard.block.actions import NoOptions
from blockyard.block.raid.acting import Added, Chosen, Grown, Replaced, Scrubbed
from blockyard.block.raid.array import Array
from blockyard.block.raid.member import State
from tests.block.raid.disks import PLANS, SECTOR, SIZE, Disk, made, opened, read, work

REDUNDANT = [name for name in PLANS if name != "raid0"]
Operation = tuple[int, int, bool]  # sector, count, whether a flush follows
operations = st.lists(
    st.tuples(st.integers(0, 30), st.sampled_from((1, 2, 5, 12)), st.booleans()), min_size=2, max_size=3
)


def unwatched(done: int, total: int) -> None:
    """Nobody looks."""


def do(array: Array, name: str, options: object) -> str:
    return array.actions()[name].run(options, unwatched)


@pytest.mark.parametrize("level", REDUNDANT)
@settings(max_examples=2)
@given(operations)
def test_every_failure_at_every_point(level: str, run: list[Operation]) -> None:
    _, count, may_lose = PLANS[level]
    for lost in range(1, may_lose + 1):
        for victims in itertools.combinations(range(count), lost):
            for points in itertools.combinations_with_replacement(range(len(run)), lost):
                harmed(level, run, dict(zip(victims, points, strict=True)))


def harmed(level: str, run: list[Operation], when: dict[int, int]) -> None:
    disks = made(*PLANS[level][:2])
    array = opened(disks)
    if not array.engine.survives(set(when)):
        return
    model = bytearray(48 * SECTOR)
    for number, (sector, length, flush) in enumerate(run):
        for victim, point in when.items():
            if point == number:
                disks[victim].dead = errno.EIO if victim % 2 else errno.ENXIO
        data = random.Random(number).randbytes(length * SECTOR)
        array.pwritev([data], sector * SECTOR)
        model[sector * SECTOR : (sector + length) * SECTOR] = data
        if flush:
            array.flush()
        assert read(array, 0, len(model)) == model
    array.flush()
    for number in range(len(when)):
        object.__setattr__(array.opening, "open", lambda text: Disk(SIZE, text))
        do(array, "add", Added(f"/spare{number}"))
    work(array)
    assert array.members.complete
    assert read(array, 0, len(model)) == model
    assert array.check(0, array.members.bitmap.size, repair=False) == 0


@pytest.mark.parametrize("level", list(PLANS))
def test_disks_are_added_while_it_is_used(level: str) -> None:
    plan, count, may_lose = PLANS[level]
    disks = made(plan, count)
    array = opened(disks)
    chance = random.Random(count)
    model = bytearray(chance.randbytes(array.size))
    array.pwritev([bytes(model)], 0)
    fresh = [Disk(SIZE, "/x"), Disk(SIZE, "/y")]
    object.__setattr__(array.opening, "open", {disk.label: disk for disk in fresh}.__getitem__)
    size = array.size
    do(array, "grow", Grown(("/x", "/y")))
    assert array.size == size
    while array.background.step():
        offset = chance.randrange(size // SECTOR) * SECTOR
        piece = chance.randbytes(min(3 * SECTOR, size - offset))
        array.pwritev([piece], offset)
        model[offset : offset + len(piece)] = piece
        assert read(array, 0, size) == model
    assert read(array, 0, size) == model
    if plan.level != 1:
        assert array.size > size
        assert not any(read(array, size, array.size - size))
    assert array.check(0, array.members.bitmap.size, repair=False) == 0
    array.close()
    again = opened([*disks, *fresh])
    assert again.size == array.size
    assert read(again, 0, size) == model
    if may_lose:
        fresh[0].dead = errno.EIO
        assert read(again, 0, size) == model


def test_a_reshape_goes_on_where_it_was_and_without_a_member() -> None:
    plan, count, _ = PLANS["raid6"]
    disks = made(plan, count)
    array = opened(disks)
    model = random.Random(6).randbytes(array.size)
    array.pwritev([model], 0)
    fresh = Disk(SIZE, "/x")
    object.__setattr__(array.opening, "open", lambda text: fresh)
    do(array, "grow", Grown(("/x",)))
    array.background.step()
    disks[0].dead = errno.EIO
    array.background.step()
    left = [disk.after_power_loss(random.Random(2)) for disk in (*disks[1:], fresh)]
    again = opened(left)
    assert again.reshaping is not None
    assert again.reshaping.position > 0
    assert read(again, 0, len(model)) == model
    work(again)
    assert again.reshaping is None
    assert again.size > len(model)
    assert read(again, 0, len(model)) == model


@pytest.mark.parametrize("level", REDUNDANT)
def test_a_member_is_replaced_while_it_is_used(level: str) -> None:
    plan, count, _ = PLANS[level]
    disks = made(plan, count)
    array = opened(disks)
    model = bytearray(random.Random(1).randbytes(array.size))
    array.pwritev([bytes(model)], 0)
    object.__setattr__(array.opening, "open", lambda text: Disk(SIZE, text))
    assert "takes the place" in do(array, "replace", Replaced("1", "/new"))
    array.pwritev([b"z" * 2 * SECTOR], SECTOR)
    model[SECTOR : 3 * SECTOR] = b"z" * 2 * SECTOR
    work(array)
    assert array.left_out[disks[1]] == "replaced"
    disks[1].dead = errno.EIO
    assert array.members.complete
    assert read(array, 0, array.size) == model


@pytest.mark.parametrize("level", REDUNDANT)
def test_scrub_finds_and_mends_what_a_disk_has_falsified(level: str) -> None:
    plan, count, _ = PLANS[level]
    disks = made(plan, count)
    array = opened(disks)
    model = random.Random(1).randbytes(array.size)
    array.pwritev([model], 0)
    at = array.members.all[0].data_offset + 5 * SECTOR
    disks[1].now[at : at + 16] = b"falsified by it!"
    assert "1 blocks" in do(array, "scrub", Scrubbed(repair=False))
    assert "mended" in do(array, "scrub", Scrubbed())
    assert do(array, "scrub", Scrubbed()) == "everything is in line"
    counters = array.report()["counters"]
    assert isinstance(counters, dict)
    assert counters["mismatches"] == 2
    if plan.level == 6 or level == "raid1 of three":  # where it can be told who is wrong
        assert read(array, 0, array.size) == model


def test_a_scrub_that_is_stopped_tells_what_it_has_found() -> None:
    plan, count, _ = PLANS["raid1"]
    disks = made(plan, count)
    array = opened(disks)
    array.pwritev([random.Random(1).randbytes(array.size)], 0)
    disks[1].now[array.members.all[0].data_offset] ^= 1

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        array.actions()["scrub"].run(Scrubbed(), stop)
    assert array.report()["counters"] == {"corrected": 0, "mismatches": 1}
    assert do(array, "scrub", Scrubbed()) == "everything is in line"


@pytest.mark.parametrize("level", REDUNDANT)
def test_a_rebuild_rests_and_goes_on(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """When somebody says so, or where it was when the array is opened again, even after a loss of power."""
    monkeypatch.setattr("blockyard.block.raid.work.STEP", 16 * SECTOR)
    plan, count, _ = PLANS[level]
    disks = made(plan, count)
    array = opened(disks)
    model = bytearray(random.Random(1).randbytes(array.size))
    array.pwritev([bytes(model)], 0)
    with pytest.raises(ValueError, match="nothing under way"):
        do(array, "pause", NoOptions())
    with pytest.raises(OSError, match="Nothing is paused"):
        do(array, "resume", NoOptions())
    do(array, "fail", Chosen("1"))
    fresh = Disk(SIZE, "/fresh")
    object.__setattr__(array.opening, "open", lambda text: fresh)
    do(array, "add", Added("/fresh"))
    assert array.background.step()
    assert "is paused" in do(array, "pause", NoOptions())
    with pytest.raises(OSError, match="paused already"):
        do(array, "pause", NoOptions())
    assert not array.background.step()
    told = array.report()
    assert told["health"] == "degraded"
    assert "that is paused" in str(told["text"])
    assert told["work"] == {"kind": "rebuild", "unit": "bytes", "paused": True}
    array.pwritev([bytes(SECTOR)], 0)
    model[:SECTOR] = bytes(SECTOR)
    array.flush()
    left = [disk.after_power_loss(random.Random(3)) for disk in (disks[0], *disks[2:], fresh)]
    assert "goes on" in do(array, "resume", NoOptions())
    assert array.background.step()
    again = opened(left)
    (member,) = [member for member in again.members.all if member.state is State.RECOVERING]
    assert member.position == 16 * SECTOR, "what was reached was written down when it was paused"
    work(again)
    assert again.members.complete
    assert read(again, 0, len(model)) == model
    assert again.check(0, again.members.bitmap.size, repair=False) == 0


def test_a_pause_ends_with_what_was_paused() -> None:
    plan, count, _ = PLANS["raid1"]
    array = opened(made(plan, count))
    array.pwritev([b"x" * SECTOR], 0)
    do(array, "fail", Chosen("1"))
    spares = iter([Disk(SIZE, "/first"), Disk(SIZE, "/second")])
    object.__setattr__(array.opening, "open", lambda text: next(spares))
    do(array, "add", Added("/first"))
    do(array, "pause", NoOptions())
    do(array, "fail", Chosen("/first"))
    assert not array.background.step()
    do(array, "add", Added("/second"))
    work(array)
    assert array.members.complete


def test_what_administrators_may_not_do() -> None:
    array = opened(made(PLANS["raid5"][0], 4))
    do(array, "fail", array.actions()["fail"].options("2"))
    with pytest.raises(OSError, match="cannot do without"):
        do(array, "fail", array.actions()["fail"].options("1"))
    with pytest.raises(ValueError, match="there is no member"):
        do(array, "fail", array.actions()["fail"].options("9"))
    with pytest.raises(OSError, match="in use"):
        do(array, "remove", array.actions()["remove"].options("1"))
    with pytest.raises(OSError, match="not in sync"):
        object.__setattr__(array.opening, "open", lambda text: Disk(SIZE, text))
        do(array, "grow", Grown(("/x",)))
    object.__setattr__(array.opening, "open", lambda text: Disk(SIZE // 2, text))
    with pytest.raises(ValueError, match="too small"):
        do(array, "add", Added("/small"))
    with pytest.raises(ValueError, match="64K"):
        array.actions()["rate"].options(1)


def test_a_spare_that_takes_a_place_in_the_middle_of_a_reshape() -> None:
    """Power is lost before it knows that it is a member: it has nothing yet, whatever the others say of it."""
    plan, count, _ = PLANS["raid5"]
    disks = made(plan, count, spares=1)
    array = opened(disks)
    model = random.Random(5).randbytes(array.size)
    array.pwritev([model], 0)
    fresh = Disk(SIZE, "/x")
    object.__setattr__(array.opening, "open", lambda text: fresh)
    do(array, "grow", Grown(("/x",)))
    array.background.step()
    array.flush()
    left: list[list[Disk]] = []
    chance = random.Random(1)
    for disk in disks:
        disk.before_flush = lambda: left.append([each.after_power_loss(chance) for each in (*disks, fresh)])
    fresh.dead = errno.EIO
    array.pwritev([model[: 2 * SECTOR]], 0)
    assert len(left) > 10
    for state in left:
        again = opened(state)
        work(again)
        assert again.members.complete
        assert read(again, 0, len(model)) == model
        assert again.check(0, again.members.bitmap.size, repair=False) == 0
