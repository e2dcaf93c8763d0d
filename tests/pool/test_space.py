"""The allocator against a plain model, with commits that end late or fail."""

from __future__ import annotations

import errno
from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from blockyard.pool.space import SLAB, SLAB_SHIFT, Freed, PoolFull, Slab, Space, Stored, member_of, offset_of, place_of

SHIFTS = (12, 16, 20, 22)


class Medium:
    """Remembers which bytes were punched, in units of 4 KiB."""

    def __init__(self, slabs: int, *, punches: bool = True) -> None:
        self.size = slabs * SLAB
        self.punches = punches
        self.written: set[int] = set()

    def punch(self, offset: int, length: int) -> bool:
        if self.punches:
            self.written -= set(range(offset >> 12, (offset + length) >> 12))
        return self.punches

    def write(self, place: int, shift: int) -> None:
        start = offset_of(place) >> 12
        self.written |= set(range(start, start + (1 << shift - 12)))

    def is_zero(self, place: int, shift: int) -> bool:
        start = offset_of(place) >> 12
        return self.written.isdisjoint(range(start, start + (1 << shift - 12)))


class Allocations(RuleBasedStateMachine):
    """Chunks come and go; what is stored at each commit must be what a crash brings back."""

    def __init__(self) -> None:
        super().__init__()
        self.media = [Medium(3), Medium(2, punches=False)]
        self.space = Space()
        for medium in self.media:
            self.space.add(medium)
        self.live: dict[int, int] = {}  # place → shift
        self.loose: dict[int, int] = {}  # allocated, not settled
        self.unusable: dict[int, int] = {}  # freed, not released
        self.disk: dict[Slab, Stored] = {}
        self.committing: tuple[list[Stored], list[Freed], dict[int, int]] | None = None
        self.durable: dict[int, int] = {}  # what was live at the last commit
        self.begun: list[Slab] = []  # slabs that are being wiped

    @rule(shift=st.sampled_from(SHIFTS))
    def allocate(self, shift: int) -> None:
        ready, free_slabs = self.space.is_ready(shift), self.space.free_slabs
        try:
            place, zero = self.space.allocate(shift)
            assert not ready or self.space.free_slabs == free_slabs
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return
        medium = self.media[member_of(place)]
        assert not zero or medium.is_zero(place, shift)
        units = _units(place, shift)
        for other, other_shift in {**self.live, **self.unusable}.items():
            assert units.isdisjoint(_units(other, other_shift)), "it is in use"
        medium.write(place, shift)
        self.live[place] = self.loose[place] = shift

    @rule(shift=st.sampled_from(SHIFTS))
    def begin(self, shift: int) -> None:
        if self.space.free_slabs:
            self.begun.append(self.space.begin(shift))
        else:
            with pytest.raises(PoolFull):
                self.space.begin(shift)

    @precondition(lambda self: self.begun)
    @rule()
    def prepare(self) -> None:
        slab = self.begun.pop()
        self.space.prepare(slab, clean=self.space.wipe_slab(slab))

    @precondition(lambda self: self.loose)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        place = data.draw(st.sampled_from(sorted(self.loose)))
        self.space.settle(place)
        del self.loose[place]

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        place = data.draw(st.sampled_from(sorted(self.live)))
        shift = self.live.pop(place)
        self.loose.pop(place, None)
        self.space.free(place, shift)
        self.unusable[place] = shift
        with pytest.raises(ValueError, match="not in use"):
            self.space.free(place, shift)

    @precondition(lambda self: self.committing is None)
    @rule()
    def begin_commit(self) -> None:
        self.committing = (*self.space.seal(), {place: self.live[place] for place in self.live.keys() - self.loose})

    @precondition(lambda self: self.committing is not None)
    @rule(wiped=st.booleans())
    def end_commit(self, wiped: bool) -> None:
        assert self.committing is not None
        stored, freed, live = self.committing
        self.committing = None
        self.disk.update({each.slab: each for each in stored})
        self.durable = live
        self.space.release(freed, self.space.wipe(freed) if wiped else ())
        for place, _ in freed:
            del self.unusable[place]

    @invariant()
    def counts_agree(self) -> None:
        assert self.space.waiting == sum(1 << shift for shift in self.unusable.values())
        assert self.space.used == self.space.waiting + sum(1 << shift for shift in self.live.values())
        assert all(self.space.is_used(place, shift) for place, shift in self.live.items())
        rooms = sum(self.space.room(shift) for shift in SHIFTS)
        assert self.space.used + rooms + self.space.spare_slabs * SLAB == self.space.size
        assert not any(self.space.is_used(place, shift) for place, shift in self.unusable.items())

    @invariant()
    def a_crash_brings_back_the_last_commit(self) -> None:
        again = Space()
        for medium in self.media:
            again.add(medium)
        for stored in self.disk.values():
            if stored.bitmap:
                again.load(stored)
        assert again.used == sum(1 << shift for shift in self.durable.values())
        assert all(again.is_used(place, shift) for place, shift in self.durable.items())
        assert again.seal() == ([], [])


Allocations.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestAllocations = Allocations.TestCase


def _units(place: int, shift: int) -> set[int]:
    start = (member_of(place) << 40) + (offset_of(place) >> 12)
    return set(range(start, start + (1 << shift - 12)))


