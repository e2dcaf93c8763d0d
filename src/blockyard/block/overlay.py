"""A copy-on-write layer: writes go to a file of its own, the device below is only ever read.

The range is divided into granules. `_slots` says of each granule that has been written where in the file it is;
`_zeros` holds the ranges of granules that have been discarded; all others are read from below. The
file has no name and is as long as what has been written, up to a limit that several layers may share; it is
gone with the layer. Both maps are bounded, the first by that limit, the second by `_MAX_RANGES`, beyond which
zeros are written out.
"""

from __future__ import annotations

import errno
import itertools
import os
import tempfile
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from blockyard.block.device import Device, Run, merged

GRANULE = 4096  # bytes: what file systems write at a time, so that hardly anything has to be copied first
_MAX_RANGES = 1 << 16
_ZEROS = bytes(GRANULE)


class RangeSet:
    """Whole numbers, kept as disjoint ranges in ascending order."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def __len__(self) -> int:
        """How many ranges there are."""
        return len(self._starts)

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._starts, number) - 1
        return at >= 0 and number < self._ends[at]

    def add(self, start: int, end: int) -> None:
        """Take in the numbers from `start` to before `end`; ranges that touch become one."""
        first, last = bisect_left(self._ends, start), bisect_right(self._starts, end)
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def cuts(self, start: int, end: int) -> Iterator[int]:
        """Where, after `start` and before `end`, a range begins or ends."""
        for edges in (self._starts, self._ends):
            yield from edges[bisect_right(edges, start) : bisect_left(edges, end)]


class Budget:
    """Bytes that may be written, by all overlays together that share it."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._left = limit
        self._lock = Lock()

    def take(self, length: int) -> None:
        """Raises OSError (ENOSPC) when there are not so many left."""
        with self._lock:
            if self._left < length:
                raise OSError(errno.ENOSPC, f"All that may be written is written: {self.limit} bytes")
            self._left -= length

    def give_back(self, length: int) -> None:
        with self._lock:
            self._left += length


class _Piece(NamedTuple):
    """A part of the device that comes from one place."""

    offset: int
    length: int
    position: int | None  # in the file; None: from below, unless it is zeros
    zeros: bool = False


