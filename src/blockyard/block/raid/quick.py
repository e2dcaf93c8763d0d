"""The short road to an array: reads and writes that wait for nothing, on the thread of the event loop.

It is on the way of every command (worker/fastpath.py) and shaped by speed: closures, no lock. It reads what lies on members that
can be read wholly, by their descriptors or short roads, and writes copies where the bitmap says already that something is being
written; of parity, only whole rows. What needs something read for its parity, fails, or meets somebody who has the place to
himself, takes the long road from its beginning: that some of it is written twice does no harm.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from os import preadv, pwrite
from typing import TYPE_CHECKING

from blockyard.block.gate import Gate
from blockyard.block.raid.engine import Slices
from blockyard.block.raid.geometry import Copies, Rows
from blockyard.block.raid.member import Member, State

if TYPE_CHECKING:
    from blockyard.block.raid.array import Array

Reader = Callable[[Sequence[memoryview], int, int], bool]
Writer = Callable[[memoryview, int], bool]


class QuickArray:
    """See blockyard.block.device.Quick. Made anew by `arranged` when other members are there."""

    def __init__(self, array: Array) -> None:
        self._array = array
        self.read: Reader = _no_read
        self.write: Writer = _no_write
        self._alive: list[None] = []  # empty when the roads that have it are no more to be taken

    def arranged(self) -> None:
        """The members are others, or others can be read. Nobody is inside of the array's gate."""
        array = self._array
        where = array.engine.geometry
        members = array.members
        self._alive.clear()
        self._alive = alive = [None]
        if array.reshaping is not None:
            self.read, self.write = _no_read, _no_write
            return
        readers = [_reader(slot) if slot is not None and slot.state is State.ACTIVE else None for slot in members.main]
        writers = [tuple(map(_writer, slot)) for slot in members.writers]
        if isinstance(where, Rows):
            self.read, self.write = _read_rows(array, alive, where, readers), _write_rows(array, alive, where, writers)
        elif where.mirror:
            self.read = _read_mirror(array, alive, [reader for reader in readers if reader is not None])
            self.write = _write_mirror(array, alive, [writer for slot in writers for writer in slot])
        else:
            self.read, self.write = (
                _read_chunks(array, alive, where, readers),
                _write_chunks(array, alive, where, writers),
            )


def _no_read(buffers: Sequence[memoryview], offset: int, length: int) -> bool:
    return False


def _no_write(data: memoryview, offset: int) -> bool:
    return False


def _reader(member: Member) -> Reader | None:
    """How the data area of a member is read without waiting."""
    base, device = member.data_offset, member.device
    if device.fd >= 0:
        flags = os.RWF_NOWAIT if device.nowait else 0
        return lambda buffers, offset, length: preadv(device.fd, buffers, base + offset, flags) == length
    if (quick := device.quick) is not None:
        return lambda buffers, offset, length: quick.read(buffers, base + offset, length)
    return None


def _writer(member: Member) -> Writer | None:
    base, device = member.data_offset, member.device
    if device.fd >= 0:
        return lambda data, offset: pwrite(device.fd, data, base + offset) == len(data)
    if (quick := device.quick) is not None:
        return lambda data, offset: quick.write(data, base + offset)
    return None


# ---- reading


def _read_mirror(array: Array, alive: list[None], readers: list[Reader | None]) -> Reader:
    gate, distrusted = array.gate, array.members.bitmap.distrusted
    if not readers or any(reader is None for reader in readers):
        return _no_read
    sound = [reader for reader in readers if reader is not None]
    count = len(sound)

    def read(buffers: Sequence[memoryview], offset: int, length: int) -> bool:
        gate.quick = True
        try:
            if gate.shut or distrusted or not alive:
                return False
            return sound[(offset >> 20) % count](buffers, offset, length)
        except OSError:
            return False
        finally:
            gate.leave()

    return read


def _read_chunks(array: Array, alive: list[None], where: Copies, readers: list[Reader | None]) -> Reader:
    gate, distrusted = array.gate, array.members.bitmap.distrusted
    chunk, copies, disks = where.chunk, where.copies, where.disks

    def place(offset: int) -> tuple[Reader | None, int]:
        number, inside = divmod(offset, chunk)
        row, slot = divmod(number * copies + (offset >> 20) % copies, disks)
        return readers[slot], row * chunk + inside

    return _chunkwise(gate, alive, distrusted, chunk, place)


def _read_rows(array: Array, alive: list[None], where: Rows, readers: list[Reader | None]) -> Reader:
    chunk, data, disks = where.chunk, where.data, where.disks
    slots = [where.at(row).data for row in range(disks)]

    def place(offset: int) -> tuple[Reader | None, int]:
        number, inside = divmod(offset, chunk)
        row, index = divmod(number, data)
        return readers[slots[row % disks][index]], row * chunk + inside

    return _chunkwise(array.gate, alive, (), chunk, place)


