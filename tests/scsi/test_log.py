"""LOG SENSE and LOG SELECT, medium errors and informational exceptions."""

from __future__ import annotations

import errno
import struct

import pytest

from blockyard.block.device import Space
from blockyard.block.faults import Fault, FaultDevice, Operation
from blockyard.block.memory import MemoryDevice
from blockyard.scsi import log
from blockyard.scsi.sense import Asc, SenseKey
from tests.scsi.host import (
    TEST_UNIT_READY,
    Host,
    disk,
    memory,
    mode_select_6,
    mode_sense_6,
    parse_sense,
    read_10,
    read_16,
    ready_host,
    request_sense,
    start_stop,
    verify_16,
    write_10,
)

MEDIUM = (SenseKey.MEDIUM_ERROR, Asc.UNRECOVERED_READ_ERROR)


def log_sense(page: int, subpage: int = 0, *, control: int = 1, pointer: int = 0, length: int = 4096) -> bytes:
    return struct.pack(">BxBBxHHx", 0x4D, control << 6 | page, subpage, pointer, length)


def log_select(length: int, *, control: int = 1, page: int = 0, pcr: bool = False) -> bytes:
    return struct.pack(">BBBxxxxHx", 0x4C, pcr << 1, control << 6 | page, length)


def parameters(host: Host, page: int, *, control: int = 1, pointer: int = 0) -> dict[int, bytes]:
    data = host.ok(log_sense(page, control=control, pointer=pointer))
    assert data[0] & 0x3F == page
    assert int.from_bytes(data[2:4], "big") == len(data) - 4
    found, at = {}, 4
    while at < len(data):
        found[int.from_bytes(data[at : at + 2], "big")] = data[at + 4 : at + 4 + data[at + 3]]
        at += 4 + data[at + 3]
    assert at == len(data)
    assert list(found) == sorted(found)
    return found


def numbers(host: Host, page: int, **options: int) -> dict[int, int]:
    return {code: int.from_bytes(value, "big") for code, value in parameters(host, page, **options).items()}


def faulty() -> tuple[Host, FaultDevice]:
    device = FaultDevice(MemoryDevice(1 << 20))
    return disk(device), device


# ---- pages


def test_supported_pages() -> None:
    host = memory()
    data = host.ok(log_sense(0))
    assert data[4:] == bytes(code for code in log.PAGES if code != 0x0C or host.disk.device.space())
    pairs = host.ok(log_sense(0, 0xFF))
    assert pairs[:2] == b"\x40\xff"
    assert pairs[4:8] == b"\0\0\0\xff"
    assert bytes(pairs[4::2]) == bytes([0, *data[4:]])
    for code in data[5:]:
        parameters(host, code)


def test_a_disk_that_rotates_is_not_solid_state() -> None:
    device = MemoryDevice(1 << 20)
    device.rotational = True
    assert 0x11 not in disk(device).ok(log_sense(0))[4:]
    disk(device).invalid(log_sense(0x11), 2, 5)


def test_what_does_not_exist() -> None:
    host = memory()
    host.invalid(log_sense(0x18), 2, 5)
    host.invalid(log_sense(0x02, 0x01), 3)
    host.invalid(log_sense(0x02, pointer=7), 5)
    host.invalid(log_sense(0, pointer=1), 5)


def test_bytes_and_commands_are_counted() -> None:
    host = memory()
    host.write(0, bytes(4096))
    host.read(0, 4)
    assert numbers(host, 0x02) == {3: 0, 5: 4096, 6: 0}
    assert numbers(host, 0x03) == {3: 0, 5: 2048, 6: 0}
    assert struct.unpack(">4Q", parameters(host, 0x19)[1][:32]) == (1, 1, 8, 4)


