"""Making an array: where things lie on its members, and their first superblocks."""

from __future__ import annotations

import errno
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from blockyard.block.actions import Progress, unwatched
from blockyard.block.device import Device
from blockyard.block.raid import superblock
from blockyard.block.raid.assembly import examine, label_of
from blockyard.block.raid.bitmap import Bitmap, room
from blockyard.block.raid.geometry import geometry
from blockyard.block.raid.journal import BLOCK, Journal
from blockyard.block.raid.member import Member, State, each
from blockyard.block.raid.members import Identity, Members
from blockyard.block.raid.superblock import NoSuperblock
from blockyard.block.size import format_size

CHUNK = 64 << 10
_BITMAP_AT = superblock.OFFSET + superblock.SIZE
_LARGEST_BITMAP = 64 << 10
_LOOKED_AT = 1 << 20  # bytes at both ends: labels, partition tables and superblocks of all kinds are there
LEAST = {0: 2, 1: 2, 10: 2, 5: 3, 6: 4}  # members


@dataclass(frozen=True)
class Plan:
    """What an array shall be."""

    level: int
    name: str = ""
    chunk: int = CHUNK
    copies: int = 2  # of RAID 10
    journal: bool = False  # every write goes through the journal, not only those that lack a member
    journal_size: int = 0  # bytes; 0: what suits the size of the members
    region: int = 0  # bytes to a bit of the bitmap; 0: what suits

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if self.level not in superblock.LEVELS:
            raise ValueError(f"there is no RAID {self.level} here: only 0, 1, 10, 5 and 6")
        if self.chunk < 4096 or self.chunk & self.chunk - 1 or self.chunk > 64 << 20:
            raise ValueError(f"the chunk is a power of two from 4K to 64M, not {self.chunk} bytes")
        if self.region and (self.region < 4096 or self.region & self.region - 1):
            raise ValueError(f"a region of the bitmap is a power of two from 4K on, not {self.region} bytes")
        if self.journal and self.level not in (5, 6):
            raise ValueError(f"RAID {self.level} has no parity, and needs no journal: its bitmap does all")
        if self.journal_size and (self.journal_size < 64 << 10 or self.journal_size % 8192):
            raise ValueError("the journal has at least 64K, in whole blocks of 8K")
        if len(self.name.encode()) > 31:
            raise ValueError("a name has at most 31 bytes")


def create(
    devices: Sequence[Device],
    plan: Plan,
    *,
    spares: Sequence[Device] = (),
    force: bool = False,
    progress: Progress = unwatched,
) -> Members:
    """Make an array of `devices`; what they hold is lost. Raises ValueError, OSError (FileExistsError if they hold anything).

    What `progress` raises ends it before anything is written.
    """
    count = len(devices)
    if not LEAST[plan.level] <= count <= superblock.MAX_DEVICES - len(spares):
        raise ValueError(f"RAID {plan.level} has at least {LEAST[plan.level]} members, not {count}")
    if plan.level == 10 and not 2 <= plan.copies <= count:
        raise ValueError(f"RAID 10 of {count} members has 2 to {count} copies, not {plan.copies}")
    if spares and not plan.level:
        raise ValueError("RAID 0 has nothing that a spare could be made of")
    if plan.level in (5, 6) and count - (plan.level - 4) > 255:
        raise ValueError("RAID 5 and 6 have at most 255 members for data")
    for number, device in enumerate((*devices, *spares)):
        progress(number, count + len(spares))
        if not force:
            check_empty(device)
    members = _members(devices, spares, plan)
    zero = all(_reads_as_zeros(member) for member in members.all if member.slot >= 0)
    progress(count + len(spares), count + len(spares))
    if not zero and plan.level:
        members.clean = False
        members.bitmap.fill()
    each(members.all, lambda member: _clear(member, members.journal))
    members.save()
    return members


