"""Commands that every SCSI device has (SPC-5)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from blockyard.scsi.sense import (
    Asc,
    CheckCondition,
    SenseKey,
    invalid_field,
    invalid_parameter,
    parameter_list_length_error,
)

if TYPE_CHECKING:
    from blockyard.scsi.device_server import Unit
    from blockyard.scsi.primary import PrimaryUnit
    from blockyard.scsi.task import Buffer, Task

_VERSION = 0x06  # SPC-4
_TPGS = 3 << 4  # asymmetric access, implicit and explicit
_3PC = 0x08  # third-party copy commands
_PROTECT = 0x01  # in the same byte: protection information


def test_unit_ready(unit: PrimaryUnit, task: Task) -> Buffer:
    """TEST UNIT READY (SPC-5): whatever stands in the way, `begin` has found it."""
    return b""


# ---- INQUIRY


def check_inquiry(unit: Unit, task: Task) -> None:
    if task.fields["page_code"] and not task.fields["evpd"]:
        raise invalid_field(2)


def inquiry(unit: Unit, task: Task) -> Buffer:
    if not task.fields["evpd"]:
        return standard_inquiry(unit, multiport=len(task.nexus.ports.all()) > 1)
    data = unit.vpd_page(task.nexus, task.fields["page_code"])
    if data is None:
        raise invalid_field(2)
    return data


def standard_inquiry(unit: Unit, *, multiport: bool) -> bytes:
    """Standard INQUIRY data (SPC-5)."""
    return struct.pack(
        ">BBBBBBBB8s16s4s22x8H22x",
        unit.peripheral,
        0x80 if unit.removable else 0,  # RMB
        _VERSION,
        0x32,  # NORMACA, HISUP, RESPONSE DATA FORMAT 2
        96 - 5,
        _capabilities(unit),
        0x10 if multiport else 0,  # MULTIP
        0x02,  # CMDQUE
        f"{unit.vendor:8.8}".encode(),
        f"{unit.product:16.16}".encode(),
        f"{unit.revision:4.4}".encode(),
        *unit.standards,
        *(0,) * (8 - len(unit.standards)),
    )


def _capabilities(unit: Unit) -> int:
    """The byte of standard INQUIRY data with TPGS, 3PC and PROTECT."""
    there = unit.peripheral >> 5 == 0
    copies = _3PC if there and unit.copies_for_others else 0
    groups = _TPGS if there and unit.reports_port_groups else 0
    return groups | copies | (_PROTECT if unit.protection is not None else 0)


# ---- REPORT LUNS

_WITH_LOGICAL_UNITS = frozenset({0x00, 0x02, 0x11})  # SELECT REPORT values that include ordinary logical units
_WITHOUT = frozenset({0x01, 0x10, 0x12})  # well known ones, administrative ones, their subsidiaries: there are none


def check_report_luns(unit: Unit, task: Task) -> None:
    if task.fields["select_report"] not in _WITH_LOGICAL_UNITS | _WITHOUT:
        raise invalid_field(2)


def report_luns(unit: Unit, task: Task) -> Buffer:
    seen = task.nexus.luns
    luns = seen.inventory() if seen is not None and task.fields["select_report"] in _WITH_LOGICAL_UNITS else []
    task.nexus.clear_attention(Asc.REPORTED_LUNS_DATA_HAS_CHANGED)
    return struct.pack(f">II{len(luns)}Q", 8 * len(luns), 0, *luns)


# ---- REQUEST SENSE


def request_sense(unit: Unit, task: Task) -> Buffer:
    pending = unit.pending_condition(task.nexus) or CheckCondition(
        SenseKey.NO_SENSE, Asc.NO_ADDITIONAL_SENSE_INFORMATION
    )
    return pending.encode(descriptor=bool(task.fields["desc"]))


# ---- MODE SENSE


def mode_sense_6(unit: PrimaryUnit, task: Task) -> Buffer:
    fields = task.fields
    pages = unit.mode.sense(fields["page_control"], fields["page_code"], fields["subpage_code"])
    descriptor = b"" if fields["dbd"] else unit.block_descriptor(long=False)
    length = 3 + len(descriptor) + len(pages)
    return bytes([length, *unit.mode_header(task.nexus), len(descriptor)]) + descriptor + pages


def mode_sense_10(unit: PrimaryUnit, task: Task) -> Buffer:
    fields = task.fields
    pages = unit.mode.sense(fields["page_control"], fields["page_code"], fields["subpage_code"])
    long = bool(fields["llbaa"]) and not fields["dbd"]
    descriptor = b"" if fields["dbd"] else unit.block_descriptor(long=long)
    length = 6 + len(descriptor) + len(pages)
    header = struct.pack(">HBBBxH", length, *unit.mode_header(task.nexus), long, len(descriptor))
    return header + descriptor + pages


# ---- MODE SELECT


def check_mode_select(unit: PrimaryUnit, task: Task) -> None:
    fields = task.fields
    if not fields["pf"]:
        raise invalid_field(1, 4)  # vendor specific pages in the manner of SCSI-1: none
    if task.data_out_length < task.expected:
        raise parameter_list_length_error()


def mode_select_6(unit: PrimaryUnit, task: Task) -> Buffer:
    data = bytes(task.data_out)
    if not data:
        return b""
    if len(data) < 4:
        raise parameter_list_length_error()
    return _mode_select(unit, task, data, header=4, medium_type=1, descriptor_length=data[3], long=False)


def mode_select_10(unit: PrimaryUnit, task: Task) -> Buffer:
    data = bytes(task.data_out)
    if not data:
        return b""
    if len(data) < 8:
        raise parameter_list_length_error()
    length = int.from_bytes(data[6:8], "big")
    return _mode_select(unit, task, data, header=8, medium_type=2, descriptor_length=length, long=bool(data[4] & 1))


def _mode_select(
    unit: PrimaryUnit,
    task: Task,
    data: bytes,
    *,
    header: int,
    medium_type: int,
    descriptor_length: int,
    long: bool,
) -> Buffer:
    if data[medium_type] not in (0, unit.mode_header(task.nexus)[0]):
        raise invalid_parameter(medium_type)
    unit.check_block_descriptors(data, header, descriptor_length, long=long)
    unit.change_mode(data, header + descriptor_length, task.nexus, save=bool(task.fields["sp"]))
    unit.take_mode_header(data[medium_type + 1], data[header : header + descriptor_length])
    return b""
