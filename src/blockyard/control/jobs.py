"""All that takes long, whoever does it: jobs of pools, layers, discs and cartridges, and what arrays do by themselves.

A job of a pool is POOL.NUMBER; no number is given twice (worker/job_numbers.py). One of layers is layers:WORKER.NUMBER, after
the worker that does it, or layers:control.NUMBER while a layer is made; work that goes on by itself, such as a rebuild, has a
name of its own there. Copies of discs and cartridges are drive:NAME.NUMBER and library:NAME.NUMBER. No pool can have a colon in
its name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blockyard.control.errors import ControlError
from blockyard.control.layer_commands import Job, jobs_of, looked
from blockyard.control.layer_commands import cancel as cancel_layer_job
from blockyard.control.layer_commands import pause as pause_layer_job
from blockyard.control.layer_commands import resume as resume_layer_job
from blockyard.control.optical_commands import cancel as cancel_media_job
from blockyard.control.optical_commands import jobs as media_jobs

if TYPE_CHECKING:
    from blockyard.control.server import Server

_LAYERS = "layers:"
_OWNERS = ("pool", "volume", "drive", "library")


async def all_jobs(server: Server) -> list[Job]:
    """Each with its `id`, what it is about, and whether it can be cancelled; the oldest first."""
    found: list[Job] = []
    for pool in server.settled.pools:
        try:
            told = await server.supervisor.ask_pool(pool, {"request": "jobs"})
        except ControlError:  # it is not open: GET /pools says why
            continue
        found += [_told(job, f"{pool}.{job['number']}", "pool", pool) for job in told["jobs"]]
    for job in jobs_of(server, await looked(server)):
        found.append(_told(job, _LAYERS + job.pop("name")))
    for job in (await media_jobs(server, {}))["jobs"]:
        owner = job.pop("owner")
        kind, _, name = owner.partition(":")
        found.append(_told(job, f"{owner}.{job['number']}", kind, name))
    return sorted(found, key=lambda job: (job["began"] is None, job["began"] or 0))


def _told(job: Job, number: str, kind: str | None = None, name: str | None = None) -> Job:
    job.pop("place", None)
    running, by_itself = job["state"] == "running", job["number"] is None
    owner = {} if kind is None else {kind: name}
    can = {
        "can_cancel": running and job["kind"] != "reshape",
        "can_pause": running and by_itself,
        "can_resume": job["state"] == "paused",
    }
    return {**dict.fromkeys(_OWNERS), **job, **owner, "id": number, **can}


async def cancel(server: Server, job: Job) -> None:
    """Have a job stop; what goes on by itself is paused. Raises ControlError for what can neither be undone nor left halfway."""
    if job["pool"] is not None:
        await server.supervisor.ask_pool(job["pool"], {"request": "cancel job", "job": job["number"]})
    elif job["drive"] is not None or job["library"] is not None:
        await cancel_media_job(server, {"owner": job["id"].rpartition(".")[0], "job": job["number"]})
    else:
        await cancel_layer_job(server, {"job": job["id"].removeprefix(_LAYERS)})


async def pause(server: Server, job: Job) -> None:
    """Have what goes on by itself rest. Raises ControlError for other jobs."""
    await pause_layer_job(server, _of_layers(job))


async def resume(server: Server, job: Job) -> None:
    """Have it go on. Raises ControlError."""
    await resume_layer_job(server, _of_layers(job))


def _of_layers(job: Job) -> dict[str, Any]:
    if not job["id"].startswith(_LAYERS):
        raise ControlError(f"{job['kind']} of {job['subject']} cannot be paused, only stopped")
    return {"job": job["id"].removeprefix(_LAYERS)}
