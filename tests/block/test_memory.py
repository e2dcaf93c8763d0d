"""The device in memory."""

from __future__ import annotations

from blockyard.block.device import Run
from blockyard.block.memory import MemoryDevice


def test_read_and_write() -> None:
    device = MemoryDevice(1 << 16)
    device.pwritev([b"a" * 512, memoryview(b"b" * 512)], 512)
    first, second = bytearray(1024), bytearray(1024)
    device.preadv([memoryview(first), memoryview(second)], 0)
    assert first + second == bytes(512) + b"a" * 512 + b"b" * 512 + bytes(512)
    device.flush()
    device.close()


def test_runs() -> None:
    device = MemoryDevice(5 * 4096 + 512)
    assert list(device.runs(0, device.size)) == [Run(0, device.size, False)]
    device.pwritev([b"x" * 1024], 4096 + 512)
    device.write_zeroes(3 * 4096 - 512, 1024)
    assert list(device.runs(0, device.size)) == [
        Run(0, 4096, False),
        Run(4096, 12288, True),
        Run(16384, 4096 + 512, False),
    ]
    assert list(device.runs(5000, 200)) == [Run(5000, 200, True)]
    assert list(device.runs(0, 0)) == []


def test_discard() -> None:
    device = MemoryDevice(5 * 4096 + 512)
    device.pwritev([b"x" * device.size], 0)
    device.discard(2048, 8192)
    assert device.data == b"x" * 2048 + bytes(8192) + b"x" * (device.size - 10240)
    assert list(device.runs(0, device.size)) == [
        Run(0, 4096, True),
        Run(4096, 4096, False),
        Run(8192, 3 * 4096 + 512, True),
    ]
    device.discard(5 * 4096, 512)  # the last granule has no more than this
    assert list(device.runs(5 * 4096, 512)) == [Run(5 * 4096, 512, False)]


def test_without_granularity() -> None:
    device = MemoryDevice(1 << 16, granularity=0)
    device.pwritev([b"x" * 4096], 0)
    device.discard(0, 4096)
    assert not any(device.data)
    assert list(device.runs(0, 1 << 16)) == [Run(0, 1 << 16, True)]
    assert device.resolve(0, 512) is None
