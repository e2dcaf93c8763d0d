"""The journal of RAID 5 and 6: what is going to be written to a row is on stable storage before the row is touched.

A row that is half written is worth nothing when one of its members is lost: what that had is made of all the others. So, while a
member is missing, or always if the array is made so, each write is first an *entry*. Every member keeps its own part of it, in a
ring before its data: what will be written there, and which members have other parts. An entry without all parts of the members
that are left has never begun to be carried out, and is passed over; all others are done again, in order.

The ring has two halves. Before one is begun anew, its entries have been carried out and the members flushed. Those who come
while an entry is made stable share the next flush: one of them, the leader, writes for all.
"""

from __future__ import annotations

import logging
import struct
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Condition
from typing import NamedTuple

from fastcrc.crc32 import iscsi as crc32c

from blockyard.block.raid.member import Member, MemberError, MembersFailed, each

log = logging.getLogger(__name__)

BLOCK = 4096  # a part begins with one, and is so many whole ones
NOWHERE = (1 << 64) - 1
_MAGIC = b"BYraidJ1"
_HEAD = struct.Struct(
    "<8sII16sQQQHHI"
)  # magic, CRC-32C of the head, of the data, array, epoch, entry, position, members, ranges, bytes
_RANGE = struct.Struct("<QI")
_NUMBER = struct.Struct("<H")

Data = bytes | bytearray | memoryview


class Write(NamedTuple):
    """What is to be written to the data area of a member."""

    member: Member
    offset: int
    data: Data

    def carry_out(self, member: Member) -> None:
        """Raises MemberError."""
        member.write([self.data], self.offset)


