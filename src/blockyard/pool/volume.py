"""Volumes and snapshots of a pool as block devices: the long road, that may wait for what it needs. The short one is quick.py.

A write goes one of two ways. Chunks that may be written where they are get it there, any number of writers side by side; a
snapshot waits until none of them is at it, so that none can reach what it has just come to share. Who finds a chunk that needs
a new place claims it, builds what the whole chunk will hold, writes that, and then changes the map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count

from blockyard.block.device import Device, ReadOnly, Run, Space
from blockyard.pool.catalog import Snapshot
from blockyard.pool.checksum import checksum
from blockyard.pool.parts import Cursor, Part, parts, zero
from blockyard.pool.pool import Pool
from blockyard.pool.quick import Quick
from blockyard.pool.space import NOWHERE
from blockyard.pool.spans import runs, spans
from blockyard.pool.tree import Found, Tree
from blockyard.pool.zeros import is_zero, watching

_UNMAPS = 64  # chunks that are unmapped together, and meanwhile claimed


class VolumeDevice(Device):
    """A volume, as it is until it is rolled back."""

    def __init__(self, pool: Pool, name: str) -> None:
        volume = pool.volume(name)
        tree = pool.tree(volume.tree)
        self.size = volume.size
        self.granularity = 1 << tree.shift
        self.quick = Quick(pool, tree) if pool.devices and not tree.checksums else None
        self._pool = pool
        self._name = name
        self._tree = tree
        self._detects_zeros = False
        self._detect_zeros(volume.zero_detection)

    def refresh(self) -> None:
        """Have the size and the options that the volume has by now."""
        volume = self._pool.volume(self._name)
        self.size = volume.size
        self._detect_zeros(volume.zero_detection)

    def _detect_zeros(self, wanted: bool) -> None:
        if self.quick is not None and wanted != self._detects_zeros:
            self.quick = Quick(self._pool, self._tree)
            if wanted:
                self.quick.write = watching(self.quick.write, self.granularity)
        self._detects_zeros = wanted

    def space(self) -> Space:
        return self._pool.space_of(self._tree)

    def _find(self, chunk: int) -> Found:
        return self._pool.find(self._tree, chunk)

    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        read_chunks(self._pool, self._tree, self._find, self._name, buffers, offset)

    def pwritev(self, buffers: Sequence[memoryview | bytes | bytearray], offset: int) -> None:
        for attempt in count():
            try:
                self._write(buffers, offset)
                return
            except OSError as error:
                if not self._pool.make_room(self._tree, error, attempt):
                    raise

    def _write(self, buffers: Sequence[memoryview | bytes | bytearray], offset: int) -> None:
        pool, tree = self._pool, self._tree
        pool.make_way()
        cursor = Cursor(buffers)
        epoch = pool.enter()
        try:
            for part in parts(tree.shift, offset, sum(map(len, buffers))):
                data = cursor.take(part.length)
                if self._detects_zeros and part.length == self.granularity and is_zero(data):
                    self._unmap(part.chunk, part.chunk + 1)
                elif not self._overwrite(part, data):
                    self._write_elsewhere(part, data)
        finally:
            pool.leave(epoch)

    def _overwrite(self, part: Part, data: Sequence[memoryview]) -> bool:
        """Write to a chunk where it is. False when it needs a new place."""
        with self._tree.gate.shared():
            place = self._pool.place_to_overwrite(self._tree, part.chunk)
            if place != NOWHERE:
                self._pool.write(place, data, part.inside)
        return place != NOWHERE

    def _write_elsewhere(self, part: Part, data: Sequence[memoryview]) -> None:
        pool, tree = self._pool, self._tree
        with tree.claims.claimed((part.chunk,)):
            if self._overwrite(part, data):  # another writer was first
                return
            old = self._find(part.chunk)
            new, is_blank = pool.allocate(tree)
            try:
                whole = part.length == 1 << tree.shift
                if not whole and (tree.checksums or not is_blank or old.place != NOWHERE):
                    data, part = [self._image(part, data, old)], Part(part.chunk, 0, 1 << tree.shift)
                pool.write(new, data, part.inside)
                pool.remap(tree, [(part.chunk, new)], checksum(data) if tree.checksums else 0)
            except BaseException:
                pool.give_back(tree, new)
                raise

    def _image(self, part: Part, data: Sequence[memoryview], old: Found) -> memoryview:
        """What a whole chunk, which was at `old`, will hold."""
        image = memoryview(bytearray(1 << self._tree.shift))
        if old.place != NOWHERE:
            self._pool.read(old.place, [image], 0)
            if self._tree.checksums:
                self._pool.verifier.verify([image], old.sum, self._name, part.chunk)
        at = part.inside
        for piece in data:
            image[at : at + len(piece)] = piece
            at += len(piece)
        return image

    def flush(self) -> None:
        self._pool.flush()

    def discard(self, offset: int, length: int) -> None:
        self._zero(offset, length)

    def write_zeroes(self, offset: int, length: int) -> None:
        """Zeros take no space here, so that none is reserved for them."""
        self._zero(offset, length)

    def _zero(self, offset: int, length: int) -> None:
        """Unmap the chunks that are wholly in a range, the last of the volume among them, and write zeros to parts of others."""
        shift, size = self._tree.shift, 1 << self._tree.shift
        for span in spans(self._pool, self._tree, offset, length):
            if span.held:
                start, end = span.offset, span.offset + span.length
                first, last = -(-start >> shift), (end if end < self.size else end + size - 1) >> shift
                if first < last:
                    self._write_zeros(start, first << shift)
                    self._unmap(first, last)
                    self._write_zeros(last << shift, end)
                else:
                    self._write_zeros(start, end)

    def _write_zeros(self, start: int, end: int) -> None:
        for part in parts(self._tree.shift, start, end - start):
            if self._find(part.chunk).place != NOWHERE:
                self.pwritev([bytes(part.length)], (part.chunk << self._tree.shift) + part.inside)

    def _unmap(self, first: int, last: int) -> None:
        for at in range(first, last, _UNMAPS):
            chunks = range(at, min(at + _UNMAPS, last))
            self._pool.make_way()
            with self._tree.claims.claimed(chunks):
                self._pool.unmap(self._tree, chunks)

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        return runs(self._pool, self._tree, offset, length)

    def close(self) -> None:
        self._pool.flush()


class SnapshotDevice(ReadOnly):
    """A snapshot, to be read only."""

    refusal = "A snapshot does not change"

    def __init__(self, pool: Pool, snapshot: Snapshot) -> None:
        self.size = snapshot.size
        self._pool = pool
        self._label = f"@{snapshot.name}"
        self._tree = pool.tree(snapshot.tree)
        self._generation = snapshot.generation
        self.granularity = 1 << self._tree.shift

    def _find(self, chunk: int) -> Found:
        return self._pool.find_at(self._tree, chunk, self._generation)

    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        read_chunks(self._pool, self._tree, self._find, self._label, buffers, offset)

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        return runs(self._pool, self._tree, offset, length, self._generation)


def read_chunks(
    pool: Pool, tree: Tree, find: Callable[[int], Found], label: str, buffers: Sequence[memoryview], offset: int
) -> None:
    """Fill `buffers` from `offset` on; `find` tells where a chunk is. Raises ChecksumError."""
    cursor = Cursor(buffers)
    epoch = pool.enter()
    try:
        for part in parts(tree.shift, offset, sum(map(len, buffers))):
            data = cursor.take(part.length)
            place, expected = find(part.chunk)
            if place == NOWHERE:
                zero(data)
            elif tree.checksums:
                _read_verified(pool, tree, Found(place, expected), part, data, label)
            else:
                pool.read(place, data, part.inside)
    finally:
        pool.leave(epoch)


def _read_verified(pool: Pool, tree: Tree, found: Found, part: Part, data: Sequence[memoryview], label: str) -> None:
    """Read part of a chunk: all of it, as the checksum is of all."""
    if part.length == 1 << tree.shift:
        pool.read(found.place, data, 0)
        pool.verifier.verify(data, found.sum, label, part.chunk)
        return
    image = memoryview(bytearray(1 << tree.shift))
    pool.read(found.place, [image], 0)
    pool.verifier.verify([image], found.sum, label, part.chunk)
    at = part.inside
    for piece in data:
        piece[:] = image[at : at + len(piece)]
        at += len(piece)
