"""The parameter lists of EXTENDED COPY, taken apart: what is to be copied from where to where (SPC-5).

A CSCD is a copy source or copy destination. Which logical unit a CSCD descriptor means is found out among those that
the initiator itself may use, and nowhere else: a copy must not reach what a READ or WRITE could not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from blockyard.scsi import limits
from blockyard.scsi.designators import unit_designators
from blockyard.scsi.lun import encode_lun
from blockyard.scsi.sense import (
    Asc,
    CheckCondition,
    FieldPointer,
    SenseKey,
    invalid_parameter,
    parameter_list_length_error,
)

if TYPE_CHECKING:
    from blockyard.scsi.nexus import Nexus, Reach
    from blockyard.scsi.unit import LogicalUnit

BLOCK_TO_BLOCK, VERIFY_CSCD, BLOCK_TO_BLOCK_WITH_OFFSETS = 0x02, 0x07, 0x0A  # segment descriptor type codes
SEGMENT_LENGTHS = {BLOCK_TO_BLOCK: 28, VERIFY_CSCD: 12, BLOCK_TO_BLOCK_WITH_OFFSETS: 32}
IDENTIFICATION = 0xE4  # CSCD descriptor type code: identification descriptor CSCD descriptor
THIS_UNIT = 0xFFFF  # CSCD descriptor ID: the logical unit that got the command
_CSCD_LENGTH = 32
_LID1_HEADER, _LID4_HEADER = 16, 48
_HOLD, _DISCARD, _NO_LIST_ID = 0b00, 0b10, 0b11  # LIST ID USAGE


class Cscd(NamedTuple):
    """One end of a copy."""

    nexus: Nexus | None  # of the initiator with that unit; None when it reaches no such one in this process
    pad: bool
    disk: bool  # its PERIPHERAL DEVICE TYPE says so


@dataclass(frozen=True)
class Segment:
    """A segment descriptor, number `number` from 0 on; counts and offsets as they stand there."""

    number: int
    kind: int
    source: int  # CSCD descriptor ID
    destination: int
    cat: bool = False
    dc: bool = False
    count: int = 0  # blocks, or bytes where there are offsets
    source_lba: int = 0
    destination_lba: int = 0
    source_offset: int = 0  # bytes into the block
    destination_offset: int = 0
    tur: bool = False


@dataclass(frozen=True)
class CopyRequest:
    """A parameter list of EXTENDED COPY."""

    list_id: int | None  # None: it has none (LIST ID USAGE 11b)
    hold: bool  # its results are kept even when all went well
    immediate: bool
    cscds: tuple[Cscd, ...]
    segments: tuple[Segment, ...]


LONGEST = _LID4_HEADER + limits.COPY_LIST_LENGTH  # bytes of a parameter list


def parse_lid1(unit: LogicalUnit, nexus: Nexus, data: bytes) -> CopyRequest:
    """The parameter list of EXTENDED COPY (LID1)."""
    if len(data) < _LID1_HEADER:
        raise parameter_list_length_error()
    usage = data[1] >> 3 & 3
    cscds, segments = int.from_bytes(data[2:4], "big"), int.from_bytes(data[8:12], "big")
    inline = int.from_bytes(data[12:16], "big")
    list_id = _list_id(data[0], usage, 0, 1)
    lists = _descriptors(unit, nexus, data, _LID1_HEADER, cscds, segments, inline, inline_at=12)
    return CopyRequest(list_id, usage == _HOLD, False, *lists)


def parse_lid4(unit: LogicalUnit, nexus: Nexus, data: bytes) -> CopyRequest:
    """The parameter list of EXTENDED COPY (LID4)."""
    if len(data) < _LID4_HEADER:
        raise parameter_list_length_error()
    if data[0] != 0x01:  # PARAMETER LIST FORMAT
        raise invalid_parameter(0)
    if int.from_bytes(data[2:4], "big") != 0x20:  # HEADER CSCD DESCRIPTOR LIST LENGTH
        raise invalid_parameter(2)
    if data[16] != 0xFF:  # HEADER CSCD DESCRIPTOR TYPE CODE: extension
        raise invalid_parameter(16)
    usage = data[1] >> 3 & 3
    list_id = _list_id(int.from_bytes(data[20:24], "big"), usage, 20, 1)
    cscds, segments, inline = (int.from_bytes(data[at : at + 2], "big") for at in (42, 44, 46))
    lists = _descriptors(unit, nexus, data, _LID4_HEADER, cscds, segments, inline, inline_at=46)
    immediate = bool(data[15] & 1)
    if immediate and list_id is None:  # nobody could learn of its end
        raise invalid_parameter(15, 0)
    return CopyRequest(list_id, usage == _HOLD, immediate, *lists)


def _list_id(value: int, usage: int, at: int, usage_at: int) -> int | None:
    if usage == _NO_LIST_ID:
        if value:
            raise invalid_parameter(at)
        return None
    if usage not in (_HOLD, _DISCARD):
        raise invalid_parameter(usage_at, 4)
    return value


def _descriptors(
    unit: LogicalUnit,
    nexus: Nexus,
    data: bytes,
    start: int,
    cscd_length: int,
    segment_length: int,
    inline: int,
    *,
    inline_at: int,
) -> tuple[tuple[Cscd, ...], tuple[Segment, ...]]:
    middle, end = start + cscd_length, start + cscd_length + segment_length
    if cscd_length + segment_length > limits.COPY_LIST_LENGTH or end + inline > len(data):
        raise parameter_list_length_error()
    if inline:
        raise _illegal(Asc.INLINE_DATA_LENGTH_EXCEEDED, inline_at)
    cscds = tuple(_cscds(unit, nexus, data, start, middle))
    return cscds, tuple(_segments(data, middle, end))


def _illegal(asc: Asc, at: int) -> CheckCondition:
    return CheckCondition(SenseKey.ILLEGAL_REQUEST, asc, pointer=FieldPointer(at, in_cdb=False))


# ---- copy sources and copy destinations


def _cscds(unit: LogicalUnit, nexus: Nexus, data: bytes, at: int, end: int) -> list[Cscd]:
    found: list[Cscd] = []
    reachable = _Reachable(unit, nexus)
    while at < end:
        if data[at] != IDENTIFICATION:
            raise _illegal(Asc.UNSUPPORTED_TARGET_DESCRIPTOR_TYPE_CODE, at)
        if len(found) == limits.COPY_CSCDS:
            raise _illegal(Asc.TOO_MANY_TARGET_DESCRIPTORS, at)
        if at + _CSCD_LENGTH > end:
            raise parameter_list_length_error()
        found.append(_cscd(reachable, data[at : at + _CSCD_LENGTH], at))
        at += _CSCD_LENGTH
    return found


def _cscd(reachable: _Reachable, data: bytes, at: int) -> Cscd:
    """An identification descriptor CSCD descriptor. LU ID TYPE and NUL are obsolete, and ignored."""
    length = data[7]
    if length > 20:
        raise invalid_parameter(at + 7)
    designator = bytes([data[4] & 0x0F, data[5] & 0x3F, 0, length]) + data[8 : 8 + length]
    found = reachable.find(designator)
    block_length = int.from_bytes(data[29:32], "big")
    if found is not None and block_length not in (0, 1 << found.unit.shift):
        raise invalid_parameter(at + 29)
    return Cscd(found, bool(data[28] & 0x04), data[1] & 0x1F == 0)


class _Reachable:
    """The logical units that an initiator may use, by their names (CVE-2020-28374)."""

    def __init__(self, unit: LogicalUnit, nexus: Nexus) -> None:
        self._nexus = nexus
        self._own = unit_designators(unit.identity)

    def find(self, designator: bytes) -> Nexus | None:
        """The initiator's nexus with the unit of this name, or None."""
        if designator in self._own:
            return self._nexus
        session, lun = self._others.get(designator, (None, 0))
        return None if session is None else session.nexus(encode_lun(lun))

    @cached_property
    def _others(self) -> dict[bytes, tuple[Reach, int]]:
        return {
            designator: (session, lun)
            for session in reversed(list(self._nexus.reach()))  # the first, which is its own, has the last word
            for lun, unit in session.luns.source.units.items()
            if unit.copies_for_others
            for designator in unit_designators(unit.identity)
        }