def _members(devices: Sequence[Device], spares: Sequence[Device], plan: Plan) -> Members:
    smallest = min(device.size for device in (*devices, *spares))
    align = 1 << 20 if smallest >= 64 << 20 else 64 << 10
    journal_size = 0 if plan.level == 1 else plan.journal_size or _journal_size(smallest)
    region = plan.region or _region(smallest if plan.level != 10 else smallest * len(devices))
    bits = -(-smallest * (len(devices) if plan.level == 10 else 1) // region)
    if room(bits) > 1 << 20:
        raise ValueError("regions of the bitmap are too small: it would take more than 1 MiB")
    journal_at = -(-(_BITMAP_AT + room(bits)) // (64 << 10)) * (64 << 10)
    data_offset = -(-(journal_at + journal_size + superblock.SIZE) // align) * align
    unit = max(plan.chunk if plan.level != 1 else 0, 64 << 10)
    used = (smallest - data_offset) // unit * unit
    if used <= 0:
        raise ValueError(
            f"the smallest member has {format_size(smallest)}: superblock and journal alone take {format_size(data_offset)}"
        )
    identity = Identity(
        uuid.uuid4(), plan.name, int(time.time()), plan.level, _layout(plan), 0 if plan.level == 1 else plan.chunk, len(devices),
        used, plan.journal,
    )  # fmt: skip
    where = geometry(plan.level, len(devices), plan.chunk, identity.layout, used)
    bitmap = Bitmap(identity.array, where.size if plan.level == 10 else used, region)
    journal = Journal(identity.array, journal_at, journal_size) if journal_size else None
    found = []
    for number, device in enumerate((*devices, *spares)):
        member = Member(device, number, uuid.uuid4(), data_offset, (device.size - data_offset) // 512 * 512)
        if number < len(devices):
            member.become(State.ACTIVE, number)
        found.append(member)
    return Members(identity, found, bitmap, _BITMAP_AT - superblock.OFFSET if plan.level else 0, journal)


def _journal_size(size: int) -> int:
    """A few MiB: the larger it is, the rarer its halves have to be emptied."""
    return 256 << 10 if size < 16 << 20 else max(1 << 20, min(32 << 20, size >> 6 & -(1 << 20)))


def _layout(plan: Plan) -> int:
    if plan.level in (5, 6):
        return superblock.LEFT_SYMMETRIC
    return 0x100 | plan.copies if plan.level == 10 else 0


def _region(size: int) -> int:
    """Small enough that not too much is brought in line after a crash, large enough that bits are rarely set."""
    region = max(1 << 20, min(64 << 20, 1 << (size >> 10).bit_length()))
    while room(-(-size // region)) > _LARGEST_BITMAP:
        region <<= 1
    return region


def check_empty(device: Device) -> None:
    """Raises FileExistsError when a device seems to hold something."""
    try:
        found = examine(device)
    except NoSuperblock:
        pass
    else:
        what = f"is a member of array {found.name or found.array} (RAID {found.level})"
        raise FileExistsError(
            errno.EEXIST, f"{label_of(device)} {what}: look at it by blockyard raid examine, or say force=true"
        )
    size = min(_LOOKED_AT, device.size)
    for at in (0, device.size - size):
        data = bytearray(size)
        device.preadv([memoryview(data)], at)
        if data.count(0) < size:
            raise FileExistsError(
                errno.EEXIST, f"{label_of(device)} holds something, which would be lost: say force=true if it may"
            )


def _reads_as_zeros(member: Member) -> bool:
    """Whether its data area is known to hold nothing, without reading it."""
    runs = member.device.runs(member.data_offset, member.data_size)
    return bool(member.device.granularity) and not any(run.mapped for run in runs)


def _clear(member: Member, journal: Journal | None) -> None:
    """What stood where our things go."""
    member.write_raw(bytes(superblock.OFFSET), 0)
    if journal is not None:
        for half in range(2):
            member.write_raw(bytes(BLOCK), journal.offset + half * journal.half_size)
