"""The log of a VHDX (MS-VHDX 2.3): a ring of entries, each of which says what pages of 4 KiB of the file hold from then on.

**Writing.** An entry is written before anything of it is in its place, and its pages go there only when it is on stable
storage. It stays needed until they are on stable storage themselves: the tail moves on behind it, and every entry says where
the tail was when it was written. A crash shows the newest entry that is whole together with all that its own tail leads to.
So an entry may be overwritten only when one is on stable storage whose tail is beyond it: `_keep`, not the tail, bounds the room.

Offsets here count on without end; where they are in the ring is their remainder.
"""

from __future__ import annotations

import struct
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from blockyard.block.device import Device, ReadOnly, Run
from blockyard.block.image_states import ImageError
from blockyard.block.vhdx_layout import MAX_FILE, MB, PAGE, Header, sealed, sound

# signature | checksum | length | tail | sequence number | descriptors | | log GUID | flushed and last file offset
_ENTRY = struct.Struct("<4sIIIQII16sQQ")
_ZERO = struct.Struct("<4s4xQQQ")  # signature | length | position | sequence number
_DATA = struct.Struct("<4sIQQQ")  # signature | last 4 bytes | first 8 bytes | position | sequence number
_DESCRIPTORS = 126  # in the first sector of an entry; 128 in each further one
MOST_PAGES = 32  # of one entry that is written here
_LONGEST = 256 << 20  # bytes of a log that is replayed; all of it is read (Windows and QEMU make 1 MiB)


class Change(NamedTuple):
    """What an entry does to a part of the file: pages that it holds, or zeros."""

    position: int
    length: int
    data: bytes | None


class Entry(NamedTuple):
    """A valid entry of the log."""

    offset: int
    length: int
    tail: int
    sequence: int
    flushed_size: int
    last_size: int
    changes: tuple[Change, ...]


# ---- reading


class LogReader:
    """Finds the active sequence of a log (2.3.3)."""

    def __init__(self, below: Device, header: Header, path: str) -> None:
        self._path = path
        self._guid = header.log.bytes_le
        if header.log_length > _LONGEST:
            raise ImageError(
                path, f"its log has {header.log_length} bytes, more than {_LONGEST}: it would not fit memory"
            )
        data = bytearray(header.log_length)
        below.preadv([memoryview(data)], header.log_offset)
        self._size = header.log_length
        self._ring = bytes(data)

    def active(self) -> list[Entry]:
        """The entries that have to be replayed, in order. Raises ImageError where there is no valid sequence."""
        best: list[Entry] = []
        at = 0
        while at < self._size:
            sequence = self._sequence(at)
            if sequence and any(entry.offset == sequence[-1].tail for entry in sequence):
                if not best or sequence[-1].sequence > best[-1].sequence:
                    best = sequence
                at = max(at + PAGE, sequence[-1].offset + sequence[-1].length)  # beyond the end: it has wrapped around
                if sequence[-1].offset < sequence[0].offset:
                    break
            else:
                at += PAGE
        if not best:
            raise ImageError(self._path, "its log has no valid entries, but should")
        first = next(index for index, entry in enumerate(best) if entry.offset == best[-1].tail)
        return best[first:]

    def _sequence(self, at: int) -> list[Entry]:
        found: list[Entry] = []
        length = 0
        while length < self._size:
            entry = self._entry(at)
            if entry is None or (found and entry.sequence != found[-1].sequence + 1):
                break
            found.append(entry)
            length += entry.length
            at = (at + entry.length) % self._size
        return found

    def _bytes(self, at: int, length: int) -> bytes:
        return (self._ring[at : at + length] + self._ring[: max(0, at + length - self._size)])[:length]

    def _entry(self, at: int) -> Entry | None:
        """The entry that begins there, if it is valid."""
        if self._ring[at : at + 4] != b"loge":
            return None
        _, _, length, tail, sequence, count, _, guid, flushed, last = _ENTRY.unpack(self._bytes(at, _ENTRY.size))
        if guid != self._guid or not sequence or length % PAGE or not 0 < length <= self._size or tail % PAGE:
            return None
        data = self._bytes(at, length)
        first = _descriptor_sectors(count) * PAGE
        if not sound(data, b"loge") or first > length or tail >= self._size or max(flushed, last) > MAX_FILE:
            return None
        changes = _changes(data, count, first, sequence)
        return None if changes is None else Entry(at, length, tail, sequence, flushed, last, changes)


