"""Protection information as commands ask for it: RDPROTECT, WRPROTECT, VRPROTECT, ORPROTECT (SBC-4, protection information).

A command with such a field other than 000b moves eight bytes more with each block: what a read returns has them, what a
write brings is checked by them and stored with them. The field says too what is checked. With 000b they stay on this
side: made for what is written, checked in what is read, unless DPICZ says not to.

Type 1 has the low four bytes of the LBA in the reference tag. Type 2 has what the initiator says in its 32-byte CDB: those are
for type 2 alone, and type 2 moves protection information by those alone. Type 3 has a reference tag that nobody checks.
Application tags are compared with those of a 32-byte CDB where ATO says that they are the initiator's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard.block.information import LENGTH, FileStore, MemoryStore
from blockyard.block.protected import NO_CHECKS, Checks, ProtectedDevice, ProtectionError, join, split
from blockyard.scsi import medium
from blockyard.scsi.sense import Asc, CheckCondition, FieldPointer, ReadFailure, SenseKey

if TYPE_CHECKING:
    from blockyard.block.device import Device
    from blockyard.scsi.cdb import Command
    from blockyard.scsi.durable import Durable
    from blockyard.scsi.task import Buffer, Task
    from blockyard.scsi.unit import LogicalUnit

# By the field: whether the guard is checked, the application tag, the reference tag (SBC-4, RDPROTECT field and the others)
_CHECKED = {
    0b000: (True, True, True),
    0b001: (True, True, True),
    0b010: (False, True, True),
    0b011: (False, False, False),
    0b100: (True, False, False),
    0b101: (True, True, True),
}
_FORMAT, _OPEN_REGIONS = "protection-type", "protection-open"  # durable documents
SUPPORTED_TYPES = 0b111  # SPT (SPC-5, VPD page 86h): types 1, 2 and 3


def interval(fields: dict[str, int], name: str) -> int:
    """Bytes that follow each block of a command's data."""
    return LENGTH if fields.get(name) else 0


def check(unit: LogicalUnit, task: Task, command: Command) -> None:
    """Refuse a field that asks for what there is not."""
    if command.length == 32 and task.fields["additional_cdb_length"] != 32 - 8:
        raise command.invalid("additional_cdb_length")
    value = task.fields.get(command.protect, 0)
    if not value:
        return
    kind = unit.protection.kind if unit.protection is not None else 0
    if kind == 2 and command.length != 32:
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.INVALID_COMMAND_OPERATION_CODE, pointer=FieldPointer(0))
    if not kind or value not in _CHECKED:
        raise command.invalid(command.protect)
    if task.data_out_length < task.expected:  # part of a block has no protection information
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT)


def open_device(device: Device, durable: Durable, *, block_size: int, kind: int) -> ProtectedDevice:
    """`device` with protection information of the type that it was last formatted with; at first, type `kind`."""
    path = durable.file("protection")
    document = durable.load(_FORMAT)
    return ProtectedDevice(
        device,
        MemoryStore() if path is None else FileStore(path, read_only=device.read_only),
        block_size=block_size,
        kind=kind if document is None else document["type"],
        note=lambda regions: durable.save(_OPEN_REGIONS, regions),
        left_open=durable.load(_OPEN_REGIONS) or (),
    )


def change_type(unit: LogicalUnit, kind: int) -> None:
    """The medium has been formatted with protection information of another type."""
    _protected(unit).kind = kind
    unit.durable.save(_FORMAT, {"type": kind})


def _protected(unit: LogicalUnit) -> ProtectedDevice:
    assert unit.protection is not None
    return unit.protection


def checks(unit: LogicalUnit, task: Task, lba: int) -> Checks:
    """What a task has checked of blocks from `lba` on."""
    assert task.command is not None
    fields = task.fields
    value = fields.get(task.command.protect, 0)
    if not value and unit.mode.get(0x0A, "dpicz"):
        return NO_CHECKS
    guard, application, reference = _CHECKED[value]
    kind, own = _protected(unit).kind, task.command.length == 32
    expected: int | None = None
    if reference and kind == 1:
        expected = lba & 0xFFFFFFFF
    elif reference and kind == 2 and own:
        expected = fields["expected_initial_logical_block_reference_tag"] + lba - fields["lba"]
    tag: tuple[int, int] | None = None
    if application and own and unit.mode.get(0x0A, "ato"):
        mask = fields["logical_block_application_tag_mask"]
        tag = fields["expected_logical_block_application_tag"], mask
    return Checks(guard, tag, expected)


def read(unit: LogicalUnit, task: Task, lba: int, count: int) -> tuple[bytearray, bytes]:
    """Blocks and their protection information, checked as the task says."""
    blocks: list[tuple[bytearray, bytes]] = []

    def attempt(start: int, size: int) -> None:
        first = start >> unit.shift
        blocks.append(_protected(unit).read_blocks(first, size >> unit.shift, checks(unit, task, first)))

    medium.access(ReadFailure, unit, attempt, lba << unit.shift, count << unit.shift)
    return blocks[0]


def received(unit: LogicalUnit, task: Task, sent: Buffer) -> tuple[Buffer, bytes | None]:
    """What an initiator has sent, as data and protection information, which is checked; None where it sent none."""
    assert task.command is not None
    if not interval(task.fields, task.command.protect):
        return sent, None
    data, information = split(sent, unit.block_size)
    lba = task.fields["lba"]
    try:
        _protected(unit).check(data, information, lba, checks(unit, task, lba))
    except ProtectionError as error:
        raise medium.failed_check(error) from None  # the initiator's doing: nothing to log
    return data, information


def comparable(unit: LogicalUnit, task: Task, lba: int, sent: Buffer) -> bytes:
    """The medium from `lba` on as it would have to be sent: application tags count where ATO says that they are the initiator's.

    So do reference tags of type 3, which nobody checks (SBC-4, VERIFY with BYTCHK 01b).
    """
    size = unit.block_size
    data, own = read(unit, task, lba, len(sent) // (size + LENGTH))
    if not unit.mode.get(0x0A, "ato"):
        _, theirs = split(sent, size)
        end = 8 if _protected(unit).kind == 3 else 4
        own = b"".join(
            own[at : at + 2] + theirs[at + 2 : at + end] + own[at + end : at + LENGTH]
            for at in range(0, len(own), LENGTH)
        )
    return join(data, own, size)


def transmitted(unit: LogicalUnit, task: Task, data: Buffer, information: bytes) -> Buffer:
    """Blocks as a read returns them."""
    assert task.command is not None
    return join(data, information, unit.block_size) if interval(task.fields, task.command.protect) else data


def repeated(unit: LogicalUnit, information: bytes, count: int, first: int) -> bytes:
    """The protection information of `count` blocks that WRITE SAME writes, the `first` and on: with counting reference tags.

    Those of type 3 do not count (SBC-4, WRITE SAME).
    """
    if _protected(unit).kind == 3:
        return information * count
    head, reference = information[:4], int.from_bytes(information[4:8], "big") + first
    return b"".join(head + ((reference + index) & 0xFFFFFFFF).to_bytes(4, "big") for index in range(count))
