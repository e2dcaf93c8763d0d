"""Snapshots that are taken when schedules say so, and deleted when they may go (pool/schedule.py).

A schedule is about volumes of one or several pools, by patterns. Its snapshots of one pool are taken at one moment. When it ran
last is told by the names of its snapshots, so that nothing else has to be kept: a run that was missed while nobody served is
made up for once. A schedule without any snapshot begins when it is due next.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import NamedTuple

from blockyard.pool.pool import Pool
from blockyard.pool.schedule import chosen, moment_of, parse, snapshot_name, zone
from blockyard.worker.configuration import Schedule
from blockyard.worker.executor import ThreadExecutor
from blockyard.worker.handoff import Message
from blockyard.worker.inventory import Inventory
from blockyard.worker.later import Answer, Later
from blockyard.worker.pools import OpenPool

log = logging.getLogger(__name__)

_AFTER_FAILURE = 60.0  # seconds


class Done(NamedTuple):
    """What a run of a schedule has done in one pool."""

    taken: list[str]  # POOL/VOLUME@SNAPSHOT
    deleted: int
    error: str = ""


def volumes_of(schedule: Schedule, pool: str, names: Collection[str]) -> list[str]:
    """Those volumes of a pool that a schedule is for."""
    here = [pattern.partition("/")[2] for pattern in schedule.volumes if chosen([pool], [pattern.partition("/")[0]])]
    return chosen(names, here)


def last_run(schedule: Schedule, pool: OpenPool) -> float:
    """When a schedule took its newest snapshot in a pool, in seconds since 1970; 0 for never."""
    names = volumes_of(schedule, pool.name, pool.pool.volumes)
    return max(
        (moment for name in names for moment in _moments(schedule, pool.pool, name).values()),
        default=0.0,
    )


def _moments(schedule: Schedule, pool: Pool, volume: str) -> dict[str, float]:
    """The snapshots of a volume that are a schedule's, by their names."""
    found = {snapshot.name: moment_of(schedule.name, snapshot.name) for snapshot in pool.snapshots(volume)}
    return {name: moment for name, moment in found.items() if moment is not None}


def carry_out(schedule: Schedule, pool: OpenPool, now: float, shown: Collection[str]) -> Done:
    """Take a snapshot of all volumes of a schedule that are in a pool, and delete those that may go.

    What is `shown` as a LUN stays. Not for the loop's thread.
    """
    names = volumes_of(schedule, pool.name, pool.pool.volumes)
    if not names:
        return Done([], 0)
    snapshot = snapshot_name(schedule.name, now)
    deleted = 0
    try:
        pool.pool.snapshot(names, snapshot, now)
        for name in names:
            deleted += _expire(schedule, pool, name, shown)
    except (OSError, LookupError) as error:  # LookupError: a volume has just been deleted
        return Done([], deleted, f"schedule {schedule.name} in {pool.name}: {error}")
    return Done([f"{pool.name}/{name}@{snapshot}" for name in names], deleted)


def _expire(schedule: Schedule, pool: OpenPool, volume: str, shown: Collection[str]) -> int:
    moments = _moments(schedule, pool.pool, volume)
    expired = set(schedule.keep.expired(moments.values(), zone(schedule.zone)))
    doomed = [
        name for name, moment in moments.items() if moment in expired and f"{pool.name}/{volume}@{name}" not in shown
    ]
    if doomed:
        pool.pool.delete_snapshots(volume, doomed)
    return len(doomed)


class Scheduler:
    """Runs the schedules of an inventory. For the loop's thread. `clock` is in seconds since 1970."""

    def __init__(
        self,
        inventory: Inventory,
        executor: ThreadExecutor,
        notify: Callable[[str, str, str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._inventory = inventory
        self._executor = executor
        self._notify = notify
        self._clock = clock
        self._began = clock()
        self._due: dict[tuple[Schedule, OpenPool], float] = {}
        self._running: set[tuple[Schedule, OpenPool]] = set()

    def tick(self) -> None:
        """Begin what is due."""
        now = self._clock()
        schedules, pools = self._inventory.schedules, self._inventory.pools
        present = {(schedule, pool) for schedule in schedules.values() for pool in pools.values()}
        self._due = {key: due for key, due in self._due.items() if key in present}
        for key in present - self._running:
            if key not in self._due:
                self._due[key] = self._first_due(*key)
            if self._due[key] <= now:
                self._begin(key, now)

    def _first_due(self, schedule: Schedule, pool: OpenPool) -> float:
        return parse(schedule.at).next_due(last_run(schedule, pool) or self._began, zone(schedule.zone))

    def _begin(self, key: tuple[Schedule, OpenPool], now: float) -> None:
        self._running.add(key)
        self._executor.submit(partial(_attempt, *key, now, self._inventory.shown()), partial(self._ended, key, now))

    def _ended(self, key: tuple[Schedule, OpenPool], now: float, done: Done) -> None:
        schedule, pool = key
        self._running.discard(key)
        self._due[key] = parse(schedule.at).next_due(now, zone(schedule.zone))
        if done.error:
            self._due[key] = min(self._due[key], now + _AFTER_FAILURE)
            self._notify("error", "schedule-failed", done.error)
        if done.deleted:
            pool.then_work_off(None)


def _attempt(schedule: Schedule, pool: OpenPool, now: float, shown: Collection[str]) -> Done:
    try:
        return carry_out(schedule, pool, now, shown)
    except Exception as error:  # whatever it is, the others go on
        log.exception("schedule %s in %s has failed", schedule.name, pool.name)
        return Done([], 0, f"schedule {schedule.name} in {pool.name}: {error!r}")


# ---- requests (see pool_requests.py)


def show_schedules(inventory: Inventory, pool: OpenPool, request: Message) -> Answer:
    """The schedules that are for volumes of a pool: for which, and when they ran last."""

    def look() -> Message:
        found = {}
        for name, schedule in inventory.schedules.items():
            names = volumes_of(schedule, pool.name, pool.pool.volumes)
            if names:
                found[name] = {"volumes": names, "last": last_run(schedule, pool) or None}
        return {"schedules": found}

    return Later(look, lambda found: found)


def run_schedule(inventory: Inventory, pool: OpenPool, request: Message) -> Answer:
    """Run a schedule now in one pool."""
    schedule = inventory.schedules.get(request.get("schedule", ""))
    if schedule is None:
        raise LookupError(f"there is no schedule {request.get('schedule')}: `blockyard schedule list` lists them")

    def tell(done: Done) -> Message:
        pool.then_work_off(None)
        if done.error:
            raise OSError(done.error)
        return {"taken": done.taken, "deleted": done.deleted}

    return Later(partial(carry_out, schedule, pool, time.time(), inventory.shown()), tell)


SCHEDULE_REQUESTS: Mapping[str, Callable[[Inventory, OpenPool, Message], Answer]] = {
    "schedules": show_schedules,
    "run schedule": run_schedule,
}
