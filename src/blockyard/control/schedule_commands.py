"""What can be asked of a server about schedules of snapshots: the workers that have the pools open know more."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from blockyard.block import records
from blockyard.control.command import Command
from blockyard.control.errors import ControlError, UsageError
from blockyard.control.roles import Role
from blockyard.pool.schedule import parse, zone

if TYPE_CHECKING:
    from blockyard.control.administration import Request
    from blockyard.control.server import Server


async def schedules(server: Server, request: Request) -> dict[str, Any]:
    """All schedules: what they say, what they are for, when they ran last and run next."""
    now = time.time()
    found: dict[str, Any] = {
        name: {**records.write(schedule), "matching": [], "last": None,
               "next": parse(schedule.at).next_due(now, zone(schedule.zone))}
        for name, schedule in server.settled.schedules.items()
    }  # fmt: skip
    for pool in server.settled.pools if found else ():
        try:
            told = await server.supervisor.ask_pool(pool, {"request": "schedules"})
        except ControlError:  # it is not open now: `pool list` says why
            continue
        for name, here in told["schedules"].items():
            if name in found:
                found[name]["matching"] += [f"{pool}/{volume}" for volume in here["volumes"]]
                found[name]["last"] = max(filter(None, (found[name]["last"], here["last"])), default=None)
    return found


async def schedule_run(server: Server, request: Request) -> dict[str, Any]:
    """Run a schedule now; the snapshots that it has taken, and how many it has deleted."""
    name = request.get("schedule")
    if name not in server.settled.schedules:
        raise UsageError(f"there is no schedule {name}: `blockyard schedule list` lists them")
    taken: list[str] = []
    deleted = 0
    for pool in server.settled.pools:
        told = await server.supervisor.ask_pool(pool, {"request": "run schedule", "schedule": name})
        taken += told["taken"]
        deleted += told["deleted"]
    if not taken:
        raise UsageError(
            f"no volume is called as the schedule {name} says: {', '.join(server.settled.schedules[name].volumes)}"
        )
    return {"taken": taken, "deleted": deleted}


SCHEDULE_COMMANDS = {
    "schedules": Command(schedules, Role.VIEWER),
    "schedule run": Command(schedule_run, Role.OPERATOR),
}
