"""Which devices make an array: by their superblocks alone. What does not belong is refused, in words that say what to do."""

from __future__ import annotations

import errno
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockyard.block.file import FileDevice
from blockyard.block.layers import Absent
from blockyard.block.raid import superblock
from blockyard.block.raid.assembly import Refused
from blockyard.block.raid.creation import Plan, create
from blockyard.block.raid.superblock import NoSuperblock, Superblock
from tests.block.raid.disks import PLANS, SECTOR, SIZE, Disk, made, opened, read, work
from tests.conftest import need, run

FIVE = PLANS["raid5"][0]


def after(disks: list[Disk], *lost: int) -> list[Disk]:
    """What is on them, and those that are `lost` left out."""
    return [disk.after_death() for number, disk in enumerate(disks) if number not in lost]


def written(disks: list[Disk], byte: int) -> None:
    array = opened(disks)
    array.pwritev([bytes([byte]) * 4 * SECTOR], 0)
    array.close()


# ---- what belongs together


def test_order_does_not_matter_and_neither_does_the_name() -> None:
    disks = made(FIVE, 4)
    written(disks, 7)
    for seed in range(5):
        shuffled = after(disks)
        random.Random(seed).shuffle(shuffled)
        assert read(opened(shuffled), 0, SECTOR) == b"\7" * SECTOR


def test_a_member_that_missed_writes_is_left_out_and_gets_them_when_it_is_added() -> None:
    disks = made(FIVE, 4)
    written(disks, 1)
    old = disks[2].after_death()
    rest = after(disks, 2)
    written(rest, 2)
    array = opened([*rest, old])
    assert "out of date" in array.left_out[old]
    assert read(array, 0, SECTOR) == b"\2" * SECTOR
    before = old.writes
    message = array.actions()["add"].run(array.actions()["add"].options("/d2"), lambda done, total: None)
    assert "missed" in message
    work(array)
    assert array.members.complete
    assert old.writes - before < 40, "it gets what the bitmap tells of, not everything"
    assert array.check(0, array.members.bitmap.size, repair=False) == 0
    array.close()
    assert not opened(after([*rest, old])).left_out


def test_what_was_used_apart_is_two_arrays() -> None:
    disks = made(PLANS["raid1"][0], 2)
    written(disks, 1)
    one, other = after(disks, 1), after(disks, 0)
    written(one, 2)
    written(other, 3)
    with pytest.raises(Refused, match="each been used without the other"):
        opened([*after(one), *after(other)])


def test_members_of_another_array_are_refused() -> None:
    disks, foreign = made(FIVE, 4), made(FIVE, 4)
    with pytest.raises(Refused, match="different arrays"):
        opened([*disks[:3], foreign[3]])


def test_a_copy_of_a_member_is_refused() -> None:
    disks = made(FIVE, 4)
    with pytest.raises(Refused, match="copies of the same"):
        opened([*disks[:3], disks[0].after_death()])


def test_what_has_no_superblock_or_is_not_there_is_gone_without() -> None:
    disks = made(FIVE, 4)
    written(disks, 5)
    blank = Disk(SIZE, "/blank")
    array = opened([*after(disks, 1), blank])
    assert "no superblock" in array.left_out[blank]
    assert array.report()["health"] == "degraded"
    gone = Absent("/gone", OSError(errno.ENOENT, "No such file"))
    assert read(opened([*after(disks, 1), gone]), 0, SECTOR) == b"\5" * SECTOR


def test_too_few_members_are_refused_and_the_missing_named() -> None:
    disks = made(FIVE, 4)
    with pytest.raises(Refused, match="cannot do without member 1 and 2 of 4"):
        opened(after(disks, 1, 2))
    with pytest.raises(Refused, match="blockyard layer create"):
        opened([Disk(SIZE, "/a"), Disk(SIZE, "/b")])


def test_another_level_than_the_stack_says() -> None:
    with pytest.raises(Refused, match=r"write raid5\(…\)"):
        opened(made(FIVE, 4), 6)


def test_a_stale_member_counts_again_only_by_force() -> None:
    disks = made(FIVE, 4)
    written(disks, 1)
    old = disks[2].after_death()
    rest = after(disks, 2)
    written(rest, 1)
    pair = [disk.after_death() for disk in (rest[0], rest[1])]
    with pytest.raises(Refused, match="blockyard raid assemble --force"):
        opened([*pair, old.after_death()])
    array = opened([*pair, old], force=True)
    assert read(array, 0, SECTOR) == b"\1" * SECTOR
    array.close()
    assert opened(after([*pair, old])).report()["health"] == "degraded"


def test_power_and_a_member_lost_at_once() -> None:
    """Without a journal for every write the array says that it does not know; with one it does."""
    for plan, known in (("raid5", False), ("raid5 with journal", True)):
        disks = made(PLANS[plan][0], PLANS[plan][1])
        array = opened(disks)
        array.pwritev([b"\1" * 3 * SECTOR], 0)
        array.flush()
        array.pwritev([b"\2" * SECTOR], 0)
        left = [disk.after_power_loss(random.Random(1)) for disk in disks[1:]]
        if known:
            assert read(opened(left), SECTOR, SECTOR) == b"\1" * SECTOR
        else:
            with pytest.raises(Refused, match="was being written"):
                opened(left)
            opened(left, force=True)


def test_an_array_that_is_only_read_changes_nothing() -> None:
    disks = made(FIVE, 4)
    written(disks, 3)
    before = [bytes(disk.now) for disk in disks]
    array = opened(after(disks, 0), read_only=True)
    assert read(array, 0, SECTOR) == b"\3" * SECTOR
    with pytest.raises(OSError, match="reading only"):
        array.pwritev([bytes(SECTOR)], 0)
    array.close()
    again = opened(disks)
    read(again, 0, again.size)
    again.close()
    assert [bytes(disk.now) for disk in disks] == before, "looking at it writes nothing either"


