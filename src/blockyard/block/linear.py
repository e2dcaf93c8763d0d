"""Concatenations and slices: parts of devices one after the other. They only map: on the short road that costs a look."""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from blockyard.block.device import Device, Extent, Run, Space, merged
from blockyard.block.layers import MANY, Kind, Opening
from blockyard.block.roads import road
from blockyard.block.size import Size

SECTOR = 512


class Segment(NamedTuple):
    """A part of a device."""

    device: Device
    offset: int  # in it
    length: int


class _Piece(NamedTuple):
    """A part of a range that lies in one segment."""

    device: Device
    offset: int  # in the device
    start: int  # in the range
    length: int


class LinearDevice(Device):
    """Segments in a row. `close_all` lets go of what they are of; the last one grows with its device if it is `open_ended`."""

    def __init__(self, segments: Sequence[Segment], close_all: Callable[[], None], *, open_ended: bool) -> None:
        devices = [segment.device for segment in segments]
        self.children = devices
        self.read_only = any(device.read_only for device in devices)
        self.granularity = max(device.granularity for device in devices)
        self.rotational = any(device.rotational for device in devices)
        self.stable = all(device.stable for device in devices)
        self._close_all = close_all
        self._open_ended = open_ended
        self._arrange(segments)

    def _arrange(self, segments: Sequence[Segment]) -> None:
        self._segments = segments
        self._starts = []
        self.size = 0
        for segment in segments:
            self._starts.append(self.size)
            self.size += segment.length
        first = segments[0]
        if len(segments) == 1 and not first.offset:
            self.fd, self.nowait, self.quick = first.device.fd, first.device.nowait, first.device.quick
        else:
            self.quick = _Quick(segments, self._starts)

    def _pieces(self, offset: int, length: int) -> Iterator[_Piece]:
        """The parts of a range, each in one segment."""
        start, number = 0, bisect_right(self._starts, offset) - 1
        while start < length:
            device, base, size = self._segments[number]
            inside = offset + start - self._starts[number]
            part = min(size - inside, length - start)
            if part > 0:
                yield _Piece(device, base + inside, start, part)
                start += part
            number += 1

    def resolve(self, offset: int, length: int) -> Sequence[Extent] | None:
        extents: list[Extent] = []
        for piece in self._pieces(offset, length):
            found = piece.device.resolve(piece.offset, piece.length)
            if found is None:
                return None
            extents += found
        return extents

    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        for piece in self._pieces(offset, sum(map(len, buffers))):
            piece.device.preadv(_cut(buffers, piece.start, piece.length), piece.offset)

    def pwritev(self, buffers: Sequence[memoryview | bytes | bytearray], offset: int) -> None:
        views = [memoryview(buffer) for buffer in buffers]
        for piece in self._pieces(offset, sum(map(len, views))):
            piece.device.pwritev(_cut(views, piece.start, piece.length), piece.offset)

    def flush(self) -> None:
        for device in dict.fromkeys(self.children):
            device.flush()

    def refresh(self) -> None:
        """What the last segment is of may have grown, and it with it; others stay as long as they are."""
        for device in self.children:
            device.refresh()
        last = self._segments[-1]
        if self._open_ended and last.device.size > last.offset + last.length:
            self._arrange([*self._segments[:-1], last._replace(length=last.device.size - last.offset)])

    def prefetch(self, offset: int, length: int) -> None:
        for piece in self._pieces(offset, length):
            piece.device.prefetch(piece.offset, piece.length)

    def discard(self, offset: int, length: int) -> None:
        for piece in self._pieces(offset, length):
            piece.device.discard(piece.offset, piece.length)

    def write_zeroes(self, offset: int, length: int) -> None:
        for piece in self._pieces(offset, length):
            piece.device.write_zeroes(piece.offset, piece.length)

    def space(self) -> Space | None:
        found = [device.space() for device in dict.fromkeys(self.children)]
        known = [space for space in found if space is not None]
        if len(known) < len(found):
            return None
        return Space(sum(space.available for space in known), sum(space.used for space in known))

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        return merged(
            Run(offset + piece.start + run.offset - piece.offset, run.length, run.mapped)
            for piece in self._pieces(offset, length)
            for run in piece.device.runs(piece.offset, piece.length)
        )

    def detach(self) -> None:
        """Nothing is kept here."""

    def close(self) -> None:
        self._close_all()


