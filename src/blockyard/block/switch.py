"""What a logical unit stands on, so that something else can be put there: it is whatever it stands for, short roads included."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter

from blockyard.block.actions import Action
from blockyard.block.device import Device, Extent, Run, Space


class Switch(Device):
    """The device `current`. Whoever changes that sees to it that nobody uses it meanwhile."""

    def __init__(self, current: Device) -> None:
        self.current = current

    def resolve(self, offset: int, length: int) -> Sequence[Extent] | None:
        return self.current.resolve(offset, length)

    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        self.current.preadv(buffers, offset)

    def pwritev(self, buffers: Sequence[memoryview | bytes | bytearray], offset: int) -> None:
        self.current.pwritev(buffers, offset)

    def flush(self) -> None:
        self.current.flush()

    def refresh(self) -> None:
        self.current.refresh()

    def truncate(self, size: int) -> None:
        self.current.truncate(size)

    def prefetch(self, offset: int, length: int) -> None:
        self.current.prefetch(offset, length)

    def discard(self, offset: int, length: int) -> None:
        self.current.discard(offset, length)

    def write_zeroes(self, offset: int, length: int) -> None:
        self.current.write_zeroes(offset, length)

    def write_same(self, block: memoryview | bytes, offset: int, length: int) -> None:
        self.current.write_same(block, offset, length)

    def compare_and_write(
        self, expected: memoryview | bytes | bytearray, data: memoryview | bytes | bytearray, offset: int
    ) -> int | None:
        return self.current.compare_and_write(expected, data, offset)

    def space(self) -> Space | None:
        return self.current.space()

    def copy_from(self, source: Device, source_offset: int, offset: int, length: int, *, thin: bool = True) -> None:
        below = source.current if isinstance(source, Switch) else source
        self.current.copy_from(below, source_offset, offset, length, thin=thin)

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        return self.current.runs(offset, length)

    def report(self) -> dict[str, object]:
        return self.current.report()

    def actions(self) -> Mapping[str, Action]:
        return self.current.actions()

    def close(self) -> None:
        self.current.close()


_ATTRIBUTES = ("size", "read_only", "granularity", "rotational", "stable", "fd", "quick", "overlapped", "compares", "nowait",
               "children", "label")  # fmt: skip
for _name in _ATTRIBUTES:
    setattr(Switch, _name, property(attrgetter(f"current.{_name}")))
