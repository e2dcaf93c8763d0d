"""A journal of one write: what makes a write all or nothing across a crash.

The data goes to the journal's file and is made stable there; then it goes to its place on the device and is made
stable; then the record is taken away, stably. Opened again after a crash in the first of these steps, the record does
not match its checksum and the device has not been touched; after a crash in the others the record is whole and is
written once more. No write that came later can be undone by that: the record is gone before the next one begins.
"""

from __future__ import annotations

import os
from pathlib import Path
from struct import Struct
from zlib import crc32

from blockyard.block.device import Device
from blockyard.block.file import sync_directory

_HEADER = Struct(">8sQII")  # magic, offset on the device, length of the data, CRC-32 of all that and of the data
_MAGIC = b"BYatomic"
_DATA_AT = 4096  # in the journal's file; the header is written in one sector

Buffer = bytes | bytearray | memoryview


class Journal:
    """Writes to `device` that are all or nothing; without a `path` they are so only as long as nothing crashes.

    One write at a time, and no other to the device meanwhile. Raises OSError when the record that a crash has left
    cannot be written.
    """

    def __init__(self, device: Device, path: Path | None) -> None:
        self._device = device
        self._path = None if device.read_only else path
        self._fd = -1
        if self._path is not None and self._path.exists():
            self._open()
            self._replay()

    def write(self, data: Buffer, offset: int) -> None:
        """Write `data` at `offset`, stably. When the device fails, what it has of the data is as it is."""
        if self._path is None:
            self._device.pwritev([data], offset)
            self._device.flush()
            return
        if self._fd < 0:
            self._open()
        os.pwrite(self._fd, data, _DATA_AT)
        os.pwrite(self._fd, _header(data, offset), 0)
        os.fdatasync(self._fd)
        try:
            self._device.pwritev([data], offset)
            self._device.flush()
        finally:
            self._clear()

    def _open(self) -> None:
        assert self._path is not None
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = not self._path.exists()
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if new:
            sync_directory(self._path.parent)

    def _replay(self) -> None:
        head = os.pread(self._fd, _HEADER.size, 0)
        if len(head) < _HEADER.size or not head.startswith(_MAGIC):
            return
        _, offset, length, _ = _HEADER.unpack(head)
        if length <= os.fstat(self._fd).st_size and offset + length <= self._device.size:
            data = os.pread(self._fd, length, _DATA_AT)
            if _header(data, offset) == head:
                self._device.pwritev([data], offset)
                self._device.flush()
        self._clear()

    def _clear(self) -> None:
        os.pwrite(self._fd, bytes(_HEADER.size), 0)
        os.fdatasync(self._fd)

    def erase(self) -> None:
        """Give back the space of what was written last: nobody shall read it any more."""
        if self._fd >= 0:
            os.ftruncate(self._fd, 0)
            os.fdatasync(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _header(data: Buffer, offset: int) -> bytes:
    start = _HEADER.pack(_MAGIC, offset, len(data), 0)
    return _HEADER.pack(_MAGIC, offset, len(data), crc32(data, crc32(start)))
