"""Pages of maps: as they are stored, and how many are in memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard.pool.livemap import CHUNKS, HOLE, PAGE_BYTES, Budget, LiveMap, Page, decode

_PLACES = st.integers(1, HOLE)
_BIRTHS = st.integers(0, (1 << 32) - 1)


@given(
    entries=st.dictionaries(st.integers(0, CHUNKS - 1), st.tuples(_PLACES, _BIRTHS)),
    rest=st.one_of(st.none(), st.tuples(_PLACES, _BIRTHS)),
)
def test_a_page_comes_back_as_it_was(entries: dict[int, tuple[int, int]], rest: tuple[int, int] | None) -> None:
    page = Page()
    for index in range(CHUNKS):
        page.places[index], page.births[index] = entries.get(index, rest or (0, 0))
    data = page.image().encode()
    if not entries and rest is None:
        assert data is None
        return
    assert data is not None
    again = decode(data)
    assert (again.places, again.births) == (page.places, page.births)


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"\1", b"\1\0" + bytes(8), b"\2\0\1" + bytes(21), b"\0" + bytes(CHUNKS * 12 + 1)]
)
def test_what_is_no_page(data: bytes) -> None:
    with pytest.raises(ValueError, match="map page"):
        decode(data)


class Stored:
    """Maps that share a budget, and what has been stored of them."""

    def __init__(self, pages: int) -> None:
        self.budget = Budget(pages * PAGE_BYTES)
        self.pages: dict[int, bytes | None] = {}
        self.loads = 0
        self.map = LiveMap(self.load, self.budget)
        self.other = LiveMap(lambda number: None, self.budget)

    def load(self, number: int) -> bytes | None:
        self.loads += 1
        return self.pages.get(number)

    def commit(self) -> None:
        for number, image in self.map.seal():
            self.pages[number] = image.encode()
        self.map.settle()

    @property
    def in_memory(self) -> int:
        return sum(len(each.pages) + len(each._older) for each in (self.map, self.other))


def test_no_more_pages_are_in_memory_than_there_may_be() -> None:
    stored = Stored(40)
    for number in range(1000):
        stored.map.set(number * CHUNKS, number + 1, 1)
        if number % 10 == 9:
            stored.commit()
        stored.other.page(number)
        assert stored.in_memory <= 40 + 10
    for number in range(1000):
        assert stored.map.get(number * CHUNKS) == (number + 1, 1)


def test_what_waits_for_a_commit_stays() -> None:
    stored = Stored(10)
    for number in range(100):
        stored.map.set(number * CHUNKS, number + 1, 1)
    sealed = stored.map.seal()
    stored.map.set(0, 500, 2)
    for number in range(100, 150):
        stored.map.page(number)
    assert [stored.map.get(number * CHUNKS)[0] for number in range(100)] == [500, *range(2, 101)]
    assert dict(sealed)[0].encode() == _stored(1, 1)
    stored.map.settle()
    (again,) = stored.map.seal()
    assert (again[0], again[1].encode()) == (0, _stored(500, 2))


def _stored(place: int, birth: int) -> bytes:
    return b"\1\0" + place.to_bytes(8, "little") + birth.to_bytes(4, "little")


def test_what_is_used_often_stays() -> None:
    stored = Stored(20)
    for number in range(500):
        stored.map.page(3 * number)
        stored.map.page(0)
    assert stored.loads == 500


def test_who_goes_through_it_waits_for_some_pages_only() -> None:
    stored = Stored(1000)
    misses = 0
    for number in range(100):
        misses += number not in stored.map.pages
        stored.map.page(number)
    assert misses < 30
    tight = Stored(4)
    for number in range(100):
        tight.map.set(number * CHUNKS, number + 1, 1)
        if number % 7 == 6:
            tight.commit()
    assert [tight.map.get(number * CHUNKS)[0] for number in range(100)] == list(range(1, 101))
