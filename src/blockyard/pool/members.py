"""Members of a pool: the files and block devices that hold its data, and how each is known again.

The first slab of a member holds no data but a header: whose it is, the how manieth, and how large it was. So a member that
was swapped with another, belongs to another pool, was overwritten or cut short is found out when the pool is opened, before
anything is read from the wrong place.

A member is named by its path: that of a file in the pool's own directory is kept relative to it, so that a pool can be moved.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from fastcrc.crc32 import iscsi as crc32c

from blockyard.block.device import Device
from blockyard.block.file import FileDevice
from blockyard.block.file import create as create_file
from blockyard.block.size import format_size
from blockyard.pool.space import HEADER_SLABS, MEMBER_SHIFT, SLAB, UNIT_SHIFT, Space

LEAST = 2 * SLAB  # bytes: the slab of the header, and one for data
MOST = 1 << MEMBER_SHIFT + UNIT_SHIFT  # bytes: what a place can tell apart
_MAGIC = b"BYMEMBER"
_VERSION = 1
_HEADER = struct.Struct("<8sII16sQ")  # magic, version, number, UUID of the pool, size; then CRC32C
_CRC = struct.Struct("<I")
_BLOCK = 4096  # bytes that are written of a header
_PROBED = 1 << 20  # bytes at both ends of a device where whatever is on it would show

Opener = Callable[[str], Device]
Record = dict[str, Any] | None  # of a member, as JSON has it; None: it was taken out


@dataclass(frozen=True)
class Member:
    """A member as the pool has it: where it is, and how many bytes of it are in the pool."""

    path: str
    size: int


@dataclass(frozen=True)
class Header:
    """What a member says of itself."""

    pool: UUID
    number: int
    size: int

    def encode(self) -> bytes:
        data = _HEADER.pack(_MAGIC, _VERSION, self.number, self.pool.bytes, self.size)
        return (data + _CRC.pack(crc32c(data))).ljust(_BLOCK, b"\0")


def read_header(device: Device) -> Header | None:
    """None where there is none. Raises ValueError for a damaged one, or of a version that is not known."""
    block = bytearray(_BLOCK)
    device.preadv([memoryview(block)], 0)
    if not block.startswith(_MAGIC):
        return None
    packed = bytes(block[: _HEADER.size])
    _, version, number, pool, size = _HEADER.unpack(packed)
    if _CRC.unpack_from(block, _HEADER.size)[0] != crc32c(packed):
        raise ValueError("its header is damaged")
    if version != _VERSION:
        raise ValueError(f"its header is of version {version}, and this program knows version {_VERSION}")
    return Header(UUID(bytes=pool), number, size)


def stamp(device: Device, pool: UUID, number: int) -> int:
    """Make a device a member: it says so from now on, on stable storage. The size that it has. Raises OSError."""
    size: int = device.size
    if not LEAST <= size <= MOST:
        limits = f"at least {format_size(LEAST)} and at most {format_size(MOST)}"
        raise OSError(errno.EINVAL, f"A member has {limits}, and this has {format_size(size)}")
    device.pwritev([Header(pool, number, size).encode()], 0)
    device.flush()
    return size


def erase(device: Device) -> None:
    """It is no member any more. Raises OSError."""
    device.pwritev([bytes(_BLOCK)], 0)
    device.flush()


def recognize(device: Device, member: Member, pool: UUID, number: int) -> None:
    """Raises ValueError, saying what is wrong, where this is not the member that it should be."""

    def refuse(problem: str) -> ValueError:
        return ValueError(f"member {number} of the pool ({member.path}): {problem}")

    try:
        header = read_header(device)
    except ValueError as error:
        raise refuse(str(error)) from None
    if header is None:
        raise refuse("it is no member of any pool: another file or device is in its place, or it was overwritten")
    if header.pool != pool:
        raise refuse(f"it belongs to another pool ({header.pool}, and this one is {pool})")
    if header.number != number:
        raise refuse(f"it is member {header.number}: members were swapped")
    if device.size < max(member.size, header.size):
        wanted = max(member.size, header.size)
        raise refuse(f"it has become shorter: {device.size} bytes, where it had {wanted}")


# ---- making them


def prepare(path: str, size: int = 0, *, number: int, force: bool = False) -> str:
    """Have something that can become member `number` of a pool; its path.

    A directory: a file of `size` bytes is made in it. A path where nothing is: such a file is made there. A block device, or a
    file that is there: it is taken as it is, if there is nothing on it or `force`. Raises OSError, saying what to do.
    """
    path = os.path.abspath(path)
    if os.path.isdir(path):
        path = os.path.join(path, f"blockyard-{number}.data")
        if os.path.exists(path):
            raise FileExistsError(errno.EEXIST, "There is a file in the way; move it, or name it itself", path)
    if not os.path.exists(path):
        if size < LEAST:
            what = f"A size of at least {format_size(LEAST)} is needed for a file that is to be made"
            raise OSError(errno.EINVAL, what, path)
        create_file(path, size)
        return path
    if size and stat.S_ISREG(os.stat(path).st_mode):
        raise FileExistsError(errno.EEXIST, "It is there already, so that it cannot be made with a size", path)
    if not force:
        _check_unused(path)
    return path


def _check_unused(path: str) -> None:
    """Raises OSError where something seems to be on a file or device."""
    device = FileDevice(path)
    try:
        found = None
        try:
            header = read_header(device) if device.size >= _BLOCK else None
            found = f"It is member {header.number} of the pool {header.pool}" if header else None
        except ValueError:
            found = "It was a member of a pool"
        if found is None and not _is_blank(device):
            found = "There is something on it"
        if found is not None:
            raise OSError(errno.EEXIST, f"{found}; it is overwritten only when that is forced", path)
    finally:
        device.close()


def _is_blank(device: Device) -> bool:
    """Whether both ends of a device are zeros. File systems, volume managers and partition tables show there."""
    length = min(device.size, _PROBED)
    for offset in (0, device.size - length):
        data = bytearray(length)
        device.preadv([memoryview(data)], offset)
        if data.count(0) < length:
            return False
    return True


def stored_path(directory: Path, path: str) -> str:
    """A member's path, absolute or from the pool's directory, as it is stored."""
    home = os.path.abspath(directory)
    absolute = os.path.normpath(os.path.join(home, path))
    return os.path.basename(absolute) if os.path.dirname(absolute) == home else absolute


# ---- those of an open pool


class DeviceMedium:
    """A member whose first `size` bytes belong to the pool."""

    def __init__(self, device: Device, size: int) -> None:
        self.device = device
        self.size = size

    def punch(self, offset: int, length: int) -> bool:
        if not self.device.granularity:
            return False
        self.device.discard(offset, length)
        return True


class Removed(Device):
    """In the place of a member that was taken out: nothing leads there."""

    size = 0

    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        raise OSError(errno.ENXIO, "This member was taken out of the pool")

    def pwritev(self, buffers: Sequence[memoryview | bytes | bytearray], offset: int) -> None:
        raise OSError(errno.ENXIO, "This member was taken out of the pool")

    def flush(self) -> None:
        """There is nothing that could be written."""

    def write_zeroes(self, offset: int, length: int) -> None:
        raise OSError(errno.ENXIO, "This member was taken out of the pool")

    def close(self) -> None:
        """Nothing to let go of."""


class Members:
    """The members of a pool by their numbers, and their space.

    What changes here is to be committed: `records` is what the pool stores. `devices` has those that were taken out, too.
    """

    def __init__(self, directory: Path, open_member: Opener, space: Space) -> None:
        self.devices: list[Device] = []
        self.pool = UUID(int=0)  # until `load` or `begin`
        self._directory = directory
        self._open_member = open_member
        self._space = space
        self._media: list[DeviceMedium | None] = []
        self._paths: list[str] = []

    @property
    def records(self) -> list[Record]:
        return [
            None if medium is None else {"path": path, "size": medium.size}
            for path, medium in zip(self._paths, self._media, strict=True)
        ]

    @property
    def present(self) -> dict[int, Member]:
        """Those that there are."""
        return {number: Member(**found) for number, found in enumerate(self.records) if found is not None}

    def begin(self, pool: UUID) -> None:
        """A new pool, without any."""
        self.pool = pool

    def load(self, pool: UUID, records: Sequence[Record]) -> None:
        """Open what is stored. Raises OSError, ValueError for what is not the member that it should be."""
        self.pool = pool
        for number, record in enumerate(records):
            if record is None:
                self._take(Removed(), "", None)
                continue
            member = Member(**record)
            device = self._open(member.path)
            try:
                recognize(device, member, self.pool, number)
            except BaseException:
                device.close()
                raise
            self._take(device, member.path, DeviceMedium(device, member.size))

    def add(self, path: str) -> None:
        """Take in another one; what it held is lost. Raises OSError."""
        path = stored_path(self._directory, path)
        device = self._open(path)
        try:
            size = stamp(device, self.pool, len(self.devices))
        except BaseException:
            device.close()
            raise
        self._take(device, path, DeviceMedium(device, size))

    def grow(self, number: int, size: int = 0) -> None:
        """Use all that a member has by now; a file is made larger before, to `size`. Raises KeyError, OSError."""
        member, device = self.present[number], self.devices[number]
        if size > member.size and isinstance(device, FileDevice) and os.path.isfile(device.path):
            device.truncate(size)
        device.refresh()
        if device.size <= member.size:
            raise OSError(errno.EINVAL, f"It has not become larger than {member.size} bytes", member.path)
        medium = self._media[number]
        assert medium is not None
        medium.size = stamp(device, self.pool, number)
        self._space.grow(number)

    def remove(self, number: int) -> Device:
        """Take out an empty one; what it was. Raises KeyError, OSError (EBUSY) when it is not empty or the only one."""
        if self.present.keys() == {number}:
            raise OSError(errno.EBUSY, "It is the only member", self.present[number].path)
        path, device = self.present[number].path, self.devices[number]
        try:
            self._space.retire(number)
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from None
        self.devices[number], self._media[number], self._paths[number] = Removed(), None, ""
        return device

    def lacking(self) -> int:
        """Bytes of sparse files that their file systems have no room for. Raises OSError."""
        wanted: dict[int, int] = defaultdict(int)  # by file system
        there: dict[int, int] = {}
        for device in self.devices:
            space = device.space()
            if isinstance(device, FileDevice) and space is not None:
                number = os.stat(device.path).st_dev
                wanted[number] += max(0, device.size - space.used)
                there[number] = space.available
        return sum(max(0, amount - there[number]) for number, amount in wanted.items())

    def flush(self) -> None:
        for device in self.devices:
            device.flush()

    def close(self) -> None:
        with ExitStack() as stack:  # whatever fails to close, the rest is closed
            for device in self.devices:
                stack.callback(device.close)

    def _open(self, path: str) -> Device:
        return self._open_member(str(self._directory / path))  # an absolute one stays as it is

    def _take(self, device: Device, path: str, medium: DeviceMedium | None) -> None:
        self.devices.append(device)
        self._paths.append(path)
        self._media.append(medium)
        self._space.add(medium or DeviceMedium(device, 0), reserved=HEADER_SLABS)
