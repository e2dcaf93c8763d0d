"""Jobs: what takes long enough that somebody will want to watch it, or to stop it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from urllib.parse import quote

from fastapi import Response
from pydantic import BaseModel, Field

from blockyard.api.context import Context
from blockyard.api.problems import not_found
from blockyard.api.security import Here, Routes, Who
from blockyard.control.jobs import all_jobs, cancel, pause, resume
from blockyard.control.roles import Identity, Role
from blockyard.control.server import Server

routes = Routes("jobs")

Tell = Callable[[Server, dict[str, Any]], Awaitable[None]]


class Job(BaseModel):
    """What goes on, or has been done of late: in a pool, in the layers of a volume, with discs or cartridges."""

    id: str = Field(description="POOL.NUMBER, layers:WORKER.NUMBER, drive:NAME.NUMBER, library:NAME.NUMBER or the like")
    pool: str | None = Field(None, description="that it is of")
    volume: str | None = Field(None, description="whose layers it is about")
    drive: str | None = Field(None, description="the optical drive whose server copies a disc")
    library: str | None = Field(None, description="the tape library whose cartridge is copied")
    number: int | None = Field(description="none for what goes on by itself: a rebuild, a reshape, a resync")
    kind: str = Field(description="check, scrub, copy, move, rebuild …")
    subject: str = Field(description="what it is about: POOL, POOL/VOLUME, VOLUME: LAYER …")
    unit: str = Field(description="what is counted: bytes, chunks …")
    done: int
    total: int = Field(description="0: nobody knows")
    state: str = Field(description="running, paused, done, failed or cancelled")
    result: str = Field(description="for people")
    details: Any = Field(description="the result, for programs")
    began: float | None = Field(description="seconds since 1970; none for what goes on by itself")
    ended: float | None
    can_cancel: bool
    can_pause: bool
    can_resume: bool


class Started(BaseModel):
    """Long work has begun."""

    job: str = Field(description="its id: GET /jobs/{id} tells how far it is, DELETE stops it")


@routes.get("/jobs", Role.VIEWER, of=("jobs",))
async def list_jobs(here: Here) -> list[Job]:
    """All of them, the oldest first; what goes on by itself, last."""
    return [Job(**job) for job in await here.shared("jobs", partial(all_jobs, here.server))]


@routes.get("/jobs/{job}", Role.VIEWER)
async def get_job(job: str, here: Here) -> Job:
    """How far it is."""
    return Job(**await _job(here, job))


@routes.delete("/jobs/{job}", Role.OPERATOR, status_code=202)
async def cancel_job(job: str, here: Here, who: Who) -> Job:
    """Have it stop; it says in its state when it has.

    A rebuild or resync of an array is paused by that, and goes on by POST /jobs/{job}/resume. A reshape can only be paused.
    """
    return await _told(here, who, job, cancel, "cancelled")


@routes.post("/jobs/{job}/pause", Role.OPERATOR)
async def pause_job(job: str, here: Here, who: Who) -> Job:
    """Let a rebuild, reshape or resync of an array rest: it stays as it is, until it is resumed or opened again."""
    return await _told(here, who, job, pause, "paused")


@routes.post("/jobs/{job}/resume", Role.OPERATOR)
async def resume_job(job: str, here: Here, who: Who) -> Job:
    """Let it go on."""
    return await _told(here, who, job, resume, "resumed")


async def _told(here: Context, who: Identity, name: str, tell: Tell, told: str) -> Job:
    found = await _job(here, name)
    await tell(here.server, found)
    here.record(who, f"job {name} {told}: {found['kind']} of {found['subject']}", None, None)
    return Job(**await _job(here, name))


async def _job(here: Context, name: str) -> dict[str, Any]:
    for job in await all_jobs(here.server):
        if job["id"] == name:
            return job
    raise not_found(f"job {name!r}")


def started(response: Response, owner: str, number: int) -> Started:
    """The answer to what has begun a job of a pool, "drive:NAME" or "library:NAME"."""
    response.headers["Location"] = f"/api/v1/jobs/{quote(owner)}.{number}"
    return Started(job=f"{owner}.{number}")
