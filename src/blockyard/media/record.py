"""What is in the data file of a partition: superblocks, and a record for each block and filemark (docs/tape-format.md)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple, Self
from uuid import UUID

from fastcrc.crc32 import iscsi as crc32c

VERSION = 2  # 1 had an index without checksums, and nothing encrypted
SLOT = 4096  # bytes of a superblock; two of them take turns
FIRST = 2 * SLOT  # where the first record is

_MAGIC = b"BLKYTAPE"
_SUPERBLOCK = struct.Struct("<8sII16s5QI")
_RECORD_MAGIC = b"BYTR"
_RECORD = struct.Struct("<4sBBBxIIQQI")  # and the checksum of these
_HEADER = struct.Struct(_RECORD.format + "I")
HEADER_LENGTH = _HEADER.size
MAX_BLOCK = 0xFFFFFF  # bytes: what the length field of WRITE (6) can say

BLOCK, FILEMARK = 1, 2
OPEN, SEALED = 0, 1  # ciphers: none, AES-256-GCM (sealing.py)
MAX_SEALING = 128  # bytes that encryption adds to a block at most


@dataclass(frozen=True)
class Superblock:
    """What a partition has on stable storage for certain."""

    cartridge: UUID
    partition: int
    sequence: int  # of two superblocks the one with the higher is the newer
    epoch: int  # grows whenever something is written over: what lies behind of older ones is not there any more
    objects: int  # blocks and filemarks
    end: int  # where the next record goes
    filemarks: int
    version: int = VERSION

    def encode(self) -> bytes:
        body = _SUPERBLOCK.pack(
            _MAGIC, VERSION, self.partition, self.cartridge.bytes,
            self.sequence, self.epoch, self.objects, self.end, self.filemarks, 0,
        )[:-4]  # fmt: skip
        return (body + crc32c(body).to_bytes(4, "little")).ljust(SLOT, b"\0")

    @classmethod
    def decode(cls, data: bytes) -> Self | None:
        """None for what is no superblock, or a damaged one. Raises ValueError for one of another version than 1 and 2."""
        if len(data) < _SUPERBLOCK.size:
            return None
        magic, version, partition, cartridge, sequence, epoch, objects, end, marks, total = _SUPERBLOCK.unpack_from(
            data
        )
        if magic != _MAGIC or crc32c(data[: _SUPERBLOCK.size - 4]) != total:
            return None
        if version not in (1, VERSION):
            raise ValueError(f"its format has version {version}, and this program knows 1 to {VERSION}")
        if not (marks <= objects <= (end - FIRST) // HEADER_LENGTH and end < 1 << 62):
            return None
        return cls(UUID(bytes=cartridge), partition, sequence, epoch, objects, end, marks, version)


class Sealed(NamedTuple):
    """A block that is encrypted, as it was stored."""

    codec: int
    length: int  # of the block
    number: int
    stored: bytes


class Record(NamedTuple):
    """The header of a block or filemark. `length` is that of the block, `stored` that of the data which follows: it is the
    block itself or, by `codec`, what it was compressed to; and that, by `cipher`, encrypted."""

    kind: int
    codec: int
    cipher: int
    length: int
    stored: int
    epoch: int
    number: int  # counted from the beginning of the partition
    checksum: int  # of the data which follows

    def encode(self) -> bytes:
        return header(*self)

    @classmethod
    def decode(cls, data: bytes | bytearray) -> Self | None:
        """None for what is no header, or a damaged one."""
        if len(data) < HEADER_LENGTH:
            return None
        magic, *numbers = _RECORD.unpack_from(data)
        if magic != _RECORD_MAGIC or crc32c(data[: _RECORD.size]) != int.from_bytes(data[-4:], "little"):
            return None
        record = cls(*numbers)
        if record.cipher not in (OPEN, SEALED):
            return None
        added = MAX_SEALING if record.cipher else 0
        return record if record.stored - added <= record.length <= MAX_BLOCK else None


def checksum_of_plain(data: memoryview, number: int, length: int) -> int | None:
    """The block's checksum, of the header of one with this number and length that is stored as it is; None for all else."""
    magic, kind, codec, cipher, size, stored, _, found, checksum, own = _HEADER.unpack_from(data)
    if (magic, kind, codec, cipher, size, stored, found) != (_RECORD_MAGIC, BLOCK, 0, OPEN, length, length, number):
        return None
    return checksum if crc32c(data[: _RECORD.size]) == own else None


def header(
    kind: int, codec: int, cipher: int, length: int, stored: int, epoch: int, number: int, checksum: int
) -> bytes:
    """That of a record, as `Record` says."""
    body = _RECORD.pack(_RECORD_MAGIC, kind, codec, cipher, length, stored, epoch, number, checksum)
    return body + crc32c(body).to_bytes(4, "little")
