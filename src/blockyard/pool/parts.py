"""Ranges of a volume and lists of buffers, taken apart along the borders of chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple


class Part(NamedTuple):
    """What of a range lies in one chunk."""

    chunk: int
    inside: int  # where it begins there, in bytes
    length: int


def parts(shift: int, offset: int, length: int) -> Iterator[Part]:
    """A range of a volume with chunks of 1 << `shift` bytes, chunk by chunk."""
    end = offset + length
    while offset < end:
        inside = offset & ((1 << shift) - 1)
        size = min((1 << shift) - inside, end - offset)
        yield Part(offset >> shift, inside, size)
        offset += size


class Cursor:
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


_ZEROS = memoryview(bytes(1 << 16))


def zero(buffers: Sequence[memoryview]) -> None:
    """Fill buffers with zeros."""
    for buffer in buffers:
        for at in range(0, len(buffer), len(_ZEROS)):
            piece = buffer[at : at + len(_ZEROS)]
            piece[:] = _ZEROS[: len(piece)]
