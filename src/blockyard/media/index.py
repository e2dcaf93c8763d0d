"""The index of a partition: where each block and filemark is, and how many filemarks come before it.

An entry has 16 bytes, so that finding a block is one read and finding a filemark a binary search. It is made of the
records and can be made anew of them; it is on stable storage as far as the superblock says.
"""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

from blockyard.media.files import write_all

_ENTRY = struct.Struct("<QQ")
_BUFFER = 4096 * _ENTRY.size  # bytes of entries that are kept back to be written together


class Index:
    """Entries of objects 0 to len - 1. Not safe to be used by two threads at a time."""

    def __init__(self, path: Path, *, writable: bool) -> None:
        self._path = path
        flags = os.O_RDWR | os.O_CREAT if writable else os.O_RDONLY
        self._fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
        self._written = os.fstat(self._fd).st_size // _ENTRY.size  # entries in the file
        self._kept = bytearray()  # those that come after them

    def __len__(self) -> int:
        return self._written + len(self._kept) // _ENTRY.size

    def __getitem__(self, number: int) -> tuple[int, int]:
        """Where the record of an object is, and how many filemarks come before it."""
        if number >= self._written:
            return _ENTRY.unpack_from(self._kept, (number - self._written) * _ENTRY.size)
        entry = os.pread(self._fd, _ENTRY.size, number * _ENTRY.size)
        if len(entry) < _ENTRY.size:
            raise OSError(errno.EUCLEAN, f"The index has lost object {number}", str(self._path))
        return _ENTRY.unpack(entry)

    def append(self, offset: int, filemarks: int) -> None:
        self._kept += _ENTRY.pack(offset, filemarks)

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

    def write(self) -> None:
        """Give all entries to the kernel. Raises OSError; then they stay where they are."""
        write_all(self._fd, [self._kept], self._written * _ENTRY.size)
        self._written += len(self._kept) // _ENTRY.size
        self._kept.clear()

    def sync(self) -> None:
        """All entries are on stable storage when this returns."""
        self.write()
        os.fdatasync(self._fd)

    def close(self) -> None:
        os.close(self._fd)
