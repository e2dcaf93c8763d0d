"""Where protection information is kept: eight bytes for each block, beside the volume and not in it.

So the volume stays what it is to everything else. The bytes are stored inverted: what was never written, be it a hole or
beyond the end of the file, then stands for FFh in all eight, which is what the standards have there (SBC-4), and a
sparse file is the right size for a volume of any size that may also grow.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Protocol

from blockyard.block.file import fallocate

LENGTH = 8  # bytes of protection information that a block has

_INVERT = bytes(range(255, -1, -1))
_KEEP_SIZE, _PUNCH_HOLE = 0x01, 0x02  # linux/falloc.h


class Store(Protocol):
    """Protection information by block address."""

    def read(self, lba: int, count: int) -> bytes: ...
    def write(self, lba: int, information: bytes) -> None: ...
    def erase(self, lba: int, count: int) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...


class FileStore:
    """In a sparse file, which is made when it is not there."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._read_only = read_only
        self._fd = os.open(
            path, (os.O_RDONLY if read_only and path.exists() else os.O_RDWR | os.O_CREAT) | os.O_CLOEXEC, 0o600
        )

    def read(self, lba: int, count: int) -> bytes:
        length = LENGTH * count
        return os.pread(self._fd, length, LENGTH * lba).ljust(length, b"\0").translate(_INVERT)

    def write(self, lba: int, information: bytes) -> None:
        data = memoryview(information.translate(_INVERT))
        at = LENGTH * lba
        while data:
            written = os.pwrite(self._fd, data, at)
            data, at = data[written:], at + written

    def erase(self, lba: int, count: int) -> None:
        try:
            fallocate(self._fd, _PUNCH_HOLE | _KEEP_SIZE, LENGTH * lba, LENGTH * count)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            step = 1 << 17
            for at in range(lba, lba + count, step):
                self.write(at, b"\xff" * (LENGTH * min(step, lba + count - at)))

    def flush(self) -> None:
        if not self._read_only:
            os.fdatasync(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            self.flush()
            os.close(self._fd)
            self._fd = -1


class MemoryStore:
    """In memory: gone with the process."""

    def __init__(self) -> None:
        self._data = bytearray()

    def read(self, lba: int, count: int) -> bytes:
        return bytes(self._data[LENGTH * lba : LENGTH * (lba + count)]).ljust(LENGTH * count, b"\xff")

    def write(self, lba: int, information: bytes) -> None:
        self._data.extend(b"\xff" * (LENGTH * lba + len(information) - len(self._data)))
        self._data[LENGTH * lba : LENGTH * lba + len(information)] = information

    def erase(self, lba: int, count: int) -> None:
        self.write(lba, b"\xff" * (LENGTH * count))

    def flush(self) -> None:
        """Nothing is more stable than it was."""

    def close(self) -> None:
        """There is nothing to let go of."""
