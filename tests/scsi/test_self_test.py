"""SEND DIAGNOSTIC, RECEIVE DIAGNOSTIC RESULTS, self-tests and their log."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blockyard.block.faults import Fault, FaultDevice, Operation
from blockyard.block.memory import MemoryDevice
from blockyard.scsi.durable import Durable
from blockyard.scsi.sense import Asc, SenseKey
from blockyard.scsi.task import Result, Status, Task
from blockyard.scsi.taskset import TaskSet
from tests.scsi.host import UUID_1, Host, disk, memory, parse_sense, request_sense
from tests.scsi.test_log import parameters

SHORT_BACKGROUND, EXTENDED_BACKGROUND, ABORT, SHORT, EXTENDED = 1, 2, 4, 5, 6


def send_diagnostic(code: int = 0, *, default: bool = False, pf: bool = False, length: int = 0) -> bytes:
    return bytes([0x1D, code << 5 | pf << 4 | default << 2, 0]) + length.to_bytes(2, "big") + b"\0"


def receive(page: int = 0, pcv: bool = True, length: int = 255) -> bytes:
    return bytes([0x1C, pcv, page]) + length.to_bytes(2, "big") + b"\0"


def results(host: Host) -> list[tuple[int, int]]:
    """Code and result of each self-test, newest first."""
    return [(value[0] >> 5, value[0] & 0x0F) for value in parameters(host, 0x10).values() if any(value)]


@pytest.mark.parametrize(("cdb", "code"), [(send_diagnostic(SHORT), SHORT), (send_diagnostic(EXTENDED), EXTENDED)])
def test_a_sound_disk(cdb: bytes, code: int) -> None:
    host = memory()
    host.ok(cdb)
    assert results(host) == [(code, 0)]
    assert len(parameters(host, 0x10)) == 20


def test_the_default_self_test() -> None:
    host = memory()
    host.ok(send_diagnostic(default=True))
    assert results(host) == []


@pytest.mark.parametrize("size", [512, 4096, 65536, 1 << 20])
def test_disks_of_any_size(size: int) -> None:
    for code in (SHORT, EXTENDED):
        memory(size).ok(send_diagnostic(code))


def test_a_bad_block_is_found_and_named() -> None:
    device = FaultDevice(MemoryDevice(1 << 20))
    host = disk(device)
    host.write(0, bytes(1 << 20))
    device.inject(Fault(Operation.READ, offset=777 * 512, length=512, errno=errno.EIO))
    host.fail(send_diagnostic(EXTENDED), SenseKey.HARDWARE_ERROR, Asc.LOGICAL_UNIT_FAILED_SELF_TEST)
    newest = parameters(host, 0x10)[1]
    assert newest[0] == EXTENDED << 5 | 7
    assert int.from_bytes(newest[4:12], "big") == 777
    assert newest[12:15] == bytes([3, 0x11, 0])


def test_results_outlive_the_process(tmp_path: Path) -> None:
    for _ in range(12):
        host = disk(MemoryDevice(1 << 16), durable=Durable(tmp_path, UUID_1))
        host.ok(send_diagnostic(SHORT))
        host.ok(send_diagnostic(EXTENDED))
    again = disk(MemoryDevice(1 << 16), durable=Durable(tmp_path, UUID_1))
    assert results(again) == [(EXTENDED, 0), (SHORT, 0)] * 10


class Pool:
    """An executor whose jobs run one at a time, when told to."""

    def __init__(self) -> None:
        self.jobs: deque[tuple[Callable[[], Any], Callable[[Any], None]]] = deque()

    def submit(self, job: Callable[[], Any], done: Callable[[Any], None]) -> None:
        self.jobs.append((job, done))

    def step(self) -> None:
        job, done = self.jobs.popleft()
        done(job())


class Background:
    """A disk with a task set, whose pool waits."""

    def __init__(self) -> None:
        self.host = memory(8 << 20)
        self.host.write(0, bytes(8 << 20))
        self.pool = Pool()
        self.tasks = self.host.disk.tasks = TaskSet(self.host.disk, self.pool)

    def send(self, cdb: bytes) -> Result:
        """A command that does not wait for the pool."""
        ended: list[Result] = []
        task = Task(self.host.nexus, cdb.ljust(16, b"\0"), read_length=4096)
        result = self.host.unit.begin(task)
        if result is not None:
            self.tasks.end(task, result)
            return result
        self.tasks.submit(task, lambda _, result: ended.append(result))
        assert ended, "it waits"
        return ended[0]

    def results(self) -> list[tuple[int, int]]:
        return [(value[0] >> 5, value[0] & 0x0F) for value in self.host.disk.self_tests.log() if any(value)]


def test_in_the_background() -> None:
    ground = Background()
    assert ground.send(send_diagnostic(EXTENDED_BACKGROUND)).status == Status.GOOD
    assert ground.results() == [(EXTENDED_BACKGROUND, 0xF)]
    for _ in range(5):
        ground.pool.step()
    told = ground.send(request_sense()).data
    found = parse_sense(bytes(told))
    assert (found.key, found.asc) == (SenseKey.NO_SENSE, Asc.LOGICAL_UNIT_NOT_READY_SELF_TEST_IN_PROGRESS)
    assert int.from_bytes(bytes(told)[16:18], "big") == 0x10000 * 4 // 8
    second = parse_sense(ground.send(send_diagnostic(SHORT)).sense)
    assert (second.key, second.asc) == (SenseKey.NOT_READY, Asc.LOGICAL_UNIT_NOT_READY_SELF_TEST_IN_PROGRESS)
    while ground.pool.jobs:
        ground.pool.step()
    assert ground.results() == [(EXTENDED_BACKGROUND, 0)]
    assert ground.host.unit.gate is None


@pytest.mark.parametrize(("reset", "result"), [(False, 1), (True, 2)])
def test_what_aborts_it(reset: bool, result: int) -> None:
    ground = Background()
    ground.send(send_diagnostic(EXTENDED_BACKGROUND))
    ground.pool.step()
    if reset:
        ground.host.unit.reset()
    else:
        assert ground.send(send_diagnostic(ABORT)).status == Status.GOOD
    while ground.pool.jobs:
        ground.pool.step()
    assert ground.results() == [(EXTENDED_BACKGROUND, result)]


def test_there_is_none_to_abort() -> None:
    memory().invalid(send_diagnostic(ABORT), 1, 7)


def test_diagnostic_pages() -> None:
    host = memory()
    host.ok(send_diagnostic())
    host.ok(send_diagnostic(pf=True, length=4), bytes(4))
    assert host.ok(receive()) == host.ok(receive(pcv=False)) == bytes([0, 0, 0, 1, 0])
    host.invalid(receive(0x40), 2)
    host.fail(
        send_diagnostic(pf=True, length=4), SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_PARAMETER_LIST, b"\x40\0\0\0"
    )
    host.fail(send_diagnostic(pf=True, length=3), SenseKey.ILLEGAL_REQUEST, Asc.PARAMETER_LIST_LENGTH_ERROR, bytes(3))


def test_what_contradicts() -> None:
    host = memory()
    host.invalid(send_diagnostic(3), 1, 7)
    host.invalid(send_diagnostic(SHORT, default=True), 1, 7)
    host.invalid(send_diagnostic(SHORT, length=4), 3, data_out=bytes(4))
