"""The log of a compressed disk: segments that records are appended to, and which record of a chunk is the newest.

Nothing is written over: a record goes to where nothing was, then its entry to the table of the segment. After a loss of power
the entry with the highest sequence number whose record is sound counts, and what was there before is still there. A segment
is emptied by appending what is alive in it once more; its table is cleared when that is stable, and it is used again when the
clearing is.

Records are appended one at a time: `_appending` is held while one is written. `lock` is for what is in memory.
"""

from __future__ import annotations

import errno
from array import array
from collections.abc import Iterator
from dataclasses import replace
from threading import Lock

from fastcrc.crc32 import iscsi as crc32c

from blockyard.block.compressed.layout import (
    ENTRIES,
    ENTRY,
    HOLE,
    SECTOR,
    SECTORS,
    SEGMENT,
    TABLE,
    CompressedError,
    Entry,
    Superblock,
    sectors_of,
    write_superblock,
)
from blockyard.block.device import Device

_PAGE = 1 << 10  # chunks of a page of the map
_LENGTH = 12  # bits of a place that say how many sectors a record has
NOWHERE = 0
_A_HOLE = 1  # a place: the newest entry says that the chunk is zeros


class Segment:
    """What is known of a segment."""

    __slots__ = ("end", "entries", "live", "table")

    def __init__(self) -> None:
        self.end = TABLE // SECTOR  # where the next record goes
        self.entries = 0
        self.live = 0  # sectors of records that are the newest of their chunks
        self.table = bytearray(TABLE)


