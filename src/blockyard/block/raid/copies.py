"""RAID 0, 1 and 10: each chunk has some copies, or one."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from blockyard.block.device import Run, merged
from blockyard.block.raid.engine import Buffers, Engine, Slices, differences, write_all
from blockyard.block.raid.geometry import BLOCK, Copies, Piece
from blockyard.block.raid.journal import Write
from blockyard.block.raid.member import Member, MemberError, MembersFailed

if TYPE_CHECKING:
    from blockyard.block.raid.array import Array

SPREAD = 20  # bits of an offset that are read from the same copy: a disk reads on more quickly than it seeks


class CopiesEngine(Engine):
    """See Engine."""

    geometry: Copies
    zero_step = 1 << 30

    def __init__(self, array: Array, geometry: Copies) -> None:
        super().__init__(array)
        self.geometry = geometry

    def dirty_range(self, offset: int, length: int) -> tuple[int, int]:
        return offset, offset + length

    # ---- reading

    def read(self, buffers: Sequence[memoryview], offset: int) -> None:
        slices = Slices(buffers)
        for piece in self.geometry.pieces(offset, sum(map(len, buffers))):
            self._read_piece(slices.take(piece.length), piece)

    def sources(self, piece: Piece) -> list[tuple[Member, int]]:
        """Where it can be read, the one to be asked first at the beginning."""
        found = [
            (member, at)
            for slot, at in piece.places
            if (member := self.members.readable(slot, at, piece.length)) is not None
        ]
        if len(found) > 1 and self.members.bitmap.trusts(piece.offset, piece.offset + piece.length):
            first = (piece.offset >> SPREAD) % len(found)
            found = found[first:] + found[:first]
        return found

    def _read_piece(self, buffers: list[memoryview], piece: Piece) -> None:
        if self._read_some(buffers, piece):
            self._mend(piece)

    def _read_some(self, buffers: Sequence[memoryview], piece: Piece) -> bool:
        """Read from the first copy that can be read, block by block if need be; whether there were others before."""
        failed: MemberError | None = None
        for member, at in self.sources(piece):
            try:
                member.read(buffers, at)
            except MemberError as error:
                failed = error
            else:
                return failed is not None
        if failed is None:
            raise OSError(errno.EIO, "All copies are on members that are missing")
        if piece.length <= BLOCK:
            raise failed
        slices = Slices(buffers)
        for block in piece.blocks():
            self._read_some(slices.take(block.length), block)
        return True

    def _mend(self, piece: Piece) -> None:
        """Some copy could not be read: write it anew from one that can, or do without its member."""
        with self._held(piece):
            data = bytearray(piece.length)
            bad: list[tuple[MemberError, int]] = []
            good = False
            for member, at in self.sources(piece):
                buffer = memoryview(bytearray(piece.length) if good else data)
                try:
                    member.read([buffer], at)
                    good = True
                except MemberError as error:
                    bad.append((error, at))
            gone = [error for error, _ in bad if error.is_gone]
            if gone:
                raise MembersFailed(gone)
            for failed, at in bad if good else ():
                self.mend(failed.member, data, at)
        if not good and piece.length > BLOCK:
            for block in piece.blocks():
                self._mend(block)

    def _held(self, piece: Piece) -> AbstractContextManager[None]:
        starts = [at for _, at in piece.places]
        return self.array.ranges.held(min(starts), max(starts) + piece.length)

    # ---- writing

    def write(self, buffers: Buffers, offset: int) -> None:
        slices = Slices([memoryview(buffer) for buffer in buffers])
        for piece in self.geometry.pieces(offset, sum(map(len, buffers))):
            data = slices.take(piece.length)
            self._everywhere(piece, lambda member, at, d=data: member.write(d, at))  # type: ignore[misc]

    def plan(self, data: memoryview, offset: int) -> list[Write]:
        return [
            Write(member, at, data[piece.offset - offset : piece.offset - offset + piece.length])
            for piece in self.geometry.pieces(offset, len(data))
            for slot, at in piece.places
            for member in self.members.writers[slot]
        ]

    def zero(self, offset: int, length: int, *, free: bool) -> None:
        for piece in self.geometry.pieces(offset, length):
            self._everywhere(piece, lambda member, at, n=piece.length: member.zero(at, n, free=free))  # type: ignore[misc]

    def _everywhere(self, piece: Piece, do: Callable[[Member, int], None]) -> None:
        """Do something with all copies of a piece: members that fail where others do not have failed."""
        errors: list[MemberError] = []
        done = False
        with self._held(piece):
            for slot, at in piece.places:
                for member in self.members.writers[slot]:
                    try:
                        do(member, at)
                        done = done or member.can_read(at, piece.length)
                    except MemberError as error:
                        errors.append(error)
        if errors and not done:  # it is not the members' fault, or there are no others: copies may differ now
            self.members.bitmap.distrust(piece.offset, piece.offset + piece.length)
            self.array.background.stir()
            raise errors[0]
        if errors:
            raise MembersFailed(errors)
        if not done:
            raise OSError(errno.EIO, "All copies are on members that are missing")

    # ---- what lies there

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        return merged(self._runs(offset, length))

    def _runs(self, offset: int, length: int) -> Iterator[Run]:
        for piece in self.geometry.pieces(offset, length):
            sources = self.sources(piece)
            if not sources:
                yield Run(piece.offset, piece.length, True)
                continue
            member, at = sources[0]
            base = member.data_offset + at
            for run in member.device.runs(base, piece.length):
                yield Run(piece.offset + run.offset - base, run.length, run.mapped)

    # ---- bringing in line

    def restore(self, member: Member, start: int, end: int) -> None:
        for piece in self.geometry.on_member(member.slot, start, end):
            if member.by_bitmap and not self.members.bitmap.is_set(piece.offset, piece.offset + piece.length):
                continue
            with self._held(piece):
                data = memoryview(bytearray(piece.length))
                self._read_some([data], piece)
                at = next(at for slot, at in piece.places if slot == member.slot)
                try:
                    member.write([data], at)
                except MemberError as error:
                    raise MembersFailed([error]) from error

    def resync(self, start: int, end: int) -> None:
        for piece in self.geometry.pieces(start, min(end, self.geometry.size) - start):
            self._compare(piece, repair=True, vote=False)

    def check(self, start: int, end: int, *, repair: bool) -> int:
        pieces = self.geometry.pieces(start, min(end, self.geometry.size) - start)
        return sum(self._compare(piece, repair=repair, vote=True) for piece in pieces)

    def _compare(self, piece: Piece, *, repair: bool, vote: bool) -> int:
        """Compare the copies of a piece; those that differ from the first, or from what most of them have, are made like it."""
        with self._held(piece):
            found: list[tuple[Member, int, bytes]] = []
            bad: list[tuple[MemberError, int]] = []
            for member, at in self._in_order(piece):
                data = bytearray(piece.length)
                try:
                    member.read([memoryview(data)], at)
                    found.append((member, at, bytes(data)))
                except MemberError as error:
                    bad.append((error, at))
            if not found:
                if bad:
                    raise bad[0][0]
                return 0
            right = found[0][2]
            if vote and len(found) > 2 and any(data != right for _, _, data in found):
                right = Counter(data for _, _, data in found).most_common(1)[0][0]
            wrong = [(member, at, data) for member, at, data in found if data != right]
            if repair:
                for failed, at in bad:
                    self.mend(failed.member, right, at)
                write_all([Write(member, at, right) for member, at, _ in wrong])
            return sum(differences(data, right) for _, _, data in wrong)

    def _in_order(self, piece: Piece) -> list[tuple[Member, int]]:
        places = ((slot, at, self.members.readable(slot, at, piece.length)) for slot, at in piece.places)
        return [(member, at) for _, at, member in places if member is not None]
