"""SANITIZE, and the work in the background that FORMAT UNIT does too."""

from __future__ import annotations

import errno
import struct
from pathlib import Path

import pytest

from blockyard.block.cipher.administration import create_cipher, open_cipher
from blockyard.block.cipher.luks2 import DATA_AT
from blockyard.block.cipher.sources import Encryption, Formatting
from blockyard.block.device import Device
from blockyard.block.faults import Fault, FaultDevice, Operation
from blockyard.block.file import FileDevice, create
from blockyard.block.layers import Opening
from blockyard.block.memory import MemoryDevice
from blockyard.scsi.durable import Durable
from blockyard.scsi.sense import Asc, SenseKey
from blockyard.scsi.task import Attribute, Result, Status, Task
from blockyard.scsi.taskset import TaskSet
from tests.scsi.host import (
    TEST_UNIT_READY,
    UUID_1,
    Host,
    disk,
    get_lba_status,
    inquiry,
    memory,
    mode_sense_6,
    parse_sense,
    read_10,
    ready_host,
    report_luns,
    request_sense,
    start_stop,
    supported_opcodes,
    target,
    write_10,
)
from tests.scsi.test_atomic import write_atomic
from tests.scsi.test_operation import ByHand

OVERWRITE, BLOCK_ERASE, CRYPTO, EXIT = 1, 2, 3, 0x1F
SIZE = 16 << 20
IN_PROGRESS = (SenseKey.NOT_READY, Asc.LOGICAL_UNIT_NOT_READY_SANITIZE_IN_PROGRESS)
FAILED = (SenseKey.MEDIUM_ERROR, Asc.SANITIZE_COMMAND_FAILED)


def sanitize(action: int, length: int = 0, *, immed: bool = False, ause: bool = False) -> bytes:
    return struct.pack(">BBxxxxxHx", 0x48, immed << 7 | ause << 5 | action, length)


def pattern_list(pattern: bytes, *, count: int = 1, invert: bool = False, test: int = 0) -> bytes:
    return bytes([invert << 7 | test << 5 | count, 0]) + len(pattern).to_bytes(2, "big") + pattern


class Laboratory:
    """A disk whose threads run when they are told to, and hosts on it."""

    def __init__(self, device: Device, durable: Durable | None = None, **options: object) -> None:
        self.target = target(device, durable=durable or Durable(None, UUID_1), **options)
        self.host = ready_host(self.target)
        self.executor = ByHand()
        self.unit = self.host.disk
        self.unit.tasks = TaskSet(self.unit, self.executor)

    def submit(self, cdb: bytes, data: bytes = b"", *, host: Host | None = None) -> tuple[Task, list[Result]]:
        """Send a command to the task set; its result, once there is one, is in the list."""
        over = host or self.host
        task = Task(over.nexus, cdb.ljust(16, b"\0"), attribute=Attribute.SIMPLE, data_out_length=len(data))
        results: list[Result] = []
        failed = self.unit.begin(task)
        if failed is not None:
            return task, [failed]
        task.data_out = data
        assert self.unit.tasks is not None
        self.unit.tasks.submit(task, lambda _, result: results.append(result))
        return task, results

    def condition(self, cdb: bytes = TEST_UNIT_READY, data: bytes = b"") -> tuple[int, int]:
        """How a command ends that is answered at once: sense key and additional sense code, or zeros."""
        _, (result,) = self.submit(cdb, data)
        if result.status == Status.GOOD:
            return 0, 0
        return parse_sense(result.sense)[:2]

    def progress(self) -> int:
        """PROGRESS INDICATION as REQUEST SENSE reports it."""
        _, (result,) = self.submit(request_sense())
        assert parse_sense(bytes(result.data))[:2] == IN_PROGRESS
        assert result.data[15] == 0x80
        return int.from_bytes(result.data[16:18], "big")


@pytest.fixture
def laboratory() -> Laboratory:
    return Laboratory(MemoryDevice(SIZE))


# ---- what it does to the medium


