"""What a persistent cache keeps on its device, and the mark that it keeps on its origin. docs/cache.md has the format for people.

    device:   superblock, two copies that take turns (0, 4096) | table of entries (from 64 KiB) | blocks (aligned to 1 MiB)
    origin:   data | mark (64 KiB, of which one sector is used)

All numbers are big-endian, all checksums CRC-32C.
"""

from __future__ import annotations

import errno
import uuid
from dataclasses import dataclass, replace
from struct import Struct

from fastcrc.crc32 import iscsi as crc32c

from blockyard.block.device import Device

PAGE = 4096  # bytes: the table is written by pages, a mark and a superblock have one each
TABLE_AT = 64 << 10
MARK_SIZE = 64 << 10  # bytes at the end of the origin that are not the disk's
_DATA_ALIGNMENT = 1 << 20

# An entry of the table: line, sequence number, CRC of the block, flags, CRC of what goes before and of the cache's UUID
ENTRY = Struct(">QQIII4x")
ENTRIES = PAGE // ENTRY.size
DIRTY_ENTRY, CLEAN_ENTRY = 1, 2  # flags; all zeros: no entry

_SUPERBLOCK = Struct(">8sI16s16sIQQQQQI")
_SUPERBLOCK_MAGIC = b"BYcache1"
_MARK = Struct(">8sI16s16sQII")
_MARK_MAGIC = b"BYcached"
_CRC = Struct(">I")
CLOSED, IN_USE, DETACHED = 0, 1, 2  # states of a superblock
WHOLE, WANTS_CACHE = 0, 1  # states of a mark: the origin has everything; some may be in the cache alone


class CacheError(OSError):
    """A cache cannot be used with this origin, or is no cache; the text says what to do. EINVAL."""

    def __init__(self, text: str) -> None:
        super().__init__(errno.EINVAL, text)


@dataclass(frozen=True)
class Superblock:
    """What a cache device is."""

    cache: uuid.UUID
    origin: uuid.UUID
    block: int  # bytes
    slots: int
    size: int  # bytes of the disk: the origin without its mark
    generation: int = 0  # how often it was opened to be written to
    stable: int = 0  # entries up to this sequence number lead to blocks that are on stable storage
    serial: int = 0  # of this copy: the one with the higher counts
    state: int = CLOSED

    def pack(self) -> bytes:
        head = _SUPERBLOCK.pack(
            _SUPERBLOCK_MAGIC, 1, self.cache.bytes, self.origin.bytes, self.block, self.slots, self.size,
            self.generation, self.stable, self.serial, self.state,
        )  # fmt: skip
        return (head + _CRC.pack(crc32c(head))).ljust(PAGE, b"\0")

    @classmethod
    def unpack(cls, data: bytes) -> Superblock | None:
        """None for what is none, or damaged."""
        head = data[: _SUPERBLOCK.size]
        if not head.startswith(_SUPERBLOCK_MAGIC) or _CRC.unpack_from(data, len(head))[0] != crc32c(head):
            return None
        _, version, cache, origin, block, slots, size, generation, stable, serial, state = _SUPERBLOCK.unpack(head)
        if version != 1:
            raise CacheError(f"The cache has format {version}, which a later version of this program has made")
        return cls(uuid.UUID(bytes=cache), uuid.UUID(bytes=origin), block, slots, size, generation, stable, serial,
                   state)  # fmt: skip

    @property
    def data_at(self) -> int:
        table = -(-self.slots // ENTRIES) * PAGE
        return -(-(TABLE_AT + table) // _DATA_ALIGNMENT) * _DATA_ALIGNMENT

    @property
    def is_sound(self) -> bool:
        """Whether its numbers can be true."""
        return (
            self.block in (1 << shift for shift in range(12, 17))
            and self.size >= self.block
            and 0 < self.slots < 1 << 40
            and self.state in (CLOSED, IN_USE, DETACHED)
        )


def slots_of(size: int, block: int) -> int:
    """How many blocks a device of `size` bytes has room for."""
    slots = max(0, size - TABLE_AT - _DATA_ALIGNMENT) // (block + ENTRY.size)
    return int(slots)


def read_superblock(device: Device) -> Superblock | None:
    """The newer of the sound copies."""
    if device.size < TABLE_AT + _DATA_ALIGNMENT:
        return None
    data = bytearray(2 * PAGE)
    device.preadv([memoryview(data)], 0)
    copies = [Superblock.unpack(bytes(data[at : at + PAGE])) for at in (0, PAGE)]
    return max(
        (copy for copy in copies if copy is not None and copy.is_sound), key=lambda copy: copy.serial, default=None
    )


def write_superblock(device: Device, superblock: Superblock) -> Superblock:
    """Write the older copy anew; what is written. It is not flushed."""
    superblock = replace(superblock, serial=superblock.serial + 1)
    device.pwritev([superblock.pack()], superblock.serial % 2 * PAGE)
    return superblock


@dataclass(frozen=True)
class Mark:
    """What says of an origin that it has a cache, and which."""

    origin: uuid.UUID
    cache: uuid.UUID
    generation: int = 0  # of the cache when it was opened last
    state: int = WHOLE

    def pack(self) -> bytes:
        head = _MARK.pack(_MARK_MAGIC, 1, self.origin.bytes, self.cache.bytes, self.generation, self.state, 0)
        return (head + _CRC.pack(crc32c(head))).ljust(512, b"\0")

    @classmethod
    def unpack(cls, data: bytes) -> Mark | None:
        head = data[: _MARK.size]
        if not head.startswith(_MARK_MAGIC) or _CRC.unpack_from(data, len(head))[0] != crc32c(head):
            return None
        _, version, origin, cache, generation, state, _ = _MARK.unpack(head)
        if version != 1:
            raise CacheError(f"The origin has a mark of format {version}, made by a later version of this program")
        return cls(uuid.UUID(bytes=origin), uuid.UUID(bytes=cache), generation, state)


def read_mark(origin: Device, at: int) -> Mark | None:
    """The mark at that byte."""
    if not 0 <= at <= origin.size - MARK_SIZE:
        return None
    data = bytearray(512)
    origin.preadv([memoryview(data)], at)
    return Mark.unpack(bytes(data))


def write_mark(origin: Device, at: int, mark: Mark) -> None:
    """Write the mark, stably."""
    origin.pwritev([mark.pack()], at)
    origin.flush()


def disk_size(origin_size: int) -> int:
    """How much of an origin of that many bytes is the disk's."""
    return (origin_size - MARK_SIZE) & -512


def pack_entry(line: int, sequence: int, checksum: int, flags: int, seed: int) -> bytes:
    """`seed` is the CRC of the cache's UUID."""
    entry = ENTRY.pack(line, sequence, checksum, flags, 0)
    return ENTRY.pack(line, sequence, checksum, flags, crc32c(entry, seed))


def unpack_entry(data: bytes, seed: int) -> tuple[int, int, int, int] | None:
    """Line, sequence number, CRC of the block and flags; None where there is no sound entry."""
    line, sequence, checksum, flags, found = ENTRY.unpack(data)
    if not flags or found != crc32c(ENTRY.pack(line, sequence, checksum, flags, 0), seed):
        return None
    return line, sequence, checksum, flags
