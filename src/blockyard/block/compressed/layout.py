"""What a compressed disk keeps in its file. docs/compression.md has the format for people.

    superblock, two copies that take turns (0, 4096) | segments of 8 MiB, the first at 8 MiB
    a segment: table of entries (16 KiB) | records, each in whole sectors

A record is an entry with its payload behind it; the same entry stands in the table of its segment, so that opening reads tables
alone. A segment with an entry is in use. All numbers are big-endian, all checksums CRC-32C.
"""

from __future__ import annotations

import errno
import uuid
from dataclasses import dataclass, replace
from struct import Struct
from typing import NamedTuple

from fastcrc.crc32 import iscsi as crc32c

from blockyard.block.device import Device

SECTOR = 512
PAGE = 4096
SEGMENT = 8 << 20
SECTORS = SEGMENT // SECTOR
TABLE = 16 << 10  # bytes of a segment before its records
HOLE, PLAIN, ZSTD = 3, 0, 1  # codecs; 2 is not used
_SUPERBLOCK = Struct(">8sI16sQIIQQ")
_MAGIC = b"BYpacked"
_ENTRY = Struct(">QQIIBxH")  # chunk, sequence number, length of the payload, its CRC, codec, offset
_CRC = Struct(">I")
ENTRY = _ENTRY.size + _CRC.size
ENTRIES = TABLE // ENTRY  # of a segment
CHUNKS = [1 << shift for shift in range(14, 21)]


class CompressedError(OSError):
    """The file is no compressed disk, or is damaged. EINVAL."""

    def __init__(self, text: str) -> None:
        super().__init__(errno.EINVAL, text)


@dataclass(frozen=True)
class Superblock:
    """What a file is."""

    identity: uuid.UUID
    size: int  # bytes of the disk
    chunk: int  # bytes that are compressed as one
    level: int  # of zstd
    stable: int = 0  # entries up to this sequence number lead to records that are on stable storage
    serial: int = 0  # of this copy: the one with the higher counts

    def pack(self) -> bytes:
        head = _SUPERBLOCK.pack(
            _MAGIC, 1, self.identity.bytes, self.size, self.chunk, self.level, self.stable, self.serial
        )
        return (head + _CRC.pack(crc32c(head))).ljust(PAGE, b"\0")

    @classmethod
    def unpack(cls, data: bytes) -> Superblock | None:
        head = data[: _SUPERBLOCK.size]
        if not head.startswith(_MAGIC) or _CRC.unpack_from(data, len(head))[0] != crc32c(head):
            return None
        _, version, identity, size, chunk, level, stable, serial = _SUPERBLOCK.unpack(head)
        if version != 1:
            raise CompressedError(f"The disk has format {version}, made by a later version of this program")
        if chunk not in CHUNKS or not 0 < size < 1 << 63 or size % SECTOR or not 1 <= level <= 19:
            return None
        return cls(uuid.UUID(bytes=identity), size, chunk, level, stable, serial)


def read_superblock(device: Device) -> Superblock | None:
    """The newer of the sound copies."""
    if device.size < 2 * PAGE:
        return None
    data = bytearray(2 * PAGE)
    device.preadv([memoryview(data)], 0)
    copies = [Superblock.unpack(bytes(data[at : at + PAGE])) for at in (0, PAGE)]
    return max((copy for copy in copies if copy is not None), key=lambda copy: copy.serial, default=None)


def write_superblock(device: Device, superblock: Superblock) -> Superblock:
    """Write the older copy anew; what is written. It is not flushed."""
    superblock = replace(superblock, serial=superblock.serial + 1)
    device.pwritev([superblock.pack()], superblock.serial % 2 * PAGE)
    return superblock


class Entry(NamedTuple):
    """Of a record."""

    chunk: int
    sequence: int
    length: int  # bytes of the payload
    checksum: int  # of the payload
    codec: int
    offset: int  # of the record in its segment, in sectors

    def pack(self, seed: int) -> bytes:
        """`seed` is the CRC of the disk's UUID: what another disk has left in the same place is none of this one's."""
        data = _ENTRY.pack(*self)
        return data + _CRC.pack(crc32c(data, seed))

    @classmethod
    def unpack(cls, data: bytes, seed: int) -> Entry | None:
        """None for what is no sound entry."""
        head = data[: _ENTRY.size]
        if _CRC.unpack_from(data, _ENTRY.size)[0] != crc32c(head, seed):
            return None
        entry = cls(*_ENTRY.unpack(head))
        return entry if entry.sequence else None

    @property
    def sectors(self) -> int:
        """How many its record takes: none for a hole, which is in the table alone."""
        return 0 if self.codec == HOLE else sectors_of(self.length)


def sectors_of(length: int) -> int:
    """How many the record of a payload takes."""
    return -(-(ENTRY + length) // SECTOR)
