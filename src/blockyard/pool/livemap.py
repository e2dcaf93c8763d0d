"""Maps of chunks: where each is, and in which generation it was written.

A page covers 256 chunks. Pages come from the store when they are needed and stay in memory up to a limit; those that have
changed stay until the next commit has them.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Iterator

from blockyard.pool.space import NOWHERE

PAGE_SHIFT = 8
CHUNKS = 1 << PAGE_SHIFT  # of a page
HOLE = (1 << 64) - 1  # a place: nothing is there, and nothing of the origin is to be seen either
LIMIT = 8192  # pages in memory: 32 MiB
_ENTRY = 17  # bytes of a chunk in a stored page


class Page:
    """Places and births of 256 chunks."""

    __slots__ = ("births", "places")

    def __init__(self) -> None:
        self.places = array("Q", bytes(8 * CHUNKS))
        self.births = array("Q", bytes(8 * CHUNKS))

    def encode(self) -> bytes | None:
        """The page as it is stored: the numbers of the chunks that are mapped, their places, their births, little endian.

        None when nothing is mapped.
        """
        mapped = bytes(index for index, place in enumerate(self.places) if place)
        if not mapped:
            return None
        places = array("Q", (self.places[index] for index in mapped))
        births = array("Q", (self.births[index] for index in mapped))
        if sys.byteorder == "big":
            places.byteswap()
            births.byteswap()
        return mapped + places.tobytes() + births.tobytes()


def decode(data: bytes) -> Page:
    """A stored page. Raises ValueError for one of a length that none has."""
    count, rest = divmod(len(data), _ENTRY)
    if rest or not 0 < count <= CHUNKS:
        raise ValueError(f"a map page of {len(data)} bytes is none")
    places, births = array("Q", data[count : 9 * count]), array("Q", data[9 * count :])
    if sys.byteorder == "big":
        places.byteswap()
        births.byteswap()
    page = Page()
    for index, place, birth in zip(data[:count], places, births, strict=True):
        page.places[index] = place
        page.births[index] = birth
    return page


class LiveMap:
    """The map of one tree. `load` gets a stored page by its number."""

    def __init__(self, load: Callable[[int], bytes | None], limit: int = LIMIT) -> None:
        self.pages: dict[int, Page] = {}
        self._load = load
        self._limit = limit
        self._dirty: set[int] = set()
        self._sealed: set[int] = set()  # of a commit that is under way: the store does not have them yet

    @property
    def dirty(self) -> int:
        """Pages that wait for a commit."""
        return len(self._dirty)

    def page(self, number: int) -> Page:
        page = self.pages.get(number)
        if page is None:
            data = self._load(number)
            page = Page() if data is None else decode(data)
            if len(self.pages) >= self._limit:
                self._evict()
            self.pages[number] = page
        return page

    def get(self, chunk: int) -> tuple[int, int]:
        """Place and birth of a chunk."""
        page = self.page(chunk >> PAGE_SHIFT)
        index = chunk & (CHUNKS - 1)
        return page.places[index], page.births[index]

    def set(self, chunk: int, place: int, birth: int) -> None:
        number = chunk >> PAGE_SHIFT
        page = self.page(number)
        index = chunk & (CHUNKS - 1)
        page.places[index] = place
        page.births[index] = birth if place != NOWHERE else 0
        self._dirty.add(number)

    def seal(self) -> Iterator[tuple[int, bytes | None]]:
        """The pages that have changed, as the commit stores them. They must all be taken, and `settle` be called after it."""
        for number in self._dirty:
            yield number, self.pages[number].encode()
        self._sealed = self._dirty
        self._dirty = set()

    def settle(self) -> None:
        """The commit is over."""
        self._sealed = set()

    def _evict(self) -> None:
        """Forget a tenth of the pages, those first that came first and that the store has."""
        doomed = [number for number in self.pages if number not in self._dirty and number not in self._sealed]
        for number in doomed[: max(1, self._limit // 10)]:
            del self.pages[number]
