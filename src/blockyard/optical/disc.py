"""A disc: an image in a drive."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from threading import Lock

from blockyard.block.file import FileDevice
from blockyard.optical.kinds import AUTO, BLOCK, Kind, kind_of
from blockyard.optical.sessions import Session, find


class Disc:
    """An image that is open for reading, as a disc of some kind.

    Images may end within a block: its rest reads as zeros. Reads go on when the disc is closed meanwhile; the file is closed
    after the last of them. Raises OSError; EINVAL for what makes no disc.
    """

    def __init__(self, path: Path, kind: str = AUTO) -> None:
        self.path = path
        self.device = FileDevice(path, read_only=True)
        self._lock = Lock()
        self._reading = 0
        self._closed = False
        try:
            self.blocks = -(-self.device.size // BLOCK)
            self.kind: Kind = kind_of(self.blocks, kind)
            self.sessions: tuple[Session, ...] = find(self._read, self.blocks)
        except ValueError as error:
            self.device.close()
            raise OSError(errno.EINVAL, f"This is no disc: {error}", os.fspath(path)) from None
        except BaseException:
            self.device.close()
            raise

    @property
    def layers(self) -> int:
        return self.kind.layers_of(self.blocks)

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the disc. Raises OSError; ENOMEDIUM when it is not in the drive any more."""
        with self._lock:
            if self._closed:
                raise OSError(errno.ENOMEDIUM, "The disc was taken out", os.fspath(self.path))
            self._reading += 1
        try:
            return self._read(offset, length).ljust(length, b"\0")
        finally:
            with self._lock:
                self._reading -= 1
                last = self._closed and not self._reading
            if last:
                self.device.close()

    def _read(self, offset: int, length: int) -> bytes:
        data = bytearray(max(0, min(length, self.device.size - offset)))
        if data:
            self.device.preadv([memoryview(data)], offset)
        return bytes(data)

    def close(self) -> None:
        with self._lock:
            last = not self._closed and not self._reading
            self._closed = True
        if last:
            self.device.close()
