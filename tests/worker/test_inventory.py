"""Volumes of pools that something else is put in the place of."""

from __future__ import annotations

import contextlib
import select
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from blockyard.block.file import create as create_file
from blockyard.pool.pool import Pool
from blockyard.pool.pool import create as create_pool
from blockyard.worker.admission import WorkerAdmission
from blockyard.worker.configuration import Pool as Configured
from blockyard.worker.configuration import Settled, Volume
from blockyard.worker.executor import ThreadExecutor
from blockyard.worker.handoff import Message
from blockyard.worker.inventory import Inventory
from blockyard.worker.later import answer, nothing_more
from blockyard.worker.layer_requests import move
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
