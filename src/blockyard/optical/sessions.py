"""Where the sessions of an image begin: one that holds several is like what was read from a multi-session disc.

Each session begins with a system area of 16 blocks and a primary volume descriptor (ECMA-119 6.2.1, 8.4). The next one begins
after the lead-out and lead-in of a disc, or right after the data where the image was made without a disc. It is looked for
behind what the volume descriptor says it takes, and no farther than a disc would have it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from blockyard.optical.kinds import BLOCK

SYSTEM_AREA = 16  # blocks
# Lead-out of the first session and lead-in of the next, with its pregap (MMC-6, multi-session CD), and padding of writers
_FARTHEST = 6750 + 4500 + 150 + 512
_SIGNATURE = b"\x01CD001\x01"  # type 1, identifier, version (ECMA-119 8.4)
_PIECE = 512  # blocks that are looked at together
_MOST = 99  # tracks that a table of contents has

Read = Callable[[int, int], bytearray]  # so many bytes at an offset; zeros beyond the end


class Span(NamedTuple):
    """A session of one data track; its blocks from `start` up to `end`, without."""

    start: int
    end: int


def find(read: Read, blocks: int) -> tuple[Span, ...]:
    """The sessions of an image of so many blocks: one at least. Raises OSError."""
    starts = [0]
    ends: list[int] = []
    while len(starts) < _MOST:
        end = _end_of_volume(read, starts[-1], blocks)
        following = None if end is None else _next_start(read, end, blocks)
        if end is None or following is None:
            break
        ends.append(end)
        starts.append(following)
    return tuple(Span(start, end) for start, end in zip(starts, [*ends, blocks], strict=True))


def _end_of_volume(read: Read, start: int, blocks: int) -> int | None:
    """Where the volume that begins at `start` ends; None where there is no volume, or it goes up to the end."""
    descriptor = read((start + SYSTEM_AREA) * BLOCK, BLOCK)
    if descriptor[: len(_SIGNATURE)] != _SIGNATURE:
        return None
    size = int.from_bytes(descriptor[80:84], "little")  # VOLUME SPACE SIZE: of all up to here, or of this session
    end = size if size > start else start + size
    return end if start < end < blocks else None


def _next_start(read: Read, end: int, blocks: int) -> int | None:
    """The first block at or after `end` that begins another volume."""
    last = min(end + _FARTHEST, blocks - SYSTEM_AREA)
    for first in range(end, last, _PIECE):
        piece = read((first + SYSTEM_AREA) * BLOCK, min(_PIECE, last - first) * BLOCK)
        for number in range(len(piece) // BLOCK):
            if piece.startswith(_SIGNATURE, number * BLOCK):
                return first + number
    return None
