"""A random run on an array, and what a loss of power at any of its points may leave.

Each time a member is going to be flushed, and after each operation, all disks are what they were at their last flush, with any of
the versions that were written to each sector since; or what was written, when only the process dies. Assembled again, each
sector has what a flush was acknowledged for, or something that was written since; so it has after everything has been brought
in line, without what may then be lost, and when the array is closed and opened once more.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Sequence

from blockyard.block.raid.acting import Added, Grown, Replaced, actions
from blockyard.block.raid.array import Array
from blockyard.block.raid.assembly import Refused
from blockyard.block.raid.member import Member, State
from tests.block.raid.disks import PLANS, SECTOR, SIZE, Disk, made, opened, work

SECTORS = 40  # that are written, from the beginning of the array on
REDUNDANT = [name for name in PLANS if name != "raid0"]


class Run:
    """Random operations on an array of a plan; `often` is the share of moments of which `look` states are looked at."""

    def __init__(self, plan: str, chance: random.Random, often: float, look: int = 2) -> None:
        self.plan, count, self.may_lose = PLANS[plan]
        self.chance = chance
        self.often = often
        self.look = look
        self.looked = 0
        self.possible: list[set[int]] = [{0} for _ in range(SECTORS)]
        self.now: list[int] = [0] * SECTORS
        self.byte = 0
        self.looking = False
        self.disks = made(self.plan, count, spares=chance.choice((0, 0, 1)))
        self.attach(self.disks)
        self.open()

    def attach(self, disks: Sequence[Disk]) -> None:
        for disk in disks:
            disk.before_flush = self.moment

    def open(self) -> None:
        self.array = opened(self.disks)
        object.__setattr__(self.array.opening, "open", self.fresh)

    def fresh(self, text: str) -> Disk:
        """A new disk, by whatever name."""
        disk = Disk(SIZE, text)
        self.disks.append(disk)
        self.attach([disk])
        return disk

    # ---- what is done

    def run(self, operations: Sequence[str]) -> None:
        for operation in operations:
            getattr(self, operation)()
            self.moment()
        self.check(self.array)

    def write(self) -> None:
        start = self.chance.randrange(SECTORS)
        count = min(SECTORS - start, self.chance.choice((1, 1, 2, 3, 8, 17)))
        self.byte = self.byte % 255 + 1
        for sector in range(start, start + count):
            self.possible[sector] = self.possible[sector] | {self.byte}
        self.array.pwritev([bytes([self.byte]) * SECTOR * count], start * SECTOR)
        self.now[start : start + count] = [self.byte] * count

    def flush(self) -> None:
        self.array.flush()
        self.possible = [{byte} for byte in self.now]

    def lose(self) -> None:
        """A disk dies: as many as the array can do without."""
        members = self.array.members
        lost = members.lost | {member.slot for member in members.all if member.slot >= 0 and self._dead(member)}
        able = [
            member
            for member in members.all
            if member.slot >= 0 and not self._dead(member) and self.array.engine.survives(lost | {member.slot})
        ]
        if able and len(lost) < self.may_lose and not any(disk.bad for disk in self.disks):
            disk = self.chance.choice(able).device
            assert isinstance(disk, Disk)
            disk.dead = self.chance.choice((errno.EIO, errno.ENXIO))

    def _dead(self, member: Member) -> bool:
        """The array may not know yet."""
        assert isinstance(member.device, Disk)
        return bool(member.device.dead)

    def spoil(self) -> None:
        """A sector of a whole array cannot be read any more."""
        members = self.array.members
        if members.complete and not any(disk.bad or disk.dead for disk in self.disks):
            member = self.chance.choice([member for member in members.all if member.slot >= 0])
            assert isinstance(member.device, Disk)
            member.device.bad = {(member.data_offset + self.chance.randrange(SECTORS // 2) * SECTOR) // SECTOR}

    def add(self) -> None:
        if None in self.array.members.main:
            self._act("add", Added(f"/new{len(self.disks)}"))

    def back(self) -> None:
        """A disk that has died is plugged in again."""
        for device in list(self.array.left_out):
            assert isinstance(device, Disk)
            if device.dead:
                device.dead = 0
                self._act("add", Added(device.label))
                return

    def replace(self) -> None:
        members = self.array.members
        able = [
            member for member in members.all if member.state is State.ACTIVE and len(members.writers[member.slot]) == 1
        ]
        if able and members.complete and self.array.reshaping is None and not any(disk.dead for disk in self.disks):
            self._act("replace", Replaced(self.chance.choice(able).label, f"/new{len(self.disks)}"))

    def grow(self) -> None:
        members = self.array.members
        able = members.complete and self.array.reshaping is None and not members.bitmap.distrusted
        if able and members.identity.disks < 6 and all(len(slot) == 1 for slot in members.writers):
            self._act("grow", Grown((f"/new{len(self.disks)}",)))

    def _act(self, name: str, options: object) -> None:
        try:
            actions(self.array)[name].run(options, lambda done, total: None)
        except OSError as error:
            if error.errno not in (errno.EIO, errno.ENXIO):  # of a disk that is found dead only now
                raise

    def step(self) -> None:
        try:
            self.array.background.step()
        except OSError:
            if not any(disk.dead or disk.bad for disk in self.disks):
                raise

    def tidy(self) -> None:
        self.array.tidy()

    def close(self) -> None:
        if any(disk.dead for disk in self.disks):
            return
        self.array.close()
        self.possible = [{byte} for byte in self.now]
        self.open()

    # ---- what may be left

    def moment(self) -> None:
        if self.looking or self.chance.random() > self.often:
            return
        self.looking = True
        try:
            for number in range(self.look):
                self.state([d.after_power_loss(self.chance) if number else d.after_death() for d in self.disks])
        except OSError as error:  # which would be taken for one of the member that is being flushed
            raise AssertionError("an array that should be there is not") from error
        finally:
            self.looking = False

    def state(self, disks: list[Disk]) -> None:
        """Assemble what is left and look at it."""
        self.looked += 1
        for disk, was in zip(disks, self.disks, strict=True):
            disk.bad = set(was.bad)
        dead = {was.label for was in self.disks if was.dead}
        back = [disk.after_death() for disk in disks]
        self.chance.shuffle(disks)
        if self.chance.random() < 0.5:  # the dead do not come back
            disks = [disk for disk in disks if disk.label not in dead]
        try:
            array = opened(disks)
        except Refused as error:
            # the array may not have known yet that they are dead: with power and member lost at once, only a journal will do
            if self.plan.journal or self.plan.level not in (5, 6) or not dead or "was being written" not in str(error):
                raise
            disks = back
            array = opened(disks)
        self.check(array)
        work(array)
        self.check(array)
        members = array.members
        if members.complete:
            assert array.check(0, members.bitmap.size, repair=False) == 0
        if any(disk.bad for disk in disks):
            return
        more = [m for m in members.all if m.slot >= 0 and array.engine.survives(members.lost | {m.slot})]
        if more:
            unlucky = self.chance.choice(more).device
            assert isinstance(unlucky, Disk)
            unlucky.dead = errno.ENXIO
            self.check(array)
        array.close()
        self.check(opened([disk for disk in disks if not disk.dead]))

    def check(self, array: Array) -> None:
        data = bytearray(SECTORS * SECTOR)
        array.preadv([memoryview(data)], 0)
        for sector in range(SECTORS):
            content = data[sector * SECTOR : (sector + 1) * SECTOR]
            assert content == content[:1] * SECTOR, f"sector {sector} is torn"
            assert content[0] in self.possible[sector], (
                f"sector {sector} is {content[0]}, not of {self.possible[sector]}"
            )
