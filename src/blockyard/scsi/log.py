"""Log pages: the table of them, LOG SENSE and LOG SELECT (SPC-5, SBC-4).

Counters begin when the unit is opened; they are not saved (DS, GLTSD). LOG SELECT resets them or sets them to what it is
given. They have no thresholds to compare with: as such the largest value is shown, which none of them reaches.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from blockyard.scsi import thin
from blockyard.scsi.sense import Asc, invalid_field, invalid_parameter, parameter_list_length_error

if TYPE_CHECKING:
    from blockyard.scsi.primary import PrimaryUnit
    from blockyard.scsi.task import Buffer, Task
    from blockyard.scsi.unit import LogicalUnit

COUNTER, LIST = 0b00, 0b11  # FORMAT AND LINKING
THRESHOLD, CUMULATIVE, DEFAULT_THRESHOLD, DEFAULT_CUMULATIVE = range(4)  # PC
SUPPORTED, ALL_SUBPAGES = 0x00, 0xFF
_DS = 0x80  # not saved
_SPF = 0x40
_UNKNOWN_TEMPERATURE = 0xFF


class Parameter(NamedTuple):
    """A log parameter; a counter has its value as a number of so many bytes."""

    code: int
    value: bytes
    kind: int = LIST


def counter(code: int, value: int, width: int = 8) -> Parameter:
    return Parameter(code, (value & ((1 << 8 * width) - 1)).to_bytes(width, "big"), COUNTER)


class LogPage(NamedTuple):
    """A log page; `exists` says on which units of the kind that the table is for."""

    code: int
    name: str
    parameters: Callable[[Any], list[Parameter]]
    standard: str
    exists: Callable[[Any], bool] = lambda unit: True


def _errors(kind: str) -> Callable[[LogicalUnit], list[Parameter]]:
    """Error counters: total errors corrected, total bytes processed, total uncorrected errors."""

    def parameters(unit: LogicalUnit) -> list[Parameter]:
        processed = {"read": unit.counters.read_bytes, "write": unit.counters.write_bytes}
        volume = [counter(0x0005, processed[kind])] if kind in processed else []
        return [counter(0x0003, 0), *volume, counter(0x0006, unit.health.errors[kind])]

    return parameters


def _non_medium_errors(unit: LogicalUnit) -> list[Parameter]:
    return [counter(0x0000, max(0, unit.counters.errors - sum(unit.health.errors.values())))]


def _provisioning(unit: LogicalUnit) -> list[Parameter]:
    data = thin.log_parameters(unit)
    return [
        Parameter(int.from_bytes(data[at : at + 2], "big"), data[at + 4 : at + 12]) for at in range(0, len(data), 12)
    ]


def _temperature(unit: LogicalUnit) -> list[Parameter]:
    return [Parameter(code, bytes([0, _UNKNOWN_TEMPERATURE])) for code in (0x0000, 0x0001)]


def _start_stop_cycles(unit: LogicalUnit) -> list[Parameter]:
    """Nobody has said when it was made, and for how many cycles."""
    return [counter(0x0004, unit.cycles, 4)]


def _self_tests(unit: LogicalUnit) -> list[Parameter]:
    return [Parameter(code, result) for code, result in enumerate(unit.self_tests.log(), 1)]


def _solid_state(unit: LogicalUnit) -> list[Parameter]:
    return [Parameter(0x0001, bytes(4))]  # PERCENTAGE USED ENDURANCE INDICATOR: files do not wear


def _background_scan(unit: LogicalUnit) -> list[Parameter]:
    """There are no scans; the medium errors are those that commands have met."""
    health = unit.health
    status = struct.pack(">IxBHHH", health.minutes, 0, 0, 0, 0)
    errors = [
        Parameter(code, struct.pack(">IBH5xQ", error.minutes, error.key, error.asc, error.lba))
        for code, error in enumerate(health.medium_errors, 1)
    ]
    return [Parameter(0x0000, status), *errors]


def _statistics(unit: LogicalUnit) -> list[Parameter]:
    """Numbers of commands and of blocks; how long they took, or nothing happened, is not measured: no intervals of 1 ms."""
    counters = unit.counters
    blocks = counters.write_bytes >> unit.shift, counters.read_bytes >> unit.shift
    general = struct.pack(">4Q32x", counters.read_ops, counters.write_ops, *blocks)
    return [Parameter(0x0001, general), Parameter(0x0002, bytes(8)), Parameter(0x0003, struct.pack(">II", 3, 1))]


def _informational_exceptions(unit: LogicalUnit) -> list[Parameter]:
    unit.health.look_now()
    return [Parameter(0x0000, unit.health.exception.to_bytes(2, "big") + bytes([_UNKNOWN_TEMPERATURE, 0]))]


def _does_not_rotate(unit: LogicalUnit) -> bool:
    return not unit.device.rotational


PAGES: dict[int, LogPage] = {
    page.code: page
    for page in (
        LogPage(SUPPORTED, "Supported Log Pages", lambda unit: [], "SPC-5"),
        LogPage(0x02, "Write Error Counters", _errors("write"), "SPC-5"),
        LogPage(0x03, "Read Error Counters", _errors("read"), "SPC-5"),
        LogPage(0x05, "Verify Error Counters", _errors("verify"), "SPC-5"),
        LogPage(0x06, "Non-Medium Error", _non_medium_errors, "SPC-5"),
        LogPage(
            0x0C, "Logical Block Provisioning", _provisioning, "SBC-4", lambda unit: bool(thin.log_parameters(unit))
        ),
        LogPage(0x0D, "Temperature", _temperature, "SPC-5"),
        LogPage(0x0E, "Start-Stop Cycle Counter", _start_stop_cycles, "SPC-5"),
        LogPage(0x10, "Self-Test Results", _self_tests, "SPC-5"),
        LogPage(0x11, "Solid State Media", _solid_state, "SBC-4", _does_not_rotate),
        LogPage(0x15, "Background Scan", _background_scan, "SBC-4"),
        LogPage(0x19, "General Statistics and Performance", _statistics, "SPC-5"),
        LogPage(0x2F, "Informational Exceptions", _informational_exceptions, "SPC-5"),
    )
}


def _supported(unit: PrimaryUnit) -> list[int]:
    return [code for code, page in unit.log_pages.items() if page.exists(unit)]


# ---- LOG SENSE


def check_sense(unit: PrimaryUnit, task: Task) -> None:
    fields = task.fields
    if fields["page_code"] not in _supported(unit):
        raise invalid_field(2, 5)
    if fields["subpage_code"] not in ((0, ALL_SUBPAGES) if fields["page_code"] == SUPPORTED else (0,)):
        raise invalid_field(3)


def sense(unit: PrimaryUnit, task: Task) -> Buffer:
    fields = task.fields
    code, subpage = fields["page_code"], fields["subpage_code"]
    if code == SUPPORTED:
        if fields["parameter_pointer"]:
            raise invalid_field(5)
        return _supported_page(unit, subpages=bool(subpage))
    found = _current(unit, code)
    if fields["parameter_pointer"] > max((parameter.code for parameter in found), default=0):
        raise invalid_field(5)
    content = b"".join(
        _encode(parameter, fields["page_control"])
        for parameter in found
        if parameter.code >= fields["parameter_pointer"]
    )
    return struct.pack(">BBH", _DS | code, 0, len(content)) + content


def _supported_page(unit: PrimaryUnit, *, subpages: bool) -> bytes:
    if not subpages:
        return struct.pack(">BBH", SUPPORTED, 0, len(_supported(unit))) + bytes(_supported(unit))
    pairs = b"".join(bytes([code, 0]) for code in _supported(unit))
    pairs = pairs[:2] + bytes([SUPPORTED, ALL_SUBPAGES]) + pairs[2:]
    return struct.pack(">BBH", _SPF | SUPPORTED, ALL_SUBPAGES, len(pairs)) + pairs


def _current(unit: PrimaryUnit, code: int) -> list[Parameter]:
    """The parameters of a page, its counters counted from where LOG SELECT has put them."""
    return [
        counter(
            parameter.code, _number(parameter) - unit.log_origins.get((code, parameter.code), 0), len(parameter.value)
        )
        if parameter.kind == COUNTER
        else parameter
        for parameter in unit.log_pages[code].parameters(unit)
    ]


def _number(parameter: Parameter) -> int:
    return int.from_bytes(parameter.value, "big")


def _encode(parameter: Parameter, control: int) -> bytes:
    value = parameter.value
    if parameter.kind == COUNTER and control != CUMULATIVE:
        value = (b"\0" if control == DEFAULT_CUMULATIVE else b"\xff") * len(value)
    return struct.pack(">HBB", parameter.code, parameter.kind, len(value)) + value


# ---- LOG SELECT


def check_select(unit: PrimaryUnit, task: Task) -> None:
    fields = task.fields
    if fields["page_code"] not in _supported(unit) or (fields["page_code"] and fields["parameter_list_length"]):
        raise invalid_field(2, 5)
    if fields["subpage_code"]:
        raise invalid_field(3)
    if fields["parameter_list_length"]:
        if fields["pcr"]:
            raise invalid_field(1, 1)
        if fields["page_control"] != CUMULATIVE:  # thresholds and defaults are what they are
            raise invalid_field(2, 7)
    if task.data_out_length < task.expected:
        raise parameter_list_length_error()


def select(unit: PrimaryUnit, task: Task) -> Buffer:
    fields, data = task.fields, bytes(task.data_out)
    origins = dict(unit.log_origins)
    if not data and (fields["pcr"] or fields["page_control"] == DEFAULT_CUMULATIVE):
        for code in [fields["page_code"]] if fields["page_code"] else _supported(unit):
            origins |= _origins(unit, code)
    at = 0
    while at < len(data):
        at = _select_page(unit, data, at, origins)
    if origins != unit.log_origins:
        unit.log_origins = origins
        unit.attention(Asc.LOG_PARAMETERS_CHANGED, but=task.nexus)
    return b""


def _origins(unit: PrimaryUnit, code: int) -> dict[tuple[int, int], int]:
    """Where the counters of a page stand."""
    found = unit.log_pages[code].parameters(unit)
    return {(code, parameter.code): _number(parameter) for parameter in found if parameter.kind == COUNTER}


def _select_page(unit: PrimaryUnit, data: bytes, at: int, origins: dict[tuple[int, int], int]) -> int:
    """Take over the page at `data[at:]`; returns where the next begins."""
    if at + 4 > len(data):
        raise parameter_list_length_error()
    code, subpage, length = data[at] & 0x3F, data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
    if code not in _supported(unit):
        raise invalid_parameter(at, 5)
    if subpage:
        raise invalid_parameter(at + 1)
    end = at + 4 + length
    if end > len(data):
        raise parameter_list_length_error()
    now, at = _origins(unit, code), at + 4
    while at < end:
        if at + 4 > end or at + 4 + data[at + 3] > end:
            raise parameter_list_length_error()
        number = int.from_bytes(data[at : at + 2], "big")
        if (code, number) not in now:  # only counters can be set
            raise invalid_parameter(at)
        origins[code, number] = now[code, number] - int.from_bytes(data[at + 4 : at + 4 + data[at + 3]], "big")
        at += 4 + data[at + 3]
    return end
