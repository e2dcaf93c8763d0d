"""What a worker tells of its pools and tape libraries when everything is measured at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from blockyard.block.building import health
from blockyard.block.device import Device
from blockyard.media.library import Library
from blockyard.worker.handoff import Message
from blockyard.worker.pools import OpenPool


def look(pools: Iterable[OpenPool], libraries: Mapping[str, Library], stacks: Mapping[str, Device]) -> Message:
    """In another thread than the loop's: a pool asks the file systems beneath it what is left."""
    return {
        "layers": {name: list(_layers(device, "0")) for name, device in stacks.items()},
        "pools": {pool.name: _pool(pool) for pool in pools},
        "libraries": {name: _library(library) for name, library in libraries.items()},
    }


def _layers(device: Device, at: str) -> Iterator[dict[str, Any]]:
    """A layer and all beneath it, by their places from the top."""
    told = device.report()
    found = {
        "at": at,
        "kind": device.label.partition("(")[0],
        "healthy": int(health(device) not in ("degraded", "failed")),
    }
    for what in ("counters", "gauges"):
        values = told.get(what)
        there = values.items() if isinstance(values, dict) else ()
        found[what] = {name: value for name, value in there if isinstance(value, int | float)}
    yield found
    for number, child in enumerate(device.children):
        yield from _layers(child, f"{at}/{number}")


def _pool(opened: OpenPool) -> dict[str, Any]:
    pool = opened.pool
    usage = pool.usage
    with pool.lock:
        level, soft, hard = pool.ledger.level, pool.ledger.soft, pool.ledger.hard
    return {
        "size": usage.size,
        "used": usage.used,
        "free": usage.free,
        "reserved": usage.reserved,
        "provisioned": usage.provisioned,
        "metadata": usage.metadata,
        "level": int(level),
        "failed": int(pool.failed is not None),
        "thresholds": {"soft": soft.bytes_left(usage.size), "hard": hard.bytes_left(usage.size)},
        "volumes": dict(_volumes(opened)),
        "journals": dict(_journals(opened)),
    }


def _volumes(opened: OpenPool) -> Iterator[tuple[str, dict[str, int]]]:
    for name in opened.pool.volumes:
        with contextlib.suppress(LookupError):  # it has just been deleted
            usage = opened.pool.usage_of(name)
            yield name, {"used": usage.used, "snapshots": len(opened.pool.snapshots(name))}


def _journals(opened: OpenPool) -> Iterator[tuple[str, dict[str, float]]]:
    for name in opened.pool.cdp.journals():
        with contextlib.suppress(LookupError, OSError, ValueError):  # it has just been given up
            reach = opened.pool.cdp.reach(name)
            oldest = reach.spans[0][0] if reach.spans else reach.now
            yield name, {"reach": (reach.now - oldest) / 1e9, "held": reach.held, "writes": reach.writes}


def _library(library: Library) -> dict[str, Any]:
    return {
        "cartridges": len(library.contents),
        "drives": {
            str(number): {**drive.counters.as_dict(), "loaded": int(drive.tape is not None)}
            for number, drive in enumerate(library.drives)
        },
    }
