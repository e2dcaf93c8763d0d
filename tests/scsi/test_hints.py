"""Commands that have little to do here: PRE-FETCH and READ DEFECT DATA."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from blockyard.block.memory import MemoryDevice
from blockyard.scsi.sense import Asc, SenseKey
from tests.scsi.host import disk, file_device, memory


def _pre_fetch(lba: int, count: int, flags: int = 0) -> tuple[bytes, bytes]:
    return struct.pack(">BBIxHx", 0x34, flags, lba, count), struct.pack(">BBQIxx", 0x90, flags, lba, count)


class _Watched(MemoryDevice):
    fetched: tuple[int, int] = (-1, -1)

    def prefetch(self, offset: int, length: int) -> None:
        self.fetched = offset, length


@pytest.mark.parametrize(("count", "length"), [(0, (1 << 20) - 1024), (1, 512), (2046, 2046 * 512)])
@pytest.mark.parametrize("flags", [0, 2])
def test_pre_fetch(count: int, length: int, flags: int) -> None:
    device = _Watched(1 << 20)
    host = disk(device)
    for cdb in _pre_fetch(2, count, flags):
        device.fetched = (-1, -1)
        host.ok(cdb)
        assert device.fetched == (1024, length)


def test_pre_fetch_beyond_the_end() -> None:
    for cdb in _pre_fetch(2047, 2) + _pre_fetch(2048, 0):
        memory().fail(cdb, SenseKey.ILLEGAL_REQUEST, Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE)


def test_pre_fetch_of_a_file(tmp_path: Path) -> None:
    host = disk(file_device(tmp_path))
    for cdb in _pre_fetch(0, 0):
        host.ok(cdb)


@pytest.mark.parametrize("lists", [0, 0x08, 0x10, 0x1D])
def test_defect_lists_are_empty(lists: int) -> None:
    host = memory()
    assert host.ok(struct.pack(">BxBxxxxHx", 0x37, lists, 100)) == bytes([0, lists, 0, 0])
    assert host.ok(struct.pack(">BBIIxx", 0xB7, lists, 7, 100)) == bytes([0, lists, 0, 0, 0, 0, 0, 0])
    assert host.ok(struct.pack(">BBIIxx", 0xB7, lists, 0, 2)) == bytes([0, lists])
