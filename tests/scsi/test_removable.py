"""Removable media, START STOP UNIT and power conditions."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockyard.block.memory import MemoryDevice
from blockyard.scsi.sense import Asc, SenseKey
from tests.scsi.host import (
    TEST_UNIT_READY,
    Host,
    disk,
    file_device,
    inquiry,
    memory,
    parse_sense,
    read_10,
    ready_host,
    request_sense,
    start_stop,
    target,
)

EJECT, LOAD = start_stop(2), start_stop(3)
NO_MEDIUM = (SenseKey.NOT_READY, Asc.MEDIUM_NOT_PRESENT)


def prevent(value: int) -> bytes:
    return bytes([0x1E, 0, 0, 0, value, 0])


@pytest.fixture
def hosts() -> tuple[Host, Host]:
    over = target(MemoryDevice(1 << 20), removable=True)
    return ready_host(over), ready_host(over, initiator="iqn.test:other")


def test_rmb() -> None:
    assert memory().ok(inquiry())[1] == 0
    assert memory(removable=True).ok(inquiry())[1] == 0x80


def test_fixed_disks_have_no_medium_to_take_out() -> None:
    host = memory()
    host.fail(prevent(1), SenseKey.ILLEGAL_REQUEST, Asc.INVALID_COMMAND_OPERATION_CODE)
    host.invalid(EJECT, 4, 1)


def test_eject_and_load(hosts: tuple[Host, Host]) -> None:
    one, other = hosts
    one.ok(EJECT)
    for host in hosts:
        host.fail(TEST_UNIT_READY, *NO_MEDIUM)
        host.fail(read_10(0, 1), *NO_MEDIUM)
        assert parse_sense(host.ok(request_sense()))[:2] == NO_MEDIUM
    one.fail(start_stop(1), *NO_MEDIUM)  # START without LOEJ loads nothing
    one.ok(EJECT)  # it is out already
    one.ok(LOAD)
    one.ok(TEST_UNIT_READY)
    other.fail(TEST_UNIT_READY, SenseKey.UNIT_ATTENTION, Asc.NOT_READY_TO_READY_CHANGE_MEDIUM_MAY_HAVE_CHANGED)
    one.ok(LOAD)
    other.ok(TEST_UNIT_READY)


def test_removal_is_prevented_until_every_nexus_allows_it(hosts: tuple[Host, Host]) -> None:
    one, other = hosts
    one.ok(prevent(1))
    other.ok(prevent(1))
    for cdb in (EJECT, LOAD):
        one.fail(cdb, SenseKey.ILLEGAL_REQUEST, Asc.MEDIUM_REMOVAL_PREVENTED)
    one.ok(prevent(0))
    one.fail(EJECT, SenseKey.ILLEGAL_REQUEST, Asc.MEDIUM_REMOVAL_PREVENTED)
    other.ok(prevent(0))
    one.ok(EJECT)
    for obsolete in (2, 3):
        one.invalid(prevent(obsolete), 4, 1)


def test_a_nexus_that_is_gone_prevents_nothing(hosts: tuple[Host, Host]) -> None:
    one, other = hosts
    one.ok(prevent(1))
    one.unit.detach(one.nexus)
    other.ok(EJECT)


def test_a_reset_ends_prevention_and_leaves_the_medium_where_it_is(hosts: tuple[Host, Host]) -> None:
    one, _ = hosts
    one.ok(prevent(1))
    one.unit.reset()
    one.send(TEST_UNIT_READY)
    one.ok(EJECT)
    one.unit.reset()
    one.send(TEST_UNIT_READY)
    one.fail(TEST_UNIT_READY, *NO_MEDIUM)


def test_stopping_a_removable_disk_leaves_it_ready(hosts: tuple[Host, Host]) -> None:
    one, _ = hosts
    one.ok(start_stop(0))
    one.ok(TEST_UNIT_READY)


def test_the_short_cut_is_closed_while_there_is_no_medium(tmp_path: Path) -> None:
    host = disk(file_device(tmp_path), removable=True)
    assert host.disk.fast_read
    host.ok(EJECT)
    assert not host.disk.fast_read
    host.ok(LOAD)
    assert host.disk.fast_write


# ---- power conditions


@pytest.mark.parametrize(
    ("condition", "modifier", "expected"),
    [
        (2, 0, Asc.IDLE_CONDITION_ACTIVATED_BY_COMMAND),
        (2, 1, Asc.IDLE_B_CONDITION_ACTIVATED_BY_COMMAND),
        (2, 2, Asc.IDLE_C_CONDITION_ACTIVATED_BY_COMMAND),
        (3, 0, Asc.STANDBY_CONDITION_ACTIVATED_BY_COMMAND),
        (3, 1, Asc.STANDBY_Y_CONDITION_ACTIVATED_BY_COMMAND),
        (0xA, 0, Asc.IDLE_CONDITION_ACTIVATED_BY_COMMAND),
        (0xB, 0, Asc.STANDBY_CONDITION_ACTIVATED_BY_COMMAND),
    ],
)
def test_power_conditions(condition: int, modifier: int, expected: Asc, tmp_path: Path) -> None:
    host = disk(file_device(tmp_path))
    host.ok(bytes([0x1B, 0, 0, modifier, condition << 4, 0]))
    assert not host.disk.fast_read
    host.ok(TEST_UNIT_READY)  # needs no medium access, and so changes nothing
    sense = parse_sense(host.ok(request_sense()))
    assert (sense.key, sense.asc) == (SenseKey.NO_SENSE, expected)
    host.ok(read_10(0, 1))
    assert parse_sense(host.ok(request_sense())).asc == 0
    assert host.disk.fast_read


def test_active_and_start_end_a_power_condition() -> None:
    host = memory()
    for ends in (start_stop(0x10), start_stop(0x70), start_stop(1)):
        host.ok(start_stop(0x30))
        host.ok(ends)
        assert parse_sense(host.ok(request_sense())).asc == 0


def test_modifiers_that_there_are_not() -> None:
    host = memory()
    for condition, modifier in ((0, 1), (1, 1), (2, 3), (3, 2), (0xA, 1)):
        host.invalid(bytes([0x1B, 0, 0, modifier, condition << 4, 0]), 3, 3)
