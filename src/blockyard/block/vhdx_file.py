"""A VHDX file before its blocks: headers, the log that has to be replayed, the region table."""

from __future__ import annotations

import uuid

from blockyard.block.device import Device
from blockyard.block.image_states import ImageError
from blockyard.block.vhdx_layout import (
    HEADERS,
    MB,
    METADATA,
    NO_GUID,
    PAGE,
    REGION_TABLES,
    SIGNATURE,
    TABLE_LENGTH,
    Header,
    Region,
    parse_metadata,
    read_items,
    read_regions,
    sound,
)
from blockyard.block.vhdx_log import Entry, LogReader, Replayed


def read(below: Device, position: int, length: int) -> bytes:
    data = bytearray(length)
    below.preadv([memoryview(data)], position)
    return bytes(data)


class Headers:
    """The two headers of a file, of which the one with the higher sequence number counts (2.2.2)."""

    def __init__(self, below: Device, path: str) -> None:
        self._below = below
        self.notes: list[str] = []
        if below.size < MB or read(below, 0, 8) != SIGNATURE:
            raise ImageError(path, "it does not begin with vhdxfile, or is cut short")
        found = [Header.read(read(below, position, PAGE)) for position in HEADERS]
        sound_ones = [(header.sequence, -slot) for slot, header in enumerate(found) if header is not None]
        if not sound_ones:
            raise ImageError(path, "the checksums of both of its headers are wrong")
        if len(sound_ones) < len(found):
            self.notes.append("one of its two headers is damaged")
        self._slot = -max(sound_ones)[1]
        current = found[self._slot]
        assert current is not None
        self.current = current
        current.check(path, below.size)

    def update(self, **changes: uuid.UUID) -> None:
        """Both, one after the other, each on stable storage before the next."""
        self._write(self.current.next(**changes))
        self._write(self.current.next())

    def _write(self, header: Header) -> None:
        """In the place of the one that does not count. Until that is done for good, the other one stays what it is."""
        slot = 1 - self._slot
        self._below.pwritev([header.pack()], HEADERS[slot])
        self._below.flush()
        self._slot, self.current = slot, header


def replayed(below: Device, headers: Headers, path: str) -> Device:
    """The file as its log says that it is, or `below` where that has been brought to its place. Raises ImageError."""
    if headers.current.log == NO_GUID:
        return below
    entries = LogReader(below, headers.current, path).active()
    _check_replay(below, entries, path)
    headers.notes.append(f"its log has {len(entries)} entries: it was not closed cleanly")
    if below.read_only:
        return Replayed(below, entries)
    _replay(below, headers, entries)
    return below


def _check_replay(below: Device, entries: list[Entry], path: str) -> None:
    if below.size < entries[-1].flushed_size:
        raise ImageError(
            path, f"it has {below.size} bytes, and its log says {entries[-1].flushed_size}: it was cut short"
        )
    end = max(below.size, entries[-1].last_size)
    for entry in entries:
        for change in entry.changes:
            if change.position + change.length > end:
                raise ImageError(path, f"its log changes {change.position}, outside of the file")


def _replay(below: Device, headers: Headers, entries: list[Entry]) -> None:
    """Do what the log says (2.3.3), and empty it."""
    headers.update(file_write=uuid.uuid4())
    if entries[-1].last_size > below.size:
        below.truncate(entries[-1].last_size)
    for entry in entries:
        for change in entry.changes:
            if change.data is None:
                below.write_zeroes(change.position, change.length)
            else:
                below.pwritev([change.data], change.position)
    below.flush()
    headers.update(log=NO_GUID)


def regions_of(below: Device, path: str) -> dict[uuid.UUID, Region]:
    for position in REGION_TABLES:
        table = read(below, position, TABLE_LENGTH)
        if sound(table, b"regi"):
            return read_regions(table, path, below.size)
    raise ImageError(path, "the checksums of both of its region tables are wrong")


def vhdx_size(below: Device, path: str) -> int:
    """The size of the disk, as it is but for what the log may have. Raises ImageError."""
    Headers(below, path)
    region = regions_of(below, path)[METADATA]
    items = read_items(read(below, region.position, TABLE_LENGTH), region, path)
    return parse_metadata({name: read(below, *place) for name, place in items.items()}, path).size
