"""RECEIVE COPY RESULTS: what copies have come to, and what a copy may ask for (SPC-5); VPD page 8Fh; COPY OPERATION ABORT."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from blockyard.scsi import limits, tokens
from blockyard.scsi.copy_manager import CopyOperation, OperationStatus
from blockyard.scsi.copy_parameters import IDENTIFICATION, SEGMENT_LENGTHS, THIS_UNIT
from blockyard.scsi.copying import granularity
from blockyard.scsi.sense import CheckCondition
from blockyard.scsi.task import Status

if TYPE_CHECKING:
    from blockyard.scsi.task import Buffer, Task
    from blockyard.scsi.unit import LogicalUnit

_IN_BYTES, _IN_KIB, _IN_BLOCKS = 0x00, 0x01, 0xF1  # TRANSFER COUNT UNITS
_DELAY = 100  # milliseconds: ESTIMATED STATUS UPDATE DELAY of what has not ended
_DONE = 0xFFFFFFFE  # the same of what has
_LID1_STATUS = {  # COPY MANAGER STATUS, of the statuses that LID4 knows
    OperationStatus.FOREGROUND: 0x00,
    OperationStatus.BACKGROUND: 0x00,
    OperationStatus.WITHOUT_ERRORS: 0x01,
    OperationStatus.WITH_ERRORS: 0x02,
    OperationStatus.TERMINATED: 0x02,
}
_DESCRIPTORS = bytes(sorted((*SEGMENT_LENGTHS, IDENTIFICATION)))


def _operation(unit: LogicalUnit, task: Task) -> CopyOperation:
    """The operation that the list identifier names, of this nexus."""
    found = unit.copies.find(task.nexus, task.fields["list_identifier"])
    if found is None:
        raise _unknown(task)
    return found


def _unknown(task: Task) -> CheckCondition:
    assert task.command is not None
    return task.command.invalid("list_identifier")


# ---- LID1


def copy_status_lid1(unit: LogicalUnit, task: Task) -> Buffer:
    operation = _operation(unit, task)
    units, count = (_IN_BYTES, operation.transferred)
    if count > 0xFFFFFFFF:
        units, count = _IN_KIB, min(count >> 10, 0xFFFFFFFF)
    return struct.pack(">IBHBI", 8, _LID1_STATUS[operation.status], operation.segments, units, count)


def receive_copy_data(unit: LogicalUnit, task: Task) -> Buffer:
    """Data that a copy has kept for its initiator: no segment descriptor that does so is supported."""
    if _operation(unit, task).running:
        raise _unknown(task)
    return bytes(4)


def operating_parameters(unit: LogicalUnit, task: Task) -> Buffer:
    return struct.pack(
        f">IB3xHHIIIIIHHBBBB3xB{len(_DESCRIPTORS)}s",
        40 + len(_DESCRIPTORS),
        1,  # SNLID: a copy needs no list identifier
        limits.COPY_CSCDS,
        limits.COPY_SEGMENTS,
        limits.COPY_LIST_LENGTH,
        limits.COPY_SEGMENT,
        0,  # MAXIMUM INLINE DATA LENGTH
        0,  # HELD DATA LIMIT
        0,  # MAXIMUM STREAM DEVICE TRANSFER SIZE
        0,  # reserved
        limits.COPIES,  # TOTAL CONCURRENT COPIES
        limits.COPIES,  # MAXIMUM CONCURRENT COPIES
        granularity(unit),
        0,
        0,
        len(_DESCRIPTORS),
        _DESCRIPTORS,
    )


def failed_segment_details(unit: LogicalUnit, task: Task) -> Buffer:
    """Status and sense data of a copy that has failed, once."""
    operation = _operation(unit, task)
    if operation.result is None or operation.result.status == Status.GOOD:
        raise _unknown(task)
    unit.copies.discard(operation)
    sense = operation.result.sense
    return struct.pack(">I52xBxH", 56 + len(sense), operation.result.status, len(sense)) + sense


# ---- LID4


def copy_status_lid4(unit: LogicalUnit, task: Task) -> Buffer:
    status = _status(unit, _operation(unit, task))
    return len(status).to_bytes(4, "big") + status


def receive_rod_token_information(unit: LogicalUnit, task: Task) -> Buffer:
    operation = _operation(unit, task)
    if operation.service_action not in tokens.SERVICE_ACTIONS:
        raise _unknown(task)
    token = b"\x00\x00" + operation.token if operation.token else b""  # a ROD token descriptor: for the first ROD
    answer = _status(unit, operation) + len(token).to_bytes(4, "big") + token
    return len(answer).to_bytes(4, "big") + answer


def _status(unit: LogicalUnit, operation: CopyOperation) -> bytes:
    """What both LID4 forms of status begin with, after their AVAILABLE DATA."""
    operation.counter = min(operation.counter + 1, 0xFFFF)
    status, sense = (0, b"") if operation.result is None else (operation.result.status, operation.result.sense)
    in_blocks = operation.service_action in tokens.SERVICE_ACTIONS
    return (
        struct.pack(
            ">BBHIBBBBQH6x",
            operation.service_action,
            operation.status,
            operation.counter,
            _DELAY if operation.running else _DONE,
            status,
            len(sense),
            len(sense),
            _IN_BLOCKS if in_blocks else _IN_BYTES,
            operation.transferred >> unit.shift if in_blocks else operation.transferred,
            min(operation.segments, 0xFFFF),
        )
        + sense
    )


# ---- COPY OPERATION ABORT


def copy_operation_abort(unit: LogicalUnit, task: Task) -> Buffer:
    operation = _operation(unit, task)
    if operation.running:
        operation.abort()
    return b""


# ---- VPD page 8Fh, Third-party Copy


def vpd_content(unit: LogicalUnit) -> bytes:
    return b"".join(
        (
            _descriptor(
                0x0000,  # Block Device ROD Token Limits
                struct.pack(
                    ">6xHIIQQ",
                    limits.TOKEN_RANGES,
                    limits.MAX_TOKEN_TIMEOUT,
                    limits.TOKEN_TIMEOUT,
                    limits.TOKEN_BYTES >> unit.shift,
                    limits.COPY_SEGMENT >> unit.shift,
                ),
            ),
            _descriptor(0x0001, _supported_commands(unit)),
            _descriptor(  # Parameter Data
                0x0004,
                struct.pack(">4xHHII12x", limits.COPY_CSCDS, limits.COPY_SEGMENTS, limits.COPY_LIST_LENGTH, 0),
            ),
            _descriptor(0x0008, bytes([len(_DESCRIPTORS)]) + _DESCRIPTORS),  # Supported Descriptors
            _descriptor(0x000C, struct.pack(">HH", 2, THIS_UNIT)),  # Supported CSCD Descriptor IDs
            _descriptor(0x0106, _rod_token_features()),
            _descriptor(0x0108, _rod_types()),
            _descriptor(  # General Copy Operations
                0x8001,
                struct.pack(">IIIBB18x", limits.COPIES, limits.COPIES, limits.COPY_SEGMENT, granularity(unit), 0),
            ),
        )
    )


def _descriptor(kind: int, content: bytes) -> bytes:
    """A third-party copy descriptor: of a length that is a multiple of four."""
    content += bytes(-len(content) % 4)
    return struct.pack(">HH", kind, len(content)) + content


def _supported_commands(unit: LogicalUnit) -> bytes:
    body = b""
    for opcode in (0x83, 0x84):
        actions = bytes(
            command.service_action
            for command in unit.supported_commands()
            if command.opcode == opcode and command.service_action is not None
        )
        body += bytes([opcode, len(actions)]) + actions
    return bytes([len(body)]) + body


def _rod_token_features() -> bytes:
    """ROD Token Features: tokens are for this server alone (REMOTE TOKENS 0), and end by not being used."""
    block = struct.pack(  # block ROD device type specific features descriptor
        ">BBHHHQQQQ8x",
        0,  # peripheral device type
        0,
        0x2C,
        0,
        1,  # OPTIMAL BLOCK ROD LENGTH GRANULARITY
        limits.TOKEN_BYTES,
        limits.COPY_SEGMENT,
        limits.COPY_SEGMENT,
        limits.COPY_SEGMENT,
    )
    return struct.pack(
        ">B11xIII18xH", 0, limits.TOKEN_TIMEOUT, 0xFFFFFFFF, limits.MAX_TOKEN_TIMEOUT, len(block)
    ) + block  # fmt: skip


def _rod_types() -> bytes:
    """Supported ROD Types: which of them can be made here (TOKEN_OUT) and used (TOKEN_IN)."""
    types = b"".join(
        struct.pack(">IBxH56x", kind, made | used << 1, preference) for kind, made, used, preference in tokens.SUPPORTED
    )
    return struct.pack(">xxH", len(types)) + types
