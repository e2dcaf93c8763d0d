"""Commands of block devices (SBC-4).

The standards of T10 are cited by name and title: their clause numbers change from draft to draft.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from blockyard.block.device import Run
from blockyard.scsi import limits, medium, protection
from blockyard.scsi.sense import (
    Asc,
    CheckCondition,
    SenseKey,
    invalid_parameter,
    parameter_list_length_error,
)

if TYPE_CHECKING:
    from blockyard.scsi.cdb import Command
    from blockyard.scsi.task import Buffer, Task
    from blockyard.scsi.unit import LogicalUnit

BYTCHK_NONE, BYTCHK_ALL, BYTCHK_ONE = 0, 1, 3


# ---- how much Data-Out a CDB asks for


def blocks(fields: dict[str, int], block_size: int) -> int:
    return fields["count"] * (block_size + protection.interval(fields, "wrprotect"))


def twice_blocks(fields: dict[str, int], block_size: int) -> int:
    return 2 * blocks(fields, block_size)


def verify_blocks(fields: dict[str, int], block_size: int) -> int:
    length = block_size + protection.interval(fields, "vrprotect")
    if fields["bytchk"] == BYTCHK_ALL:
        return fields["count"] * length
    return length if fields["bytchk"] == BYTCHK_ONE and fields["count"] else 0


def one_block(fields: dict[str, int], block_size: int) -> int:
    return 0 if fields.get("ndob") else block_size + protection.interval(fields, "wrprotect")


def or_blocks(fields: dict[str, int], block_size: int) -> int:
    return fields["count"] * (block_size + protection.interval(fields, "orprotect"))


def parameter_list(fields: dict[str, int], block_size: int) -> int:
    return fields["parameter_list_length"]


def _out_of_range() -> CheckCondition:
    return CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE)


def _miscompare(offset: int) -> CheckCondition:
    """MISCOMPARE with the offset of the first byte that differs in the Data-Out (SBC-4)."""
    return CheckCondition(SenseKey.MISCOMPARE, Asc.MISCOMPARE_DURING_VERIFY_OPERATION, information=offset)


def first_difference(a: Buffer, b: Buffer) -> int:
    """Where two buffers of one length differ first; their length when they do not."""
    if a == b:
        return len(a)
    left, right = memoryview(a), memoryview(b)
    start, length = 0, len(a)
    while length > 1:  # compare halves: as fast as memcmp, where a loop over bytes is not
        half = length // 2
        if left[start : start + half] == right[start : start + half]:
            start += half
            length -= half
        else:
            length = half
    return start


def _command(task: Task) -> Command:
    assert task.command is not None
    return task.command


# ---- READ CAPACITY


def read_capacity_10(unit: LogicalUnit, task: Task) -> Buffer:
    return struct.pack(">II", min(unit.blocks - 1, 0xFFFFFFFF), unit.block_size)


def read_capacity_16(unit: LogicalUnit, task: Task) -> Buffer:
    provisioning = 0xC000 if unit.thin else 0  # LBPME, LBPRZ; LOWEST ALIGNED LOGICAL BLOCK ADDRESS 0
    kind = unit.protection.kind if unit.protection is not None else 0
    protected = kind - 1 << 1 | 1 if kind else 0  # P_TYPE, PROT_EN; P_I_EXPONENT 0: one for each logical block
    return struct.pack(">QIBBH16x", unit.blocks - 1, unit.block_size, protected, unit.physical_exponent, provisioning)


# ---- READ and WRITE


def check_read(unit: LogicalUnit, task: Task) -> None:
    task.blocking = not unit.may_inline_read(task)


def read(unit: LogicalUnit, task: Task) -> Buffer:
    fields = task.fields
    if fields.get("fua") and not unit.read_only:
        unit.device.flush()  # what the cache has and the medium has not goes there first (SBC-4, FUA bit)
    if unit.protection is not None and unit.protection.kind:
        data, information = protection.read(unit, task, fields["lba"], fields["count"])
        return protection.transmitted(unit, task, data, information)
    return medium.read(unit, fields["lba"] << unit.shift, fields["count"] << unit.shift)


def check_write(unit: LogicalUnit, task: Task) -> None:
    task.blocking = not unit.may_inline_write(task)
    if task.data_out_length < task.expected and task.data_out_length % unit.block_size:
        task.exclusive = True  # the last block is read, changed in part, and written


def write(unit: LogicalUnit, task: Task) -> Buffer:
    _write_received(unit, task, stable=task.fields.get("fua", 0))
    return b""


def _write_received(unit: LogicalUnit, task: Task, *, stable: int) -> int:
    """Write what the initiator has sent, which may be less than the CDB says. Returns how much that was.

    The transport reports the difference as a residual. Of a block that came in part the rest stays as it is.
    """
    data, information = protection.received(unit, task, task.data_out)
    offset = task.fields["lba"] << unit.shift
    length = len(data)
    if not length:
        return 0
    rest = length % unit.block_size
    if rest:
        last = medium.read(unit, offset + length - rest, unit.block_size)
        data = bytes(data) + last[rest:]
    medium.write(unit, data, offset, stable=stable, information=information)
    return length


# ---- VERIFY, WRITE AND VERIFY


def check_verify(unit: LogicalUnit, task: Task) -> None:
    if task.fields["bytchk"] not in (BYTCHK_NONE, BYTCHK_ALL, BYTCHK_ONE):
        raise _command(task).invalid("bytchk")


def verify(unit: LogicalUnit, task: Task) -> Buffer:
    fields = task.fields
    if fields["bytchk"] == BYTCHK_ALL:
        _compare(unit, task, task.data_out)
        return b""
    data, _ = protection.received(unit, task, task.data_out)
    pattern = bytes(data) if fields["bytchk"] == BYTCHK_ONE else b""
    for at in range(0, fields["count"] << unit.shift, limits.PIECE):
        length = min(limits.PIECE, (fields["count"] << unit.shift) - at)
        data = _read_for(unit, task, fields["lba"] + (at >> unit.shift), length)
        if pattern and data != pattern * (length // len(pattern)):
            for block in range(0, length, unit.block_size):
                if (offset := first_difference(data[block : block + len(pattern)], pattern)) < len(pattern):
                    raise _miscompare(offset)
    return b""


def _read_for(unit: LogicalUnit, task: Task, lba: int, length: int) -> bytearray:
    """Read from `lba` on, with the checks of protection information that the task asks for."""
    if unit.protection is not None and unit.protection.kind:
        return protection.read(unit, task, lba, length >> unit.shift)[0]
    return medium.read(unit, lba << unit.shift, length)


def _compare(unit: LogicalUnit, task: Task, sent: Buffer) -> None:
    """Compare the medium from the task's LBA on with what was sent, which may end inside a block."""
    step = unit.block_size + protection.interval(task.fields, _command(task).protect)
    if step != unit.block_size:
        protection.received(unit, task, sent)  # for its checks
    view, blocks_at_once = memoryview(sent), limits.PIECE // unit.block_size
    for number in range(0, -(-len(view) // step), blocks_at_once):
        lba = task.fields["lba"] + number
        piece = view[number * step : (number + blocks_at_once) * step]
        if step != unit.block_size:
            data: Buffer = protection.comparable(unit, task, lba, piece)
        else:
            length = len(piece) + -len(piece) % unit.block_size
            data = memoryview(_read_for(unit, task, lba, length))[: len(piece)]
        if (offset := first_difference(data, piece)) < len(piece):
            raise _miscompare(number * step + offset)


def check_write_and_verify(unit: LogicalUnit, task: Task) -> None:
    if task.fields["bytchk"] not in (BYTCHK_NONE, BYTCHK_ALL):
        raise _command(task).invalid("bytchk")
    check_write(unit, task)
    task.blocking = True


def write_and_verify(unit: LogicalUnit, task: Task) -> Buffer:
    length = _write_received(unit, task, stable=1)
    if task.fields["bytchk"] == BYTCHK_ALL:
        _compare(unit, task, task.data_out)
    elif length:
        _read_for(unit, task, task.fields["lba"], length + -length % unit.block_size)
    return b""


# ---- COMPARE AND WRITE


def check_compare_and_write(unit: LogicalUnit, task: Task) -> None:
    if task.data_out_length != task.expected:  # half of what is there cannot be compared with half of what is not
        raise _command(task).invalid("count")


def compare_and_write(unit: LogicalUnit, task: Task) -> Buffer:
    fields = task.fields
    if not fields["count"]:
        return b""
    view = memoryview(task.data_out)
    half = len(view) // 2
    data, information = protection.received(unit, task, view[half:])
    if unit.device.compares and information is None:
        difference = unit.device.compare_and_write(view[:half], data, fields["lba"] << unit.shift)
        if difference is not None:
            raise _miscompare(difference)
        if fields["fua"] or not unit.write_back:
            unit.device.flush()
        return b""
    _compare(unit, task, view[:half])
    medium.write(unit, data, fields["lba"] << unit.shift, stable=fields["fua"], information=information)
    return b""


# ---- SYNCHRONIZE CACHE, PRE-FETCH


def synchronize_cache(unit: LogicalUnit, task: Task) -> Buffer:
    """All of the cache, whatever the range; with IMMED the status comes after it as well, which no initiator minds."""
    if not unit.read_only:
        unit.device.flush()
    return b""


def pre_fetch(unit: LogicalUnit, task: Task) -> Buffer:
    """GOOD and never CONDITION MET, which would say that all of the range is in the cache: the page cache promises nothing."""
    fields = task.fields
    count = fields["count"] or unit.blocks - fields["lba"]
    unit.device.prefetch(fields["lba"] << unit.shift, count << unit.shift)
    return b""


# ---- WRITE SAME


def check_write_same(unit: LogicalUnit, task: Task) -> None:
    fields = task.fields
    if fields["unmap"] and not unit.thin:
        raise _command(task).invalid("unmap")
    if not fields["count"]:
        if unit.thin:  # 0 blocks are all up to the end, and a slip would free them: WSNZ=1
            raise _command(task).invalid("count")
        fields["count"] = unit.blocks - fields["lba"]
    if fields["count"] > limits.WRITE_SAME_BLOCKS:
        raise _command(task).invalid("count")
    if task.data_out_length != task.expected:
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT)


def write_same(unit: LogicalUnit, task: Task) -> Buffer:
    fields = task.fields
    offset, length = fields["lba"] << unit.shift, fields["count"] << unit.shift
    data, information = protection.received(unit, task, task.data_out)
    block = bytes(data)
    device = unit.device
    if information is not None and not fields["unmap"]:
        _repeat_protected(unit, block, information, fields["lba"], fields["count"])
    elif block and block.count(0) != len(block):  # UNMAP or not: what reads as something else has to be written
        device.write_same(block, offset, length)
    elif fields["unmap"]:
        device.discard(offset, length)
    else:
        device.write_zeroes(offset, length)
    if not unit.write_back:
        device.flush()
    return b""


def _repeat_protected(unit: LogicalUnit, block: bytes, information: bytes, lba: int, count: int) -> None:
    """Write a block with its protection information `count` times; the reference tag counts."""
    assert unit.protection is not None
    step = limits.PIECE // len(block)
    for at in range(0, count, step):
        number = min(step, count - at)
        several = protection.repeated(unit, information, number, at)
        unit.protection.write_blocks(lba + at, block * number, several)


# ---- UNMAP


def unmap(unit: LogicalUnit, task: Task) -> Buffer:
    for lba, count in unmap_descriptors(unit, bytes(task.data_out)):
        if count:
            unit.device.discard(lba << unit.shift, count << unit.shift)
    if not unit.write_back:
        unit.device.flush()
    return b""


def check_unmap(unit: LogicalUnit, task: Task) -> None:
    if 0 < task.expected < 8 or task.data_out_length < task.expected:
        raise parameter_list_length_error()


def unmap_descriptors(unit: LogicalUnit, data: bytes) -> list[tuple[int, int]]:
    """LBA and number of blocks of each UNMAP block descriptor, all checked before anything is done."""
    if not data:
        return []
    length = int.from_bytes(data[2:4], "big")
    number = min(length, len(data) - 8) // 16  # one that is cut short is ignored (SBC-4)
    if number > limits.UNMAP_DESCRIPTORS:
        raise invalid_parameter(2)
    descriptors = [struct.unpack_from(">QI", data, 8 + 16 * index) for index in range(number)]
    if any(lba + count > unit.blocks for lba, count in descriptors):
        raise _out_of_range()
    if sum(count for _, count in descriptors) > limits.UNMAP_BLOCKS:
        raise invalid_parameter(8)
    return descriptors


# ---- GET LBA STATUS

_MAPPED, _DEALLOCATED = 0, 1  # PROVISIONING STATUS
_MAX_RUN = 0xFFFFFFFF  # blocks that one descriptor can count


def check_get_lba_status(unit: LogicalUnit, task: Task) -> None:
    if task.fields["lba"] >= unit.blocks:
        raise _out_of_range()


def get_lba_status(unit: LogicalUnit, task: Task) -> Buffer:
    room = max(1, min((task.fields["allocation_length"] - 8) // 16, limits.LBA_STATUS_DESCRIPTORS))
    descriptors = islice(_block_runs(unit, task.fields["lba"]), room)
    body = b"".join(struct.pack(">QIB3x", *descriptor) for descriptor in descriptors)
    return struct.pack(">I4x", 4 + len(body)) + body


def _block_runs(unit: LogicalUnit, lba: int) -> Iterator[tuple[int, int, int]]:
    """Runs of blocks from `lba` on, as (LBA, number of blocks, PROVISIONING STATUS).

    A block that is mapped in part counts as mapped; so does everything where nothing can be unmapped.
    """
    start, status, at = lba, _MAPPED, lba
    for run in _device_runs(unit, lba << unit.shift):
        end = run.offset + run.length
        end_lba = (end + unit.block_size - 1) >> unit.shift if run.mapped else end >> unit.shift
        run_status = _MAPPED if run.mapped else _DEALLOCATED
        if end_lba <= at:
            continue
        if run_status != status and at > start:
            yield from _descriptors(start, at, status)
            start = at
        status, at = run_status, end_lba
    yield from _descriptors(start, at, status)


def _device_runs(unit: LogicalUnit, offset: int) -> Iterable[Run]:
    length = (unit.blocks << unit.shift) - offset
    return unit.device.runs(offset, length) if unit.thin else (Run(offset, length, True),)


def _descriptors(start: int, end: int, status: int) -> Iterator[tuple[int, int, int]]:
    for lba in range(start, end, _MAX_RUN):
        yield lba, min(end - lba, _MAX_RUN), status