def test_errors_are_counted_by_kind() -> None:
    host, device = faulty()
    fault = device.inject(Fault(Operation.READ, offset=4096, length=512, errno=errno.EIO))
    device.inject(Fault(Operation.WRITE, offset=8192, length=512, errno=errno.EIO))
    host.fail(read_10(0, 16), *MEDIUM)
    host.fail(verify_16(8, 1, 0), *MEDIUM)
    host.fail(write_10(0, 32), SenseKey.MEDIUM_ERROR, Asc.WRITE_ERROR, bytes(16384))
    host.fail(read_10(1 << 30, 1), SenseKey.ILLEGAL_REQUEST, Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE)
    device.heal(fault)
    assert [numbers(host, page)[6] for page in (0x02, 0x03, 0x05)] == [1, 1, 1]
    assert numbers(host, 0x06) == {0: 1}
    scan = parameters(host, 0x15)
    assert [struct.unpack(">IBH5xQ", scan[code])[1:] for code in (1, 2, 3)] == [
        (3, 0x1100, 8), (3, 0x1100, 8), (3, 0x0C00, 16),
    ]  # fmt: skip


def test_start_stop_cycles() -> None:
    host = memory()
    for _ in range(2):
        host.ok(start_stop(0))
        host.ok(start_stop(1))
    host.ok(start_stop(1))
    assert numbers(host, 0x0E)[4] == 2


def test_parameter_pointer_and_page_control() -> None:
    host = memory()
    host.write(0, bytes(512))
    assert numbers(host, 0x02, pointer=5) == {5: 512, 6: 0}
    assert numbers(host, 0x02, control=3) == {3: 0, 5: 0, 6: 0}
    assert set(parameters(host, 0x02, control=0).values()) == {b"\xff" * 8}
    assert parameters(host, 0x0D, control=0) == parameters(host, 0x0D)
    assert host.ok(log_sense(0x02, length=6)) == host.ok(log_sense(0x02))[:6]


# ---- LOG SELECT


def test_counters_are_reset_and_set() -> None:
    host = memory()
    other = ready_host(host.target, initiator="iqn.test:other")
    host.write(0, bytes(512))
    host.read(0, 1)
    host.ok(log_select(0, page=0x02, pcr=True))
    other.fail(TEST_UNIT_READY, SenseKey.UNIT_ATTENTION, Asc.LOG_PARAMETERS_CHANGED)
    assert (numbers(host, 0x02)[5], numbers(host, 0x03)[5]) == (0, 512)
    page = bytes.fromhex("03 00 000c 0005 00 08 0000000000001000")
    host.ok(log_select(len(page)), page)
    host.read(0, 1)
    assert numbers(host, 0x03)[5] == 0x1000 + 512
    host.ok(log_select(0, control=3))
    assert numbers(host, 0x03)[5] == 0


@pytest.mark.parametrize(
    ("page", "byte", "bit"),
    [
        ("3e 00 0000", 0, 5),
        ("03 01 0000", 1, None),
        ("03 00 0005 0099 00 01 00", 4, None),
        ("0d 00 0006 0000 03 02 0000", 4, None),
    ],
)
def test_bad_parameters(page: str, byte: int, bit: int | None) -> None:
    data = bytes.fromhex(page)
    memory().fail(
        log_select(len(data)), SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_PARAMETER_LIST, data,
        pointer=(False, byte, bit),
    )  # fmt: skip


@pytest.mark.parametrize("data", [b"\x03\0", bytes.fromhex("03 00 000c 0005"), bytes.fromhex("03 00 0004 0005 00 08")])
def test_lists_that_are_cut_short(data: bytes) -> None:
    memory().fail(log_select(len(data)), SenseKey.ILLEGAL_REQUEST, Asc.PARAMETER_LIST_LENGTH_ERROR, data)


def test_select_of_what_cannot_be() -> None:
    host = memory()
    host.invalid(log_select(4, pcr=True), 1, 1, bytes(4))
    host.invalid(log_select(4, control=0), 2, 7, bytes(4))
    host.invalid(log_select(4, page=2), 2, 5, bytes(4))


# ---- medium errors


@pytest.mark.parametrize("bad", [0, 1, 7, 100, 255])
@pytest.mark.parametrize("operation", [Operation.READ, Operation.WRITE])
def test_the_first_bad_block_is_named(operation: Operation, bad: int) -> None:
    host, device = faulty()
    device.inject(Fault(operation, offset=(64 + bad) * 512, length=1024, errno=errno.EIO))
    cdb, data = (read_10(64, 256), b"") if operation is Operation.READ else (write_10(64, 256), bytes(131072))
    found = parse_sense(host.send(cdb, data).sense)
    assert (found.key, found.information) == (SenseKey.MEDIUM_ERROR, 64 + bad)


