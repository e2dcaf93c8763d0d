"""MODE SENSE and MODE SELECT."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from blockyard.block.faults import Fault, FaultDevice, Operation
from blockyard.block.memory import MemoryDevice
from blockyard.scsi.durable import Durable
from blockyard.scsi.sense import Asc, SenseKey
from tests.scsi.host import (
    TEST_UNIT_READY,
    UUID_1,
    Host,
    Sense,
    disk,
    memory,
    mode_select_6,
    mode_select_10,
    mode_sense_6,
    mode_sense_10,
    parse_sense,
    ready_host,
    write_10,
)

READ_WRITE = bytes.fromhex("01 0a c0 00 00 00 00 00 0000 0000")
DISCONNECT = bytes.fromhex("02 0e" + "00" * 14)
VERIFY = bytes.fromhex("07 0a 00 00 00 00 00 00 0000 0000")
CACHING = bytes.fromhex("88 12 04 00" + "00" * 16)
CONTROL = bytes.fromhex("8a 0a 02 10 00 40 00 00 ffff 0000")
EXTENSION = bytes.fromhex("ca 01 001c 06 00" + "00" * 26)
POWER = bytes.fromhex("1a 26" + "00" * 38)
EXCEPTIONS = bytes.fromhex("9c 0a 00 06 00 00 00 00 00 00 00 00")
PROVISIONING = bytes.fromhex("dc 02 001c" + "00" * 12 + "00 01 0000 00000000 01 02 0000 00000000")


def all_pages(caching: bytes = CACHING, control: bytes = CONTROL, *, subpages: bool = False) -> bytes:
    """What page code 3Fh asks for."""
    head = READ_WRITE + DISCONNECT + VERIFY + caching + control
    if subpages:
        return head + EXTENSION + POWER + EXCEPTIONS + PROVISIONING
    return head + POWER + EXCEPTIONS


DESCRIPTOR = bytes.fromhex("00000800 00 000200")  # 2048 blocks of 512


def caching(wce: int) -> bytes:
    return CACHING[:2] + bytes([wce << 2]) + CACHING[3:]


def control(*, d_sense: int = 0, swp: int = 0) -> bytes:
    return CONTROL[:2] + bytes([CONTROL[2] | d_sense << 2, CONTROL[3], swp << 3]) + CONTROL[5:]


def select(host: Host, *pages: bytes) -> None:
    data = bytes(4) + b"".join(pages)
    host.ok(mode_select_6(len(data)), data)


# ---- MODE SENSE


@pytest.mark.parametrize(
    ("page", "alone", "with_subpages"),
    [
        (0x01, READ_WRITE, READ_WRITE),
        (0x02, DISCONNECT, DISCONNECT),
        (0x07, VERIFY, VERIFY),
        (0x08, CACHING, CACHING),
        (0x0A, CONTROL, CONTROL + EXTENSION),
        (0x1A, POWER, POWER),
        (0x1C, EXCEPTIONS, EXCEPTIONS + PROVISIONING),
        (0x3F, all_pages(), all_pages(subpages=True)),
    ],
)
def test_pages(page: int, alone: bytes, with_subpages: bytes) -> None:
    for subpage, expected in ((0x00, alone), (0xFF, with_subpages)):
        data = memory().ok(mode_sense_6(page, subpage, dbd=True))
        assert data == bytes([3 + len(expected), 0, 0x10, 0]) + expected


def test_subpages() -> None:
    host = memory()
    assert host.ok(mode_sense_6(0x1C, 0x02, dbd=True))[4:] == PROVISIONING
    host.invalid(mode_sense_6(0x1C, 0x01), 3)
    host.invalid(mode_sense_6(0x3F, 0x02), 3)
    thick = disk(MemoryDevice(1 << 20, granularity=0))
    thick.invalid(mode_sense_6(0x1C, 0x02), 3)
    assert thick.ok(mode_sense_6(0x1C, 0xFF, dbd=True))[4:] == EXCEPTIONS


def test_block_descriptor() -> None:
    assert memory().ok(mode_sense_6(0x08)) == bytes([31, 0, 0x10, 8]) + DESCRIPTOR + CACHING


def test_ten_byte_form() -> None:
    host = memory()
    assert host.ok(mode_sense_10(0x08)) == bytes.fromhex("0022 00 10 00 00 0008") + DESCRIPTOR + CACHING
    assert host.ok(mode_sense_10(0x08, flags=0x08)) == bytes.fromhex("001a 00 10 00 00 0000") + CACHING
    long = bytes.fromhex("0000000000000800 00000000 00000200")
    assert host.ok(mode_sense_10(0x08, flags=0x10)) == bytes.fromhex("002a 00 10 01 00 0010") + long + CACHING


def test_capacity_that_a_short_descriptor_cannot_hold() -> None:
    host = memory()
    host.disk.blocks = 1 << 33
    assert host.ok(mode_sense_10(0x08))[8:12] == b"\xff" * 4
    assert host.ok(mode_sense_10(0x08, flags=0x10))[8:16] == (1 << 33).to_bytes(8, "big")


def test_changeable_values() -> None:
    host = memory()
    assert host.ok(mode_sense_6(0x08, control=1, dbd=True))[4:] == bytes.fromhex("88 12 04 00" + "00" * 16)
    control = bytes.fromhex("8a 0a e4 f6 38 40 00 00 0000 0000")
    assert host.ok(mode_sense_6(0x0A, control=1, dbd=True))[4:] == control
    extension = bytes.fromhex("ca 01 001c 00 0f" + "00" * 26)
    assert host.ok(mode_sense_6(0x0A, 0x01, control=1, dbd=True))[4:] == extension
    for code in (0x01, 0x02, 0x07, 0x1A):
        assert not any(host.ok(mode_sense_6(code, control=1, dbd=True))[6:])


def test_default_values_stay() -> None:
    host = memory()
    select(host, caching(0), control(d_sense=1))
    assert host.ok(mode_sense_6(0x3F, control=2, dbd=True))[4:] == all_pages()
    assert host.ok(mode_sense_6(0x3F, dbd=True))[4:] == all_pages(caching(0), control(d_sense=1))


def test_unknown_pages() -> None:
    host = memory()
    host.invalid(mode_sense_6(0x03), 2, 5)
    host.invalid(mode_sense_6(0x08, 0x01), 3)
    host.invalid(mode_sense_10(0x00), 2, 5)


@pytest.mark.parametrize("length", [0, 3, 4, 12, 31])
def test_allocation_length(length: int) -> None:
    host = memory()
    assert host.ok(mode_sense_6(0x08, length=length)) == host.ok(mode_sense_6(0x08))[:length]


def test_write_protect_bit() -> None:
    assert disk(MemoryDevice(1 << 20), read_only=True).ok(mode_sense_6(0x08))[2] == 0x90
    assert disk(MemoryDevice(1 << 20, read_only=True)).ok(mode_sense_10(0x08))[3] == 0x90


# ---- MODE SELECT


def test_write_cache() -> None:
    flushes = Fault(Operation.FLUSH)
    host = disk(FaultDevice(MemoryDevice(1 << 20), [flushes]))
    host.ok(write_10(0, 1), bytes(512))
    assert flushes.hits == 0
    select(host, caching(0))
    assert flushes.hits == 1  # what had been acknowledged from the cache
    host.ok(write_10(0, 1), bytes(512))
    assert flushes.hits == 2
    select(host, caching(1))
    host.ok(write_10(0, 1), bytes(512))
    assert flushes.hits == 2


def test_a_cache_that_cannot_be_flushed() -> None:
    host = disk(FaultDevice(MemoryDevice(1 << 20), [Fault(Operation.FLUSH, errno=errno.EIO)]))
    data = bytes(4) + caching(0)
    host.fail(mode_select_6(len(data)), SenseKey.MEDIUM_ERROR, Asc.WRITE_ERROR, data)


def test_write_through_is_not_changeable() -> None:
    host = disk(MemoryDevice(1 << 20), write_through=True)
    assert host.ok(mode_sense_6(0x08, dbd=True))[4:] == caching(0)
    assert not any(host.ok(mode_sense_6(0x08, control=1, dbd=True))[6:])
    refuse(host, bytes(4) + caching(1), 6, 2)


def test_descriptor_sense() -> None:
    host = memory()
    select(host, control(d_sense=1))
    assert parse_sense(host.send(bytes([0xFF])).sense).descriptor
    select(host, control(d_sense=0))
    assert not parse_sense(host.send(bytes([0xFF])).sense).descriptor


def test_software_write_protect() -> None:
    host = memory()
    select(host, control(swp=1))
    assert host.ok(mode_sense_6(0x08))[2] == 0x90
    host.fail(write_10(0, 1), SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED, bytes(512))
    select(host, control(swp=0))
    host.ok(write_10(0, 1), bytes(512))


def test_other_nexuses_are_told() -> None:
    one = memory()
    two = ready_host(one.target, initiator="iqn.test:other")
    select(one, caching(0))
    one.ok(TEST_UNIT_READY)
    two.fail(TEST_UNIT_READY, SenseKey.UNIT_ATTENTION, Asc.MODE_PARAMETERS_CHANGED)
    two.ok(TEST_UNIT_READY)
    select(one, caching(0))  # nothing new
    two.ok(TEST_UNIT_READY)


def test_ten_byte_select_with_descriptors() -> None:
    host = memory()
    short = bytes.fromhex("0000 00 00 00 00 0008") + DESCRIPTOR + caching(0)
    host.ok(mode_select_10(len(short)), short)
    assert host.ok(mode_sense_6(0x08, dbd=True))[4:] == caching(0)
    long = bytes.fromhex("0000 00 00 01 00 0010 0000000000000800 00000000 00000200") + caching(1)
    host.ok(mode_select_10(len(long)), long)
    assert host.ok(mode_sense_6(0x08, dbd=True))[4:] == caching(1)


def test_what_was_sensed_can_be_selected() -> None:
    host = memory()
    data = host.ok(mode_sense_10(0x3F))
    host.ok(mode_select_10(len(data)), data)
    data = host.ok(mode_sense_6(0x3F))
    host.ok(mode_select_6(len(data)), data)


def test_no_parameter_list() -> None:
    memory().ok(mode_select_6(0))
    memory().ok(mode_select_10(0))


def refuse(host: Host, data: bytes, byte: int, bit: int | None = None) -> Sense:
    """MODE SELECT (6) of `data` ends with INVALID FIELD IN PARAMETER LIST and changes nothing."""
    before = host.ok(mode_sense_6(0x3F))
    sense = host.fail(
        mode_select_6(len(data)),
        SenseKey.ILLEGAL_REQUEST,
        Asc.INVALID_FIELD_IN_PARAMETER_LIST,
        data,
        pointer=(False, byte, bit),
    )
    assert host.ok(mode_sense_6(0x3F)) == before
    return sense


@pytest.mark.parametrize(
    ("data", "byte", "bit"),
    [
        (bytes([0, 1, 0, 0]), 1, None),  # medium type
        (bytes([0, 0, 0, 7]) + bytes(7), 3, None),  # block descriptor length
        (bytes([0, 0, 0, 8]) + bytes.fromhex("00000801 00 000200"), 4, None),  # another capacity
        (bytes([0, 0, 0, 8]) + bytes.fromhex("00000800 00 001000"), 9, None),  # another block size
        (bytes(4) + b"\x03\x0a" + bytes(10), 4, 5),  # unknown page
        (bytes(4) + b"\x48\x12" + bytes(18), 5, None),  # unknown subpage
        (bytes(4) + PROVISIONING[:3] + b"\x1b" + PROVISIONING[4:], 6, None),  # page length of a subpage
        (bytes(4) + PROVISIONING[:4] + b"\x01" + PROVISIONING[5:], 8, 0),  # SITUA
        (bytes(4) + b"\x08\x0a" + bytes(10), 5, None),  # page length
        (bytes(4) + caching(1)[:2] + b"\x05" + bytes(17), 6, 0),  # RCD
        (bytes(4) + caching(0) + control()[:3] + b"\x20" + control()[4:], 27, 7),  # queue algorithm modifier
    ],
)
def test_bad_parameters(data: bytes, byte: int, bit: int | None) -> None:
    refuse(memory(), data, byte, bit)


@pytest.mark.parametrize("length", [1, 3, 4, 31])
def test_a_subpage_that_is_cut_short(length: int) -> None:
    data = bytes(4) + PROVISIONING[:length]
    memory().fail(mode_select_6(len(data)), SenseKey.ILLEGAL_REQUEST, Asc.PARAMETER_LIST_LENGTH_ERROR, data)


def test_thresholds_can_be_selected() -> None:
    host = memory()
    armed = PROVISIONING[:16] + bytes.fromhex("80 01 0000 00000005 81 02 0000 00000007")
    assert host.ok(mode_sense_6(0x1C, 0x02, control=1, dbd=True))[4:] == bytes.fromhex(
        "dc 02 001c" + "00" * 12 + "80 00 0000 ffffffff 80 00 0000 ffffffff"
    )
    select(host, armed)
    assert host.ok(mode_sense_6(0x1C, 0x02, dbd=True))[4:] == armed


@pytest.mark.parametrize(
    "data",
    [
        bytes(3),
        bytes([0, 0, 0, 8]) + DESCRIPTOR[:5],
        bytes(4) + caching(0)[:1],
        bytes(4) + caching(0)[:19],
    ],
)
def test_parameter_lists_that_are_cut_short(data: bytes) -> None:
    memory().fail(mode_select_6(len(data)), SenseKey.ILLEGAL_REQUEST, Asc.PARAMETER_LIST_LENGTH_ERROR, data)


def test_less_data_than_the_parameter_list_length() -> None:
    host = memory()
    data = bytes(4) + caching(0)
    host.fail(mode_select_6(len(data) + 1), SenseKey.ILLEGAL_REQUEST, Asc.PARAMETER_LIST_LENGTH_ERROR, data)
    host.fail(mode_select_10(7), SenseKey.ILLEGAL_REQUEST, Asc.PARAMETER_LIST_LENGTH_ERROR, bytes(7))


def test_page_format() -> None:
    host = memory()
    data = bytes(4) + caching(0)
    host.invalid(mode_select_6(len(data), 0x00), 1, 4, data)


def test_runs_alone() -> None:
    task, result = memory().begin(mode_select_6(24), 24)
    assert result is None
    assert task.exclusive
    assert task.blocking
    assert task.expected == 24


def test_reset_brings_the_defaults_back() -> None:
    host = memory()
    select(host, caching(0), control(swp=1, d_sense=1))
    host.unit.reset()
    host.fail(TEST_UNIT_READY, SenseKey.UNIT_ATTENTION, Asc.BUS_DEVICE_RESET_FUNCTION_OCCURRED)
    assert host.ok(mode_sense_6(0x3F, dbd=True))[4:] == all_pages()
    assert host.disk.write_back
    assert not host.disk.write_protected


@pytest.mark.parametrize(
    ("byte", "value", "bit"),
    [(2, 0x42, 7), (3, 0x20, 7), (3, 0x14, 2), (4, 0x10, 5)],  # TST, QUEUE ALGORITHM MODIFIER, QERR, UA_INTLCK_CTRL
)
def test_values_that_mean_nothing(byte: int, value: int, bit: int) -> None:
    page = bytearray(CONTROL)
    page[byte] = value
    refuse(memory(), bytes(4) + bytes(page), 4 + byte, bit)


# ---- saved values


def save(host: Host, *pages: bytes) -> None:
    data = bytes(4) + b"".join(pages)
    host.ok(mode_select_6(len(data), 0x11), data)


def saved_disk(directory: Path, *, write_through: bool = False) -> Host:
    return disk(MemoryDevice(1 << 20), durable=Durable(directory, UUID_1), write_through=write_through)


def test_saved_values_start_as_the_defaults() -> None:
    assert memory().ok(mode_sense_6(0x3F, control=3, dbd=True))[4:] == all_pages()


def test_saved_values_outlive_reset_and_restart(tmp_path: Path) -> None:
    host = saved_disk(tmp_path)
    select(host, caching(0))
    save(host, control(swp=1))  # saves what was only selected as well
    select(host, caching(1), control(swp=0))
    host.unit.reset()
    host.fail(TEST_UNIT_READY, SenseKey.UNIT_ATTENTION, Asc.BUS_DEVICE_RESET_FUNCTION_OCCURRED)
    for again in (host, saved_disk(tmp_path)):
        for page_control in (0, 3):
            data = again.ok(mode_sense_6(0x3F, control=page_control, dbd=True))
            assert data[4:] == all_pages(caching(0), control(swp=1))
        assert again.disk.write_protected
        assert not again.disk.write_back
    assert saved_disk(tmp_path / "other").ok(mode_sense_6(0x3F, dbd=True))[4:] == all_pages()


def test_what_cannot_be_changed_any_more_is_not_taken_from_what_was_saved(tmp_path: Path) -> None:
    save(saved_disk(tmp_path), caching(1), control(d_sense=1))
    host = saved_disk(tmp_path, write_through=True)
    assert not host.disk.write_back
    assert host.disk.descriptor_sense


@pytest.mark.parametrize("text", ["{", "[]", '{"08/00": "zz"}', '{"08/00": 1}', '{"08/00": "0812"}', '{"77/00": "00"}'])
def test_damaged_saved_values_are_passed_over(tmp_path: Path, text: str) -> None:
    (tmp_path / f"{UUID_1}.mode-pages.json").write_text(text)
    assert saved_disk(tmp_path).ok(mode_sense_6(0x3F, dbd=True))[4:] == all_pages()


def test_values_that_cannot_be_saved_are_not_taken(tmp_path: Path) -> None:
    host = saved_disk(tmp_path / "units")
    (tmp_path / "units").write_bytes(b"")  # no directory can be made there
    data = bytes(4) + control(swp=1)
    assert host.send(mode_select_6(len(data), 0x11), data).sense
    assert host.ok(mode_sense_6(0x3F, dbd=True))[4:] == all_pages()
