"""The contract of a block device: what every layer below SCSI offers to the one above.

A device is a run of `size` bytes. Layers stack: each takes devices and is a device, like a
device-mapper target or an nbdkit filter. Two kinds of layer exist:

* one that *maps* (a file, a thin volume, a concatenation) answers `resolve` with the extents of
  files behind a range, so that the data path moves bytes between file and network by itself;
* one that must *touch* bytes (parity, cipher, cache) answers None and implements the I/O.

All methods but `resolve` may block and are called from worker threads, several at a time; layers
guard their own maps. Errors are OSError with an errno (EIO, ENOSPC, EROFS, …) and are turned into
sense data in one place (scsi/sense.py). Offsets and lengths are in bytes, lie inside the device, and are
multiples of the logical block size of the unit above, at least 512.
"""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from blockyard.block.actions import Action

COPY_LIMIT = 4 << 20  # bytes of ranges that overlap that `copy_from` takes at a time
_BUFFER = 1 << 20  # bytes that it holds in memory otherwise: they stay in the processor's cache


class SourceError(OSError):
    """A copy could not read its source; other errors of a copy are of where it writes."""


class Extent(NamedTuple):
    """A run of the device that lies in one file: `length` bytes at `position` of descriptor `fd`."""

    fd: int
    position: int
    length: int


class Run(NamedTuple):
    """A run of the device that is mapped (holds data or reserved space) or not (reads as zeros)."""

    offset: int
    length: int
    mapped: bool


def merged(runs: Iterable[Run]) -> Iterator[Run]:
    """Runs that follow one another, with neighbours that are alike made one."""
    last: Run | None = None
    for run in runs:
        if last is None or run.mapped != last.mapped:
            if last is not None:
                yield last
            last = run
        else:
            last = last._replace(length=last.length + run.length)
    if last is not None:
        yield last


class Space(NamedTuple):
    """What a thin device lives on, in bytes."""

    available: int  # that can still be allocated, by it and by whoever shares them
    used: int  # that are allocated to it


class Quick(Protocol):
    """A short road to the bytes of a device whose layers have to be asked where these are: for the event loop's thread alone.

    What would take waiting, and what fails, is left to the methods of the device; half of it may have been done.
    """

    def read(self, buffers: Sequence[memoryview], offset: int, length: int) -> bool:
        """Fill `buffers`, of `length` bytes together, with the bytes from `offset` on; whether that is done."""

    def write(self, data: memoryview, offset: int) -> bool:
        """Write `data` at `offset`, to survive the death of the process; whether that is done."""


Done = Callable[[OSError | None], None]  # is told how something has ended


class Overlapped(Protocol):
    """Accesses that go on by themselves while others begin, as many as one likes: for the event loop's thread alone.

    Each ends by a call of its `done` on that thread, by way of `reap` or, where it cannot even begin, at once.
    """

    fd: int  # becomes readable when there is something to reap

    def read(self, offset: int, length: int, done: Callable[[bytearray | OSError], None]) -> None: ...

    def write(self, data: memoryview | bytes | bytearray, offset: int, done: Done) -> None:
        """`data` stays as it is until that is done."""

    def flush(self, done: Done) -> None: ...

    def discard(self, offset: int, length: int, done: Done) -> None: ...

    def write_zeroes(self, offset: int, length: int, done: Done) -> None: ...

    def write_same(self, block: bytes, offset: int, length: int, done: Done) -> None: ...

    def reap(self) -> None:
        """Have all that is done call its `done`."""


