"""A cartridge in a drive, wound to some position: reading, writing and spacing, without a word of SCSI."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import NamedTuple

from blockyard.media.cartridge import Cartridge, Description
from blockyard.media.partition import Partition, Seal
from blockyard.media.record import HEADER_LENGTH, Sealed

_MOST_WARNING = 1 << 30  # bytes before the end at which early warning begins, and no more than a sixteenth of all
_FILEMARK_ROOM = 1 << 16  # bytes beyond the end that are left for filemarks


class Stop(Enum):
    """Why spacing has ended."""

    DONE = "all was spaced over"
    FILEMARK = "a filemark stood in the way"
    END_OF_DATA = "there is nothing behind"
    BEGINNING = "there is nothing before"


class Spaced(NamedTuple):
    """How far it came."""

    number: int
    stop: Stop


class Tape:
    """The loaded cartridge. `position` is the number of the object that comes next. Not safe for two threads at a time."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.cartridge = Cartridge(directory)
        self.number = 0  # of the partition
        self.position = 0
        self.written = 0  # bytes, in this load,
        self.stored = 0  # and to how many they were compressed
        self.read_bytes = 0
        self.overwrite: tuple[int, int] | None = None  # partition and position for which ALLOW OVERWRITE holds

    @property
    def description(self) -> Description:
        return self.cartridge.description

    @property
    def partition(self) -> Partition:
        return self.cartridge.partitions[self.number]

    @property
    def capacity(self) -> int:
        """Bytes of the partition."""
        return self.description.capacities[self.number]

    @property
    def remaining(self) -> int:
        """Bytes of the partition behind the end of data."""
        return max(0, self.capacity - self.partition.end)

    @property
    def warning(self) -> int:
        """How many bytes before the end of the partition early warning begins."""
        return min(_MOST_WARNING, self.capacity // 16)

    @property
    def index_damaged(self) -> bool:
        """Whether an index was found damaged in this load, and made anew where that could be."""
        return any(partition.index_damaged for partition in self.cartridge.partitions)

    def left(self) -> int:
        """Bytes of the partition behind the position, of which more than all may have been used for filemarks."""
        return self.capacity - self._end_here()

    def near_end(self) -> bool:
        """Whether the position is in the region of early warning."""
        return self.left() < self.warning

    # ---- transfers

    def read(self) -> bytes | Sealed | None:
        """The next block, as it is stored where it is encrypted, or None for a filemark.

        Raises EOFError at the end of data, OSError for a damaged block.

        The position is behind what was read, or was damaged.
        """
        if self.position >= self.partition.objects:
            raise EOFError
        number, self.position = self.position, self.position + 1
        data = self.partition.read(number)
        if data is not None:
            self.read_bytes += data.length if isinstance(data, Sealed) else len(data)
        return data

    def read_at_once(self, buffer: memoryview) -> int | None:
        """Read the next record, if it is as long as the buffer and Partition.read_at_once does it; the block's checksum then."""
        partition, position = self.partition, self.position
        if position >= partition.objects or (checksum := partition.read_at_once(position, buffer)) is None:
            return None
        self.position = position + 1
        self.read_bytes += len(buffer) - HEADER_LENGTH
        return checksum

    def peek(self) -> bytes | Sealed | None:
        """The object that comes next, as `read`; None where there is none too. Raises OSError."""
        return self.partition.read(self.position) if self.position < self.partition.objects else None

    def reads_at_once(self, count: int) -> bool:
        """Whether so many blocks that come next can be read without waiting for a disk."""
        last = self.position + count - 1
        return last < self.partition.objects and self.partition.at_hand(last)

    def has_room(self, length: int) -> bool:
        """Whether a block of this length fits behind the position."""
        return self._end_here() + HEADER_LENGTH + length <= self.capacity

    def has_room_for_filemarks(self, count: int) -> bool:
        return self._end_here() + HEADER_LENGTH * count <= self.capacity + _FILEMARK_ROOM

    def _end_here(self) -> int:
        partition = self.partition
        return partition.end if self.position >= partition.objects else partition.offset(self.position)

    def only_filemarks_follow(self) -> bool:
        """Whether nothing but filemarks is behind the position: a WORM cartridge lets these be written over."""
        partition = self.partition
        return partition.filemarks - partition.filemarks_before(self.position) == partition.objects - self.position

    def write(self, data: bytes | bytearray | memoryview, *, compress: bool = False, seal: Seal | None = None) -> None:
        """Write a block; all that was behind the position is gone. Raises OSError."""
        self.partition.truncate(self.position)
        self.append(data, compress=compress, seal=seal)

    def append(self, data: bytes | bytearray | memoryview, *, compress: bool = False, seal: Seal | None = None) -> None:
        """Likewise, at the end of data, where nothing is behind. Raises OSError."""
        self.overwrite = None
        self.stored += self.partition.append(data, compress=compress, seal=seal)
        self.position += 1
        self.written += len(data)

    def append_at_once(self, data: memoryview, checksum: int) -> None:
        """Likewise, a block that is stored as it is, and whose checksum is known. Raises OSError."""
        length = len(data)
        self.overwrite = None
        self.partition.append_at_once(data, checksum)
        self.stored += length
        self.position += 1
        self.written += length

    def write_filemark(self) -> None:
        """A filemark; all that was behind the position is gone. Raises OSError."""
        self.cut()
        self.partition.append_filemark()
        self.position += 1

    def appends_at_once(self) -> bool:
        """Whether a write here waits for no disk: there is nothing to cut, and no checkpoint is due."""
        return self.position >= self.partition.objects and not self.partition.checkpoint_due

    def cut(self) -> None:
        """All that is behind the position is gone. Raises OSError."""
        self.partition.truncate(self.position)
        self.overwrite = None

    def erase(self) -> None:
        """Likewise, and its room goes back to the host. On stable storage when this returns. Raises OSError."""
        self.cut()
        self.partition.trim()
        self.sync()

    def sync(self) -> None:
        """Raises OSError."""
        self.cartridge.sync()

    # ---- positions

    def locate(self, number: int, position: int) -> bool:
        """Go to a position of a partition; to the end of data, and False, where there is none such."""
        self.number = number
        self.position = min(position, self.partition.objects)
        return self.position == position

    def locate_file(self, number: int, file: int) -> bool:
        """Go behind the filemark that so many come before, or to the beginning for 0; likewise."""
        self.number = number
        if file > self.partition.filemarks:
            self.position = self.partition.objects
            return False
        self.position = self.partition.filemark(file - 1) + 1 if file else 0
        return True

    def space_blocks(self, count: int) -> Spaced:
        """Over blocks: forward, or backward where `count` is negative. It ends behind, or before, a filemark in the way."""
        partition, here = self.partition, self.position
        before = partition.filemarks_before(here)
        if count >= 0:
            mark = partition.filemark(before) if before < partition.filemarks else None
            limit = partition.objects if mark is None else mark
            if here + count <= limit:
                self.position = here + count
                return Spaced(count, Stop.DONE)
            self.position = limit if mark is None else mark + 1
            return Spaced(limit - here, Stop.END_OF_DATA if mark is None else Stop.FILEMARK)
        mark = partition.filemark(before - 1) if before else None
        limit = 0 if mark is None else mark + 1
        if here + count >= limit:
            self.position = here + count
            return Spaced(-count, Stop.DONE)
        self.position = 0 if mark is None else mark
        return Spaced(here - limit, Stop.BEGINNING if mark is None else Stop.FILEMARK)

    def space_filemarks(self, count: int) -> Spaced:
        """Over filemarks: to behind the last one, or backward to before it."""
        partition = self.partition
        before = partition.filemarks_before(self.position)
        if count >= 0:
            found = min(count, partition.filemarks - before)
            if found == count:
                if count:
                    self.position = partition.filemark(before + count - 1) + 1
                return Spaced(count, Stop.DONE)
            self.position = partition.objects
            return Spaced(found, Stop.END_OF_DATA)
        if before >= -count:
            self.position = partition.filemark(before + count)
            return Spaced(-count, Stop.DONE)
        self.position = 0
        return Spaced(before, Stop.BEGINNING)

    def space_to_end(self) -> None:
        """To the end of data."""
        self.position = self.partition.objects

    # ---- the end

    def close(self, drive: str) -> None:
        """The drive with this vendor and serial number gives the cartridge back. Raises OSError."""
        description = self.description
        try:
            self.cartridge.change(
                written=description.written + self.written,
                read=description.read + self.read_bytes,
                last_drives=(drive, *description.last_drives)[:4],
            )
        finally:
            self.cartridge.close()
