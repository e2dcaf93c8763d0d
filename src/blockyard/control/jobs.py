"""All that takes long, whoever does it: jobs of pools, jobs of layers, and what arrays do by themselves.

A job of a pool is POOL.NUMBER. One of layers is layers:WORKER.NUMBER, as each worker counts for itself; work that goes on by
itself, such as a rebuild, has a name of its own there. No pool can have a colon in its name.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

from blockyard.control.errors import ControlError
from blockyard.control.layer_commands import cancel as cancel_layer_job
from blockyard.control.layer_commands import jobs_in, looked

if TYPE_CHECKING:
    from blockyard.control.server import Server

Job = dict[str, Any]


async def all_jobs(server: Server) -> list[Job]:
    """Each with its `id`, the `pool` or `volume` that it is about, and whether it can be cancelled; the oldest first."""
    found: list[Job] = []
    for pool in server.settled.pools:
        try:
            told = await server.supervisor.ask_pool(pool, {"request": "jobs"})
        except ControlError:  # it is not open: GET /pools says why
            continue
        found += [_told(job, f"{pool}.{job['number']}", pool=pool) for job in told["jobs"]]
    for worker, told in (await looked(server)).items():
        found += [_told(job, _name(worker, job)) for job in jobs_in(told)]
    return sorted(found, key=lambda job: (job["began"] is None, job["began"] or 0))


def _told(job: Job, number: str, pool: str | None = None) -> Job:
    stoppable = job["state"] == "running" and job["number"] is not None
    return {"volume": None, **job, "id": number, "pool": pool, "can_cancel": stoppable}


def _name(worker: int, job: Job) -> str:
    number = job["number"]
    if number is None:
        number = f"{job['kind']}-{zlib.crc32(job['subject'].encode()):08x}"
    return f"layers:{worker}.{number}"


async def cancel(server: Server, job: Job) -> None:
    """Have a job stop. Raises ControlError for one that goes on by itself."""
    if job["pool"] is not None:
        await server.supervisor.ask_pool(job["pool"], {"request": "cancel job", "job": job["number"]})
    elif job["number"] is not None:
        worker = int(job["id"].removeprefix("layers:").partition(".")[0])
        await cancel_layer_job(server, {"job": job["number"], "worker": worker})
    else:
        raise ControlError(f"the {job['kind']} goes on by itself until it is done: remove what it is for, and it ends")