class _Quick:
    """The short road (see device.Quick), shaped by speed. What lies in two segments is left to the long one."""

    def __init__(self, segments: Sequence[Segment], starts: Sequence[int]) -> None:
        roads = [road(segment.device) for segment in segments]
        shifts = [segment.offset - start for segment, start in zip(segments, starts, strict=True)]
        ends = [start + segment.length for segment, start in zip(segments, starts, strict=True)]

        def read(buffers: Sequence[memoryview], offset: int, length: int) -> bool:
            at = bisect_right(starts, offset) - 1
            return offset + length <= ends[at] and roads[at][0](buffers, offset + shifts[at], length)

        def write(data: memoryview, offset: int) -> bool:
            at = bisect_right(starts, offset) - 1
            return offset + len(data) <= ends[at] and roads[at][1](data, offset + shifts[at])

        self.read, self.write = read, write


def _cut(buffers: Sequence[memoryview], start: int, length: int) -> list[memoryview]:
    """`length` bytes of buffers from `start` on."""
    cut = []
    for buffer in buffers:
        part = buffer[start : start + length] if start < len(buffer) else buffer[:0]
        start = max(0, start - len(buffer))
        if len(part):
            cut.append(part)
            length -= len(part)
        if not length:
            break
    return cut


# ---- kinds


@dataclass(frozen=True)
class ConcatOptions:
    """A concatenation."""

    sizes: tuple[Size, ...] = ()  # of what it takes of each from its beginning on; all of it where it says nothing

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if any(size % SECTOR or not size for size in self.sizes):
            raise ValueError(f"sizes are multiples of {SECTOR}, and not 0")


@dataclass(frozen=True)
class SliceOptions:
    """A part of a device."""

    offset: Size = Size(0)  # noqa: RUF009  (a number, which cannot change)
    length: Size = Size(0)  # noqa: RUF009  0: to the end

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if self.offset % SECTOR or self.length % SECTOR:
            raise ValueError(f"offset and length are multiples of {SECTOR}")


def _concat(children: Sequence[Device], options: ConcatOptions, opening: Opening) -> Device:
    if len(options.sizes) > len(children):
        raise ValueError(f"there are {len(options.sizes)} sizes for {len(children)} layers")
    segments = []
    for number, child in enumerate(children):
        size = options.sizes[number] if number < len(options.sizes) else child.size
        if size > child.size:
            raise ValueError(f"{child.label} has {int(child.size)} bytes, not {int(size)}")
        segments.append(Segment(child, 0, int(size)))

    def close() -> None:
        with contextlib.ExitStack() as stack:
            for child in reversed(children):
                stack.callback(child.close)

    return LinearDevice(segments, close, open_ended=len(options.sizes) < len(children))


def _slice(children: Sequence[Device], options: SliceOptions, opening: Opening) -> Device:
    (child,) = children
    end = options.offset + options.length if options.length else child.size
    if end > child.size or options.offset >= end:
        raise ValueError(f"{child.label} ends at {int(child.size)}")
    segment = Segment(child, int(options.offset), end - options.offset)
    device = LinearDevice([segment], partial(_give_back, opening, child), open_ended=not options.length)
    device.read_only = device.read_only or opening.read_only
    return device


def _give_back(opening: Opening, child: Device) -> None:
    try:
        child.flush()
    finally:
        opening.shared.give_back(child)


KINDS = (
    Kind("concat", "Devices one after the other. The last one may grow.", _concat, ConcatOptions, (1, MANY),
         example="concat(/srv/a.img, /srv/b.img)"),
    Kind("slice", "A part of a device; several volumes may have parts of the same.", _slice, SliceOptions,
         part=lambda options: (options.offset, options.length), example="slice(offset=1G, length=10G, /dev/sda)"),
)  # fmt: skip
