"""READ ATTRIBUTE and WRITE ATTRIBUTE: the auxiliary memory of the loaded cartridge (SPC-5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard.media.attributes import ATTRIBUTES, CAPACITY, encode, parse
from blockyard.media.generations import ORGANIZATION, WIDTH
from blockyard.media.tape_pages import ALERTS
from blockyard.media.transfer import loaded
from blockyard.scsi.designators import VENDOR
from blockyard.scsi.sense import Asc, CheckCondition, SenseKey, invalid_field, parameter_list_length_error

if TYPE_CHECKING:
    from blockyard.media.drive import TapeDrive
    from blockyard.media.tape import Tape
    from blockyard.scsi.task import Buffer, Task

_MIB = 1 << 20
_LENGTH = 500  # metres, about: nobody measures


def _number(identifier: int, value: int) -> bytes:
    return value.to_bytes(ATTRIBUTES[identifier].length, "big")


def _ascii(identifier: int, text: str) -> bytes:
    length = ATTRIBUTES[identifier].length
    return f"{text:{length}.{length}}".encode()


def values(unit: TapeDrive, tape: Tape, part: int) -> dict[int, bytes]:
    """All attributes of a partition, in ascending order: the drive's and medium's, and what hosts have written."""
    description = tape.description
    kind = description.generation
    size, end = description.capacities[part], tape.cartridge.partitions[part].end
    host = {number: value for (where, number), value in description.attributes.items() if where == part}
    used = sum(len(value) + 5 for value in description.attributes.values())
    alerts = sum(1 << (64 - flag) for flag in unit.alerts & ALERTS)
    drives = [*description.last_drives, "", ""]
    found = {
        0x0000: _number(0x0000, max(0, size - end) // _MIB),
        0x0001: _number(0x0001, size // _MIB),
        0x0002: _number(0x0002, alerts),
        0x0003: _number(0x0003, description.loads),
        0x0004: _number(0x0004, max(0, CAPACITY - used)),
        0x0005: _ascii(0x0005, ORGANIZATION),
        0x0006: _number(0x0006, kind.density),
        0x0007: _number(0x0007, min(description.format, 0xFFFF)),
        0x020A: _ascii(0x020A, f"{unit.vendor:8.8}{unit.serial}"),
        0x020B: _ascii(0x020B, drives[0]),
        0x0220: _number(0x0220, (description.written + tape.written) // _MIB),
        0x0221: _number(0x0221, (description.read + tape.read_bytes) // _MIB),
        0x0222: _number(0x0222, tape.written // _MIB),
        0x0223: _number(0x0223, tape.read_bytes // _MIB),
        0x0400: _ascii(0x0400, VENDOR),
        0x0401: _ascii(0x0401, description.uuid.hex),
        0x0402: _number(0x0402, _LENGTH),
        0x0403: _number(0x0403, WIDTH),
        0x0404: _ascii(0x0404, ORGANIZATION),
        0x0405: _number(0x0405, kind.density),
        0x0406: _ascii(0x0406, description.made),
        0x0407: _number(0x0407, CAPACITY),
        0x0408: _number(0x0408, 0x80 if description.worm else 0x00),
        0x0409: _number(0x0409, 0),
        0x0806: _ascii(0x0806, description.barcode),
    }
    return dict(sorted({**found, **host}.items()))


def _part(unit: TapeDrive, task: Task) -> tuple[Tape, int]:
    tape, part = loaded(unit), task.fields["partition"]
    if part >= len(tape.cartridge.partitions):
        raise invalid_field(7)
    if task.fields["logical_volume"]:
        raise invalid_field(5)
    return tape, part


def attribute_values(unit: TapeDrive, task: Task) -> Buffer:
    tape, part = _part(unit, task)
    first = task.fields["first_attribute"]
    known = values(unit, tape, part)
    if first and first not in known:
        raise invalid_field(8)
    body = b"".join(encode(number, value) for number, value in known.items() if number >= first)
    return len(body).to_bytes(4, "big") + body


def attribute_list(unit: TapeDrive, task: Task) -> Buffer:
    return _numbers([number for number in values(unit, *_part(unit, task)) if number >= task.fields["first_attribute"]])


def supported_attributes(unit: TapeDrive, task: Task) -> Buffer:
    _part(unit, task)
    return _numbers(list(ATTRIBUTES))


def _numbers(numbers: list[int]) -> bytes:
    return (2 * len(numbers)).to_bytes(4, "big") + b"".join(number.to_bytes(2, "big") for number in numbers)


def logical_volume_list(unit: TapeDrive, task: Task) -> Buffer:
    loaded(unit)
    return bytes([0, 2, 0, 1])  # AVAILABLE DATA; logical volumes 0 to 0


def partition_list(unit: TapeDrive, task: Task) -> Buffer:
    return bytes([0, 2, 0, len(loaded(unit).cartridge.partitions)])


def check_write_attribute(unit: TapeDrive, task: Task) -> None:
    if task.data_out_length < task.expected:
        raise parameter_list_length_error()


def write_attribute(unit: TapeDrive, task: Task) -> Buffer:
    """On stable storage at once, whatever WTC says."""
    tape, part = _part(unit, task)
    if not task.data_out:
        return b""
    kept = dict(tape.description.attributes)
    for number, value in parse(bytes(task.data_out)).items():
        if value:
            kept[part, number] = value
        else:
            kept.pop((part, number), None)
    if sum(len(value) + 5 for value in kept.values()) > CAPACITY:
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.PARAMETER_LIST_LENGTH_ERROR)
    tape.cartridge.change(attributes=kept)
    return b""
