"""The index of a partition: where each block and filemark is, and how many filemarks come before it.

An entry has 20 bytes, so that finding a block is one read and finding a filemark a binary search. Each has a checksum over its
number too, so that one that is damaged, or another's, is not believed. The index is made of the records and can be made anew of
them; it is on stable storage as far as the superblock says.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from fastcrc.crc32 import iscsi as crc32c

from blockyard.media.files import write_all

_NUMBER, _PLACE, _CHECKSUM = struct.Struct("<Q"), struct.Struct("<QQ"), struct.Struct("<I")
_NUMBERED = struct.Struct("<QQQ").pack  # the number, and the place
_ENTRY = struct.Struct("<QQI")
_BUFFER = 4096 * _ENTRY.size  # bytes of entries that are kept back to be written together
_CHUNK = 64  # entries that are read together


class IndexDamaged(Exception):
    """An entry is not there, or not as it was written."""


class Index:
    """Entries of objects 0 to len - 1. Not safe to be used by two threads at a time.

    One that is not `writable` need not be there.
    """

    def __init__(self, path: Path, *, writable: bool, new: bool = False) -> None:
        self._path = path
        flags = (os.O_RDWR | os.O_CREAT if writable else os.O_RDONLY) | (os.O_TRUNC if new else 0)
        there = writable or (path.exists() and not new)
        self._fd = os.open(path if there else os.devnull, flags | os.O_CLOEXEC, 0o600)
        self._written = os.fstat(self._fd).st_size // _ENTRY.size  # entries in the file
        self._kept = bytearray()  # those that come after them
        self._chunk = (0, b"")  # the number of the first entry that was read last, and what was read

    def __len__(self) -> int:
        return self._written + len(self._kept) // _ENTRY.size

    def __getitem__(self, number: int) -> tuple[int, int]:
        """Where the record of an object is, and how many filemarks come before it. Raises IndexDamaged, OSError."""
        entries: bytes | bytearray
        if number >= self._written:
            at, entries = (number - self._written) * _ENTRY.size, self._kept
        else:
            first, entries = self._chunk
            at = (number - first) * _ENTRY.size
            if not 0 <= at <= len(entries) - _ENTRY.size:
                entries = self._read(number)
                at = 0
        if at + _ENTRY.size > len(entries):
            raise IndexDamaged(f"the entry of object {number} is missing")
        place = entries[at : at + _PLACE.size]
        if crc32c(place, _seed(number)) != _CHECKSUM.unpack_from(entries, at + _PLACE.size)[0]:
            raise IndexDamaged(f"the entry of object {number} is damaged")
        return _PLACE.unpack(place)

    def _read(self, number: int) -> bytes:
        length = min(_CHUNK, self._written - number) * _ENTRY.size
        entries = os.pread(self._fd, length, number * _ENTRY.size)
        self._chunk = number, entries
        return entries

    def append(self, offset: int, filemarks: int) -> None:
        number = self._written + len(self._kept) // _ENTRY.size
        self._kept += _ENTRY.pack(offset, filemarks, crc32c(_NUMBERED(number, offset, filemarks)))

    @property
    def full(self) -> bool:
        """Whether it is time to `write`."""
        return len(self._kept) >= _BUFFER

    def truncate(self, objects: int) -> None:
        """Forget the objects from the one with this number on."""
        if objects >= self._written:
            del self._kept[(objects - self._written) * _ENTRY.size :]
        else:
            self._kept.clear()
            self._written = objects
            self._chunk = (0, b"")

    def write(self) -> None:
        """Give all entries to the kernel. Raises OSError; then they stay where they are."""
        write_all(self._fd, [self._kept], self._written * _ENTRY.size)
        self._written += len(self._kept) // _ENTRY.size
        self._kept.clear()

    def sync(self) -> None:
        """All entries are on stable storage when this returns."""
        self.write()
        os.fdatasync(self._fd)

    def rename(self, path: Path) -> None:
        """Take the place of another. Raises OSError."""
        os.replace(self._path, path)
        self._path = path

    def close(self) -> None:
        os.close(self._fd)


def _seed(number: int) -> int:
    """The checksum of the number, which that of the entry goes on from."""
    return crc32c(_NUMBER.pack(number))
