"""The short road to an image: reads and writes that wait for nothing, on the thread of the event loop.

It knows blocks that are wholly here, zeros, and sectors whose bits have been looked at. All else takes the long road, from its
beginning. It is on the way of every command (worker/fastpath.py) and shaped by speed: closures, no lock. The gate keeps those
away meanwhile who take a place from a block; who gives one to a block writes the place before the state, and this reads them
the other way round.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from os import preadv, pwrite
from typing import TYPE_CHECKING

from blockyard.block.image_states import ABSENT, PARTIAL, PRESENT, ZERO

if TYPE_CHECKING:
    from blockyard.block.image import BlockImage

_ZEROS = memoryview(bytes(1 << 20))


class QuickImage:
    """See blockyard.block.device.Quick. For an image whose file has a descriptor to read by."""

    def __init__(self, image: BlockImage) -> None:
        self.read = _reader(image)
        self.write = _writer(image)


def _reader(image: BlockImage) -> Callable[[Sequence[memoryview], int, int], bool]:
    states, places, gate, covers = image.states, image.places, image.gate, image.covers
    size, fd = image.block_size, image.below.fd
    shift, mask = size.bit_length() - 1, size - 1
    flags = os.RWF_NOWAIT if image.below.nowait else 0

    def read(buffers: Sequence[memoryview], offset: int, length: int) -> bool:
        """Fill `buffers`, of `length` bytes together, from `offset` on. False when that takes waiting, or fails."""
        gate.quick = True
        try:
            block, inside = offset >> shift, offset & mask
            if gate.shut or inside + length > size:
                return False
            state = states[block]
            if state == PRESENT or (state == PARTIAL and covers(block, inside, length)):
                return preadv(fd, buffers, places[block] + inside, flags) == length
            if state == ZERO or (state == ABSENT and image.parent is None):
                for buffer in buffers:
                    buffer[:] = _ZEROS[: len(buffer)]
                return True
            return False
        except (OSError, ValueError):  # ValueError: a buffer that is longer than the zeros at hand
            return False
        finally:
            gate.quick = False  # as Gate.leave has it; a call of it would be a tenth of all this
            if gate.shut:
                gate.leave()

    return read


def _writer(image: BlockImage) -> Callable[[memoryview, int], bool]:
    states, places, gate, covers = image.states, image.places, image.gate, image.covers
    size, fd = image.block_size, image.below.fd
    shift, mask = size.bit_length() - 1, size - 1

    def write(data: memoryview, offset: int) -> bool:
        """Write `data` at `offset`, to survive the death of the process. False when that takes waiting, or fails."""
        gate.quick = True
        try:
            block, inside = offset >> shift, offset & mask
            length = len(data)
            if gate.shut or inside + length > size or not image.begun:
                return False
            if states[block] == PRESENT or covers(block, inside, length):
                return pwrite(fd, data, places[block] + inside) == length
            return False
        except OSError:
            return False
        finally:
            gate.quick = False  # as Gate.leave has it; a call of it would be a tenth of all this
            if gate.shut:
                gate.leave()

    return write
