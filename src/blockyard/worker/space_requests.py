"""Requests about who has the space of a pool (see pool_requests.py)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from blockyard.block.size import format_size
from blockyard.pool.survey import survey
from blockyard.worker.asking import find, text_in
from blockyard.worker.handoff import Message
from blockyard.worker.inventory import Inventory
from blockyard.worker.jobs import Job
from blockyard.worker.later import Answer
from blockyard.worker.pools import OpenPool


def survey_volume(inventory: Inventory, pool: OpenPool, request: Message) -> Answer:
    """Begin a job that finds out what each snapshot of a volume has alone."""
    name = text_in(request, "volume")
    find(pool, name)
    return {"job": pool.jobs.start("survey", f"{pool.name}/{name}", lambda job: _survey(pool, name, job)).number}


def _survey(pool: OpenPool, name: str, job: Job) -> str:
    job.unit = "chunks"
    pool.pool.flush()
    with pool.pool.reading() as transaction:
        found = survey(transaction, name, job)
    job.details = dataclasses.asdict(found)
    return f"{format_size(sum(share.own for share in found.snapshots.values()))} are of single snapshots"


SPACE_REQUESTS: Mapping[str, Callable[[Inventory, OpenPool, Message], Answer]] = {"survey": survey_volume}