class Log:
    """The segments of `below`."""

    def __init__(self, below: Device, superblock: Superblock) -> None:
        self.below = below
        self.superblock = superblock
        self.lock = Lock()
        self._seed = crc32c(superblock.identity.bytes)
        self.segments: dict[int, Segment] = {}  # those that are in use, by number; the first is number 1
        self.live_bytes = self.mapped = self.holes = 0
        self._pages: dict[int, array[int]] = {}
        self.damaged = 0  # entries of tables that are lost: nobody knows of which chunks
        self._appending = Lock()
        self._emptying = Lock()  # one segment at a time; held over I/O
        self._sequence = superblock.stable
        self._current = 0
        self._free: list[int] = []
        self._count = 1  # segments that the file has room for, with that of the superblock

    # ---- where chunks are

    def place(self, chunk: int) -> int:
        """Position and length of the newest record in sectors, or NOWHERE, or a hole's. With the lock held."""
        page = self._pages.get(chunk // _PAGE)
        return NOWHERE if page is None else page[chunk % _PAGE]

    def is_mapped(self, chunk: int) -> bool:
        return self.place(chunk) > _A_HOLE

    def _point(self, chunk: int, place: int) -> None:
        """With the lock held."""
        page = self._pages.get(chunk // _PAGE)
        if page is None:
            page = self._pages[chunk // _PAGE] = array("Q", bytes(8 * _PAGE))
        old = page[chunk % _PAGE]
        page[chunk % _PAGE] = place
        self._count_place(old, -1)
        self._count_place(place, 1)

    def _count_place(self, place: int, sign: int) -> None:
        if place == _A_HOLE:
            self.holes += sign
        elif place != NOWHERE:
            self.mapped += sign
            sectors = place & (1 << _LENGTH) - 1
            self.live_bytes += sign * sectors * SECTOR
            self.segments[(place >> _LENGTH) // SECTORS].live += sign * sectors

    @property
    def used(self) -> int:
        """Bytes of segments that are in use."""
        return len(self.segments) * SEGMENT

    # ---- reading

    def read(self, chunk: int) -> tuple[Entry, bytes] | None:
        """The newest record of a chunk; None for zeros. Raises OSError (EBADMSG) for a damaged one."""
        while True:
            with self.lock:
                place = self.place(chunk)
            if place <= _A_HOLE:
                return None
            found = self._record(place)
            with self.lock:
                if self.place(chunk) != place:
                    continue  # it has been moved, or written anew
            if found is None or found[0].chunk != chunk:
                raise OSError(
                    errno.EBADMSG, f"The record of byte {chunk * self.superblock.chunk} of the disk is damaged"
                )
            return found

    def _record(self, place: int) -> tuple[Entry, bytes] | None:
        data = bytearray((place & (1 << _LENGTH) - 1) * SECTOR)
        self.below.preadv([memoryview(data)], (place >> _LENGTH) * SECTOR)
        entry = Entry.unpack(bytes(data[:ENTRY]), self._seed)
        if entry is None or ENTRY + entry.length > len(data):
            return None
        payload = bytes(data[ENTRY : ENTRY + entry.length])
        return (entry, payload) if crc32c(payload) == entry.checksum else None

    # ---- writing

    def append(
        self, chunk: int, codec: int, payload: bytes | bytearray | memoryview, only_if: int | None = None
    ) -> bool:
        """Write a chunk's newest record; `only_if` the one before is at that place. Whether it was."""
        with self._appending:
            with self.lock:
                if only_if is not None and self.place(chunk) != only_if:
                    return False
                self._sequence += 1
            sectors = 0 if codec == HOLE else sectors_of(len(payload))
            number, segment = self._segment_for(sectors)
            entry = Entry(chunk, self._sequence, len(payload), crc32c(payload), codec, segment.end)
            place = _A_HOLE
            if codec != HOLE:
                position = number * SECTORS + segment.end
                record = b"".join((entry.pack(self._seed), payload)).ljust(sectors * SECTOR, b"\0")
                self.below.pwritev([record], position * SECTOR)
                place = position << _LENGTH | sectors
            self._enter(number, segment, entry)
            with self.lock:
                self._point(chunk, place)
        return True

    def _enter(self, number: int, segment: Segment, entry: Entry) -> None:
        at = segment.entries * ENTRY
        segment.table[at : at + ENTRY] = entry.pack(self._seed)
        segment.entries += 1
        segment.end += entry.sectors
        start = at - at % SECTOR
        end = -(-(at + ENTRY) // SECTOR) * SECTOR
        self.below.pwritev([memoryview(segment.table)[start:end]], number * SEGMENT + start)

    def _segment_for(self, sectors: int) -> tuple[int, Segment]:
        """The segment that is written to, another one if it has no room for such a record."""
        segment = self.segments.get(self._current)
        if segment is None or segment.entries == ENTRIES or segment.end + sectors > SECTORS:
            number = self._new_segment()
            segment = Segment()
            with self.lock:  # both at once: an empty segment that is not written to is one to be emptied
                self.segments[number] = segment
                self._current = number
        return self._current, segment

    def _new_segment(self) -> int:
        with self.lock:
            if self._free:
                return self._free.pop()
        size = (self._count + 1) * SEGMENT
        if size > self.below.size:
            try:
                if self.below.size > self._count * SEGMENT:  # what a loss of power has left of it must not come back
                    self.below.truncate(self._count * SEGMENT)
                    self.below.flush()
                self.below.truncate(size)
            except OSError as error:
                if error.errno != errno.EOPNOTSUPP:
                    raise
                raise OSError(errno.ENOSPC, "The device below has no more room: compact, or enlarge it") from None
        self._count += 1
        return self._count - 1

    def flush(self) -> None:
        with self._appending, self.lock:
            stable = self._sequence
        self.below.flush()
        with self._appending:
            if stable > self.superblock.stable:
                self.superblock = write_superblock(self.below, replace(self.superblock, stable=stable))

    # ---- room

    def emptiest(self, most: float) -> int | None:
        """The segment with the least that is alive, if that is at most so much of it; not the one that is written to."""
        with self.lock:
            live = {number: segment.live for number, segment in self.segments.items() if number != self._current}
        number = min(live, key=lambda each: live[each], default=None)
        return number if number is not None and live[number] <= most * SECTORS else None

    def empty(self, number: int) -> None:
        """Move what is alive in a segment, and have the segment free; not the one that is written to.

        Raises OSError; then it stays in use.
        """
        with self._emptying:
            with self.lock:  # somebody may have emptied it meanwhile, and it may be in use again
                segment = None if number == self._current else self.segments.get(number)
            if segment is not None:
                self._empty(number, segment)

    def _empty(self, number: int, segment: Segment) -> None:
        newest = {entry.chunk: entry for entry in sorted(self._entries(segment), key=lambda entry: entry.sequence)}
        for entry in newest.values():
            with self.lock:
                place = self.place(entry.chunk)
            if place == _A_HOLE and entry.codec == HOLE:
                self.append(entry.chunk, HOLE, b"", only_if=_A_HOLE)
            elif place == _place(number, entry):
                found = self.read(entry.chunk)
                if found is not None:
                    self.append(entry.chunk, found[0].codec, found[1], only_if=place)
        self.flush()
        segment.table[:] = bytes(TABLE)
        self.below.pwritev([segment.table], number * SEGMENT)
        self.below.flush()
        self.below.discard(number * SEGMENT + TABLE, SEGMENT - TABLE)
        with self.lock:
            del self.segments[number]
            self._free.append(number)

    # ---- opening

    def load(self) -> list[tuple[int, Entry]]:
        """Find out what is where. Entries that a loss of power has left without a record, with their segments.

        Raises OSError.
        """
        newest: dict[int, list[tuple[int, int, Entry]]] = {}  # chunk → sequence numbers, segments and entries
        chunks = -(-self.superblock.size // self.superblock.chunk)
        self._count = max(1, self.below.size // SEGMENT)
        for number in range(1, self._count):
            segment = self._load_segment(number)
            if segment is None:
                self._free.append(number)
                continue
            self.segments[number] = segment
            for entry in self._entries(segment):
                if entry.chunk >= chunks or entry.offset + entry.sectors > SECTORS:
                    raise CompressedError(f"Segment {number} has an entry that cannot be")
                if entry.sequence > self._sequence:
                    self._sequence, self._current = entry.sequence, number
                newest.setdefault(entry.chunk, []).append((entry.sequence, number, entry))
        self._free.sort(reverse=True)
        lost = [each for found in newest.values() for each in self._restore(found)]
        if not self._current and self.segments:
            self._current = max(self.segments)
        return lost

    def _restore(self, found: list[tuple[int, int, Entry]]) -> Iterator[tuple[int, Entry]]:
        """Point to the newest sound record of a chunk; those that are newer and are not sound."""
        for sequence, number, entry in sorted(found, reverse=True):
            place = _place(number, entry)
            if sequence <= self.superblock.stable or place == _A_HOLE or self._is_sound(place, entry):
                self._point(entry.chunk, place)
                return
            yield number, entry

    def _is_sound(self, place: int, entry: Entry) -> bool:
        """Whether its record is there: one whose entry a loss of power took may have had the same number and place."""
        found = self._record(place)
        return found is not None and found[0] == entry

    def _load_segment(self, number: int) -> Segment | None:
        """A segment that is in use."""
        segment = Segment()
        self.below.preadv([memoryview(segment.table)], number * SEGMENT)
        for index in range(ENTRIES):
            at = index * ENTRY
            if not any(segment.table[at : at + ENTRY]):
                continue
            segment.entries = index + 1
            entry = Entry.unpack(bytes(segment.table[at : at + ENTRY]), self._seed)
            entry = entry or self._found_in_record(number, segment, at)
            if entry is not None:
                segment.end = max(segment.end, entry.offset + entry.sectors)
        return segment if segment.entries else None

    def _entries(self, segment: Segment) -> Iterator[Entry]:
        for at in range(0, segment.entries * ENTRY, ENTRY):
            entry = Entry.unpack(bytes(segment.table[at : at + ENTRY]), self._seed)
            if entry is not None:
                yield entry

    def _found_in_record(self, number: int, segment: Segment, at: int) -> Entry | None:
        """An entry is damaged, which no loss of power does: the same stands before the record, if it has one."""
        data = bytearray(ENTRY)
        if segment.end < SECTORS:
            self.below.preadv([memoryview(data)], number * SEGMENT + segment.end * SECTOR)
        entry = Entry.unpack(bytes(data), self._seed)
        if entry is None or entry.offset != segment.end:
            self.damaged += 1
            return None
        segment.table[at : at + ENTRY] = data
        return entry

    def forget(self, lost: list[tuple[int, Entry]]) -> None:
        """Take entries out of their tables, stably: they must not be believed when they are older."""
        for number, entry in lost:
            table = self.segments[number].table
            at = table.index(entry.pack(self._seed))
            table[at : at + ENTRY] = bytes(ENTRY)
            self.below.pwritev([table], number * SEGMENT)
        self.below.flush()


def _place(number: int, entry: Entry) -> int:
    return _A_HOLE if entry.codec == HOLE else number * SECTORS + entry.offset << _LENGTH | entry.sectors
