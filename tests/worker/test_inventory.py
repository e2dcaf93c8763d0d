"""Volumes of pools that something else is put in the place of."""

from __future__ import annotations

import contextlib
import select
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from blockyard.block.file import create as create_file
from blockyard.block.moving import MovingDevice
from blockyard.pool.pool import Pool
from blockyard.pool.pool import create as create_pool
from blockyard.worker.admission import WorkerAdmission
from blockyard.worker.configuration import Pool as Configured
from blockyard.worker.configuration import Settled, Volume
from blockyard.worker.executor import ThreadExecutor
from blockyard.worker.handoff import Message
from blockyard.worker.inventory import Inventory
from blockyard.worker.jobs import Job
from blockyard.worker.later import Answer, Later, answer, nothing_more
from blockyard.worker.layer_requests import move
from blockyard.worker.opening import current
from blockyard.worker.pool_requests import volumes
from tests.waiting import LIMIT, eventually

UUID = "00000000-0000-0000-0000-00000000000a"


@pytest.fixture
def executor() -> Iterator[ThreadExecutor]:
    executor = ThreadExecutor()
    yield executor
    executor.close()


@pytest.fixture
def inventory(executor: ThreadExecutor, tmp_path: Path) -> Iterator[Inventory]:
    create_file(tmp_path / "member", 64 << 20)
    create_pool(tmp_path, ["member"])
    with Pool(tmp_path) as pool:
        pool.create_volume("vm", 1 << 20, 14)
        pool.create_volume("db", 1 << 20, 14)
        pool.snapshot(["db"], "monday", 0.0)
    inventory = Inventory(executor, WorkerAdmission(executor, lambda message: None))
    pools = {"fast": Configured("fast", str(tmp_path))}
    stack = Volume("old", stack="overlay(pool(fast/db@monday))", uuid=UUID.replace("a", "b"))
    inventory.begin(Settled(pools=pools, volumes={"vm": Volume("vm", pool="fast", uuid=UUID), "old": stack}))
    with contextlib.closing(inventory):
        yield inventory


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), RuntimeError("a fault of ours")])
def test_what_was_shown_is_shown_again_when_it_could_not_be_replaced(
    inventory: Inventory, executor: ThreadExecutor, error: Exception
) -> None:
    before = inventory.units["vm"]
    told: list[Message] = []

    def work() -> None:
        assert "vm" not in inventory.units
        raise error

    answer(executor, lambda: inventory.replace_beneath("fast/vm", work, nothing_more), told.append)
    while not told:
        assert select.select([executor.eventfd], [], [], LIMIT)[0]
        executor.complete()
    assert "error" in told[0]
    assert inventory.units["vm"] is not before
    assert {each for each in inventory.shown() if each.startswith("fast/")} == {"fast/vm", "fast/db@monday"}


def test_what_stands_on_a_volume_or_snapshot(inventory: Inventory) -> None:
    """It is neither taken away nor, as a schedule's, let expire: stacks, and what a job works on."""
    inventory.check_free("fast/db")
    with pytest.raises(ValueError, match="fast/db@monday is beneath old: that has to go first"):
        inventory.check_free("fast/db@monday")
    over = threading.Event()
    job = inventory.jobs.start("create", "a cache", lambda job: str(over.wait()))
    job.claims = frozenset({"pool:fast/db", "file:/srv/ssd.img"})
    try:
        with pytest.raises(ValueError, match="fast/db is beneath create of a cache"):
            inventory.check_free("fast/db")
        assert {"fast/db", "fast/db@monday"} <= inventory.shown()
    finally:
        over.set()
    job.wait()
    inventory.check_free("fast/db")
    assert "fast/db" not in inventory.shown()


def test_what_a_volume_moves_to_is_kept_until_it_is_there(inventory: Inventory, executor: ThreadExecutor) -> None:
    told: list[Message] = []
    wanted = {"volume": "vm", "stack": "pool(fast/db)"}
    answer(executor, lambda: move(inventory, inventory.units["vm"], wanted), told.append)

    def over() -> bool:
        executor.complete()
        return bool(told) and inventory.jobs.find(told[0]["job"]).state != "running"

    eventually(over)
    assert inventory.jobs.find(told[0]["job"]).state == "done", inventory.jobs.find(told[0]["job"]).result
    with pytest.raises(ValueError, match="fast/db is beneath vm"):
        inventory.check_free("fast/db")
    assert "fast/db" in inventory.shown()


def _begin(asked: Answer) -> Message:
    """What is done in a thread and then on the loop's, here."""
    assert isinstance(asked, Later)
    told = asked.then(asked.work())
    assert isinstance(told, dict)
    return told


def test_two_moves_of_a_volume_at_one_time(inventory: Inventory, executor: ThreadExecutor) -> None:
    """The second changes nothing, whether the first has just begun or is done."""
    unit = inventory.units["vm"]
    asked = [move(inventory, unit, {"volume": "vm", "stack": f"memory({size}M)"}) for size in (1, 2, 3)]
    first = inventory.jobs.find(_begin(asked[0])["job"])
    with pytest.raises(ValueError, match="is under way already"):
        _begin(asked[1])
    _over(executor, first)
    late = inventory.jobs.find(_begin(asked[2])["job"])
    _over(executor, late)
    assert (first.state, late.state, late.result) == ("done", "failed", "vm is being moved already")
    moving = current(unit)
    assert isinstance(moving, MovingDevice)
    assert (moving.in_step, moving.new.size, isinstance(moving.below, MovingDevice)) == (True, 1 << 20, False)


def test_a_move_that_is_stopped_before_it_could_begin(inventory: Inventory, executor: ThreadExecutor) -> None:
    """Commands that take long are waited for before the new stack is put there: nothing is left of it afterwards."""
    unit = inventory.units["vm"]
    assert unit.tasks is not None
    unit.tasks.visit(lambda: None)
    job = inventory.jobs.find(_begin(move(inventory, unit, {"volume": "vm", "stack": "memory(1M)"}))["job"])
    job.cancel()
    job.wait()
    assert job.state == "cancelled"
    unit.tasks.leave()
    _comes_about(executor, lambda: isinstance(current(unit), MovingDevice))
    inventory.notice_sizes()
    _comes_about(executor, lambda: not isinstance(current(unit), MovingDevice))


def _over(executor: ThreadExecutor, job: Job) -> None:
    _comes_about(executor, lambda: job.state != "running")


def _comes_about(executor: ThreadExecutor, condition: Callable[[], bool]) -> None:
    """With what is to be done on the loop's thread done here."""

    def look() -> bool:
        executor.complete()
        return condition()

    eventually(look)


def test_a_volume_that_is_deleted_while_all_are_listed(inventory: Inventory) -> None:
    pool = inventory.pools["fast"]
    asked = volumes(inventory, pool, {})
    pool.pool.delete_volume("vm")
    assert list(_begin(asked)["volumes"]) == ["db"]


def test_what_is_to_be_freed_is_told_until_it_is(inventory: Inventory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what was deleted while what was before was just done."""
    pool, inside, go_on = inventory.pools["fast"], threading.Semaphore(0), threading.Semaphore(0)

    def work_off() -> bool:
        inside.release()
        assert go_on.acquire(timeout=LIMIT)
        return False

    monkeypatch.setattr(pool.pool, "work_off", work_off)
    try:
        assert inside.acquire(timeout=LIMIT)
        pool.then_work_off(None)
        go_on.release()
        assert inside.acquire(timeout=LIMIT)
        assert pool.freeing
        go_on.release()
        eventually(lambda: not pool.freeing)
    finally:
        go_on.release(100)
