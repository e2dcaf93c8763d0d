"""Schedules that run: with a clock that is set by hand, and real pools."""

from __future__ import annotations

import select
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from blockyard.block.file import create as create_file
from blockyard.pool.pool import Pool
from blockyard.pool.pool import create as create_pool
from blockyard.pool.schedule import Retention
from blockyard.worker.configuration import Schedule
from blockyard.worker.executor import ThreadExecutor
from blockyard.worker.schedules import Scheduler, volumes_of
from tests.waiting import LIMIT


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


class Fast:
    """What a scheduler sees of an open pool."""

    def __init__(self, pool: Pool) -> None:
        self.name = "fast"
        self.pool = pool

    def then_work_off(self, result: object) -> None:
        while self.pool.work_off():
            pass


class Running:
    """A scheduler, and what it sees of an inventory."""

    def __init__(self, directory: Path, *schedules: Schedule) -> None:
        create_file(directory / "member", 64 << 20)
        create_pool(directory, ["member"])
        self.pool = Pool(directory)
        self.schedules = {schedule.name: schedule for schedule in schedules}
        self.pools = {"fast": Fast(self.pool)}
        self.kept: set[str] = set()
        self.now = at("2026-01-01T10:20")
        self.events: list[tuple[str, str, str]] = []
        self.executor = ThreadExecutor()
        self.restart()

    def shown(self) -> set[str]:
        return self.kept

    def restart(self) -> None:
        self.scheduler = Scheduler(self, self.executor, lambda *event: self.events.append(event), lambda: self.now)  # type: ignore[arg-type]

    def tick(self, now: str) -> list[str]:
        """What snapshots there are of the volume vm when all that was due at a time has been done."""
        self.now = at(now)
        self.scheduler.tick()
        while self.executor.busy:
            assert select.select([self.executor.eventfd], [], [], LIMIT)[0]
            self.executor.complete()
        return [snapshot.name for snapshot in self.pool.snapshots("vm")]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    hourly = Schedule("hourly", "hourly", ("fast/vm*",), Retention(hourly=2, daily=2))
    found = Running(tmp_path, hourly)
    for name in ("vm", "vm2", "db"):
        found.pool.create_volume(name, 1 << 20, 16)
    yield found
    found.executor.close()
    found.pool.close()


def test_snapshots_come_and_go(running: Running) -> None:
    assert running.tick("2026-01-01T10:20") == [], "nothing was due since it began"
    assert running.tick("2026-01-01T10:59:59") == []
    first = ["hourly-2026-01-01T11:00:01Z"]
    assert running.tick("2026-01-01T11:00:01") == first
    assert running.tick("2026-01-01T11:30") == first
    both = [snapshot.time for name in ("vm", "vm2") for snapshot in running.pool.snapshots(name)]
    assert both == [running.now - 1799] * 2, "of both at one moment"
    assert running.pool.snapshots("db") == []
    running.pool.snapshot(["vm"], "mine", at("2026-01-01T11:31"))
    for hour in range(12, 20):
        found = running.tick(f"2026-01-01T{hour}:00")
    assert found == ["mine", "hourly-2026-01-01T18:00:00Z", "hourly-2026-01-01T19:00:00Z"]
    found = running.tick("2026-01-02T00:00")
    assert found == ["mine", "hourly-2026-01-01T19:00:00Z", "hourly-2026-01-02T00:00:00Z"]


def test_missed_runs_are_made_up_for_once(running: Running) -> None:
    running.tick("2026-01-01T10:20")
    running.tick("2026-01-01T11:00")
    running.restart()  # it was down for hours
    assert running.tick("2026-01-01T16:40")[-1] == "hourly-2026-01-01T16:40:00Z"
    assert len(running.tick("2026-01-01T16:59")) == 2
    assert running.tick("2026-01-01T17:00")[-1] == "hourly-2026-01-01T17:00:00Z"


def test_what_is_a_lun_stays(running: Running) -> None:
    running.tick("2026-01-01T10:20")
    running.tick("2026-01-01T11:00")
    running.kept.add("fast/vm@hourly-2026-01-01T11:00:00Z")
    for hour in range(12, 16):
        found = running.tick(f"2026-01-01T{hour}:00")
    assert found[0] == "hourly-2026-01-01T11:00:00Z"
    assert len(found) == 3
    assert len(running.pool.snapshots("vm2")) == 2


def test_a_failure_is_told_and_tried_again(running: Running) -> None:
    running.tick("2026-01-01T10:20")
    running.pool.snapshot(["vm"], "hourly-2026-01-01T11:00:00Z", 1.0)  # somebody has taken the name
    running.restart()
    running.now = at("2026-01-01T10:30")
    running.tick("2026-01-01T12:00")
    running.pool.delete_snapshot("vm", "hourly-2026-01-01T11:00:00Z")
    running.pool.snapshot(["vm"], "hourly-2026-01-01T13:00:00Z", 1.0)
    running.tick("2026-01-01T13:00")
    assert [event[:2] for event in running.events] == [("error", "schedule-failed")]
    assert "schedule hourly in fast: " in running.events[0][2]
    assert running.tick("2026-01-01T13:00:30")[-1] != "hourly-2026-01-01T13:00:30Z"
    assert running.tick("2026-01-01T13:01")[-1] == "hourly-2026-01-01T13:01:00Z"


def test_a_schedule_that_has_changed_begins_anew(running: Running) -> None:
    running.tick("2026-01-01T10:20")
    running.schedules = {"quick": Schedule("quick", "every 5m", ("fast/vm",))}
    running.tick("2026-01-01T10:21")
    found = [running.tick(f"2026-01-01T{moment}")[-1] for moment in ("10:25", "11:00")]
    assert found == ["quick-2026-01-01T10:25:00Z", "quick-2026-01-01T11:00:00Z"]


def test_volumes_by_pool_and_name() -> None:
    schedule = Schedule("s", "hourly", ("fast/vm*", "s*/db", "*/all"))
    names = ["vm1", "db", "all", "x"]
    assert volumes_of(schedule, "fast", names) == ["all", "vm1"]
    assert volumes_of(schedule, "slow", names) == ["all", "db"]
    assert volumes_of(schedule, "other", names) == ["all"]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"at": "often"}, "says no time"),
        ({"zone": "Nowhere"}, "no time zone"),
        ({"volumes": ("vm",)}, "is not POOL/VOLUME"),
        ({"volumes": ()}, "volumes is empty"),
        ({"name": "a/b"}, "name of a snapshot"),
    ],
)
def test_what_is_no_schedule(fields: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Schedule(**({"name": "s", "at": "hourly", "volumes": ("fast/vm",)} | fields))  # type: ignore[arg-type]
