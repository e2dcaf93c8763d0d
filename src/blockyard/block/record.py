"""A layer that writes down all that changes what is below: every write, discard and flush, with its data, in a file.

What is in the file can be replayed, up to any point, on another device (`blockyard layer replay`): so one can look at what a disk
was like after any flush, and what a crash would have left of it (device-mapper has dm-log-writes for that). An operation is
recorded when it has been carried out, and before anybody is told. So what a flush has made stable stands before it in the file.

The file begins with a header (magic, version, size of the device). Then come records, each with a header: magic, operation,
offset, length, time in nanoseconds since 1970, and the CRC-32 of all that and of the data, which follows where there is any.
"""

from __future__ import annotations

import errno
import itertools
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import BinaryIO, NamedTuple
from zlib import crc32

from blockyard.block.actions import Progress, unwatched
from blockyard.block.device import Device
from blockyard.block.file import IOV_MAX
from blockyard.block.filter import Filter
from blockyard.block.layers import Kind, Opening

_FILE = Struct("<8sQQ")
_RECORD = Struct("<4sIQQQI4x")  # magic, operation, offset, length, time, CRC-32
_FILE_MAGIC, _VERSION = b"BYrecord", 1
_MAGIC = b"BYre"


class Operation(IntEnum):
    """What has been carried out."""

    WRITE = 1
    DISCARD = 2
    ZEROES = 3
    FLUSH = 4


class Record(NamedTuple):
    """An operation that has been recorded."""

    operation: Operation
    offset: int
    length: int
    time: int  # nanoseconds since 1970
    data: bytes = b""


class RecordDevice(Filter):
    """The device `below`, with all that changes it appended to a file. Raises OSError."""

    def __init__(self, below: Device, path: str) -> None:
        super().__init__(below)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._numbers = itertools.count()
        self._records = 0
        try:
            head = os.pread(self._fd, _FILE.size, 0)
            if not head:
                os.write(self._fd, _FILE.pack(_FILE_MAGIC, _VERSION, below.size))
            elif head != _FILE.pack(_FILE_MAGIC, _VERSION, below.size):
                raise OSError(errno.EINVAL, "It is not the record of a device of this size", path)
        except BaseException:
            os.close(self._fd)
            raise

    def _append(self, operation: Operation, offset: int, length: int, data: Sequence[memoryview] = ()) -> None:
        """One call, which the kernel keeps apart from others to the same file: no lock is needed."""
        head = _RECORD.pack(_MAGIC, operation, offset, length, time.time_ns(), 0)
        check = crc32(head)
        for piece in data:
            check = crc32(piece, check)
        head = head[: _RECORD.size - 8] + check.to_bytes(4, "little") + bytes(4)
        pieces: Sequence[bytes | memoryview] = [head, *data] if len(data) < IOV_MAX else [head, b"".join(data)]
        if os.writev(self._fd, pieces) != len(head) + sum(map(len, data)):
            raise OSError(errno.ENOSPC, "The record has no space left")
        self._records = next(self._numbers) + 1

    def pwritev(self, buffers: Sequence[memoryview | bytes | bytearray], offset: int) -> None:
        self.below.pwritev(buffers, offset)
        views = [memoryview(buffer) for buffer in buffers]
        self._append(Operation.WRITE, offset, sum(map(len, views)), views)

    def flush(self) -> None:
        self.below.flush()
        self._append(Operation.FLUSH, 0, 0)

    def discard(self, offset: int, length: int) -> None:
        self.below.discard(offset, length)
        self._append(Operation.DISCARD, offset, length)

    def write_zeroes(self, offset: int, length: int) -> None:
        self.below.write_zeroes(offset, length)
        self._append(Operation.ZEROES, offset, length)

    def truncate(self, size: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "What is recorded keeps its size")

    def report(self) -> dict[str, object]:
        return {"counters": {"records": self._records}}

    def detach(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def records(file: BinaryIO, path: str) -> Iterator[Record]:
    """What has been recorded, in order; a last record that is torn is left out. Raises OSError (EINVAL) for what is no record."""
    if file.read(_FILE.size)[:16] != _FILE.pack(_FILE_MAGIC, _VERSION, 0)[:16]:
        raise OSError(errno.EINVAL, "It is no record of a device", path)
    while len(head := file.read(_RECORD.size)) == _RECORD.size:
        magic, operation, offset, length, at, check = _RECORD.unpack(head)
        if magic != _MAGIC or operation not in set(Operation):
            raise OSError(errno.EINVAL, f"It is damaged at byte {file.tell() - _RECORD.size}", path)
        data = file.read(length) if operation == Operation.WRITE else b""
        if crc32(data, crc32(head[: _RECORD.size - 8] + bytes(8))) != check:
            if file.read(1):
                raise OSError(errno.EINVAL, f"It is damaged before byte {file.tell()}", path)
            return
        yield Record(Operation(operation), offset, length, at, data)


def replay(path: str, device: Device, *, until: int | None = None, flushes: int | None = None,
           progress: Progress = unwatched) -> int:  # fmt: skip
    """Do on `device` what has been recorded: the first `until` records, or all up to so many flushes, or all.

    Returns how many records that were. Raises OSError.
    """
    done = 0
    size = os.stat(path).st_size
    with open(path, "rb") as file:
        for record in records(file, path):
            if done == until or flushes == 0:
                break
            if record.operation == Operation.WRITE:
                device.pwritev([record.data], record.offset)
            elif record.operation == Operation.DISCARD:
                device.discard(record.offset, record.length)
            elif record.operation == Operation.ZEROES:
                device.write_zeroes(record.offset, record.length)
            elif flushes is not None:
                flushes -= 1
            done += 1
            progress(file.tell(), size)
    device.flush()
    return done


@dataclass(frozen=True)
class RecordOptions:
    """Where to."""

    file: str

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if not self.file or "\0" in self.file:
            raise ValueError("file is the path of what is written to")


def _open(children: Sequence[Device], options: RecordOptions, opening: Opening) -> Device:
    return RecordDevice(children[0], options.file)


KINDS = (
    Kind("record", "Writes all that changes what is below into a file, to be replayed.", _open, RecordOptions,
         paths=("file",), claims=lambda options: [f"file:{options.file}"], example="record(file=/srv/a.log, /srv/a.img)"),
)  # fmt: skip
