"""EXTENDED COPY: data goes from logical unit to logical unit without passing by the initiator (SPC-5).

Each segment is cut into pieces (operation.py). Every piece is checked as the READ and WRITE would be that the initiator
could have sent instead: against reservations, access states, write protection and the capacity. What such a command would
have been told is forwarded in the sense data of the copy (CopyAborted).
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from blockyard.block.device import SourceError
from blockyard.scsi import limits
from blockyard.scsi.admission import READ, TEST_UNIT_READY, WRITE, admit
from blockyard.scsi.copy_manager import CopyOperation
from blockyard.scsi.copy_parameters import (
    BLOCK_TO_BLOCK,
    LONGEST,
    THIS_UNIT,
    VERIFY_CSCD,
    CopyRequest,
    Segment,
    parse_lid1,
    parse_lid4,
)
from blockyard.scsi.nexus import Nexus
from blockyard.scsi.operation import Piece, Steps
from blockyard.scsi.sense import (
    Asc,
    CheckCondition,
    ReadFailure,
    SenseKey,
    StatusCondition,
    failure,
    parameter_list_length_error,
)

if TYPE_CHECKING:
    from blockyard.scsi.task import Task
    from blockyard.scsi.unit import LogicalUnit

log = logging.getLogger(__name__)

LARGEST_BLOCK = 4096  # bytes
_SOURCE, _DESTINATION = 1, 2  # SENSE DATA SOURCE of forwarded sense data
_PAD_AT, _COUNT_AT, _SOURCE_AT, _DESTINATION_AT = 1, 10, 4, 6  # bytes of a block to block segment descriptor


class SegmentPointer(NamedTuple):
    """A field pointer into a segment descriptor (SPC-5, segment pointer sense-key specific data)."""

    byte: int

    def encode(self) -> bytes:
        return b"\xa0" + self.byte.to_bytes(2, "big")  # SKSV, SD


class CopyAborted(CheckCondition):
    """A copy has failed in segment `segment`, because of what `cause` says of its source or destination."""

    def __init__(
        self, segment: int, asc: int, *, byte: int | None = None, cause: Exception | None = None, of: int = 0
    ) -> None:
        super().__init__(SenseKey.COPY_ABORTED, asc)
        self._segment = segment
        self._of = of
        self._specific = b"" if byte is None else SegmentPointer(byte).encode()
        self.cause = cause

    def encode(self, *, descriptor: bool = False) -> bytes:
        """Sense data with the segment's number, and status and sense data of the end that failed (SPC-5)."""
        forwarded = b""
        if self.cause is not None:
            result = failure(self.cause, descriptor=descriptor)
            forwarded = bytes([result.status]) + result.sense
        if descriptor:
            descriptors = b"\x01\x0a\x00\x00" + (self._segment << 32).to_bytes(8, "big")
            if self._specific:
                descriptors += b"\x02\x06\x00\x00" + self._specific + b"\x00"
            if forwarded:
                descriptors += bytes([0x0C, 1 + len(forwarded), self._of]) + forwarded
            return bytes([0x72, self.key, self.asc >> 8, self.asc & 0xFF, 0, 0, 0, len(descriptors)]) + descriptors
        data = bytearray(18)
        data[0], data[2], data[7] = 0x70, self.key, 10 + len(forwarded)
        if forwarded:
            data[7 + self._of] = len(
                data
            )  # where it begins: in the first byte of the source, in the second of the destination
        data[10:12] = self._segment.to_bytes(2, "big")
        data[12:14] = self.asc.to_bytes(2, "big")
        data[15 : 15 + len(self._specific)] = self._specific
        return bytes(data) + forwarded


# ---- the commands


def check_extended_copy(unit: LogicalUnit, task: Task) -> None:
    if task.data_out_length < task.expected or task.expected > LONGEST:  # before a transport makes room for it
        raise parameter_list_length_error()


def extended_copy_lid1(unit: LogicalUnit, task: Task) -> Steps:
    data = bytes(task.data_out)
    if not data:  # nothing to do is not an error (SPC-5)
        return b""
    return (yield from _extended_copy(unit, task, parse_lid1(unit, task.nexus, data)))


def extended_copy_lid4(unit: LogicalUnit, task: Task) -> Steps:
    data = bytes(task.data_out)
    if not data:
        return b""
    return (yield from _extended_copy(unit, task, parse_lid4(unit, task.nexus, data)))


def _extended_copy(unit: LogicalUnit, task: Task, request: CopyRequest) -> Steps:
    operation = unit.copies.begin(task, request.list_id, hold=request.hold, immediate=request.immediate)
    return (yield from unit.copies.carry_out(operation, _copy(task.nexus, request, operation)))


