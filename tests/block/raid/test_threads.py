"""Many threads at once, while a member dies, a spare is rebuilt, a disk is added, all is scrubbed: each reads what he wrote."""

from __future__ import annotations

import errno
import random
import threading
from pathlib import Path

import pytest

from blockyard.block.file import FileDevice
from blockyard.block.layers import Opening
from blockyard.block.raid.acting import Grown, Scrubbed
from blockyard.block.raid.array import Array
from blockyard.block.raid.assembly import assemble
from blockyard.block.raid.creation import Plan, create
from tests.block.raid.disks import PLANS, SECTOR, SIZE, Disk, made, opened, read
from tests.waiting import eventually

THREADS, SECTORS, ROUNDS = 4, 60, 60


class Writer(threading.Thread):
    """Writes and reads its own sectors, every fourth one: so rows are shared with others."""

    def __init__(self, array: Array, number: int) -> None:
        super().__init__(daemon=True)
        self.array, self.number = array, number
        self.model: dict[int, bytes] = {}
        self.error: BaseException | None = None
        self.quick = False

    def run(self) -> None:
        chance = random.Random(self.number)
        try:
            for _ in range(ROUNDS):
                sector = self.number + THREADS * chance.randrange(SECTORS // THREADS)
                self.model[sector] = data = chance.randbytes(SECTOR)
                if not (self.quick and self.array.quick.write(memoryview(data), sector * SECTOR)):
                    self.array.pwritev([data], sector * SECTOR)
                other = chance.choice(list(self.model))
                assert self.read(other) == self.model[other]
                if chance.random() < 0.1:
                    self.array.flush()
        except BaseException as error:
            self.error = error

    def read(self, sector: int) -> bytes:
        data = bytearray(SECTOR)
        if self.quick and self.array.quick.read([memoryview(data)], sector * SECTOR, SECTOR):
            return bytes(data)
        return read(self.array, sector * SECTOR, SECTOR)


def at_once(array: Array, *, quick: bool = False) -> list[Writer]:
    writers = [Writer(array, number) for number in range(THREADS)]
    writers[0].quick = quick  # the event loop's thread is one
    for writer in writers:
        writer.start()
    return writers


def ended(array: Array, writers: list[Writer]) -> None:
    for writer in writers:
        writer.join(120)
        assert not writer.is_alive(), "somebody waits for ever"
        if writer.error is not None:
            raise writer.error
    for writer in writers:
        for sector, data in writer.model.items():
            assert read(array, sector * SECTOR, SECTOR) == data


def settled(array: Array) -> None:
    """All that the background has to do is done."""

    def so() -> bool:
        members = array.members
        return members.complete and array.reshaping is None and not members.bitmap.distrusted and members.heir is None

    eventually(so, lambda: f"all of {array.report()}")


@pytest.mark.parametrize("level", [name for name in PLANS if name != "raid0"])
def test_a_member_dies_and_a_spare_is_rebuilt(level: str) -> None:
    plan, count, _ = PLANS[level]
    disks = made(plan, count, spares=1)
    array = opened(disks)
    array.background.quiet = 0.01
    array.background.start()
    writers = at_once(array)
    disks[1].dead = errno.EIO
    array.actions()["scrub"].run(Scrubbed(), lambda done, total: None)
    ended(array, writers)
    settled(array)
    assert array.check(0, array.members.bitmap.size, repair=False) == 0
    array.close()
    again = opened([disk for disk in disks if not disk.dead])
    ended(again, writers)


@pytest.mark.parametrize("level", ["raid0", "raid10", "raid5", "raid6 with journal"])
def test_a_disk_is_added(level: str) -> None:
    plan, count, _ = PLANS[level]
    array = opened(made(plan, count))
    object.__setattr__(array.opening, "open", lambda text: Disk(SIZE, text))
    array.background.start()
    writers = at_once(array)
    array.actions()["grow"].run(Grown(("/x",)), lambda done, total: None)
    ended(array, writers)
    settled(array)
    ended(array, writers)
    assert array.check(0, array.members.bitmap.size, repair=False) == 0
    array.close()


@pytest.mark.parametrize("level", [0, 1, 10, 5])
def test_the_short_road_beside_the_long_one(level: int, tmp_path: Path) -> None:
    paths = [tmp_path / f"m{number}" for number in range(5)]
    for path in paths:
        with path.open("wb") as file:
            file.truncate(2 << 20)
    devices = [FileDevice(path) for path in paths]
    spares = devices[4:] if level else []
    create(devices[:4], Plan(level, chunk=4096), spares=spares)
    array = assemble(devices if level else devices[:4], level, Opening())
    array.background.quiet = 0.01
    array.background.start()
    writers = at_once(array, quick=True)
    if level:
        array.actions()["fail"].run(array.actions()["fail"].options("2"), lambda done, total: None)
    ended(array, writers)
    settled(array)
    ended(array, writers)
    if level:
        assert array.check(0, array.members.bitmap.size, repair=False) == 0
    array.close()