def test_all_of_it_can_be_used_and_comes_back() -> None:
    space = Space()
    space.add(Medium(2))
    places = [space.allocate(16)[0] for _ in range(2 * SLAB >> 16)]
    for place in places:
        space.settle(place)
    assert len(set(places)) == len(places)
    assert places == sorted(places), "what is written in order lies in order"
    with pytest.raises(OSError, match="full"):
        space.allocate(12)
    for place in places:
        space.free(place, 16)
    with pytest.raises(OSError, match="full"):
        space.allocate(12)
    stored, freed = space.seal()
    assert all(not each.bitmap for each in stored)
    space.release(freed)
    assert space.used == 0
    space.allocate(SLAB_SHIFT)


def test_a_member_that_grows() -> None:
    medium, space = Medium(1), Space()
    space.add(medium)
    space.allocate(SLAB_SHIFT)
    medium.size += SLAB + 4096
    space.grow(0)
    assert space.size == 2 * SLAB
    assert offset_of(space.allocate(SLAB_SHIFT)[0]) == SLAB


def test_reserved_slabs_hold_no_chunks() -> None:
    space = Space()
    space.add(Medium(3), reserved=1)
    assert space.size == 2 * SLAB
    assert {offset_of(space.allocate(SLAB_SHIFT)[0]) for _ in range(2)} == {SLAB, 2 * SLAB}
    with pytest.raises(OSError, match="full"):
        space.allocate(12)
    with pytest.raises(ValueError, match="outside"):
        space.free(place_of(0, 0), SLAB_SHIFT)
    with pytest.raises(ValueError, match="not one for chunks"):
        space.load(Stored(Slab(0, 0), 16, 1))


def test_an_empty_member_can_be_taken_out() -> None:
    space = Space()
    for _ in range(2):
        space.add(Medium(2), reserved=1)
    first, second = (space.allocate(SLAB_SHIFT)[0] for _ in range(2))
    with pytest.raises(OSError, match="holds data"):
        space.retire(0)
    space.free(first, SLAB_SHIFT)
    with pytest.raises(OSError, match="holds data"):
        space.retire(0)
    _, freed = space.seal()
    space.release(freed)
    space.retire(0)
    assert space.size == SLAB
    with pytest.raises(OSError, match="full"):
        space.allocate(12)
    assert space.is_used(second, SLAB_SHIFT)


def test_what_was_freed_side_by_side_is_punched_at_once() -> None:
    class Counting(Medium):
        punched: ClassVar[list[tuple[int, int]]] = []

        def punch(self, offset: int, length: int) -> bool:
            self.punched.append((offset, length))
            return super().punch(offset, length)

    space = Space()
    space.add(Counting(2))
    places = [space.allocate(16)[0] for _ in range(6)]
    for at in (4, 1, 2, 0):
        space.free(places[at], 16)
    _, freed = space.seal()
    Counting.punched.clear()
    assert space.wipe(freed) == {0}
    assert Counting.punched == [(0, 3 << 16), (4 << 16, 1 << 16)]


def test_claiming_places() -> None:
    space = Space()
    space.add(Medium(2))
    place = place_of(0, SLAB + (3 << 16))
    space.claim(place, 16)
    for wrong, shift in ((place, 16), (place_of(0, SLAB), 12), (place + 1, 16), (place_of(0, 9 * SLAB), 16), (0, 16)):
        with pytest.raises(ValueError, match="place"):
            space.claim(wrong, shift)
    others = {space.allocate(16)[0] for _ in range(127)}
    assert place not in others
    assert len(others) == 127


@pytest.mark.parametrize(
    "stored",
    [Stored(Slab(1, 0), 16, 1), Stored(Slab(0, 5), 16, 1), Stored(Slab(0, 0), 11, 1), Stored(Slab(0, 0), 22, 2)],
)
def test_what_cannot_have_been_stored(stored: Stored) -> None:
    space = Space()
    space.add(Medium(2))
    with pytest.raises(ValueError, match="slab"):
        space.load(stored)


def test_what_was_prepared_can_be_used_for_something_else() -> None:
    """Where nothing else is left; and it is stored as free."""
    space = Space()
    space.add(Medium(4))
    space.settle(space.allocate(16)[0])
    for _ in range(3):
        space.prepare(space.begin(16), clean=True)
    stored, _ = space.seal()
    assert [each.bitmap.bit_count() for each in stored] == [1]
    for _ in range(3):
        space.settle(space.allocate(SLAB_SHIFT)[0])
    with pytest.raises(PoolFull):
        space.allocate(SLAB_SHIFT)
    others = {space.allocate(16)[0] for _ in range(63)}
    assert len(others) == 63
    assert space.used == space.size


def test_slabs_are_prepared_for_what_is_allocated() -> None:
    space = Space()
    space.add(Medium(100))
    assert space.wanted() == []
    space.allocate(16)
    assert space.hungry
    prepared = 0
    while wanted := space.wanted():
        assert wanted == [16]
        space.prepare(space.begin(16), clean=True)
        prepared += 1
    assert prepared == 8
    assert not space.hungry
    for _ in range(64):
        assert space.is_ready(16)
        space.allocate(16)
    assert space.hungry
