"""What layers that stand on one device have in common: they are what it is, and pass on what they do not change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from blockyard.block.device import Device, Run, Space


class Filter(Device):
    """The device `below`, without its short roads: every operation passes by here.

    What a layer has of its own, it lets go of in `detach`.
    """

    def __init__(self, below: Device) -> None:
        self.below = below
        self.children = (below,)
        self.size = below.size
        self.read_only = below.read_only
        self.granularity = below.granularity
        self.rotational = below.rotational
        self.stable = below.stable

    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        self.below.preadv(buffers, offset)

    def pwritev(self, buffers: Sequence[memoryview | bytes | bytearray], offset: int) -> None:
        self.below.pwritev(buffers, offset)

    def flush(self) -> None:
        self.below.flush()

    def refresh(self) -> None:
        self.below.refresh()
        self.size = self.below.size

    def truncate(self, size: int) -> None:
        self.below.truncate(size)
        self.size = self.below.size

    def prefetch(self, offset: int, length: int) -> None:
        self.below.prefetch(offset, length)

    def discard(self, offset: int, length: int) -> None:
        self.below.discard(offset, length)

    def write_zeroes(self, offset: int, length: int) -> None:
        self.below.write_zeroes(offset, length)

    def space(self) -> Space | None:
        return self.below.space()

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        return self.below.runs(offset, length)

    def detach(self) -> None:
        """Nothing is kept here, unless a layer says otherwise."""

    def close(self) -> None:
        try:
            self.detach()
        finally:
            self.below.close()
