"""The write-intent bitmap: which regions of an array may differ between its members, in md's format (drivers/md/md-bitmap.h).

A bit is on stable storage on all members before anything is written to its region. It goes when all of them have flushed what was
written there, and nobody writes any more. After a crash, what has a bit is brought in line again, and until then it is not
trusted: copies are all read from one member, and nothing is restored from parity. While a member is missing no bit goes, so
that it only needs what it has missed when it comes back.

`_setting` is held while the bitmap is written to the members.
"""

from __future__ import annotations

import struct
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from threading import Lock

_MAGIC, _VERSION = 0x6D746962, 4
_HEADER = struct.Struct("<II16sQQQIIIII")  # …, sync size, state, chunk size, seconds, write behind, sectors reserved
_BITS_AT = 256
PAGE = 4096
_STALE = 2  # BITMAP_STALE, a bit of the state
_SECONDS = 5  # between two looks at what has become quiet


def room(count: int) -> int:
    """Bytes that a bitmap of so many regions takes on a member."""
    return -(-(_BITS_AT + (count + 7) // 8) // PAGE) * PAGE


class BitmapDamaged(ValueError):
    """What should be a bitmap is none: everything has to be taken for changed."""


class Bitmap:
    """Of `size` bytes in regions of `region`. `save` writes pages of `image` to all members, and flushes when told so."""

    def __init__(self, array: uuid.UUID, size: int, region: int) -> None:
        self.array = array
        self.size = size
        self.region = region
        self.count = -(-size // region)
        self.image = bytearray(room(self.count))
        self.ready = bytearray(self.count)  # the bit is set where it has to be, and stays
        self.touched = bytearray(self.count)  # somebody has written since the last look
        self.distrusted: set[int] = set()
        self.cleared_at = 0  # events of the array when a bit went for the last time
        self.save: Callable[[list[int], bool], None] = lambda pages, stable: None
        self.awaken: Callable[[], None] = lambda: None  # called before a first bit is set
        self.settle: Callable[[], None] = lambda: None  # called when the last bit has gone
        self._lock = Lock()
        self._setting = Lock()
        self._users: Counter[int] = Counter()
        self._closing: set[int] = set()

    # ---- as it lies on a member

    def stamp(self, events: int) -> None:
        """Put the fields into the image."""
        _HEADER.pack_into(
            self.image, 0, _MAGIC, _VERSION, self.array.bytes, events, self.cleared_at, self.size // 512, 0, self.region,
            _SECONDS, 0, len(self.image) // 512,
        )  # fmt: skip

    @classmethod
    def parse(cls, image: bytes, array: uuid.UUID, size: int, events: int) -> Bitmap:
        """Of what a member has; `events` are those of its superblock. Raises BitmapDamaged."""
        bitmap = cls.header(image, array, size)
        _, _, _, found_events, bitmap.cleared_at, _, state, *_ = _HEADER.unpack_from(image)
        if found_events < events or state & _STALE:
            raise BitmapDamaged("it is older than the array")
        bitmap.image[_BITS_AT:] = image[_BITS_AT : len(bitmap.image)]
        for region in range(bitmap.count):
            bitmap.ready[region] = image[_BITS_AT + region // 8] >> region % 8 & 1
        return bitmap

    @classmethod
    def header(cls, image: bytes, array: uuid.UUID, size: int) -> Bitmap:
        """An empty bitmap as the header says. Raises BitmapDamaged."""
        magic, version, owner, _, _, sectors, _, region, *_ = _HEADER.unpack_from(image)
        if magic != _MAGIC or version not in (3, 4) or owner != array.bytes:
            raise BitmapDamaged("it is none, or of another array")
        if sectors * 512 != size or region < 512 or region & region - 1:
            raise BitmapDamaged("it is of another size")
        if room(-(-size // region)) > len(image):
            raise BitmapDamaged("it is cut off")
        return cls(array, size, region)

    # ---- while it is in use

    def regions(self, start: int, end: int) -> range:
        return range(start // self.region, -(-end // self.region))

    def trusts(self, start: int, end: int) -> bool:
        """Whether the members of a range are known to be in line with each other."""
        return not self.distrusted or self.distrusted.isdisjoint(self.regions(start, end))

    def begin(self, start: int, end: int) -> None:
        """The range is going to be written. Raises MembersFailed. `end` follows in any case."""
        regions = self.regions(start, end)
        with self._lock:
            for region in regions:
                self._users[region] += 1
                self.touched[region] = 1
                if region in self._closing:  # its bit has not gone yet
                    self._closing.discard(region)
                    self.ready[region] = 1
            if all(self.ready[region] for region in regions):
                return
        self.set(regions)

    def end(self, start: int, end: int) -> None:
        with self._lock:
            for region in self.regions(start, end):
                self._users[region] -= 1
                if not self._users[region]:
                    del self._users[region]

    def set(self, regions: range) -> None:
        """Have the bits of regions on stable storage. Raises MembersFailed."""
        with self._setting:
            with self._lock:
                missing = [region for region in regions if not self.ready[region]]
            if not missing:
                return
            self.awaken()
            for region in missing:
                self.image[_BITS_AT + region // 8] |= 1 << region % 8
            self.save(self._pages(missing), True)
            with self._lock:
                for region in missing:
                    self._closing.discard(region)
                    self.ready[region] = 1

    def distrust(self, start: int, end: int) -> None:
        """What is in the range differs between members. Its bits are set."""
        self.distrusted.update(region for region in self.regions(start, end) if self.ready[region])

    def distrust_all(self) -> None:
        self.distrusted.update(region for region in range(self.count) if self.ready[region])

    def fill(self) -> None:
        """Set all bits, in memory."""
        self.ready[:] = b"\1" * self.count
        for region in range(self.count):
            self.image[_BITS_AT + region // 8] |= 1 << region % 8

    def quieten(self) -> list[int]:
        """Regions whose bits could go: nobody writes there, or has of late. Called when nobody is inside of the array's gate.

        Once all members have been flushed, `clear` follows.
        """
        with self._lock:
            quiet = [
                region
                for region in range(self.count)
                if self.ready[region]
                and not self.touched[region]
                and region not in self._users
                and region not in self.distrusted
            ]
            self.touched[:] = bytes(self.count)
            self._closing.update(quiet)
            for region in quiet:
                self.ready[region] = 0
            return quiet

    def reopen(self) -> None:
        """`clear` does not follow after all."""
        with self._lock:
            for region in self._closing:
                self.ready[region] = 1
            self._closing.clear()

    def clear(self, events: int) -> None:
        """Take the bits away that have been found quiet, unless somebody has come meanwhile. Raises MembersFailed."""
        with self._setting:
            with self._lock:
                gone = sorted(self._closing)
                self._closing.clear()
            if not gone:
                return
            for region in gone:
                self.image[_BITS_AT + region // 8] &= ~(1 << region % 8)
            self.cleared_at = events
            self.stamp(events)
            self.save(sorted({0, *self._pages(gone)}), False)
            if not any(self.image[_BITS_AT:]):
                self.settle()

    def _pages(self, regions: list[int]) -> list[int]:
        return sorted({(_BITS_AT + region // 8) // PAGE for region in regions})

    def join(self, other: Bitmap) -> None:
        """Take over the bits of another one, in memory."""
        for region in range(self.count):
            self.ready[region] |= other.ready[region]
        for at in range(_BITS_AT, len(self.image)):
            self.image[at] |= other.image[at]
        self.cleared_at = max(self.cleared_at, other.cleared_at)

    def is_set(self, start: int, end: int) -> bool:
        """Whether any bit of the range is set on the members."""
        return any(self.image[_BITS_AT + region // 8] >> region % 8 & 1 for region in self.regions(start, end))

    def dirty(self) -> Iterator[tuple[int, int]]:
        """The distrusted ranges, in order."""
        for region in sorted(self.distrusted):
            yield region * self.region, min((region + 1) * self.region, self.size)