def _copy(nexus: Nexus, request: CopyRequest, operation: CopyOperation) -> Steps:
    held = b""  # residual data of segments with CAT, for the next
    written: set[LogicalUnit] = set()
    for segment in request.segments:
        source = _end(request, segment, segment.source, nexus, _SOURCE_AT)
        destination = _end(request, segment, segment.destination, nexus, _DESTINATION_AT)
        transfer = _Transfer(segment, source, destination, operation)
        if segment.kind == VERIFY_CSCD:
            transfer.verify()
        else:
            held = yield from transfer.run(held)
            written.add(transfer.destination)
        operation.segments += 1
    for destination_unit in written:
        if not destination_unit.write_back:
            yield Piece((destination_unit,), destination_unit.device.flush)
    return b""


class _End(NamedTuple):
    """One end of a copy, as the initiator uses it."""

    unit: LogicalUnit
    nexus: Nexus
    pad: bool


def _end(request: CopyRequest, segment: Segment, number: int, nexus: Nexus, at: int) -> _End:
    """What a CSCD descriptor ID stands for."""
    pad, found = False, nexus
    if number != THIS_UNIT:
        if number >= len(request.cscds):
            raise CopyAborted(segment.number, Asc.UNREACHABLE_COPY_TARGET, byte=at)
        cscd = request.cscds[number]
        if not cscd.disk:
            raise CopyAborted(segment.number, Asc.INCORRECT_COPY_TARGET_DEVICE_TYPE, byte=at)
        if cscd.nexus is None:
            raise CopyAborted(segment.number, Asc.COPY_TARGET_DEVICE_NOT_REACHABLE, byte=at)
        pad, found = cscd.pad, cscd.nexus
    return _End(cast("LogicalUnit", found.unit), found, pad)  # copies are between logical units


def granularity(unit: LogicalUnit) -> int:
    """DATA SEGMENT GRANULARITY: the bits of a byte count that must be zero. Protection information is of whole blocks."""
    return unit.shift if unit.protection is not None else 0


def fits(unit: LogicalUnit, start: int, length: int) -> bool:
    """Whether a copy may read or write these bytes of a unit."""
    return not (start | length) & ((1 << granularity(unit)) - 1)


def aligned_piece(to: int) -> int:
    """The most bytes that a piece from `to` on takes, so that the next begins where blocks of any size do."""
    skip = to % limits.COPY_PIECE
    return limits.COPY_PIECE - (0 if skip % LARGEST_BLOCK else skip)


def copy(source: LogicalUnit, destination: LogicalUnit, start: int, to: int, length: int) -> None:
    """Copy bytes; holes stay holes where the destination is thin. Raises OSError: ReadFailure when it is the source's."""
    try:
        destination.device.copy_from(source.device, start, to, length, thin=destination.thin)
    except SourceError as error:
        raise ReadFailure(error.errno, error.strerror, error.filename) from error


# ---- one segment


