"""Maps of chunks: where each is, in which generation it was written, and where the volume has such its checksum.

A page covers 256 chunks. Pages come from the store when they are needed and stay in memory as long as the budget of the pool
allows; those that have changed stay until a commit has them.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Collection
from typing import NamedTuple
from weakref import WeakSet

from blockyard.pool.space import NOWHERE

PAGE_SHIFT = 8
CHUNKS = 1 << PAGE_SHIFT  # of a page
HOLE = (1 << 64) - 1  # a place: nothing is there, and nothing of the origin is to be seen either
PAGE_BYTES = 3600  # of a page in memory, with all that Python adds
BUDGET = 40 << 20  # bytes of all pages of a pool in memory, as far as they do not wait for a commit

_AHEAD = 4  # pages that are fetched together when one comes after another
_NO_PLACES = bytes(8 * CHUNKS)
_NO_BIRTHS = bytes(4 * CHUNKS)
_NO_SUMS = bytes(4 * CHUNKS)
_ALL = bytes(range(CHUNKS))


class Page:
    """Places and births of 256 chunks, and their checksums or None.

    `below` has, where it is known, the places that they have in what has been cloned.
    """

    __slots__ = ("below", "births", "places", "sums")

    def __init__(self, checksums: bool = False) -> None:
        self.places = array("Q", _NO_PLACES)
        self.births = array("I", _NO_BIRTHS)
        self.below: array[int] | None = None
        self.sums = array("I", _NO_SUMS) if checksums else None

    def image(self) -> Image:
        return Image(self.places.tobytes(), self.births.tobytes(), b"" if self.sums is None else self.sums.tobytes())


class Image(NamedTuple):
    """What a page was at one moment: its places, births and checksums as they lie in memory."""

    places: bytes
    births: bytes
    sums: bytes = b""

    def encode(self) -> bytes | None:
        """The page as it is stored, little endian; None when nothing is mapped.

        A byte says how many chunks are mapped (0: all), then come their numbers, a byte each, unless it is all. Then their
        places, 8 bytes each, and their births, 4 bytes each, or a single birth when all have the same; at last their checksums,
        4 bytes each, if there are such.
        """
        places, births, sums = array("Q", self.places), array("I", self.births), array("I", self.sums)
        mapped = _ALL
        if NOWHERE in places:
            mapped = bytes(index for index, place in enumerate(places) if place)
            if not mapped:
                return None
            places = array("Q", [places[index] for index in mapped])
            births = array("I", [births[index] for index in mapped])
            sums = array("I", [sums[index] for index in mapped] if sums else ())
        if births.count(births[0]) == len(births):
            del births[1:]
        if sys.byteorder == "big":
            places.byteswap()
            births.byteswap()
            sums.byteswap()
        numbers = b"" if len(mapped) == CHUNKS else mapped
        return bytes([len(mapped) & 0xFF]) + numbers + places.tobytes() + births.tobytes() + sums.tobytes()


def decode(data: bytes, checksums: bool = False) -> Page:
    """A stored page, with checksums or without. Raises ValueError for one that none can be."""
    count = data[0] if data else 0
    start = 1 + count
    count = count or CHUNKS
    end = len(data) - 4 * count * checksums  # of the births
    if end - start - 8 * count not in (4, 4 * count):
        raise ValueError(f"a map page of {len(data)} bytes with {count} chunks is none")
    places, births = array("Q", data[start : start + 8 * count]), array("I", data[start + 8 * count : end])
    sums = array("I", data[end:])
    if sys.byteorder == "big":
        places.byteswap()
        births.byteswap()
        sums.byteswap()
    if len(births) < count:
        births *= count
    page = Page(checksums)
    if count == CHUNKS:
        page.places, page.births = places, births
        page.sums = sums if checksums else None
        return page
    if page.sums is not None:
        for index, sum in zip(data[1:start], sums, strict=True):
            page.sums[index] = sum
    for index, place, birth in zip(data[1:start], places, births, strict=True):
        page.places[index] = place
        page.births[index] = birth
    return page


class Budget:
    """How many pages the maps of a pool may have in memory together.

    Nobody notes when a page is used: that would cost more than the use. Instead there are the pages that were used lately and
    those that were before, and a page that is used again comes back to the first. When these are half of what there may be,
    they become the others, and those are forgotten.
    """

    def __init__(self, limit: int = BUDGET) -> None:
        self._half = max(1, limit // PAGE_BYTES // 2)
        self._maps: WeakSet[LiveMap] = WeakSet()
        self._count = 0  # pages that were used lately
        self._turn = self._half  # how many it takes
        self.waiting = 0  # pages that wait for a commit, or for the end of one

    def add(self, live_map: LiveMap) -> None:
        self._maps.add(live_map)

    def spend(self) -> None:
        """One more page is going to be used."""
        if self._count >= self._turn:
            self._count = sum(live_map.age() for live_map in tuple(self._maps))
            self._turn = self._count + self._half
        self._count += 1


class LiveMap:
    """The map of one tree. `load` gets a stored page by its number."""

    def __init__(self, load: Callable[[int], bytes | None], budget: Budget, checksums: bool = False) -> None:
        self.pages: dict[int, Page] = {}  # that were used lately; always the same dict (quick.py looks into it)
        self._older: dict[int, Page] = {}
        self._load = load
        self._budget = budget
        self._checksums = checksums
        self._dirty: set[int] = set()
        self._sealed: set[int] = set()  # of a commit that is under way: the store does not have them yet
        budget.add(self)

    @property
    def dirty(self) -> int:
        """Pages that wait for a commit."""
        return len(self._dirty)

    def page(self, number: int) -> Page:
        page = self.pages.get(number)
        if page is None:
            if number - 1 in self.pages:  # somebody goes through it, and need not wait for each
                for following in range(number + 1, number + 1 + _AHEAD):
                    if following not in self.pages:
                        self._fetch(following)
            page = self._fetch(number)  # as the last: it stays at least until the next is fetched
        return page

    def _fetch(self, number: int) -> Page:
        self._budget.spend()
        page = self._older.pop(number, None)
        if page is None:
            data = self._load(number)
            page = Page(self._checksums) if data is None else decode(data, self._checksums)
        self.pages[number] = page
        return page

    def next_waiting(self, number: int) -> int | None:
        """The first page from `number` on that the store may not have yet."""
        waiting = (page for pages in (self._dirty, self._sealed) for page in pages if page >= number)
        return min(waiting, default=None)

    def get(self, chunk: int) -> tuple[int, int]:
        """Place and birth of a chunk."""
        page = self.page(chunk >> PAGE_SHIFT)
        index = chunk & (CHUNKS - 1)
        return page.places[index], page.births[index]

    def sum(self, chunk: int) -> int:
        """The checksum of a chunk; 0 where there are none."""
        sums = self.page(chunk >> PAGE_SHIFT).sums
        return 0 if sums is None else sums[chunk & (CHUNKS - 1)]

    def set(self, chunk: int, place: int, birth: int, sum: int = 0) -> None:
        self.set_in(self.page(chunk >> PAGE_SHIFT), chunk, place, birth, sum)

    def set_in(self, page: Page, chunk: int, place: int, birth: int, sum: int) -> None:
        """The same for who has just got the page of the chunk."""
        number, index = chunk >> PAGE_SHIFT, chunk & (CHUNKS - 1)
        page.places[index] = place
        page.births[index] = birth if place != NOWHERE else 0
        if page.sums is not None:
            page.sums[index] = sum
        if number not in self._dirty:
            self._dirty.add(number)
            self._budget.waiting += 1

    @property
    def waiting(self) -> Collection[int]:
        """Pages that the store does not have as they are."""
        return self._dirty | self._sealed

    def note(self, chunk: int, place: int) -> None:
        """Where a chunk is that is not in this map, and will not be anywhere else until it is: for who cannot look further."""
        page = self.page(chunk >> PAGE_SHIFT)
        if page.below is None:
            self._budget.spend()
            page.below = array("Q", _NO_PLACES)
        page.below[chunk & (CHUNKS - 1)] = place

    def seal(self) -> list[tuple[int, Image]]:
        """The pages that have changed, for the commit to store. `settle` follows when it is over."""
        images = [(number, self.pages[number].image()) for number in self._dirty]
        self._sealed = self._dirty
        self._dirty = set()
        return images

    def settle(self) -> None:
        """The commit is over."""
        self._budget.waiting -= len(self._sealed)
        self._sealed = set()

    def age(self) -> int:
        """Forget what has not been used for longest; how many pages have to stay because the store does not have them."""
        pages = self.pages
        kept = {number: pages[number] for number in self.waiting}
        self._older = {number: page for number, page in pages.items() if number not in kept}
        pages.clear()
        pages.update(kept)
        return len(kept)
