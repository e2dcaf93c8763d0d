"""Checksums of chunks: a CRC32C of each, kept beside its place, so that what a disk has falsified is not handed out.

A chunk of a volume with checksums is never written where it is: whatever a crash leaves, place and checksum belong together.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Sequence

from crc32c import crc32c

log = logging.getLogger(__name__)


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


def verify(buffers: Sequence[memoryview], expected: int, label: str, chunk: int) -> None:
    """Raises ChecksumError, and logs it: who reads may not be who looks after the pool."""
    if checksum(buffers) != expected:
        error = ChecksumError(label, chunk)
        log.error("%s: %s", label, error.strerror)
        raise error
