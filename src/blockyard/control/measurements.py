"""What is measured of a server that runs, and how it is gathered: each worker is asked once.

A worker that is just being started again, or does not answer, is told of as not up; what only it knows is left out.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from blockyard import __version__
from blockyard.control.catalogue import Severity
from blockyard.control.errors import ControlError
from blockyard.control.exposition import Family, Histogram, Kind, Measured
from blockyard.control.processes import look
from blockyard.control.worker import Worker
from blockyard.scsi.traffic import BOUNDS

if TYPE_CHECKING:
    from blockyard.control.server import Server

log = logging.getLogger(__name__)

PATIENCE = 5.0  # seconds that a worker has for its answer: Prometheus itself waits 10


def _counter(name: str, text: str, *labels: str) -> Family:
    return Family(f"blockyard_{name}", Kind.COUNTER, text, labels)


def _gauge(name: str, text: str, *labels: str) -> Family:
    return Family(f"blockyard_{name}", Kind.GAUGE, text, labels)


def _counters(prefix: str, what: str, *labels: str) -> dict[str, Family]:
    """Families for what Counters.as_dict has."""
    return {
        "read_ops": _counter(f"{prefix}_reads", f"Commands that read from {what}.", *labels),
        "write_ops": _counter(f"{prefix}_writes", f"Commands that wrote to {what}.", *labels),
        "other_ops": _counter(f"{prefix}_other_commands", f"All other commands to {what}.", *labels),
        "errors": _counter(
            f"{prefix}_errors", f"Commands to {what} that failed, unit attentions and miscompares aside.", *labels
        ),
        "read_bytes": _counter(f"{prefix}_read_bytes", f"Bytes read from {what}.", *labels),
        "write_bytes": _counter(f"{prefix}_written_bytes", f"Bytes written to {what}.", *labels),
    }


BUILD = Family("blockyard_build", Kind.INFO, "The version that serves.", ("version",))
UP = _gauge(
    "worker_up", "1 for a worker that has answered; 0 for one that is being started again or does not answer.", "worker"
)
RESTARTS = _counter("worker_restarts", "Processes of a worker that had to be started after the first one.", "worker")
CPU = _counter("process_cpu_seconds", "CPU time, user and system.", "process")
RESIDENT = _gauge("process_resident_memory_bytes", "Memory that is resident.", "process")
STARTED = _gauge("process_start_time_seconds", "When the process began, since 1970.", "process")
EVENTS = _counter("events", "Events since the server began.", "severity")
FAILURES = _counter(
    "login_failures", 'Logins that were refused; the target may also be "discovery", or "unknown".', "target"
)
SESSIONS = _gauge("sessions", "Sessions there are.", "target", "initiator")
CONNECTIONS = _gauge("connections", "Connections of sessions.", "target", "initiator")
VOLUME_SIZE = _gauge("volume_size_bytes", "Size of a volume.", "volume")
VOLUME = _counters("volume", "a volume", "volume")
DRIVE = _counters("optical_drive", "an optical drive", "drive")
TAPE = _counters("tape_drive", "a tape drive", "library", "drive")
DEPTH = _gauge("volume_commands_in_progress", "Commands to a volume that are not answered yet.", "volume")
LATENCY = Family(
    "blockyard_command_duration_seconds",
    Kind.HISTOGRAM,
    "From when a command had come to when its answer was ready, by volume, initiator and operation.",
    ("volume", "initiator", "operation"),
)
INITIATOR_BYTES = _counter(
    "initiator_bytes",
    "Bytes that an initiator has read from, or written to, a volume.",
    "volume",
    "initiator",
    "operation",
)
TAPE_LOADED = _gauge("tape_drive_loaded", "1 for a tape drive that has a tape loaded.", "library", "drive")
CARTRIDGES = _gauge("tape_library_cartridges", "Cartridges in drives and slots of a library.", "library")
POOL = {
    "size": _gauge("pool_size_bytes", "Size of a pool.", "pool"),
    "used": _gauge("pool_used_bytes", "What is used of a pool.", "pool"),
    "free": _gauge("pool_free_bytes", "What can still be used of a pool.", "pool"),
    "reserved": _gauge("pool_reserved_bytes", "What is reserved in a pool and not used yet.", "pool"),
    "provisioned": _gauge("pool_provisioned_bytes", "Sizes of all volumes of a pool together.", "pool"),
    "metadata": _gauge("pool_metadata_bytes", "Size of the metadata of a pool.", "pool"),
    "level": _gauge(
        "pool_level", "0: there is space, 1: the soft threshold is reached, 2: the hard one, 3: it is full.", "pool"
    ),
    "failed": _gauge("pool_failed", "1 for a pool that takes no more writes, as its disks have failed.", "pool"),
}
THRESHOLD = _gauge("pool_threshold_free_bytes", "A threshold is reached when so little is free.", "pool", "threshold")
POOL_VOLUME = {
    "used": _gauge("pool_volume_used_bytes", "What a volume and its snapshots take of a pool.", "pool", "volume"),
    "snapshots": _gauge("pool_volume_snapshots", "Snapshots of a volume.", "pool", "volume"),
}
CDP = {
    "reach": _gauge("cdp_reach_seconds", "How far back moments of a volume can be opened.", "pool", "volume"),
    "held": _gauge("cdp_held_bytes", "What the journal of a volume takes of a pool.", "pool", "volume"),
    "writes": _gauge("cdp_writes", "Writes that the journal of a volume has.", "pool", "volume"),
}
LAYER_HEALTHY = _gauge(
    "layer_healthy", "1 for a layer of a volume that is well; 0 while it is degraded, or has failed.",
    "volume", "layer", "kind",
)  # fmt: skip
LAYER_COUNTS = _counter("layer_events", "What a layer of a volume counts.", "volume", "layer", "kind", "counter")
LAYER_STATES = _gauge(
    "layer_state", "What a layer of a volume has of something now.", "volume", "layer", "kind", "gauge"
)
COLLECTION = _gauge("collection_duration_seconds", "How long it took to gather all this.")


async def measure(server: Server) -> Measured:
    """Everything, as it is now."""
    began = time.monotonic()
    workers = list(server.supervisor.workers)
    replies = await ask(workers)
    found = Measured()
    found.set(BUILD, 1, __version__)
    _of_processes(found, workers, replies)
    _of_gate(found, server)
    for name, volume in server.settled.volumes.items():
        if volume.size:
            found.set(VOLUME_SIZE, int(volume.size), name)
    for reply in replies:
        if reply is not None:
            _of_worker(found, reply)
    found.set(COLLECTION, time.monotonic() - began)
    return found


async def ask(workers: Iterable[Worker]) -> list[dict[str, Any] | None]:
    """What each has measured; None for one that does not answer."""
    return await asyncio.gather(*map(_ask, workers))


async def _ask(worker: Worker) -> dict[str, Any] | None:
    try:
        async with asyncio.timeout(PATIENCE):
            return await worker.ask({"name": "measurements"})
    except TimeoutError:
        log.warning("worker %d has not told its measurements within %.0f s", worker.number, PATIENCE)
    except ControlError as error:
        log.warning("worker %d could not tell its measurements: %s", worker.number, error)
    return None


def _of_processes(found: Measured, workers: list[Worker], replies: list[dict[str, Any] | None]) -> None:
    for worker, reply in zip(workers, replies, strict=True):
        found.set(UP, int(reply is not None), str(worker.number))
        found.set(RESTARTS, worker.restarts, str(worker.number))
    pids = {"control": os.getpid()}
    pids |= {f"worker {worker.number}": worker.pid for worker in workers if worker.pid is not None}
    for name, pid in pids.items():
        taken = look(pid)
        if taken is not None:
            found.set(CPU, taken.cpu, name)
            found.set(RESIDENT, taken.resident, name)
            found.set(STARTED, taken.started, name)


def _of_gate(found: Measured, server: Server) -> None:
    """Counters begin with 0, as the first growth of one that was not there before is not seen."""
    gate = server.gate
    for severity in Severity:
        found.set(EVENTS, gate.events.recorded[severity], severity)
    for target in ("discovery", "unknown", *server.settled.targets):
        found.set(FAILURES, gate.failures[target], target)


def _of_worker(found: Measured, reply: dict[str, Any]) -> None:
    for name, counters in reply["volumes"].items():
        _set_all(found, VOLUME, counters, name)
    for name, size in reply["sizes"].items():
        found.set(VOLUME_SIZE, size, name)
    for name, layers in reply.get("layers", {}).items():
        for layer in layers:
            where = name, layer["at"], layer["kind"]
            found.set(LAYER_HEALTHY, layer["healthy"], *where)
            for counter, value in layer["counters"].items():
                found.set(LAYER_COUNTS, value, *where, counter)
            for gauge, value in layer["gauges"].items():
                found.set(LAYER_STATES, value, *where, gauge)
    for name, counters in reply["drives"].items():
        _set_all(found, DRIVE, counters, name)
    for name, depth in reply.get("depths", {}).items():
        found.set(DEPTH, depth, name)
    for name, initiators in reply.get("traffic", {}).items():
        for initiator, pair in initiators.items():
            _of_initiator(found, name, initiator, pair)
    for session in reply["sessions"]:
        found.add(SESSIONS, 1, session["target"], session["initiator"])
        found.add(CONNECTIONS, len(session["connections"]), session["target"], session["initiator"])
    for name, pool in reply.get("pools", {}).items():
        _of_pool(found, name, pool)
    for name, library in reply.get("libraries", {}).items():
        found.set(CARTRIDGES, library["cartridges"], name)
        for number, drive in library["drives"].items():
            _set_all(found, TAPE, drive, name, number)
            found.set(TAPE_LOADED, drive["loaded"], name, number)


def _of_initiator(found: Measured, volume: str, initiator: str, pair: dict[str, Any]) -> None:
    for operation, key in (("read", "reads"), ("write", "writes")):
        traffic = pair[key]
        if any(traffic["buckets"]):
            histogram = Histogram(BOUNDS, tuple(traffic["buckets"]), traffic["seconds"])
            found.observe(LATENCY, histogram, volume, initiator, operation)
            found.set(INITIATOR_BYTES, traffic["bytes"], volume, initiator, operation)


def _of_pool(found: Measured, name: str, pool: dict[str, Any]) -> None:
    _set_all(found, POOL, pool, name)
    for threshold, left in pool["thresholds"].items():
        if left >= 0:
            found.set(THRESHOLD, left, name, threshold)
    for volume, usage in pool["volumes"].items():
        _set_all(found, POOL_VOLUME, usage, name, volume)
    for volume, reach in pool["journals"].items():
        _set_all(found, CDP, reach, name, volume)


def _set_all(found: Measured, families: dict[str, Family], values: dict[str, Any], *labels: str) -> None:
    for name, family in families.items():
        found.set(family, values[name], *labels)
