"""Reading and writing all that was asked for."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path


def write_all(fd: int, parts: Sequence[bytes | bytearray | memoryview], offset: int) -> None:
    """Write the parts one behind the other. Raises OSError."""
    while (written := os.pwritev(fd, parts, offset)) != sum(map(len, parts)):
        offset += written
        parts = _behind(parts, written)


def _behind(parts: Sequence[bytes | bytearray | memoryview], length: int) -> list[memoryview]:
    """What is left of the parts behind so many bytes."""
    views = [memoryview(part) for part in parts]
    while length >= len(views[0]):
        length -= len(views.pop(0))
    return [views[0][length:], *views[1:]]


def read_all(fd: int, length: int, offset: int, path: Path) -> bytes:
    """Raises OSError, ENODATA where the file ends."""
    data = os.pread(fd, length, offset)
    if len(data) == length:
        return data
    rest = bytearray(data)
    while len(rest) < length:
        piece = os.pread(fd, length - len(rest), offset + len(rest))
        if not piece:
            raise OSError(errno.ENODATA, "The file ends too early", str(path))
        rest += piece
    return bytes(rest)
