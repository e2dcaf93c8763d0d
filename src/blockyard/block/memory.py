"""A device in memory, for tests and for programs that embed the target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from blockyard.block.device import Device, Run, Space


class MemoryDevice(Device):
    """`size` bytes of zeros; thin when `granularity` is not 0. What it holds is gone with the process."""

    def __init__(self, size: int, *, granularity: int = 4096, read_only: bool = False) -> None:
        self.size = size
        self.granularity = granularity
        self.read_only = read_only
        self.data = bytearray(size)
        self._mapped: set[int] = set()  # numbers of granules

    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        for buffer in buffers:
            buffer[:] = self.data[offset : offset + len(buffer)]
            offset += len(buffer)

    def pwritev(self, buffers: Sequence[memoryview | bytes | bytearray], offset: int) -> None:
        for buffer in buffers:
            self.data[offset : offset + len(buffer)] = buffer
            self._map(offset, len(buffer))
            offset += len(buffer)

    def flush(self) -> None:
        """Nothing is more stable than it was."""

    def discard(self, offset: int, length: int) -> None:
        self.data[offset : offset + length] = bytes(length)
        if self.granularity:
            first = -(-offset // self.granularity)
            end = offset + length
            last = -(-end // self.granularity) if end == self.size else end // self.granularity
            self._mapped.difference_update(range(first, last))

    def write_zeroes(self, offset: int, length: int) -> None:
        self.data[offset : offset + length] = bytes(length)
        self._map(offset, length)

    def _map(self, offset: int, length: int) -> None:
        if self.granularity and length:
            self._mapped.update(range(offset // self.granularity, (offset + length - 1) // self.granularity + 1))

    def space(self) -> Space | None:
        used = len(self._mapped) * self.granularity
        return Space(self.size - used, used) if self.granularity else None

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        if not self.granularity:
            yield Run(offset, length, True)
            return
        start, end = offset, offset + length
        while start < end:
            granule = start // self.granularity
            mapped = granule in self._mapped
            while granule * self.granularity < end and (granule in self._mapped) is mapped:
                granule += 1
            stop = min(granule * self.granularity, end)
            yield Run(start, stop - start, mapped)
            start = stop

    def close(self) -> None:
        """Nothing to let go of."""
