"""READ BUFFER and WRITE BUFFER (SPC-5): a data buffer of the logical unit, and an echo buffer of each nexus.

They are for testing the way between initiator and target. Microcode cannot be loaded: the modes for that do not exist.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard.scsi.sense import Asc, CheckCondition, SenseKey, invalid_field, parameter_list_length_error

if TYPE_CHECKING:
    from blockyard.scsi.nexus import Nexus
    from blockyard.scsi.primary import PrimaryUnit
    from blockyard.scsi.task import Buffer, Task

DATA, DESCRIPTOR, ECHO, ECHO_DESCRIPTOR = 0x02, 0x03, 0x0A, 0x0B  # MODE
CAPACITY = 1 << 16  # bytes of the data buffer
ECHO_CAPACITY = 4096  # bytes
_EBOS = 0x01  # no nexus overwrites the echo buffer of another


class Buffers:
    """What has been written, of one logical unit."""

    def __init__(self) -> None:
        self.data = bytearray()  # made when it is first used
        self.echo: dict[Nexus, bytes] = {}

    def forget(self, nexus: Nexus) -> None:
        self.echo.pop(nexus, None)

    def reset(self) -> None:
        self.data = bytearray()
        self.echo.clear()


def check_read(unit: PrimaryUnit, task: Task) -> None:
    fields = task.fields
    if fields["mode"] not in (DATA, DESCRIPTOR, ECHO, ECHO_DESCRIPTOR):
        raise invalid_field(1, 4)
    if fields["mode"] == DATA:
        _check_place(fields["buffer_id"], fields["buffer_offset"], 0)
    if fields["mode"] == ECHO and task.nexus not in unit.buffers.echo:
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.COMMAND_SEQUENCE_ERROR)


def _check_place(number: int, offset: int, length: int) -> None:
    if number:
        raise invalid_field(2)
    if offset > CAPACITY:
        raise invalid_field(3)
    if offset + length > CAPACITY:
        raise invalid_field(6)


def read_buffer(unit: PrimaryUnit, task: Task) -> Buffer:
    mode, number, offset = (task.fields[name] for name in ("mode", "buffer_id", "buffer_offset"))
    if mode == DESCRIPTOR:
        return CAPACITY.to_bytes(4, "big") if not number else bytes(4)  # OFFSET BOUNDARY 0: any byte
    if mode == ECHO_DESCRIPTOR:
        return bytes([_EBOS, 0]) + ECHO_CAPACITY.to_bytes(2, "big")
    if mode == ECHO:
        return unit.buffers.echo[task.nexus]
    return bytes(unit.buffers.data.ljust(CAPACITY, b"\0"))[offset:]


def check_write(unit: PrimaryUnit, task: Task) -> None:
    fields = task.fields
    if fields["mode"] == DATA:
        _check_place(fields["buffer_id"], fields["buffer_offset"], task.expected)
    elif fields["mode"] == ECHO:
        if task.expected > ECHO_CAPACITY:
            raise invalid_field(6)
    else:
        raise invalid_field(1, 4)
    if task.data_out_length < task.expected:
        raise parameter_list_length_error()


def write_buffer(unit: PrimaryUnit, task: Task) -> Buffer:
    data, offset = bytes(task.data_out), task.fields["buffer_offset"]
    if task.fields["mode"] == ECHO:
        unit.buffers.echo[task.nexus] = data
        return b""
    kept = unit.buffers.data
    kept.extend(bytes(max(0, offset + len(data) - len(kept))))
    kept[offset : offset + len(data)] = data
    return b""
