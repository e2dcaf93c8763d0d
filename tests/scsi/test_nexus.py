"""Unit attentions."""

from __future__ import annotations

import pytest

from blockyard.block.memory import MemoryDevice
from blockyard.scsi.sense import Asc, SenseKey
from tests.scsi.host import (
    TEST_UNIT_READY,
    Host,
    disk,
    inquiry,
    memory,
    ready_host,
    report_luns,
    request_sense,
    write_10,
)


def attention(host: Host, asc: Asc, cdb: bytes = TEST_UNIT_READY) -> None:
    host.fail(cdb, SenseKey.UNIT_ATTENTION, asc)


def test_a_new_nexus_has_one() -> None:
    host = disk(MemoryDevice(1 << 20), ready=False)
    assert host.nexus.gate is not None
    attention(host, Asc.POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED)
    assert host.nexus.gate is None
    host.ok(TEST_UNIT_READY)


def test_some_commands_pass_it_by() -> None:
    host = disk(MemoryDevice(1 << 20), ready=False)
    host.ok(inquiry())
    host.ok(report_luns())
    attention(host, Asc.POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED)


@pytest.mark.parametrize("cdb", [bytes([0xFF]), bytes([0x9E, 0x1F]), bytes([0x28, 0xFF])])
def test_it_comes_before_anything_else(cdb: bytes) -> None:
    host = disk(MemoryDevice(1 << 20), ready=False)
    attention(host, Asc.POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED, cdb)
    host.fail(
        cdb,
        SenseKey.ILLEGAL_REQUEST,
        Asc.INVALID_COMMAND_OPERATION_CODE if cdb[0] == 0xFF else Asc.INVALID_FIELD_IN_CDB,
    )


def test_no_data_is_asked_for() -> None:
    host = disk(MemoryDevice(1 << 20), ready=False)
    _, result = host.begin(write_10(0, 1), 512)
    assert result is not None


def test_order_and_duplicates() -> None:
    host = memory()
    for asc in (Asc.MODE_PARAMETERS_CHANGED, Asc.CAPACITY_DATA_HAS_CHANGED, Asc.MODE_PARAMETERS_CHANGED):
        host.nexus.establish(asc)
    attention(host, Asc.MODE_PARAMETERS_CHANGED)
    attention(host, Asc.CAPACITY_DATA_HAS_CHANGED)
    host.ok(TEST_UNIT_READY)


def test_a_reset_takes_the_place_of_others() -> None:
    host = memory()
    host.nexus.establish(Asc.MODE_PARAMETERS_CHANGED)
    host.unit.reset()
    attention(host, Asc.BUS_DEVICE_RESET_FUNCTION_OCCURRED)
    host.ok(TEST_UNIT_READY)


def test_request_sense_takes_them_one_by_one() -> None:
    host = memory()
    host.nexus.establish(Asc.MODE_PARAMETERS_CHANGED)
    host.nexus.establish(Asc.CAPACITY_DATA_HAS_CHANGED)
    assert host.ok(request_sense())[12:14] == b"\x2a\x01"
    assert host.nexus.gate is not None
    assert host.ok(request_sense())[12:14] == b"\x2a\x09"
    assert host.nexus.gate is None


def test_luns_changed() -> None:
    host = memory()
    host.target.luns.luns_changed()
    attention(host, Asc.REPORTED_LUNS_DATA_HAS_CHANGED)
    host.target.luns.luns_changed()
    host.nexus.establish(Asc.MODE_PARAMETERS_CHANGED)
    host.ok(report_luns())  # now it knows
    attention(host, Asc.MODE_PARAMETERS_CHANGED)
    host.ok(TEST_UNIT_READY)


def test_capacity_changed() -> None:
    device = MemoryDevice(1 << 20)
    host = disk(device)
    host.disk.capacity_changed()
    host.ok(TEST_UNIT_READY)
    device.size *= 2
    host.disk.capacity_changed()
    attention(host, Asc.CAPACITY_DATA_HAS_CHANGED)
    assert host.disk.blocks == 4096


def test_a_detached_nexus_is_told_nothing() -> None:
    host = memory()
    other = ready_host(host.target, initiator="iqn.test:other")
    host.unit.detach(other.nexus)
    host.unit.detach(other.nexus)
    host.unit.reset()
    assert other.nexus.gate is None
    assert host.nexus.gate is not None


def test_names() -> None:
    nexus = memory().nexus
    assert nexus.initiator == "iqn.test:host,i,0x00023d000000"
    assert nexus.target_port.device_name == "iqn.2024-01.test:disk"
