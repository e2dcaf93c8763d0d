"""What blocks of an image can be, and which of their sectors are there."""

from __future__ import annotations

import errno
from collections.abc import Iterator

ABSENT, ZERO, PRESENT, PARTIAL = 0, 2, 6, 7  # as VHDX numbers them (MS-VHDX 2.5.1.1)
NOWHERE = -1


class ImageError(OSError):
    """An image that is damaged, or is not what it should be. Says what is wrong, and with which file."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(errno.EINVAL, what, path)
        self.what = what


def bit_runs(bits: int, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
    """The bits from `start` to before `end` as runs of equal ones: where each begins and ends, and what it is."""
    while start < end:
        rest = bits >> start
        is_set = bool(rest & 1)
        others = ~rest if is_set else rest
        stop = min(end, start + (others & -others).bit_length() - 1) if others else end
        yield start, stop, is_set
        start = stop


def ones(start: int, end: int) -> int:
    """A number whose bits from `start` to before `end` are set."""
    return (1 << end) - (1 << start)
