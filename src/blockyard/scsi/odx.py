"""POPULATE TOKEN, WRITE USING TOKEN, REPORT ALL ROD TOKENS (SBC-4, SPC-5): Windows calls it Offloaded Data Transfer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from blockyard.scsi import limits, tokens
from blockyard.scsi.admission import READ, WRITE, admit
from blockyard.scsi.copy_manager import CopyOperation
from blockyard.scsi.copying import aligned_piece, copy, fits
from blockyard.scsi.operation import Piece, Steps
from blockyard.scsi.sense import (
    Asc,
    CheckCondition,
    FieldPointer,
    SenseKey,
    invalid_parameter,
    parameter_list_length_error,
)
from blockyard.scsi.tokens import Range, Rod

if TYPE_CHECKING:
    from blockyard.scsi.nexus import Nexus
    from blockyard.scsi.task import Buffer, Task
    from blockyard.scsi.unit import LogicalUnit

_POPULATE_HEADER, _WRITE_HEADER = 16, 536  # bytes before the range descriptors
_RANGE_LENGTH = 16


def check_populate_token(unit: LogicalUnit, task: Task) -> None:
    _check_length(task, _POPULATE_HEADER)


def check_write_using_token(unit: LogicalUnit, task: Task) -> None:
    _check_length(task, _WRITE_HEADER)


def _check_length(task: Task, header: int) -> None:
    longest = header + _RANGE_LENGTH * limits.TOKEN_RANGES
    if task.data_out_length < task.expected or 0 < task.expected < header + _RANGE_LENGTH:
        raise parameter_list_length_error()
    if task.expected > longest:  # before a transport makes room for it
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.TOO_MANY_SEGMENT_DESCRIPTORS)


def _ranges(unit: LogicalUnit, data: bytes, header: int) -> list[Range]:
    """The block device range descriptors, which end the parameter list; all of them checked."""
    if int.from_bytes(data[:2], "big") + 2 < header + _RANGE_LENGTH:  # DATA LENGTH
        raise invalid_parameter(0)
    if int.from_bytes(data[:2], "big") + 2 > len(data):
        raise parameter_list_length_error()
    length = int.from_bytes(data[header - 2 : header], "big")
    if length < _RANGE_LENGTH or header + length > len(data):
        raise invalid_parameter(header - 2)
    ranges = []
    for at in range(header, header + length - length % _RANGE_LENGTH, _RANGE_LENGTH):
        found = Range(int.from_bytes(data[at : at + 8], "big"), int.from_bytes(data[at + 8 : at + 12], "big"))
        if found.lba + found.count > unit.blocks:
            raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE)
        ranges.append(found)
    if sum(each.count for each in ranges) << unit.shift > limits.TOKEN_BYTES:
        raise invalid_parameter(header + 8)
    used = sorted(each for each in ranges if each.count)
    if any(before.lba + before.count > after.lba for before, after in pairwise(used)):
        raise invalid_parameter(header)
    return ranges


# ---- POPULATE TOKEN


def populate_token(unit: LogicalUnit, task: Task) -> Buffer:
    """Runs alone: what was written before it is in the token, what comes after revokes it."""
    data = bytes(task.data_out)
    if not data:
        return b""
    ranges = _ranges(unit, data, _POPULATE_HEADER)
    kind = int.from_bytes(data[8:12], "big") if data[2] & 0x02 else tokens.ANY_POINT_IN_TIME  # RTV
    if kind not in {made for made, can, _, _ in tokens.SUPPORTED if can}:
        raise CheckCondition(
            SenseKey.ILLEGAL_REQUEST,
            Asc.INVALID_TOKEN_OPERATION_UNSUPPORTED_TOKEN_TYPE,
            pointer=FieldPointer(8, in_cdb=False),
        )
    timeout = int.from_bytes(data[4:8], "big") or limits.TOKEN_TIMEOUT
    if timeout > limits.MAX_TOKEN_TIMEOUT:
        raise invalid_parameter(4)
    if not unit.device.stable:  # a write to what lies below would change the token's data, and revoke nothing
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.INVALID_TOKEN_OPERATION_CAUSE_NOT_REPORTABLE)
    operation = unit.copies.begin(task, task.fields["list_identifier"], immediate=bool(data[2] & 0x01))
    chosen = tokens.CHANGE_VULNERABLE if kind == tokens.ANY_POINT_IN_TIME else kind
    rod = Rod(unit, ranges, timeout, chosen)
    operation.token = unit.tokens.create(rod)
    operation.transferred = rod.bytes
    unit.copies.complete(operation)
    return b""


# ---- WRITE USING TOKEN


def write_using_token(unit: LogicalUnit, task: Task) -> Steps:
    data = bytes(task.data_out)
    if not data:
        return b""
    ranges = _ranges(unit, data, _WRITE_HEADER)
    token = data[16:528]
    offset = int.from_bytes(data[8:16], "big") << unit.shift
    rod = None
    if int.from_bytes(token[:4], "big") != tokens.ZERO:
        rod = unit.tokens.find(token)
        if offset + (sum(each.count for each in ranges) << unit.shift) > rod.bytes:
            raise invalid_parameter(8)
    operation = unit.copies.begin(task, task.fields["list_identifier"], immediate=bool(data[2] & 0x01))
    delete = bool(data[2] & 0x02)
    steps = (
        _zero(unit, task.nexus, ranges, operation)
        if rod is None
        else _write(unit, task.nexus, ranges, rod, offset, operation, delete=delete)
    )
    return (yield from unit.copies.carry_out(operation, steps))


def _write(
    unit: LogicalUnit,
    nexus: Nexus,
    ranges: Sequence[Range],
    rod: Rod,
    offset: int,
    operation: CopyOperation,
    *,
    delete: bool,
) -> Steps:
    source = rod.unit
    read = source.commands.get(READ, None)
    assert read is not None
    for start, to, length in _moves(unit, ranges, rod, offset):

        def check(start: int = start, to: int = to, length: int = length) -> None:
            unit.tokens.use(rod)
            if not fits(source, start, length):  # smaller blocks than those of the source, which are protected
                raise CheckCondition(SenseKey.COPY_ABORTED, Asc.COPY_SEGMENT_GRANULARITY_VIOLATION)
            source.check_medium(read, {"lba": 0, "count": 0})
            _admit(unit, nexus, to, length)

        yield Piece((source, unit), partial(copy, source, unit, start, to, length), check)
        unit.tokens.use(rod)  # nobody has written to it while it was read
        operation.transferred += length
    if not unit.write_back:
        yield Piece((unit,), unit.device.flush)
    if delete:
        unit.tokens.delete(rod)
    return b""


def _moves(unit: LogicalUnit, ranges: Sequence[Range], rod: Rod, offset: int) -> Iterator[tuple[int, int, int]]:
    """What goes where, in pieces: positions in the source and in the destination, and lengths."""
    for each in ranges:
        to, end = each.lba << unit.shift, each.lba + each.count << unit.shift
        while to < end:
            size = min(end - to, aligned_piece(to))
            for start, length in rod.pieces(offset, size):
                yield start, to, length
                to += length
            offset += size


def _zero(unit: LogicalUnit, nexus: Nexus, ranges: Sequence[Range], operation: CopyOperation) -> Steps:
    """Block device zero ROD: the ranges become zeros, and holes where the unit is thin."""
    clear = unit.device.discard if unit.thin else unit.device.write_zeroes
    for each in ranges:
        for lba in range(each.lba, each.lba + each.count, unit.max_blocks):
            count = min(unit.max_blocks, each.lba + each.count - lba)
            to, length = lba << unit.shift, count << unit.shift
            yield Piece((unit,), partial(clear, to, length), partial(_admit, unit, nexus, to, length))
            operation.transferred += length
    if not unit.write_back:
        yield Piece((unit,), unit.device.flush)
    return b""


def _admit(unit: LogicalUnit, nexus: Nexus, to: int, length: int) -> None:
    admit(unit, nexus, WRITE, to >> unit.shift, length >> unit.shift)


# ---- REPORT ALL ROD TOKENS


def report_all_rod_tokens(unit: LogicalUnit, task: Task) -> Buffer:
    body = b"".join(unit.tokens.management(unit))
    return (4 + len(body)).to_bytes(4, "big") + bytes(4) + body