class OverlayDevice(Device):
    """The device `below`, with writes of its own on top, in a file in `directory` that takes its space from `budget`.

    It does not own `below`: closing it drops what was written, and nothing else. Raises OSError when there can be no
    file. When the budget is used up, writes fail with ENOSPC.
    """

    stable = False  # what was not written here changes with the device below

    def __init__(self, below: Device, *, budget: Budget, directory: Path | None = None) -> None:
        self.below = below
        self.size = below.size
        self.granularity = max(below.granularity, GRANULE) if below.granularity else 0
        self.rotational = below.rotational
        self._file = tempfile.TemporaryFile(dir=directory, prefix="overlay-", buffering=0)  # noqa: SIM115
        self._fd = self._file.fileno()
        self._budget = budget
        self._slots: dict[int, int] = {}  # number of a granule → where it is in the file, in granules
        self._free: list[int] = []
        self._used = 0  # granules of the file that were ever in use
        self._zeros = RangeSet()
        self._lock = Lock()  # of the maps, and of what they say about the file

    @property
    def written(self) -> int:
        """Bytes that it holds now."""
        return len(self._slots) * GRANULE

    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        from_below: list[tuple[memoryview, int]] = []
        with self._lock:
            for buffer in buffers:
                for piece in self._pieces(offset, offset + len(buffer)):
                    part = buffer[piece.offset - offset : piece.offset - offset + piece.length]
                    if piece.position is not None:
                        _read(self._fd, part, piece.position)
                    elif piece.zeros:
                        part[:] = bytes(len(part))
                    else:
                        from_below.append((part, piece.offset))
                offset += len(buffer)
        for part, at in from_below:  # may wait for a disk, and nothing here changes what is below
            self.below.preadv([part], at)

    def pwritev(self, buffers: Sequence[memoryview | bytes | bytearray], offset: int) -> None:
        with self._lock:
            for buffer in buffers:
                self._write(memoryview(buffer), offset)
                offset += len(buffer)

    def flush(self) -> None:
        """Nothing to do: what it holds does not outlive the process."""

    def discard(self, offset: int, length: int) -> None:
        self._zero(offset, offset + length)

    def write_zeroes(self, offset: int, length: int) -> None:
        self._zero(offset, offset + length)

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        with self._lock:
            pieces = self._pieces(offset, offset + length)
        yield from merged(part for piece in pieces for part in self._piece_runs(piece))

    def _piece_runs(self, piece: _Piece) -> Iterator[Run]:
        if _is_below(piece):
            return self.below.runs(piece.offset, piece.length)
        return iter((Run(piece.offset, piece.length, piece.position is not None),))

    def close(self) -> None:
        """Forget what was written; the device below stays as it is. A task that still runs finds its file gone."""
        with self._lock:
            self._file.close()
            self._fd = -1
            self._budget.give_back(self._used * GRANULE)
            self._used = 0

    # ---- under the lock

    def _pieces(self, start: int, end: int) -> list[_Piece]:
        """The range as pieces that each come from one place, in order and without gaps."""
        first, last = start // GRANULE, -(-end // GRANULE)
        if last - first <= len(self._slots):
            written = [granule for granule in range(first, last) if granule in self._slots]
        else:
            written = sorted(granule for granule in self._slots if first <= granule < last)
        edges = {first, last, *self._zeros.cuts(first, last)}
        edges.update(granule for number in written for granule in (number, number + 1))
        places = sorted(edges)
        pieces: list[_Piece] = []
        for granule, after in itertools.pairwise(places):
            slot = self._slots.get(granule)
            begin, stop = max(start, granule * GRANULE), min(end, after * GRANULE)
            position = None if slot is None else slot * GRANULE + begin % GRANULE
            pieces.append(_Piece(begin, stop - begin, position, slot is None and granule in self._zeros))
        return pieces

    def _write(self, data: memoryview, offset: int) -> None:
        """Write one buffer, granule by granule; those that it covers in part are copied from below first."""
        at = 0
        while at < len(data):
            granule, inside = divmod(offset + at, GRANULE)
            part = data[at : at + GRANULE - inside]
            slot = self._slots.get(granule)
            if slot is None:
                slot = self._allocate()
                try:
                    if len(part) < GRANULE:
                        _write(self._fd, self._image(granule), slot * GRANULE)
                    _write(self._fd, part, slot * GRANULE + inside)
                except BaseException:
                    self._free.append(slot)
                    raise
                self._slots[granule] = slot
            else:
                _write(self._fd, part, slot * GRANULE + inside)
            at += len(part)

    def _allocate(self) -> int:
        if self._free:
            return self._free.pop()
        self._budget.take(GRANULE)
        self._used += 1
        return self._used - 1

    def _image(self, granule: int) -> bytes | bytearray:
        """What a granule holds that has not been written."""
        if granule in self._zeros:
            return _ZEROS
        start = granule * GRANULE
        image = bytearray(GRANULE)
        self.below.preadv([memoryview(image)[: self.size - start]], start)
        return image

    def _zero(self, start: int, end: int) -> None:
        with self._lock:
            first, last = -(-start // GRANULE), (-(-end // GRANULE) if end == self.size else end // GRANULE)
            if first >= last:  # no whole granule
                self._write(memoryview(bytes(end - start)), start)
                return
            if len(self._zeros) >= _MAX_RANGES:
                for granule in range(start // GRANULE, -(-end // GRANULE)):
                    begin, stop = max(start, granule * GRANULE), min(end, (granule + 1) * GRANULE)
                    self._write(memoryview(_ZEROS)[: stop - begin], begin)
                return
            self._write(memoryview(bytes(first * GRANULE - start)), start)
            if end > last * GRANULE:
                self._write(memoryview(bytes(end - last * GRANULE)), last * GRANULE)
            self._forget(first, last)
            self._zeros.add(first, last)

    def _forget(self, first: int, last: int) -> None:
        """Free the file's space of what was written to these granules."""
        if last - first <= len(self._slots):
            doomed = [granule for granule in range(first, last) if granule in self._slots]
        else:
            doomed = [granule for granule in self._slots if first <= granule < last]
        for granule in doomed:
            self._free.append(self._slots.pop(granule))


def _is_below(piece: _Piece) -> bool:
    return piece.position is None and not piece.zeros


def _read(fd: int, buffer: memoryview, position: int) -> None:
    while len(buffer):
        count = os.preadv(fd, [buffer], position)
        if not count:
            raise OSError(errno.EIO, "The overlay's file is shorter than its map says")
        buffer, position = buffer[count:], position + count


def _write(fd: int, data: memoryview | bytes | bytearray, position: int) -> None:
    rest = memoryview(data)
    while rest:
        count = os.pwrite(fd, rest, position)
        rest, position = rest[count:], position + count
