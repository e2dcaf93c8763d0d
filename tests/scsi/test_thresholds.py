"""Thin provisioning thresholds and resource counts."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from blockyard.block.file import FileDevice
from blockyard.block.memory import MemoryDevice
from blockyard.scsi import thin
from blockyard.scsi.sense import Asc, SenseKey
from tests.scsi.host import (
    TEST_UNIT_READY,
    Host,
    disk,
    file_device,
    inquiry,
    mode_select_6,
    ready_host,
    unmap,
    unmap_list,
)

_MIB = 1 << 20


def arm(host: Host, *, available: int | None = None, used: int | None = None) -> None:
    """MODE SELECT of page 1Ch/02h."""
    page = b"\x5c\x02\x00\x1c" + bytes(12)
    page += struct.pack(">BB2xI", (available is not None) << 7, 1, available or 0)
    page += struct.pack(">BB2xI", (used is not None) << 7 | 1, 2, used or 0)
    data = bytes(4) + page
    host.ok(mode_select_6(len(data)), data)


def look(host: Host) -> None:
    """What a worker does now and then."""
    host.disk.thresholds.look(host.disk.device.space())


def warned(host: Host) -> bool:
    result = host.send(TEST_UNIT_READY)
    if result.sense:
        host_sense = int.from_bytes(result.sense[12:14], "big")
        assert (result.sense[2], host_sense) == (
            SenseKey.UNIT_ATTENTION,
            Asc.THIN_PROVISIONING_SOFT_THRESHOLD_REACHED,
        )
    return bool(result.sense)


def free(host: Host, lba: int, count: int) -> None:
    data = unmap_list((lba, count))
    host.ok(unmap(len(data)), data)


@pytest.mark.parametrize(
    ("size", "block_size", "exponent"), [(_MIB, 512, 11), (_MIB, 4096, 8), (1 << 62, 512, 22), (1 << 62, 4096, 19)]
)
def test_exponent(size: int, block_size: int, exponent: int) -> None:
    host = disk(MemoryDevice(_MIB), block_size=block_size)
    host.disk.blocks = size // block_size
    assert host.ok(inquiry(0xB2))[4] == exponent
    assert thin.sets(host.disk, size) <= 0xFFFFFFFF
    assert disk(MemoryDevice(_MIB, granularity=0)).ok(inquiry(0xB2))[4] == 0


def test_every_nexus_is_warned_once() -> None:
    host = disk(MemoryDevice(16 * _MIB))
    other = ready_host(host.target, 0, "iqn.test:other")
    assert not host.disk.thresholds.armed
    arm(host, available=8)
    other.fail(TEST_UNIT_READY, SenseKey.UNIT_ATTENTION, Asc.MODE_PARAMETERS_CHANGED)
    assert host.disk.thresholds.armed
    host.write(0, b"x" * 7 * _MIB)
    look(host)
    assert not warned(host)
    host.write(7 * 2048, b"x" * _MIB)
    look(host)
    look(host)
    assert warned(host)
    assert warned(other)
    assert not warned(host)
    assert not warned(other)


def test_a_threshold_that_the_administrator_has_set() -> None:
    host = disk(MemoryDevice(16 * _MIB), soft_threshold=8 * _MIB)
    assert host.disk.thresholds.armed
    host.write(0, b"x" * 8 * _MIB)
    look(host)
    assert warned(host)
    arm(host, available=2)  # initiators may have another
    look(host)
    assert not warned(host)
    host.unit.reset()
    host.fail(TEST_UNIT_READY, SenseKey.UNIT_ATTENTION, Asc.BUS_DEVICE_RESET_FUNCTION_OCCURRED)
    look(host)
    assert warned(host)


def test_it_is_armed_again_when_space_has_come_back() -> None:
    host = disk(MemoryDevice(16 * _MIB))
    arm(host, available=8)
    for _ in range(2):
        host.write(0, b"x" * 8 * _MIB)
        look(host)
        assert warned(host)
        free(host, 0, 4096)
        look(host)
        assert not warned(host)


def test_used_resources() -> None:
    host = disk(MemoryDevice(16 * _MIB))
    arm(host, used=3)
    host.write(0, b"x" * 2 * _MIB)
    look(host)
    assert not warned(host)
    host.write(0, b"x" * 3 * _MIB)
    look(host)
    assert warned(host)


def test_a_second_threshold_warns_too() -> None:
    host = disk(MemoryDevice(16 * _MIB))
    arm(host, available=8, used=12)
    for size in (8, 4):
        host.write(0 if size == 8 else 8 * 2048, b"x" * size * _MIB)
        look(host)
        assert warned(host)


def test_nothing_is_known_of_some_devices() -> None:
    host = disk(MemoryDevice(16 * _MIB))
    arm(host, available=0xFFFFFFFF)
    host.disk.thresholds.look(None)
    assert not warned(host)
    assert thin.log_parameters(disk(MemoryDevice(_MIB, granularity=0)).disk) == b""


def test_resource_counts() -> None:
    host = disk(MemoryDevice(16 * _MIB))
    host.write(0, b"x" * 5 * _MIB)
    expected = struct.pack(">HBBIB3x", 1, 3, 8, 11, 2) + struct.pack(">HBBIB3x", 2, 3, 8, 5, 1)
    assert thin.log_parameters(host.disk) == expected


def test_a_file_tells_of_its_file_system(tmp_path: Path) -> None:
    device = file_device(tmp_path, 8 * _MIB)
    space = device.space()
    assert space is not None
    assert space.used == 0
    assert space.available > 0
    device.pwritev([b"x" * 3 * _MIB], 0)
    device.flush()
    space = device.space()
    assert space is not None
    assert 3 * _MIB <= space.used < 4 * _MIB
    device.close()
    assert FileDevice(tmp_path / "disk.img", read_only=True).space() is not None
