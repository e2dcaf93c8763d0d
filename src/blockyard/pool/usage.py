"""What volumes take of a pool's space, and what each may: quota, reservation, thresholds.

A tree counts the chunks that are its own (`Tree.held`: live, history and journal) and those that its live map has
(`Tree.mapped`). These counts are committed with the maps, so that they hold after a crash as the maps do, and cost an addition
for each chunk that moves. Whose a chunk is *alone* changes with every snapshot that comes or goes, for chunks that nobody
touches: that is counted only when somebody asks (survey.py).

A volume has what its tree and the trees of its snapshots have. Its *quota* is the most that this may become; its *reservation* is
space that the others leave for it. Space is handed out in slabs of one chunk size, so a reservation counts in slabs, too.
"""

from __future__ import annotations

import errno
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from blockyard.block.size import Size, format_size
from blockyard.pool.catalog import Snapshot, Volume
from blockyard.pool.space import SLAB, SLAB_SHIFT, PoolFull, Space
from blockyard.pool.tree import Tree

_CLASSES = 11  # sizes of chunks: so many slabs may be begun and not be full


class Level(IntEnum):
    """How full a pool is."""

    GOOD = 0
    SOFT = 1  # somebody should look after it
    HARD = 2  # nothing new is stored, but for volumes that have space reserved
    FULL = 3  # there is nothing left


@dataclass(frozen=True)
class Threshold:
    """Reached when no more than `left` bytes are free, or `percent` of all are used. Neither: never."""

    left: int = 0
    percent: int = 0

    @classmethod
    def read(cls, text: str) -> Threshold:
        """80% (used), 10G (left) or none. Raises ValueError."""
        text = text.strip()
        if text in ("", "none"):
            return cls()
        if not text.endswith("%"):
            return cls(left=Size.read(text))
        number = text[:-1].strip()
        if not number.isdecimal() or not 1 <= int(number) <= 100:
            raise ValueError(
                f"{text!r} is not a threshold: write 80% for so much that is used, or 10G for so much that is left"
            )
        return cls(percent=int(number))

    def __str__(self) -> str:
        if self.percent:
            return f"{self.percent}%"
        return str(Size(self.left)) if self.left else "none"

    def bytes_left(self, size: int) -> int:
        """How little must be left of `size` bytes for it to be reached; -1 for never."""
        if self.percent:
            return size - size * self.percent // 100
        return self.left or -1


@dataclass(frozen=True)
class Usage:
    """What there is of a pool, in bytes."""

    size: int
    used: int
    waiting: int  # of what is used: freed, and free when a commit is done
    metadata: int
    lacking: int  # of what is free, what the file systems beneath have no room for
    reserved: int  # for volumes that have not used it
    provisioned: int  # the sizes of all volumes together

    @property
    def free(self) -> int:
        return self.size - self.used - self.lacking

    @property
    def ratio(self) -> float:
        """Over-provisioning: what volumes could take, for each byte that there is."""
        return self.provisioned / self.size if self.size else 0.0


@dataclass(frozen=True)
class VolumeUsage:
    """What there is of a volume, in bytes."""

    size: int
    mapped: int  # of its size, what has been written and not given back; of a clone, since it was made
    used: int  # of the pool, by the volume, its snapshots and its journal
    quota: int
    reservation: int


class Account:
    """What a volume takes, and may take."""

    def __init__(self, name: str, volume: Volume, trees: Iterable[Tree]) -> None:
        self.name = name
        self.quota = volume.quota
        self.reservation = volume.reservation
        self.trees = list(trees)
        self.shift = self.trees[0].shift

    @property
    def used(self) -> int:
        """Bytes of the volume and its snapshots."""
        return sum(tree.held for tree in self.trees) << self.shift

    @property
    def unused(self) -> int:
        """Bytes that are reserved for it, and that it has not taken."""
        return max(0, self.reservation - self.used)


