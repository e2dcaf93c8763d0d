"""Volumes of pools that something else is put in the place of."""

from __future__ import annotations

import contextlib
import select
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
    inventory = Inventory(executor, WorkerAdmission(executor, lambda message: None))
    pools = {"fast": Configured("fast", str(tmp_path))}
    inventory.begin(Settled(pools=pools, volumes={"vm": Volume("vm", pool="fast", uuid=UUID)}))
    with contextlib.closing(inventory):
        yield inventory


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), RuntimeError("a fault of ours")])
def test_what_was_shown_is_shown_again_when_it_could_not_be_replaced(
    inventory: Inventory, executor: ThreadExecutor, error: Exception
) -> None:
    before = inventory.units["vm"]
    told: list[Message] = []

    def work() -> None:
        assert not inventory.units
        raise error

    answer(executor, lambda: inventory.replace_beneath("fast/vm", work, nothing_more), told.append)
    while not told:
        assert select.select([executor.eventfd], [], [], 20)[0]
        executor.complete()
    assert "error" in told[0]
    assert inventory.units["vm"] is not before
    assert inventory.shown() == {"fast/vm"}
