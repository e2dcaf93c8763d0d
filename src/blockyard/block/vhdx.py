"""VHDX images as block devices: fixed, dynamic and differencing.

**What a crash may leave.** All metadata but the headers goes through the log (vhdx_log.py). A block gets its place without a
flush: the file is made longer, data is written, and an entry of the log says so. If power is lost, that entry is replayed or
not; a place at the end of the file reads as zeros until the data is there, as the block did before. Where that is not so, data is
flushed before the entry is written: in a differencing image, where the block read as the parent's, and so are the zeros of a
place that has been used before. Places are used again when the entry that takes them away is on stable storage.

An image that is open for writing and has not been changed is as it was: headers and log are touched before the first change.
"""

from __future__ import annotations

import itertools
import sys
import uuid
from array import array
from dataclasses import replace

from blockyard.block.device import Device
from blockyard.block.free_places import FreePlaces
from blockyard.block.image import BlockImage
from blockyard.block.image_states import ABSENT, NOWHERE, PARTIAL, PRESENT, ZERO, ImageError, ones
from blockyard.block.parents import ParentOf, Wanted
from blockyard.block.vhdx_file import Headers, read, regions_of, replayed
from blockyard.block.vhdx_layout import (
    BAT,
    DISK_SIZE,
    MAX_SIZE,
    MB,
    METADATA,
    NO_GUID,
    PAGE,
    PARENT_LOCATOR,
    REGION_TABLES,
    TABLE_LENGTH,
    Region,
    pack_locator,
    pack_regions,
    parse_metadata,
    read_items,
    with_item,
)
from blockyard.block.vhdx_log import MOST_PAGES, LogWriter

_STATE = 7  # bits of a BAT entry (2.5.1)
_PER_PAGE = PAGE // 8  # BAT entries
_CACHED = 4096  # pages of bitmaps


def open_vhdx(below: Device, path: str, parent_of: ParentOf) -> Vhdx:
    """The image in `below`, its log replayed. Raises ImageError, and what `parent_of` raises."""
    headers = Headers(below, path)
    return Vhdx(replayed(below, headers, path), path, headers, parent_of)


