"""Protection information as initiators see it: what is transferred, checked, stored and reported."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockyard.block.file import FileDevice, create
from blockyard.scsi.durable import Durable
from blockyard.scsi.sense import Asc, SenseKey
from tests.block.test_protected import naive_guard
from tests.scsi.host import (
    UUID_1,
    Host,
    compare_and_write,
    disk,
    inquiry,
    memory,
    mode_select_6,
    mode_sense_6,
    parse_sense,
    read_16,
    supported_opcodes,
    synchronize_cache_16,
    unmap,
    unmap_list,
    verify_16,
    write_16,
    write_same_16,
)
from tests.scsi.test_atomic import orwrite, write_atomic
from tests.scsi.test_format import FMTDATA, _header, format_unit
from tests.scsi.test_sanitize import BLOCK_ERASE, OVERWRITE, pattern_list, sanitize

GUARD = Asc.LOGICAL_BLOCK_GUARD_CHECK_FAILED
APPLICATION = Asc.LOGICAL_BLOCK_APPLICATION_TAG_CHECK_FAILED
REFERENCE = Asc.LOGICAL_BLOCK_REFERENCE_TAG_CHECK_FAILED
FREE = b"\xff" * 8
READ_32, VERIFY_32, WRITE_32, WRITE_AND_VERIFY_32, WRITE_SAME_32 = 0x09, 0x0A, 0x0B, 0x0C, 0x0D


def protected(kind: int = 1, *, block_size: int = 512) -> Host:
    return memory(protection=kind, block_size=block_size)


def information(block: bytes, reference: int, *, tag: int = 0, guard: int | None = None) -> bytes:
    return struct.pack(">HHI", naive_guard(block) if guard is None else guard, tag, reference & 0xFFFFFFFF)


def image(data: bytes, reference: int, *, step: int = 1, tag: int = 0) -> bytes:
    """Blocks with their protection information."""
    blocks = [data[at : at + 512] for at in range(0, len(data), 512)]
    return b"".join(block + information(block, reference + n * step, tag=tag) for n, block in enumerate(blocks))


def long(
    action: int,
    lba: int,
    count: int,
    *,
    protect: int = 1,
    flags: int = 0,
    reference: int = 0,
    tag: int = 0,
    mask: int = 0,
) -> bytes:
    head = struct.pack(">B6xBHBx", 0x7F, 24, action, protect << 5 | flags)
    return head + struct.pack(">QIHHI", lba, reference, tag, mask, count)


def refused(host: Host, cdb: bytes, asc: Asc, lba: int, data: bytes = b"") -> None:
    sense = host.fail(cdb, SenseKey.ABORTED_COMMAND, asc, data)
    assert sense.information == lba


# ---- what is said of it


@pytest.mark.parametrize(("kind", "byte"), [(1, 0x01), (2, 0x03), (3, 0x05)])
def test_it_is_announced(kind: int, byte: int) -> None:
    host = protected(kind)
    assert host.ok(inquiry())[5] & 1
    assert host.ok(inquiry(0x86))[4] == 0x3F  # types 1 to 3; guard, application and reference tags are checked
    assert host.ok(struct.pack(">BB8xIxx", 0x9E, 0x10, 32))[12] == byte
    assert not host.disk.fast_read


def test_units_without_it() -> None:
    host = memory()
    assert not host.ok(inquiry())[5] & 1
    assert host.ok(inquiry(0x86))[4] == 0
    for value in range(1, 8):
        host.invalid(read_16(0, 1, value << 5), 1, 7)
        host.invalid(write_16(0, 1, value << 5), 1, 7, bytes(520))
        host.invalid(verify_16(0, 1, value << 4), 1, 7)
    assert host.ok(supported_opcodes(1, 0x88))[4 + 1] == 0x18
    assert protected().ok(supported_opcodes(1, 0x88))[4 + 1] == 0xF8


def test_32_byte_commands_exist_for_type_2_only() -> None:
    for action in (READ_32, VERIFY_32, WRITE_32, WRITE_AND_VERIFY_32, WRITE_SAME_32):
        for kind in (0, 1, 3):
            host = memory(protection=kind)
            host.fail(long(action, 0, 0), SenseKey.ILLEGAL_REQUEST, Asc.INVALID_COMMAND_OPERATION_CODE)
            assert host.ok(supported_opcodes(2, 0x7F, action))[1] == 1
        assert protected(2).ok(supported_opcodes(2, 0x7F, action))[1] == 3
    host = protected(2)
    host.fail(read_16(0, 1, 0x20), SenseKey.ILLEGAL_REQUEST, Asc.INVALID_COMMAND_OPERATION_CODE)
    host.invalid(long(READ_32, 0, 1)[:7] + b"\x10" + long(READ_32, 0, 1)[8:], 7, 7)


# ---- reading and writing


@pytest.mark.parametrize("kind", [1, 3])
@pytest.mark.parametrize("protect", [1, 2, 3, 4, 5])
def test_what_is_written_is_read(kind: int, protect: int) -> None:
    host = protected(kind)
    sent = image(os.urandom(2048), 5, tag=0x1234)
    host.ok(write_16(5, 4, protect << 5), sent)
    assert host.ok(read_16(5, 4, protect << 5)) == sent
    assert host.read(5, 4) == b"".join(sent[at : at + 512] for at in range(0, len(sent), 520))


def test_without_protection_in_the_cdb_it_is_made() -> None:
    host = protected()
    data = os.urandom(1024)
    host.write(9, data)
    assert host.ok(read_16(9, 2, 0x20)) == image(data, 9)


@pytest.mark.parametrize(
    ("kind", "protect", "guard", "reference"),
    [
        (1, 1, True, True), (1, 2, False, True), (1, 3, False, False), (1, 4, True, False), (1, 5, True, True),
        (3, 1, True, False), (3, 2, False, False), (3, 3, False, False), (3, 4, True, False), (3, 5, True, False),
    ],
)  # fmt: skip
def test_what_is_checked(kind: int, protect: int, guard: bool, reference: bool) -> None:
    host = protected(kind)
    block = os.urandom(512)
    good, flags = image(block, 7), protect << 5
    wrong_guard = block + information(block, 8, guard=naive_guard(block) ^ 1)
    wrong_reference = block + information(block, 9)
    for bad, asc, matters in ((wrong_guard, GUARD, guard), (wrong_reference, REFERENCE, reference)):
        host.ok(write_16(7, 2, 0x60), good + image(block, 8))
        if matters:
            refused(host, write_16(7, 2, flags), asc, 8, good + bad)
            assert host.ok(read_16(7, 2, 0x60)) == good + image(block, 8)  # nothing was written
        else:
            host.ok(write_16(7, 2, flags), good + bad)
        host.ok(write_16(7, 2, 0x60), good + bad)  # unchecked
        for cdb in (read_16(7, 2, flags), verify_16(7, 2, protect << 4)):
            if matters:
                refused(host, cdb, asc, 8)
            else:
                host.ok(cdb)


def test_a_read_without_protection_in_its_cdb_is_checked_unless_dpicz() -> None:
    host = protected()
    host.ok(write_16(3, 1, 0x60), bytes(512) + information(bytes(512), 3, guard=7))
    refused(host, read_16(3, 1), GUARD, 3)
    control = bytearray(host.ok(mode_sense_6(0x0A, dbd=True))[4:])
    control[2] |= 0x08
    host.ok(mode_select_6(4 + len(control)), bytes(4) + bytes(control))
    assert host.read(3, 1) == bytes(512)
    refused(host, read_16(3, 1, 0x20), GUARD, 3)


@pytest.mark.parametrize("protect", [6, 7])
def test_reserved_codes(protect: int) -> None:
    host = protected()
    host.invalid(read_16(0, 1, protect << 5), 1, 7)
    host.invalid(write_16(0, 1, protect << 5), 1, 7, bytes(520))


def test_less_data_than_the_cdb_asks_for() -> None:
    part = Asc.INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT
    protected().fail(write_16(0, 2, 0x20), SenseKey.ILLEGAL_REQUEST, part, bytes(520))
    host = protected()
    host.write(0, b"a" * 512)
    host.ok(write_16(0, 1), b"b" * 100)
    assert host.read(0, 1) == b"b" * 100 + b"a" * 412


def test_blocks_of_4096() -> None:
    host = protected(block_size=4096)
    block = os.urandom(4096)
    host.write(2, block)
    assert host.ok(read_16(2, 1, 0x20)) == block + information(block, 2)


# ---- type 2


def test_type_2_has_the_tags_of_its_cdb() -> None:
    host = protected(2)
    data = os.urandom(1024)
    sent = image(data, 0xFFFFFFFF, tag=0xA5A5)
    host.ok(long(WRITE_32, 4, 2, reference=0xFFFFFFFF), sent)  # the reference tag wraps
    assert host.ok(long(READ_32, 4, 2, reference=0xFFFFFFFF)) == sent
    assert host.ok(long(READ_32, 5, 1)) == sent[520:]
    refused(host, long(READ_32, 4, 2, reference=7), REFERENCE, 4)
    refused(host, long(WRITE_32, 4, 2, reference=7), REFERENCE, 4, sent)
    assert host.read(4, 2) == data  # 16-byte commands know no reference tag
    assert host.ok(long(READ_32, 4, 2, protect=0, reference=0xFFFFFFFF)) == data
    refused(host, long(READ_32, 4, 2, protect=0, reference=3), REFERENCE, 4)


def test_plain_writes_of_type_2_are_not_protected() -> None:
    host = protected(2)
    host.write(4, b"x" * 512)
    assert host.ok(long(READ_32, 4, 1, reference=99))[:512] == b"x" * 512


def test_application_tags_are_checked_where_they_are_the_initiators() -> None:
    host = protected(2)
    sent = image(bytes(512), 1, tag=0x1234)
    host.ok(long(WRITE_32, 4, 1, reference=1, tag=0x9999, mask=0xFFFF), sent)  # ATO=0: no matter
    control = bytearray(host.ok(mode_sense_6(0x0A, dbd=True))[4:])
    control[5] |= 0x80
    host.ok(mode_select_6(4 + len(control)), bytes(4) + bytes(control))
    refused(host, long(WRITE_32, 4, 1, reference=1, tag=0x9999, mask=0xFFFF), APPLICATION, 4, sent)
    refused(host, long(READ_32, 4, 1, reference=1, tag=0x1334, mask=0x0F00), APPLICATION, 4)
    assert host.ok(long(READ_32, 4, 1, reference=1, tag=0x9934, mask=0x00FF)) == sent


def test_the_other_commands_of_32_bytes() -> None:
    host = protected(2)
    block = os.urandom(512)
    host.ok(long(WRITE_SAME_32, 4, 3, reference=50), image(block, 50))
    assert host.ok(long(READ_32, 4, 3, reference=50)) == image(block * 3, 50)
    host.ok(long(VERIFY_32, 4, 3, reference=50))
    refused(host, long(VERIFY_32, 4, 3, reference=51), REFERENCE, 4)
    host.ok(long(VERIFY_32, 4, 3, flags=2, reference=50), image(block * 3, 50))
    host.ok(long(WRITE_AND_VERIFY_32, 9, 2, flags=2, reference=7), image(block * 2, 7))
    assert host.ok(long(READ_32, 9, 2, reference=7)) == image(block * 2, 7)


# ---- other commands


@pytest.mark.parametrize(("kind", "changed"), [(1, (514,)), (3, (514, 517))])
def test_verify_compares_tags_that_are_the_initiators(kind: int, changed: tuple[int, ...]) -> None:
    host = protected(kind)
    sent = image(os.urandom(1024), 2, tag=5)
    host.ok(write_16(2, 2, 0x20), sent)
    for at in changed:
        other = bytearray(sent)
        other[520 + at] ^= 1
        host.ok(verify_16(2, 2, 1 | 1 << 4), bytes(other))
    control = bytearray(host.ok(mode_sense_6(0x0A, dbd=True))[4:])
    control[5] |= 0x80  # ATO
    host.ok(mode_select_6(4 + len(control)), bytes(4) + bytes(control))
    host.ok(verify_16(2, 2, 1 | 1 << 4), sent)
    for at in changed:
        other = bytearray(sent)
        other[520 + at] ^= 1
        sense = host.fail(
            verify_16(2, 2, 1 | 1 << 4), SenseKey.MISCOMPARE, Asc.MISCOMPARE_DURING_VERIFY_OPERATION, bytes(other)
        )
        assert sense.information == 520 + at


def test_verify_compares() -> None:
    host = protected()
    data = os.urandom(1024)
    host.write(2, data)
    host.ok(verify_16(2, 2, 1 | 1 << 4), image(data, 2))
    host.ok(verify_16(2, 2, 1), data)
    host.fail(
        verify_16(2, 2, 1 | 1 << 4), SenseKey.MISCOMPARE, Asc.MISCOMPARE_DURING_VERIFY_OPERATION, image(bytes(1024), 2)
    )
    refused(host, verify_16(2, 2, 1 | 1 << 4), REFERENCE, 2, image(data, 3))
    host.ok(verify_16(2, 1, 3 | 1 << 4), image(data[:512], 2))


@pytest.mark.parametrize(("kind", "step"), [(1, 1), (3, 0)])
def test_write_same(kind: int, step: int) -> None:
    host = protected(kind)
    block = os.urandom(512)
    cdb = write_same_16(3, 2000)
    host.ok(cdb[:1] + b"\x20" + cdb[2:], image(block, 3))
    assert host.ok(read_16(3, 2000, 0x20)) == image(block * 2000, 3, step=step)
    host.ok(write_same_16(3, 8, ndob=True))
    assert host.read(3, 8) == bytes(4096)
    host.ok(write_same_16(8, 8, unmap=True), bytes(512))
    assert host.ok(read_16(8, 1, 0x20)) == bytes(512) + FREE


def test_unmap() -> None:
    host = protected()
    host.write(8, b"x" * 4096)
    data = unmap_list((8, 8))
    host.ok(unmap(len(data)), data)
    assert host.ok(read_16(8, 8, 0x20)) == (bytes(512) + FREE) * 8


def test_compare_and_write() -> None:
    host = protected()
    old, new = b"old." * 128, b"new." * 128  # whose guards differ
    host.write(6, old)
    refused(host, compare_and_write(6, 1, 0x20), GUARD, 6, image(old, 6) + new + information(old, 6))
    host.ok(compare_and_write(6, 1, 0x20), image(old, 6) + image(new, 6, tag=9))
    assert host.ok(read_16(6, 1, 0x20)) == image(new, 6, tag=9)
    host.fail(
        compare_and_write(6, 1, 0x20),
        SenseKey.MISCOMPARE,
        Asc.MISCOMPARE_DURING_VERIFY_OPERATION,
        image(old, 6) + image(new, 6),
    )
    host.ok(compare_and_write(6, 1), new + old)


def test_orwrite() -> None:
    host = protected()
    one, other = os.urandom(512), os.urandom(512)
    both = bytes(a | b for a, b in zip(one, other, strict=True))
    host.write(6, one)
    host.ok(orwrite(6, 1, 0x20), image(other, 6, tag=3))
    assert host.ok(read_16(6, 1, 0x20)) == image(both, 6, tag=3)
    host.ok(orwrite(6, 1), b"\xff" * 512)
    assert host.ok(read_16(6, 1, 0x20)) == image(b"\xff" * 512, 6)


def test_write_atomic(tmp_path: Path) -> None:
    create(tmp_path / "disk.img", 1 << 20)
    host = disk(FileDevice(tmp_path / "disk.img"), protection=1, durable=Durable(tmp_path / "units", UUID_1))
    data = os.urandom(4096)
    host.ok(write_atomic(8, 8, flags=0x20), image(data, 8, tag=7))
    assert host.ok(read_16(8, 8, 0x20)) == image(data, 8, tag=7)
    host.ok(write_atomic(8, 8), data)
    assert host.ok(read_16(8, 8, 0x20)) == image(data, 8)
    host.disk.close()
    again = disk(FileDevice(tmp_path / "disk.img"), protection=1, durable=Durable(tmp_path / "units", UUID_1))
    assert again.ok(read_16(8, 8, 0x20)) == image(data, 8)


def test_an_atomic_write_comes_back_with_its_protection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create(tmp_path / "disk.img", 1 << 20)
    durable = Durable(tmp_path / "units", UUID_1)
    device = FileDevice(tmp_path / "disk.img")
    host = disk(device, protection=1, durable=durable)
    data = os.urandom(4096)
    protection = host.disk.protection
    assert protection is not None
    monkeypatch.setattr(protection, "write_blocks", lambda *_: None)  # the process dies before
    monkeypatch.setattr(host.disk.journal, "_clear", lambda: None)
    host.ok(write_atomic(8, 8, flags=0x20), image(data, 8, tag=7))
    device.close()
    again = disk(FileDevice(tmp_path / "disk.img"), protection=1, durable=durable)
    assert again.ok(read_16(8, 8, 0x20)) == image(data, 8, tag=7)


# ---- formatting, sanitizing


@pytest.mark.parametrize(("fmtpinfo", "usage", "kind"), [(0, 0, 0), (2, 0, 1), (3, 0, 2), (3, 1, 3)])
def test_format_unit_chooses_the_type(fmtpinfo: int, usage: int, kind: int, tmp_path: Path) -> None:
    create(tmp_path / "disk.img", 1 << 20)
    durable = Durable(tmp_path / "units", UUID_1)
    host = disk(FileDevice(tmp_path / "disk.img"), protection=1, durable=durable)
    host.write(0, b"x" * 512)
    host.ok(format_unit(fmtpinfo << 6 | FMTDATA), _header(usage=usage))
    for _ in range(2):
        byte = host.ok(struct.pack(">BB8xIxx", 0x9E, 0x10, 32))[12]
        assert byte == (kind - 1 << 1 | 1 if kind else 0)
        assert host.ok(inquiry())[5] & 1
        assert host.read(0, 1) == bytes(512)
        if kind in (1, 3):
            assert host.ok(read_16(0, 1, 0x20)) == bytes(512) + FREE
        host.disk.close()
        host = disk(FileDevice(tmp_path / "disk.img"), protection=1, durable=durable)


def test_types_that_format_unit_cannot_make() -> None:
    host = protected()
    host.invalid(format_unit(0x40), 1, 7)
    bad = (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_PARAMETER_LIST)
    for fmtpinfo, usage in ((0, 1), (2, 1), (3, 2), (1, 0)):
        host.fail(format_unit(fmtpinfo << 6 | FMTDATA), *bad, _header(usage=usage), pointer=(False, 0, 2))


def test_sanitize_leaves_nothing_protected() -> None:
    host = protected()
    host.write(0, b"x" * 512)
    host.ok(sanitize(OVERWRITE, 5), pattern_list(b"p"))
    assert host.ok(read_16(0, 1, 0x20)) == b"p" * 512 + FREE
    host.write(0, b"x" * 512)
    host.ok(sanitize(BLOCK_ERASE))
    assert host.ok(read_16(0, 1, 0x20)) == bytes(512) + FREE


# ---- against a model

BLOCKS = 8
_tags = st.sampled_from([0, 1, 0x7FFF, 0xFFFF])
_steps = st.lists(
    st.tuples(
        st.sampled_from(["write", "write protected", "read", "same", "unmap", "flush"]),
        st.integers(0, BLOCKS - 1),
        st.integers(1, 3),
        st.binary(min_size=1, max_size=3),
        _tags,
        st.sampled_from([0, 0, 0, 1, 2]),  # nothing wrong; a guard; a reference tag
    ),
    max_size=12,
)


@settings(deadline=None, max_examples=60)
@given(kind=st.sampled_from([1, 3]), steps=_steps)
def test_against_a_model(kind: int, steps: list[tuple[str, int, int, bytes, int, int]]) -> None:
    """The model keeps data and information of each block as two bytes strings, and checks as the standard's table says."""
    host = protected(kind)
    model = [(bytes(512), FREE)] * BLOCKS

    def fault(block: bytes, own: bytes, lba: int) -> Asc | None:
        guard, tag, reference = struct.unpack(">HHI", own)
        if tag == 0xFFFF and (kind == 1 or reference == 0xFFFFFFFF):
            return None
        if guard != naive_guard(block):
            return GUARD
        return REFERENCE if kind == 1 and reference != lba else None

    for what, lba, count, pattern, tag, wrong in steps:
        number = min(count, BLOCKS - lba)
        blocks = [(pattern * 600)[n : n + 512] for n in range(number)]
        free = 0xFFFFFFFF if kind == 3 else None
        if what == "write":
            host.write(lba, b"".join(blocks))
            for n, block in enumerate(blocks):
                model[lba + n] = block, information(block, lba + n if free is None else free)
        elif what == "write protected":
            own = [
                information(
                    block,
                    lba + n + (wrong == 2),
                    tag=tag,
                    guard=naive_guard(block) ^ 1 if wrong == 1 else None,
                )
                for n, block in enumerate(blocks)
            ]
            sent = b"".join(block + more for block, more in zip(blocks, own, strict=True))
            first = next((f for n in range(number) if (f := fault(blocks[n], own[n], lba + n))), None)
            result = host.send(write_16(lba, number, 0x20), sent)
            assert (parse_sense(result.sense).asc if result.sense else None) == first
            if first is None:
                model[lba : lba + number] = list(zip(blocks, own, strict=True))
        elif what == "same":
            host.ok(write_same_16(lba, number), blocks[0])
            for n in range(number):
                model[lba + n] = blocks[0], information(blocks[0], lba + n if free is None else free)
        elif what == "unmap":
            data = unmap_list((lba, number))
            host.ok(unmap(len(data)), data)
            model[lba : lba + number] = [(bytes(512), FREE)] * number
        elif what == "flush":
            host.ok(synchronize_cache_16())
        else:
            first = next((f for n in range(number) if (f := fault(*model[lba + n], lba + n))), None)
            assert first is None
            assert host.ok(read_16(lba, number, 0x20)) == b"".join(
                block + own for block, own in model[lba : lba + number]
            )
    assert host.read(0, BLOCKS) == b"".join(block for block, _ in model)
