"""INQUIRY, REPORT LUNS, REQUEST SENSE, TEST UNIT READY."""

from __future__ import annotations

import struct

import pytest

from blockyard.block.memory import MemoryDevice
from blockyard.scsi.sense import Asc, SenseKey
from blockyard.scsi.target import Target
from blockyard.scsi.unit import Identity, LogicalUnit
from tests.scsi.host import (
    NAME,
    TEST_UNIT_READY,
    UUID_1,
    Host,
    disk,
    inquiry,
    memory,
    parse_sense,
    ready_host,
    report_luns,
    request_sense,
    start_stop,
)


def test_standard_inquiry() -> None:
    data = memory().ok(inquiry())
    assert len(data) == 96
    assert data[:8] == bytes([0x00, 0x00, 0x06, 0x32, 91, 0x38, 0x00, 0x02])
    assert data[8:16] == b"BLOCKYRD"
    assert data[16:32] == b"Virtual Disk    "
    assert data[32:36] == b"0.1 "
    assert struct.unpack(">8H", data[58:74]) == (0x00A0, 0x0960, 0x0460, 0x04C0, 0, 0, 0, 0)
    assert not any(data[36:58])
    assert not any(data[74:])


@pytest.mark.parametrize("length", [0, 1, 5, 36, 95, 96, 97, 255, 256, 511, 512, 65535])
def test_inquiry_allocation_length(length: int) -> None:
    host = memory()
    assert host.ok(inquiry(length=length)) == host.ok(inquiry(length=1000))[:length]


def test_inquiry_page_code_without_evpd() -> None:
    memory().invalid(struct.pack(">BBBHx", 0x12, 0, 0x80, 255), 2)


@pytest.mark.parametrize("page", [0x01, 0x81, 0x84, 0xB3, 0xFF])
def test_inquiry_of_unknown_pages(page: int) -> None:
    memory().invalid(inquiry(page), 2)


def _target(*luns: int) -> Target:
    return Target(
        NAME, {lun: LogicalUnit(MemoryDevice(1 << 20), identity=Identity(UUID_1, f"disk{lun}")) for lun in luns}
    )


def test_report_luns() -> None:
    host = ready_host(_target(0, 300, 7), 7)
    assert host.ok(report_luns()) == struct.pack(">IIQQQ", 24, 0, 0, 0x0007 << 48, 0x412C << 48)


@pytest.mark.parametrize(("select", "count"), [(0x00, 2), (0x01, 0), (0x02, 2), (0x10, 0), (0x11, 2), (0x12, 0)])
def test_select_report(select: int, count: int) -> None:
    data = ready_host(_target(0, 1)).ok(report_luns(select))
    assert struct.unpack(">I", data[:4])[0] == 8 * count == len(data) - 8


@pytest.mark.parametrize("select", [0x03, 0x0F, 0x13, 0xFF])
def test_select_report_that_does_not_exist(select: int) -> None:
    memory().invalid(report_luns(select), 2)


def test_report_luns_keeps_the_whole_length_when_it_is_cut() -> None:
    assert ready_host(_target(0, 1, 2)).ok(report_luns(length=16)) == struct.pack(">IIQ", 24, 0, 0)


def test_request_sense_with_nothing_to_tell() -> None:
    assert memory().ok(request_sense()) == bytes.fromhex("70 00 00 00000000 0a 00000000 0000 00 000000")
    assert memory().ok(request_sense(desc=True)) == bytes.fromhex("72 00 0000 00000000")
    assert memory().ok(request_sense(length=4)) == bytes.fromhex("70 00 00 00")


@pytest.mark.parametrize("descriptor", [False, True])
def test_request_sense_tells_unit_attentions(descriptor: bool) -> None:
    host = disk(MemoryDevice(1 << 20), ready=False)
    found = parse_sense(host.ok(request_sense(desc=descriptor)))
    assert (found.key, found.asc, found.descriptor) == (SenseKey.UNIT_ATTENTION, 0x2900, descriptor)
    host.ok(TEST_UNIT_READY)


def test_request_sense_of_a_stopped_unit() -> None:
    host = memory()
    host.ok(start_stop(0))
    assert parse_sense(host.ok(request_sense()))[:2] == (SenseKey.NOT_READY, 0x0402)


def _failed(host: Host) -> bool:
    return bool(host.send(TEST_UNIT_READY).sense)


def test_test_unit_ready() -> None:
    host = memory()
    assert not _failed(host)
    host.ok(start_stop(0))
    host.fail(TEST_UNIT_READY, SenseKey.NOT_READY, Asc.LOGICAL_UNIT_NOT_READY_INITIALIZING_COMMAND_REQUIRED)
    host.ok(start_stop(1))
    assert not _failed(host)