class Device(ABC):
    """A run of bytes that can be read, written, flushed and, where it is thin, freed again."""

    size: int  # bytes
    read_only: bool = False
    granularity: int = 0  # bytes that `discard` frees at a time; 0: this device cannot free anything
    rotational: bool = False
    stable: bool = True  # its bytes change by writes through it alone
    fd: int = -1  # descriptor of the file that holds the whole device from position 0, or -1
    quick: Quick | None = None  # a way without waiting where there is no such file
    overlapped: Overlapped | None = None  # a way to have many accesses under way without a thread for each
    compares: bool = False  # `compare_and_write` is one step for all who use what lies beneath, whatever way they take
    nowait: bool = False  # `fd` supports RWF_NOWAIT on reads: cached data can be told from cold
    # Told, from any thread, when what it holds may have become other than it was; set by who uses it and keeps nothing of it
    on_replaced: Callable[[], None] | None = None
    children: Sequence[Device] = ()  # what it stands on, first things first; they are closed with it
    label: str = ""  # how it is written in a stack, without its children

    def resolve(self, offset: int, length: int) -> Sequence[Extent] | None:
        """The extents behind a range, in order and without gaps, or None where there are none to show.

        Never blocks. What it answers holds until control returns to the event loop.
        """
        return None

    @abstractmethod
    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        """Fill `buffers` with the bytes from `offset` on."""

    @abstractmethod
    def pwritev(self, buffers: Sequence[memoryview | bytes | bytearray], offset: int) -> None:
        """Write all of `buffers` at `offset`. What returned survives the death of the process."""

    @abstractmethod
    def flush(self) -> None:
        """Return once every write that has returned, and every map that leads to it, is on stable storage."""

    def refresh(self) -> None:  # noqa: B027  (most devices stay as they are)
        """Look at the size again: what is beneath may have grown."""

    def truncate(self, size: int) -> None:
        """End after `size` bytes, or reach that far with zeros: only what is a file can do that."""
        raise OSError(errno.EOPNOTSUPP, "It has the size that it has")

    def prefetch(self, offset: int, length: int) -> None:  # noqa: B027  (there need not be a cache)
        """Have the range read into a cache, if there is one; reads of it will be quicker. A hint, without promise."""

    def discard(self, offset: int, length: int) -> None:
        """Free what lies wholly inside the range, in units of `granularity`; all of the range reads as zeros after."""
        self.write_zeroes(offset, length)

    @abstractmethod
    def write_zeroes(self, offset: int, length: int) -> None:
        """Make the range read as zeros, keeping its space reserved."""

    def write_same(self, block: memoryview | bytes, offset: int, length: int) -> None:
        """Fill a range with copies of `block`, of which it is a multiple."""
        piece = memoryview(bytes(block) * (min(_BUFFER, length) // len(block)))
        for at in range(0, length, len(piece)):
            self.pwritev([piece[: length - at]], offset + at)

    def compare_and_write(
        self, expected: memoryview | bytes | bytearray, data: memoryview | bytes | bytearray, offset: int
    ) -> int | None:
        """Write `data` if `expected` is there; else return where in it the first byte differs.

        Whoever calls sees to it that nobody writes meanwhile, unless the device `compares` by itself.
        """
        there = bytearray(len(expected))
        self.preadv([memoryview(there)], offset)
        if there != expected:
            return next(at for at, (one, other) in enumerate(zip(there, expected, strict=True)) if one != other)
        self.pwritev([data], offset)
        return None

    def space(self) -> Space | None:
        """What there is to allocate, and what it has of it; None where that cannot be told."""
        return None

    def copy_from(self, source: Device, source_offset: int, offset: int, length: int, *, thin: bool = True) -> None:
        """Make `length` bytes from `offset` on the same as those of `source` from `source_offset` on.

        What reads as zeros there because it is not mapped is freed here, or zeroed where this is not `thin`. The two
        ranges may lie in one device and overlap when `length` is at most COPY_LIMIT. Bytes need not be aligned. Raises
        SourceError when the source cannot be read.
        """
        if source is self and abs(source_offset - offset) < length:
            data = bytearray(length)
            _read_source(source, memoryview(data), source_offset)
            self.pwritev([data], offset)
            return
        for run in source.runs(source_offset, length):
            to = offset + run.offset - source_offset
            if run.mapped:
                self._copy_mapped(source, run.offset, to, run.length)
            elif thin and self.granularity:
                self.discard(to, run.length)
            else:
                self.write_zeroes(to, run.length)

    def _copy_mapped(self, source: Device, source_offset: int, offset: int, length: int) -> None:
        """Copy bytes through a buffer. Layers that know a shorter way do better."""
        buffer = memoryview(bytearray(min(length, _BUFFER)))
        for at in range(0, length, len(buffer)):
            piece = buffer[: length - at]
            _read_source(source, piece, source_offset + at)
            self.pwritev([piece], offset + at)

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        """The range as alternating mapped and unmapped runs, in order and without gaps."""
        yield Run(offset, length, True)

    def erase_keys(self) -> bool:
        """Make all that is on it unreadable for good by throwing its key away; False where there is none to be thrown away."""
        return False

    def report(self) -> dict[str, object]:
        """How it is, for people and programs; does not block.

        "health" is "ok", "degraded" (it works, and would not survive what it should), "failed" or a word of its own for what it
        is busy with; left out, it is what that of its children makes it. "text" says more. "counters" are numbers that grow,
        "gauges" numbers that come and go, by names; "progress" is a pair, of what is done and of all; "work" says what is
        done by itself until it is over: its "kind", and the "unit" of the progress.
        """
        return {}

    def actions(self) -> Mapping[str, Action]:
        """What can be done with it while it is in use, by name."""
        return {}

    def detach(self) -> None:
        """As `close`, but its children stay open, and have all that was written: something else stands on them from now on.

        Raises OSError where that cannot be; then it goes on as before.
        """
        raise OSError(errno.EOPNOTSUPP, "It cannot be taken out while it is in use")

    @abstractmethod
    def close(self) -> None:
        """Flush and let go of everything. The device is not used after."""


class ReadOnly(Device):
    """What can only be read, and has nothing to flush. `refusal` says why to whoever tries to write."""

    read_only = True
    refusal = "It does not change"

    def pwritev(self, buffers: Sequence[memoryview | bytes | bytearray], offset: int) -> None:
        raise OSError(errno.EROFS, self.refusal)

    def write_zeroes(self, offset: int, length: int) -> None:
        raise OSError(errno.EROFS, self.refusal)

    def flush(self) -> None:
        """There is nothing that could be written."""

    def close(self) -> None:
        """Nothing to let go of."""


def _read_source(source: Device, buffer: memoryview, offset: int) -> None:
    try:
        source.preadv([buffer], offset)
    except OSError as error:
        raise SourceError(error.errno, error.strerror, error.filename) from error
