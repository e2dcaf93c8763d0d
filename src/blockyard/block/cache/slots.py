"""The slots of a persistent cache: which line is where, what is only here, and when a slot may be used for something else.

No block is ever written in place. A write goes to a slot that nothing on stable storage refers to, and then an entry of the
table says so, with the next sequence number and the checksum of the block; so after a loss of power the entry with the highest
number whose block is sound is right, and the one before it is still there until then. A slot goes through these states:

    FREE → DIRTY                       a write
    DIRTY → OLD                        the line was written again: the entry stays until the newer one is stable
    DIRTY → WRITTEN → CLEAN            it was written back; its entry was taken away; that is stable
    OLD, DIRTY → CLEARED → FREE        its entry was taken away (discarded, superseded); that is stable
    FREE → CLEAN → FREE                it was read; it makes room

Only CLEAN slots are in the queues of the policy (fifo.py). An entry may go only when no older one of its line can be found any
more: `older` counts those.

A barrier is a flush of the device with what it allows (`begin_barrier`, `end_barrier`). Nothing here does I/O; all of it wants
`lock`.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from threading import Lock

from fastcrc.crc32 import iscsi as crc32c

from blockyard.block.cache.fifo import MOST, NOTHING, Fifo
from blockyard.block.cache.layout import CLEAN_ENTRY, DIRTY_ENTRY, ENTRIES, ENTRY, PAGE, Superblock, pack_entry

FREE, DIRTY, OLD, WRITTEN, CLEARED, CLEAN = range(6)
_MANY_OLD = 16384
REGION = 12  # bits of a line number within its region: dirty lines are kept by regions, to be written in order
_NO_ENTRY = bytes(ENTRY.size)
MEMORY = (
    240  # bytes a slot at most: of the index (124), table, line, sequence number, dirty set, queue, ghost, state, uses
)


class Slots:
    """The map of the cache that a superblock tells of, with nothing in it. One that replaces another has its `lock`."""

    def __init__(self, superblock: Superblock, lock: Lock | None = None) -> None:
        self.lock = lock or Lock()
        count = superblock.slots
        self.block = superblock.block
        self.data_at = superblock.data_at
        self.seed = crc32c(superblock.cache.bytes)
        self.index: dict[int, int] = {}  # line → slot
        self.fifo = Fifo(count)  # and `lines`, for slots of all states
        self.states = bytearray(count)
        self.numbers = array("Q", bytes(8 * count))  # change whenever something else gets into a slot
        self.sequence = 0
        self.table = bytearray(-(-count // ENTRIES) * PAGE)  # as it is to be on the device
        self.changed: set[int] = set()  # pages of it that are not there yet
        self.dirty: dict[int, set[int]] = {}  # region → its dirty lines
        self.dirty_count = 0
        self.older: dict[int, int] = {}  # line → entries of older blocks that may still be found
        self._old: list[int] = []  # slots whose entries may go when what came after is stable
        self._cleared: list[int] = []  # slots whose entries went since the last barrier
        self._free: list[int] = []
        self._fresh = 0  # slots from here on were never used
        self._many_old = min(_MANY_OLD, count // 8)
        self.evicted = 0

    @property
    def count(self) -> int:
        return len(self.states)

    def position(self, slot: int) -> int:
        """The byte of the device where a slot begins."""
        return self.data_at + slot * self.block

    @property
    def available(self) -> int:
        """Slots that can be had without writing anything back."""
        return len(self._free) + self.count - self._fresh + len(self.fifo)

    @property
    def many_old(self) -> bool:
        """Whether a barrier is worth its while; for more the lock would be held too long when it ends."""
        return len(self._old) >= self._many_old

    @property
    def is_settled(self) -> bool:
        """Whether another barrier would free nothing."""
        return not self._old and not self._cleared

    # ---- slots come and go

    def take(self) -> int:
        """A slot that nothing refers to; there must be one `available`."""
        if self._free:
            slot = self._free.pop()
        elif self._fresh < self.count:
            slot = self._fresh
            self._fresh += 1
        else:
            slot = self.fifo.evict()
            line = self.fifo.lines[slot]
            if line != NOTHING:
                del self.index[line]
                self.evicted += 1
        self.states[slot] = FREE
        self.fifo.lines[slot] = NOTHING
        self._renumber(slot)
        return slot

    def _renumber(self, slot: int) -> int:
        self.sequence += 1
        self.numbers[slot] = self.sequence
        return self.sequence

    def give_back(self, slots: Iterable[int]) -> None:
        """They were taken and not used."""
        self._free += slots

    def found(self, line: int) -> int:
        """Where a line is, or -1; that counts as a use."""
        slot = self.index.get(line, -1)
        if slot >= 0:
            uses = self.fifo.uses
            if uses[slot] < MOST:
                uses[slot] += 1
        return slot

    def put_clean(self, line: int, slot: int) -> None:
        """A line that is as on the origin has got into a slot that was taken."""
        self.index[line] = slot
        self.states[slot] = CLEAN
        self.fifo.insert(slot, line)

    def put_dirty(self, line: int, slot: int, checksum: int) -> None:
        """A line that was written has got into a slot that was taken."""
        self.dirty_entry(line, slot, checksum)
        self.changed.add(slot // ENTRIES)

    def dirty_entry(self, line: int, slot: int, checksum: int) -> bytes:
        """The same for who writes the entry, and not the page that it is in, to the device: the entry."""
        self._leave(line)
        self._hold(line, slot)
        self.fifo.uses[slot] = 1
        entry = pack_entry(line, self._renumber(slot), checksum, DIRTY_ENTRY, self.seed)
        self.table[slot * ENTRY.size : (slot + 1) * ENTRY.size] = entry
        return entry

    def _hold(self, line: int, slot: int) -> None:
        """The newest of a line is in this slot, and nowhere else."""
        self.index[line] = slot
        self.states[slot] = DIRTY
        self.fifo.lines[slot] = line
        self.dirty.setdefault(line >> REGION, set()).add(line)
        self.dirty_count += 1

    def _leave(self, line: int) -> None:
        """What there is of a line is not the newest any more."""
        slot = self.index.pop(line, None)
        if slot is None:
            return
        state = self.states[slot]
        if state == CLEAN:
            self.fifo.clear(slot)
            return
        self.older[line] = self.older.get(line, 0) + 1
        if state == DIRTY:
            self._clean(line)
            self.states[slot] = OLD
            self._old.append(slot)
        else:  # WRITTEN: its entry has gone
            self.states[slot] = CLEARED

    def _clean(self, line: int) -> None:
        lines = self.dirty[line >> REGION]
        lines.discard(line)
        self.dirty_count -= 1
        if not lines:
            del self.dirty[line >> REGION]

    def _enter(self, slot: int, entry: bytes) -> None:
        self.table[slot * ENTRY.size : (slot + 1) * ENTRY.size] = entry
        self.changed.add(slot // ENTRIES)

    def checksum(self, slot: int) -> int:
        """Of the block in a slot that is DIRTY."""
        checksum: int = ENTRY.unpack_from(self.table, slot * ENTRY.size)[2]
        return checksum

    # ---- entries go

    def has_entry(self, line: int) -> bool:
        """Whether something of a line may be found on the device after a loss of power."""
        slot = self.index.get(line)
        return line in self.older or (slot is not None and self.states[slot] != CLEAN)

    def written_back(self, line: int, slot: int, number: int) -> bool:
        """The origin has that block, stably: whether that was the newest, and it is not dirty any more."""
        if self.index.get(line) != slot or self.numbers[slot] != number or self.states[slot] != DIRTY:
            return False
        if line in self.older:
            return False
        self._clean(line)
        self.states[slot] = WRITTEN
        self._enter(slot, _NO_ENTRY)
        self._cleared.append(slot)
        return True

    def drop(self, line: int) -> None:
        """Nothing is to be known of a line any more. There are no `older` blocks of it unless it is not dirty."""
        slot = self.index.pop(line, None)
        if slot is None:
            return
        state = self.states[slot]
        if state == CLEAN:
            self.fifo.clear(slot)
            return
        self.older[line] = self.older.get(line, 0) + 1
        self.states[slot] = CLEARED
        if state == DIRTY:
            self._clean(line)
            self._enter(slot, _NO_ENTRY)
            self._cleared.append(slot)

    def forget_clean(self, lines: Iterable[int]) -> None:
        """Lines that are as on the origin are not here any more; who is reading one notices."""
        for line in lines:
            self._renumber(self.index[line])
            self.drop(line)

    def begin_barrier(self) -> tuple[list[int], list[int]]:
        """What a flush that comes now, after all `changed` pages are written, will allow: for `end_barrier`."""
        old, cleared = self._old, self._cleared
        self._old, self._cleared = [], []
        return old, cleared

    def end_barrier(self, old: list[int], cleared: list[int], *, done: bool = True) -> None:
        """The flush has been `done`; or it has failed."""
        if not done:
            self._old += old
            self._cleared += cleared
            return
        for slot in cleared:
            line = self.fifo.lines[slot]
            if self.states[slot] == WRITTEN:
                self.states[slot] = CLEAN
                uses = self.fifo.uses[slot]
                self.fifo.insert(slot, line)
                self.fifo.uses[slot] = uses
                continue
            self.states[slot] = FREE
            self._free.append(slot)
            left = self.older[line] - 1
            if left:
                self.older[line] = left
            else:
                del self.older[line]
        for slot in old:
            self.states[slot] = CLEARED
            self._enter(slot, _NO_ENTRY)
        self._cleared += old

    # ---- opening

    def restore(self, line: int, slot: int, number: int, *, dirty: bool) -> None:
        """An entry of the table, which holds it, is right. For a map that is not in use yet."""
        self.numbers[slot] = number
        if dirty:
            self._hold(line, slot)
        else:
            self.put_clean(line, slot)

    def restored(self, sequence: int) -> None:
        """All is restored; slots that have not been are free."""
        self.sequence = sequence
        self._fresh = self.count
        self._free = [slot for slot in range(self.count - 1, -1, -1) if self.states[slot] == FREE]
        for slot in self._free:
            at = slot * ENTRY.size
            if self.table[at : at + ENTRY.size] != _NO_ENTRY:
                self._enter(slot, _NO_ENTRY)

    def final_table(self) -> None:
        """Have all that is cached in the table, for a start with a warm cache. Nobody uses it any more, and it is settled."""
        for slot, state in enumerate(self.states):
            if state != DIRTY:
                line = self.fifo.lines[slot]
                clean = state == CLEAN and line != NOTHING
                entry = pack_entry(line, self.numbers[slot], 0, CLEAN_ENTRY, self.seed) if clean else _NO_ENTRY
                self._enter(slot, entry)

    def regions(self) -> list[int]:
        """Where there are dirty lines, in order."""
        return sorted(self.dirty)

    def dirty_lines(self, region: int) -> Iterator[tuple[int, int, int]]:
        """The dirty lines of a region in order, each with its slot and number."""
        for line in sorted(self.dirty.get(region, ())):
            slot = self.index[line]
            yield line, slot, self.numbers[slot]
