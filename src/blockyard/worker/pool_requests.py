"""What control may ask of the worker that has a pool open: one function for each request, and their table.

A request gets what the worker serves, the pool and its arguments (see requests.py). What can take a while, as everything does
that commits, is done in another thread.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from blockyard.block.size import MAX_VOLUME, format_size
from blockyard.pool.names import check_snapshot_name, check_volume_name
from blockyard.pool.pool import Pool
from blockyard.pool.resizing import resize
from blockyard.pool.space import DEFAULT_SHIFT
from blockyard.worker.asking import find, find_snapshot, number_in, text_in, texts_in
from blockyard.worker.handoff import Message
from blockyard.worker.inventory import Inventory
from blockyard.worker.later import Answer, Later, nothing_more
from blockyard.worker.pools import OpenPool

SMALLEST = 1 << 20  # bytes of a volume
_SIZES = 1 << 12  # a volume has a multiple of so many bytes, so that it has whole blocks of any size
_CHUNKS = range(12, 23)  # shifts of the sizes that a chunk may have


# ---- looking


def show(inventory: Inventory, pool: OpenPool, request: Message) -> Answer:
    """The pool as a whole."""
    return Later(
        lambda: _pool(pool.pool), lambda found: {**found, "directory": pool.directory, "freeing": pool.freeing}
    )


def _pool(engine: Pool) -> dict[str, Any]:
    names, usage = engine.volumes, engine.usage
    return {
        **dataclasses.asdict(usage),
        "free": usage.free,
        "soft": str(engine.ledger.soft),
        "hard": str(engine.ledger.hard),
        "level": engine.ledger.level.name.lower(),
        "failed": "" if engine.failed is None else engine.failed.strerror,
        "members": {
            str(number): {"path": str(engine.directory / member.path), "size": member.size}
            for number, member in engine.members.items()
        },
        "volumes": len(names),
        "snapshots": sum(len(engine.snapshots(name)) for name in names),
    }


def set_pool(inventory: Inventory, pool: OpenPool, request: Message) -> Answer:
    """Other thresholds, where they are said."""
    soft, hard = request.get("soft"), request.get("hard")
    return Later(lambda: pool.pool.set_thresholds(soft, hard), nothing_more)


def volumes(inventory: Inventory, pool: OpenPool, request: Message) -> Answer:
    """Its volumes by name, or one of them."""
    names = [text_in(request, "volume")] if request.get("volume") else pool.pool.volumes
    for name in names:
        find(pool, name)

    def users_too(found: dict[str, Any]) -> Message:
        for name, volume in found.items():
            volume["initiators"] = inventory.initiators(f"{pool.name}/{name}")
        return {"volumes": found}

    return Later(lambda: _volumes(pool, names), users_too)


def _volumes(pool: OpenPool, names: Sequence[str]) -> dict[str, Any]:
    called = {
        (snapshot.tree, snapshot.generation): f"{pool.name}/{name}@{snapshot.name}"
        for name in pool.pool.volumes
        for snapshot in pool.pool.snapshots(name)
    }
    found = {}
    for name in names:
        with contextlib.suppress(KeyError):  # it is just being deleted
            found[name] = _volume(pool, name, called)
    return found


def _volume(pool: OpenPool, name: str, called: Mapping[tuple[int, int], str]) -> dict[str, Any]:
    volume = pool.pool.volume(name)
    tree = pool.pool.tree(volume.tree)
    return {
        **dataclasses.asdict(pool.pool.usage_of(name)),
        "zero_detection": volume.zero_detection,
        "chunk": 1 << tree.shift,
        "checksums": tree.checksums,
        "uuid": volume.uuid,
        "snapshots": len(pool.pool.snapshots(name)),
        "origin": "" if tree.origin is None else called.get((tree.origin.number, tree.origin_generation), ""),
    }


def snapshots(inventory: Inventory, pool: OpenPool, request: Message) -> Answer:
    """Snapshots of one volume, or of all, the oldest first."""
    names = [request["volume"]] if request.get("volume") else pool.pool.volumes
    for name in names:
        find(pool, name)
    return {
        "snapshots": [
            {"volume": name, "name": snapshot.name, "time": snapshot.time, "size": snapshot.size}
            for name in names
            for snapshot in pool.pool.snapshots(name)
        ]
    }


# ---- volumes


def create_volume(inventory: Inventory, pool: OpenPool, request: Message) -> Answer:
    """A new volume, in chunks of `chunk` bytes, with the limits that are said; with `checksums` each chunk has one."""
    name, size = text_in(request, "volume"), number_in(request, "size")
    chunk = request.get("chunk") or 1 << DEFAULT_SHIFT
    check_volume_name(name)
    _check_size(size)
    checksums = bool(request.get("checksums"))
    shift = chunk.bit_length() - 1 if isinstance(chunk, int) and chunk > 0 else 0
    if shift not in _CHUNKS or chunk != 1 << shift:
        raise ValueError(f"a chunk is from 4K to 4M, and a power of two: {chunk} is not")
    options = _options(request)

    def work() -> None:
        pool.pool.create_volume(name, size, shift, checksums=checksums)
        try:
            if options:
                pool.pool.set_options(name, **options)
        except BaseException:
            pool.pool.delete_volume(name)
            raise

    return Later(work, nothing_more)


def set_volume(inventory: Inventory, pool: OpenPool, request: Message) -> Answer:
    """Another quota, reservation or zero detection, where they are said."""
    name = text_in(request, "volume")
    find(pool, name)
    options = _options(request)

    def refresh(result: object) -> Message:
        for unit in inventory.units_of(f"{pool.name}/{name}"):
            unit.device.refresh()
        return {}

    return Later(lambda: pool.pool.set_options(name, **options), refresh)


def _options(request: Message) -> dict[str, int]:
    """The limits that are said. Raises ValueError."""
    found = {key: number_in(request, key) for key in ("quota", "reservation") if request.get(key) is not None}
    if min(found.values(), default=0) < 0:
        raise ValueError("neither a quota nor a reservation can be negative")
    if request.get("zero_detection") is not None:
        found["zero_detection"] = bool(request["zero_detection"])
    return found


def resize_volume(inventory: Inventory, pool: OpenPool, request: Message) -> Answer:
    """Another size; initiators are told. Smaller only while nobody uses it, and where there is data beyond only with `force`."""
    name, size, force = text_in(request, "volume"), number_in(request, "size"), bool(request.get("force"))
    source = f"{pool.name}/{name}"
    now = find(pool, name).size
    _check_size(size)
    using = inventory.initiators(source)
    if size < now and using:
        raise ValueError(f"{source} is in use by {', '.join(using)}: have them log out before it becomes smaller")

    def tell(result: object) -> Message:
        for unit in inventory.units_of(source):
            unit.device.refresh()
            unit.capacity_changed()
        return {}

    def shrink(result: object) -> Answer:
        return inventory.replace_beneath(source, lambda: resize(pool.pool, name, size, force=force), nothing_more)

    if size < now:
        return Later(pool.pool.flush, shrink)
    return Later(lambda: resize(pool.pool, name, size), tell)


def check_deletable(inventory: Inventory, pool: OpenPool, request: Message) -> Answer:
    """Whether nothing but an export stands against deleting a volume."""
    name = text_in(request, "volume")
    find(pool, name)
    inventory.check_free(f"{pool.name}/{name}")
    count = len(pool.pool.snapshots(name))
    if count and not request.get("snapshots"):
        have = "a snapshot" if count == 1 else f"{count} snapshots"
        raise ValueError(f"{pool.name}/{name} has {have}: delete them first, or say --snapshots")
    return {}


def delete_volume(inventory: Inventory, pool: OpenPool, request: Message) -> Answer:
    """Delete a volume that nothing leads to any more; with `snapshots`, its snapshots first."""
    name = text_in(request, "volume")
    check_deletable(inventory, pool, request)
    for source in (f"{pool.name}/{name}", *(f"{pool.name}/{name}@{each.name}" for each in pool.pool.snapshots(name))):
        _check_not_shown(inventory, source)

    def work() -> None:
        pool.pool.delete_snapshots(name, [snapshot.name for snapshot in pool.pool.snapshots(name)])
        pool.pool.delete_volume(name)

    return Later(work, pool.then_work_off)


# ---- snapshots


def create_snapshot(inventory: Inventory, pool: OpenPool, request: Message) -> Answer:
    """A snapshot of several volumes at one moment."""
    names, snapshot = texts_in(request, "volumes"), text_in(request, "snapshot")
    check_snapshot_name(snapshot)
    for name in names:
        find(pool, name)
    return Later(lambda: pool.pool.snapshot(names, snapshot, time.time()), nothing_more)


def delete_snapshots(inventory: Inventory, pool: OpenPool, request: Message) -> Answer:
    """Delete snapshots of a volume: all of them, or none when one cannot be."""
    volume, names = text_in(request, "volume"), texts_in(request, "snapshots")
    for name in names:
        find_snapshot(pool, volume, name)
        _check_not_shown(inventory, f"{pool.name}/{volume}@{name}")

    return Later(lambda: pool.pool.delete_snapshots(volume, names), pool.then_work_off)


def roll_back(inventory: Inventory, pool: OpenPool, request: Message) -> Answer:
    """Make a volume what it was at a snapshot. Nobody may be using it: what an initiator has in its caches would be wrong."""
    volume, snapshot = text_in(request, "volume"), text_in(request, "snapshot")
    find_snapshot(pool, volume, snapshot)
    source = f"{pool.name}/{volume}"
    return Later(
        pool.pool.flush,
        lambda result: inventory.replace_beneath(
            source, lambda: pool.pool.roll_back(volume, snapshot), pool.then_work_off
        ),
    )


def create_clone(inventory: Inventory, pool: OpenPool, request: Message) -> Answer:
    """A new volume that begins as a snapshot."""
    volume, snapshot, name = (text_in(request, key) for key in ("volume", "snapshot", "clone"))
    find_snapshot(pool, volume, snapshot)
    check_volume_name(name)
    return Later(lambda: pool.pool.clone(volume, snapshot, name), nothing_more)


# ---- jobs


def jobs(inventory: Inventory, pool: OpenPool, request: Message) -> Answer:
    """Jobs, the oldest first."""
    return {"jobs": [job.describe() for job in pool.jobs]}


def cancel_job(inventory: Inventory, pool: OpenPool, request: Message) -> Answer:
    """Have a job stop."""
    pool.jobs.find(number_in(request, "job")).cancel()
    return {}


POOL_REQUESTS: Mapping[str, Callable[[Inventory, OpenPool, Message], Answer]] = {
    "show": show,
    "volumes": volumes,
    "snapshots": snapshots,
    "set": set_pool,
    "create volume": create_volume,
    "set volume": set_volume,
    "resize volume": resize_volume,
    "delete volume": delete_volume,
    "check deletable": check_deletable,
    "create snapshot": create_snapshot,
    "delete snapshots": delete_snapshots,
    "roll back": roll_back,
    "create clone": create_clone,
    "jobs": jobs,
    "cancel job": cancel_job,
}


# ---- what they share


def _check_not_shown(inventory: Inventory, source: str) -> None:
    if inventory.units_of(source):
        raise ValueError(f"{source} is a LUN of a target: take it out of the configuration and reload first")
    inventory.check_free(source)


def _check_size(size: int) -> None:
    if not SMALLEST <= size <= MAX_VOLUME:
        raise ValueError(f"a volume has from 1M to 8E, not {format_size(size)}")
    if size % _SIZES:
        raise ValueError(f"{size} bytes are not a multiple of {_SIZES}")
