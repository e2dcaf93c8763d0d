"""UNMAP, WRITE SAME and GET LBA STATUS, over a real sparse file and over memory."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from blockyard.block.faults import Fault, FaultDevice, Operation
from blockyard.block.file import FileDevice, create
from blockyard.block.memory import MemoryDevice
from blockyard.scsi.sense import Asc, SenseKey
from tests.scsi.host import Host, disk, get_lba_status, inquiry, memory, read_16, unmap, unmap_list, write_same_16

_MISMATCH = Asc.INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT


@pytest.fixture(params=["memory", "file"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Host:
    if request.param == "memory":
        return disk(MemoryDevice(1 << 20))
    create(tmp_path / "disk.img", 1 << 20)
    return disk(FileDevice(tmp_path / "disk.img"))


def status(host: Host, lba: int = 0) -> list[tuple[int, int, int]]:
    data = host.ok(get_lba_status(lba))
    assert int.from_bytes(data[:4], "big") == len(data) - 4
    assert data[4:8] == bytes(4)
    return [struct.unpack_from(">QIB3x", data, at) for at in range(8, len(data), 16)]


def fill(host: Host, lba: int, count: int) -> None:
    host.write(lba, b"x" * (count * host.disk.block_size))


def send_unmap(host: Host, *descriptors: tuple[int, int]) -> None:
    data = unmap_list(*descriptors)
    host.ok(unmap(len(data)), data)


# ---- GET LBA STATUS


def test_status_of_an_empty_disk(host: Host) -> None:
    assert status(host) == [(0, 2048, 1)]
    assert status(host, 2047) == [(2047, 1, 1)]


def test_status_of_written_blocks(host: Host) -> None:
    fill(host, 16, 16)
    assert status(host) == [(0, 16, 1), (16, 16, 0), (32, 2016, 1)]
    assert status(host, 20) == [(20, 12, 0), (32, 2016, 1)]
    assert status(host, 40) == [(40, 2008, 1)]


def test_status_that_is_cut(host: Host) -> None:
    for lba in range(0, 512, 16):
        fill(host, lba, 8)
    assert len(status(host)) == 64
    data = host.ok(get_lba_status(0, 24))
    assert data == struct.pack(">IIQIB3x", 20, 0, 0, 8, 0)
    assert host.ok(get_lba_status(0, 8)) == struct.pack(">II", 20, 0)
    assert host.ok(get_lba_status(0, 0)) == b""


@pytest.mark.parametrize("lba", [2048, 2049, 1 << 63, (1 << 64) - 1])
def test_status_beyond_the_end(lba: int) -> None:
    memory().fail(get_lba_status(lba), SenseKey.ILLEGAL_REQUEST, Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE)


def test_status_where_nothing_can_be_unmapped() -> None:
    assert status(disk(MemoryDevice(1 << 20, granularity=0)), 5) == [(5, 2043, 0)]


def test_status_of_a_run_too_long_for_one_descriptor() -> None:
    host = disk(MemoryDevice(1 << 20, granularity=0))
    host.disk.blocks = (1 << 32) + 10
    assert status(host) == [(0, 0xFFFFFFFF, 0), (0xFFFFFFFF, 11, 0)]


def test_status_of_blocks_larger_than_the_granularity() -> None:
    host = disk(MemoryDevice(1 << 20, granularity=512), block_size=4096)
    device = host.disk.device
    device.pwritev([b"x" * 512], 4096 * 3 + 1024)
    assert status(host) == [(0, 3, 1), (3, 1, 0), (4, 252, 1)]
    device.pwritev([b"x" * 512], 4096 * 4)
    device.pwritev([b"x" * 512], 4096 * 5 + 3584)
    assert status(host) == [(0, 3, 1), (3, 3, 0), (6, 250, 1)]


# ---- UNMAP


def test_unmap_frees(host: Host) -> None:
    fill(host, 0, 2048)
    send_unmap(host, (8, 8), (64, 128))
    assert status(host) == [(0, 8, 0), (8, 8, 1), (16, 48, 0), (64, 128, 1), (192, 1856, 0)]
    assert host.read(0, 200) == b"x" * 4096 + bytes(4096) + b"x" * 48 * 512 + bytes(65536) + b"x" * 4096


def test_unmap_gives_space_back(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    create(path, 1 << 20)
    host = disk(FileDevice(path))
    assert os.stat(path).st_blocks == 0
    fill(host, 0, 2048)
    os.fsync(host.disk.fd)
    full = os.stat(path).st_blocks
    assert full >= 2048
    send_unmap(host, (0, 1024))
    assert os.stat(path).st_blocks == full - 1024
    assert os.stat(path).st_size == 1 << 20
    assert os.lseek(host.disk.fd, 0, os.SEEK_DATA) == 512 << 10


@pytest.mark.parametrize(("lba", "count"), [(1, 6), (3, 9), (7, 2), (0, 1), (2047, 1)])
def test_unaligned_unmap_reads_as_zeros(host: Host, lba: int, count: int) -> None:
    fill(host, 0, 2048)
    send_unmap(host, (lba, count))
    assert host.read(0, 2048) == b"x" * (lba * 512) + bytes(count * 512) + b"x" * ((2048 - lba - count) * 512)


def test_unmap_of_nothing(host: Host) -> None:
    fill(host, 0, 16)
    host.ok(unmap(0))
    send_unmap(host)
    send_unmap(host, (0, 0), (5, 0), (2048, 0))
    assert host.read(0, 16) == b"x" * 8192


def test_unmap_of_many(host: Host) -> None:
    fill(host, 0, 512)
    send_unmap(host, *((lba, 1) for lba in range(0, 512, 2)))
    assert host.read(0, 512) == (bytes(512) + b"x" * 512) * 256


def test_unmap_descriptor_that_is_cut_short(host: Host) -> None:
    fill(host, 0, 16)
    data = unmap_list((0, 8), (8, 8))[:-1]
    host.ok(unmap(len(data)), data)
    assert host.read(0, 16) == bytes(4096) + b"x" * 4096


def test_unmap_takes_the_length_of_its_descriptors_from_their_header(host: Host) -> None:
    fill(host, 0, 16)
    data = bytearray(unmap_list((0, 8), (8, 8)))
    data[2:4] = (16).to_bytes(2, "big")
    host.ok(unmap(len(data)), bytes(data))
    assert host.read(0, 16) == bytes(4096) + b"x" * 4096


@pytest.mark.parametrize("descriptors", [[(2048, 1)], [(2047, 2)], [(0, 8), (1 << 63, 1)], [(2049, 0)]])
def test_unmap_beyond_the_end_changes_nothing(host: Host, descriptors: list[tuple[int, int]]) -> None:
    fill(host, 0, 16)
    data = unmap_list(*descriptors)
    host.fail(unmap(len(data)), SenseKey.ILLEGAL_REQUEST, Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE, data)
    assert host.read(0, 16) == b"x" * 8192


@pytest.mark.parametrize("length", [1, 7])
def test_unmap_with_half_a_header(length: int) -> None:
    memory().fail(unmap(length), SenseKey.ILLEGAL_REQUEST, Asc.PARAMETER_LIST_LENGTH_ERROR, bytes(length))


def test_unmap_with_less_data_than_it_says() -> None:
    data = unmap_list((0, 8))
    memory().fail(unmap(len(data) + 16), SenseKey.ILLEGAL_REQUEST, Asc.PARAMETER_LIST_LENGTH_ERROR, data)


def test_unmap_limits() -> None:
    host = disk(MemoryDevice(1 << 20))
    data = unmap_list(*[(0, 1)] * 257)
    host.fail(
        unmap(len(data)), SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_PARAMETER_LIST, data, pointer=(False, 2, None)
    )
    host.disk.blocks = 1 << 21
    data = unmap_list((0, 1 << 19), (0, (1 << 19) + 1))
    host.fail(
        unmap(len(data)), SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_PARAMETER_LIST, data, pointer=(False, 8, None)
    )


def test_unmap_anchor() -> None:
    memory().invalid(b"\x42\x01" + bytes(8), 1, 0)


def test_unmap_of_a_read_only_unit() -> None:
    data = unmap_list((0, 8))
    disk(MemoryDevice(1 << 20), read_only=True).fail(unmap(len(data)), SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED, data)


def test_unmap_with_write_through() -> None:
    flushes = Fault(Operation.FLUSH)
    host = disk(FaultDevice(MemoryDevice(1 << 20), [flushes]), write_through=True)
    send_unmap(host, (0, 8))
    assert flushes.hits == 1


# ---- WRITE SAME


def _ten(lba: int, count: int, *, unmap: bool = False) -> bytes:
    return struct.pack(">BBIxHx", 0x41, unmap << 3, lba, count)


@pytest.mark.parametrize("length", [10, 16])
@pytest.mark.parametrize("unmap_bit", [False, True])
def test_write_same(host: Host, length: int, unmap_bit: bool) -> None:
    block = bytes(range(256)) * 2
    cdb = (_ten if length == 10 else write_same_16)(3, 100, unmap=unmap_bit)
    host.ok(cdb, block)
    assert host.read(0, 110) == bytes(3 * 512) + block * 100 + bytes(7 * 512)


@pytest.mark.parametrize("length", [10, 16])
def test_write_same_unmaps_zeros(host: Host, length: int) -> None:
    fill(host, 0, 64)
    cdb = (_ten if length == 10 else write_same_16)(16, 16, unmap=True)
    host.ok(cdb, bytes(512))
    assert status(host)[:3] == [(0, 16, 0), (16, 16, 1), (32, 32, 0)]
    assert host.read(16, 16) == bytes(8192)


def test_write_same_without_data(host: Host) -> None:
    fill(host, 0, 64)
    result = host.send(write_same_16(16, 16, unmap=True, ndob=True))
    assert (result.sense, result.expected) == (b"", 0)
    assert status(host)[1] == (16, 16, 1)
    host.ok(write_same_16(0, 8, ndob=True))
    assert host.read(0, 64) == bytes(4096) + b"x" * 4096 + bytes(8192) + b"x" * 16384


def test_write_same_keeps_zeros_mapped() -> None:
    host = disk(MemoryDevice(1 << 20))
    host.ok(write_same_16(16, 16), bytes(512))
    assert status(host)[1] == (16, 16, 0)


@pytest.mark.parametrize("unmap_bit", [False, True])
def test_write_same_of_nothing(unmap_bit: bool) -> None:
    memory().invalid(write_same_16(0, 0, unmap=unmap_bit), 10, 7, bytes(512))
    memory().invalid(_ten(0, 0, unmap=unmap_bit), 7, 7, bytes(512))


def test_write_same_of_nothing_is_all_up_to_the_end_of_a_thick_unit() -> None:
    for cdb in (write_same_16(3, 0), _ten(3, 0)):
        device = MemoryDevice(4 << 20)
        disk(device, thick=True).ok(cdb, b"x" * 512)
        assert device.data == bytes(3 * 512) + b"x" * ((4 << 20) - 3 * 512)
    large = disk(MemoryDevice(32 << 20), thick=True)
    large.invalid(write_same_16(0, 0), 10, 7, bytes(512))  # more than MAXIMUM WRITE SAME LENGTH
    large.ok(write_same_16(32768, 0), bytes(512))
    large.fail(write_same_16(65536, 0), SenseKey.ILLEGAL_REQUEST, Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE, bytes(512))


def test_thick_units_cannot_unmap() -> None:
    host = memory(thick=True)
    host.fail(unmap(24), SenseKey.ILLEGAL_REQUEST, Asc.INVALID_COMMAND_OPERATION_CODE, unmap_list((0, 8)))
    host.invalid(write_same_16(0, 8, unmap=True), 1, 3, bytes(512))
    assert host.ok(inquiry(0xB2))[4:] == bytes(4)


def test_write_same_of_much() -> None:
    host = disk(MemoryDevice(16 << 20))
    block = bytes(range(256)) * 2
    host.ok(write_same_16(1, 32767), block)
    assert host.disk.device.data == bytes(512) + block * 32767  # type: ignore[attr-defined]


def test_write_same_in_pieces_that_do_not_fit() -> None:
    host = disk(MemoryDevice(4 << 20), block_size=4096)
    host.ok(write_same_16(0, 300), b"q" * 4096)
    assert host.read(0, 301) == b"q" * 4096 * 300 + bytes(4096)


@pytest.mark.parametrize(("lba", "count", "byte"), [(0, 32769, 10), (0, 0, 10), (1, 0xFFFFFFFF, 10)])
def test_write_same_limit(lba: int, count: int, byte: int) -> None:
    host = disk(MemoryDevice(32 << 20))
    if count == 0xFFFFFFFF:
        host.fail(
            write_same_16(lba, count), SenseKey.ILLEGAL_REQUEST, Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE, bytes(512)
        )
    else:
        host.invalid(write_same_16(lba, count), byte, 7, bytes(512))


@pytest.mark.parametrize(("lba", "count"), [(2048, 0), (2047, 2), (1 << 63, 0)])
def test_write_same_beyond_the_end(lba: int, count: int) -> None:
    memory().fail(
        write_same_16(lba, count), SenseKey.ILLEGAL_REQUEST, Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE, bytes(512)
    )


@pytest.mark.parametrize("size", [0, 256, 1024])
@pytest.mark.parametrize("unmap_bit", [False, True])
def test_write_same_with_another_length(size: int, unmap_bit: bool) -> None:
    host = memory()
    host.fail(write_same_16(0, 8, unmap=unmap_bit), SenseKey.ILLEGAL_REQUEST, _MISMATCH, bytes(size))
    host.fail(_ten(0, 8, unmap=unmap_bit), SenseKey.ILLEGAL_REQUEST, _MISMATCH, bytes(size))


def test_write_same_flags() -> None:
    host = memory()
    host.invalid(b"\x41\x10" + bytes(8), 1, 4, bytes(512))  # ANCHOR
    host.invalid(b"\x93\x18" + bytes(14), 1, 4, bytes(512))
    host.invalid(b"\x41\x20" + bytes(8), 1, 7, bytes(512))  # WRPROTECT
    host.invalid(b"\x41\x01" + bytes(8), 1, 0, bytes(512))  # NDOB is of the 16-byte form


def test_write_same_cannot_unmap_everywhere() -> None:
    host = disk(MemoryDevice(1 << 20, granularity=0))
    host.invalid(write_same_16(0, 8, unmap=True), 1, 3, bytes(512))
    host.ok(write_same_16(0, 8), b"y" * 512)
    assert host.ok(read_16(0, 8)) == b"y" * 4096


def test_write_same_with_write_through() -> None:
    flushes = Fault(Operation.FLUSH)
    host = disk(FaultDevice(MemoryDevice(1 << 20), [flushes]), write_through=True)
    host.ok(write_same_16(0, 8), b"y" * 512)
    assert flushes.hits == 1
