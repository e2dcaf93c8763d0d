"""An encrypted disk: what is read is decrypted, what is written is encrypted, sector by sector (AES-XTS).

It keeps the promises of what is below, no more and no less. XTS encrypts each 16 bytes for themselves, so that a write that a
crash has torn between two 512 bytes below is torn in the same place here. 512 bytes that are all zeros below read as zeros:
nobody has ever written there, or they were freed (no data becomes that when it is encrypted, once in 2^4096 times). So an
encrypted disk in a sparse file is thin, and `discard` keeps its word; it is passed on only where `discard` was asked for, as
it shows what is in use.

Sectors may be larger than 512 bytes: who writes a part of one has it for himself meanwhile (`Ranges`).
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from blockyard.block.actions import Action
from blockyard.block.cipher.xts import Xts
from blockyard.block.device import Device, Run, Space
from blockyard.block.ranges import Ranges
from blockyard.block.roads import has_road, road

if TYPE_CHECKING:
    from blockyard.block.cipher.administration import KeyRing

_PIECE = 1 << 20  # bytes that are encrypted at a time
_HOLE = 512
_ZEROS = bytes(_HOLE)
_SIGN = bytes(16)  # what there is of a hole in every one of its sectors
_QUICK = 64 << 10  # bytes at most, and sectors, that are encrypted on the loop's thread
_QUICK_SECTORS = 16
Bytes = memoryview | bytes | bytearray


class CipherDevice(Device):
    """The disk that is encrypted on `below`, from byte `start` on. It owns that."""

    def __init__(
        self, below: Device, xts: Xts, keys: KeyRing, *, start: int, size: int | None, read_only: bool, discard: bool
    ) -> None:
        self.below = below
        self.children = (below,)
        self.xts = xts
        self.keys = keys
        self.start = start
        self.read_only = read_only or below.read_only
        self.rotational = below.rotational
        self.stable = below.stable
        self.thin = discard and below.granularity > 0
        self.granularity = max(below.granularity, xts.sector_size) if self.thin else 0
        self.sector_size = xts.sector_size
        self._fixed = size
        self.size = self._find_size()
        self.writers = Ranges()
        self.quick = QuickCipher(self) if has_road(below) else None

    def _find_size(self) -> int:
        room = max(0, self.below.size - self.start)
        size = room if self._fixed is None else min(room, self._fixed)
        return size - size % self.sector_size

    def refresh(self) -> None:
        self.below.refresh()
        self.size = self._find_size()

    # ---- reading

    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        for buffer in buffers:
            view = memoryview(buffer).cast("B")
            for at in range(0, len(view), _PIECE):
                self._read(view[at : at + _PIECE], offset + at)
            offset += len(view)

    def _read(self, view: memoryview, offset: int) -> None:
        size = self.sector_size
        start, end = offset - offset % size, offset + len(view) + -(offset + len(view)) % size
        stored = bytearray(end - start)
        self.below.preadv([memoryview(stored)], self.start + start)
        plain = memoryview(self.xts.decrypt(stored, start))
        view[:] = plain[offset - start : offset - start + len(view)]
        if stored.find(_SIGN) >= 0:
            for at in range(offset - start, offset - start + len(view), _HOLE):
                if stored.startswith(_ZEROS, at):
                    view[at - (offset - start) :][:_HOLE] = _ZEROS

    def prefetch(self, offset: int, length: int) -> None:
        self.below.prefetch(self.start + offset, length)

    # ---- writing

    def pwritev(self, buffers: Sequence[Bytes], offset: int) -> None:
        if self.read_only:
            raise OSError(errno.EROFS, "It is open for reading only")
        view = memoryview(buffers[0] if len(buffers) == 1 else b"".join(buffers)).cast("B")
        size, end = self.sector_size, offset + len(view)
        with self.writers.taken(offset - offset % size, end + -end % size):
            for at in range(0, len(view), _PIECE):
                self._write(view[at : at + _PIECE], offset + at)

    def _write(self, view: memoryview, offset: int) -> None:
        size, end = self.sector_size, offset + len(view)
        head, tail = offset % size, -end % size
        data: Bytes = view
        if head or tail:
            whole = memoryview(bytearray(head + len(view) + tail))
            if head:
                self._read(whole[:size], offset - head)
            if tail and (not head or len(whole) > size):
                self._read(whole[-size:], end + tail - size)
            whole[head : head + len(view)] = view
            data = whole
        self.below.pwritev([self.xts.encrypt(data, offset - head)], self.start + offset - head)

    def flush(self) -> None:
        self.below.flush()

    def discard(self, offset: int, length: int) -> None:
        self._zero(offset, length, self.below.discard)

    def write_zeroes(self, offset: int, length: int) -> None:
        self._zero(offset, length, self.below.write_zeroes)

    def _zero(self, offset: int, length: int, change: Callable[[int, int], None]) -> None:
        if self.read_only:
            raise OSError(errno.EROFS, "It is open for reading only")
        if self.thin:
            size, end = self.sector_size, offset + length
            with self.writers.taken(offset - offset % size, end + -end % size):
                change(self.start + offset, length)
            return
        for at in range(offset, offset + length, _PIECE):
            self.pwritev([bytes(min(_PIECE, offset + length - at))], at)

    # ---- what it is

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        for run in self.below.runs(self.start + offset, length):
            yield Run(run.offset - self.start, run.length, run.mapped)

    def space(self) -> Space | None:
        return self.below.space()

    def report(self) -> dict[str, object]:
        return {"text": self.keys.text, "gauges": {"key_slots": len(self.keys.numbers)}}

    def actions(self) -> Mapping[str, Action]:
        return {} if self.read_only else self.keys.actions()

    def erase_keys(self) -> bool:
        """Throw the volume key away, and all that could give it back; from then on the disk has a new one."""
        if self.read_only or not self.keys.can_change:
            return False
        self.xts = self.keys.renew()
        return True

    def close(self) -> None:
        self.below.close()


class QuickCipher:
    """The short road (block/device.py): whole sectors, a few of them, where what is below has one."""

    def __init__(self, device: CipherDevice) -> None:
        self.read = _reader(device)
        self.write = _writer(device)


def _reader(device: CipherDevice) -> Callable[[Sequence[memoryview], int, int], bool]:
    below, start, size = road(device.below)[0], device.start, device.sector_size
    most = min(_QUICK, size * _QUICK_SECTORS)
    stored = bytearray(most)
    view = memoryview(stored)

    def read(buffers: Sequence[memoryview], offset: int, length: int) -> bool:
        """Fill `buffers`, of `length` bytes together, from `offset` on. False when that takes waiting, or fails."""
        at = offset % size
        first, whole = offset - at, at + length + -(at + length) % size
        if whole > most or not below((view[:whole],), start + first, whole):
            return False
        if stored.find(_SIGN, 0, whole) >= 0:
            if stored.count(0, 0, whole) < whole:
                return False
            plain = view
        else:
            plain = memoryview(device.xts.decrypt(view[:whole], first))
        for buffer in buffers:
            buffer[:] = plain[at : at + len(buffer)]
            at += len(buffer)
        return True

    return read


def _writer(device: CipherDevice) -> Callable[[memoryview, int], bool]:
    below, start, mask = road(device.below)[1], device.start, device.sector_size - 1
    most = min(_QUICK, device.sector_size * _QUICK_SECTORS)

    def write(data: memoryview, offset: int) -> bool:
        """Write `data` at `offset`, to survive the death of the process. False when that takes waiting, or fails."""
        end = offset + len(data)
        if end - offset > most or (offset | end) & mask or not device.writers.take(offset, end):
            return False
        try:
            return below(memoryview(device.xts.encrypt(data, offset)), start + offset)
        finally:
            device.writers.release(offset, end)

    return write
