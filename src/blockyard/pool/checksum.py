"""Checksums of chunks: a CRC32C of each, kept beside its place, so that what a disk has falsified is not handed out.

A chunk of a volume with checksums is never written where it is: whatever a crash leaves, place and checksum belong together.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Sequence

from fastcrc.crc32 import iscsi as crc32c

log = logging.getLogger(__name__)
_TOLD = 1000  # chunks at most: where there are more, everybody knows


class ChecksumError(OSError):
    """What was read is not what was written. It becomes MEDIUM ERROR (scsi/sense.py)."""

    def __init__(self, label: str, chunk: int) -> None:
        super().__init__(errno.EBADMSG, f"The checksum of chunk {chunk} is wrong", label)


def checksum(buffers: Sequence[memoryview | bytes]) -> int:
    """Of what is in `buffers`, one after the other."""
    total: int = 0
    for buffer in buffers:
        total = crc32c(buffer, total)
    return total


class Verifier:
    """Verifies what was read, and tells of each chunk that is wrong once: who reads it may not be who looks after the pool."""

    def __init__(self) -> None:
        self.tell: Callable[[str], None] = log.error
        self._told: set[tuple[str, int]] = set()

    def verify(self, buffers: Sequence[memoryview], expected: int, label: str, chunk: int) -> None:
        """Raises ChecksumError."""
        if checksum(buffers) == expected:
            return
        error = ChecksumError(label, chunk)
        if (label, chunk) not in self._told and len(self._told) < _TOLD:
            self._told.add((label, chunk))
            self.tell(f"{label}: {error.strerror}")
        raise error
