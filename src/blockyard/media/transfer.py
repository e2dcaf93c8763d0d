"""READ, VERIFY, WRITE, WRITE FILEMARKS and ERASE (SSC-5).

What a command has not done of what it was told is in the INFORMATION field: blocks or filemarks, and for one block of
variable length the bytes that were too many in the request (negative: too few).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard.media.record import MAX_SEALING
from blockyard.media.tape_pages import APPEND_ONLY, CONFIGURATION, EXTENSION, programmable_warning
from blockyard.scsi.sense import (
    END_OF_MEDIUM,
    FILEMARK,
    INCORRECT_LENGTH,
    Asc,
    CheckCondition,
    SenseKey,
    condition,
    invalid_field,
)

if TYPE_CHECKING:
    from blockyard.media.drive import TapeDrive
    from blockyard.media.encryption import Parameters
    from blockyard.media.tape import Tape
    from blockyard.scsi.task import Buffer, Task

MAX_BLOCK = 8 << 20  # bytes of a block, as LTO drives have it
MAX_TRANSFER = 16 << 20  # bytes of one command
_INLINE = 1 << 20  # bytes that go to or come from the page cache in little more time than a thread needs to be woken
_READ_POSITION = 0x34
_SPACE_IS_OUT = (SenseKey.DATA_PROTECT, Asc.SPACE_ALLOCATION_FAILED_WRITE_PROTECT)


def loaded(unit: TapeDrive) -> Tape:
    """The cartridge, which is there."""
    tape = unit.tape
    if tape is None:
        raise unit.not_ready()
    return tape


# ---- READ and VERIFY


def data_length(fields: dict[str, int], block_length: int) -> int:
    """The bytes that READ and WRITE (6) transfer."""
    return fields["length"] * block_length if fields["fixed"] else fields["length"]


def _check_length(unit: TapeDrive, task: Task, most: int) -> None:
    if task.fields["fixed"] and not unit.block_size:
        raise invalid_field(1, 0)
    if data_length(task.fields, unit.block_size) > most:
        raise invalid_field(2)


def at_once(unit: TapeDrive, task: Task) -> bool:
    """Whether a READ, WRITE or READ POSITION that may run now waits for no disk. Other commands do."""
    tape, fields, command = unit.tape, task.fields, task.command
    if tape is None or command is None:
        return False
    held = unit.encryption.of(task.nexus)
    if command.opcode == _READ_POSITION:
        return tape.position >= tape.partition.objects or tape.partition.place(tape.position) is not None
    if command.run is write:
        plain = unit.buffered and not unit.compression and not held.encryption
        return bool(plain) and task.expected <= _INLINE and tape.appends_at_once()
    if command.run is read:
        small = data_length(fields, unit.block_size) <= _INLINE
        return held.plain and small and tape.reads_at_once(fields["length"] if fields["fixed"] else 1)
    return False


def check_read(unit: TapeDrive, task: Task) -> None:
    if task.fields["fixed"] and task.fields["sili"]:
        raise invalid_field(1, 1)
    _check_length(unit, task, MAX_TRANSFER)


def read(unit: TapeDrive, task: Task) -> Buffer:
    tape, fields = loaded(unit), task.fields
    _check_length(unit, task, MAX_TRANSFER)  # a MODE SELECT before it may have made the blocks longer
    held = unit.encryption.of(task.nexus)
    if fields["fixed"]:
        data: Buffer = _read_fixed(unit, tape, held, fields["length"])
    else:
        data = _read_variable(unit, tape, held, fields)
    unit.counters.read_bytes += len(data)
    if reports_early_warning(unit) and tape.near_end():
        asc = Asc.END_OF_PARTITION_MEDIUM_DETECTED
        raise CheckCondition(SenseKey.NO_SENSE, asc, information=0, stream=END_OF_MEDIUM, data=data)
    return data


def reports_early_warning(unit: TapeDrive) -> bool:
    """Whether who reads wants to be told of it too (REW)."""
    return bool(unit.mode.get(CONFIGURATION, "rew"))


def _next_block(tape: Tape, held: Parameters, left: int, data: Buffer = b"") -> bytes:
    """The next block; what is no block ends the command with `left` as INFORMATION, and `data` that was read before."""
    try:
        block = tape.read()
        if block is not None:
            return held.open(block)
    except EOFError:
        asc = Asc.END_OF_DATA_DETECTED
        raise CheckCondition(SenseKey.BLANK_CHECK, asc, information=left, data=data) from None
    except OSError as error:
        found = condition(error)
        if found is None:
            raise
        raise CheckCondition(found.key, found.asc, information=left, data=data) from error
    except CheckCondition as error:  # not to be seen by this host: the tape stands before it (SSC-5)
        tape.position -= 1
        raise CheckCondition(error.key, error.asc, information=left, data=data) from error
    asc = Asc.FILEMARK_DETECTED
    raise CheckCondition(SenseKey.NO_SENSE, asc, information=left, stream=FILEMARK, data=data)


def _read_variable(unit: TapeDrive, tape: Tape, held: Parameters, fields: dict[str, int]) -> Buffer:
    wanted = fields["length"]
    if not wanted:
        return b""
    block = _next_block(tape, held, wanted)
    excess = wanted - len(block)
    # SILI passes over blocks that are too short, and too long ones where no block length is set
    if excess and not (fields["sili"] and (excess > 0 or not unit.block_size)):
        raise _incorrect_length(excess, block[:wanted])
    return block[:wanted]


def _read_fixed(unit: TapeDrive, tape: Tape, held: Parameters, count: int) -> Buffer:
    data = bytearray()
    for number in range(count):
        block = _next_block(tape, held, count - number, data)
        if len(block) != unit.block_size:
            raise _incorrect_length(count - number, data)
        data += block
    return data


def _incorrect_length(information: int, data: Buffer) -> CheckCondition:
    asc = Asc.NO_ADDITIONAL_SENSE_INFORMATION
    return CheckCondition(SenseKey.NO_SENSE, asc, information=information, stream=INCORRECT_LENGTH, data=data)


def check_verify(unit: TapeDrive, task: Task) -> None:
    _check_length(unit, task, 1 << 40)


def verify(unit: TapeDrive, task: Task) -> Buffer:
    """Read blocks and compare them with their checksums."""
    tape, fields = loaded(unit), task.fields
    held = unit.encryption.of(task.nexus)
    if fields["fixed"]:
        for number in range(fields["length"]):
            if len(_next_block(tape, held, fields["length"] - number)) != unit.block_size:
                raise _incorrect_length(fields["length"] - number, b"")
    elif fields["length"]:
        excess = fields["length"] - len(_next_block(tape, held, fields["length"]))
        if excess:
            raise _incorrect_length(excess, b"")
    return b""


# ---- WRITE, WRITE FILEMARKS and ERASE


def check_write(unit: TapeDrive, task: Task) -> None:
    _check_length(unit, task, MAX_TRANSFER if task.fields["fixed"] else MAX_BLOCK)


def write(unit: TapeDrive, task: Task) -> Buffer:
    tape, length, data = loaded(unit), task.expected, memoryview(task.data_out)
    if len(data) < length:  # part of a block is no block
        raise CheckCondition(SenseKey.ABORTED_COMMAND, Asc.WRITE_ERROR_NOT_ENOUGH_UNSOLICITED_DATA)
    if not length:
        return b""
    check_overwrite(unit, tape)
    size = length // task.fields["length"]
    blocks = [data[at : at + size] for at in range(0, length, size)] if task.fields["fixed"] else [data[:length]]
    seal, before = unit.encryption.of(task.nexus).seal, tape.left()
    for number, block in enumerate(blocks):
        left = len(blocks) - number if task.fields["fixed"] else length
        if not tape.has_room(len(block) + (MAX_SEALING if seal else 0)):
            raise _full(left)
        try:
            tape.write(block, compress=unit.compression, seal=seal)
        except OSError as error:
            raise _failed(error, left) from error
        unit.counters.write_bytes += len(block)
    if not unit.buffered:
        tape.sync()
    if task.blocking and tape.partition.checkpoint_due:
        tape.partition.checkpoint()
    _warn(unit, tape, before)
    return b""


def _failed(error: OSError, left: int) -> CheckCondition | OSError:
    """An error of writing with how much was left to do. No space on the host is as good as the end of the cartridge."""
    found = condition(error)
    if found is None:
        return error
    if (found.key, found.asc) == _SPACE_IS_OUT:
        return _full(left)
    return CheckCondition(found.key, found.asc, information=left)


def _full(left: int) -> CheckCondition:
    asc = Asc.END_OF_PARTITION_MEDIUM_DETECTED
    return CheckCondition(SenseKey.VOLUME_OVERFLOW, asc, information=left, stream=END_OF_MEDIUM)


def before_warning(unit: TapeDrive, tape: Tape) -> int:
    """Bytes of records that can be written at the end of data before something is to be told."""
    left = tape.left() - tape.warning
    programmed = programmable_warning(unit)
    return left - programmed if left >= programmed else left


def _warn(unit: TapeDrive, tape: Tape, before: int) -> None:
    """What was written is written, but the end is near; where so many bytes had been left before.

    Early warning is told with each command; that programmable early warning begins, once (SSC-5).
    """
    left = tape.left()
    if left < tape.warning:
        if unit.mode.get(CONFIGURATION, "sew"):
            tape.sync()
        asc = Asc.END_OF_PARTITION_MEDIUM_DETECTED
        raise CheckCondition(SenseKey.NO_SENSE, asc, information=0, stream=END_OF_MEDIUM)
    programmed = programmable_warning(unit)
    if programmed and left < tape.warning + programmed <= before:
        asc = Asc.PROGRAMMABLE_EARLY_WARNING_DETECTED
        raise CheckCondition(SenseKey.NO_SENSE, asc, information=0, stream=END_OF_MEDIUM)


def check_overwrite(unit: TapeDrive, tape: Tape) -> None:
    """Raise CheckCondition where what is behind the position must not be written over."""
    if tape.position >= tape.partition.objects:
        return
    if tape.description.worm and not tape.only_filemarks_follow():
        raise CheckCondition(SenseKey.DATA_PROTECT, Asc.WORM_MEDIUM_OVERWRITE_ATTEMPTED)
    append_only = unit.mode.get(CONFIGURATION, "write_mode", EXTENSION) == APPEND_ONLY
    if append_only and tape.overwrite != (tape.number, tape.position):
        raise CheckCondition(SenseKey.DATA_PROTECT, Asc.WRITE_APPEND_ERROR)


def write_filemarks(unit: TapeDrive, task: Task) -> Buffer:
    """Filemarks, and with IMMED=0 everything before them on stable storage; of a count of 0 only the latter."""
    tape, count = loaded(unit), task.fields["count"]
    before = tape.left()
    if count:
        check_overwrite(unit, tape)
        if not tape.has_room_for_filemarks(count):
            raise _full(count)
    for number in range(count):
        try:
            tape.write_filemark()
        except OSError as error:
            raise _failed(error, count - number) from error
    if not task.fields["immed"]:
        tape.sync()
    if count:
        _warn(unit, tape, before)
    return b""


def erase(unit: TapeDrive, task: Task) -> Buffer:
    """Everything behind the position is gone, be it a long erase or an end-of-data mark."""
    tape = loaded(unit)
    check_overwrite(unit, tape)
    tape.erase()
    return b""


def allow_overwrite(unit: TapeDrive, task: Task) -> Buffer:
    """One command may write over what is behind a position, in append-only mode."""
    tape, fields = loaded(unit), task.fields
    place = fields["partition"], fields["identifier"]
    if fields["allow_overwrite"] == 0:
        tape.overwrite = None
    elif place != (tape.number, tape.position):
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.COMMAND_SEQUENCE_ERROR)
    else:
        tape.overwrite = place
    return b""


def check_allow_overwrite(unit: TapeDrive, task: Task) -> None:
    if task.fields["allow_overwrite"] > 1:
        raise invalid_field(2, 3)
