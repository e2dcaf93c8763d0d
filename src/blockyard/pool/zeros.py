"""Zero detection: chunks that are written with nothing but zeros need no space."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_BLOCK = bytes(1 << 16)


def is_zero(pieces: Sequence[memoryview]) -> bool:
    """Whether all bytes are zeros. Data that is not mostly tells so by its ends."""
    if any(piece[0] or piece[-1] for piece in pieces):
        return False
    return all(
        bytes(piece[at : at + len(_BLOCK)]) == _BLOCK[: len(piece) - at]
        for piece in pieces
        for at in range(0, len(piece), len(_BLOCK))
    )


def watching(write: Callable[[memoryview, int], bool], size: int) -> Callable[[memoryview, int], bool]:
    """The short road of a volume with chunks of `size` bytes, which leaves to the long one what may be a chunk of zeros."""

    def watched(data: memoryview, offset: int) -> bool:
        for at in range(-offset & size - 1, len(data) - size + 1, size):
            if not data[at] and not data[at + size - 1]:
                return False
        return write(data, offset)

    return watched
