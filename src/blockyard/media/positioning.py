"""Where the tape is wound to: SPACE, LOCATE, READ POSITION and REWIND (SSC-5)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from blockyard.media.tape import Spaced, Stop
from blockyard.media.tape_pages import programmable_warning
from blockyard.media.transfer import loaded
from blockyard.scsi.sense import END_OF_MEDIUM, FILEMARK, Asc, CheckCondition, SenseKey, invalid_field

if TYPE_CHECKING:
    from blockyard.media.drive import TapeDrive
    from blockyard.media.tape import Tape
    from blockyard.scsi.task import Buffer, Task

BLOCKS, FILEMARKS, END_OF_DATA = 0, 1, 3  # CODE
OBJECT, FILE, END = 0, 1, 3  # DEST_TYPE
_BOP, _EOP, _POSITION_ERROR, _BEYOND_PROGRAMMABLE = 0x80, 0x40, 0x02, 0x01


def rewind(unit: TapeDrive, task: Task) -> Buffer:
    """To the beginning of the partition."""
    tape = loaded(unit)
    tape.sync()
    tape.locate(tape.number, 0)
    return b""


# ---- SPACE


def check_space(unit: TapeDrive, task: Task) -> None:
    if task.fields["code"] not in (BLOCKS, FILEMARKS, END_OF_DATA):
        raise invalid_field(1, 3)


def space_6(unit: TapeDrive, task: Task) -> Buffer:
    return _space(unit, task, 24)


def space_16(unit: TapeDrive, task: Task) -> Buffer:
    return _space(unit, task, 64)


def _space(unit: TapeDrive, task: Task, bits: int) -> Buffer:
    tape, count = loaded(unit), task.fields["count"]
    if count >> (bits - 1):  # in two's complement
        count -= 1 << bits
    tape.sync()
    if task.fields["code"] == END_OF_DATA:
        tape.space_to_end()
        return b""
    spaced = tape.space_blocks(count) if task.fields["code"] == BLOCKS else tape.space_filemarks(count)
    if spaced.stop is not Stop.DONE:
        raise _stopped(spaced, abs(count))
    return b""


def _stopped(spaced: Spaced, wanted: int) -> CheckCondition:
    left = wanted - spaced.number
    if spaced.stop is Stop.FILEMARK:
        return CheckCondition(SenseKey.NO_SENSE, Asc.FILEMARK_DETECTED, information=left, stream=FILEMARK)
    if spaced.stop is Stop.BEGINNING:
        asc = Asc.BEGINNING_OF_PARTITION_MEDIUM_DETECTED
        return CheckCondition(SenseKey.NO_SENSE, asc, information=left, stream=END_OF_MEDIUM)
    return CheckCondition(SenseKey.BLANK_CHECK, Asc.END_OF_DATA_DETECTED, information=left)


# ---- LOCATE


def locate_10(unit: TapeDrive, task: Task) -> Buffer:
    return _locate(unit, task, OBJECT)


def check_locate_16(unit: TapeDrive, task: Task) -> None:
    if task.fields["dest_type"] not in (OBJECT, FILE, END):
        raise invalid_field(1, 5)


def locate_16(unit: TapeDrive, task: Task) -> Buffer:
    return _locate(unit, task, task.fields["dest_type"])


def _locate(unit: TapeDrive, task: Task, kind: int) -> Buffer:
    tape, fields = loaded(unit), task.fields
    number = fields["partition"] if fields["cp"] else tape.number
    if number >= len(tape.cartridge.partitions):
        assert task.command is not None
        raise task.command.invalid("partition")
    tape.sync()
    if kind == END:
        found = tape.locate(number, tape.cartridge.partitions[number].objects)
    elif kind == FILE:
        found = tape.locate_file(number, fields["identifier"])
    else:
        found = tape.locate(number, fields["identifier"])
    unit.update()
    if not found:
        raise CheckCondition(SenseKey.BLANK_CHECK, Asc.END_OF_DATA_DETECTED)
    return b""


# ---- READ POSITION


def _flags(unit: TapeDrive, tape: Tape) -> int:
    left, programmed = tape.left(), programmable_warning(unit)
    beyond = _BEYOND_PROGRAMMABLE if programmed and left < tape.warning + programmed else 0
    return (0 if tape.position else _BOP) | (_EOP if left < tape.warning else 0) | beyond


def short_position(unit: TapeDrive, task: Task) -> Buffer:
    """Nothing is held back in the drive, so that the next block of the host and the next on the tape are the same."""
    tape = loaded(unit)
    position = tape.position
    if position > 0xFFFFFFFF:  # the long form has to be asked for
        return bytes([_flags(unit, tape) | _POSITION_ERROR, tape.number]).ljust(20, b"\0")
    return struct.pack(">BBxxII8x", _flags(unit, tape), tape.number, position, position)


def long_position(unit: TapeDrive, task: Task) -> Buffer:
    tape = loaded(unit)
    files = tape.partition.filemarks_before(tape.position)
    return struct.pack(">BxxxIQQ8x", _flags(unit, tape), tape.number, tape.position, files)


def extended_position(unit: TapeDrive, task: Task) -> Buffer:
    tape = loaded(unit)
    return struct.pack(">BBHxxxxQQ8x", _flags(unit, tape), tape.number, 28, tape.position, tape.position)