@pytest.mark.parametrize("length", [1, 4, 5, 511, 512])
def test_overwrite(length: int) -> None:
    host = memory()
    host.write(7, b"secret".ljust(512))
    pattern = bytes(range(1, 256)) * 3
    host.ok(sanitize(OVERWRITE, 4 + length), pattern_list(pattern[:length]))
    assert host.read(0, 2048) == (pattern[:length] * 512)[:512] * 2048


@pytest.mark.parametrize("count", [1, 2, 3, 31])
def test_overwriting_inverted_ends_with_the_pattern(count: int) -> None:
    writes: list[int] = []

    class Watched(MemoryDevice):
        def pwritev(self, buffers: object, offset: int) -> None:
            super().pwritev(buffers, offset)  # type: ignore[arg-type]
            writes.append(buffers[0][0])  # type: ignore[index]

    host = disk(Watched(1 << 20))
    host.ok(sanitize(OVERWRITE, 5), pattern_list(b"\x0f", count=count, invert=True))
    assert writes == [0x0F if (count - number) % 2 else 0xF0 for number in range(count)]
    assert host.read(5, 1) == b"\x0f" * 512


@pytest.mark.parametrize("action", [BLOCK_ERASE, CRYPTO])
@pytest.mark.parametrize("granularity", [0, 4096])
def test_erase(action: int, granularity: int) -> None:
    host = disk(MemoryDevice(1 << 20, granularity=granularity))
    host.write(7, b"secret".ljust(512))
    host.ok(sanitize(action))
    assert host.read(0, 2048) == bytes(1 << 20)
    if granularity:
        assert host.ok(get_lba_status(0))[8:] == struct.pack(">QIB3x", 0, 2048, 1)


@pytest.mark.parametrize("discard", [False, True])
def test_cryptographic_erase_throws_the_key_away(discard: bool) -> None:
    """What was written cannot be read any more; where space is given back, zeros are."""
    opening = Opening(secret=lambda name: name.encode())
    disk = MemoryDevice(DATA_AT + SIZE)
    create_cipher([disk], Formatting(secret="k", kdf="pbkdf2", time=1000), opening)
    device = open_cipher([disk], Encryption(secret="k", discard=discard), opening)
    host = ready_host(target(device))
    host.ok(write_10(0, 8), b"x" * 4096)
    stored = bytes(disk.data[DATA_AT : DATA_AT + 4096])
    host.ok(sanitize(CRYPTO))
    found = host.ok(read_10(0, 8))
    assert found == bytes(4096) if discard else len(set(found)) > 200
    disk.data[DATA_AT : DATA_AT + 4096] = stored
    again = open_cipher([disk], Encryption(secret="k"), opening)
    data = bytearray(4096)
    again.preadv([memoryview(data)], 0)
    assert data != b"x" * 4096, "the old key would have read that"


