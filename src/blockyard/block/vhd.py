"""VHD images as block devices: fixed, dynamic and differencing.

**What a crash may leave.** A VHD has no log, so that everything goes in an order in which every state is a sound image. Sectors
of 512 bytes are written whole or not at all; of those there is one copy each, but for the footer. A block gets its place in
this order: the place is made to read as zeros, bitmap, data and a footer after it are written, all of that is flushed, and then
the one sector of the BAT is written. So the BAT never leads to what is not there; space that it does not lead to yet is found
at the next opening and used again. In a differencing image data is flushed before the bits that say that it is here. The footer
at the end is overwritten by the first block after it; until the next one is there, the copy at the beginning is the footer.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import struct
import sys
import uuid
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import replace

from blockyard.block.device import Device, Extent, Run, Space
from blockyard.block.free_places import FreePlaces
from blockyard.block.image import BlockImage
from blockyard.block.image_states import ABSENT, NOWHERE, PARTIAL, PRESENT, ImageError, ones
from blockyard.block.parents import ParentOf, Wanted
from blockyard.block.vhd_layout import (
    DIFFERENCING,
    DYNAMIC,
    EPOCH,
    FIXED,
    HEADER_LENGTH,
    KINDS,
    MAX_SIZE,
    SECTOR,
    UNUSED,
    Footer,
    Header,
    blocks_of,
    limited,
    path_of,
)

_ALIGN = 4096  # data of blocks begins at pages of the file
_REVERSED = bytes(
    int(f"{byte:08b}"[::-1], 2) for byte in range(256)
)  # bitmaps have the first sector in the highest bit
_CACHED = 1 << 16  # bitmaps
_TAIL = 64 << 10  # bytes in which a footer is looked for that is not at the end


def find_footer(below: Device, path: str) -> tuple[Footer, list[str]]:
    """The footer, and what is wrong with the places where it should be. Raises ImageError where there is none."""
    last = Footer.read(_read(below, below.size - SECTOR, SECTOR))
    first = Footer.read(_read(below, 0, SECTOR)) if below.size >= 2 * SECTOR else None
    if last is not None:
        if last.type in (DYNAMIC, DIFFERENCING) and first is None:
            return last, ["the copy of the footer at the beginning is damaged"]
        return last, []
    if first is not None and first.type in (DYNAMIC, DIFFERENCING):
        return first, ["there is no footer at the end: it was not closed cleanly, or cut short"]
    lost = _lost_footer(below)
    if lost is not None:
        return lost, ["the file is longer than the disk: growing it was interrupted"]
    raise ImageError(path, "there is no VHD footer, or its checksum is wrong")


def _lost_footer(below: Device) -> Footer | None:
    """That of a fixed disk which grew when power was lost: the last data in the file, before what was to be added."""
    end = max((run.offset + run.length for run in below.runs(0, below.size) if run.mapped), default=0)
    for at in range(end - SECTOR, max(0, end - _TAIL), -SECTOR):
        footer = Footer.read(_read(below, at, SECTOR))
        if footer is not None:
            return footer if footer.type == FIXED and footer.size == at else None
    return None


def open_vhd(below: Device, path: str, parent_of: ParentOf) -> FixedVhd | DynamicVhd:
    """The image in `below`. Raises ImageError, and what `parent_of` raises."""
    footer, notes = find_footer(below, path)
    footer.check(path)
    device = FixedVhd(below, path, footer) if footer.type == FIXED else DynamicVhd(below, path, footer, parent_of)
    device.notes += notes
    return device


def _read(below: Device, position: int, length: int) -> bytes:
    data = bytearray(length)
    below.preadv([memoryview(data)], position)
    return bytes(data)


class FixedVhd(Device):
    """A fixed VHD: the file, without its footer. All of its space is its own."""

    format, kind = "vhd", "fixed"
    parent = None

    def __init__(self, below: Device, path: str, footer: Footer) -> None:
        if footer.size > below.size - SECTOR:
            raise ImageError(path, f"its footer says {footer.size} bytes, but it has {below.size}: it was cut short")
        self.below = below
        self.path = path
        self.footer = footer
        self.size = footer.size
        self.read_only = below.read_only
        self.rotational = below.rotational
        self.nowait = below.nowait
        self.fd = below.fd
        self.notes: list[str] = []

    def __repr__(self) -> str:
        return f"FixedVhd({self.path!r}, {self.size} bytes)"

    @property
    def identifier(self) -> uuid.UUID:
        return self.footer.identifier

    def resolve(self, offset: int, length: int) -> Sequence[Extent] | None:
        return self.below.resolve(offset, length)

    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        self.below.preadv(buffers, offset)

    def pwritev(self, buffers: Sequence[memoryview | bytes | bytearray], offset: int) -> None:
        self.below.pwritev(buffers, offset)

    def flush(self) -> None:
        self.below.flush()

    def prefetch(self, offset: int, length: int) -> None:
        self.below.prefetch(offset, length)

    def write_zeroes(self, offset: int, length: int) -> None:
        self.below.write_zeroes(offset, length)

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        return self.below.runs(offset, length)

    def space(self) -> Space | None:
        return self.below.space()

    def own_pieces(self) -> Iterator[Run]:
        yield Run(0, self.size, True)

    def mark_modified(self) -> None:
        """Give the footer a new time: children that stand on the disk as it was shall notice."""
        self.footer = self.footer.modified()
        self.below.pwritev([self.footer.pack()], self.size)

    def repair(self) -> None:
        """Write the footer to where it belongs, and let the file end with it."""
        self.below.pwritev([self.footer.pack()], self.size)
        self.below.flush()
        self.below.truncate(self.size + SECTOR)

    def grow(self, size: int) -> None:
        """Let the disk have `size` bytes. The old footer goes when the new one is on stable storage."""
        _check_growth(self.path, self.size, size)
        old, footer = self.size, self.footer.modified().grown(size)
        self.below.pwritev([footer.pack()], size)
        self.below.flush()
        self.below.write_zeroes(old, SECTOR)
        self.below.flush()
        self.below.refresh()
        self.footer, self.size = footer, size

    def close(self) -> None:
        self.below.close()


class DynamicVhd(BlockImage):
    """A dynamic or differencing VHD."""

    format = "vhd"

    def __init__(self, below: Device, path: str, footer: Footer, parent_of: ParentOf) -> None:
        self.footer = footer
        self.header = self._read_header(below, path, footer)
        self.kind = KINDS[footer.type]
        super().__init__(below, path, None, size=footer.size, block_size=self.header.block_size)
        self._bitmap = -(-self.block_size // SECTOR // 8 // SECTOR) * SECTOR  # its bytes on disk
        self._free = FreePlaces(self._bitmap + self.block_size)
        self._table = self._read_table()
        self._known: dict[int, int] = {}  # bits of PARTIAL blocks, where they have been read
        self._new: set[int] = set()  # blocks that have got their place and are not in the BAT on disk
        self._changed_bits: set[int] = set()
        self._changed_entries: set[int] = set()
        self._find_places()
        if footer.type == DIFFERENCING:
            self.parent = parent_of(self._wanted())
        self.granularity = below.granularity or (0 if self.parent else self.block_size)

    @property
    def identifier(self) -> uuid.UUID:
        return self.footer.identifier

    # ---- opening

    @staticmethod
    def _read_header(below: Device, path: str, footer: Footer) -> Header:
        if footer.data_offset % SECTOR or footer.data_offset + HEADER_LENGTH > below.size:
            raise ImageError(path, f"its footer leads to a header at {footer.data_offset}, outside of the file")
        header = Header.read(_read(below, footer.data_offset, HEADER_LENGTH), path)
        needed = blocks_of(path, footer.size, header.block_size)
        if header.entries < needed:
            raise ImageError(path, f"its BAT has {header.entries} entries, and the disk has {needed} blocks")
        if header.table % SECTOR or header.table + 4 * header.entries > below.size:
            raise ImageError(path, f"its BAT at {header.table} with {header.entries} entries lies outside of the file")
        return header

    def _read_table(self) -> array[int]:
        table = array("I", _read(self.below, self.header.table, 4 * len(self.states)))
        if sys.byteorder == "little":
            table.byteswap()
        return table

    def _find_places(self) -> None:
        """What the BAT says, checked; and where there is room."""
        stride, size, bitmap = self._free.stride, self.below.size, self._bitmap
        used = [(0, SECTOR), (self.footer.data_offset, HEADER_LENGTH), (self.header.table, 4 * self.header.entries)]
        used += [(locator.position, locator.length) for locator in self.header.locators if limited(locator, size)]
        for block, entry in enumerate(self._table):
            if entry != UNUSED:
                position = entry * SECTOR
                if position + stride > size:
                    raise ImageError(self.path, f"block {block} is at {position}, outside of the file of {size} bytes")
                self.places[block] = position + bitmap
                self.states[block] = PARTIAL  # until somebody has looked at its bitmap
                used.append((position, stride))
        used.sort()
        for (position, length), (after, _) in itertools.pairwise(used):
            if position + length > after:
                raise ImageError(self.path, f"what lies at {position} and at {after} of the file overlaps")
        self._end = (
            size - SECTOR if Footer.read(_read(self.below, size - SECTOR, SECTOR)) else size
        )  # of what is before the footer
        self._end = max(self._end, used[-1][0] + used[-1][1])
        self.lost = self._free.find(used, SECTOR, self._end, align=_ALIGN, lead=bitmap)

    def _wanted(self) -> Wanted:
        """The parent that this image stands on."""
        candidates = []
        for locator in self.header.locators:
            if limited(locator, self.below.size):
                path = path_of(locator.platform, _read(self.below, locator.position, locator.length))
                if path is not None:
                    candidates.append((locator.platform not in (b"W2ru", b"Wi2r"), path))
        candidates.sort(key=lambda found: found[0])  # relative ones first
        names = [path for _, path in candidates]
        if self.header.parent_name:
            names.append(self.header.parent_name.replace("\\", "/").rpartition("/")[2])
        return Wanted(self.path, "vhd", tuple(names), self._refusal)

    def _refusal(self, parent: Device) -> str | None:
        """Why a device is not the parent; None if it is."""
        assert isinstance(parent, FixedVhd | DynamicVhd)
        if parent.identifier != self.header.parent:
            return f"it is {parent.identifier}, and the parent is {self.header.parent}"
        times = {0, parent.footer.time}
        with contextlib.suppress(OSError):  # what other programs note is the time of the file
            times.add((int(os.stat(parent.path).st_mtime) - EPOCH) & 0xFFFFFFFF)
        if self.header.parent_time not in times:
            return "it has been changed since the child was made"
        return None

    # ---- bitmaps

    def _needed(self, block: int) -> int:
        """The bits of all sectors of a block that there are."""
        return ones(0, min(self.block_size, self.size - block * self.block_size) // SECTOR)

    def _known_bits(self, block: int) -> int | None:
        return self._known.get(block)

    def _bits(self, block: int) -> int:
        bits = self._known.get(block)
        if bits is None:
            data = _read(self.below, self.places[block] - self._bitmap, self._bitmap)
            bits = int.from_bytes(data.translate(_REVERSED), "little") & ones(0, self.block_size // SECTOR)
            with self._lock:
                if self.states[block] != PARTIAL:
                    return self._needed(block)
                bits = self._known.setdefault(block, bits)
                if bits & self._needed(block) == self._needed(block):
                    self.states[block] = PRESENT
                    del self._known[block]
                self._forget_bits(block)
        return bits

    def _forget_bits(self, but: int) -> None:
        """Keep no more bitmaps than necessary."""
        if len(self._known) > _CACHED:
            needed = self._new | self._changed_bits | {but}
            for block in self._known.keys() - needed:
                del self._known[block]

    def _write_bitmap(self, block: int) -> None:
        bits = ones(0, self.block_size // SECTOR) if self.states[block] == PRESENT else self._known[block]
        data = bits.to_bytes(self._bitmap, "little").translate(_REVERSED)
        self.below.pwritev([data], self.places[block] - self._bitmap)

    # ---- changes

    def _begin(self) -> None:
        """A new time for the footer: children that stand on the disk as it was shall notice."""
        self.mark_modified()

    def mark_modified(self) -> None:
        self._write_footer(self.footer.modified())

    def _write_footer(self, footer: Footer) -> None:
        """Both copies, one after the other."""
        self.footer = footer
        self.below.pwritev([footer.pack()], 0)
        self.below.flush()
        self.below.pwritev([footer.pack()], self._end)

    def repair(self) -> None:
        """Write the footer anew, at both ends."""
        self._write_footer(self.footer)
        self.below.flush()

    def merge_quietly(self) -> None:
        """Changes will be none that a child could see: keep the time until `mark_modified`."""
        self.begun = True

    def _allocate(self) -> int:
        place = self._free.take()
        if place is not None:
            self.below.discard(place, self._free.stride)
            return place + self._bitmap
        place = -(-(self._end + self._bitmap) // _ALIGN) * _ALIGN - self._bitmap
        end = place + self._free.stride
        if end // SECTOR >= UNUSED:
            raise OSError(errno.EFBIG, "A VHD cannot lead to blocks beyond 2 TiB of its file", self.path)
        self.below.pwritev([self.footer.pack()], end)
        self.below.refresh()
        self.below.write_zeroes(self._end, min(SECTOR, place - self._end))  # the footer that is none any more
        self._end = end
        return place + self._bitmap

    def _give_back(self, place: int) -> None:
        self._free.free.append(place - self._bitmap)

    def _point(self, block: int, state: int, place: int, bits: int = 0) -> None:
        old = self.places[block]
        if old != NOWHERE:
            self._free.release(old - self._bitmap)
        self._known.pop(block, None)
        if state == PARTIAL:
            self._known[block] = bits
        self.places[block] = place
        self.states[block] = state
        self._new.discard(block)
        self._changed_bits.discard(block)
        if place != NOWHERE:
            self._new.add(block)
        self._table[block] = UNUSED if place == NOWHERE else (place - self._bitmap) // SECTOR
        self._changed_entries.add(block)

    def _cover(self, block: int, bits: int) -> None:
        known = self._bits(block) | bits
        self._known[block] = known
        if known & self._needed(block) == self._needed(block):
            self.states[block] = PRESENT
            del self._known[block]
        self._changed_bits.add(block)

    def _publish(self) -> None:
        for block in self._new:
            self._write_bitmap(block)
        if self._new or self._changed_bits:
            self.below.flush()
        for block in self._changed_bits - self._new:
            self._write_bitmap(block)
        per_sector = SECTOR // 4
        for sector in sorted({block // per_sector for block in self._changed_entries}):
            entries = self._table[sector * per_sector : (sector + 1) * per_sector]
            data = struct.pack(f">{len(entries)}I", *entries)
            self.below.pwritev([data], self.header.table + sector * SECTOR)
        self._new.clear()
        self._changed_bits.clear()
        self._changed_entries.clear()

    def flush(self) -> None:
        with self._lock:
            self._publish()
            released = self._free.released()
        self.below.flush()
        if released:
            with self._lock:
                for place in self._free.settle(released):
                    self.below.discard(place, self._free.stride)

    def close(self) -> None:
        try:
            if not self.read_only:
                self.flush()
        finally:
            super().close()

    # ---- administration, while nobody uses it

    def grow(self, size: int) -> None:
        """Let the disk have `size` bytes: a longer BAT, at the end of the file, then the header that leads to it."""
        _check_growth(self.path, self.size, size)
        blocks = blocks_of(self.path, size, self.block_size)
        self._begin_writing()
        self.flush()
        self._changed_entries.update(range(len(self._table), blocks))
        self._table.extend([UNUSED] * (blocks - len(self._table)))
        if blocks > self.header.entries:
            entries = blocks + -blocks % (SECTOR // 4)
            position = self._end
            data = struct.pack(f">{blocks}I", *self._table) + b"\xff" * (4 * (entries - blocks))
            self._end = position + len(data)
            self.below.pwritev([data, self.footer.pack()], position)
            self.below.flush()
            self.below.refresh()
            self.header = replace(self.header, table=position, entries=entries)
            self.below.pwritev([self.header.pack()[:SECTOR]], self.footer.data_offset)
            self.below.flush()
        self._write_footer(self.footer.grown(size))
        self.below.flush()
        self.places.extend([NOWHERE] * (blocks - len(self.places)))
        self.states += bytes([ABSENT]) * (blocks - len(self.states))
        self.size = size
        self.flush()

    def shorten(self) -> None:
        """Let the file end with what is used last. `flush` has been called, and nobody uses the image."""
        end = max(
            [self.footer.data_offset + HEADER_LENGTH, self.header.table + 4 * self.header.entries]
            + [-(-(found.position + found.length) // SECTOR) * SECTOR for found in self.header.locators]
            + [place + self.block_size for place in self.places if place != NOWHERE]
        )
        end = -(-end // SECTOR) * SECTOR
        if end < self._end:
            self.below.pwritev([self.footer.pack()], end)
            self.below.flush()
            self._end = end
            self.below.truncate(end + SECTOR)
            self._free.free = [place for place in self._free.free if place + self._free.stride <= end]


def _check_growth(path: str, old: int, size: int) -> None:
    if size < old:
        raise ImageError(path, f"it has {old} bytes: an image cannot shrink, data would be cut off")
    if size % SECTOR or size > MAX_SIZE:
        raise ImageError(path, f"a VHD has whole sectors of 512 bytes, {MAX_SIZE} bytes (2040 GiB) at most")
