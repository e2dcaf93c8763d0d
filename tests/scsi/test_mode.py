"""MODE SENSE and MODE SELECT."""

from __future__ import annotations

import errno

import pytest

from blockyard.block.faults import Fault, FaultDevice, Operation
from blockyard.block.memory import MemoryDevice
from blockyard.scsi.sense import Asc, SenseKey
from tests.scsi.host import (
    TEST_UNIT_READY,
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

RECOVERY = bytes.fromhex("01 0a c0 00 00 00 00 00 00 00 00 00")
CACHING = bytes.fromhex("08 12 04 00" + "00" * 16)
CONTROL = bytes.fromhex("0a 0a 02 10 00 00 00 00 ffff 0000")
EXCEPTIONS = bytes.fromhex("1c 0a 08 00 00 00 00 00 00 00 00 00")
ALL = RECOVERY + CACHING + CONTROL + EXCEPTIONS
PROVISIONING = bytes.fromhex("5c 02 001c" + "00" * 12 + "00 01 0000 00000000 01 02 0000 00000000")
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
    ("page", "expected"),
    [(0x08, CACHING), (0x0A, CONTROL), (0x1C, EXCEPTIONS), (0x3F, ALL)],
)
@pytest.mark.parametrize("subpage", [0x00, 0xFF])
def test_pages(page: int, expected: bytes, subpage: int) -> None:
    data = memory().ok(mode_sense_6(page, subpage, dbd=True))
    if subpage and page in (0x1C, 0x3F):
        expected += PROVISIONING
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
    changeable = (
        RECOVERY[:2]
        + bytes(10)
        + bytes.fromhex("08 12 04 00" + "00" * 16 + "0a 0a 04 00 08 00 00 00 0000 0000 1c 0a" + "00" * 10)
    )
    assert memory().ok(mode_sense_6(0x3F, control=1, dbd=True))[4:] == changeable


def test_default_values_stay() -> None:
    host = memory()
    select(host, caching(0), control(d_sense=1))
    assert host.ok(mode_sense_6(0x3F, control=2, dbd=True))[4:] == ALL
    assert host.ok(mode_sense_6(0x3F, dbd=True))[4:] == RECOVERY + caching(0) + control(d_sense=1) + EXCEPTIONS


def test_saved_values() -> None:
    memory().fail(mode_sense_6(0x08, control=3), SenseKey.ILLEGAL_REQUEST, Asc.SAVING_PARAMETERS_NOT_SUPPORTED)


def test_unknown_pages() -> None:
    host = memory()
    host.invalid(mode_sense_6(0x02), 2, 5)
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
        (bytes(4) + b"\x02\x0a" + bytes(10), 4, 5),  # unknown page
        (bytes(4) + b"\x48\x12" + bytes(18), 5, None),  # unknown subpage
        (bytes(4) + PROVISIONING[:3] + b"\x1b" + PROVISIONING[4:], 6, None),  # page length of a subpage
        (bytes(4) + PROVISIONING[:4] + b"\x01" + PROVISIONING[5:], 8, 0),  # SITUA
        (bytes(4) + b"\x08\x0a" + bytes(10), 5, None),  # page length
        (bytes(4) + caching(1)[:2] + b"\x05" + bytes(17), 6, 0),  # RCD
        (bytes(4) + caching(0) + control()[:3] + b"\x20" + control()[4:], 27, 5),  # queue algorithm modifier
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
        "5c 02 001c" + "00" * 12 + "80 00 0000 ffffffff 80 00 0000 ffffffff"
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


def test_page_format_and_saving() -> None:
    host = memory()
    data = bytes(4) + caching(0)
    host.invalid(mode_select_6(len(data), 0x00), 1, 4, data)
    host.invalid(mode_select_6(len(data), 0x11), 1, 0, data)


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
    assert host.ok(mode_sense_6(0x3F, dbd=True))[4:] == ALL
    assert host.disk.write_back
    assert not host.disk.write_protected
