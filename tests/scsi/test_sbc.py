"""Commands that read, write, compare and flush."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard.block.faults import Fault, FaultDevice, Operation
from blockyard.block.file import FileDevice
from blockyard.block.memory import MemoryDevice
from blockyard.scsi import sbc
from blockyard.scsi.sense import Asc, SenseKey
from blockyard.scsi.task import Buffer, Task
from blockyard.scsi.unit import Identity, LogicalUnit
from tests.scsi.host import (
    TEST_UNIT_READY,
    UUID_1,
    Host,
    compare_and_write,
    disk,
    file_device,
    inquiry,
    memory,
    read_10,
    read_16,
    request_sense,
    start_stop,
    synchronize_cache_16,
    verify_16,
    write_10,
    write_16,
)

Shape = Callable[[int, int, int], bytes]  # LBA, number of blocks, byte 1 → CDB


def _six(opcode: int) -> Shape:
    return lambda lba, count, flags: bytes([opcode]) + (flags << 16 | lba).to_bytes(3, "big") + bytes([count, 0])


def _ten(opcode: int) -> Shape:
    return lambda lba, count, flags: struct.pack(">BBIxHx", opcode, flags, lba, count)


def _twelve(opcode: int) -> Shape:
    return lambda lba, count, flags: struct.pack(">BBIIxx", opcode, flags, lba, count)


def _sixteen(opcode: int) -> Shape:
    return lambda lba, count, flags: struct.pack(">BBQIxx", opcode, flags, lba, count)


READS = {"6": _six(0x08), "10": _ten(0x28), "12": _twelve(0xA8), "16": _sixteen(0x88)}
WRITES = {"6": _six(0x0A), "10": _ten(0x2A), "12": _twelve(0xAA), "16": _sixteen(0x8A)}
WRITE_VERIFIES = {"10": _ten(0x2E), "12": _twelve(0xAE), "16": _sixteen(0x8E)}
VERIFIES = {"10": _ten(0x2F), "12": _twelve(0xAF), "16": _sixteen(0x8F)}
ALL = {
    **{f"READ {k}": v for k, v in READS.items()},
    **{f"WRITE {k}": v for k, v in WRITES.items()},
    **{f"WRITE AND VERIFY {k}": v for k, v in WRITE_VERIFIES.items()},
    **{f"VERIFY {k}": v for k, v in VERIFIES.items()},
}


def pattern(blocks: int, seed: int = 1, block_size: int = 512) -> bytes:
    return bytes((seed + i * 7 + i // block_size) & 0xFF for i in range(blocks * block_size))


@pytest.fixture(params=["memory", "file"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Host:
    return memory() if request.param == "memory" else disk(file_device(tmp_path))


# ---- capacity


def test_read_capacity() -> None:
    host = memory()
    assert host.ok(bytes([0x25]) + bytes(9)) == struct.pack(">II", 2047, 512)
    data = host.ok(bytes.fromhex("9e10 0000000000000000 00000020 0000"))
    assert data == struct.pack(">QIBBH16x", 2047, 512, 0, 3, 0xC000)
    assert host.ok(bytes.fromhex("9e10 0000000000000000 0000000c 0000")) == data[:12]


def test_read_capacity_of_4096_byte_blocks_that_are_not_thin() -> None:
    host = disk(MemoryDevice(1 << 20, granularity=0), block_size=4096)
    assert host.ok(bytes([0x25]) + bytes(9)) == struct.pack(">II", 255, 4096)
    assert host.ok(bytes.fromhex("9e10 0000000000000000 00000020 0000")) == struct.pack(">QI20x", 255, 4096)


def test_read_capacity_10_of_what_it_cannot_tell() -> None:
    host = memory()
    host.disk.blocks = (1 << 32) + 1
    assert host.ok(bytes([0x25]) + bytes(9))[:4] == b"\xff" * 4


# ---- READ and WRITE


@pytest.mark.parametrize("length", READS)
def test_read_and_write(host: Host, length: str) -> None:
    data = pattern(24)
    host.ok(WRITES[length](3, 24, 0), data)
    assert host.ok(READS[length](3, 24, 0)) == data
    assert host.ok(READS[length](0, 30, 0)) == bytes(3 * 512) + data + bytes(3 * 512)


def test_zero_blocks_are_256_in_the_six_byte_form(host: Host) -> None:
    data = pattern(256)
    host.ok(WRITES["6"](1, 0, 0), data)
    assert host.ok(READS["6"](1, 0, 0)) == data


@pytest.mark.parametrize("name", [name for name in ALL if not name.endswith(" 6")])
def test_zero_blocks_are_none_in_the_others(host: Host, name: str) -> None:
    assert host.ok(ALL[name](0, 0, 0)) == b""
    assert host.ok(ALL[name](2047, 0, 0)) == b""
    out_of_range(host, ALL[name](2048, 0, 0))


def out_of_range(host: Host, cdb: bytes, data: bytes = b"") -> None:
    host.fail(cdb, SenseKey.ILLEGAL_REQUEST, Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE, data)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("lba", "count"), [(2047, 2), (2048, 1), (1800, 249), ((1 << 21) - 1, 1)])
def test_beyond_the_end(name: str, lba: int, count: int) -> None:
    host = memory()
    out_of_range(host, ALL[name](lba, count, 0), bytes(count * 512))
    assert host.last is not None
    assert not host.last.data_out  # nothing was asked for


def test_the_largest_addresses() -> None:
    host = memory()
    out_of_range(host, read_10(0xFFFFFFFF, 1))
    out_of_range(host, read_16((1 << 64) - 1, 1))
    out_of_range(host, write_16((1 << 64) - 1, 0xFFFF >> 5), bytes(512))


@pytest.mark.parametrize("name", ALL)
def test_protection_information_is_refused(name: str) -> None:
    if name.endswith(" 6"):
        memory().invalid(ALL[name](0x200000, 1, 0), 1, 5)  # there are bits that are reserved
        return
    for value in range(1, 8):
        memory().invalid(ALL[name](0, 1, value << 5), 1, 7, bytes(512))


@pytest.mark.parametrize("length", ["10", "12", "16"])
@pytest.mark.parametrize("flags", [0x10, 0x08, 0x18, 0x02, 0x0A])
def test_dpo_and_fua(length: str, flags: int) -> None:
    flushes = Fault(Operation.FLUSH)
    host = disk(FaultDevice(MemoryDevice(1 << 20), [flushes]))
    host.ok(WRITES[length](0, 1, flags), pattern(1))
    assert flushes.hits == bool(flags & 0x08)
    assert host.ok(READS[length](0, 1, flags)) == pattern(1)
    assert flushes.hits == 2 * bool(flags & 0x08)


def test_group_numbers_mean_nothing() -> None:
    memory().ok(struct.pack(">BBIBHx", 0x28, 0, 0, 0x1F, 1))


@pytest.mark.parametrize(
    ("cdb", "byte"),
    [
        (read_10(0, 16385), 7),
        (write_10(0, 16385), 7),
        (read_16(0, 16385), 10),
        (write_16(0, 16385), 10),
        (verify_16(0, 16385, 1), 10),
        (_twelve(0xAE)(0, 1 << 31, 0), 6),
    ],
)
def test_maximum_transfer_length(cdb: bytes, byte: int) -> None:
    host = disk(MemoryDevice(16 << 20))
    host.invalid(cdb, byte, 7, bytes(512))
    assert len(host.read(0, 16384)) == 8 << 20


def test_blocks_of_4096() -> None:
    host = disk(MemoryDevice(1 << 20), block_size=4096)
    data = pattern(2, block_size=4096)
    host.write(1, data)
    assert host.read(1, 2) == data
    out_of_range(host, read_10(256, 1))
    host.invalid(read_10(0, 2049), 7, 7)


@pytest.mark.parametrize("size", [0, 1, 200, 512, 700, 1024, 1535])
def test_less_data_than_the_cdb_asks_for(host: Host, size: int) -> None:
    """What came is written, the rest is a residual for the transport to report (FCP-4, FCP_RESID_OVER)."""
    host.write(0, b"a" * 2048)
    result = host.send(write_10(0, 3), b"b" * size)
    assert not result.sense
    assert result.expected == 1536
    assert host.read(0, 4) == b"b" * size + b"a" * (2048 - size)
    assert host.last is not None


def test_part_of_a_block_is_written_alone() -> None:
    task, _ = memory().begin(write_10(0, 1), 200)
    assert task.exclusive
    task, _ = memory().begin(write_10(0, 1), 512)
    assert not task.exclusive


def test_more_data_than_the_cdb_asks_for(host: Host) -> None:
    host.write(0, b"a" * 1024)
    result = host.send(write_10(0, 1), b"b" * 10000)
    assert (result.expected, result.sense) == (512, b"")
    assert host.read(0, 2) == b"b" * 512 + b"a" * 512


def test_a_read_that_sends_data_gets_its_data_all_the_same() -> None:
    result = memory().send(read_10(0, 1), bytes(512))
    assert (result.expected, len(result.data)) == (0, 512)


def test_failed_commands_say_what_they_expected() -> None:
    host = memory()
    assert host.send(write_10(2047, 2), bytes(1024)).expected == 1024
    assert host.send(write_10(0, 1, 0x20), bytes(512)).expected == 520  # WRPROTECT
    assert host.send(bytes([0xFF]), bytes(512)).expected == 0


# ---- VERIFY


@pytest.mark.parametrize("length", VERIFIES)
def test_verify(host: Host, length: str) -> None:
    data = pattern(9)
    host.write(4, data)
    verify = VERIFIES[length]
    host.ok(verify(4, 9, 0), data)  # BYTCHK=0: whatever it sends
    host.ok(verify(4, 9, 0x02), data)
    for offset in (0, 1, 511, 512, 4000, 4607):
        other = bytearray(data)
        other[offset] ^= 0x40
        sense = host.fail(verify(4, 9, 0x12), SenseKey.MISCOMPARE, Asc.MISCOMPARE_DURING_VERIFY_OPERATION, bytes(other))
        assert sense.information == offset
    host.invalid(verify(4, 9, 0x04), 1, 2, data)


def test_verify_against_one_block(host: Host) -> None:
    block = pattern(1)
    host.write(4, block * 9)
    assert host.send(verify_16(4, 9, 3), block).expected == 512
    host.ok(verify_16(4, 9, 3), block)
    host.write(8, block[:100] + b"?" + block[101:])
    sense = host.fail(verify_16(4, 9, 3), SenseKey.MISCOMPARE, Asc.MISCOMPARE_DURING_VERIFY_OPERATION, block)
    assert sense.information == 100


def test_verify_of_more_than_is_held_at_a_time() -> None:
    host = disk(MemoryDevice(4 << 20))
    data = pattern(1) * 6000
    host.write(0, data)
    host.ok(verify_16(0, 6000, 0))
    host.ok(verify_16(0, 6000, 1), data)
    host.ok(verify_16(0, 6000, 3), data[:512])
    offset = 2_500_001
    other = bytearray(data)
    other[offset] ^= 1
    sense = host.fail(verify_16(0, 6000, 1), SenseKey.MISCOMPARE, Asc.MISCOMPARE_DURING_VERIFY_OPERATION, bytes(other))
    assert sense.information == offset


def test_verify_with_less_data() -> None:
    host = memory()
    host.write(0, b"a" * 1024)
    host.ok(verify_16(0, 2, 1), b"a" * 700)
    sense = host.fail(
        verify_16(0, 2, 1), SenseKey.MISCOMPARE, Asc.MISCOMPARE_DURING_VERIFY_OPERATION, b"a" * 600 + b"b"
    )
    assert sense.information == 600


# ---- WRITE AND VERIFY


@pytest.mark.parametrize("length", WRITE_VERIFIES)
@pytest.mark.parametrize("flags", [0x00, 0x02, 0x12])
def test_write_and_verify(length: str, flags: int, tmp_path: Path) -> None:
    flushes = Fault(Operation.FLUSH)
    host = disk(FaultDevice(file_device(tmp_path), [flushes]))
    data = pattern(5)
    host.ok(WRITE_VERIFIES[length](7, 5, flags), data)
    assert host.read(7, 5) == data
    assert flushes.hits == 1
    host.invalid(WRITE_VERIFIES[length](7, 5, 0x04), 1, 2, data)
    host.invalid(WRITE_VERIFIES[length](7, 5, 0x06), 1, 2, data)


@pytest.mark.parametrize("size", [0, 200, 512])
def test_write_and_verify_with_less_data(size: int) -> None:
    host = memory()
    host.write(0, b"a" * 1024)
    assert host.send(WRITE_VERIFIES["10"](0, 2, 0x02), b"b" * size).expected == 1024
    assert host.read(0, 2) == b"b" * size + b"a" * (1024 - size)


# ---- COMPARE AND WRITE


def test_compare_and_write(host: Host) -> None:
    old, new = pattern(255), pattern(255, seed=9)
    host.write(1, old)
    host.ok(compare_and_write(1, 255), old + new)
    assert host.read(1, 255) == new


@pytest.mark.parametrize("offset", [0, 1, 511, 512, 1023, 1535])
def test_compare_and_write_miscompare(host: Host, offset: int) -> None:
    old = pattern(3)
    host.write(1, old)
    expected = bytearray(old)
    expected[offset] ^= 1
    sense = host.fail(
        compare_and_write(1, 3),
        SenseKey.MISCOMPARE,
        Asc.MISCOMPARE_DURING_VERIFY_OPERATION,
        bytes(expected) + bytes(1536),
    )
    assert sense.information == offset
    assert host.read(1, 3) == old


def test_compare_and_write_of_nothing() -> None:
    memory().ok(compare_and_write(0, 0))


@pytest.mark.parametrize("size", [0, 512, 1536, 4096])
def test_compare_and_write_with_another_length(size: int) -> None:
    memory().invalid(compare_and_write(0, 1), 13, 7, bytes(size))
    memory().invalid(compare_and_write(0, 0), 13, 7, bytes(256 * 1024))  # 256 do not fit into the field


def test_compare_and_write_runs_alone() -> None:
    task, result = memory().begin(compare_and_write(0, 1), 1024)
    assert result is None
    assert task.exclusive


def test_compare_and_write_with_fua() -> None:
    flushes = Fault(Operation.FLUSH)
    host = disk(FaultDevice(MemoryDevice(1 << 20), [flushes]))
    host.ok(compare_and_write(0, 1, 0x08), bytes(1024))
    assert flushes.hits == 1


@given(data=st.binary(min_size=1, max_size=300), at=st.integers(0, 299), flip=st.integers(1, 255))
def test_first_difference(data: bytes, at: int, flip: int) -> None:
    at %= len(data)
    assert sbc.first_difference(data, data) == len(data)
    other = bytearray(data)
    other[at] ^= flip
    assert sbc.first_difference(data, other) == at
    other[at:] = bytes(b ^ flip for b in data[at:])
    assert sbc.first_difference(memoryview(data), other) == at


# ---- SYNCHRONIZE CACHE


@pytest.mark.parametrize("flags", [0x00, 0x02, 0x06])
@pytest.mark.parametrize(("lba", "count"), [(0, 0), (5, 0), (5, 5), (2047, 1)])
def test_synchronize_cache(flags: int, lba: int, count: int) -> None:
    flushes = Fault(Operation.FLUSH)
    host = disk(FaultDevice(MemoryDevice(1 << 20), [flushes]))
    host.ok(synchronize_cache_16(lba, count, flags))
    host.ok(_ten(0x35)(lba, count, flags))
    assert flushes.hits == 2


def test_synchronize_cache_beyond_the_end() -> None:
    out_of_range(memory(), synchronize_cache_16(2048, 0))
    out_of_range(memory(), synchronize_cache_16(2047, 2))


# ---- START STOP UNIT


def test_stopped_units_have_no_medium() -> None:
    flushes = Fault(Operation.FLUSH)
    host = disk(FaultDevice(MemoryDevice(1 << 20), [flushes]))
    host.ok(start_stop(0, 1))  # IMMED
    assert flushes.hits == 1
    for cdb in (read_10(0, 1), write_10(0, 1), verify_16(0, 1, 0), synchronize_cache_16(), bytes([0x25]) + bytes(9)):
        host.fail(cdb, SenseKey.NOT_READY, Asc.LOGICAL_UNIT_NOT_READY_INITIALIZING_COMMAND_REQUIRED, bytes(512))
    host.ok(inquiry())
    host.ok(request_sense())
    host.ok(start_stop(1))
    host.ok(read_10(0, 1))
    host.ok(start_stop(4))  # NO_FLUSH
    assert flushes.hits == 1


def test_start_stop_unit_runs_alone() -> None:
    task, _ = memory().begin(start_stop(0))
    assert task.exclusive


def test_reset_starts_the_unit() -> None:
    host = memory()
    host.ok(start_stop(0))
    host.unit.reset()
    host.fail(TEST_UNIT_READY, SenseKey.UNIT_ATTENTION, Asc.BUS_DEVICE_RESET_FUNCTION_OCCURRED)
    host.ok(TEST_UNIT_READY)


def test_what_start_stop_unit_cannot_do() -> None:
    host = memory()
    host.invalid(start_stop(2), 4, 1)  # LOEJ
    host.invalid(start_stop(3), 4, 1)
    host.invalid(bytes([0x1B, 0, 0, 1, 0x10, 0]), 3, 3)  # ACTIVE has no modifiers


# ---- write protection


@pytest.mark.parametrize("name", [name for name in ALL if name.startswith("WRITE")])
def test_read_only_units(name: str, tmp_path: Path) -> None:
    for host in (disk(MemoryDevice(1 << 20), read_only=True), disk(MemoryDevice(1 << 20, read_only=True))):
        host.fail(ALL[name](0, 1, 0), SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED, bytes(512))
        assert host.last is not None
        assert not host.last.data_out


def test_read_only_units_can_be_read_and_stopped(tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(pattern(4))
    host = disk(FileDevice(tmp_path / "disk.img", read_only=True))
    assert host.ok(read_10(0, 4, 0x08)) == pattern(4)
    host.ok(synchronize_cache_16())
    host.ok(start_stop(0))


# ---- what the data path looks at


def _file_host(tmp_path: Path, **options: bool) -> Host:
    return disk(file_device(tmp_path), **options)


def test_fast_path_attributes(tmp_path: Path) -> None:
    unit = _file_host(tmp_path).disk
    assert (unit.fast_read, unit.fast_write, unit.shift, unit.blocks) == (True, True, 9, 2048)
    assert unit.fd == unit.device.fd >= 0
    unit.stop(flush=True)
    assert (unit.fast_read, unit.fast_write) == (False, False)
    unit.start()
    assert (unit.fast_read, unit.fast_write) == (True, True)
    unit.close()
    assert (unit.fast_read, unit.fast_write, unit.fd) == (False, False, -1)


@pytest.mark.parametrize("options", [{"read_only": True}, {"write_through": True}])
def test_no_fast_writes(tmp_path: Path, options: dict[str, bool]) -> None:
    unit = _file_host(tmp_path, **options).disk
    assert (unit.fast_read, unit.fast_write) == (True, False)


def test_no_fast_path_without_descriptor() -> None:
    unit = memory().disk
    assert (unit.fd, unit.fast_read, unit.fast_write) == (-1, False, False)


@pytest.mark.parametrize(
    ("cdb", "length", "blocking"),
    [
        (write_10(8, 16), 8192, False),
        (write_10(8, 16, 0x08), 8192, True),  # FUA
        (write_10(8, 16), 4096, True),  # less data than it says
        (_ten(0x2E)(8, 16, 0), 8192, True),
        (TEST_UNIT_READY, 0, False),
        (inquiry(), 0, False),
    ],
)
def test_what_runs_in_a_thread(tmp_path: Path, cdb: bytes, length: int, blocking: bool) -> None:
    task, result = _file_host(tmp_path).begin(cdb, length)
    assert result is None
    assert task.blocking is blocking


@pytest.mark.parametrize(
    ("cdb", "length"),
    [
        (read_10(8, 16), 0),
        (read_10(9, 1), 0),
        (write_10(8, 15), 7680),  # part of the last page
        (write_10(4, 20), 10240),  # of the first
        (write_10(9, 2), 1024),
    ],
)
def test_what_needs_old_data_runs_in_a_thread_unless_it_is_cached(tmp_path: Path, cdb: bytes, length: int) -> None:
    host = _file_host(tmp_path)
    host.write(0, bytes(32 * 512))
    assert not host.begin(cdb, length)[0].blocking
    os.fsync(host.disk.fd)
    os.posix_fadvise(host.disk.fd, 0, 0, os.POSIX_FADV_DONTNEED)
    has_disk = host.disk.read_flags == os.RWF_NOWAIT
    assert host.begin(cdb, length)[0].blocking is has_disk


def test_large_reads_run_in_a_thread(tmp_path: Path) -> None:
    host = disk(file_device(tmp_path, 8 << 20))
    host.write(0, bytes(256 * 512))
    assert host.begin(read_10(0, 256), 0)[0].blocking
    assert host.begin(read_10(0, 128, 0x08), 0)[0].blocking  # FUA


def test_large_writes_run_in_a_thread(tmp_path: Path) -> None:
    host = disk(file_device(tmp_path, 8 << 20))
    task, _ = host.begin(write_16(0, 2048), 1 << 20)
    assert not task.blocking
    task, _ = host.begin(write_16(0, 4096), 2 << 20)
    assert task.blocking


def test_write_through_is_stable_before_good() -> None:
    flushes = Fault(Operation.FLUSH)
    host = disk(FaultDevice(MemoryDevice(1 << 20), [flushes]), write_through=True)
    host.write(0, bytes(512))
    assert flushes.hits == 1


def test_counters() -> None:
    host = memory()
    host.write(0, bytes(1024))
    host.read(0, 4)
    host.ok(TEST_UNIT_READY)
    host.send(bytes([0xFF]))
    counters = host.unit.counters.as_dict()
    assert counters == {
        "errors": 1, "other_ops": 1, "read_bytes": 2048, "read_ops": 1, "write_bytes": 1024, "write_ops": 1,
    }  # fmt: skip


def test_units_that_cannot_be() -> None:
    identity = Identity(UUID_1, "disk")
    with pytest.raises(ValueError, match="block size"):
        LogicalUnit(MemoryDevice(1 << 20), block_size=520, identity=identity)
    with pytest.raises(OSError, match="do not make one block"):
        LogicalUnit(MemoryDevice(2048), block_size=4096, identity=identity)


def test_a_fault_of_this_program_ends_one_command_only(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(MemoryDevice):
        def preadv(self, buffers: object, offset: int) -> None:
            raise ZeroDivisionError("oh")

    host = disk(Broken(1 << 20))
    for _ in range(3):
        host.fail(read_10(0, 1), SenseKey.HARDWARE_ERROR, Asc.INTERNAL_TARGET_FAILURE)
    host.ok(TEST_UNIT_READY)
    assert len(caplog.records) == 1
    assert "READ (10)" in caplog.text
    assert "ZeroDivisionError" in caplog.text
    assert host.unit.counters.errors == 3


def test_data_out_of_any_kind() -> None:
    host = memory()
    for kind in (bytes, bytearray, lambda data: memoryview(bytearray(data))):
        data: Buffer = kind(pattern(2))
        task = Task(host.nexus, write_10(0, 2).ljust(16, b"\0"), data_out_length=1024)
        assert host.unit.begin(task) is None
        task.data_out = data
        assert not host.unit.run(task).sense
        assert host.read(0, 2) == pattern(2)
