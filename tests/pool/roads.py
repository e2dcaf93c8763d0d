"""The two roads to a volume: the short one of the event loop, where it goes, and the long one."""

from __future__ import annotations

from blockyard.pool.volume import VolumeDevice


def write(device: VolumeDevice, data: bytes, offset: int, *, short: bool) -> bool:
    """Write by the short road if it goes, else by the long one; whether it was the short one."""
    if short and device.quick is not None and device.quick.write(memoryview(data), offset):
        return True
    device.pwritev([data], offset)
    return False


def read(device: VolumeDevice, offset: int, length: int) -> bytes:
    """Read by both roads, which must find the same where the short one goes; cut in two, as buffers of a reply may be."""
    data, again = bytearray(length), bytearray(length)
    device.preadv([memoryview(data)], offset)
    half = memoryview(again)[: length // 3], memoryview(again)[length // 3 :]
    if device.quick is not None and device.quick.read(half, offset, length):
        assert again == data
    return bytes(data)
