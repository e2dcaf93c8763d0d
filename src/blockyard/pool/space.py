"""Space in a pool: its members, cut into slabs, and the chunks that are allocated in them.

A slab is 4 MiB of one member. As long as anything in it is in use it serves one chunk size, from 4 KiB to 4 MiB, so
that a bitmap of at most 1024 bits tells all about it. A *place* is where a chunk is: a number of 64 bits, made of member
and unit of 4 KiB, plus one; 0 is no place.

What is freed may not be used again at once: until a commit without it is on stable storage, a crash would bring
back a map that leads there. So `free` only notes it; `seal` closes the list for one commit, and `release` opens
the space when that commit is durable and nobody reads there any more. Before that `wipe` gives it back to the file system
or device beneath; that is I/O, and happens outside of the pool's lock.
"""

from __future__ import annotations

import errno
import logging
from collections import Counter
from collections.abc import Collection, Iterable
from typing import NamedTuple, Protocol

UNIT_SHIFT = 12  # 4 KiB: the smallest chunk, and what places count in
SLAB_SHIFT = 22  # 4 MiB: the largest chunk
SLAB = 1 << SLAB_SHIFT
DEFAULT_SHIFT = 14  # 16 KiB: of a volume's chunks, unless somebody wants others
MEMBER_SHIFT = 40  # bits of a place below the member's number: 4 PiB a member
UNIT_MASK = (1 << MEMBER_SHIFT) - 1

log = logging.getLogger(__name__)

HEADER_SLABS = 1  # at the beginning of each member of a pool (members.py)

NOWHERE = 0
_AHEAD = 8  # slabs that are prepared before they are needed,
_PLENTY = 64  # as long as so many are free
_RESERVED = 0xFF  # in the place of a slab's shift: it is not for chunks


class Medium(Protocol):
    """What a member's bytes are kept in (members.DeviceMedium)."""

    @property
    def size(self) -> int:
        """Bytes."""

    def punch(self, offset: int, length: int) -> bool:
        """Free a range so that it reads as zeros. False where that cannot be promised."""


class PoolFull(OSError):
    """There is no space for another chunk, or none that may be used for it: ENOSPC, or EDQUOT beyond a quota."""


class Slab(NamedTuple):
    """Where a slab is: member, and its number there."""

    member: int
    number: int


def place_of(member: int, offset: int) -> int:
    """The place at byte `offset` of a member."""
    return (member << MEMBER_SHIFT | offset >> UNIT_SHIFT) + 1


def member_of(place: int) -> int:
    return (place - 1) >> MEMBER_SHIFT


def offset_of(place: int) -> int:
    """The byte of its member where a place begins."""
    return ((place - 1) & UNIT_MASK) << UNIT_SHIFT


class Freed(NamedTuple):
    """A chunk that is to be free once a commit is durable."""

    place: int
    shift: int


class Stored(NamedTuple):
    """What is stored of a slab: how large its chunks are, and which are in use. A bitmap of 0: it is free."""

    slab: Slab
    shift: int
    bitmap: int


class _Member:
    """One member and the state of its slabs."""

    def __init__(self, medium: Medium, reserved: int) -> None:
        self.medium = medium
        self.shifts = bytearray(medium.size >> SLAB_SHIFT)  # of a slab's chunks; 0: it is free
        self.reserved = min(reserved, len(self.shifts))  # slabs at its beginning that are not for chunks
        self.shifts[: self.reserved] = bytes([_RESERVED]) * self.reserved
        self.bitmaps: dict[int, int] = {}  # slab → chunks in use, where it is neither free nor full
        self.clean: set[int] = set()  # slabs whose free chunks read as zeros for certain
        self.next_free = 0  # no slab before this one is free