def test_overwriting_with_zeros_leaves_holes_alone(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    create(path, SIZE)
    host = disk(FileDevice(path))
    host.write(4096, b"x" * 4096)
    host.ok(sanitize(OVERWRITE, 5), pattern_list(b"\0"))
    assert host.read(4096, 8) == bytes(4096)
    assert path.stat().st_blocks * 512 < 1 << 20


def test_the_journal_of_atomic_writes_is_erased_too(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    create(path, 1 << 20)
    host = disk(FileDevice(path), durable=Durable(tmp_path, UUID_1))
    host.ok(write_atomic(0, 8), b"secret! " * 512)
    journal = tmp_path / f"{UUID_1}.atomic"
    assert b"secret" in journal.read_bytes()
    host.ok(sanitize(BLOCK_ERASE))
    assert journal.read_bytes() == b""


def test_vpd_says_that_blocks_can_be_read_after_it() -> None:
    assert memory().ok(inquiry(0xB1))[7] == 0x50  # WABEREQ, WACEREQ


# ---- what it refuses


def test_parameter_lists() -> None:
    host = memory()
    for length in (*range(5), 517):
        host.invalid(sanitize(OVERWRITE, length), 7, 7, bytes(length))
    for action in (BLOCK_ERASE, CRYPTO, EXIT):
        host.invalid(sanitize(action, 8), 7, 7, bytes(8))
    host.fail(sanitize(OVERWRITE, 5), SenseKey.ILLEGAL_REQUEST, Asc.PARAMETER_LIST_LENGTH_ERROR, bytes(4))
    bad = (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_PARAMETER_LIST)
    host.fail(sanitize(OVERWRITE, 5), *bad, pattern_list(b"x", count=0), pointer=(False, 0, 4))
    host.fail(sanitize(OVERWRITE, 5), *bad, pattern_list(b"x", test=1), pointer=(False, 0, 6))
    host.fail(sanitize(OVERWRITE, 5), *bad, b"\x01\0\0\0x", pointer=(False, 2, None))
    host.fail(sanitize(OVERWRITE, 5), *bad, b"\x01\0\0\2x", pointer=(False, 2, None))
    host.ok(TEST_UNIT_READY)


def test_write_protected() -> None:
    host = disk(MemoryDevice(1 << 20), read_only=True)
    host.fail(sanitize(BLOCK_ERASE), SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED)


# ---- while it goes on


def test_immed_returns_at_once_and_others_are_told(laboratory: Laboratory) -> None:
    _, results = laboratory.submit(sanitize(OVERWRITE, 5, immed=True), pattern_list(b"z"))
    laboratory.executor.step()  # the command itself
    assert [result.status for result in results] == [Status.GOOD]
    for cdb in (TEST_UNIT_READY, read_10(0, 1), start_stop(0), sanitize(BLOCK_ERASE), mode_sense_6(0x3F)):
        assert laboratory.condition(cdb) == IN_PROGRESS
    temperature, functions = bytes([0x4D, 0, 0x4D, 0, 0, 0, 0, 0, 64, 0]), bytes([0xA3, 0x0D, *[0] * 7, 16, 0, 0])
    for cdb in (inquiry(), report_luns(), supported_opcodes(), temperature, functions):
        assert laboratory.condition(cdb) == (0, 0)
    assert not laboratory.unit.fast_read
    seen = []
    while laboratory.unit.overhaul is not None:
        seen.append(laboratory.progress())
        laboratory.executor.step()
    assert seen == [0, 0x4000, 0x8000, 0xC000, 0xFFFF]  # 4 MiB at a time; the last piece is the flush
    assert laboratory.condition() == (0, 0)
    assert laboratory.unit.device.data == b"z" * SIZE  # type: ignore[attr-defined]


def test_without_immed_the_status_comes_at_the_end(laboratory: Laboratory) -> None:
    _, results = laboratory.submit(sanitize(OVERWRITE, 5), pattern_list(b"z"))
    laboratory.executor.step()
    while laboratory.unit.overhaul is not None:
        assert not results
        assert laboratory.condition() == IN_PROGRESS
        laboratory.executor.step()
    assert [result.status for result in results] == [Status.GOOD]


def test_aborting_the_task_does_not_end_it(laboratory: Laboratory) -> None:
    task, results = laboratory.submit(sanitize(OVERWRITE, 5), pattern_list(b"z"))
    laboratory.executor.step()
    assert laboratory.unit.tasks is not None
    assert laboratory.unit.tasks.withdraw(task)
    laboratory.unit.reset()
    laboratory.condition()
    assert laboratory.condition() == IN_PROGRESS
    laboratory.executor.drain()
    assert not results
    assert laboratory.condition() == (0, 0)
    assert laboratory.unit.device.data == b"z" * SIZE  # type: ignore[attr-defined]


def test_what_waited_for_its_turn_is_refused(laboratory: Laboratory) -> None:
    laboratory.submit(sanitize(BLOCK_ERASE, immed=True))
    _, results = laboratory.submit(write_10(0, 1), b"x" * 512)  # it has begun before anybody knew
    laboratory.executor.drain()
    assert parse_sense(results[0].sense)[:2] == IN_PROGRESS
    assert laboratory.unit.device.data == bytes(SIZE)  # type: ignore[attr-defined]


def test_a_rate_is_kept() -> None:
    """At 64 KiB/s a piece is of 8 KiB, and takes an eighth of a second."""
    slow = Laboratory(MemoryDevice(SIZE), background_rate=64 << 10)
    slow.submit(sanitize(OVERWRITE, 5, immed=True), pattern_list(b"z"))
    slow.executor.step()
    slow.executor.step()
    assert slow.unit.overhaul is not None
    assert slow.unit.overhaul.done == 8 << 10


# ---- restarts and failures


@pytest.fixture
def served(tmp_path: Path) -> Laboratory:
    create(tmp_path / "disk.img", SIZE)
    return _serve(tmp_path)


def _serve(directory: Path, *, fault: Fault | None = None) -> Laboratory:
    device: Device = FileDevice(directory / "disk.img")
    if fault is not None:
        device = FaultDevice(device, [fault])
    laboratory = Laboratory(device, Durable(directory / "units", UUID_1))
    laboratory.unit.resume()
    return laboratory


@pytest.mark.parametrize("pieces", [0, 1, 3])
def test_it_goes_on_after_a_restart(served: Laboratory, pieces: int, tmp_path: Path) -> None:
    served.submit(sanitize(OVERWRITE, 5, immed=True), pattern_list(b"z", count=2, invert=True))
    for _ in range(1 + pieces):
        served.executor.step()
    served.unit.device.close()  # the process dies: nothing else happens in it
    again = _serve(tmp_path)
    assert again.condition() == IN_PROGRESS
    again.executor.drain()
    assert again.condition() == (0, 0)
    assert (tmp_path / "disk.img").read_bytes() == b"z" * SIZE
    again.unit.close()
    assert _serve(tmp_path).condition() == (0, 0)


def test_a_unit_that_is_closed_stops_and_goes_on_later(served: Laboratory, tmp_path: Path) -> None:
    served.submit(sanitize(OVERWRITE, 5, immed=True), pattern_list(b"z"))
    served.executor.step()
    served.unit.close()
    served.executor.drain()
    again = _serve(tmp_path)
    assert again.condition() == IN_PROGRESS
    again.executor.drain()
    assert again.condition() == (0, 0)


@pytest.mark.parametrize("immed", [False, True])
def test_failure_mode(tmp_path: Path, immed: bool) -> None:
    create(tmp_path / "disk.img", SIZE)
    broken = _serve(tmp_path, fault=Fault(Operation.WRITE, offset=8 << 20, length=512, errno=errno.ENOSPC))
    _, results = broken.submit(sanitize(OVERWRITE, 5, immed=immed, ause=True), pattern_list(b"z"))
    broken.executor.drain()
    if immed:
        assert results[0].status == Status.GOOD
    else:
        assert parse_sense(results[0].sense)[:2] == FAILED
    for cdb in (TEST_UNIT_READY, read_10(0, 1)):
        assert broken.condition(cdb) == FAILED
    assert broken.condition(inquiry()) == (0, 0)
    broken.unit.device.close()
    again = _serve(tmp_path)  # it stays so
    again.executor.drain()
    assert again.condition() == FAILED
    again.submit(sanitize(EXIT))
    again.executor.drain()
    assert again.condition() == (0, 0)


def test_restricted_completion_mode(tmp_path: Path) -> None:
    create(tmp_path / "disk.img", SIZE)
    broken = _serve(tmp_path, fault=Fault(Operation.WRITE, errno=errno.EIO))
    broken.submit(sanitize(OVERWRITE, 5), pattern_list(b"z"))
    broken.executor.drain()
    broken.unit.device.close()
    again = _serve(tmp_path)
    invalid = (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)
    assert again.condition(sanitize(EXIT)) == invalid
    assert again.condition(sanitize(BLOCK_ERASE, ause=True)) == invalid
    _, results = again.submit(sanitize(BLOCK_ERASE))
    again.executor.drain()
    assert results[0].status == Status.GOOD
    assert again.condition() == (0, 0)


def test_exit_failure_mode_of_what_has_not_failed() -> None:
    memory().ok(sanitize(EXIT))