class _Transfer:
    """What one block device to block device segment moves, in bytes."""

    def __init__(self, segment: Segment, source: _End, destination: _End, operation: CopyOperation) -> None:
        self.segment = segment
        self.source, self.destination = source.unit, destination.unit
        self._source_nexus, self._destination_nexus = source.nexus, destination.nexus
        self._pads = source.pad, destination.pad
        self._operation = operation

    def verify(self) -> None:
        """A verify CSCD segment: the unit is reachable, and with TUR it is ready."""
        if self.segment.tur:
            self._check(self.source, self._source_nexus, TEST_UNIT_READY, 0, 0, _SOURCE)

    def run(self, held: bytes) -> Generator[Piece, Any, bytes]:
        """Move it, after what is held of segments before. Returns what is to be held for the next one."""
        segment = self.segment
        read, wanted = self._lengths(len(held))
        start = (segment.source_lba << self.source.shift) + segment.source_offset
        to = (segment.destination_lba << self.destination.shift) + segment.destination_offset
        if max(read, wanted) > limits.COPY_SEGMENT:
            raise CopyAborted(segment.number, Asc.INVALID_FIELD_IN_PARAMETER_LIST, byte=_COUNT_AT)
        padding = self._padding(len(held) + read, wanted)
        self._check_range(self.source, start, read, _SOURCE)
        self._check_range(self.destination, to, wanted, _DESTINATION)
        if first := held[:wanted]:
            yield from self._write(first, to)
        straight = max(0, min(wanted - len(first), read))
        yield from self._move(start, to + len(first), straight)
        if padding:
            yield from self._write(bytes(padding), to + wanted - padding)
        rest = held[wanted:]
        if segment.cat and straight < read:
            rest += yield from self._read(start + straight, read - straight)
        return rest if segment.cat else b""

    def _lengths(self, held: int) -> tuple[int, int]:
        """How many bytes are read, and how many are written, padding included (SPC-5, PAD and CAT)."""
        segment = self.segment
        if segment.kind != BLOCK_TO_BLOCK:
            return segment.count, held + segment.count
        source_block, block = self.source.block_size, self.destination.block_size
        if segment.dc:  # the count is of blocks to be written
            wanted = segment.count * block
            return -(-max(0, wanted - held) // source_block) * source_block, wanted
        read = segment.count * source_block
        wanted = held + read
        if wanted % block and not segment.cat and self._pads[1]:
            return read, wanted + -wanted % block
        return read, wanted - wanted % block

    def _padding(self, available: int, wanted: int) -> int:
        """How many of the bytes to be written are zeros for which there is no data; residual data must be allowed."""
        if available > wanted and not self.segment.cat and not any(self._pads):
            raise CopyAborted(self.segment.number, Asc.UNEXPECTED_INEXACT_SEGMENT, byte=_PAD_AT)
        return max(0, wanted - available)

    def _check_range(self, unit: LogicalUnit, start: int, length: int, of: int) -> None:
        if start + length > unit.blocks << unit.shift:
            cause = CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE)
            raise self._aborted(cause, of)

    def _aborted(self, cause: Exception, of: int) -> CopyAborted:
        return CopyAborted(self.segment.number, Asc.NO_ADDITIONAL_SENSE_INFORMATION, cause=cause, of=of)

    def _check(self, unit: LogicalUnit, nexus: Nexus, opcode: int, start: int, length: int, of: int) -> None:
        """Raise CopyAborted for what a command of this nexus would end with now, or for bytes that are not whole blocks."""
        if not fits(unit, start, length):
            raise CopyAborted(self.segment.number, Asc.COPY_SEGMENT_GRANULARITY_VIOLATION, byte=_COUNT_AT)
        lba = start >> unit.shift
        try:
            admit(unit, nexus, opcode, lba, -(-(start + length) >> unit.shift) - lba if length else 0)
        except (CheckCondition, StatusCondition) as error:
            raise self._aborted(error, of) from error

    def _pieces(self, start: int, to: int, length: int) -> Iterator[tuple[int, int]]:
        """Offset and length of pieces, in an order in which none overwrites what another has still to read."""
        size = limits.COPY_PIECE
        first = min(length, aligned_piece(to))
        cuts = [(0, first), *((at, min(size, length - at)) for at in range(first, length, size))] if length else []
        backwards = self.source is self.destination and start < to < start + length
        return reversed(cuts) if backwards else iter(cuts)

    def _move(self, start: int, to: int, length: int) -> Generator[Piece, Any, None]:
        source, destination = self.source, self.destination
        for at, size in self._pieces(start, to, length):

            def check(at: int = at, size: int = size) -> None:
                self._check(source, self._source_nexus, READ, start + at, size, _SOURCE)
                self._check(destination, self._destination_nexus, WRITE, to + at, size, _DESTINATION)

            job = partial(copy, source, destination, start + at, to + at, size)
            yield from self._guarded(Piece((source, destination), job, check), _DESTINATION)
            self._operation.transferred += size

    def _write(self, data: bytes, to: int) -> Generator[Piece, Any, None]:
        destination = self.destination
        check = partial(self._check, destination, self._destination_nexus, WRITE, to, len(data), _DESTINATION)
        job = partial(destination.device.pwritev, [data], to)
        yield from self._guarded(Piece((destination,), job, check), _DESTINATION)
        self._operation.transferred += len(data)

    def _read(self, start: int, length: int) -> Generator[Piece, Any, bytes]:
        source = self.source
        data = bytearray(length)
        check = partial(self._check, source, self._source_nexus, READ, start, length, _SOURCE)
        job = partial(source.device.preadv, [memoryview(data)], start)
        yield from self._guarded(Piece((source,), job, check), _SOURCE)
        return bytes(data)

    def _guarded(self, piece: Piece, of: int) -> Generator[Piece, Any, None]:
        """Have a piece done; what its device raises becomes the cause of the copy's end."""
        try:
            yield piece
        except OSError as error:
            log.error("copy from %s to %s: %s", self.source, self.destination, error)
            if of == _SOURCE or isinstance(error, ReadFailure):
                cause = ReadFailure(error.errno, error.strerror, error.filename)
                raise self._aborted(cause, _SOURCE) from error
            raise self._aborted(error, of) from error