class _Open:
    """A slab whose free chunks are laid out for whoever needs one next. The bitmap has them as taken."""

    def __init__(self, slab: Slab, shift: int, free: int, *, clean: bool) -> None:
        first, step = place_of(slab.member, slab.number << SLAB_SHIFT), 1 << shift - UNIT_SHIFT
        bits = reversed(range(free.bit_length()))  # as the last is taken first
        self.slab = slab
        self.clean = clean  # they read as zeros
        self.places = dict.fromkeys([first + bit * step for bit in bits if free >> bit & 1])
        self._first, self._step, self._free = first, step, free

    @property
    def rest(self) -> int:
        """The bitmap of those that nobody has had yet."""
        if not self.places:
            return 0
        following: int = (next(reversed(self.places)) - self._first) // self._step
        return self._free >> following << following


class Space:
    """The allocator of a pool. For one thread at a time."""

    def __init__(self) -> None:
        self._members: list[_Member] = []
        self._partial: dict[int, dict[Slab, None]] = {}  # shift → slabs with room
        self._open: dict[int, _Open] = {}  # shift → the slab that chunks are taken from now
        self._prepared: dict[int, list[_Open]] = {}  # shift → slabs that will be
        self._empty: set[Slab] = set()  # slabs that have begun, and nothing was ever taken from
        self.hungry = False  # more of them should be prepared
        self._freed: list[Freed] = []  # since the last commit was sealed
        self._pending: dict[
            Slab, int
        ] = {}  # chunks that are freed and not released: bits that are set in the bitmap still
        self._dirty: set[Slab] = set()
        self._loose: set[int] = set()  # places that are allocated, and in no map yet
        self._room: Counter[int] = Counter()  # shift → chunks that are free in slabs of such
        self.size = 0  # bytes in all slabs of all members
        self.free_slabs = 0
        self.used = 0  # bytes in chunks that cannot be allocated, those included that wait for a release
        self.waiting = 0  # of these, the bytes that wait for a release
        self.released = 0  # bytes, ever

    @property
    def spare_slabs(self) -> int:
        """Slabs that hold nothing, those too that are made ready for a size of chunks: others get them when there are none."""
        return self.free_slabs + len(self._empty)

    def has_room(self, shift: int) -> bool:
        """Whether `allocate` would find a place."""
        return bool(self._room[shift] or self.spare_slabs)

    def room(self, shift: int) -> int:
        """Bytes that are free in slabs which hold chunks of 1 << `shift`: of no use for others."""
        ready = sum(self._members[slab.member].shifts[slab.number] == shift for slab in self._empty)
        return (self._room[shift] << shift) - (ready << SLAB_SHIFT)

    @property
    def slabs(self) -> list[int]:
        """How many slabs each member has."""
        return [len(member.shifts) for member in self._members]

    # ---- members, and what was stored of them

    def add(self, medium: Medium, reserved: int = 0) -> int:
        """Take in a member whose first slabs are `reserved` for something else; its number."""
        member = _Member(medium, reserved)
        self._members.append(member)
        self._more_slabs(len(member.shifts) - member.reserved)
        return len(self._members) - 1

    def grow(self, number: int) -> None:
        """A member's medium has become larger."""
        member = self._members[number]
        more = max(0, (member.medium.size >> SLAB_SHIFT) - len(member.shifts))
        member.shifts += bytes(more)
        self._more_slabs(more)

    def retire(self, number: int) -> None:
        """Take a member out; its number is never used again. Raises OSError (EBUSY) while anything is in it."""
        self._close()
        member = self._members[number]
        free = member.shifts.count(0)
        if free < len(member.shifts) - member.reserved:
            raise OSError(errno.EBUSY, "It holds data")
        if any(slab.member == number for slab in self._dirty):
            raise OSError(errno.EBUSY, "What was in it has just been freed, and is not committed yet")
        member.shifts = bytearray()
        member.clean.clear()
        self._more_slabs(-free)

    def _more_slabs(self, count: int) -> None:
        self.size += count << SLAB_SHIFT
        self.free_slabs += count

    def load(self, stored: Stored) -> None:
        """Take over what was stored of a slab. Raises ValueError for what cannot be."""
        slab, shift, bitmap = stored
        if slab.member >= len(self._members) or slab.number >= len(self._members[slab.member].shifts):
            raise ValueError(f"slab {slab.number} of member {slab.member} lies outside of the pool")
        if self._members[slab.member].shifts[slab.number]:
            raise ValueError(f"slab {slab.number} of member {slab.member} is not one for chunks, or is there twice")
        if not UNIT_SHIFT <= shift <= SLAB_SHIFT or not 0 < bitmap <= full(shift):
            raise ValueError(f"slab {slab.number} of member {slab.member} has no sensible bitmap")
        self._begin(slab, shift)
        self._room[shift] -= bitmap.bit_count()
        self.used += bitmap.bit_count() << shift
        self._put(slab, bitmap)
        self._dirty.discard(slab)

    def claim(self, place: int, shift: int) -> None:
        """Take a certain place, as when what was done before a crash is done again. Raises ValueError when it is taken."""
        slab, bit = self._locate(place, shift)
        member = self._members[slab.member]
        if member.shifts[slab.number] not in (0, shift):
            raise ValueError(f"place {place:#x} is in a slab with chunks of another size")
        self._close()
        bitmap = self._bitmap(slab)
        if bitmap & bit:
            raise ValueError(f"place {place:#x} is in use")
        if not member.shifts[slab.number]:
            self._begin(slab, shift)
        member.clean.discard(slab.number)
        self._put(slab, bitmap | bit)
        self._room[shift] -= 1
        self.used += 1 << shift

    # ---- chunks

    def allocate(self, shift: int) -> tuple[int, bool]:
        """A place for a chunk of 1 << `shift` bytes, and whether it reads as zeros. Raises PoolFull.

        To be settled when a map leads there, or freed. Until then no commit stores it as taken: if the process died, it would
        be nobody's for ever.
        """
        opened = self._open.get(shift)
        if opened is None or not opened.places:
            opened = self._open[shift] = self._next(shift)
        place, _ = opened.places.popitem()
        self._loose.add(place)
        self._dirty.add(opened.slab)
        self._room[shift] -= 1
        self.used += 1 << shift
        return place, opened.clean

    def is_ready(self, shift: int) -> bool:
        """Whether `allocate` would find a place without having to wipe a slab first."""
        opened = self._open.get(shift)
        return bool((opened is not None and opened.places) or self._partial.get(shift) or self._prepared.get(shift))

    def wanted(self) -> list[int]:
        """Shifts of chunks for which another slab should be prepared: those that are allocated, while there is plenty."""
        self.hungry = False
        if self.free_slabs < _PLENTY:
            return []
        return [shift for shift in self._open if len(self._prepared.get(shift, ())) < _AHEAD]

    def begin(self, shift: int) -> Slab:
        """Have a free slab for chunks of that size, which `prepare` makes ready when it has been wiped. Raises PoolFull."""
        for number, member in enumerate(self._members):
            found = member.shifts.find(0, member.next_free)
            member.next_free = len(member.shifts) if found < 0 else found
            if found >= 0:
                slab = Slab(number, found)
                self._begin(slab, shift)
                self._empty.add(slab)
                return slab
        raise PoolFull(errno.ENOSPC, "The pool is full")

    def wipe_slab(self, slab: Slab) -> bool:
        """Whether all of a slab reads as zeros now. It touches the medium alone, as `wipe` does."""
        return self._punch(slab.member, slab.number << SLAB_SHIFT, SLAB)

    def prepare(self, slab: Slab, *, clean: bool) -> None:
        """A slab that has begun is ready; `clean` says that it reads as zeros."""
        member = self._members[slab.member]
        shift = member.shifts[slab.number]
        (member.clean.add if clean else member.clean.discard)(slab.number)
        self._prepared.setdefault(shift, []).append(_Open(slab, shift, full(shift), clean=clean))

    def _next(self, shift: int) -> _Open:
        """The next slab that chunks are taken from. Raises PoolFull."""
        for slab in self._partial.get(shift, ()):
            bitmap = self._bitmap(slab)
            self._put(slab, full(shift))
            clean = slab.number in self._members[slab.member].clean
            return _Open(slab, shift, full(shift) & ~bitmap, clean=clean)
        if not self._prepared.get(shift):
            if not self.free_slabs:
                self._close()
            slab = self.begin(shift)
            self.prepare(slab, clean=self.wipe_slab(slab))
        opened = self._prepared[shift].pop(0)
        self._empty.discard(opened.slab)
        self.hungry = True
        return opened

    def _close(self) -> None:
        """Give back what was laid out, so that it can be used for something else."""
        opened = [*self._open.values(), *(each for prepared in self._prepared.values() for each in prepared)]
        self._open.clear()
        self._prepared.clear()
        self._empty.difference_update(each.slab for each in opened)
        for each in opened:
            if each.places:
                dirty = each.slab in self._dirty
                self._put(each.slab, self._bitmap(each.slab) & ~each.rest)
                if not dirty:
                    self._dirty.discard(each.slab)

    def settle(self, place: int) -> None:
        """A map leads to a place that was allocated."""
        self._loose.discard(place)

    def free(self, place: int, shift: int) -> None:
        """A chunk is used no more; its place can be allocated again after the next commit."""
        slab, bit = self._locate(place, shift)
        if (
            not self._bitmap(slab) & ~self._pending.get(slab, 0) & bit
            or self._members[slab.member].shifts[slab.number] != shift
        ):
            raise ValueError(f"place {place:#x} is not in use")
        if self._is_laid_out(place, slab, shift):
            raise ValueError(f"place {place:#x} is not in use")
        self._loose.discard(place)
        self._pending[slab] = self._pending.get(slab, 0) | bit
        self._freed.append(Freed(place, shift))
        self._dirty.add(slab)
        self.waiting += 1 << shift

    def is_used(self, place: int, shift: int) -> bool:
        """Whether a chunk of this size is at `place`, and not freed."""
        try:
            slab, bit = self._locate(place, shift)
        except ValueError:
            return False
        same = self._members[slab.member].shifts[slab.number] == shift
        if not same or self._is_laid_out(place, slab, shift):
            return False
        return bool(self._bitmap(slab) & ~self._pending.get(slab, 0) & bit)

    def _is_laid_out(self, place: int, slab: Slab, shift: int) -> bool:
        """Whether a place only counts as taken because it will be the next."""
        opened = self._open.get(shift)
        return slab in self._empty or (opened is not None and place in opened.places)

    # ---- commits

    def seal(self) -> tuple[list[Stored], list[Freed]]:
        """What a commit has to store of slabs, and what is to be released once it is durable."""
        unused = {slab: full(self._members[slab.member].shifts[slab.number]) for slab in self._empty}
        unused |= {opened.slab: opened.rest for opened in self._open.values()}
        loose = set()
        for place in self._loose:
            slab, bit = self._locate(place, self._members[member_of(place)].shifts[offset_of(place) >> SLAB_SHIFT])
            unused[slab] = unused.get(slab, 0) | bit
            loose.add(slab)
        stored = []
        for slab in self._dirty:
            bitmap = self._bitmap(slab) & ~self._pending.get(slab, 0) & ~unused.get(slab, 0)
            stored.append(Stored(slab, self._members[slab.member].shifts[slab.number], bitmap))
        freed = self._freed
        self._freed = []
        self._dirty = loose
        return stored, freed

    def wipe(self, freed: Iterable[Freed]) -> set[int]:
        """Give what is about to be released back to what is beneath; the members where it reads as zeros now.

        It touches the media alone: other threads may go on with everything else.
        """
        numbers: set[int] = set()
        failed: set[int] = set()
        for number, offset, length in _runs(freed):
            numbers.add(number)
            if not self._punch(number, offset, length):
                failed.add(number)
        return numbers - failed

    def _punch(self, number: int, offset: int, length: int) -> bool:
        try:
            return self._members[number].medium.punch(offset, length)
        except OSError as error:  # it is free all the same, if not for others
            log.warning("member %d: freed space cannot be given back: %s", number, error)
            return False

    def release(self, freed: Iterable[Freed], zeroed: Collection[int] = ()) -> None:
        """The commit is durable: what was freed before it can be allocated. It reads as zeros on the members `zeroed`."""
        for place, shift in freed:
            slab, bit = self._locate(place, shift)
            member = self._members[slab.member]
            if slab.member not in zeroed:
                member.clean.discard(slab.number)
            rest = self._pending[slab] & ~bit
            if rest:
                self._pending[slab] = rest
            else:
                del self._pending[slab]
            bitmap = self._bitmap(slab) & ~bit
            dirty = slab in self._dirty
            self._room[shift] += 1
            self._put(slab, bitmap)
            if not dirty:  # it is stored so already
                self._dirty.discard(slab)
            self.used -= 1 << shift
            self.waiting -= 1 << shift
            self.released += 1 << shift

    # ---- slabs

    def _locate(self, place: int, shift: int) -> tuple[Slab, int]:
        """The slab of a place, and its bit there. Raises ValueError for what is no place of such a chunk."""
        if place <= NOWHERE:
            raise ValueError("that is no place")
        offset = offset_of(place)
        slab = Slab(member_of(place), offset >> SLAB_SHIFT)
        inside = offset & (SLAB - 1)
        if slab.member >= len(self._members) or not self._members[slab.member].reserved <= slab.number < len(
            self._members[slab.member].shifts
        ):
            raise ValueError(f"place {place:#x} lies outside of the pool")
        if inside & ((1 << shift) - 1):
            raise ValueError(f"place {place:#x} is not where a chunk of {1 << shift} bytes can begin")
        return slab, 1 << (inside >> shift)

    def _begin(self, slab: Slab, shift: int) -> None:
        """A free slab is for chunks of this size from now on."""
        self._members[slab.member].shifts[slab.number] = shift
        self._room[shift] += 1 << (SLAB_SHIFT - shift)
        self.free_slabs -= 1

    def _bitmap(self, slab: Slab) -> int:
        """Chunks in use; those too that are freed and not released."""
        member = self._members[slab.member]
        shift = member.shifts[slab.number]
        if not shift:
            return 0
        return member.bitmaps.get(slab.number, full(shift))

    def _put(self, slab: Slab, bitmap: int) -> None:
        """Take note of a slab's new bitmap."""
        member = self._members[slab.member]
        shift = member.shifts[slab.number]
        partial = self._partial.setdefault(shift, {})
        self._dirty.add(slab)
        if 0 < bitmap < full(shift):
            member.bitmaps[slab.number] = bitmap
            partial[slab] = None
            return
        member.bitmaps.pop(slab.number, None)
        partial.pop(slab, None)
        if not bitmap:
            member.shifts[slab.number] = 0
            self._room[shift] -= 1 << (SLAB_SHIFT - shift)
            self.free_slabs += 1
            member.next_free = min(member.next_free, slab.number)


def _runs(freed: Iterable[Freed]) -> Iterable[tuple[int, int, int]]:
    """Member, offset and length of what was freed, with neighbours in one."""
    run: tuple[int, int, int] | None = None
    for place, shift in sorted(freed):
        number, offset = member_of(place), offset_of(place)
        if run is not None and run[0] == number and run[1] + run[2] == offset:
            run = (number, run[1], run[2] + (1 << shift))
        else:
            if run is not None:
                yield run
            run = (number, offset, 1 << shift)
    if run is not None:
        yield run


def full(shift: int) -> int:
    return (1 << (1 << (SLAB_SHIFT - shift))) - 1
