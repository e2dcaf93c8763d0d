"""A volume on its way to another stack: it is where it was, and everything that is written goes to both.

What is behind the mark has been copied, and is written to the new stack too; what lies before it is written to the old one alone,
and copied when the mark comes there. The piece that is being copied keeps writers of that range waiting for its time, and so
does who writes: two at one place could come to the old stack in one order and to the new one in another. The old stack is
always what counts: it is written first and read from, so that a crash or a failure of the new one leaves it as if nothing had
been. When all is copied both are the same, and either can go on alone.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Condition

from blockyard.block.actions import NoOptions, Progress
from blockyard.block.device import Device
from blockyard.block.filter import Filter
from blockyard.block.layers import Kind, Opening
from blockyard.block.roads import road

PIECE = 1 << 20  # bytes that are copied at a time


class MovingDevice(Filter):
    """The device `old`, which `new` becomes a copy of by `copy`. Raises OSError (ENOSPC) where that does not fit."""

    def __init__(self, old: Device, new: Device) -> None:
        super().__init__(old)
        if new.size < old.size or new.read_only:
            raise OSError(
                errno.ENOSPC, f"It has {old.size} bytes, and where it is to go there are {new.size} to be written"
            )
        self.new = new
        self.children = (old, new)
        self.copied = 0  # bytes from the beginning on that both have
        self.failure: OSError | None = None  # of the new stack, which is left alone since
        self.given_up = False
        self.leaving = False  # somebody sees to it that the old stack alone is there again
        self._copying = (0, 0)  # the range that is being copied
        self._writing: list[tuple[int, int]] = []  # ranges
        self._condition = Condition()
        self._read_below, self._write_below = road(old)
        if old.fd >= 0 or old.quick is not None:
            self.quick = self

    # ---- the short road (block/device.py, Quick)

    def read(self, buffers: Sequence[memoryview], offset: int, length: int) -> bool:
        return self._read_below(buffers, offset, length)

    def write(self, data: memoryview, offset: int) -> bool:
        """Nothing that is to go to both."""
        return self.given_up and self._write_below(data, offset)

    # ---- writing to both

    @contextmanager
    def _range(self, offset: int, length: int) -> Iterator[bool]:
        """While somebody writes there; whether to the new stack, too. One after the other, as both have to have one order."""
        end = offset + length
        with self._condition:
            while any(begin < end and offset < stop for begin, stop in (self._copying, *self._writing)):
                self._condition.wait()
            self._writing.append((offset, end))
            both = offset < self.copied and not self.given_up
        try:
            yield both
        finally:
            with self._condition:
                self._writing.remove((offset, end))
                self._condition.notify_all()

    def pwritev(self, buffers: Sequence[memoryview | bytes | bytearray], offset: int) -> None:
        with self._range(offset, sum(map(len, buffers))) as both:
            self.below.pwritev(buffers, offset)
            if both:
                self._too(lambda: self.new.pwritev(buffers, offset))

    def discard(self, offset: int, length: int) -> None:
        with self._range(offset, length) as both:
            self.below.discard(offset, length)
            if both:
                self._too(lambda: self.new.discard(offset, length))

    def write_zeroes(self, offset: int, length: int) -> None:
        with self._range(offset, length) as both:
            self.below.write_zeroes(offset, length)
            if both:
                self._too(lambda: self.new.write_zeroes(offset, length))

    def flush(self) -> None:
        self.below.flush()
        if not self.given_up:
            self._too(self.new.flush)

    def _too(self, do: Callable[[], None]) -> None:
        """What is done with the new stack, whose failure is nobody's but its own."""
        try:
            do()
        except OSError as error:
            self.failure = error
            self.given_up = True

    def truncate(self, size: int) -> None:
        raise OSError(errno.EBUSY, "It is being moved")

    def refresh(self) -> None:
        """It keeps its size until it has been moved."""

    # ---- copying

    def copy(self, progress: Progress) -> str:
        """Copy all; from then on both are the same. What `progress` raises gives it up. Raises OSError where it fails."""
        try:
            while self.copied < self.size:
                if self.given_up:
                    raise self.failure or OSError(errno.ECANCELED, "It was given up")
                self._copy_piece(min(PIECE, self.size - self.copied))
                progress(self.copied, self.size)
            self.flush()
            if self.failure is not None:
                raise self.failure
        except BaseException:
            self.give_up()
            raise
        return "both stacks are the same now, and are written to together until the old one is let go of"

    def _copy_piece(self, length: int) -> None:
        start, end = self.copied, self.copied + length
        with self._condition:
            self._copying = (start, end)
            while any(begin < end and start < stop for begin, stop in self._writing):
                self._condition.wait()
        try:
            self.new.copy_from(self.below, start, start, length)
            self.copied = end
        finally:
            with self._condition:
                self._copying = (0, 0)
                self._condition.notify_all()

    def give_up(self) -> None:
        """Go on without the new stack."""
        with self._condition:
            self.given_up = True

    @property
    def in_step(self) -> bool:
        """Whether both are the same."""
        return self.copied >= self.size and not self.given_up

    def report(self) -> dict[str, object]:
        if self.failure is not None:
            return {"health": "degraded", "text": f"not moved: {self.failure}"}
        if self.given_up:
            return {"text": "not moved"}
        return {"text": "in step" if self.in_step else "copying", "progress": [self.copied, self.size]}

    def detach(self) -> None:
        if not self.in_step and not self.given_up:
            raise OSError(errno.EBUSY, "It is being moved: cancel that first, or wait until it is done")
        if self.in_step:
            self.new.flush()

    def close(self) -> None:
        self.give_up()
        try:
            self.below.close()
        finally:
            self.new.close()


def _open(children: Sequence[Device], options: NoOptions, opening: Opening) -> Device:
    return MovingDevice(*children)


KINDS = (
    Kind("moving", "A volume on its way to another stack; `blockyard layer move` makes it.", _open, children=(2, 2)),
)
