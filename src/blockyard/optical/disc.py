"""A disc: an image in a drive, or what becomes one."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from threading import Lock

from blockyard.block.file import FileDevice
from blockyard.optical.kinds import AUTO, BLOCK, KINDS, Kind, kind_of
from blockyard.optical.sessions import Session, find
from blockyard.scsi.task import Buffer


class Disc:
    """An image that is open for reading, as a disc of some kind; for writing too, and for nobody else, if that can be written.

    Images may end within a block: its rest reads as zeros. Reads go on when the disc is closed meanwhile; the file is closed
    after the last of them. Raises OSError; EINVAL for what makes no disc.
    """

    def __init__(self, path: Path, kind: str = AUTO) -> None:
        self.path = path
        writable = kind != AUTO and KINDS[kind].writable
        self.device = FileDevice(path, read_only=not writable)
        self._lock = Lock()
        self._reading = 0
        self._closed = False
        try:
            # a device has whole sectors of 512 bytes; a file that is a disc may end anywhere
            self._size = max(self.device.size, os.stat(path).st_size)
            self.blocks = -(-self._size // BLOCK)
            self.kind: Kind = kind_of(self.blocks, kind)
            if writable and self._size % BLOCK:
                raise ValueError(f"a disc that is written has whole blocks of {BLOCK} bytes, not {self._size} bytes")
            self.sessions = (Session(0, self.blocks),) if writable else find(self._read, self.blocks)
        except ValueError as error:
            self.device.close()
            raise OSError(errno.EINVAL, f"This is no disc: {error}", os.fspath(path)) from None
        except BaseException:
            self.device.close()
            raise

    @property
    def layers(self) -> int:
        return self.kind.layers_of(self.blocks)

    def read(self, offset: int, length: int) -> bytearray:
        """Bytes of the disc. Raises OSError; ENOMEDIUM when it is not in the drive any more, as the others do."""
        with self._used():
            return self._read(offset, length)

    def write(self, offset: int, data: Buffer) -> None:
        """Write whole blocks."""
        with self._used():
            self.device.pwritev([data], offset)

    def flush(self) -> None:
        """What was written is on stable storage after this."""
        with self._used():
            if self.kind.writable:
                self.device.flush()

    @contextlib.contextmanager
    def _used(self) -> Iterator[None]:
        """The file stays open while this lasts."""
        with self._lock:
            if self._closed:
                raise OSError(errno.ENOMEDIUM, "The disc was taken out", os.fspath(self.path))
            self._reading += 1
        try:
            yield
        finally:
            with self._lock:
                self._reading -= 1
                last = self._closed and not self._reading
            if last:
                self.device.close()

    def _read(self, offset: int, length: int) -> bytearray:
        data = bytearray(length)
        there = min(length, self._size - offset)
        if there > 0:
            self.device.preadv([memoryview(data)[:there]], offset)
        return data

    def close(self) -> None:
        with self._lock:
            last = not self._closed and not self._reading
            self._closed = True
        if last:
            self.device.close()