def _chunkwise(
    gate: Gate,
    alive: list[None],
    distrusted: Collection[int],
    chunk: int,
    place: Callable[[int], tuple[Reader | None, int]],
) -> Reader:
    """Reads chunk by chunk; a read that lies in one costs no list."""
    mask = chunk - 1

    def read(buffers: Sequence[memoryview], offset: int, length: int) -> bool:
        gate.quick = True
        try:
            if gate.shut or distrusted or not alive:
                return False
            if (offset & mask) + length <= chunk:
                reader, at = place(offset)
                return reader is not None and reader(buffers, at, length)
            slices, end = Slices(buffers), offset + length
            while offset < end:
                part = min(chunk - (offset & mask), end - offset)
                reader, at = place(offset)
                if reader is None or not reader(slices.take(part), at, part):
                    return False
                offset += part
            return True
        except OSError:
            return False
        finally:
            gate.leave()

    return read


# ---- writing


def _write_mirror(array: Array, alive: list[None], writers: list[Writer | None]) -> Writer:
    if not writers or any(writer is None for writer in writers) or array.read_only:
        return _no_write
    gate, ranges, bitmap = array.gate, array.ranges, array.members.bitmap
    ready, touched, region = bitmap.ready, bitmap.touched, bitmap.region
    each = [writer for writer in writers if writer is not None]

    def write(data: memoryview, offset: int) -> bool:
        gate.quick = True
        try:
            end = offset + len(data)
            first, last = offset // region, (end - 1) // region
            if gate.shut or not alive or not ready[first] or array.broken:
                return False
            if ranges.taken and not ranges.free(offset, end):
                return False
            if first != last and not all(ready[first : last + 1]):
                return False
            touched[first] = touched[last] = 1
            for writer in each:  # noqa: SIM110  (all() would make a generator)
                if not writer(data, offset):
                    return False
            return True
        except OSError:
            return False
        finally:
            gate.leave()

    return write


def _write_chunks(array: Array, alive: list[None], where: Copies, writers: list[tuple[Writer | None, ...]]) -> Writer:
    if any(not slot or None in slot for slot in writers) or array.read_only:
        return _no_write
    gate, ranges, bitmap = array.gate, array.ranges, array.members.bitmap
    ready, touched, region = bitmap.ready, bitmap.touched, bitmap.region
    chunk, copies, disks = where.chunk, where.copies, where.disks

    def put(data: memoryview, number: int, inside: int) -> bool:
        for at in range(number * copies, (number + 1) * copies):
            row, slot = divmod(at, disks)
            start = row * chunk + inside
            if ranges.taken and not ranges.free(start, start + len(data)):
                return False
            for writer in writers[slot]:
                if writer is None or not writer(data, start):
                    return False
        return True

    def write(data: memoryview, offset: int) -> bool:
        gate.quick = True
        try:
            first, last = offset // region, (offset + len(data) - 1) // region
            if gate.shut or not alive or array.broken or not all(ready[first : last + 1]):
                return False
            for number in range(first, last + 1):
                touched[number] = 1
            at, length = 0, len(data)
            while at < length:
                number, inside = divmod(offset + at, chunk)
                part = min(chunk - inside, length - at)
                if not put(data[at : at + part], number, inside):
                    return False
                at += part
            return True
        except OSError:
            return False
        finally:
            gate.leave()

    return write


def _write_rows(array: Array, alive: list[None], where: Rows, writers: list[tuple[Writer | None, ...]]) -> Writer:
    """Whole rows, whose parity takes nothing to be read. One that is torn when something fails is all written anew at once."""
    if any(len(slot) != 1 or None in slot for slot in writers) or array.read_only or array.members.journaling:
        return _no_write
    from blockyard.block.raid import parity  # noqa: PLC0415  (it needs numpy, which others need not have)

    gate, ranges, bitmap = array.gate, array.ranges, array.members.bitmap
    ready, touched, region = bitmap.ready, bitmap.touched, bitmap.region
    chunk, stripe, double = where.chunk, where.stripe, where.parities == 2
    each = [writer for (writer,) in writers if writer is not None]

    def put(data: memoryview, row: int) -> bool:
        slots, pieces = where.at(row), [data[at : at + chunk] for at in range(0, stripe, chunk)]
        arrays = [parity.array(piece) for piece in pieces]
        made = parity.sum_pq(arrays) if double else (parity.sum_p(arrays),)
        pieces += [one.data for one in made]
        return all(
            each[slot](piece, row * chunk) for slot, piece in zip((*slots.data, *slots.parities), pieces, strict=True)
        )

    def write(data: memoryview, offset: int) -> bool:
        if offset % stripe or len(data) % stripe:
            return False
        gate.quick = True
        try:
            row, rows = offset // stripe, len(data) // stripe
            start, end = row * chunk, (row + rows) * chunk
            first, last = start // region, (end - 1) // region
            if gate.shut or not alive or array.broken or not all(ready[first : last + 1]):
                return False
            if ranges.taken and not ranges.free(start, end):
                return False
            for number in range(first, last + 1):
                touched[number] = 1
            return all(put(data[at * stripe : (at + 1) * stripe], row + at) for at in range(rows))
        except OSError:
            return False
        finally:
            gate.leave()

    return write
