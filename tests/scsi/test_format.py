"""FORMAT UNIT; the work in the background is that of SANITIZE (test_sanitize.py)."""

from __future__ import annotations

import errno
import struct
from pathlib import Path

import pytest

from blockyard.block.faults import Fault, FaultDevice, Operation
from blockyard.block.memory import MemoryDevice
from blockyard.scsi.durable import Durable
from blockyard.scsi.sense import Asc, SenseKey
from blockyard.scsi.task import Status
from tests.scsi.host import (
    UUID_1,
    Host,
    disk,
    get_lba_status,
    inquiry,
    memory,
    mode_select_10,
    mode_sense_10,
    parse_sense,
    read_10,
    request_sense,
)
from tests.scsi.test_sanitize import BLOCK_ERASE, SIZE, Laboratory, sanitize

FMTDATA, LONGLIST, CMPLST = 0x10, 0x20, 0x08
FOV, DCRT, IP, IMMED = 0x80, 0x20, 0x08, 0x02
IN_PROGRESS = (SenseKey.NOT_READY, Asc.LOGICAL_UNIT_NOT_READY_FORMAT_IN_PROGRESS)
CORRUPTED = (SenseKey.MEDIUM_ERROR, Asc.MEDIUM_FORMAT_CORRUPTED)
BAD_LIST = (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_PARAMETER_LIST)


def format_unit(flags: int = 0) -> bytes:
    return bytes([0x04, flags, 0, 0, 0, 0])


def _header(flags: int = 0, *, usage: int = 0, defects: int = 0, long: bool = False) -> bytes:
    return struct.pack(">BBxBI", usage, flags, 0, defects) if long else struct.pack(">BBH", usage, flags, defects)


def _pattern(pattern: bytes = b"", *, kind: int | None = None, first: int = 0) -> bytes:
    return struct.pack(">BBH", first, bool(pattern) if kind is None else kind, len(pattern)) + pattern


@pytest.fixture
def host() -> Host:
    host = memory()
    host.write(7, b"secret".ljust(512))
    return host


@pytest.mark.parametrize(
    ("flags", "data"),
    [
        (0, b""),
        (FMTDATA, _header()),
        (FMTDATA | CMPLST | 6, _header(FOV | DCRT)),
        (FMTDATA | LONGLIST, _header(long=True)),
        (FMTDATA, _header(FOV | IP) + _pattern()),
    ],
)
def test_by_default_all_is_freed(host: Host, flags: int, data: bytes) -> None:
    host.ok(format_unit(flags), data)
    assert host.read(0, 2048) == bytes(1 << 20)
    assert host.ok(get_lba_status(0))[8:] == struct.pack(">QIB3x", 0, 2048, 1)


@pytest.mark.parametrize("pattern", [b"a", b"abc", bytes(range(256)) * 2])
@pytest.mark.parametrize("long", [False, True])
def test_initialization_pattern(host: Host, pattern: bytes, long: bool) -> None:
    host.ok(format_unit(FMTDATA | (LONGLIST if long else 0)), _header(FOV | IP, long=long) + _pattern(pattern))
    assert host.read(0, 2048) == (pattern * 512)[:512] * 2048


def test_security_initialization_writes_over_what_is_there() -> None:
    written: list[int] = []

    class Watched(MemoryDevice):
        def pwritev(self, buffers: object, offset: int) -> None:
            super().pwritev(buffers, offset)  # type: ignore[arg-type]
            written.append(offset)

    host = disk(Watched(1 << 20))
    host.write(8, b"secret".ljust(4096))
    written.clear()
    host.ok(format_unit(FMTDATA), _header(FOV | IP) + _pattern(first=0x20))
    assert written == [4096]
    assert host.read(8, 8) == bytes(4096)


def test_what_the_cdb_cannot_say(host: Host) -> None:
    host.invalid(format_unit(0x80), 1, 7)  # FMTPINFO
    host.invalid(format_unit(LONGLIST), 1, 5)
    host.invalid(format_unit(CMPLST), 1, 3)
    host.invalid(bytes([4, 0, 0, 0, 1, 0]), 4, 1)  # FFMT
    assert host.read(7, 1)[:6] == b"secret"


