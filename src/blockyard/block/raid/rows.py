"""RAID 5 and 6: rows of data with one or two chunks of parity.

A write changes parity in the way that reads less: from what was there before (old data and old parity), or from the data that is
not written. What is lost is made of the rest of its row. All of that is done for columns that nobody else has meanwhile.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from blockyard.block.device import Run
from blockyard.block.raid import parity
from blockyard.block.raid.engine import Buffers, Engine, Slices, flat, write_all
from blockyard.block.raid.geometry import BLOCK, Piece, Row, Rows, Segment
from blockyard.block.raid.journal import Entry, Write
from blockyard.block.raid.member import Member, MemberError, MembersFailed, each
from blockyard.block.raid.parity import Bytes

if TYPE_CHECKING:
    from blockyard.block.raid.array import Array

_BATCH = 4 << 20  # bytes of the array that are written in one go at most
_ROWS = 64  # in an entry of the journal: three ranges of each have to fit its head


class _Columns:
    """A part of a row: its columns from `start` to `end`, and what of it could not be read."""

    def __init__(self, row: Row, offset: int, length: int) -> None:
        self.row = row
        self.offset = offset  # of it on each member
        self.length = length
        self.bad: dict[int, MemberError] = {}  # by slot


class RowsEngine(Engine):
    """See Engine."""

    geometry: Rows
    zero_step = _BATCH

    def __init__(self, array: Array, geometry: Rows) -> None:
        super().__init__(array)
        self.geometry = geometry

    def dirty_range(self, offset: int, length: int) -> tuple[int, int]:
        chunk, stripe = self.geometry.chunk, self.geometry.stripe
        return offset // stripe * chunk, -(-(offset + length) // stripe) * chunk

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        yield Run(offset, length, True)

    # ---- reading

    def read(self, buffers: Sequence[memoryview], offset: int) -> None:
        slices = Slices(buffers)
        for piece in self.geometry.pieces(offset, sum(map(len, buffers))):
            self._read_piece(slices.take(piece.length), piece)

    def _read_piece(self, buffers: list[memoryview], piece: Piece) -> None:
        ((slot, at),) = piece.places
        member = self.members.readable(slot, at, piece.length)
        if member is not None:
            try:
                member.read(buffers, at)
                return
            except MemberError as error:
                if error.is_gone:
                    raise MembersFailed([error]) from error
        try:
            self._restore_piece(buffers, slot, at, piece.length)
        except MembersFailed:
            raise
        except OSError:
            if piece.length <= BLOCK:
                raise
            slices = Slices(buffers)
            for block in piece.blocks():
                self._restore_piece(slices.take(block.length), slot, block.places[0].offset, block.length)

    def _restore_piece(self, buffers: list[memoryview], slot: int, at: int, length: int) -> None:
        with self.array.ranges.held(at, at + length):
            columns = self._columns(at, length)
            index = columns.row.data.index(slot)
            data = self._data(columns, (index,))[index].data
            self._mend(columns)
        done = 0
        for buffer in buffers:
            buffer[:] = data[done : done + len(buffer)]
            done += len(buffer)

    def _columns(self, offset: int, length: int) -> _Columns:
        return _Columns(self.geometry.at(offset // self.geometry.chunk), offset, length)

    def _slot(self, columns: _Columns, slot: int) -> Bytes | None:
        """What a slot has there, or None when it cannot be read."""
        member = self.members.readable(slot, columns.offset, columns.length)
        if member is None or slot in columns.bad:
            return None
        data = parity.new(columns.length)
        try:
            member.read([data.data], columns.offset)
        except MemberError as error:
            if error.is_gone:
                raise MembersFailed([error]) from error
            columns.bad[slot] = error
            return None
        return data

    def _data(self, columns: _Columns, wanted: Collection[int]) -> dict[int, Bytes]:
        """Data of a row by its index, restored if need be."""
        found: dict[int, Bytes] = {}
        for index in wanted:
            data = self._slot(columns, columns.row.data[index])
            if data is None:
                return self._restored(columns, found)
            found[index] = data
        return found

    def _restored(self, columns: _Columns, found: dict[int, Bytes]) -> dict[int, Bytes]:
        """All data of a row in which something cannot be read. Raises OSError when too much cannot."""
        row = columns.row
        if not self.members.bitmap.trusts(columns.offset, columns.offset + columns.length):
            raise self._lost(columns, "and the parity is not in line with it since the array was not closed")
        data = [
            found.get(index, None if index in found else self._slot(columns, row.data[index]))
            for index in range(len(row.data))
        ]
        lost = [index for index, each in enumerate(data) if each is None]
        p = self._slot(columns, row.p) if lost else None
        need_q = len(lost) > (p is not None)
        q = self._slot(columns, row.q) if need_q and row.q >= 0 else None
        if not lost:
            pass
        elif len(lost) == 1 and p is not None:
            data[lost[0]] = parity.sum_p([*(each for each in data if each is not None), p])
        elif len(lost) == 1 and q is not None:
            data[lost[0]] = parity.restore_by_q(data, q, lost[0])
        elif len(lost) == 2 and p is not None and q is not None:
            data[lost[0]], data[lost[1]] = parity.restore_two(data, p, q, *lost)
        else:
            raise self._lost(columns, "and too many members are missing to restore it")
        return {index: each for index, each in enumerate(data) if each is not None}

    def _lost(self, columns: _Columns, why: str) -> OSError:
        errors = "; ".join(str(error.strerror) for error in columns.bad.values())
        text = f"{columns.length} bytes at {columns.offset} of the members cannot be read, {why}"
        return OSError(errno.EIO, f"{text} ({errors})" if errors else text)

    def _mend(self, columns: _Columns) -> None:
        """Write anew what could not be read, as far as its member is there."""
        if not columns.bad:
            return
        data = self._all(columns)
        for slot, error in columns.bad.items():
            self.mend(error.member, self._content(columns.row, slot, data).data, columns.offset)

    def _all(self, columns: _Columns) -> list[Bytes]:
        data = self._data(columns, range(self.geometry.data))
        return [data[index] for index in range(self.geometry.data)]

    def _content(self, row: Row, slot: int, data: list[Bytes]) -> Bytes:
        """What a slot has to have in a row of this data."""
        if slot in row.data:
            return data[row.data.index(slot)]
        return parity.sum_p(data) if slot == row.p else parity.sum_pq(data)[1]

    # ---- writing

    def write(self, buffers: Buffers, offset: int) -> None:
        data = flat(buffers)
        step = self._step()
        at = 0
        while at < len(data):
            end = min(len(data), (offset + at + step) // step * step - offset)
            self._write(data[at:end], offset + at)
            at = end

    def zero(self, offset: int, length: int, *, free: bool) -> None:
        self.write([bytes(length)], offset)

    def _step(self) -> int:
        """Bytes of the array that are written in one go: whole rows, or a part of one that the journal has room for."""
        geometry, journal = self.geometry, self.members.journal
        rows = max(1, _BATCH // geometry.stripe)
        if not self.members.journaling or journal is None:
            return rows * geometry.stripe
        room = min(journal.limit // geometry.chunk, rows, _ROWS)
        # a chunk is a power of two of sectors: so is every fitting part of it
        return room * geometry.stripe if room else min(geometry.chunk, 1 << journal.limit.bit_length() - 1)

    def _write(self, data: memoryview, offset: int) -> None:
        segments = list(self.geometry.segments(offset, len(data)))
        chunk = self.geometry.chunk
        first, last = segments[0].row, segments[-1].row
        start, end = first * chunk + min(s.start for s in segments), last * chunk + max(s.end for s in segments)
        if first != last:
            start, end = first * chunk, (last + 1) * chunk
        with self.array.ranges.held(start, end):
            self._carry_out(self._planned(segments, data))

    def plan(self, data: memoryview, offset: int) -> list[Write]:
        return self._planned(self.geometry.segments(offset, len(data)), data)

    def _planned(self, segments: Iterable[Segment], data: memoryview) -> list[Write]:
        writes: list[Write] = []
        for segment in segments:
            self._plan(segment, data, writes)
        return writes

    def _carry_out(self, writes: list[Write]) -> None:
        journal = self.members.journal
        if journal is None or not self.members.journaling:
            write_all(writes)
            return
        entry = Entry(writes)
        journal.commit(entry)
        try:
            write_all(writes)
        finally:
            journal.done(entry)

    def _plan(self, segment: Segment, data: memoryview, writes: list[Write]) -> None:
        """What has to be written for a segment."""
        chunk = self.geometry.chunk
        length = segment.end - segment.start
        columns = self._columns(segment.row * chunk + segment.start, length)
        new = {
            segment.first + i: parity.array(data[segment.at + i * chunk : segment.at + i * chunk + length])
            for i in range(segment.chunks)
        }
        changed = self._by_change(columns, new)
        if changed is None:
            others = self._data(columns, [index for index in range(self.geometry.data) if index not in new])
            changed = self._parities(
                columns.row, [new[i] if i in new else others[i] for i in range(self.geometry.data)]
            )
        for index, each_data in new.items():
            self._put(columns.row.data[index], columns.offset, each_data, writes)
        for slot, each_data in changed.items():
            self._put(slot, columns.offset, each_data, writes)

    def _put(self, slot: int, offset: int, data: Bytes, writes: list[Write]) -> None:
        writes.extend(Write(member, offset, data.data) for member in self.members.writers[slot])

    def _parities(self, row: Row, data: list[Bytes]) -> dict[int, Bytes]:
        writers = self.members.writers
        if row.q >= 0 and writers[row.q]:
            p, q = parity.sum_pq(data)
            return {row.p: p, row.q: q}
        return {row.p: parity.sum_p(data)} if writers[row.p] else {}

    def _by_change(self, columns: _Columns, new: dict[int, Bytes]) -> dict[int, Bytes] | None:
        """Parity from old data and old parity; None when that is not possible, or reads more than the other way."""
        row, members = columns.row, self.members
        others = self.geometry.data - len(new)
        parities = [slot for slot in row.parities if members.writers[slot]]
        slots = [*(row.data[index] for index in new), *parities]
        whole = all(
            members.readable(row.data[index], columns.offset, columns.length)
            for index in range(self.geometry.data)
            if index not in new
        )
        if not others or (len(slots) >= others and whole):
            return None
        if not all(members.readable(slot, columns.offset, columns.length) for slot in slots):
            return None
        if not members.bitmap.trusts(columns.offset, columns.offset + columns.length):
            return None
        old = [self._slot(columns, slot) for slot in slots]
        if any(each is None for each in old):
            return None
        before = dict(zip(new, old, strict=False))
        changed = {}
        for slot, value in zip(parities, old[len(new) :], strict=True):
            assert value is not None
            for index, data in new.items():
                was = before[index]
                assert was is not None
                value = value ^ was ^ data if slot == row.p else parity.change_q(was, data, index, value)  # noqa: PLW2901
            changed[slot] = value
        return changed

    # ---- bringing in line

    def _parts(self, start: int, end: int) -> Iterator[_Columns]:
        """A range of the members, row by row."""
        while start < (end := min(end, self.geometry.used)):
            part = min(self.geometry.chunk - start % self.geometry.chunk, end - start)
            yield self._columns(start, part)
            start += part

    def restore(self, member: Member, start: int, end: int) -> None:
        for columns in self._parts(start, end):
            stop = columns.offset + columns.length
            if member.by_bitmap and not self.members.bitmap.is_set(columns.offset, stop):
                continue
            with self.array.ranges.held(columns.offset, stop):
                each((member,), Write(member, columns.offset, self._made(columns, member.slot).data).carry_out)

    def _made(self, columns: _Columns, slot: int) -> Bytes:
        """What a member that is rebuilt has to have: for one that is replaced, what the other has."""
        there = self._slot(columns, slot)
        if there is not None:
            return there
        if slot in columns.row.data:
            index = columns.row.data.index(slot)
            return self._data(columns, (index,))[index]
        return self._content(columns.row, slot, self._all(columns))

    def resync(self, start: int, end: int) -> None:
        for columns in self._parts(start, end):
            self._compare(columns, repair=True, locate=False)

    def check(self, start: int, end: int, *, repair: bool) -> int:
        return sum(self._compare(columns, repair=repair, locate=True) for columns in self._parts(start, end))

    def _compare(self, columns: _Columns, *, repair: bool, locate: bool) -> int:
        """Compare parity with data; in how many blocks it differs. Mended is parity, or the one piece that is wrong."""
        row = columns.row
        with self.array.ranges.held(columns.offset, columns.offset + columns.length):
            data = self._all(columns)
            there = {slot: self._slot(columns, slot) for slot in row.parities}
            if repair:
                self._mend(columns)
            made = self._parities(row, data)
            wrong = {
                slot: made[slot]
                for slot, found in there.items()
                if found is not None and slot in made and (found != made[slot]).any()
            }
            if not wrong:
                return 0
            p, q = there[row.p], there.get(row.q)
            count = sum(
                any(
                    (each != wrong[slot])[at : at + BLOCK].any()
                    for slot, each in there.items()
                    if slot in wrong and each is not None
                )
                for at in range(0, columns.length, BLOCK)
            )
            if repair:
                if locate and p is not None and q is not None and self.members.complete:
                    culprit = parity.locate(p ^ made[row.p], q ^ made[row.q], len(data))
                    if culprit is not None and culprit >= 0:
                        wrong = {row.data[culprit]: data[culprit] ^ p ^ made[row.p]}
                write_all([Write(m, columns.offset, d.data) for s, d in wrong.items() for m in self.members.writers[s]])
            return count
