"""What can be written to, as something that cannot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from blockyard.block.actions import NoOptions
from blockyard.block.device import Device, Extent, ReadOnly, Run, Space
from blockyard.block.layers import Kind, Opening


class ReadOnlyDevice(ReadOnly):
    """The device `below`, for reading only. Its short roads for reading stay."""

    refusal = "A layer says that it is for reading only"

    def __init__(self, below: Device) -> None:
        self.below = below
        self.children = (below,)
        self.size = below.size
        self.rotational = below.rotational
        self.stable = below.stable
        self.fd, self.nowait, self.quick = below.fd, below.nowait, below.quick

    def resolve(self, offset: int, length: int) -> Sequence[Extent] | None:
        return self.below.resolve(offset, length)

    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        self.below.preadv(buffers, offset)

    def prefetch(self, offset: int, length: int) -> None:
        self.below.prefetch(offset, length)

    def refresh(self) -> None:
        self.below.refresh()
        self.size = self.below.size

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        return self.below.runs(offset, length)

    def space(self) -> Space | None:
        return self.below.space()

    def detach(self) -> None:
        """Nothing is kept here."""

    def close(self) -> None:
        self.below.close()


def _open(children: Sequence[Device], options: NoOptions, opening: Opening) -> Device:
    return ReadOnlyDevice(children[0])


KINDS = (
    Kind("readonly", "What it stands on, for reading only.", _open, only_reads=True, example="readonly(/srv/a.img)"),
)
