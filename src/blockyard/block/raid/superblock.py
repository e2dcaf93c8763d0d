"""The superblock of a member: version 1.2 of Linux' md (drivers/md, include/uapi/linux/raid/md_p.h), 4 KiB from its beginning.

So there is a second program that reads our arrays, and a way out: mdadm examines them, and a Linux kernel runs them. What md does
not know stands in a block of our own before the data: where the journal is, and from which entry on it counts. It is bound to the
superblock by that one's checksum, which includes its time: when a kernel has run the array, it counts no more. The block has what
belongs to the superblock that is there, and what belongs to the next one, as only one of them is written at a time.

All numbers are little-endian; those of md are in sectors of 512 bytes, and here in bytes.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Self

from fastcrc.crc32 import iscsi as crc32c

OFFSET = 4096  # of version 1.2
SIZE = 4096  # that it may take: of the roles of MAX_DEVICES
MAX_DEVICES = 1920
ALL = (1 << 64) - 1  # of an offset: everything is in order
SPARE, FAULTY, JOURNAL = 0xFFFF, 0xFFFE, 0xFFFD  # roles of a device that is no member

BITMAP, RECOVERY, RESHAPE, REPLACEMENT, RECOVERY_BITMAP, RAID0_LAYOUT = 1, 2, 4, 16, 128, 4096  # of the feature map
_KNOWN = BITMAP | RECOVERY | RESHAPE | REPLACEMENT | RECOVERY_BITMAP | RAID0_LAYOUT

LEVELS = (0, 1, 10, 5, 6)
LEFT_SYMMETRIC = 2

_SECTOR = 512
_MAGIC = 0xA92B4EFC
_FIELDS = struct.Struct("<IIII16s32sQIIQIIiIQiIIi QQQQ II16s BBHi QQQII")
_FIXED = 256  # bytes before the roles
_CHECKSUM_AT = 216
_OURS = struct.Struct("<IIIIQ8x")  # checksum of the superblock, offset and size of the journal in KiB, flags, floor
_OURS_HEAD = struct.Struct("<8sII16s")  # magic, CRC-32C of all that follows, number of entries, array
_OUR_MAGIC = b"BYraidSB"
_ENTRIES = 100
_JOURNALED, _ALWAYS = 1, 2


class NoSuperblock(ValueError):
    """There is none, or none that could be used; says why."""


@dataclass(frozen=True)
class OurPart:
    """What is in the padding."""

    journal_offset: int = 0
    journal_size: int = 0
    floor: int = 0  # the first entry of the journal that counts
    journaled: bool = False  # nothing has been written past the journal since the parity was last right
    always: bool = False  # the journal is used for every write, not only for those that lack a member

    def entry(self, superblock: bytes) -> bytes:
        """What belongs to a superblock, for `pack_ours`."""
        flags = _JOURNALED * self.journaled | _ALWAYS * self.always
        checksum = int.from_bytes(superblock[_CHECKSUM_AT : _CHECKSUM_AT + 4], "little")
        return _OURS.pack(checksum, self.journal_offset >> 10, self.journal_size >> 10, flags, self.floor)


@dataclass(frozen=True)
class Superblock:
    """What a member says of itself and of its array."""

    array: uuid.UUID
    name: str
    created: int  # seconds since 1970
    level: int
    layout: int
    member_size: int  # bytes of each member that the array uses; 0 with RAID 0, where data_size says it
    chunk: int
    disks: int
    data_offset: int
    data_size: int
    device: uuid.UUID
    number: int  # of the device: where its role stands
    roles: tuple[int, ...]
    events: int = 0
    updated: int = 0
    features: int = 0
    bitmap_offset: int = 0  # from the superblock on
    recovery_offset: int = ALL  # of this device, what is before it has been restored
    resync_offset: int = ALL  # ALL: clean
    reshape_position: int = 0
    added_disks: int = 0  # with RESHAPE: `disks` are these more than before
    corrected: int = 0
    ours: OurPart = field(default_factory=OurPart)

    @property
    def role(self) -> int:
        return self.roles[self.number] if self.number < len(self.roles) else SPARE

    @property
    def clean(self) -> bool:
        return self.resync_offset == ALL

    def changed(self, **changes: object) -> Self:
        return replace(self, **changes)  # type: ignore[arg-type]

    def pack(self) -> bytes:
        reshaping = bool(self.features & RESHAPE)
        recovering = bool(self.features & RECOVERY)
        fields = _FIELDS.pack(
            _MAGIC, 1, self.features, 0,
            self.array.bytes, self.name.encode()[:31].ljust(32, b"\0"),
            self.created, self.level & 0xFFFFFFFF, self.layout, self.member_size // _SECTOR, self.chunk // _SECTOR, self.disks,
            self.bitmap_offset // _SECTOR,
            self.level & 0xFFFFFFFF if reshaping else 0, self.reshape_position // _SECTOR, self.added_disks,
            self.layout if reshaping else 0, self.chunk // _SECTOR if reshaping else 0, 0,
            self.data_offset // _SECTOR, self.data_size // _SECTOR, OFFSET // _SECTOR,
            self.recovery_offset // _SECTOR if recovering else 0,
            self.number, self.corrected, self.device.bytes,
            0, 0, 0, 0,
            self.updated, self.events, ALL if self.clean else self.resync_offset // _SECTOR, 0, len(self.roles),
        )  # fmt: skip
        block = bytearray(fields.ljust(_FIXED, b"\0") + struct.pack(f"<{len(self.roles)}H", *self.roles))
        struct.pack_into("<I", block, _CHECKSUM_AT, _checksum(block))
        return bytes(block)

    @classmethod
    def parse(cls, block: bytes) -> Self:
        """Of the bytes at OFFSET. Raises NoSuperblock."""
        if len(block) < _FIXED or block[:4] != struct.pack("<I", _MAGIC):
            raise NoSuperblock("it has no superblock of an array")
        (
            _, major, features, _, array, name, created, level, layout, member_size, chunk, disks, bitmap_offset,
            new_level, reshape_position, added, new_layout, new_chunk, _, data_offset, data_size, super_offset,
            recovery, number, corrected, device, _, _, _, _, updated, events, resync, checksum, count,
        ) = _FIELDS.unpack_from(block)  # fmt: skip
        end = _FIXED + 2 * count
        if count > MAX_DEVICES or end > len(block):
            raise NoSuperblock("its superblock is damaged: it counts more devices than there is room for")
        plain = bytearray(block[:end])
        plain[_CHECKSUM_AT : _CHECKSUM_AT + 4] = bytes(4)
        if _checksum(plain) != checksum:
            raise NoSuperblock("its superblock is damaged: the checksum is wrong")
        if major != 1 or super_offset * _SECTOR != OFFSET:
            raise NoSuperblock("its superblock is of another version than 1.2")
        if features & ~_KNOWN:
            raise NoSuperblock(f"its array uses what is not known here (features {features & ~_KNOWN:#x} of md)")
        level = level - (1 << 32) if level >= 1 << 31 else level
        if features & RESHAPE and (new_level, new_layout, new_chunk) != (level & 0xFFFFFFFF, layout, chunk):
            raise NoSuperblock("its array is on the way to another level, layout or chunk size: let Linux finish that")
        return cls(
            uuid.UUID(bytes=array), name.rstrip(b"\0").decode(errors="replace"), created & (1 << 40) - 1, level, layout,
            member_size * _SECTOR, chunk * _SECTOR, disks, data_offset * _SECTOR, data_size * _SECTOR,
            uuid.UUID(bytes=device), number, struct.unpack_from(f"<{count}H", block, _FIXED), events,
            updated & (1 << 40) - 1, features, bitmap_offset * _SECTOR if features & BITMAP else 0,
            recovery * _SECTOR if features & RECOVERY else ALL, ALL if resync == ALL else resync * _SECTOR,
            reshape_position * _SECTOR if features & RESHAPE else 0, added if features & RESHAPE else 0, corrected,
            ).checked()  # fmt: skip

    def checked(self) -> Self:
        """Raises NoSuperblock for what would lead anywhere."""
        if self.level not in LEVELS:
            raise NoSuperblock(f"its array is of level {self.level}: only RAID 0, 1, 10, 5 and 6 are known here")
        for value in (self.member_size, self.data_size, self.data_offset):
            if value > 1 << 62:
                raise NoSuperblock("its superblock is damaged: it tells of sizes that no disk has")
        if self.level != 1 and (self.chunk < 4096 or self.chunk & self.chunk - 1 or self.chunk > 1 << 30):
            raise NoSuperblock(f"its superblock is damaged: no array has chunks of {self.chunk} bytes")
        least = {5: 3, 6: 4}.get(self.level, 1)
        if not least <= self.disks - max(0, self.added_disks) <= self.disks <= MAX_DEVICES or self.added_disks < 0:
            raise NoSuperblock(f"its array has {self.disks} disks, which RAID {self.level} cannot have here")
        if self.level in (5, 6) and self.layout != LEFT_SYMMETRIC:
            raise NoSuperblock(f"its array has layout {self.layout}: of RAID 5 and 6 only left-symmetric is known here")
        if self.level == 10 and (self.layout >> 8 != 1 or not 1 <= self.layout & 0xFF <= self.disks):
            raise NoSuperblock(f"its array has layout {self.layout:#x}: of RAID 10 only near copies are known here")
        places = sorted(
            (start, start + size)
            for start, size in (
                (OFFSET, SIZE),
                (OFFSET + self.bitmap_offset, 512 * bool(self.bitmap_offset)),
                (self.ours.journal_offset, self.ours.journal_size),
                (ours_at(self.data_offset), SIZE * bool(self.ours.journal_size)),
                (self.data_offset, self.used),
            )
            if size
        )
        ends = (OFFSET + self.bitmap_offset + 512, self.ours.journal_offset + self.ours.journal_size)
        if self.bitmap_offset < 0 or max(ends) > self.data_offset:
            raise NoSuperblock("what its superblock tells of is not before its data, which is not known here")
        if any(end > start for (_, end), (start, _) in pairwise(places)) or self.used > self.data_size or not self.used:
            raise NoSuperblock("its superblock is damaged: what it tells of lies in one place")
        return self

    @property
    def used(self) -> int:
        """Bytes of each member that the array uses."""
        return self.member_size or self.data_size


def ours_at(data_offset: int) -> int:
    """Where our block is on a member."""
    return data_offset - SIZE


def pack_ours(array: uuid.UUID, entries: Sequence[bytes]) -> bytes:
    """Our block, of what belongs to the superblock that is there and those that may come to be."""
    body = struct.pack("<I", len(entries[-_ENTRIES:])) + array.bytes + b"".join(entries[-_ENTRIES:])
    return (_OUR_MAGIC + struct.pack("<I", crc32c(body)) + body).ljust(SIZE, b"\0")


def find_ours(block: bytes, superblock: bytes, array: uuid.UUID) -> bytes | None:
    """The entry that belongs to a superblock, if there is one."""
    magic, check, count, owner = _OURS_HEAD.unpack_from(block)
    end = _OURS_HEAD.size + count * _OURS.size
    if magic != _OUR_MAGIC or count > _ENTRIES or owner != array.bytes or crc32c(block[12:end]) != check:
        return None
    entries = [block[at : at + _OURS.size] for at in range(_OURS_HEAD.size, end, _OURS.size)]
    mine = superblock[_CHECKSUM_AT : _CHECKSUM_AT + 4]
    return next((entry for entry in reversed(entries) if entry[:4] == mine), None)


def parse_entry(entry: bytes) -> OurPart:
    _, offset, size, flags, floor = _OURS.unpack(entry)
    return OurPart(offset << 10, size << 10, floor, bool(flags & _JOURNALED), bool(flags & _ALWAYS))


def _checksum(block: bytes | bytearray) -> int:
    """Of a superblock whose checksum is zero (calc_sb_1_csum): the sum of its words, folded once."""
    words = len(block) // 4
    total: int = sum(struct.unpack_from(f"<{words}I", block))
    if len(block) % 4:
        total += struct.unpack_from("<H", block, words * 4)[0]
    return (total & 0xFFFFFFFF) + (total >> 32) & 0xFFFFFFFF
