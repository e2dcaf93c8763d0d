"""The thread pool for what would block."""

from __future__ import annotations

import functools
import select
import threading
from collections.abc import Iterator

import pytest

from blockyard.worker.executor import ThreadExecutor


@pytest.fixture
def executor() -> Iterator[ThreadExecutor]:
    executor = ThreadExecutor(limit=4)
    yield executor
    executor.close()


def drain(executor: ThreadExecutor) -> None:
    while executor.busy:
        assert select.select([executor.eventfd], [], [], 120)[0], "no completion came"
        executor.complete()


def test_results_come_back_on_the_calling_thread(executor: ThreadExecutor) -> None:
    results: list[tuple[int, bool, bool]] = []
    here = threading.get_ident()

    def job(number: int) -> tuple[int, bool]:
        return number, threading.get_ident() != here

    for number in range(100):
        executor.submit(
            functools.partial(job, number),
            lambda result: results.append((*result, threading.get_ident() == here)),
        )
    drain(executor)
    assert sorted(results) == [(number, True, True) for number in range(100)]


def test_jobs_run_side_by_side_up_to_the_limit(executor: ThreadExecutor) -> None:
    before = {*threading.enumerate()}
    together = threading.Barrier(4, timeout=120)
    results: list[int] = []
    for _ in range(8):
        executor.submit(together.wait, results.append)
    drain(executor)
    assert sorted(results) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert sum(thread.name.startswith("io-") for thread in {*threading.enumerate()} - before) <= 4


def test_a_completion_may_submit_more(executor: ThreadExecutor) -> None:
    results: list[int] = []

    def again(result: int) -> None:
        results.append(result)
        if result < 5:
            executor.submit(lambda: result + 1, again)

    executor.submit(lambda: 0, again)
    drain(executor)
    assert results == [0, 1, 2, 3, 4, 5]


def test_complete_without_work_does_nothing(executor: ThreadExecutor) -> None:
    executor.complete()
    assert executor.busy == 0


def test_who_waits_in_a_branch_keeps_nobody_else_waiting(executor: ThreadExecutor) -> None:
    gate, results = threading.Event(), [""]
    branch = executor.branch(limit=2)
    for _ in range(8):
        branch.submit(gate.wait, lambda result: results.append("waited"))
    executor.submit(lambda: "quick", results.append)
    while results == [""]:
        assert select.select([executor.eventfd], [], [], 120)[0], "no completion came"
        executor.complete()
    assert results == ["", "quick"]
    assert executor.busy == 8
    gate.set()
    drain(executor)
    assert results[2:] == ["waited"] * 8
    executor.cut(branch)
    assert executor.busy == 0
