"""What initiators leave with a logical unit and ask of it, besides data (SPC-5, MAINTENANCE IN and OUT): a time, a name, a
priority; and which task management functions there are."""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING, Any

from blockyard.scsi import transport_id
from blockyard.scsi.sense import Asc, invalid_field, invalid_parameter, parameter_list_length_error

if TYPE_CHECKING:
    from blockyard.scsi.nexus import Nexus
    from blockyard.scsi.primary import PrimaryUnit
    from blockyard.scsi.task import Buffer, Task


def check_list(unit: PrimaryUnit, task: Task) -> None:
    """The whole parameter list has been announced."""
    if task.data_out_length < task.expected:
        raise parameter_list_length_error()


# ---- REPORT and SET TIMESTAMP

_SET, _BY_HOST = 0b010, 0b011  # TIMESTAMP ORIGIN


class Clock:
    """Milliseconds since 1970: those of the host, until an initiator has said otherwise."""

    def __init__(self) -> None:
        self.origin = _BY_HOST
        self._ahead = 0

    def set(self, milliseconds: int) -> None:
        self.origin = _SET
        self._ahead = milliseconds - _now()

    def read(self) -> int:
        return (_now() + self._ahead) & ((1 << 48) - 1)


def _now() -> int:
    return time.time_ns() // 1_000_000


def report_timestamp(unit: PrimaryUnit, task: Task) -> Buffer:
    return struct.pack(">HBx", 10, unit.clock.origin) + unit.clock.read().to_bytes(6, "big") + bytes(2)


def set_timestamp(unit: PrimaryUnit, task: Task) -> Buffer:
    data = bytes(task.data_out)
    if not data:
        return b""
    if len(data) < 12:
        raise parameter_list_length_error()
    unit.clock.set(int.from_bytes(data[4:10], "big"))
    unit.attention(Asc.TIMESTAMP_CHANGED, but=task.nexus)
    return b""


# ---- REPORT and SET IDENTIFYING INFORMATION

_KIND = "identifying-information"  # what it is kept as (scsi/durable.py)
_PERIPHERAL, _TEXT, _ALL_TYPES = 0x00, 0x02, 0x7F  # IDENTIFYING INFORMATION TYPE
_MOST = {_PERIPHERAL: 512, _TEXT: 256}  # bytes


def _kept(unit: PrimaryUnit) -> dict[str, Any]:
    document = unit.durable.load(_KIND)
    return document if isinstance(document, dict) else {}


def check_identifying_information(unit: PrimaryUnit, task: Task) -> None:
    setting = "parameter_list_length" in task.fields
    if task.fields["type"] not in _MOST and (setting or task.fields["type"] != _ALL_TYPES):
        raise invalid_field(10, 7)
    if setting and task.expected > _MOST[task.fields["type"]]:
        raise invalid_field(6)
    if setting:
        check_list(unit, task)


def report_identifying_information(unit: PrimaryUnit, task: Task) -> Buffer:
    kind = task.fields["type"]
    if kind == _ALL_TYPES:
        content = b"".join(struct.pack(">BxH", kind << 1, most) for kind, most in _MOST.items())
    else:
        content = bytes.fromhex(_kept(unit).get(str(kind), ""))
    return struct.pack(">xxH", len(content)) + content


def set_identifying_information(unit: PrimaryUnit, task: Task) -> Buffer:
    kind, data = task.fields["type"], bytes(task.data_out)
    if kind == _TEXT and data:
        _check_text(data)
    kept = _kept(unit)
    if kept.get(str(kind), "") != data.hex():
        unit.durable.save(_KIND, {**kept, str(kind): data.hex()})
        unit.attention(Asc.DEVICE_IDENTIFIER_CHANGED, but=task.nexus)
    return b""


def _check_text(data: bytes) -> None:
    """Text is UTF-8 and ends with a null (SPC-5)."""
    if data[-1]:
        raise invalid_parameter(len(data) - 1)
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise invalid_parameter(error.start) from error


# ---- REPORT and SET PRIORITY

_THIS_NEXUS, _THAT_NEXUS, _ALL_NEXUSES = 0, 1, 2  # I_T_L NEXUS TO SET
_ONE, _EACH = 0, 1  # PRIORITY REPORTED


def check_report_priority(unit: PrimaryUnit, task: Task) -> None:
    if task.fields["priority_reported"] not in (_ONE, _EACH):
        raise invalid_field(2, 7)


def report_priority(unit: PrimaryUnit, task: Task) -> Buffer:
    one = task.fields["priority_reported"] == _ONE
    chosen = [task.nexus] if one else [nexus for nexus in unit.nexuses if nexus.priority]
    descriptors = b"".join(_priority_descriptor(unit, nexus) for nexus in chosen)
    return len(descriptors).to_bytes(4, "big") + descriptors


def _priority_descriptor(unit: PrimaryUnit, nexus: Nexus) -> bytes:
    identifier = transport_id.encode(nexus.initiator)
    priority = nexus.priority or unit.initial_priority
    return struct.pack(">BxHxxH", priority, nexus.target_port.relative_port, len(identifier)) + identifier


def check_set_priority(unit: PrimaryUnit, task: Task) -> None:
    if task.fields["nexus_to_set"] not in (_THIS_NEXUS, _THAT_NEXUS, _ALL_NEXUSES):
        raise invalid_field(2, 7)
    check_list(unit, task)


def set_priority(unit: PrimaryUnit, task: Task) -> Buffer:
    data = bytes(task.data_out)
    if not data:
        return b""
    if len(data) < 8 or len(data) < 8 + int.from_bytes(data[6:8], "big"):
        raise parameter_list_length_error()
    for nexus in _named(unit, task, data):
        nexus.priority = data[0] & 0x0F
        if nexus is not task.nexus:
            nexus.establish(Asc.PRIORITY_CHANGED)
    return b""


def _named(unit: PrimaryUnit, task: Task, data: bytes) -> list[Nexus]:
    """The nexuses whose priority is to be set."""
    if task.fields["nexus_to_set"] == _THIS_NEXUS:
        return [task.nexus]
    if task.fields["nexus_to_set"] == _ALL_NEXUSES:
        return list(unit.nexuses)
    port = int.from_bytes(data[2:4], "big")
    try:
        initiators = transport_id.ports(
            data[8 : 8 + int.from_bytes(data[6:8], "big")], [n.initiator for n in unit.nexuses]
        )
    except ValueError as error:
        raise invalid_parameter(8) from error
    found = [n for n in unit.nexuses if n.initiator in initiators and n.target_port.relative_port == port]
    if not found:
        raise invalid_parameter(2)
    return found


# ---- REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS

_FUNCTIONS = 0xF8  # ABORT TASK, ABORT TASK SET, CLEAR ACA, CLEAR TASK SET, LOGICAL UNIT RESET


def check_report_functions(unit: PrimaryUnit, task: Task) -> None:
    if task.fields["allocation_length"] < 4:
        raise invalid_field(6)


def report_functions(unit: PrimaryUnit, task: Task) -> Buffer:
    """No timeouts are recommended (TMFTMOV=0), so that the extended form has nothing more to say."""
    if task.fields["repd"]:
        return bytes([_FUNCTIONS, 0, 0, 12]) + bytes(12)
    return bytes([_FUNCTIONS, 0, 0, 0])
