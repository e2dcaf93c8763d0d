"""A cache in memory before a slow device: reads that hit take a microsecond, writes go through.

What is in memory is what the device below has, at every moment in which nobody is writing there:

* who writes has the range for himself among writers (`Ranges`) until both the device and the lines have it; when the device
  fails, the lines go, as nobody knows what it has;
* who has missed notes which lines he fetches before he reads them below. A write strikes them off, and what was struck off is not
  put into the cache: it may be older.

There is nothing in it that a crash could take: `flush` is that of the device below. It reads ahead of who reads in sequence
(streams.py); lines make room for others as fifo.py says.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Condition

from blockyard.block.actions import Action, NoOptions, Progress
from blockyard.block.cache.fifo import MARK, MOST
from blockyard.block.cache.lines import Lines
from blockyard.block.cache.ram_quick import QuickRam
from blockyard.block.cache.streams import Streams
from blockyard.block.device import Device, Run, Space
from blockyard.block.layers import Kind, Opening
from blockyard.block.ranges import Ranges
from blockyard.block.size import Size, format_size

_AT_A_TIME = 64  # lines that are copied under the lock
_FETCHERS = 2  # threads that read ahead
_LARGEST_LINE = 1 << 20
Bytes = memoryview | bytes | bytearray


class Window(Size):
    """How far to read ahead: a size, or "off"."""

    @classmethod
    def read(cls, data: object) -> Window:
        return cls(0) if data == "off" else cls(super().read(data))

    def __str__(self) -> str:
        return super().__str__() if self else "off"


_RAM, _BLOCK, _AHEAD = Size(256 << 20), Size(4096), Window(1 << 20)


@dataclass(frozen=True)
class RamOptions:
    """Of a cache in memory."""

    ram: Size = _RAM  # with what its index needs
    block: Size = _BLOCK  # bytes of a line
    read_ahead: Window = _AHEAD

    def __post_init__(self) -> None:
        if not 4096 <= self.block <= _LARGEST_LINE or self.block & (self.block - 1):
            raise ValueError("block is a power of two from 4K to 1M")
        if self.ram < 64 * self.block:
            raise ValueError(f"ram is too small: {Size(64 * self.block)} is the least with blocks of {self.block}")


class RamCache(Device):
    """The device `below`, which it owns, with a cache of its last uses."""

    def __init__(self, below: Device, options: RamOptions | None = None) -> None:
        options = options or RamOptions()
        self.below = below
        self.children = (below,)
        self.size = below.size
        self.read_only = below.read_only
        self.granularity = below.granularity
        self.rotational = below.rotational
        self.stable = below.stable
        self.ram = options.ram
        self.hits = self.misses = self.read_ahead = 0
        self.attached = True
        self.lines = Lines(options.ram, options.block)
        self._line = int(options.block)
        self._lock = self.lines.lock
        self._came = Condition(self._lock)
        self._fills: dict[int, object] = {}  # line → the token of whoever fetches it
        self._coming: set[int] = set()  # lines that are being read ahead
        self.writers = Ranges()
        self._window = options.read_ahead // self._line
        self._streams = Streams(0)
        self._set_window()
        self._fetchers = ThreadPoolExecutor(_FETCHERS, "read-ahead")
        self.quick = QuickRam(self)

    def _set_window(self) -> None:
        self._streams.largest = min(self._window, self.lines.fifo.capacity // 8)

    # ---- reading

    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        missed = False
        for buffer in buffers:
            missed |= self._read(memoryview(buffer).cast("B"), offset)
            offset += len(buffer)
        with self._lock:
            if missed:
                self.misses += 1
            else:
                self.hits += 1

    def _read(self, buffer: memoryview, offset: int) -> bool:
        """Fill one buffer; whether some of it was not at hand."""
        missing = self._copy_hits(buffer, offset)
        for start, end in missing:
            self._fetch(buffer[start - offset : end - offset], start)
        return bool(missing)

    def _copy_hits(self, buffer: memoryview, offset: int) -> list[tuple[int, int]]:
        """Fill what is at hand; the other ranges. What is to be read ahead because of that is under way."""
        size, end = self._line, offset + len(buffer)
        first, stop = offset // size, -(-end // size)
        missing: list[tuple[int, int]] = []
        ahead: list[range] = []
        with self._lock:
            while self._coming and not self._coming.isdisjoint(range(first, stop)):
                self._came.wait()
        for begin in range(first, stop, _AT_A_TIME):
            with self._lock:
                index, uses = self.lines.index, self.lines.fifo.uses
                for line in range(begin, min(begin + _AT_A_TIME, stop)):
                    start, until = max(line * size, offset), min((line + 1) * size, end)
                    slot = index.get(line)
                    if slot is None:
                        if missing and missing[-1][1] == start:
                            start = missing.pop()[0]
                        missing.append((start, until))
                        continue
                    if uses[slot] >= MARK:
                        ahead += filter(None, [self._streams.reached(line)])
                    uses[slot] = min(MOST, (uses[slot] & MOST) + 1)
                    inside = start - line * size
                    buffer[start - offset : until - offset] = self.lines.at(slot)[inside : inside + until - start]
        if missing:
            with self._lock:
                ahead += filter(None, [self._streams.missed(first, stop)])
        for lines in ahead:
            self._read_ahead(lines, mark=True)
        return missing

    def _fetch(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` from below, and have the lines that it touches."""
        size, end = self._line, offset + len(buffer)
        start, stop = offset // size * size, min(-(-end // size) * size, self.size)
        if start == offset and stop == end:
            self._fill(buffer, start)
        else:
            data = memoryview(bytearray(stop - start))
            self._fill(data, start)
            buffer[:] = data[offset - start : end - start]

    def _fill(self, data: memoryview, start: int) -> None:
        """Read whole lines from below into `data`, and put them into the cache unless somebody writes meanwhile."""
        size, token = self._line, object()
        first, stop = start // size, -(-(start + len(data)) // size)
        with self._lock:
            self._fills.update(dict.fromkeys(range(first, stop), token))
        try:
            self.below.preadv([data], start)
        except BaseException:
            with self._lock:
                self._strike(first, stop, token)
            raise
        for begin in range(first, stop, _AT_A_TIME):
            with self._lock:
                for line in range(begin, min(begin + _AT_A_TIME, stop)):
                    if self._fills.get(line) is token:
                        del self._fills[line]
                        if self.attached:
                            self.lines.put(line, data[line * size - start : (line + 1) * size - start])

    def _strike(self, first: int, stop: int, token: object = None) -> None:
        """What is being fetched there shall not be put into the cache: by whoever it is, or by the one with the token."""
        if not self._fills:
            return
        touched = range(first, stop) if stop - first < len(self._fills) else list(self._fills)
        for line in touched:
            if first <= line < stop and (token is None or self._fills.get(line) is token):
                self._fills.pop(line, None)

    def prefetch(self, offset: int, length: int) -> None:
        most = self.lines.fifo.capacity // 2
        first = offset // self._line
        self._read_ahead(range(first, min(first + most, -(-(offset + length) // self._line))), mark=False)

    def _read_ahead(self, wanted: range, *, mark: bool) -> None:
        """Have lines fetched by a thread, those that are not at hand; the first one with a mark."""
        end = -(-self.size // self._line)
        with self._lock:
            if not self.attached:
                return
            lines = [
                line
                for line in range(wanted.start, min(wanted.stop, end))
                if line not in self.lines.index and line not in self._coming
            ]
            self._coming.update(lines)
            self.read_ahead += len(lines)
        if lines:
            self._fetchers.submit(self._fetch_ahead, lines, wanted.start if mark else -1)

    def _fetch_ahead(self, lines: list[int], marked: int) -> None:
        at = 0
        try:
            while at < len(lines):
                stop = at + 1
                while stop < len(lines) and lines[stop] == lines[at] + stop - at:
                    stop += 1
                start = lines[at] * self._line
                length = min((lines[stop - 1] + 1) * self._line, self.size) - start
                self._fill(memoryview(bytearray(length)), start)
                at = stop
        except OSError:  # whoever wants it will see
            pass
        finally:
            with self._lock:
                slot = self.lines.index.get(marked)
                if slot is not None:
                    self.lines.fifo.uses[slot] |= MARK
                self._coming.difference_update(lines)
                self._came.notify_all()

    # ---- writing

    def pwritev(self, buffers: Sequence[Bytes], offset: int) -> None:
        end = offset + sum(map(len, buffers))
        with self._changing(offset, end):
            self.below.pwritev(buffers, offset)
            for buffer in buffers:
                data = memoryview(buffer).cast("B")
                step = _AT_A_TIME * self._line
                for at in range(0, len(data), step):
                    with self._lock:
                        self.note(data[at : at + step], offset + at)
                offset += len(data)

    @contextlib.contextmanager
    def _changing(self, start: int, end: int) -> Iterator[None]:
        """The range is one's own among writers; when that fails, nothing of it stays in the cache."""
        with self.writers.taken(start, end):
            try:
                yield
            except BaseException:
                self.drop(start, end)
                raise

    def drop(self, start: int, end: int) -> None:
        """Nothing of a range is to be in the cache."""
        first, stop = start // self._line, -(-end // self._line)
        with self._lock:
            self._strike(first, stop)
        self.lines.drop_range(first, stop)

    def note(self, data: memoryview, offset: int) -> None:
        """The device has got `data` at `offset`: so shall the lines. With the lock held, and the range one's own."""
        size, end = self._line, offset + len(data)
        first, stop = offset // size, -(-end // size)
        self._strike(first, stop)
        lines = self.lines
        for line in range(first, stop):
            start, until = max(line * size, offset), min((line + 1) * size, end)
            part = data[start - offset : until - offset]
            slot = lines.index.get(line)
            if slot is not None:
                inside = slot * size + start - line * size
                lines.view[inside : inside + len(part)] = part
            elif self.attached and len(part) == min(size, self.size - line * size):
                lines.put(line, part)

    def flush(self) -> None:
        self.below.flush()

    def discard(self, offset: int, length: int) -> None:
        with self._changing(offset, offset + length):
            self.below.discard(offset, length)
            self.drop(offset, offset + length)

    def write_zeroes(self, offset: int, length: int) -> None:
        with self._changing(offset, offset + length):
            self.below.write_zeroes(offset, length)
            self.drop(offset, offset + length)

    # ---- what it is

    def refresh(self) -> None:
        self.below.refresh()
        if self.below.size != self.size:
            shorter = min(self.size, self.below.size)
            self.size = self.below.size
            self.drop(shorter // self._line * self._line, max(shorter, self.size))  # the last line may be longer now

    def truncate(self, size: int) -> None:
        self.below.truncate(size)
        self.refresh()

    def space(self) -> Space | None:
        return self.below.space()

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        return self.below.runs(offset, length)

    def erase_keys(self) -> bool:
        erased = self.below.erase_keys()
        self.drop(0, self.size)
        return erased

    def report(self) -> dict[str, object]:
        """Hits and misses are counted by reads; a read misses if any of it does."""
        lines = self.lines
        reads = self.hits + self.misses
        share = f", {self.hits * 100 // reads} % of reads hit" if reads else ""
        text = f"{format_size(lines.used)} of {format_size(self.ram)} in memory{share}" if self.attached else "detached"
        return {
            "text": text,
            "counters": {
                "hits": self.hits,
                "misses": self.misses,
                "evictions": lines.evicted,
                "read_ahead_lines": self.read_ahead,
            },
            "gauges": {"memory_bytes": lines.used, "lines": len(lines.index)},
        }

    def actions(self) -> Mapping[str, Action]:
        if not self.attached:
            return {}
        return {
            "resize": Action("Give the cache more or less memory", self._resize, Resizing),
            "flush": Action("Make all that was written stable below", self._flush),
            "clear": Action("Forget what is cached", self._clear),
            "detach": Action("Stop caching, and give the memory back", self._detach),
        }

    def _resize(self, options: Resizing, progress: Progress) -> str:
        if options.ram < 64 * self._line:
            raise ValueError(f"{Size(64 * self._line)} is the least with blocks of {self._line}")
        self.lines.resize(options.ram)
        self.ram = options.ram
        with self._lock:
            self._set_window()
        return f"the cache has up to {format_size(options.ram)} now"

    def _flush(self, options: NoOptions, progress: Progress) -> str:
        self.flush()
        return "all that was written is stable"

    def _clear(self, options: NoOptions, progress: Progress) -> str:
        count = len(self.lines.index)
        self.lines.drop_range(0, 1 << 62)
        return f"{count} lines are forgotten"

    def _detach(self, options: NoOptions, progress: Progress) -> str:
        self.flush()
        with self._lock:
            self.attached = False
            self._fills.clear()
        self.lines.close()
        return "nothing is cached any more; take the cache out of the configuration before the next start"

    def detach(self) -> None:
        self._fetchers.shutdown(cancel_futures=True)
        with self._lock:
            self.attached = False
        self.lines.close()

    def close(self) -> None:
        self.detach()
        self.below.close()


@dataclass(frozen=True)
class Resizing:
    """How much memory a cache is to have."""

    ram: Size


def _open(children: Sequence[Device], options: RamOptions, opening: Opening) -> Device:
    (below,) = children
    if options.ram > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
        raise OSError(errno.ENOMEM, f"ram={options.ram}: the machine has less memory than that")
    return RamCache(below, options)


KINDS = (
    Kind(
        "cache",
        "What is used often stays in memory, and what is read in sequence is read ahead; writes go through.",
        _open,
        RamOptions,
        example="cache(ram=1G, /srv/slow.img)",
    ),
)
