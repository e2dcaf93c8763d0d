"""Timestamps, identifying information, priorities, supported task management functions."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import pytest

from blockyard.block.memory import MemoryDevice
from blockyard.scsi import transport_id
from blockyard.scsi.durable import Durable
from blockyard.scsi.sense import Asc, SenseKey
from tests.scsi.host import TEST_UNIT_READY, UUID_1, Host, disk, memory, ready_host

IDENTIFYING, FUNCTIONS, PRIORITY, TIMESTAMP = 0x05, 0x0D, 0x0E, 0x0F


def report(action: int, byte_2: int = 0, length: int = 1024, last: int = 0) -> bytes:
    return struct.pack(">BBBxxxIBB", 0xA3, action, byte_2, length, last, 0)


def change(action: int, length: int, byte_2: int = 0, last: int = 0) -> bytes:
    return struct.pack(">BBBxxxIBB", 0xA4, action, byte_2, length, last, 0)


def pair() -> tuple[Host, Host]:
    one = memory()
    return one, ready_host(one.target, initiator="iqn.test:other")


# ---- timestamp


def timestamp(host: Host) -> tuple[int, int]:
    data = host.ok(report(TIMESTAMP))
    assert (len(data), data[:2]) == (12, b"\0\x0a")
    return data[2], int.from_bytes(data[4:10], "big")


def test_the_time_is_that_of_the_host_until_it_is_set() -> None:
    one, two = pair()
    before = time.time_ns() // 1_000_000
    origin, found = timestamp(one)
    assert (origin, before <= found <= time.time_ns() // 1_000_000) == (3, True)
    data = bytes(4) + (1_000_000).to_bytes(6, "big") + bytes(2)
    one.ok(change(TIMESTAMP, 12), data)
    two.fail(TEST_UNIT_READY, SenseKey.UNIT_ATTENTION, Asc.TIMESTAMP_CHANGED)
    origin, found = timestamp(two)
    assert (origin, 1_000_000 <= found < 2_000_000) == (2, True)
    one.unit.reset()
    one.fail(TEST_UNIT_READY, SenseKey.UNIT_ATTENTION, Asc.BUS_DEVICE_RESET_FUNCTION_OCCURRED)
    assert timestamp(one)[0] == 2  # a reset does not change the time


def test_a_timestamp_that_is_cut_short() -> None:
    host = memory()
    host.ok(change(TIMESTAMP, 0))
    host.fail(change(TIMESTAMP, 11), SenseKey.ILLEGAL_REQUEST, Asc.PARAMETER_LIST_LENGTH_ERROR, bytes(11))
    host.fail(change(TIMESTAMP, 12), SenseKey.ILLEGAL_REQUEST, Asc.PARAMETER_LIST_LENGTH_ERROR, bytes(11))


# ---- identifying information


def test_identifying_information_outlives_the_process(tmp_path: Path) -> None:
    host = disk(MemoryDevice(1 << 20), durable=Durable(tmp_path, UUID_1))
    other = ready_host(host.target, initiator="iqn.test:other")
    assert host.ok(report(IDENTIFYING)) == bytes(4)
    host.ok(change(IDENTIFYING + 1, 3), b"abc")
    other.fail(TEST_UNIT_READY, SenseKey.UNIT_ATTENTION, Asc.DEVICE_IDENTIFIER_CHANGED)
    host.ok(change(IDENTIFYING + 1, 3), b"abc")
    other.ok(TEST_UNIT_READY)
    text = "Büro\0".encode()
    host.ok(change(IDENTIFYING + 1, len(text), last=0x02 << 1), text)
    again = disk(MemoryDevice(1 << 20), durable=Durable(tmp_path, UUID_1))
    assert again.ok(report(IDENTIFYING)) == b"\0\0\0\x03abc"
    assert again.ok(report(IDENTIFYING, last=0x02 << 1)) == b"\0\0\0\x06" + text
    again.ok(change(IDENTIFYING + 1, 0))
    assert again.ok(report(IDENTIFYING)) == bytes(4)
    assert again.ok(report(IDENTIFYING, length=5, last=0x02 << 1)) == b"\0\0\0\x06B"


def test_types_of_identifying_information() -> None:
    host = memory()
    assert host.ok(report(IDENTIFYING, last=0x7F << 1)) == bytes.fromhex("0000 0008 00 00 0200 04 00 0100")
    host.invalid(report(IDENTIFYING, last=0x01 << 1), 10, 7)
    host.invalid(change(IDENTIFYING + 1, 4, last=0x7F << 1), 10, 7, bytes(4))
    host.invalid(change(IDENTIFYING + 1, 513), 6, data_out=bytes(513))
    host.invalid(change(IDENTIFYING + 1, 257, last=0x02 << 1), 6, data_out=bytes(257))


@pytest.mark.parametrize(("text", "byte"), [(b"abc", 2), (b"a\xff\0", 1)])
def test_text_that_is_none(text: bytes, byte: int) -> None:
    host = memory()
    host.fail(
        change(IDENTIFYING + 1, len(text), last=0x02 << 1),
        SenseKey.ILLEGAL_REQUEST,
        Asc.INVALID_FIELD_IN_PARAMETER_LIST,
        text,
        pointer=(False, byte, None),
    )


# ---- priority


def descriptor(host: Host, priority: int) -> bytes:
    identifier = transport_id.encode(host.nexus.initiator)
    return struct.pack(">BxHxxH", priority, 1, len(identifier)) + identifier


def test_priorities() -> None:
    one, two = pair()
    assert one.ok(report(PRIORITY))[4:] == descriptor(one, 0)
    assert one.ok(report(PRIORITY, 0x40)) == bytes(4)
    one.ok(change(PRIORITY, 8), bytes([5]) + bytes(7))
    assert one.nexus.priority == 5
    identifier = transport_id.encode(two.nexus.initiator)
    that = struct.pack(">BxHxxH", 7, 1, len(identifier)) + identifier
    one.ok(change(PRIORITY, len(that), 0x40), that)
    two.fail(TEST_UNIT_READY, SenseKey.UNIT_ATTENTION, Asc.PRIORITY_CHANGED)
    assert one.ok(report(PRIORITY, 0x40))[4:] == descriptor(one, 5) + descriptor(two, 7)
    two.ok(change(PRIORITY, 8, 0x80), bytes([1]) + bytes(7))
    assert (one.nexus.priority, two.nexus.priority) == (1, 1)
    one.unit.reset()
    assert (one.nexus.priority, two.nexus.priority) == (0, 0)


def test_priorities_of_nobody() -> None:
    host = memory()
    host.invalid(report(PRIORITY, 0x80), 2, 7)
    host.invalid(change(PRIORITY, 8, 0xC0), 2, 7, bytes(8))
    identifier = transport_id.encode("iqn.test:nobody,i,0x000000000000")
    data = struct.pack(">BxHxxH", 7, 1, len(identifier)) + identifier
    host.fail(change(PRIORITY, len(data), 0x40), SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_PARAMETER_LIST, data)
    cut = data[:20]
    host.fail(change(PRIORITY, 20, 0x40), SenseKey.ILLEGAL_REQUEST, Asc.PARAMETER_LIST_LENGTH_ERROR, cut)


# ---- task management functions


def test_task_management_functions() -> None:
    host = memory()
    assert host.ok(report(FUNCTIONS)) == bytes.fromhex("f8 00 00 00")
    assert host.ok(report(FUNCTIONS, 0x80)) == bytes.fromhex("f8 00 00 0c") + bytes(12)
    host.invalid(report(FUNCTIONS, length=3), 6)