def test_an_address_beyond_32_bits_needs_descriptor_format() -> None:
    host, device = faulty()
    host.disk.blocks = 1 << 40
    device.inject(Fault(Operation.READ, errno=errno.EIO))
    assert parse_sense(host.send(read_16(1 << 33, 1)).sense).information is None
    page = bytearray(host.ok(mode_sense_6(0x0A, dbd=True))[4:])
    page[2] |= 4  # D_SENSE
    host.ok(mode_select_6(16), bytes(4) + bytes(page))
    assert parse_sense(host.send(read_16(1 << 33, 1)).sense).information == 1 << 33


def test_a_passing_trouble_names_no_block() -> None:
    host, device = faulty()
    device.inject(Fault(Operation.READ, errno=errno.EIO, count=1))
    assert parse_sense(host.send(read_10(0, 8)).sense).information is None


# ---- informational exceptions


def exceptions(host: Host, **fields: int) -> bytes:
    """A changed Informational Exceptions Control page."""
    page = bytearray(host.ok(mode_sense_6(0x1C, dbd=True))[4:])
    page[2] = fields.get("dexcpt", 0) << 3 | fields.get("test", 0) << 2
    page[3] = fields.get("mrie", 6)
    return bytes(4) + bytes(page)


def exception(host: Host) -> int:
    return numbers(host, 0x2F)[0] >> 16


def test_a_medium_error_is_one() -> None:
    host, device = faulty()
    assert exception(host) == 0
    fault = device.inject(Fault(Operation.READ, errno=errno.EIO))
    host.fail(read_10(0, 1), *MEDIUM)
    device.heal(fault)
    assert exception(host) == Asc.MEDIA_FAILURE_PREDICTION_THRESHOLD_EXCEEDED
    found = parse_sense(host.ok(request_sense()))
    assert found[:2] == (SenseKey.NO_SENSE, Asc.MEDIA_FAILURE_PREDICTION_THRESHOLD_EXCEEDED)
    host.ok(mode_select_6(16), exceptions(host, dexcpt=1))
    assert exception(host) == 0
    assert parse_sense(host.ok(request_sense()))[:2] == (SenseKey.NO_SENSE, 0)


def test_a_nearly_full_file_system_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    host = memory()
    other = ready_host(host.target, initiator="iqn.test:other")
    host.ok(mode_select_6(16), exceptions(host, mrie=2))
    other.fail(TEST_UNIT_READY, SenseKey.UNIT_ATTENTION, Asc.MODE_PARAMETERS_CHANGED)
    assert host.disk.health.armed
    host.disk.health.look(Space(available=1 << 20, used=0))
    host.ok(TEST_UNIT_READY)
    for _ in range(2):
        host.disk.health.look(Space(available=1 << 12, used=0))
    for told in (host, other):
        told.fail(TEST_UNIT_READY, SenseKey.UNIT_ATTENTION, Asc.SPARE_AREA_EXHAUSTION_PREDICTION_THRESHOLD_EXCEEDED)
        told.ok(TEST_UNIT_READY)
    host.disk.health.look(Space(available=0, used=1 << 20))  # all of it is allocated
    assert host.disk.health.exception == 0


@pytest.mark.parametrize("mrie", [0, 2, 6])
def test_a_test_of_reporting(mrie: int) -> None:
    host = memory()
    host.ok(mode_select_6(16), exceptions(host, test=1, mrie=mrie))
    false = Asc.FAILURE_PREDICTION_THRESHOLD_EXCEEDED_FALSE
    if mrie == 2:
        host.fail(TEST_UNIT_READY, SenseKey.UNIT_ATTENTION, false)
    host.ok(TEST_UNIT_READY)
    expected = false if mrie == 6 else 0
    assert parse_sense(host.ok(request_sense()))[:2] == (SenseKey.NO_SENSE, expected)
    assert exception(host) == false


def test_settings_that_contradict() -> None:
    host = memory()
    data = exceptions(host, test=1, dexcpt=1)
    host.fail(mode_select_6(16), SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_PARAMETER_LIST, data)
    host.fail(
        mode_select_6(16), SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_PARAMETER_LIST, exceptions(host, mrie=3)
    )
