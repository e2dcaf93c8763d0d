"""Schedules of snapshots (docs/pools.md)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fastapi import Response
from pydantic import BaseModel, Field

from blockyard.api import schemas
from blockyard.api.configured import Table, add_routes, described
from blockyard.api.context import Context
from blockyard.api.problems import not_found
from blockyard.api.security import Here, Routes, Who
from blockyard.control.roles import NOBODY, Role
from blockyard.worker.configuration import Schedule as Configured

routes = Routes("schedules")
TABLE = Table("schedules", Configured, "schedule", "/schedules/{schedule}", "schedule")


class Schedule(BaseModel):
    """Snapshots that are taken by themselves, and deleted when others have come."""

    name: str
    at: str = Field(description="hourly, daily at 02:00 …")
    zone: str
    volumes: list[str] = Field(description="POOL/VOLUME, with * and ? for any")
    matching: list[str] = Field(description="the volumes that there are of these now")
    last: str | None = Field(description="when it ran, RFC 3339")
    next: str | None
    configuration: dict[str, Any] | None = schemas.field(Configured)


class Ran(BaseModel):
    taken: list[str] = Field(description="POOL/VOLUME@SNAPSHOT")
    deleted: int


@routes.get("/schedules", Role.VIEWER)
async def list_schedules(here: Here) -> list[Schedule]:
    """All schedules, and when they run."""
    return await _schedules(here)


@routes.get("/schedules/{schedule}", Role.VIEWER)
async def get_schedule(schedule: str, here: Here, response: Response) -> Schedule:
    """One of them."""
    described(here, TABLE, schedule, response)
    for each in await _schedules(here):
        if each.name == schedule:
            return each
    raise not_found(f"schedule {schedule!r}")


add_routes(routes, TABLE)


@routes.post("/schedules/{schedule}/run", Role.OPERATOR)
async def run_schedule(schedule: str, here: Here, who: Who) -> Ran:
    """Run it now."""
    if schedule not in here.server.settled.schedules:
        raise not_found(f"schedule {schedule!r}")
    told: dict[str, Any] = await here.command(who, "schedule run", schedule=schedule)
    return Ran(**told)


async def _schedules(here: Context) -> list[Schedule]:
    told: dict[str, dict[str, Any]] = await here.command(NOBODY, "schedules")
    settled = here.server.settled.schedules
    return [
        Schedule(
            name=name,
            at=settled[name].at,
            zone=settled[name].zone,
            volumes=list(settled[name].volumes),
            matching=found["matching"],
            last=_time(found["last"]),
            next=_time(found["next"]),
            configuration=described(here, TABLE, name),
        )
        for name, found in told.items()
    ]


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()
