"""Commands that go on in pieces, and what runs between these."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from blockyard.block.memory import MemoryDevice
from blockyard.scsi.cdb import Command
from blockyard.scsi.nexus import Nexus
from blockyard.scsi.operation import Aborted, Operation, Piece, Steps
from blockyard.scsi.sense import Asc, CheckCondition, SenseKey
from blockyard.scsi.task import Attribute, Result, Status, Task
from blockyard.scsi.taskset import TaskSet
from blockyard.scsi.unit import Identity, LogicalUnit
from tests.scsi.host import PORT, parse_sense


class ByHand:
    """An executor whose jobs run when they are told to."""

    def __init__(self) -> None:
        self.jobs: deque[tuple[Callable[[], Any], Callable[[Any], None]]] = deque()

    def submit(self, job: Callable[[], Any], done: Callable[[Any], None]) -> None:
        self.jobs.append((job, done))

    def step(self) -> None:
        job, done = self.jobs.popleft()
        done(job())

    def drain(self) -> None:
        while self.jobs:
            self.step()


class Bench:
    """Two units with task sets, and a log of what ran."""

    def __init__(self) -> None:
        self.executor = ByHand()
        self.log: list[str] = []
        self.a, self.b = (self._unit(name) for name in "ab")
        self.results: dict[str, Result] = {}

    def _unit(self, name: str) -> LogicalUnit:
        unit = LogicalUnit(MemoryDevice(1 << 20), identity=Identity(uuid4(), name))
        unit.tasks = TaskSet(unit, self.executor)
        return unit

    def tasks(self, unit: LogicalUnit) -> TaskSet:
        assert unit.tasks is not None
        return unit.tasks

    def steps(self, name: str, pieces: int, *units: LogicalUnit) -> Steps:
        for number in range(pieces):
            yield Piece(units, lambda number=number: self.log.append(f"{name}{number}"))  # type: ignore[misc]
        return name.encode()

    def submit(
        self,
        name: str,
        unit: LogicalUnit,
        *,
        pieces: int = 0,
        touches: tuple[LogicalUnit, ...] = (),
        exclusive: bool = False,
        attribute: Attribute = Attribute.SIMPLE,
        steps: Callable[[], Steps] | None = None,
    ) -> Task:
        def run(unit: LogicalUnit, task: Task) -> Any:
            if pieces:
                return steps() if steps else self.steps(name, pieces, *(touches or (unit,)))
            self.log.append(name)
            return b""

        task = Task(Nexus(unit, "iqn.test:host", PORT), bytes(16), attribute=attribute)
        task.command = Command(0xFF, name, 16, (), run, in_pieces=bool(pieces))
        task.exclusive, task.blocking = exclusive, not pieces

        def done(_: Task, result: Result) -> None:
            self.log.append(f"end of {name}")
            self.results[name] = result

        self.tasks(unit).enter(task)
        self.tasks(unit).accept(task)
        self.tasks(unit).submit(task, done)
        return task


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_pieces_run_one_after_another(bench: Bench) -> None:
    bench.submit("copy", bench.a, pieces=3)
    bench.executor.drain()
    assert bench.log == ["copy0", "copy1", "copy2", "end of copy"]
    assert bench.results["copy"].data == b"copy"
    assert len(bench.tasks(bench.a)) == 0
    assert bench.a.gate is None


def test_an_exclusive_command_waits_for_a_piece_and_not_for_the_operation(bench: Bench) -> None:
    bench.submit("copy", bench.a, pieces=3, touches=(bench.a, bench.b))
    bench.submit("compare", bench.b, exclusive=True)
    bench.submit("read", bench.b)
    assert bench.b.gate is not None
    bench.executor.drain()
    assert bench.log[:5] == ["copy0", "compare", "end of compare", "read", "end of read"]
    assert bench.log[5:] == ["copy1", "copy2", "end of copy"]


def test_two_operations_do_not_starve_an_exclusive_command(bench: Bench) -> None:
    bench.submit("x", bench.a, pieces=5)
    bench.submit("y", bench.a, pieces=5)
    bench.submit("compare", bench.a, exclusive=True)
    for _ in range(3):
        bench.executor.step()
    assert bench.log == ["x0", "y0", "compare", "end of compare"]
    bench.executor.drain()


def test_an_ordered_task_waits_for_the_operation_and_lets_its_pieces_pass(bench: Bench) -> None:
    bench.submit("copy", bench.a, pieces=2)
    bench.submit("ordered", bench.a, attribute=Attribute.ORDERED)
    bench.submit("read", bench.a)
    bench.executor.drain()
    assert bench.log == ["copy0", "copy1", "end of copy", "ordered", "end of ordered", "read", "end of read"]


def test_an_ordered_operation_holds_back_what_comes_after(bench: Bench) -> None:
    bench.submit("first", bench.a)
    bench.submit("copy", bench.a, pieces=2, attribute=Attribute.ORDERED)
    bench.submit("read", bench.a)
    bench.executor.drain()
    assert bench.log == ["first", "end of first", "copy0", "copy1", "end of copy", "read", "end of read"]


def test_ordered_operations_across_two_units_do_not_wait_for_each_other(bench: Bench) -> None:
    both = (bench.a, bench.b)
    bench.submit("x", bench.a, pieces=2, touches=both, attribute=Attribute.ORDERED)
    bench.submit("y", bench.b, pieces=2, touches=both, attribute=Attribute.ORDERED)
    bench.submit("compare", bench.a, exclusive=True)
    bench.executor.drain()
    assert {"end of x", "end of y", "end of compare"} <= set(bench.log)
    assert bench.a.gate is bench.b.gate is None


def test_an_operation_that_is_aborted(bench: Bench) -> None:
    task = bench.submit("copy", bench.a, pieces=5)
    bench.executor.step()
    assert not bench.tasks(bench.a).withdraw(task)
    bench.executor.drain()
    assert bench.log == ["copy0", "copy1", "end of copy"]  # what ran when it was aborted has ended


def test_an_operation_that_waits_is_aborted_when_its_turn_comes(bench: Bench) -> None:
    bench.submit("compare", bench.a, exclusive=True)
    task = bench.submit("copy", bench.b, pieces=2, touches=(bench.a,))
    bench.tasks(bench.b).withdraw(task)
    bench.executor.drain()
    assert bench.log == ["compare", "end of compare", "end of copy"]
    assert bench.a.gate is bench.b.gate is None


def test_a_task_that_has_not_begun_is_taken_back(bench: Bench) -> None:
    bench.submit("compare", bench.a, exclusive=True)
    task = bench.submit("copy", bench.a, pieces=2)
    assert bench.tasks(bench.a).withdraw(task)
    bench.executor.drain()
    assert bench.log == ["compare", "end of compare"]


def test_what_a_check_or_a_job_raises_gets_to_the_steps(bench: Bench) -> None:
    protected = CheckCondition(SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED)

    def refuse() -> None:
        raise protected

    def steps() -> Steps:
        with pytest.raises(CheckCondition):
            yield Piece((bench.a,), lambda: bench.log.append("never"), refuse)
        with pytest.raises(ZeroDivisionError):
            yield Piece((bench.a,), lambda: 1 // 0)
        assert (yield Piece((bench.a,), lambda: 42)) == 42
        raise protected

    bench.submit("copy", bench.a, pieces=1, steps=steps)
    bench.executor.drain()
    assert bench.log == ["end of copy"]
    assert bench.results["copy"].status == Status.CHECK_CONDITION
    assert parse_sense(bench.results["copy"].sense).asc == Asc.WRITE_PROTECTED


def test_without_a_task_set_all_of_it_is_done_at_once(bench: Bench) -> None:
    unit = LogicalUnit(MemoryDevice(1 << 20), identity=Identity(uuid4(), "alone"))
    ended: list[object] = []
    Operation(bench.steps("copy", 3000, unit), ended.append).start()
    assert ended == [b"copy"]
    assert len(bench.log) == 3000


def test_aborted_steps_can_clean_up(bench: Bench) -> None:
    def steps() -> Steps:
        try:
            yield Piece((bench.a,), lambda: None)
        except Aborted:
            bench.log.append("cleaned up")
            raise
        return b""

    ended: list[object] = []
    operation = Operation(steps(), ended.append)
    operation.start()
    operation.abort()
    bench.executor.drain()
    assert bench.log == ["cleaned up"]
    assert isinstance(ended[0], Aborted)