def test_parameter_lists_that_are_wrong(host: Host) -> None:
    short = (SenseKey.ILLEGAL_REQUEST, Asc.PARAMETER_LIST_LENGTH_ERROR)
    host.fail(format_unit(FMTDATA), *short, b"")
    host.fail(format_unit(FMTDATA), *short, bytes(3))
    host.fail(format_unit(FMTDATA | LONGLIST), *short, bytes(7))
    host.fail(format_unit(FMTDATA), *short, bytes(5000))
    host.fail(format_unit(FMTDATA), *short, _header(FOV | IP) + bytes(3))
    host.fail(format_unit(FMTDATA), *short, _header(FOV | IP) + _pattern(b"abc")[:-1])
    for data, byte, bit in (
        (_header(usage=1), 0, 2),
        (_header(usage=8), 0, 3),
        (_header(1), 1, 0),
        (_header(FOV | 4), 1, 2),
        (_header(DCRT), 1, 5),
        (_header(IP) + _pattern(), 1, 3),
        (_header(defects=8) + bytes(8), 2, None),
        (_header(FOV | IP) + _pattern(first=0x40), 4, 7),
        (_header(FOV | IP) + _pattern(kind=2), 5, None),
        (_header(FOV | IP) + _pattern(kind=1), 6, None),
        (_header(FOV | IP) + _pattern(bytes(513)), 6, None),
    ):
        host.fail(format_unit(FMTDATA), *BAD_LIST, data, pointer=(False, byte, bit))
    host.fail(
        format_unit(FMTDATA | LONGLIST), *BAD_LIST, b"\0\0\0\1\0\0\0\0", pointer=(False, 3, None)
    )  # PROTECTION INTERVAL EXPONENT
    assert host.read(7, 1)[:6] == b"secret"


def test_another_capacity_or_block_length_is_refused_by_mode_select(host: Host) -> None:
    current = host.ok(mode_sense_10(0x0A, flags=0x10))
    for at in (8 + 7, 8 + 14):  # number of blocks; block length
        changed = bytearray(b"\0\0" + current[2:])
        changed[2:4] = b"\0\0"
        changed[at] ^= 1
        host.fail(mode_select_10(len(changed)), *BAD_LIST, bytes(changed))


def test_progress_and_immed() -> None:
    laboratory = Laboratory(MemoryDevice(SIZE))
    _, results = laboratory.submit(format_unit(FMTDATA), _header(FOV | IP | IMMED) + _pattern(b"z"))
    laboratory.executor.step()
    assert results[0].status == Status.GOOD
    assert laboratory.condition() == IN_PROGRESS
    assert laboratory.condition(inquiry()) == (0, 0)
    laboratory.executor.step()
    _, (sense,) = laboratory.submit(request_sense())
    assert parse_sense(bytes(sense.data))[:2] == IN_PROGRESS
    assert sense.data[15:18] == b"\x80\x40\x00"
    laboratory.executor.drain()
    assert laboratory.condition() == (0, 0)


def test_a_medium_whose_format_has_failed(tmp_path: Path) -> None:
    fault = Fault(Operation.WRITE, errno=errno.EIO)
    durable = Durable(tmp_path, UUID_1)
    broken = Laboratory(FaultDevice(MemoryDevice(SIZE), [fault]), durable)
    _, results = broken.submit(format_unit(FMTDATA), _header(FOV | IP) + _pattern(b"z"))
    broken.executor.drain()
    assert parse_sense(results[0].sense)[:2] == (SenseKey.MEDIUM_ERROR, Asc.FORMAT_COMMAND_FAILED)
    again = Laboratory(MemoryDevice(SIZE), durable)
    again.unit.resume()
    for cdb in (read_10(0, 1), bytes(6)):
        assert again.condition(cdb) == CORRUPTED
    assert again.condition(mode_sense_10(0x3F)) == (0, 0)
    for cure in (format_unit(), sanitize(BLOCK_ERASE)):
        other = Laboratory(MemoryDevice(SIZE), Durable(tmp_path, UUID_1))
        _, results = other.submit(cure)
        other.executor.drain()
        assert results[0].status == Status.GOOD
        assert other.condition() == (0, 0)