class Vhdx(BlockImage):
    """A VHDX of any kind."""

    format = "vhdx"
    can_be_zero = True

    def __init__(self, below: Device, path: str, headers: Headers, parent_of: ParentOf) -> None:
        self.headers = headers
        self.regions = regions_of(below, path)
        self._items = read_items(
            read(below, self.regions[METADATA].position, TABLE_LENGTH), self.regions[METADATA], path
        )
        metadata = parse_metadata({name: read(below, *place) for name, place in self._items.items()}, path)
        self.metadata = metadata
        if 8 * metadata.entries > self.regions[BAT].length:
            have, blocks = self.regions[BAT].length, metadata.blocks
            raise ImageError(path, f"its BAT has {have} bytes, and its {blocks} blocks need {8 * metadata.entries}")
        self.kind = "differencing" if metadata.has_parent else "fixed" if metadata.leave_allocated else "dynamic"
        self.sector_size = metadata.logical_sector
        super().__init__(below, path, None, size=metadata.size, block_size=metadata.block_size)
        self.notes += headers.notes
        self._ratio = metadata.chunk_ratio
        self._bitmap_length = self.block_size // self.sector_size // 8
        self._free = FreePlaces(self.block_size)
        self._bitmaps: dict[int, bytes] = {}  # pages of sector bitmaps by their positions, as they are from now on
        self._unapplied: dict[int, int] = {}  # of these what is not in its place: the entry of the log that has it
        self._changed_entries: set[int] = set()  # pages of the BAT
        self._changed_pages: set[int] = set()
        self._ordered = False  # what is to be published must come after the data
        self._log: LogWriter | None = None
        self._log_guid = (
            uuid.uuid4()
        )  # the same when _begin has failed and is tried again: a header may name it already
        self._data_write: uuid.UUID | None = None
        self._bat = self._read_bat()
        self._find_places()
        self._flushed_size = below.size
        if metadata.has_parent:
            self.parent = parent_of(self._wanted())
        if self.kind != "fixed":
            self.granularity = below.granularity or self.block_size

    @property
    def data_write(self) -> uuid.UUID:
        """What children know their parent by."""
        return self.headers.current.data_write

    # ---- opening

    def _read_bat(self) -> array[int]:
        bat = array("Q", read(self.below, self.regions[BAT].position, 8 * self.metadata.entries))
        if sys.byteorder == "big":
            bat.byteswap()
        return bat

    def _bitmap_place(self, block: int) -> int:
        """Where the sector bitmap block of a block's chunk is; 0 where there is none."""
        entry = self._bat[(block // self._ratio + 1) * (self._ratio + 1) - 1]
        return entry >> 20 << 20 if entry & _STATE == PRESENT else 0

    def _find_places(self) -> None:
        """What the BAT says, checked; and where there is room."""
        header, size, ratio = self.headers.current, self.below.size, self._ratio
        used = [(0, MB), (header.log_offset, header.log_length)]
        used += [(region.position, region.length) for region in self.regions.values()]
        for index, entry in enumerate(self._bat):
            if not entry:  # most of a large disk
                continue
            state, place = entry & _STATE, entry >> 20 << 20
            chunk, inside = divmod(index, ratio + 1)
            block = chunk * ratio + inside
            if inside == ratio:
                what, length = f"bitmap {chunk}", MB
                allowed: tuple[int, ...] = (0, PRESENT) if self.metadata.has_parent else (0,)
            else:
                if block >= len(self.states):
                    continue  # what fills up the last chunk
                what, length = f"block {block}", self.block_size
                allowed = (0, 1, 2, 3, PRESENT, PARTIAL) if self.metadata.has_parent else (0, 1, 2, 3, PRESENT)
            if state not in allowed:
                raise ImageError(self.path, f"the state of {what} is {state}, which it cannot be")
            if state >= PRESENT:
                if place < MB or place + length > size:
                    raise ImageError(self.path, f"{what} is at {place}, outside of the file of {size} bytes")
                used.append((place, length))
            if inside < ratio:
                self.states[block] = ZERO if 0 < state < PRESENT else state
                self.places[block] = place if state >= PRESENT else NOWHERE
                if state == PARTIAL and not self._bitmap_place(block):
                    raise ImageError(self.path, f"{what} is here in part, and there is no bitmap that says which")
        used.sort()
        for (position, length), (after, _) in itertools.pairwise(used):
            if position + length > after:
                raise ImageError(self.path, f"what lies at {position} and at {after} of the file overlaps")
        self._end = -(-max(size, used[-1][0] + used[-1][1]) // MB) * MB
        self.lost = self._free.find(used, MB, self._end, align=MB)

    def _wanted(self) -> Wanted:
        """The parent that this image stands on."""
        pairs = dict(self.metadata.parent or ())
        paths = []
        if "relative_path" in pairs:
            paths.append(pairs["relative_path"].replace("\\", "/"))
        for key in ("volume_path", "absolute_win32_path"):
            path = pairs.get(key, "").removeprefix("\\\\?\\").replace("\\", "/")
            if path and path[1:2] != ":" and not path.startswith("Volume{"):
                paths.append("/" + path.lstrip("/"))
        return Wanted(self.path, "vhdx", tuple(paths), self._refusal)

    def _refusal(self, parent: Device) -> str | None:
        """Why a device is not the parent; None if it is."""
        assert isinstance(parent, Vhdx)
        pairs = dict(self.metadata.parent or ())
        linkages = {pairs.get(key, "").strip("{}").lower() for key in ("parent_linkage", "parent_linkage2")}
        if str(parent.data_write) not in linkages:
            return f"its content is {parent.data_write}, and the child was made on another: it has been changed since"
        if parent.sector_size != self.sector_size:
            return f"it has sectors of {parent.sector_size} bytes, and the child of {self.sector_size}"
        return None

    # ---- bitmaps

    def _bitmap_at(self, block: int) -> int:
        return self._bitmap_place(block) + block % self._ratio * self._bitmap_length

    def _needed(self, block: int) -> int:
        """The bits of all sectors of a block that there are."""
        return ones(0, -(-min(self.block_size, self.size - block * self.block_size) // self.sector_size))

    def _known_bits(self, block: int) -> int | None:
        start = self._bitmap_at(block)
        data = b""
        for position in range(start // PAGE * PAGE, start + self._bitmap_length, PAGE):
            page = self._bitmaps.get(position)
            if page is None:
                return None
            data += page
        return int.from_bytes(data[start % PAGE :][: self._bitmap_length], "little")

    def _bits(self, block: int) -> int:
        bits = self._known_bits(block)
        if bits is not None:
            return bits
        with self._lock:
            if self.states[block] != PARTIAL:
                return self._needed(block)
            start = self._bitmap_at(block)
            for position in range(start // PAGE * PAGE, start + self._bitmap_length, PAGE):
                if position not in self._bitmaps:
                    self._bitmaps[position] = read(self.below, position, PAGE)
            bits = self._known_bits(block)
            self._forget_bitmaps()
        assert bits is not None
        return bits

    def _set_bits(self, block: int, bits: int) -> None:
        start = self._bitmap_at(block)
        data = bits.to_bytes(self._bitmap_length, "little")
        for position in range(start // PAGE * PAGE, start + self._bitmap_length, PAGE):
            page = self._bitmaps.get(position)
            if page is None:
                page = read(self.below, position, PAGE)
            at, skip = max(0, start - position), max(0, position - start)
            part = data[skip : skip + PAGE - at]
            self._bitmaps[position] = page[:at] + part + page[at + len(part) :]
            self._changed_pages.add(position)

    def _forget_bitmaps(self) -> None:
        """Keep no more pages than necessary."""
        if len(self._bitmaps) > _CACHED:
            needed = self._unapplied.keys() | self._changed_pages
            self._bitmaps = {position: page for position, page in self._bitmaps.items() if position in needed}

    # ---- changes

    def repair(self) -> None:
        """Write both headers anew."""
        self.headers.update(file_write=uuid.uuid4())

    def merge_quietly(self, data_write: uuid.UUID) -> None:
        """What children know it by is to become this one, at the first change."""
        self._data_write = data_write

    def _begin(self) -> None:
        """Name the log in the headers, with an entry in it that changes nothing (2.3.3: an empty one would be damage)."""
        log = LogWriter(self.below, self.headers.current, self._log_guid)
        self._append_nothing(log)
        self._flush_below()
        data_write = self._data_write or uuid.uuid4()
        self.headers.update(file_write=uuid.uuid4(), data_write=data_write, log=self._log_guid)
        self._log = log

    def _append_nothing(self, log: LogWriter) -> None:
        position = self.regions[BAT].position
        page = read(self.below, position, PAGE)
        log.append({position: page}, flushed_size=self._flushed_size, size=self._end)

    def _flush_below(self) -> None:
        size = self.below.size
        self.below.flush()
        self._flushed_size = max(self._flushed_size, size)

    def _allocate(self) -> int:
        place = self._free.take()
        if place is not None:
            if place + self.block_size > self.below.size:  # when power was lost, so was a part of the file's length
                self.below.truncate(place + self.block_size)
            self.below.discard(place, self.block_size)
            self._flush_below()
            return place
        return self._extend(self.block_size)

    def _extend(self, length: int) -> int:
        place = self._end
        self.below.truncate(place + length)
        self._end = place + length
        return place

    def _give_back(self, place: int) -> None:
        self._free.free.append(place)

    def _point(self, block: int, state: int, place: int, bits: int = 0) -> None:
        if self.places[block] != NOWHERE:
            self._free.release(self.places[block])
        if state == PARTIAL:
            if not self._bitmap_place(block):
                self._set_entry((block // self._ratio + 1) * (self._ratio + 1) - 1, PRESENT, self._extend(MB))
            self._set_bits(block, bits)
        self._ordered |= state != ZERO and self.states[block] == ABSENT and self.parent is not None
        self.places[block] = place
        self.states[block] = state
        self._set_entry(block + block // self._ratio, state, max(place, 0))

    def _set_entry(self, index: int, state: int, place: int) -> None:
        self._bat[index] = place | state
        self._changed_entries.add(index // _PER_PAGE)

    def _cover(self, block: int, bits: int) -> None:
        bits |= self._bits(block)
        self._ordered = True
        if bits & self._needed(block) == self._needed(block):
            self.states[block] = PRESENT
            self._set_entry(block + block // self._ratio, PRESENT, self.places[block])
        else:
            self._set_bits(block, bits)

    def _bat_page(self, number: int) -> bytes:
        entries = self._bat[number * _PER_PAGE : (number + 1) * _PER_PAGE]
        if sys.byteorder == "big":
            entries.byteswap()
        return entries.tobytes().ljust(PAGE, b"\0")

    def _publish(self) -> None:
        """By the log. An entry of the BAT that needs a bitmap comes before that bitmap's own: the last pages go first."""
        if not self._changed_entries and not self._changed_pages:
            return
        if self._ordered:
            self._flush_below()
        start = self.regions[BAT].position
        pages = {
            start + PAGE * number: self._bat_page(number) for number in sorted(self._changed_entries, reverse=True)
        }
        pages |= {position: self._bitmaps[position] for position in self._changed_pages}
        self._append(pages)
        self._unapplied |= dict.fromkeys(self._changed_pages, self._log_in_use.sequence)
        self._changed_entries.clear()
        self._changed_pages.clear()
        self._ordered = False
        self._forget_bitmaps()

    @property
    def _log_in_use(self) -> LogWriter:
        assert self._log is not None, "nothing is changed before _begin"
        return self._log

    def _append(self, pages: dict[int, bytes]) -> None:
        log, positions = self._log_in_use, list(pages)
        for at in range(0, len(positions), MOST_PAGES):
            part = {position: pages[position] for position in positions[at : at + MOST_PAGES]}
            if not log.has_room(len(part)):
                self._make_room()
            log.append(part, flushed_size=self._flushed_size, size=self._end)

    def _make_room(self) -> None:
        """Bring all that the log has to its place, and let an entry say so that is on stable storage itself."""
        log = self._log_in_use
        self._settle()
        self._settle()
        self._append_nothing(log)
        self._settle()

    def _settle(self) -> None:
        """Flush, and write what the log has to its place. Under the lock throughout."""
        log = self._log_in_use
        logged, applied = log.sequence, log.applied
        self._flush_below()
        self._apply(logged, applied)

    def _apply(self, logged: int, applied: int) -> None:
        for position, page in self._log_in_use.settle(logged, applied):
            self.below.pwritev([page], position)
        self._unapplied = {position: entry for position, entry in self._unapplied.items() if entry > logged}

    def flush(self) -> None:
        if self._log is None:
            self.below.flush()
            return
        with self._lock:
            self._publish()
            logged, applied = self._log.sequence, self._log.applied
            released = self._free.released()
            size = self.below.size
        self.below.flush()
        with self._lock:
            self._flushed_size = max(self._flushed_size, size)
            self._apply(logged, applied)
            for place in self._free.settle(released):
                self.below.discard(place, self.block_size)

    def leave_log(self) -> None:
        """Bring all to its place, and let the headers say that there is no log. Nobody uses the image."""
        if self._log is not None:
            self.flush()
            self._settle()
            self.headers.update(log=NO_GUID)
            self._log, self._log_guid = None, uuid.uuid4()
            self.begun = False

    def close(self) -> None:
        try:
            self.leave_log()
        finally:
            super().close()

    # ---- administration, while nobody uses it

    def grow(self, size: int) -> None:
        """Let the disk have `size` bytes; where the BAT is too short, in a region at the end of the file."""
        if size < self.size:
            raise ImageError(self.path, f"it has {self.size} bytes: an image cannot shrink, data would be cut off")
        if size % self.sector_size or size > MAX_SIZE:
            raise ImageError(self.path, f"a VHDX has whole sectors of {self.sector_size} bytes, and 64 TiB at most")
        self._begin_writing()
        self.flush()
        metadata = replace(self.metadata, size=size)
        self._bat.extend([0] * (metadata.entries - len(self._bat)))
        changed: dict[int, bytes] = {}
        region = self.regions[BAT]
        if 8 * metadata.entries > region.length:
            length = -(-8 * metadata.entries // MB) * MB
            region = Region(self._extend(length), length)
            for at in range(0, length, MB):
                pages = (self._bat_page(number) for number in range(at // PAGE, (at + MB) // PAGE))
                self.below.pwritev([b"".join(pages)], region.position + at)
            self._flush_below()
            table = pack_regions({**self.regions, BAT: region})
            for position in REGION_TABLES:
                changed |= self._changed(position, table)
            self.regions[BAT] = region
        changed |= self._changed(self._items[DISK_SIZE][0], size.to_bytes(8, "little"))
        self._log_whole(changed)
        more = metadata.blocks - len(self.states)
        self.metadata = metadata
        self.places.extend([NOWHERE] * more)
        self.states += bytes(more)
        self.size = size
        if self.kind == "fixed":
            for block in range(len(self.states) - more, len(self.states)):
                self._point(block, PRESENT, self._allocate())
            self._publish()
            self.flush()

    def set_parent(self, pairs: tuple[tuple[str, str], ...]) -> None:
        """Write another parent locator, behind all that the metadata region has."""
        self._begin_writing()
        self.flush()
        region, data = self.regions[METADATA], pack_locator(pairs)
        table = read(self.below, region.position, TABLE_LENGTH)
        moved, offset = with_item(table, PARENT_LOCATOR, len(data))
        if offset + len(data) > region.length:
            raise ImageError(self.path, "its metadata region has no room for another parent locator")
        self._log_whole(self._changed(region.position, moved) | self._changed(region.position + offset, data))
        self.metadata = replace(self.metadata, parent=pairs)

    def _log_whole(self, pages: dict[int, bytes]) -> None:
        """Change pages all together or not at all, for good."""
        if not self._log_in_use.has_room(len(pages)):
            self._make_room()
        self._log_in_use.append(pages, flushed_size=self._flushed_size, size=self._end)
        self._settle()
        self._settle()

    def _changed(self, position: int, data: bytes) -> dict[int, bytes]:
        """The pages of the file that change when `data` is written there."""
        pages = {}
        start = position // PAGE * PAGE
        old = read(self.below, start, -(-(position + len(data) - start) // PAGE) * PAGE)
        at = position - start
        new = old[:at] + data + old[at + len(data) :]
        for inside in range(0, len(new), PAGE):
            if new[inside : inside + PAGE] != old[inside : inside + PAGE]:
                pages[start + inside] = new[inside : inside + PAGE]
        return pages

    def shorten(self) -> None:
        """Let the file end with what is used last. It has no log in use meanwhile (2.3.1.1)."""
        self.leave_log()
        header = self.headers.current
        end = max(
            [header.log_offset + header.log_length]
            + [region.position + region.length for region in self.regions.values()]
            + [place + self.block_size for place in self.places if place != NOWHERE]
            + [self._bitmap_place(block) + MB for block in range(0, len(self.states), self._ratio) if self.parent]
        )
        if end < self._end:
            self.below.truncate(end)
            self._end = self._flushed_size = end
            self._free.free = [place for place in self._free.free if place + self.block_size <= end]
