"""What an array asks of the one who knows how its bytes lie on the members. All is called inside of the array's gate.

Raises MembersFailed for members that lack something now or could not be mended; OSError for what nobody has any more.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from blockyard.block.device import Run
from blockyard.block.raid.geometry import BLOCK, Geometry
from blockyard.block.raid.journal import Write
from blockyard.block.raid.member import Member, MemberError, MembersFailed

if TYPE_CHECKING:
    from blockyard.block.raid.array import Array

Buffers = Sequence[memoryview | bytes | bytearray]


class Engine(ABC):
    """Reads and writes an array, and brings its members in line. Ranges of members are those of their data areas."""

    geometry: Geometry
    zero_step: int  # bytes to be zeroed in one go

    def __init__(self, array: Array) -> None:
        self.array = array
        self.members = array.members

    @abstractmethod
    def read(self, buffers: Sequence[memoryview], offset: int) -> None:
        """Fill `buffers` with the bytes of the array from `offset` on."""

    @abstractmethod
    def write(self, buffers: Buffers, offset: int) -> None:
        """Write all of `buffers` to the array at `offset`."""

    @abstractmethod
    def plan(self, data: memoryview, offset: int) -> list[Write]:
        """What has to be written to which members so that `data` stands at `offset`."""

    @abstractmethod
    def zero(self, offset: int, length: int, *, free: bool) -> None:
        """Make a range read as zeros, giving its space back if it is to be `free`."""

    @abstractmethod
    def dirty_range(self, offset: int, length: int) -> tuple[int, int]:
        """The range in the bitmap for one of the array."""

    @abstractmethod
    def runs(self, offset: int, length: int) -> Iterator[Run]:
        """See Device.runs."""

    def survives(self, lost: set[int]) -> bool:
        """Whether everything can be read without these slots."""
        return self.geometry.survives(lost)

    def prefetch(self, offset: int, length: int) -> None:
        for piece in self.geometry.pieces(offset, length):
            for slot, at in piece.places[:1]:
                member = self.members.readable(slot, at, piece.length)
                if member is not None:
                    member.device.prefetch(member.data_offset + at, piece.length)

    @abstractmethod
    def restore(self, member: Member, start: int, end: int) -> None:
        """Write to a member what it should have in a range of its data area."""

    @abstractmethod
    def resync(self, start: int, end: int) -> None:
        """Bring the members in line in a range of the bitmap, where they are not known to be."""

    @abstractmethod
    def check(self, start: int, end: int, *, repair: bool) -> int:
        """Compare the members in a range of the bitmap; in how many blocks they differ. What differs is mended on demand."""

    def mend(self, member: Member, data: memoryview | bytes | bytearray, offset: int) -> None:
        """Write anew what a member could not read, and look whether it can now. Nobody else writes there meanwhile."""
        if self.array.read_only:
            return
        try:
            member.write([data], offset)
            member.read([memoryview(bytearray(len(data)))], offset)
        except MemberError as error:
            raise MembersFailed([error]) from error
        member.corrected += 1
        text = f"array {self.array.name}: {member.label} could not read {len(data)} bytes at {offset}, which were written anew"
        self.array.opening.notify("warning", "raid-read-repaired", text)


def flat(buffers: Buffers) -> memoryview:
    """All of them in one."""
    return memoryview(buffers[0] if len(buffers) == 1 else b"".join(buffers))


class Slices:
    """Buffers that are taken apart from the beginning on."""

    def __init__(self, buffers: Sequence[memoryview]) -> None:
        self._buffers = buffers
        self._index = self._at = 0

    def take(self, length: int) -> list[memoryview]:
        taken = []
        while length:
            buffer = self._buffers[self._index]
            piece = buffer[self._at : self._at + length]
            taken.append(piece)
            length -= len(piece)
            self._at += len(piece)
            if self._at == len(buffer):
                self._index, self._at = self._index + 1, 0
        return taken


def differences(one: bytes | bytearray | memoryview, other: bytes | bytearray | memoryview) -> int:
    """In how many blocks two ranges differ."""
    if one == other:
        return 0
    return sum(one[at : at + BLOCK] != other[at : at + BLOCK] for at in range(0, len(one), BLOCK))


def write_all(writes: Sequence[Write]) -> None:
    """All of them, whatever becomes of some: a row is whole only then, with or without the members that fail."""
    errors: dict[Member, MemberError] = {}
    for write in writes:
        try:
            write.carry_out(write.member)
        except MemberError as error:
            errors.setdefault(error.member, error)
    if errors:
        raise MembersFailed(list(errors.values()))
