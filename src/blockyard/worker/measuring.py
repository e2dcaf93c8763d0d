"""What a worker tells of its pools and tape libraries when everything is measured at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from blockyard.media.library import Library
from blockyard.worker.handoff import Message
from blockyard.worker.pools import OpenPool


def look(pools: Iterable[OpenPool], libraries: Mapping[str, Library]) -> Message:
    """In another thread than the loop's: a pool asks the file systems beneath it what is left."""
    return {
        "pools": {pool.name: _pool(pool) for pool in pools},
        "libraries": {name: _library(library) for name, library in libraries.items()},
    }


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
