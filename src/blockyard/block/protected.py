"""A device whose blocks have protection information (SBC-4: DIF, types 1 to 3).

Used as a plain device it makes the information of what is written and checks that of what is read. `read_blocks` and
`write_blocks` move both, for initiators that have their own.

**Data and information must not disagree after a crash.** They are in two files, which the kernel writes back in any order, so
that a crash may leave one of them new and the other old. Regions of the device are therefore noted as open, durably,
before the first write to one; a region is closed again when both files have been flushed. Regions that are found open after
a crash are gone through: where the guard does not fit the block it is made anew, of what data there is. That is right for
every block: one whose write was acknowledged and flushed is whole and is left alone; of any other the initiator may find
what was there before or what it has written, as on any disk, and not an error. At most `_OPEN` regions are open at a time,
so that it takes seconds.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from struct import Struct
from threading import Condition, Lock
from typing import NamedTuple

from fastcrc import crc16

from blockyard.block.device import Device, Run
from blockyard.block.information import LENGTH, Store

_TUPLE = Struct(">HHI")  # LOGICAL BLOCK GUARD, APPLICATION TAG, REFERENCE TAG
_REGION = 64 << 20  # bytes of the device
_OPEN = 64  # regions
_PIECE = 1 << 20  # bytes that are worked on at a time
_NO_TAG, _NO_REFERENCE = 0xFFFF, 0xFFFFFFFF

Buffer = bytes | bytearray | memoryview
guard = crc16.t10_dif


class Part(Enum):
    """What of protection information can be wrong."""

    GUARD = "guard"
    APPLICATION_TAG = "application tag"
    REFERENCE_TAG = "reference tag"


class ProtectionError(OSError):
    """A block and its protection information do not fit."""

    def __init__(self, part: Part, lba: int) -> None:
        super().__init__(errno.EILSEQ, f"The {part.value} of block {lba} is wrong")
        self.part = part
        self.lba = lba


class Checks(NamedTuple):
    """What of the protection information is checked: an application tag under a mask, the reference tag of the first block."""

    guard: bool = True
    application_tag: tuple[int, int] | None = None
    reference_tag: int | None = None


NO_CHECKS = Checks(guard=False)


class _Ranges:
    """Blocks that are in use: read by several at a time, or written by one."""

    def __init__(self) -> None:
        self._held: list[tuple[int, int, bool]] = []
        self._changed = Condition()

    @contextmanager
    def hold(self, lba: int, count: int, *, writing: bool) -> Iterator[None]:
        mine = (lba, lba + count, writing)
        with self._changed:
            while any(a < mine[1] and mine[0] < b and (writing or writes) for a, b, writes in self._held):
                self._changed.wait()
            self._held.append(mine)
        try:
            yield
        finally:
            with self._changed:
                self._held.remove(mine)
                self._changed.notify_all()

    def written(self) -> list[tuple[int, int]]:
        """What is being written now: first block, and that after the last."""
        with self._changed:
            return [(a, b) for a, b, writes in self._held if writes]


class ProtectedDevice(Device):
    """`below` with protection information of type `kind` for each block of `block_size` bytes, kept in `store`.

    Type 0 has none, and checks nothing. `note` saves the numbers of the regions that are open; `left_open` are those that were
    noted last.
    """

    def __init__(
        self,
        below: Device,
        store: Store,
        *,
        block_size: int,
        kind: int,
        note: Callable[[list[int]], None] = lambda regions: None,
        left_open: Iterable[int] = (),
    ) -> None:
        self.below = below
        self.kind = kind
        self.application_tag = 0  # of blocks that come without protection information
        self.read_only = below.read_only
        self.granularity = below.granularity
        self.rotational = below.rotational
        self.block_size = block_size
        self._store = store
        self._ranges = _Ranges()
        self._lock = Lock()
        self._note = note
        self._region = _REGION // block_size  # blocks
        self._open = set(left_open)
        if self._open and not self.read_only:
            for region in self._open:
                self._mend(region * self._region, self._region)
            self._close_regions()

    @property
    def size(self) -> int:  # type: ignore[override]
        return self.below.size

    # ---- blocks with their protection information

    def read_blocks(self, lba: int, count: int, checks: Checks) -> tuple[bytearray, bytes]:
        """Data and protection information of blocks. Raises ProtectionError."""
        data = bytearray(count * self.block_size)
        with self._ranges.hold(lba, count, writing=False):
            self.below.preadv([memoryview(data)], lba * self.block_size)
            information = self._store.read(lba, count)
        if self.kind:
            self.check(data, information, lba, checks)
        return data, information

    def write_blocks(self, lba: int, data: Buffer, information: bytes) -> None:
        """Write blocks and their protection information, unchecked."""
        count = len(data) // self.block_size
        with self._writing(lba, count):
            self._store.write(lba, information)
            self.below.pwritev([data], lba * self.block_size)

    def check(self, data: Buffer, information: bytes, lba: int, checks: Checks) -> None:
        """Raise ProtectionError for the first block that does not pass."""
        if checks == NO_CHECKS:
            return
        size, kind, view = self.block_size, self.kind, memoryview(data)
        reference = checks.reference_tag
        tag, mask = checks.application_tag or (0, 0)
        for index, (crc, application, own) in enumerate(_TUPLE.iter_unpack(information)):
            if application == _NO_TAG and (kind != 3 or own == _NO_REFERENCE):
                continue  # nobody has protected this block
            if checks.guard and crc != guard(view[index * size : (index + 1) * size]):
                raise ProtectionError(Part.GUARD, lba + index)
            if (application ^ tag) & mask:
                raise ProtectionError(Part.APPLICATION_TAG, lba + index)
            if reference is not None and own != (reference + index) & 0xFFFFFFFF:
                raise ProtectionError(Part.REFERENCE_TAG, lba + index)

    def generate(self, data: Buffer, lba: int) -> bytes:
        """The protection information of blocks that came without (SBC-4, WRPROTECT 000b).

        A reference tag of type 2 is the initiator's, so that such blocks are marked as not protected: reading them with the tags
        that an initiator expects must not fail.
        """
        size, view = self.block_size, memoryview(data)
        blocks = range(len(data) // size)
        if not self.kind:
            return b"\xff" * (LENGTH * len(blocks))
        tag = _NO_TAG if self.kind == 2 else self.application_tag
        if self.kind == 1:
            return b"".join(
                _TUPLE.pack(guard(view[i * size : (i + 1) * size]), tag, (lba + i) & 0xFFFFFFFF) for i in blocks
            )
        return b"".join(_TUPLE.pack(guard(view[i * size : (i + 1) * size]), tag, _NO_REFERENCE) for i in blocks)

    def default_checks(self, lba: int) -> Checks:
        """What is checked of blocks that are read by somebody who knows nothing of protection information."""
        return Checks(reference_tag=lba & 0xFFFFFFFF if self.kind == 1 else None)

    def initialize(self, data: Buffer, offset: int) -> None:
        """Write blocks without protection: FFh in all of the information (SBC-4, FORMAT UNIT, SANITIZE)."""
        count = len(data) // self.block_size
        self.write_blocks(offset // self.block_size, data, b"\xff" * (LENGTH * count))

    # ---- a plain device, to which bytes may be written that are no whole blocks (copies with offsets)

    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        for buffer in buffers:
            lba, count, skip = self._covering(offset, len(buffer))
            data, _ = self.read_blocks(lba, count, self.default_checks(lba))
            buffer[:] = memoryview(data)[skip : skip + len(buffer)]
            offset += len(buffer)

    def pwritev(self, buffers: Sequence[memoryview | bytes | bytearray], offset: int) -> None:
        for buffer in buffers:
            lba, count, skip = self._covering(offset, len(buffer))
            with self._writing(lba, count):
                data: Buffer = buffer
                if count * self.block_size != len(buffer):
                    data = self._merged(buffer, lba, count, skip)
                self._store.write(lba, self.generate(data, lba))
                self.below.pwritev([data], lba * self.block_size)
            offset += len(buffer)

    def _covering(self, offset: int, length: int) -> tuple[int, int, int]:
        """The blocks that a range of bytes touches: the first, how many, and how far into the first it begins."""
        lba, skip = divmod(offset, self.block_size)
        return lba, -(-(skip + length) // self.block_size), skip

    def _merged(self, buffer: Buffer, lba: int, count: int, skip: int) -> bytearray:
        """The blocks with `buffer` in its place; what of them stays is checked."""
        data = bytearray(count * self.block_size)
        self.below.preadv([memoryview(data)], lba * self.block_size)
        if self.kind:
            self.check(data, self._store.read(lba, count), lba, self.default_checks(lba))
        data[skip : skip + len(buffer)] = buffer
        return data

    def flush(self) -> None:
        self._store.flush()
        self.below.flush()

    def refresh(self) -> None:
        self.below.refresh()

    def prefetch(self, offset: int, length: int) -> None:
        self.below.prefetch(offset, length)

    def discard(self, offset: int, length: int) -> None:
        start, end = self._whole(offset, length)
        lba, count = start // self.block_size, (end - start) // self.block_size
        if count:
            with self._writing(lba, count):
                self._store.erase(lba, count)
                self.below.discard(start, end - start)
        self._write_zeros(offset, start)
        self._write_zeros(end, offset + length)

    def write_zeroes(self, offset: int, length: int) -> None:
        start, end = self._whole(offset, length)
        for at in range(start, end, _PIECE):
            zeros = bytes(min(_PIECE, end - at))
            lba = at // self.block_size
            with self._writing(lba, len(zeros) // self.block_size):
                self._store.write(lba, self.generate(zeros, lba))
                self.below.write_zeroes(at, len(zeros))
        self._write_zeros(offset, start)
        self._write_zeros(end, offset + length)

    def _whole(self, offset: int, length: int) -> tuple[int, int]:
        """Where the whole blocks of a range begin and end; both at its end when there are none."""
        start = offset + -offset % self.block_size
        end = (offset + length) - (offset + length) % self.block_size
        return (start, end) if start < end else (offset + length, offset + length)

    def _write_zeros(self, start: int, end: int) -> None:
        if start < end:
            self.pwritev([bytes(end - start)], start)

    def copy_from(self, source: Device, source_offset: int, offset: int, length: int, *, thin: bool = True) -> None:
        """In whole blocks, holes too: those of the source need not begin where blocks do here."""
        if source is self:
            super().copy_from(source, source_offset, offset, length, thin=thin)
        else:
            self._copy_mapped(source, source_offset, offset, length)

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        return self.below.runs(offset, length)

    def close(self) -> None:
        try:
            if not self.read_only:
                self._close_regions()
        finally:
            self._store.close()
            self.below.close()

    # ---- crash consistency

    @contextmanager
    def _writing(self, lba: int, count: int) -> Iterator[None]:
        """Both files are written meanwhile, and fit again even when that fails half way."""
        with self._ranges.hold(lba, count, writing=True):
            self._open_regions(lba, count)
            try:
                yield
            except ProtectionError:  # nothing was written, and what is damaged stays so
                raise
            except OSError:
                self._mend(lba, count)
                raise

    def _open_regions(self, lba: int, count: int) -> None:
        if not count:
            return
        needed = set(range(lba // self._region, (lba + count - 1) // self._region + 1))
        with self._lock:
            if needed <= self._open:
                return
            if len(self._open) + len(needed) > _OPEN:
                self._close_regions()
            self._note(sorted(self._open | needed))
            self._open |= needed

    def _close_regions(self) -> None:
        """Flush, and close every region that nobody writes to now."""
        busy = {
            region
            for first, end in self._ranges.written()
            for region in range(first // self._region, (end - 1) // self._region + 1)
        }
        self.flush()
        if not self._open <= busy:
            self._open &= busy
            self._note(sorted(self._open))

    def _mend(self, lba: int, count: int) -> None:
        """Where the guard does not fit the block, make it fit; of type 1 the reference tag too."""
        end = min(lba + count, self.size // self.block_size)
        step = _PIECE // self.block_size
        for at in range(lba, end, step):
            count = min(step, end - at)
            data = bytearray(count * self.block_size)
            self.below.preadv([memoryview(data)], at * self.block_size)
            information = self._store.read(at, count)
            mended = self.fitting(data, information, at)
            if mended != information:
                self._store.write(at, mended)

    def fitting(self, data: Buffer, information: bytes, lba: int) -> bytes:
        """Protection information with guards that fit the data; tags stay, but for the reference tags that type 1 prescribes."""
        size, view, kind = self.block_size, memoryview(data), self.kind
        parts = []
        for index, (crc, application, reference) in enumerate(_TUPLE.iter_unpack(information)):
            right = guard(view[index * size : (index + 1) * size])
            free = application == _NO_TAG and (kind != 3 or reference == _NO_REFERENCE)
            wrong = not free and crc != right
            own = (lba + index) & 0xFFFFFFFF if wrong and kind == 1 else reference
            parts.append(_TUPLE.pack(right if wrong else crc, application, own))
        return b"".join(parts)


class Interleaved(Device):
    """A protected device as a plain one whose blocks end with their protection information, for writing only."""

    def __init__(self, device: ProtectedDevice) -> None:
        self._device = device
        self.read_only = device.read_only

    @property
    def size(self) -> int:  # type: ignore[override]
        return self._device.size // self._device.block_size * (self._device.block_size + LENGTH)

    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        raise NotImplementedError

    def pwritev(self, buffers: Sequence[memoryview | bytes | bytearray], offset: int) -> None:
        (buffer,) = buffers
        data, information = split(buffer, self._device.block_size)
        self._device.write_blocks(offset // (self._device.block_size + LENGTH), data, information)

    def flush(self) -> None:
        self._device.flush()

    def write_zeroes(self, offset: int, length: int) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """The device itself is closed by others."""


def split(buffer: Buffer, block_size: int) -> tuple[bytes, bytes]:
    """Data and protection information of blocks that are each followed by their own."""
    view, step = memoryview(buffer), block_size + LENGTH
    starts = range(0, len(view), step)
    data = b"".join([view[at : at + block_size] for at in starts])
    return data, b"".join([view[at + block_size : at + step] for at in starts])


def join(data: Buffer, information: bytes, block_size: int) -> bytes:
    """Blocks, each followed by its protection information."""
    left, right = memoryview(data), memoryview(information)
    parts = []
    for index in range(len(left) // block_size):
        parts.append(left[index * block_size : (index + 1) * block_size])
        parts.append(right[index * LENGTH : (index + 1) * LENGTH])
    return b"".join(parts)
