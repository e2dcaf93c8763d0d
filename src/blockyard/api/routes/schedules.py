"""Schedules of snapshots (docs/pools.md)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, Field

from blockyard.api.context import Context
from blockyard.api.problems import not_found
from blockyard.api.security import Here, Routes, Who
from blockyard.control.roles import NOBODY, Role

routes = Routes("schedules")


class Schedule(BaseModel):
    """Snapshots that are taken by themselves, and deleted when others have come."""

    name: str
    at: str = Field(description="hourly, daily at 02:00 …")
    zone: str
    volumes: list[str] = Field(description="POOL/VOLUME, with * and ? for any")
    matching: list[str] = Field(description="the volumes that there are of these now")
    last: str | None = Field(description="when it ran, RFC 3339")
    next: str | None


class Ran(BaseModel):
    taken: list[str] = Field(description="POOL/VOLUME@SNAPSHOT")
    deleted: int


@routes.get("/schedules", Role.VIEWER)
async def list_schedules(here: Here) -> list[Schedule]:
    """All schedules, and when they run."""
    return await _schedules(here)


@routes.get("/schedules/{schedule}", Role.VIEWER)
async def get_schedule(schedule: str, here: Here) -> Schedule:
    """One of them."""
    for each in await _schedules(here):
        if each.name == schedule:
            return each
    raise not_found(f"schedule {schedule!r}")


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
        )
        for name, found in told.items()
    ]


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()
