"""The file that LMDB keeps its tables in, looked at without LMDB: what it takes on trust.

LMDB maps the file into memory: where it ends before its last page, looking at that page is the death of the process (SIGBUS).
And of the two pages at its head (mdb.c, MDB_meta), which transactions write in turn, the one with the higher number counts:
a number that a disk has falsified makes LMDB go back by one commit without a word.
"""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

from blockyard.block.file import KEEP_SIZE, fallocate

NAME = "data.mdb"

_HEADER = 16  # bytes of a page before what it holds
_META = struct.Struct(
    "=II8x8xI44x48xQQ"
)  # magic, version; size of a page; numbers of the last page and of the transaction
_MAGIC = 0xBEEFC0DE
_PAGES = range(1 << 9, (1 << 16) + 1)  # sizes that a page may have
_LOOKS = 10  # two commits may come between the reading of one page and the other


class Damaged(OSError):
    """What is stored of a pool is not what was stored: `what`. Nothing but the reading of it has failed."""

    def __init__(self, directory: Path, what: str) -> None:
        super().__init__(errno.EUCLEAN, f"The metadata of the pool is damaged: {what}", str(directory))
        self.what = what


def examine(directory: Path) -> None:
    """Raises FileNotFoundError where there is no such file, Damaged for one that LMDB should not be shown."""
    try:
        fd = os.open(directory / NAME, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, f"There is no pool here: {NAME} is missing", str(directory)) from None
    try:
        for _ in range(_LOOKS):
            fault = _fault(fd)
            if fault is None:
                return
        raise Damaged(directory, f"{NAME} {fault}")
    finally:
        os.close(fd)


def allocate(directory: Path, length: int) -> None:
    """Have room on the disk for the first `length` bytes of the file, whose size stays. Raises OSError (ENOSPC)."""
    fd = os.open(directory / NAME, os.O_RDWR | os.O_CLOEXEC)
    try:
        fallocate(fd, KEEP_SIZE, 0, length)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
            raise
    finally:
        os.close(fd)


def _fault(fd: int) -> str | None:
    size = _meta(fd, 0)[2]
    if size not in _PAGES:
        return "does not begin as LMDB's files do"
    metas = [_meta(fd, page * size) for page in range(2)]
    for page, (magic, _, _, _, number) in enumerate(metas):
        if magic != _MAGIC or number & 1 != page:
            return f"has no sense in its page {page}"
    older, newer = sorted(metas, key=lambda meta: meta[4])
    if newer[4] - older[4] != 1:
        return f"has two heads, of transactions {older[4]} and {newer[4]}, which do not follow each other"
    length = os.fstat(fd).st_size
    if length < (newer[3] + 1) * size:
        return f"has been cut short: it has {length} bytes of {(newer[3] + 1) * size}"
    return None


def _meta(fd: int, offset: int) -> tuple[int, ...]:
    data = os.pread(fd, _HEADER + _META.size, offset)
    return _META.unpack_from(data.ljust(_HEADER + _META.size, b"\0"), _HEADER)
