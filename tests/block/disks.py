"""A disk in memory that can lose its power: for images, whose files grow."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from blockyard.block.device import Device, Run

SECTOR = 512


class Disk(Device):
    """A file with a volatile cache: `safe` is what survives, `cached` what has been written since the last flush.

    A write is torn at sectors, and each of them is kept or not. A length that has not been flushed may be lost too.
    """

    def __init__(self, granularity: int = SECTOR, data: bytes = b"") -> None:
        self.granularity = granularity
        self.safe = bytearray(data)
        self.seen = bytearray(data)
        self.cached: list[tuple[int, bytes | None]] = []  # position and what was written there; or the file's length

    @property
    def size(self) -> int:  # type: ignore[override]
        return len(self.seen)

    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        for buffer in buffers:
            assert 0 <= offset <= offset + len(buffer) <= len(self.seen), "a read outside of the file"
            buffer[:] = self.seen[offset : offset + len(buffer)]
            offset += len(buffer)

    def pwritev(self, buffers: Sequence[memoryview | bytes | bytearray], offset: int) -> None:
        assert not self.read_only
        data = b"".join(buffers)
        _put(self.seen, offset, data)
        for at in range(0, len(data), SECTOR):
            self.cached.append((offset + at, data[at : at + SECTOR]))

    def truncate(self, size: int) -> None:
        assert not self.read_only
        _cut(self.seen, size)
        self.cached.append((size, None))

    def flush(self) -> None:
        self._keep(self.cached)

    def write_zeroes(self, offset: int, length: int) -> None:
        for at in range(offset, min(offset + length, len(self.seen)), 1 << 16):
            piece = self.seen[at : min(at + (1 << 16), offset + length)]
            if piece.count(0) != len(piece):
                self.pwritev([bytes(len(piece))], at)

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        yield Run(offset, length, True)

    def close(self) -> None:
        """What was not flushed is as it was."""

    def lose_power(self, seed: int, density: float) -> None:
        """Keep of what is cached about so much."""
        chance = random.Random(seed)
        self._keep([change for change in self.cached if chance.random() < density])
        self.seen[:] = self.safe

    def _keep(self, changes: list[tuple[int, bytes | None]]) -> None:
        for position, data in changes:
            if data is None:
                _cut(self.safe, position)
            else:
                _put(self.safe, position, data)
        self.cached.clear()


def _put(data: bytearray, offset: int, piece: bytes) -> None:
    if len(data) < offset:
        data.extend(bytes(offset - len(data)))
    data[offset : offset + len(piece)] = piece


def _cut(data: bytearray, size: int) -> None:
    del data[size:]
    data.extend(bytes(size - len(data)))
