"""The short road of what is below a cache, if that has one: by a road of its own, or by a descriptor."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from blockyard.block.device import Device


def below_read(device: Device) -> Callable[[Sequence[memoryview], int, int], bool] | None:
    """The short road of what is below, if it has one."""
    if device.quick is not None:
        return device.quick.read
    if device.fd < 0:
        return None
    fd, flags = device.fd, os.RWF_NOWAIT if device.nowait else 0

    def read(buffers: Sequence[memoryview], offset: int, length: int) -> bool:
        try:
            return os.preadv(fd, buffers, offset, flags) == length
        except OSError:
            return False

    return read


def below_write(device: Device) -> Callable[[memoryview, int], bool] | None:
    if device.quick is not None:
        return device.quick.write
    if device.fd < 0:
        return None
    fd = device.fd

    def write(data: memoryview, offset: int) -> bool:
        try:
            return os.pwrite(fd, data, offset) == len(data)
        except OSError:
            return False

    return write
