"""Which members an array has, and what it says of them in their superblocks. Who changes that is alone in the array's gate."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import RLock

from blockyard.block.raid import superblock
from blockyard.block.raid.bitmap import PAGE, Bitmap
from blockyard.block.raid.journal import Journal
from blockyard.block.raid.member import Member, MembersFailed, State, each
from blockyard.block.raid.superblock import ALL, FAULTY, SPARE, OurPart, Superblock

_ROLES = 128  # in a superblock at least, as mdadm has it


@dataclass
class Identity:
    """What does not change, or only by a reshape."""

    array: uuid.UUID
    name: str
    created: int
    level: int
    layout: int
    chunk: int
    disks: int
    used: int  # bytes of each member
    always: bool  # the journal is for every write


class Members:
    """Of an array that is open."""

    def __init__(
        self, identity: Identity, members: Sequence[Member], bitmap: Bitmap, bitmap_offset: int, journal: Journal | None
    ) -> None:
        self.identity = identity
        self.all = list(members)  # all that are there, spares too
        self.bitmap = bitmap
        self.bitmap_offset = bitmap_offset  # from the superblock on; 0: it is only in memory
        self.journal = journal
        self.journal_size = 2 * journal.half_size if journal is not None else 0
        self.floor = 1
        self.events = 0
        self.clean = True
        self.reshape_position: int | None = None
        self.added_disks = 0
        self.settling = False  # a member is in sync that does not know it yet
        self.past: set[int] = set()  # numbers of those that were members once
        self.main: list[Member | None] = []
        self.writers: list[tuple[Member, ...]] = []
        self._lock = RLock()
        self.arrange()

    def arrange(self) -> None:
        """After a change: who stands where."""
        main: list[Member | None] = [None] * self.identity.disks
        writers: list[list[Member]] = [[] for _ in main]
        for member in self.all:
            if member.slot >= 0:
                writers[member.slot].append(member)
                if not member.replaces:
                    main[member.slot] = member
        self.main, self.writers = main, [tuple(each) for each in writers]

    # ---- what there is

    @property
    def lost(self) -> set[int]:
        """Slots of which not everything can be read."""
        return {slot for slot, member in enumerate(self.main) if member is None or member.state is not State.ACTIVE}

    @property
    def complete(self) -> bool:
        return all(member is not None and member.state is State.ACTIVE for member in self.main)

    @property
    def journaling(self) -> bool:
        """Whether writes go through the journal: levels without parity need it for a reshape only."""
        return (
            self.journal is not None
            and self.identity.level in (5, 6)
            and (self.identity.always or self.settling or not self.complete)
        )

    @property
    def recovering(self) -> Member | None:
        """The one that is being rebuilt next."""
        return next((member for member in self.all if member.state is State.RECOVERING), None)

    @property
    def heir(self) -> Member | None:
        """One that has all that the other has which it replaces."""
        return next((member for member in self.all if member.replaces and member.state is State.ACTIVE), None)

    def spares(self) -> Iterator[Member]:
        return (member for member in self.all if member.state is State.SPARE)

    def readable(self, slot: int, offset: int, length: int) -> Member | None:
        member = self.main[slot]
        return member if member is not None and member.can_read(offset, length) else None

    def remove(self, member: Member) -> None:
        self.all.remove(member)
        self.past.add(member.number)

    def free_number(self) -> int:
        """One that nobody has had: by it a former member knows whether it was there before or after another."""
        taken = {member.number for member in self.all}
        numbers = [number for number in range(superblock.MAX_DEVICES) if number not in taken]
        return next((number for number in numbers if number not in self.past), numbers[0])

    # ---- what is written down

    def save(self) -> None:
        """Write the superblocks, stably; the bitmap before. Raises MembersFailed when that was possible on some only."""
        with self._lock:
            self.events += 1
            try:
                self._save()
            except MembersFailed:
                self.events -= 1  # those who have it are one ahead of the others at most, whatever comes next
                raise

    def _save(self) -> None:
        self.bitmap.stamp(self.events)
        if self.bitmap_offset:
            self._save_bitmap(range(len(self.bitmap.image) // PAGE), stable=True)
        roles, now = self._roles(), int(time.time())
        blocks = {member: self.superblock(member, roles, now) for member in self.all}
        packed = {member: block.pack() for member, block in blocks.items()}
        if self.journal is not None:
            for member, block in blocks.items():
                member.entries.append(block.ours.entry(packed[member]))
            each(self.all, self._save_ours)
            each(self.all, Member.flush)
        each(self.all, lambda member: member.write_raw(packed[member], superblock.OFFSET))
        each(self.all, Member.flush)
        for member in self.all:
            del member.entries[:-1]

    def _save_ours(self, member: Member) -> None:
        block = superblock.pack_ours(self.identity.array, member.entries)
        member.write_raw(block, superblock.ours_at(member.data_offset))

    def save_bitmap(self, pages: Sequence[int], stable: bool) -> None:
        """Write pages of the bitmap to all members. Raises MembersFailed."""
        with self._lock:
            if self.bitmap_offset:
                self._save_bitmap(pages, stable=stable)

    def _save_bitmap(self, pages: Sequence[int], *, stable: bool) -> None:
        at, image = superblock.OFFSET + self.bitmap_offset, self.bitmap.image
        for page in pages:
            piece = bytes(image[page * PAGE : (page + 1) * PAGE])
            each(self.all, lambda member, p=piece, a=at + page * PAGE: member.write_raw(p, a))  # type: ignore[misc]
        if stable:
            each(self.all, Member.flush)

    def _roles(self) -> tuple[int, ...]:
        numbers = {member.number for member in self.all}
        roles = [SPARE] * max(_ROLES, max(numbers | self.past, default=0) + 1)
        for number in self.past - numbers:
            roles[number] = FAULTY
        for member in self.all:
            roles[member.number] = SPARE if member.state is State.SPARE else member.slot
        return tuple(roles)

    def superblock(self, member: Member, roles: tuple[int, ...], now: int) -> Superblock:
        """What a member says now."""
        identity, journal = self.identity, self.journal
        features = superblock.BITMAP if self.bitmap_offset else 0
        if member.state is State.RECOVERING:
            features |= superblock.RECOVERY | (superblock.RECOVERY_BITMAP if member.by_bitmap else 0)
        features |= superblock.REPLACEMENT if member.replaces else 0
        features |= superblock.RESHAPE if self.reshape_position is not None else 0
        ours = OurPart()
        if journal is not None:
            journaled = self.journaling and not self.bitmap.distrusted
            ours = OurPart(journal.offset, self.journal_size, self.floor, journaled, identity.always)
        return Superblock(
            identity.array, identity.name, identity.created, identity.level, identity.layout,
            0 if identity.level == 0 else identity.used, identity.chunk, identity.disks, member.data_offset,
            identity.used if identity.level == 0 else member.data_size, member.identity, member.number,
            roles, self.events, now, features, self.bitmap_offset,
            member.position if member.state is State.RECOVERING else ALL, ALL if self.clean else 0,
            self.reshape_position or 0, self.added_disks, member.corrected, ours,
        )  # fmt: skip