def _descriptor_sectors(count: int) -> int:
    return -(-(_ENTRY.size + count * _DATA.size) // PAGE)


def _changes(data: bytes, count: int, sectors: int, sequence: int) -> tuple[Change, ...] | None:
    """What the descriptors of an entry say; None where one is not valid."""
    changes = []
    for number in range(count):
        at = _ENTRY.size + number * _DATA.size
        if data[at : at + 4] == b"zero":
            _, length, position, own = _ZERO.unpack_from(data, at)
            change = Change(position, length, None)
        elif data[at : at + 4] == b"desc":
            _, trailing, leading, position, own = _DATA.unpack_from(data, at)
            sector = data[sectors : sectors + PAGE]
            sectors += PAGE
            parts = sector[4:8], sector[-4:]
            if len(sector) < PAGE or sector[:4] != b"data" or parts != _halves(sequence):
                return None
            page = struct.pack("<Q", leading) + sector[8:-4] + struct.pack("<I", trailing)
            change = Change(position, PAGE, page)
        else:
            return None
        if own != sequence or (change.position | change.length) % PAGE or change.position + change.length > MAX_FILE:
            return None
        changes.append(change)
    return tuple(changes)


def _halves(sequence: int) -> tuple[bytes, bytes]:
    return struct.pack("<I", sequence >> 32), struct.pack("<I", sequence & 0xFFFFFFFF)


class Replayed(ReadOnly):
    """A file as it will be when its log has been replayed, for those who may not write to it."""

    def __init__(self, below: Device, entries: Sequence[Entry]) -> None:
        self.below = below
        self.rotational = below.rotational
        self.granularity = below.granularity
        self.changes = [change for entry in entries for change in entry.changes]
        last = max((change.position + change.length for change in self.changes), default=0)
        self.size = max(below.size, last, entries[-1].last_size)

    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        for buffer in buffers:
            end = offset + len(buffer)
            there = max(0, min(end, self.below.size) - offset)
            if there:
                self.below.preadv([buffer[:there]], offset)
            buffer[there:] = bytes(len(buffer) - there)
            for change in self.changes:
                start, stop = max(offset, change.position), min(end, change.position + change.length)
                if start < stop:
                    data = change.data
                    inside = start - change.position
                    part = bytes(stop - start) if data is None else data[inside : inside + stop - start]
                    buffer[start - offset : stop - offset] = part
            offset = end

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        there = max(0, min(length, self.below.size - offset))
        if there:
            yield from self.below.runs(offset, there)
        if there < length:
            yield Run(offset + there, length - there, False)

    def close(self) -> None:
        self.below.close()


# ---- writing


class _Logged(NamedTuple):
    sequence: int
    start: int
    tail: int
    pages: dict[int, bytes]


class LogWriter:
    """The log of an image that is open for writing. Under its owner's lock."""

    def __init__(self, below: Device, header: Header, guid: uuid.UUID) -> None:
        self._below = below
        self._position = header.log_offset
        self._size = header.log_length
        self._guid = guid
        self._head = self._keep = 0  # where the next entry goes; what must not be overwritten before
        self._entries: deque[_Logged] = deque()  # whose pages are not on stable storage in their places
        self.sequence = 0  # of the newest entry
        self.applied = 0  # the newest entry whose pages are in their places

    def has_room(self, count: int, *, last: bool = False) -> bool:
        """Whether an entry with so many pages can be written; `last`: even what is kept for the entry that makes room again."""
        needed = (_descriptor_sectors(count) + count) * PAGE
        return self._head + needed + (0 if last else 2 * PAGE) <= self._keep + self._size - PAGE

    def append(self, pages: dict[int, bytes], *, flushed_size: int, size: int) -> None:
        """Write an entry: `pages` by their positions in the file. The file is `size` long, and was so at its last flush."""
        start = self._head
        tail = self._entries[0].start if self._entries else start
        sequence = self.sequence + 1
        descriptors, sectors = b"", b""
        high, low = _halves(sequence)
        for position, page in pages.items():
            (leading,) = struct.unpack_from("<Q", page)
            (trailing,) = struct.unpack_from("<I", page, PAGE - 4)
            descriptors += _DATA.pack(b"desc", trailing, leading, position, sequence)
            sectors += b"data" + high + page[8:-4] + low
        before = _descriptor_sectors(len(pages)) * PAGE
        entry = _ENTRY.pack(
            b"loge", 0, before + len(sectors), tail % self._size, sequence, len(pages), 0, self._guid.bytes_le,
            flushed_size // MB * MB, -(-size // MB) * MB,
        )  # fmt: skip
        data = sealed((entry + descriptors).ljust(before, b"\0") + sectors)
        at = start % self._size
        self._below.pwritev([data[: self._size - at]], self._position + at)
        if len(data) > self._size - at:
            self._below.pwritev([data[self._size - at :]], self._position)
        self._head = start + len(data)
        self._entries.append(_Logged(sequence, start, tail, dict(pages)))
        self.sequence = sequence

    def settle(self, logged: int, applied: int) -> Iterator[tuple[int, bytes]]:
        """A flush has begun when entries up to `logged` were written, and those up to `applied` in their places; it has ended.

        Yields the pages that may go to their places now.
        """
        safe = [entry for entry in self._entries if entry.sequence <= logged]
        if safe:
            self._keep = max(self._keep, safe[-1].tail)
        pages: dict[int, bytes] = {}
        for entry in safe:
            if entry.sequence > self.applied:
                pages |= entry.pages
        yield from sorted(pages.items())
        self.applied = max(self.applied, logged)
        while self._entries and self._entries[0].sequence <= applied:
            self._entries.popleft()