class Ledger:
    """The accounts of volumes that have limits, and those of the pool as a whole. Everything here happens under its lock."""

    def __init__(self, space: Space) -> None:
        self.soft = Threshold()
        self.hard = Threshold()
        self.lacking = 0  # bytes that are free in the pool, and that the file systems beneath have no room for
        self._space = space
        self._accounts: dict[int, Account] = {}  # by tree, of volumes with a quota or a reservation
        self._reserved: list[Account] = []
        self._most = 0  # bytes that reservations can come to in slabs

    def load(self, settings: Mapping[str, Any]) -> None:
        """Raises ValueError."""
        self.soft, self.hard = Threshold.read(settings.get("soft", "")), Threshold.read(settings.get("hard", ""))

    @property
    def settings(self) -> dict[str, str]:
        return {"soft": str(self.soft), "hard": str(self.hard)}

    def update(
        self, volumes: Mapping[str, Volume], snapshots: Mapping[str, Mapping[str, Snapshot]], trees: Mapping[int, Tree]
    ) -> None:
        """Volumes, their snapshots or limits have changed."""
        self._accounts.clear()
        self._reserved.clear()
        for name, volume in volumes.items():
            if volume.quota or volume.reservation:
                account = Account(name, volume, trees_of(volume, snapshots.get(name, {}), trees))
                self._accounts |= {tree.number: account for tree in account.trees}
                if volume.reservation:
                    self._reserved.append(account)
        self._most = sum(account.reservation for account in self._reserved) + SLAB * _CLASSES * bool(self._reserved)

    @property
    def reserved(self) -> int:
        """Bytes that are reserved and not used."""
        return sum(account.unused for account in self._reserved)

    def check(self, tree: Tree) -> None:
        """Whether a chunk more may be allocated to `tree`. Raises PoolFull."""
        account = self._accounts.get(tree.number)
        size = 1 << tree.shift
        if account is not None:
            used = account.used
            if account.quota and used + size > account.quota:
                raise PoolFull(errno.EDQUOT, f"The quota of {format_size(account.quota)} is used up", account.name)
            if used + size <= account.reservation:
                return
        space = self._space
        kept = self.hard.bytes_left(space.size)
        if kept >= 0 and self._left - size < kept:
            raise PoolFull(errno.ENOSPC, f"The pool has reached its hard threshold ({self.hard})")
        if not space.has_room(tree.shift):
            raise PoolFull(errno.ENOSPC, "The pool is full")
        if self._reserved and space.spare_slabs << SLAB_SHIFT <= self._most and not self._leaves_enough(tree.shift):
            raise PoolFull(errno.ENOSPC, "What is left of the pool is reserved for other volumes")

    def _leaves_enough(self, shift: int) -> bool:
        """Whether there is a chunk of this size besides what is reserved."""
        free = self._space.spare_slabs
        taken = {shift: 1 << shift}
        if self._space.room(shift) < 1 << shift:
            free -= 1
            taken[shift] = (1 << shift) - SLAB
        return self.slabs_needed(taken) <= free

    def slabs_needed(self, taken: Mapping[int, int]) -> int:
        """Free slabs that reservations need besides the room in those in use, of which bytes are taken away by class."""
        unused: dict[int, int] = defaultdict(int)
        for account in self._reserved:
            unused[account.shift] += account.unused
        needed = 0
        for shift, amount in unused.items():
            beyond = amount - (self._space.room(shift) - taken.get(shift, 0))
            needed += max(0, -(-beyond // SLAB))
        return needed

    def can_keep(self) -> bool:
        """Whether there is space for all that is reserved."""
        return self.slabs_needed({}) <= self._space.spare_slabs

    def available(self, tree: Tree | None = None) -> int:
        """Bytes that can still be taken: by a tree, or by a volume without limits."""
        space = self._space
        free = max(0, self._left - max(0, self.hard.bytes_left(space.size)))
        account = None if tree is None else self._accounts.get(tree.number)
        own = account.unused if account is not None else 0
        free = max(own, free - (self.reserved - own))
        if account is not None and account.quota:
            free = min(free, max(0, account.quota - account.used))
        return free

    @property
    def _left(self) -> int:
        return self._space.size - self._space.used - self.lacking

    @property
    def level(self) -> Level:
        return self._level_with(0)

    def level_after(self, before: Level) -> Level:
        """As `level`; but it falls only when there is a little more space than that takes, so that it does not go up and down."""
        level = self.level
        return level if level >= before else min(before, self._level_with(max(SLAB, self._space.size >> 6)))

    def _level_with(self, more: int) -> Level:
        """What it would be with so many bytes more in use."""
        space = self._space
        left = self._left - more
        if left < SLAB and not (space.spare_slabs and left > 0):
            return Level.FULL
        if left <= self.hard.bytes_left(space.size):
            return Level.HARD
        return Level.SOFT if left <= self.soft.bytes_left(space.size) else Level.GOOD


def trees_of(volume: Volume, snapshots: Mapping[str, Snapshot], trees: Mapping[int, Tree]) -> list[Tree]:
    """The trees that have what is a volume's: its own, and those that it had when snapshots were taken."""
    numbers = {volume.tree: None, **dict.fromkeys(snapshot.tree for snapshot in snapshots.values())}
    return [trees[number] for number in numbers]