@dataclass(eq=False)
class Entry:
    """Writes that belong together."""

    writes: Sequence[Write]
    position: int = NOWHERE  # of a reshape, once this is done
    half: int = -1  # in which it lies
    settled: bool = False  # it is stable, or will not be
    error: BaseException | None = None
    sizes: dict[Member, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        counts: dict[Member, int] = {}
        for member, _, data in self.writes:
            self.sizes[member] = self.sizes.get(member, BLOCK) + len(data)
            counts[member] = counts.get(member, 0) + 1
        assert max(counts.values(), default=0) * _RANGE.size + len(counts) * 2 + _HEAD.size <= BLOCK
        self.sizes = {member: -(-size // BLOCK) * BLOCK for member, size in self.sizes.items()}


class Journal:
    """Of an array, at the same place of each member."""

    def __init__(self, array: uuid.UUID, offset: int, size: int) -> None:
        self.array = array
        self.offset = offset
        self.half_size = size // 2 // BLOCK * BLOCK
        self.sequence = 1  # of the next entry
        self.flush: Callable[[], None] = lambda: None  # all members of the array; raises MembersFailed
        self._epoch = 1
        self._half = 0
        self._filled: dict[Member, int] = {}
        self._open = [0, 0]  # entries of each half that have not been carried out
        self._queue: list[Entry] = []
        self._leading = False
        self._failed: BaseException | None = None  # what is in the ring may not be carried out: nothing may follow it
        self._condition = Condition()

    @property
    def limit(self) -> int:
        """Bytes that an entry may have for one member."""
        return self.half_size // 2 - BLOCK

    def commit(self, entry: Entry) -> None:
        """Have an entry on stable storage. `done` follows once it has been carried out. Raises MembersFailed; then `start_anew`
        has to come before another entry."""
        with self._condition:
            self._queue.append(entry)
            while self._leading and not entry.settled:
                self._condition.wait()
            if not entry.settled:
                self._leading = True
                batch = self._batch(entry)
        if not entry.settled:
            self._lead(batch)
        if entry.error is not None:
            raise entry.error

    def _lead(self, batch: list[Entry]) -> None:
        error = self._failed
        try:
            if error is None:
                self._write(batch)
        except BaseException as caught:
            error = caught
        with self._condition:
            self._leading, self._failed = False, error
            for entry in batch:
                entry.error, entry.settled = error, True
                if error is not None and entry.half >= 0:
                    self._open[entry.half] -= 1
            self._condition.notify_all()

    def done(self, entry: Entry) -> None:
        with self._condition:
            self._open[entry.half] -= 1
            self._condition.notify_all()

    def _batch(self, entry: Entry) -> list[Entry]:
        """This entry and those that wait, as many as one half has room for."""
        total = dict(entry.sizes)
        batch, rest = [entry], []
        for other in self._queue:
            if other is entry:
                continue
            if all(total.get(member, 0) + size <= self.half_size for member, size in other.sizes.items()):
                for member, size in other.sizes.items():
                    total[member] = total.get(member, 0) + size
                batch.append(other)
            else:
                rest.append(other)
        self._queue = rest
        return batch

    def _write(self, batch: list[Entry]) -> None:
        members = {member: None for entry in batch for member in entry.sizes}
        errors: list[MemberError] = []
        for entry in batch:
            if any(self._filled.get(member, 0) + size > self.half_size for member, size in entry.sizes.items()):
                self._turn()
            with self._condition:
                entry.half = self._half
                self._open[self._half] += 1
            for member, size in entry.sizes.items():
                at = self._filled.get(member, 0)
                self._filled[member] = at + size
                try:
                    member.write_raw(self._part(entry, member, size), self.offset + self._half * self.half_size + at)
                except MemberError as error:
                    errors.append(error)
            self.sequence += 1
        if errors:
            raise MembersFailed(errors)
        each(members, Member.flush)

    def _turn(self) -> None:
        """Begin the other half: all that is in it has been carried out, stably."""
        other = 1 - self._half
        with self._condition:
            while self._open[other]:
                self._condition.wait()
        self.flush()
        self._half = other
        self._epoch += 1
        self._filled.clear()

    def _part(self, entry: Entry, member: Member, size: int) -> bytes:
        mine = [write for write in entry.writes if write.member is member]
        ranges = b"".join(_RANGE.pack(write.offset, len(write.data)) for write in mine)
        numbers = b"".join(_NUMBER.pack(each_member.number) for each_member in entry.sizes)
        check = 0
        for write in mine:
            check = crc32c(write.data, check)
        length = sum(len(write.data) for write in mine)
        fields = (self.array.bytes, self._epoch, self.sequence, entry.position, len(entry.sizes), len(mine), length)
        body = _HEAD.pack(_MAGIC, 0, check, *fields) + numbers + ranges
        head = _HEAD.pack(_MAGIC, crc32c(body), check, *fields) + body[_HEAD.size :]
        return b"".join((head.ljust(BLOCK, b"\0"), *(write.data for write in mine))).ljust(size, b"\0")

    def resume(self, found: Found) -> None:
        """What it has was found, and carried out."""
        self.sequence = max(self.sequence, found.next_sequence)
        self._epoch = max(self._epoch, found.next_epoch)

    def start_anew(self, sequence: int = 0) -> None:
        """Nothing that is in the ring counts, as the superblocks say or will say: entries before the next one are over."""
        self.sequence = max(self.sequence, sequence)
        self._failed = None


class Part(NamedTuple):
    """A part of an entry as it was found on a member."""

    epoch: int
    sequence: int
    position: int
    members: frozenset[int]
    ranges: tuple[tuple[int, int], ...]
    at: int  # of its data, on the member


class Found(NamedTuple):
    """What there is to do again."""

    entries: list[dict[int, Part]]  # in order; parts by numbers of members
    next_sequence: int
    next_epoch: int


def find(journal: Journal, members: Iterable[Member], floor: int) -> Found:
    """What the rings of these members have from the entry `floor` on. Raises MembersFailed."""
    entries: dict[int, dict[int, Part]] = {}
    there = set()
    sequence, epoch = floor, 0
    for member in members:
        there.add(member.number)
        for half in range(2):
            for part in _scan(journal, member, half):
                sequence, epoch = max(sequence, part.sequence + 1), max(epoch, part.epoch)
                if part.sequence >= floor:
                    entries.setdefault(part.sequence, {})[member.number] = part
    whole = []
    for _, parts in sorted(entries.items()):
        wanted = next(iter(parts.values())).members & there
        if wanted <= parts.keys():
            whole.append(parts)
    return Found(whole, sequence, epoch + 1)


def replay(journal: Journal, members: Mapping[int, Member], found: Found) -> int:
    """Do it again; the position of a reshape that the last one tells of, or NOWHERE. Raises MembersFailed."""
    position = NOWHERE
    for parts in found.entries:
        for number, part in parts.items():
            member, at = members[number], part.at
            for offset, length in part.ranges:
                _again(member, at, offset, length)
                at += length
            if part.position != NOWHERE:
                position = part.position
    each(members.values(), Member.flush)
    return position


def _again(member: Member, at: int, offset: int, length: int) -> None:
    each((member,), lambda one: one.write([one.read_raw(at, length)], offset))


def _scan(journal: Journal, member: Member, half: int) -> Iterable[Part]:
    at, epoch, before = 0, None, -1
    begin = journal.offset + half * journal.half_size
    while at + BLOCK <= journal.half_size:
        part, size = _parse(journal, member, begin + at, journal.half_size - at)
        if part is None or (epoch is not None and part.epoch != epoch) or part.sequence <= before:
            return
        yield part
        epoch, before = part.epoch, part.sequence
        at += size


def _parse(journal: Journal, member: Member, at: int, room: int) -> tuple[Part | None, int]:
    block = member.read_raw(at, BLOCK)
    magic, check, data_check, array, epoch, sequence, position, count, ranges, length = _HEAD.unpack_from(block)
    end = _HEAD.size + count * _NUMBER.size + ranges * _RANGE.size
    if magic != _MAGIC or array != journal.array.bytes or end > BLOCK or BLOCK + length > room:
        return None, 0
    body = bytearray(block[:end])
    body[8:12] = bytes(4)
    if crc32c(bytes(body)) != check or crc32c(member.read_raw(at + BLOCK, length)) != data_check:
        return None, 0
    numbers = frozenset(number for (number,) in _NUMBER.iter_unpack(block[_HEAD.size : _HEAD.size + 2 * count]))
    places = tuple(_RANGE.iter_unpack(block[_HEAD.size + 2 * count : end]))
    fits = sum(size for _, size in places) == length and all(o + n <= member.data_size for o, n in places)
    if not fits:
        return None, 0
    part = Part(epoch, sequence, position, numbers, places, at + BLOCK)
    return part, -(-(BLOCK + length) // BLOCK) * BLOCK
