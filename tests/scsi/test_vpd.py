"""Every byte of the VPD pages."""

from __future__ import annotations

import struct

import pytest

from blockyard.block.memory import MemoryDevice
from blockyard.scsi import vpd
from blockyard.scsi.nexus import TargetPort
from blockyard.scsi.sense import Asc, SenseKey
from tests.scsi.host import NAME, PORT, TEST_UNIT_READY, UUID_1, disk, inquiry, memory


def test_supported_pages() -> None:
    host = memory()
    data = host.ok(inquiry(0))
    assert data == bytes.fromhex("00 00 000b 00 80 83 86 87 88 8a 8f b0 b1 b2")
    for code in data[4:]:
        page = host.ok(inquiry(code, 1024))
        assert page[:2] == bytes([0, code])
        assert int.from_bytes(page[2:4], "big") == len(page) - 4


def test_the_table_is_in_order() -> None:
    assert list(vpd.PAGES) == sorted(vpd.PAGES)


@pytest.mark.parametrize("length", [0, 3, 4, 10, 16])
def test_allocation_length(length: int) -> None:
    host = memory()
    assert host.ok(inquiry(0x83, length)) == host.ok(inquiry(0x83, 1000))[:length]


def test_unit_serial_number() -> None:
    assert memory().ok(inquiry(0x80)) == b"\x00\x80\x00\x20" + UUID_1.hex.encode()


def test_device_identification() -> None:
    data = memory().ok(inquiry(0x83))
    at, found = 4, []
    while at < len(data):
        length = data[at + 3]
        found.append((data[at], data[at + 1], data[at + 4 : at + 4 + length]))
        assert data[at + 2] == 0
        at += 4 + length
    assert at == len(data)
    naa = bytes.fromhex("3123456789abcdef")  # 3h, then the first 12 and the last 48 bits of the UUID
    assert found == [
        (0x01, 0x03, naa),
        (0x02, 0x01, b"BLOCKYRD" + UUID_1.hex.encode()),
        (0x03, 0x08, b"naa." + naa.hex().encode() + bytes(4)),
        (0x01, 0x0A, b"\x10\x00" + UUID_1.bytes),
        (0x51, 0x94, bytes.fromhex("0000 0001")),
        (0x51, 0x95, bytes.fromhex("0000 0001")),
        (0x53, 0x98, _padded(f"{NAME},t,0x0001")),
        (0x53, 0xA8, _padded(NAME)),
    ]


def _padded(text: str) -> bytes:
    data = text.encode() + b"\0"
    return data + bytes(-len(data) % 4)


def test_extended_inquiry() -> None:
    data = memory().ok(inquiry(0x86))
    assert data == bytes.fromhex("00 86 003c 00 0f 01 00 0000 0001") + bytes(52)
    host = memory()
    host.disk.blocks = (90 << 30) // 512
    assert host.ok(inquiry(0x86))[10:12] == (16).to_bytes(2, "big")


def test_mode_page_policy() -> None:
    assert memory().ok(inquiry(0x87)) == bytes.fromhex("00 87 0008 02 00 80 00 3f ff 00 00")


def test_scsi_ports() -> None:
    name = _padded(f"{NAME},t,0x0001")
    descriptor = bytes.fromhex("0000 0001 0000 0000 0000") + (4 + len(name)).to_bytes(2, "big")
    descriptor += bytes([0x53, 0x98, 0, len(name)]) + name
    assert memory().ok(inquiry(0x88)) == bytes([0, 0x88, 0, len(descriptor)]) + descriptor


def test_more_than_one_port() -> None:
    host = memory()
    assert not host.ok(inquiry())[6] & 0x10
    ports = [PORT, TargetPort(f"{NAME},t,0x0002", 2, 2)]
    for _ in range(2):
        host.nexus.ports.set_ports(ports)
    host.fail(TEST_UNIT_READY, SenseKey.UNIT_ATTENTION, Asc.INQUIRY_DATA_HAS_CHANGED)
    host.ok(TEST_UNIT_READY)
    assert host.ok(inquiry())[6] & 0x10  # MULTIP
    data = host.ok(inquiry(0x88))
    assert data.count(b",t,0x000") == 2


def test_power_condition() -> None:
    assert memory().ok(inquiry(0x8A)) == bytes.fromhex("00 8a 000e 03 07") + bytes(12)


@pytest.mark.parametrize(
    ("block_size", "granularity", "expected"),
    [
        (512, 4096, (1, 255, 8, 16384, 2048, 0, 1 << 20, 256, 8, 1 << 31, 32768)),
        (4096, 4096, (1, 255, 1, 2048, 256, 0, 1 << 20, 256, 1, 1 << 31, 32768)),
        (4096, 65536, (1, 255, 1, 2048, 256, 0, 1 << 20, 256, 16, 1 << 31, 32768)),
        (512, 0, (0, 255, 8, 16384, 2048, 0, 0, 0, 0, 0, 32768)),
    ],
)
def test_block_limits(block_size: int, granularity: int, expected: tuple[int, ...]) -> None:
    data = disk(MemoryDevice(1 << 20, granularity=granularity), block_size=block_size).ok(inquiry(0xB0))
    assert data[:4] == bytes.fromhex("00 b0 003c")
    assert struct.unpack_from(">BBHIIIIIIIQ", data, 4) == expected
    atomic = (2048, 8, 8, 2048, 2048) if block_size == 512 else (256, 1, 1, 256, 256)
    assert struct.unpack_from(">IIIII", data, 44) == atomic


@pytest.mark.parametrize(("rotational", "rate"), [(False, 1), (True, 0)])
def test_block_device_characteristics(rotational: bool, rate: int) -> None:
    device = MemoryDevice(1 << 20)
    device.rotational = rotational
    assert disk(device).ok(inquiry(0xB1)) == struct.pack(">BBHHxB56x", 0, 0xB1, 60, rate, 0x50)


@pytest.mark.parametrize(("granularity", "expected"), [(4096, "0b e4 02 00"), (0, "00 00 00 00")])
def test_logical_block_provisioning(granularity: int, expected: str) -> None:
    data = disk(MemoryDevice(1 << 20, granularity=granularity)).ok(inquiry(0xB2))
    assert data == bytes.fromhex("00 b2 0004" + expected)
