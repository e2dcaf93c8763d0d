"""Requests to check a pool that is in use, and to read all that is in it (see pool_requests.py)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from blockyard.pool.scrub import scrub
from blockyard.worker.asking import number_in
from blockyard.worker.handoff import Message
from blockyard.worker.inventory import Inventory
from blockyard.worker.jobs import Job
from blockyard.worker.later import Answer
from blockyard.worker.pools import OpenPool

_TOLD = 1000  # findings of a job at most


def check(inventory: Inventory, pool: OpenPool, request: Message) -> Answer:
    """Begin a job that checks the metadata, and mends it with `repair`."""
    repair = bool(request.get("repair"))
    return {"job": pool.jobs.start("check", pool.name, lambda job: _check(pool, job, repair)).number}


def _check(pool: OpenPool, job: Job, repair: bool) -> str:
    job.unit = "entries"
    report = pool.pool.check(job)
    job.details = [each.describe() for each in report.findings[:_TOLD]]
    if repair and report.findings:
        pool.pool.repair(report)
    return report.summary(repair)


def read_all(inventory: Inventory, pool: OpenPool, request: Message) -> Answer:
    """Begin a job that reads all data, at most `rate` bytes a second where that is not 0."""
    rate = number_in(request, "rate")
    return {"job": pool.jobs.start("scrub", pool.name, lambda job: _scrub(pool, job, rate)).number}


def _scrub(pool: OpenPool, job: Job, rate: int) -> str:
    job.unit = "bytes"
    bad = scrub(pool.pool, job, rate)
    job.details = [
        {"where": list(each.where), "offset": each.offset, "length": each.length, "what": each.what}
        for each in bad[:_TOLD]
    ]
    return f"{len(bad)} chunks cannot be read as they were written" if bad else "all that there is can be read"


CHECK_REQUESTS: Mapping[str, Callable[[Inventory, OpenPool, Message], Answer]] = {"check": check, "scrub": read_all}