# ---- making


def test_devices_that_hold_something_are_refused_unless_it_is_meant() -> None:
    disks = [Disk(SIZE, f"/d{number}") for number in range(3)]
    disks[1].now[SIZE - 512] = 1
    with pytest.raises(FileExistsError, match="/d1 holds something"):
        create(disks, Plan(5))
    create(disks, Plan(5), force=True)
    with pytest.raises(FileExistsError, match="member of array"):
        create(disks, Plan(5))


def test_members_that_are_not_empty_are_brought_in_line() -> None:
    disks = [Disk(SIZE, f"/d{number}", bytearray(random.Random(number).randbytes(SIZE))) for number in range(4)]
    create(disks, Plan(6, chunk=4096, journal_size=65536), force=True)
    array = opened(disks)
    assert array.members.bitmap.distrusted
    array.pwritev([b"x" * SECTOR], 0)
    work(array)
    assert not array.members.bitmap.distrusted
    assert array.check(0, array.members.bitmap.size, repair=False) == 0
    assert read(array, 0, SECTOR) == b"x" * SECTOR


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Plan(4), "no RAID 4"),
        (lambda: Plan(5, chunk=5000), "power of two"),
        (lambda: Plan(1, journal=True), "no journal"),
        (lambda: Plan(5, name="x" * 40), "31 bytes"),
        (lambda: create([Disk(SIZE), Disk(SIZE)], Plan(5)), "at least 3"),
        (lambda: create([Disk(65536)] * 3, Plan(5)), "superblock and journal alone"),
        (lambda: create([Disk(SIZE)] * 3, Plan(10, copies=4)), "copies"),
    ],
)
def test_what_cannot_be_made(make: Callable[[], object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        make()


# ---- superblocks


def test_every_damaged_byte_of_a_superblock_is_noticed() -> None:
    (disk, *_) = made(FIVE, 4)
    block = bytes(disk.now[superblock.OFFSET : superblock.OFFSET + superblock.SIZE])
    whole = Superblock.parse(block)
    end = 256 + 2 * len(whole.roles)
    for at in range(end):
        harmed = bytearray(block)
        harmed[at] ^= 0x10
        with pytest.raises(NoSuperblock):
            Superblock.parse(bytes(harmed))


@settings(max_examples=60)
@given(st.integers(0, 383), st.binary(min_size=1, max_size=8))
def test_nonsense_with_a_right_checksum_is_refused_or_harmless(at: int, piece: bytes) -> None:
    disks = made(PLANS["raid1"][0], 2)
    block = bytearray(disks[0].now[superblock.OFFSET : superblock.OFFSET + superblock.SIZE])
    block[at : at + len(piece)] = piece
    count = min(int.from_bytes(block[220:224], "little"), 1920)
    block[216:220] = bytes(4)
    block[216:220] = superblock._checksum(block[: 256 + 2 * count]).to_bytes(4, "little")
    disks[0].now[superblock.OFFSET : superblock.OFFSET + superblock.SIZE] = block
    try:
        array = opened(disks)
    except OSError:
        return
    read(array, 0, array.size)


@settings(max_examples=60)
@given(
    st.sampled_from(("bitmap", "journal", "ours")),
    st.integers(0, 4095),
    st.binary(min_size=1, max_size=16),
    st.booleans(),
)
def test_damage_of_what_is_before_the_data(where: str, at: int, piece: bytes, everywhere: bool) -> None:
    disks = made(FIVE, 4)
    array = opened(disks)
    disks[3].dead = errno.EIO
    array.pwritev([b"a" * 5 * SECTOR], 0)
    members = array.members
    assert members.journal is not None
    data_offset = members.all[0].data_offset
    start = {"bitmap": superblock.OFFSET + members.bitmap_offset, "journal": members.journal.offset,
             "ours": superblock.ours_at(data_offset)}[where]  # fmt: skip
    left = after(disks, 3)
    for disk in left if everywhere else left[:1]:
        disk.now[start + at : start + at + len(piece)] = piece[: data_offset - start - at]
    try:
        again = opened(left)
    except OSError:
        return
    assert read(again, 0, 5 * SECTOR) == b"a" * 5 * SECTOR
    work(again)


def test_mdadm_reads_what_we_write(tmp_path: Path) -> None:
    paths = [tmp_path / f"m{number}" for number in range(5)]
    for path in paths:
        path.write_bytes(b"")
        with path.open("r+b") as file:
            file.truncate(8 << 20)
    devices = [FileDevice(path) for path in paths]
    create(devices[:4], Plan(6, name="mail", chunk=131072), spares=devices[4:])
    for device in devices:
        device.close()
    mdadm = need("mdadm", "mdadm")
    told = run([mdadm, "--examine", paths[2]]).stdout
    for line in ("Version : 1.2", "Name : mail", "Raid Level : raid6", "Raid Devices : 4", "State : clean", "Chunk Size : 128K",
                 "Layout : left-symmetric", "Device Role : Active device 2", "Array State : AAAA", "- correct"):  # fmt: skip
        assert line in told, told
    assert "Device Role : spare" in run([mdadm, "--examine", paths[4]]).stdout
    loop = subprocess.run(["losetup", "-r", "-f", "--show", str(paths[1])], capture_output=True, text=True, check=True)
    try:
        told = run([mdadm, "--examine-bitmap", loop.stdout.strip()], check=False).stdout
    finally:
        subprocess.run(["losetup", "-d", loop.stdout.strip()], check=True)
    assert "Magic : 6d746962" in told
    assert "0 dirty (0.0%)" in told
