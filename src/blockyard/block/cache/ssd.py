"""A cache on a fast persistent device before a slow one: for reads, and for writes too ("write-back").

What was written is on the cache device when a write returns, and stable when `flush` does; a thread brings it to the origin
later, in the order of addresses. Why no loss of power, of either device in any order, takes what was flushed: slots.py says how
blocks and entries follow each other; besides

* an entry goes only after the origin has been flushed with what was in its block;
* what is zeroed goes from the origin first, stably if an entry leads to older bytes, then from the cache.

Who writes has the range for himself among writers (`writers`); what changes the origin has it for itself among those (`below`),
so that no block is written back over what came later. Entries of one page of the table must reach the device in order:
`publishing` is held while they are written. No other lock is held over I/O.

In write-through mode writes go to the origin, unless an entry of the same line may still be found: then they go the other way.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from threading import Condition, Lock

from fastcrc.crc32 import iscsi as crc32c

from blockyard.block.actions import Action
from blockyard.block.cache.layout import (
    CLOSED,
    PAGE,
    TABLE_AT,
    WANTS_CACHE,
    WHOLE,
    Mark,
    Superblock,
    write_mark,
    write_superblock,
)
from blockyard.block.cache.slots import MEMORY, Slots
from blockyard.block.cache.ssd_actions import ssd_actions
from blockyard.block.cache.ssd_options import BACK, SsdOptions
from blockyard.block.cache.ssd_quick import QuickSsd
from blockyard.block.cache.ssd_zeros import with_dirty, zero
from blockyard.block.cache.write_back import Notify, WriteBack
from blockyard.block.device import Device, Run, Space, merged
from blockyard.block.ranges import Ranges
from blockyard.block.size import format_size

_LINES = 256  # that are read or written at a time
Bytes = memoryview | bytes | bytearray
Piece = tuple[int, memoryview]  # a line and all of its block that there is of the disk


class SsdCache(Device):
    """The disk on `origin`, with the cache on `device` that `slots` is the map of. It owns both. Opened by ssd_opening.py."""

    def __init__(
        self, origin: Device, device: Device, superblock: Superblock, slots: Slots, options: SsdOptions, notify: Notify,
        *, read_only: bool,
    ) -> None:  # fmt: skip
        self.origin = origin
        self.device = device
        self.children = (origin, device)
        self.superblock = superblock
        self.slots = slots
        self.options = options
        self.mode = options.mode
        self.size = superblock.size
        self.block = superblock.block
        self.read_only = read_only
        self.granularity = origin.granularity
        self.rotational = origin.rotational
        self.attached = True
        self.hits = self.misses = self.written_back = 0
        self.failure: OSError | None = None  # why nothing can be written back
        self.room = Condition(slots.lock)  # something has been written back, or is to be
        self.below = Ranges()
        self.set_limit()
        self.writers = Ranges()
        self.publishing = Lock()
        self._fills: dict[int, object] = {}  # line → the token of whoever fetches it
        self.filling = 0  # how many fetch something that they may put into the cache
        self.resizing = False  # then nobody more does
        self.touched = False  # the origin has something that is not flushed
        self._flushing = Condition()
        self._begun = self._ended = 0  # barriers
        self._broken: OSError | None = None  # why one failed: what it should have made stable may be gone
        self.write_back = WriteBack(self, notify)
        fast = device.fd >= 0 and not read_only
        self.quick = QuickSsd(self) if fast else None

    def set_limit(self) -> None:
        """Work out how many slots may be dirty."""
        self.limit = max(1, self.slots.count * self.options.dirty // 100)
        self.much = max(1, self.limit // 4)  # then it is written back without delay

    # ---- reading

    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        missed = False
        for buffer in buffers:
            view, step = memoryview(buffer).cast("B"), _LINES * self.block
            for at in range(0, len(view), step):
                missed |= self._read(view[at : at + step], offset + at)
            offset += len(view)
        with self.slots.lock:
            self.misses += missed
            self.hits += not missed

    def _read(self, buffer: memoryview, offset: int) -> bool:
        """Fill a buffer; whether some of it was not in the cache. What was given to another line meanwhile is read again."""
        missing = self._read_slots(buffer, offset)
        while missing is None:
            missing = self._read_slots(buffer, offset)
        for start, end in missing:
            self._fetch(buffer[start - offset : end - offset], start)
        return bool(missing)

    def _read_slots(self, buffer: memoryview, offset: int) -> list[tuple[int, int]] | None:
        """Fill what is in the cache; the other ranges. None when a slot got other bytes meanwhile."""
        size, end = self.block, offset + len(buffer)
        missing: list[tuple[int, int]] = []
        runs: list[list[int]] = []  # offset, end, position on the device
        looked: list[tuple[int, int]] = []
        with self.slots.lock:
            slots = self.slots
            for line in range(offset // size, -(-end // size)):
                start, until = max(line * size, offset), min((line + 1) * size, end)
                slot = slots.found(line)
                if slot < 0:
                    if missing and missing[-1][1] == start:
                        start = missing.pop()[0]
                    missing.append((start, until))
                    continue
                looked.append((slot, slots.numbers[slot]))
                position = slots.position(slot) + start - line * size
                if runs and runs[-1][1] == start and runs[-1][2] + start - runs[-1][0] == position:
                    runs[-1][1] = until
                else:
                    runs.append([start, until, position])
        for start, until, position in runs:
            self.device.preadv([buffer[start - offset : until - offset]], position)
        with self.slots.lock:
            if slots is not self.slots or any(slots.numbers[slot] != number for slot, number in looked):
                return None
        return missing

    def _fetch(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` from the origin, and have what is not too long for it in the cache."""
        with self.slots.lock:
            fills = len(buffer) <= self.options.bypass and not self.read_only and self.attached and not self.resizing
            self.filling += fills
        if not fills:
            self.origin.preadv([buffer], offset)
            return
        try:
            self._fill(buffer, offset)
        finally:
            with self.room:
                self.filling -= 1
                self.room.notify_all()

    def _fill(self, buffer: memoryview, offset: int) -> None:
        size, end = self.block, offset + len(buffer)
        start, stop = offset // size * size, min(-(-end // size) * size, self.size)
        data = buffer if start == offset and stop == end else memoryview(bytearray(stop - start))
        lines, token = range(start // size, -(-stop // size)), object()
        with self.slots.lock:
            self._fills.update(dict.fromkeys(lines, token))
        try:
            self.origin.preadv([data], start)
            self._keep([(line, data[line * size - start : (line + 1) * size - start]) for line in lines], token)
        finally:
            with self.slots.lock:
                for line in lines:
                    if self._fills.get(line) is token:
                        del self._fills[line]
        if data is not buffer:
            buffer[:] = data[offset - start : end - start]

    def _keep(self, pieces: Sequence[Piece], token: object) -> None:
        """Put lines that are as on the origin into the cache, as far as there is room, unless somebody has written there."""
        slots, taken = self.slots, list[tuple[int, Piece]]()
        with slots.lock:
            for line, data in pieces:
                if self._fills.get(line) is token and line not in slots.index and slots.available:
                    taken.append((slots.take(), (line, data)))
        try:
            self._write_slots(taken)
        except OSError:  # the device below has it: nothing is lost
            with slots.lock:
                slots.give_back(slot for slot, _ in taken)
            return
        with slots.lock:
            for slot, (line, _) in taken:
                if self._fills.get(line) is token and line not in slots.index:
                    slots.put_clean(line, slot)
                else:
                    slots.give_back([slot])

    def _write_slots(self, taken: Sequence[tuple[int, Piece]]) -> None:
        at = 0
        while at < len(taken):
            end = at + 1
            while end < len(taken) and taken[end][0] == taken[at][0] + end - at:
                end += 1
            self.device.pwritev([data for _, (_, data) in taken[at:end]], self.slots.position(taken[at][0]))
            at = end

    def strike(self, first: int, stop: int) -> None:
        """What is being fetched there is older than what was written. With the lock held."""
        if self._fills:
            for line in range(first, stop) if stop - first < len(self._fills) else list(self._fills):
                if first <= line < stop:
                    self._fills.pop(line, None)

    # ---- writing

    def pwritev(self, buffers: Sequence[Bytes], offset: int) -> None:
        view = memoryview(buffers[0] if len(buffers) == 1 else b"".join(buffers)).cast("B")
        if not len(view):
            return
        with self.alone(offset, offset + len(view)):
            self.write(view, offset)

    @contextlib.contextmanager
    def alone(self, start: int, end: int) -> Iterator[None]:
        """No other writer is at the lines of the range."""
        with self.writers.taken(start // self.block, -(-end // self.block)):
            yield

    def write(self, view: memoryview, offset: int) -> None:
        """Write, the range being one's own."""
        step = min(_LINES, max(1, self.limit // 2)) * self.block
        at, end = offset, offset + len(view)
        while at < end:
            until = min(at - at % step + step, end)
            part = view[at - offset : until - offset]
            if self.mode == BACK or not self._write_through(part, at):
                self._store(self._pieces(part, at))
            at = until

    def _pieces(self, view: memoryview, offset: int) -> list[Piece]:
        """Whole lines: what they have already around what is written. The range is one's own."""
        size, end = self.block, offset + len(view)
        pieces: list[Piece] = []
        for line in range(offset // size, -(-end // size)):
            start, until = line * size, min((line + 1) * size, self.size)
            if offset <= start and until <= end:
                pieces.append((line, view[start - offset : until - offset]))
                continue
            whole = memoryview(bytearray(until - start))
            self._read(whole, start)
            first, last = max(start, offset), min(until, end)
            whole[first - start : last - start] = view[first - offset : last - offset]
            pieces.append((line, whole))
        return pieces

    def _store(self, pieces: Sequence[Piece]) -> None:
        """Have whole lines in the cache, as dirty ones."""
        slots = self.slots
        taken = list(zip(self._take(len(pieces)), pieces, strict=True))
        try:
            self._write_slots(taken)
            checksums = [crc32c(data) for _, data in pieces]
        except BaseException:
            with slots.lock:
                slots.give_back(slot for slot, _ in taken)
            raise
        with slots.lock:
            self.strike(pieces[0][0], pieces[-1][0] + 1)
            for (slot, (line, _)), checksum in zip(taken, checksums, strict=True):
                slots.put_dirty(line, slot, checksum)
        self.publish()
        self.hurry()

    def hurry(self) -> None:
        """Have the thread work at once when there is much to do."""
        much = self.slots.many_old or self.slots.dirty_count >= self.much
        if much and not self.write_back.wanted.is_set():
            self.write_back.wanted.set()

    def _take(self, count: int) -> list[int]:
        """Slots, when there may be so many dirty ones more."""
        slots = self.slots
        while True:
            with self.room:
                while slots.dirty_count + count > self.limit or (slots.available < count and slots.is_settled):
                    if self.failure is not None:
                        raise OSError(
                            self.failure.errno, f"The cache is full of what the origin does not take: {self.failure}"
                        )
                    self.write_back.wanted.set()
                    self.room.wait()
                if slots.available >= count:
                    return [slots.take() for _ in range(count)]
            self.barrier()

    def publish(self) -> None:
        """Write the pages of the table that have changed, so that they survive the death of the process."""
        with self.publishing:
            self.publish_locked()

    def publish_locked(self) -> None:
        """The same for who has `publishing` already."""
        with self.slots.lock:
            pages = sorted(self.slots.changed)
            self.slots.changed.clear()
            images = [bytes(self.slots.table[page * PAGE : (page + 1) * PAGE]) for page in pages]
        try:
            for page, image in zip(pages, images, strict=True):
                self.device.pwritev([image], TABLE_AT + page * PAGE)
        except BaseException:
            with self.slots.lock:
                self.slots.changed.update(pages)
            raise

    def _write_through(self, part: memoryview, offset: int) -> bool:
        """Write to the origin; False where an entry of the table would show something older after a crash."""
        size, end = self.block, offset + len(part)
        first, stop = offset // size, -(-end // size)
        with self.below.taken(first, stop):
            with self.slots.lock:
                if any(self.slots.has_entry(line) for line in range(first, stop)):
                    return False
            token = object()
            try:
                self.origin.pwritev([part], offset)
            finally:
                with self.slots.lock:
                    self.touched = True
                    for line in range(first, stop):
                        self.slots.drop(line)
                    self.strike(first, stop)
            if self.attached:
                with self.slots.lock:
                    self._fills.update(dict.fromkeys(range(first, stop), token))
                whole = range(-(-offset // size), end // size)
                self._keep([(line, part[line * size - offset : (line + 1) * size - offset]) for line in whole], token)
            with self.slots.lock:
                self.strike(first, stop)
        return True

    # ---- stability

    def flush(self) -> None:
        """Everything is stable: on the cache device, and on the origin what went there directly."""
        if self.read_only:
            return
        if self.attached:
            self.barrier()
        self.flush_origin()

    def go_without(self) -> None:
        """Go on without the cache, which has nothing that the origin lacks."""
        with self.slots.lock:
            self.attached = False
            self._fills.clear()
            self.slots.index.clear()

    def flush_origin(self) -> None:
        """Make stable what went to the origin directly, if anything did."""
        with self.slots.lock:
            touched, self.touched = self.touched, False
        if touched:
            try:
                self.origin.flush()
            except BaseException:
                self.touched = True
                raise

    def barrier(self) -> None:
        """Make stable what is on the cache device, one barrier for all who ask while another is under way.

        Once it has failed it goes on failing, as nobody knows any more what the device has.
        """
        with self._flushing:
            needed = self._begun + 1
            while self._ended < needed and self._ended < self._begun:
                self._flushing.wait()
            mine = self._ended < needed
            if mine:
                self._begun += 1
        if mine:
            broken = self._broken
            try:
                if broken is None:
                    self._barrier()
            except OSError as error:
                broken = error
            self._end_barrier(broken)
        self._want_sound()

    def _end_barrier(self, broken: OSError | None) -> None:
        with self._flushing:
            self._ended += 1
            self._broken = broken
            self._flushing.notify_all()

    def _want_sound(self) -> None:
        if self._broken is not None:
            raise OSError(self._broken.errno, f"The cache device cannot be flushed: {self._broken.strerror}")

    @contextlib.contextmanager
    def no_barrier(self) -> Iterator[None]:
        """No barrier is under way. One that fails in here goes on failing."""
        with self._flushing:
            while self._ended < self._begun:
                self._flushing.wait()
            self._begun += 1
        broken = self._broken
        try:
            self._want_sound()
            yield
        except OSError as error:
            broken = broken or error
            raise
        finally:
            self._end_barrier(broken)

    def _barrier(self) -> None:
        slots = self.slots
        with slots.lock:
            old, cleared = slots.begin_barrier()
            stable = slots.sequence
        done = False
        try:
            self.publish()
            self.device.flush()
            done = True
        finally:
            with self.room:
                slots.end_barrier(old, cleared, done=done)
                self.room.notify_all()
        self.superblock = write_superblock(self.device, replace(self.superblock, stable=stable))
        self.publish()

    # ---- zeros

    def discard(self, offset: int, length: int) -> None:
        zero(self, offset, length, self.origin.discard)

    def write_zeroes(self, offset: int, length: int) -> None:
        zero(self, offset, length, self.origin.write_zeroes)

    @property
    def lines(self) -> int:
        """How many there are of the disk."""
        return -(-self.size // self.block)

    # ---- what it is

    def space(self) -> Space | None:
        return self.origin.space()

    def prefetch(self, offset: int, length: int) -> None:
        self.origin.prefetch(offset, length)

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        """What is mapped on the origin, or is dirty."""
        yield from merged(part for run in self.origin.runs(offset, length) for part in with_dirty(self, run))

    def report(self) -> dict[str, object]:
        """Hits and misses are counted by reads; a read misses if any of it does."""
        slots, block = self.slots, self.block
        dirty = slots.dirty_count * block
        text = f"write-{self.mode}, {format_size(len(slots.index) * block)} cached, {format_size(dirty)} to be written back"
        report: dict[str, object] = {
            "text": text if self.attached else "detached: the origin has everything",
            "counters": {
                "hits": self.hits,
                "misses": self.misses,
                "evictions": slots.evicted,
                "written_back_bytes": self.written_back,
            },
            "gauges": {
                "dirty_bytes": dirty,
                "dirty_limit_bytes": self.limit * block,
                "lines": len(slots.index),
                "capacity_bytes": slots.count * block,
                "memory_bytes": slots.count * MEMORY,
            },
        }
        if self.failure is not None:
            report["health"] = "degraded"
            report["text"] = f"{text}; the origin does not take it: {self.failure}"
        return report

    def actions(self) -> Mapping[str, Action]:
        return ssd_actions(self) if self.attached and not self.read_only else {}

    def closing_mark(self) -> Mark:
        state = WANTS_CACHE if self.slots.dirty_count else WHOLE
        return Mark(self.superblock.origin, self.superblock.cache, self.superblock.generation, state)

    def _shut(self) -> None:
        """Leave both devices so that they can be opened again with all that is cached."""
        self.barrier()
        self.barrier()
        with self.slots.lock:
            self.slots.final_table()
        self.publish()
        self.device.flush()
        self.superblock = write_superblock(self.device, replace(self.superblock, state=CLOSED))
        self.device.flush()
        write_mark(self.origin, self.superblock.size, self.closing_mark())

    def detach(self) -> None:
        if self.attached:
            raise OSError(
                errno.EBUSY, "It may have what the origin lacks: have it write that back first, by its action `detach`"
            )
        self.write_back.stop()
        self.device.close()

    def close(self) -> None:
        self.write_back.stop()
        with contextlib.ExitStack() as rest:
            rest.callback(self.origin.close)
            rest.callback(self.device.close)
            if self.attached and not self.read_only:
                self._shut()
