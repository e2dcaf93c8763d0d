"""All that takes long, whoever does it: jobs of pools, layers, discs and cartridges, and what arrays do by themselves.

A job of a pool is POOL.NUMBER. One of layers is layers:WORKER.NUMBER, as each worker counts for itself; work that goes on by
itself, such as a rebuild, has a name of its own there. Copies of discs and cartridges are drive:NAME.NUMBER and
library:NAME.NUMBER. No pool can have a colon in its name.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

from blockyard.control.errors import ControlError
from blockyard.control.layer_commands import cancel as cancel_layer_job
from blockyard.control.layer_commands import jobs_in, looked
from blockyard.control.optical_commands import cancel as cancel_media_job
from blockyard.control.optical_commands import jobs as media_jobs

if TYPE_CHECKING:
    from blockyard.control.server import Server

Job = dict[str, Any]
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
    for worker, told in (await looked(server)).items():
        found += [_told(job, _name(worker, job)) for job in jobs_in(told)]
    for job in (await media_jobs(server, {}))["jobs"]:
        owner = job.pop("owner")
        kind, _, name = owner.partition(":")
        found.append(_told(job, f"{owner}.{job['number']}", kind, name))
    return sorted(found, key=lambda job: (job["began"] is None, job["began"] or 0))


def _told(job: Job, number: str, kind: str | None = None, name: str | None = None) -> Job:
    stoppable = job["state"] == "running" and job["number"] is not None
    owner = {} if kind is None else {kind: name}
    return {**dict.fromkeys(_OWNERS), **job, **owner, "id": number, "can_cancel": stoppable}


def _name(worker: int, job: Job) -> str:
    number = job["number"]
    if number is None:
        number = f"{job['kind']}-{zlib.crc32(job['subject'].encode()):08x}"
    return f"layers:{worker}.{number}"


async def cancel(server: Server, job: Job) -> None:
    """Have a job stop. Raises ControlError for one that goes on by itself."""
    if job["pool"] is not None:
        await server.supervisor.ask_pool(job["pool"], {"request": "cancel job", "job": job["number"]})
    elif job["drive"] is not None or job["library"] is not None:
        await cancel_media_job(server, {"owner": job["id"].rpartition(".")[0], "job": job["number"]})
    elif job["number"] is not None:
        worker = int(job["id"].removeprefix("layers:").partition(".")[0])
        await cancel_layer_job(server, {"job": job["number"], "worker": worker})
    else:
        raise ControlError(f"the {job['kind']} goes on by itself until it is done: remove what it is for, and it ends")
