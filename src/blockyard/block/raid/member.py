"""A member of an array: a device, and what the array knows of it."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Callable, Iterable, Sequence
from enum import Enum

from blockyard.block.device import Device
from blockyard.block.layers import Absent
from blockyard.block.raid.superblock import ALL

_GONE = frozenset(
    {errno.ENXIO, errno.ENODEV, errno.ENOTCONN, errno.ESHUTDOWN, errno.ETIMEDOUT, errno.ENOENT, errno.EBADF}
)


class State(Enum):
    """What a member is good for."""

    ACTIVE = "in sync"
    RECOVERING = "rebuilding"
    SPARE = "spare"
    FAULTY = "faulty"


class MemberError(OSError):
    """A member could not do what it was asked for."""

    def __init__(self, member: Member, error: OSError) -> None:
        super().__init__(error.errno or errno.EIO, f"{member.label}: {error.strerror or error}")
        self.member = member

    @property
    def is_gone(self) -> bool:
        """Nothing more is to be had of it; otherwise only some of it may be lost."""
        return self.errno in _GONE or isinstance(self.member.device, Absent)


class MembersFailed(OSError):
    """Members have failed in something that cannot be left undone: the array has to go on without them, and then do it again."""

    def __init__(self, errors: Sequence[MemberError]) -> None:
        super().__init__(errors[0].errno, errors[0].strerror)
        self.errors = errors


class Member:
    """One of them. Offsets are those of its data area."""

    def __init__(self, device: Device, number: int, identity: uuid.UUID, data_offset: int, data_size: int) -> None:
        self.device = device
        self.number = number
        self.identity = identity
        self.data_offset = data_offset
        self.data_size = data_size
        self.state = State.SPARE
        self.slot = -1
        self.replaces = False  # it shall take over the slot from the one that has it
        self.position = 0  # what is before it can be read; ALL: everything
        self.by_bitmap = False  # behind that, only what the bitmap tells is out of date
        self.corrected = 0
        self.entries: list[bytes] = []  # of our block: what belongs to superblocks that it may have
        self.last_error = ""

    @property
    def label(self) -> str:
        return self.device.label or str(getattr(self.device, "path", f"member {self.number}"))

    def can_read(self, offset: int, length: int) -> bool:
        return offset + length <= self.position

    def become(self, state: State, slot: int = -1, position: int = 0) -> None:
        self.state, self.slot, self.position = state, slot, ALL if state is State.ACTIVE else position
        self.replaces = self.by_bitmap = False

    def read(self, buffers: Sequence[memoryview], offset: int) -> None:
        """Raises MemberError, as all that follow."""
        try:
            self.device.preadv(buffers, self.data_offset + offset)
        except OSError as error:
            raise self._failed(error) from error

    def write(self, buffers: Sequence[memoryview | bytes | bytearray], offset: int) -> None:
        try:
            self.device.pwritev(buffers, self.data_offset + offset)
        except OSError as error:
            raise self._failed(error) from error

    def zero(self, offset: int, length: int, *, free: bool) -> None:
        try:
            (self.device.discard if free else self.device.write_zeroes)(self.data_offset + offset, length)
        except OSError as error:
            raise self._failed(error) from error

    def read_raw(self, offset: int, length: int) -> bytes:
        """Of what is before the data, by offsets of the device."""
        data = bytearray(length)
        try:
            self.device.preadv([memoryview(data)], offset)
        except OSError as error:
            raise self._failed(error) from error
        return bytes(data)

    def write_raw(self, data: bytes | bytearray, offset: int) -> None:
        try:
            self.device.pwritev([data], offset)
        except OSError as error:
            raise self._failed(error) from error

    def flush(self) -> None:
        try:
            self.device.flush()
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> MemberError:
        self.last_error = error.strerror or os.strerror(error.errno or errno.EIO)
        return MemberError(self, error)


def each(members: Iterable[Member], do: Callable[[Member], None]) -> None:
    """Have all of them do something, whatever becomes of some. Raises MembersFailed when the others have done it."""
    errors = []
    for member in members:
        try:
            do(member)
        except MemberError as error:
            errors.append(error)
    if errors:
        raise MembersFailed(errors)
