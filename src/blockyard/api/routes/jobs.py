"""Jobs: what takes long enough that somebody will want to watch it, or to stop it."""

from __future__ import annotations

from typing import Any

from fastapi import Response
from pydantic import BaseModel, Field

from blockyard.api.context import Context
from blockyard.api.problems import not_found
from blockyard.api.routes.pools import ask
from blockyard.api.security import Here, Routes
from blockyard.control.errors import ControlError
from blockyard.control.roles import Role

routes = Routes("jobs")


class Job(BaseModel):
    """What goes on, or has been done of late, in a pool."""

    id: str = Field(description="POOL.NUMBER")
    pool: str
    number: int
    kind: str = Field(description="check, scrub, copy …")
    subject: str = Field(description="what it is about: POOL, POOL/VOLUME …")
    unit: str = Field(description="what is counted: bytes, chunks …")
    done: int
    total: int = Field(description="0: nobody knows")
    state: str = Field(description="running, done, failed or cancelled")
    result: str = Field(description="for people")
    details: Any = Field(description="the result, for programs")
    began: float = Field(description="seconds since 1970")
    ended: float | None


class Started(BaseModel):
    """Long work has begun."""

    job: str = Field(description="its id: GET /jobs/{id} tells how far it is, DELETE stops it")


@routes.get("/jobs", Role.VIEWER)
async def list_jobs(here: Here) -> list[Job]:
    """Those of all pools, the oldest first."""
    return sorted(await jobs_of(here), key=lambda job: job.began)


@routes.get("/jobs/{job}", Role.VIEWER)
async def get_job(job: str, here: Here) -> Job:
    """How far it is."""
    return await _job(here, job)


@routes.delete("/jobs/{job}", Role.OPERATOR, status_code=202)
async def cancel_job(job: str, here: Here) -> Job:
    """Have it stop; it says in its state when it has."""
    found = await _job(here, job)
    await ask(here, found.pool, "cancel job", job=found.number)
    return await _job(here, job)


async def jobs_of(here: Context) -> list[Job]:
    """All jobs of pools that can be asked."""
    found: list[Job] = []
    for pool in here.server.settled.pools:
        try:
            told = await ask(here, pool, "jobs")
        except ControlError:  # it is not open: GET /pools says why
            continue
        found += [Job(id=f"{pool}.{job['number']}", pool=pool, **job) for job in told["jobs"]]
    return found


async def _job(here: Context, name: str) -> Job:
    for job in await jobs_of(here):
        if job.id == name:
            return job
    raise not_found(f"job {name!r}")


def started(response: Response, pool: str, number: int) -> Started:
    """The answer to what has begun a job."""
    response.headers["Location"] = f"/api/v1/jobs/{pool}.{number}"
    return Started(job=f"{pool}.{number}")