# ---- segments


def _segments(data: bytes, at: int, end: int) -> list[Segment]:
    found: list[Segment] = []
    while at < end:
        kind = data[at]
        if kind not in SEGMENT_LENGTHS:
            raise _illegal(Asc.UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE_CODE, at)
        if len(found) == limits.COPY_SEGMENTS:
            raise _illegal(Asc.TOO_MANY_SEGMENT_DESCRIPTORS, at)
        length = SEGMENT_LENGTHS[kind]
        if at + length > end:
            raise parameter_list_length_error()
        if int.from_bytes(data[at + 2 : at + 4], "big") != length - 4:  # DESCRIPTOR LENGTH
            raise invalid_parameter(at + 2)
        found.append(_segment(len(found), kind, data[at : at + length]))
        at += length
    return found


def _segment(number: int, kind: int, data: bytes) -> Segment:
    def field(at: int, length: int) -> int:
        return int.from_bytes(data[at : at + length], "big")

    source, destination = field(4, 2), field(6, 2)
    if kind == VERIFY_CSCD:
        return Segment(number, kind, source, source, tur=bool(data[8] & 1))
    cat, dc = bool(data[1] & 1), bool(data[1] & 2)
    if kind == BLOCK_TO_BLOCK:
        return Segment(number, kind, source, destination, cat, dc, field(10, 2), field(12, 8), field(20, 8))
    return Segment(
        number, kind, source, destination, cat, False, field(8, 4), field(12, 8), field(20, 8), field(28, 2), field(30, 2)
    )  # fmt: skip
