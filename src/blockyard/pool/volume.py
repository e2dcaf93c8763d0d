"""Volumes and snapshots of a pool as block devices.

A write goes one of two ways. Chunks that may be written where they are get it there, any number of writers side by side.
Those that need a new place are taken one writer at a time: it builds what the whole chunk will hold, writes that, and then
changes the map. A snapshot waits until no write is under way, so that none can reach what it has just come to share.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from threading import Lock
from typing import NamedTuple

from blockyard.block.device import Device, Run
from blockyard.pool.catalog import Snapshot
from blockyard.pool.pool import Pool
from blockyard.pool.space import NOWHERE


class _Part(NamedTuple):
    """What of a range lies in one chunk."""

    chunk: int
    inside: int  # where it begins there, in bytes
    length: int


def _parts(shift: int, offset: int, length: int) -> Iterator[_Part]:
    end = offset + length
    while offset < end:
        inside = offset & ((1 << shift) - 1)
        size = min((1 << shift) - inside, end - offset)
        yield _Part(offset >> shift, inside, size)
        offset += size


class _Cursor:
    """Takes a list of buffers apart, in order, without copying."""

    def __init__(self, buffers: Sequence[memoryview | bytes | bytearray]) -> None:
        self._rest = [memoryview(buffer).cast("B") for buffer in buffers]

    def take(self, length: int) -> list[memoryview]:
        taken: list[memoryview] = []
        while length:
            first = self._rest[0]
            taken.append(first[:length])
            length -= len(taken[-1])
            if len(taken[-1]) == len(first):
                self._rest.pop(0)
            else:
                self._rest[0] = first[len(taken[-1]) :]
        return taken


class VolumeDevice(Device):
    """A volume, as it is until it is rolled back."""

    def __init__(self, pool: Pool, name: str) -> None:
        volume = pool.volume(name)
        tree = pool.tree(volume.tree)
        self.size = volume.size
        self.granularity = 1 << tree.shift
        self._gate = tree.gate
        self._pool = pool
        self._name = name
        self._tree = tree
        self._remapping = Lock()

    def refresh(self) -> None:
        self.size = self._pool.volume(self._name).size

    def _where(self, chunk: int) -> int:
        return self._pool.place(self._tree, chunk)

    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        read_chunks(self._pool, self._where, self._tree.shift, buffers, offset)

    def pwritev(self, buffers: Sequence[memoryview | bytes | bytearray], offset: int) -> None:
        pool, tree = self._pool, self._tree
        cursor = _Cursor(buffers)
        epoch = pool.enter()
        try:
            with self._gate.writing():
                for part in _parts(tree.shift, offset, sum(map(len, buffers))):
                    data = cursor.take(part.length)
                    place = pool.place_to_overwrite(tree, part.chunk)
                    if place == NOWHERE:
                        self._write_elsewhere(part, data)
                    else:
                        pool.write(place, data, part.inside)
        finally:
            pool.leave(epoch)

    def _write_elsewhere(self, part: _Part, data: list[memoryview]) -> None:
        pool, tree = self._pool, self._tree
        with self._remapping:
            place = pool.place_to_overwrite(tree, part.chunk)
            if place != NOWHERE:  # another writer was first
                pool.write(place, data, part.inside)
                return
            old = pool.place(tree, part.chunk)
            new, zero = pool.allocate(tree)
            try:
                whole = part.length == 1 << tree.shift
                if whole or (zero and old == NOWHERE):
                    pool.write(new, data, part.inside)
                else:
                    image = memoryview(bytearray(1 << tree.shift))
                    if old != NOWHERE:
                        pool.read(old, [image], 0)
                    at = part.inside
                    for piece in data:
                        image[at : at + len(piece)] = piece
                        at += len(piece)
                    pool.write(new, [image], 0)
                pool.remap(tree, part.chunk, new)
            except BaseException:
                pool.give_back(tree, new)
                raise

    def flush(self) -> None:
        self._pool.flush()

    def discard(self, offset: int, length: int) -> None:
        self._zero(offset, length)

    def write_zeroes(self, offset: int, length: int) -> None:
        """Zeros take no space here, so that none is reserved for them."""
        self._zero(offset, length)

    def _zero(self, offset: int, length: int) -> None:
        pool, tree = self._pool, self._tree
        for part in _parts(tree.shift, offset, length):
            whole = part.length == 1 << tree.shift or (part.chunk << tree.shift) + part.length == self.size
            if whole:
                with self._gate.writing(), self._remapping:
                    pool.unmap(tree, part.chunk)
            elif pool.place(tree, part.chunk) != NOWHERE:
                self.pwritev([bytes(part.length)], (part.chunk << tree.shift) + part.inside)

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        run = Run(offset, 0, False)
        at = offset
        for part in _parts(self._tree.shift, offset, length):
            mapped = self._pool.place(self._tree, part.chunk) != NOWHERE
            if mapped != run.mapped and run.length:
                yield run
                run = Run(at, 0, mapped)
            run = Run(run.offset, run.length + part.length, mapped)
            at += part.length
        if run.length:
            yield run

    def close(self) -> None:
        self._pool.flush()


class SnapshotDevice(Device):
    """A snapshot, to be read only."""

    read_only = True

    def __init__(self, pool: Pool, snapshot: Snapshot) -> None:
        self.size = snapshot.size
        self._pool = pool
        self._tree = pool.tree(snapshot.tree)
        self._generation = snapshot.generation
        self.granularity = 1 << self._tree.shift

    def _where(self, chunk: int) -> int:
        return self._pool.place_at(self._tree, chunk, self._generation)

    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        read_chunks(self._pool, self._where, self._tree.shift, buffers, offset)

    def pwritev(self, buffers: Sequence[memoryview | bytes | bytearray], offset: int) -> None:
        raise OSError(errno.EROFS, "A snapshot does not change")

    def flush(self) -> None:
        """There is nothing that could be written."""

    def write_zeroes(self, offset: int, length: int) -> None:
        raise OSError(errno.EROFS, "A snapshot does not change")

    def close(self) -> None:
        """Nothing to let go of."""


def read_chunks(
    pool: Pool, where: Callable[[int], int], shift: int, buffers: Sequence[memoryview], offset: int
) -> None:
    """Fill `buffers` from `offset` on; `where` tells the place of a chunk."""
    cursor = _Cursor(buffers)
    epoch = pool.enter()
    try:
        for part in _parts(shift, offset, sum(map(len, buffers))):
            data = cursor.take(part.length)
            place = where(part.chunk)
            if place == NOWHERE:
                for piece in data:
                    piece[:] = bytes(len(piece))
            else:
                pool.read(place, data, part.inside)
    finally:
        pool.leave(epoch)
