"""LUNs, and what answers where there is no logical unit."""

from __future__ import annotations

import pytest

from blockyard.scsi.commands import COMMANDS, Command
from blockyard.scsi.device_server import AbsentUnit
from blockyard.scsi.lun import MAX_LUN, canonical, decode_lun, encode_lun
from blockyard.scsi.sense import Asc, SenseKey
from blockyard.scsi.target import Target
from tests.scsi.host import NAME, Host, cdb_of, inquiry, memory, parse_sense, report_luns, request_sense


@pytest.mark.parametrize("lun", [0, 1, 255, 256, 0x1234, MAX_LUN])
def test_luns_both_ways(lun: int) -> None:
    assert decode_lun(encode_lun(lun)) == lun


@pytest.mark.parametrize(
    ("field", "lun"),
    [
        (0x0005 << 48, 5),
        (0x4005 << 48, 5),  # flat space addressing reaches the small ones too
        (0x0105 << 48, -1),  # another bus
        (0x8005 << 48, -1),  # logical unit addressing
        (0xC101 << 48, -1),  # extended: a well known logical unit
        (0xD2000005 << 32, 5),  # extended flat space
        (0xD2003FFF << 32, MAX_LUN),
        (0xD2004000 << 32, MAX_LUN + 1),  # a number that no unit has
        (0xD2000005_00010000, -1),
        (0xE20000000005 << 16, 5),  # long extended flat space
        (0xE20000000005_0001, -1),
        (0xE2FFFFFFFFFF << 16, (1 << 40) - 1),
        (0xFF << 56, -1),  # no logical unit specified
        (0x0005_0001 << 32, -1),  # a second level
        (1, -1),
    ],
)
def test_forms_of_luns(field: int, lun: int) -> None:
    assert decode_lun(field) == lun


@pytest.mark.parametrize("lun", [0, 255, 256, MAX_LUN])
def test_one_form_stands_for_all(lun: int) -> None:
    forms = {encode_lun(lun), (0x4000 | lun) << 48, (0xD2 << 24 | lun) << 32, (0xE2 << 40 | lun) << 16}
    assert {canonical(form) for form in forms} == {encode_lun(lun)}


@pytest.mark.parametrize("field", [0x8005 << 48, 0xD2004000 << 32, 1, (1 << 64) - 1])
def test_what_names_no_unit_stays_as_it_is(field: int) -> None:
    assert canonical(field) == field


def test_a_lun_that_cannot_be() -> None:
    unit = memory().disk
    with pytest.raises(ValueError, match="LUN"):
        Target(NAME, {MAX_LUN + 1: unit})


@pytest.fixture
def absent() -> Host:
    host = Host(memory().target, 1)
    assert isinstance(host.unit, AbsentUnit)
    assert host.unit.tasks is None
    assert not host.unit.fast_read
    return host


def test_inquiry(absent: Host) -> None:
    data = absent.ok(inquiry())
    assert data[0] == 0x7F
    assert len(data) == 96
    assert absent.ok(inquiry(0)) == bytes.fromhex("7f 00 0001 00")
    absent.invalid(inquiry(0x83), 2)


def test_report_luns(absent: Host) -> None:
    assert absent.ok(report_luns()) == bytes.fromhex("00000008 00000000 0000000000000000")


def test_request_sense(absent: Host) -> None:
    for _ in range(2):
        assert parse_sense(absent.ok(request_sense()))[:2] == (SenseKey.ILLEGAL_REQUEST, 0x2500)


@pytest.mark.parametrize("command", [c for c in COMMANDS if not c.absent], ids=lambda command: command.name)
def test_all_else_is_refused(absent: Host, command: Command) -> None:
    absent.fail(bytes(cdb_of(command)), SenseKey.ILLEGAL_REQUEST, Asc.LOGICAL_UNIT_NOT_SUPPORTED)


def test_unknown_commands_are_refused_alike(absent: Host) -> None:
    absent.fail(bytes([0xFF]), SenseKey.ILLEGAL_REQUEST, Asc.LOGICAL_UNIT_NOT_SUPPORTED)


def test_a_target_without_lun_0() -> None:
    unit = memory().disk
    host = Host(Target(NAME, {3: unit}))
    assert host.ok(inquiry())[0] == 0x7F
    assert host.ok(report_luns()) == bytes.fromhex("00000008 00000000 0003000000000000")


def test_life_of_an_absent_unit(absent: Host) -> None:
    absent.unit.detach(absent.nexus)
    absent.unit.reset()
    absent.unit.close()
    assert str(absent.unit) == "absent logical unit"
