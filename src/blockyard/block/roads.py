"""The short road to a device that another layer stands on, whichever it has (block/device.py: `fd`, `quick`)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from os import preadv, pwrite

from blockyard.block.device import Device

Road = tuple[Callable[[Sequence[memoryview], int, int], bool], Callable[[memoryview, int], bool]]


def road(device: Device) -> Road:
    """How to read and write a device without waiting."""
    if device.quick is not None:
        return device.quick.read, device.quick.write
    if device.fd < 0:
        return lambda buffers, offset, length: False, lambda data, offset: False
    fd, flags = device.fd, os.RWF_NOWAIT if device.nowait else 0

    def read(buffers: Sequence[memoryview], offset: int, length: int) -> bool:
        try:
            return preadv(fd, buffers, offset, flags) == length
        except OSError:
            return False

    def write(data: memoryview, offset: int) -> bool:
        try:
            return pwrite(fd, data, offset) == len(data)
        except OSError:
            return False

    return read, write


def has_road(device: Device) -> bool:
    """Whether there is a way without waiting at all."""
    return device.quick is not None or device.fd >= 0
