"""What control may ask of the worker that has a pool open about continuous data protection (see pool_requests.py)."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from blockyard.block.file import FileDevice, create
from blockyard.pool.cdp import WINDOW
from blockyard.pool.instant import show
from blockyard.pool.moment import MomentDevice
from blockyard.pool.names import check_volume_name
from blockyard.worker.asking import find, number_in, text_in
from blockyard.worker.handoff import Message
from blockyard.worker.inventory import Inventory
from blockyard.worker.jobs import Job
from blockyard.worker.later import Answer, Later, nothing_more
from blockyard.worker.pools import OpenPool

_PIECE = 4 << 20  # bytes that are copied at a time


def turn_on(inventory: Inventory, pool: OpenPool, request: Message) -> Answer:
    """Protect a volume, or give its journal another window."""
    volume = _volume(pool, request)
    size = 0 if request.get("size") is None else number_in(request, "size")
    time = WINDOW if request.get("time") is None else number_in(request, "time")
    return Later(lambda: pool.pool.cdp.turn_on(volume, time, size), nothing_more)


def turn_off(inventory: Inventory, pool: OpenPool, request: Message) -> Answer:
    """Protect a volume no more."""
    volume = _volume(pool, request)
    return Later(lambda: pool.pool.cdp.turn_off(volume), pool.then_work_off)


def look(inventory: Inventory, pool: OpenPool, request: Message) -> Answer:
    """The journals of all volumes that have one, or of one."""
    names = [_volume(pool, request)] if request.get("volume") else pool.pool.cdp.journals()
    return {"journals": {name: _reach(pool, name) for name in names}}


def _reach(pool: OpenPool, name: str) -> dict[str, Any]:
    reach = pool.pool.cdp.reach(name)
    return {
        "on": reach.on,
        "time": reach.time,
        "size": reach.size,
        "now": reach.now,
        "spans": [list(span) for span in reach.spans],
        "writes": reach.writes,
        "held": reach.held,
        "segments": reach.segments,
        "ahead": pool.pool.cdp.clock.offset,
        "bookmarks": {label: {"time": mark.time, "keep": mark.keep} for label, mark in reach.bookmarks.items()},
    }


def bookmark(inventory: Inventory, pool: OpenPool, request: Message) -> Answer:
    """Give a moment a name."""
    volume, label, keep = _volume(pool, request), text_in(request, "bookmark"), bool(request.get("keep"))
    moment = _moment(pool, volume, request) if request.get("moment") else None
    return Later(lambda: pool.pool.cdp.set_bookmark(volume, label, moment, keep=keep), lambda mark: {"time": mark.time})


def delete_bookmark(inventory: Inventory, pool: OpenPool, request: Message) -> Answer:
    """Forget the name of a moment."""
    volume, label = _volume(pool, request), text_in(request, "bookmark")
    return Later(lambda: pool.pool.cdp.delete_bookmark(volume, label), pool.then_work_off)


def clone(inventory: Inventory, pool: OpenPool, request: Message) -> Answer:
    """A new volume that begins as a moment."""
    volume, name = _volume(pool, request), text_in(request, "clone")
    check_volume_name(name)
    moment = _moment(pool, volume, request)
    return Later(lambda: pool.pool.cdp.clone(volume, moment, name), lambda _: {"time": moment})


def roll_back(inventory: Inventory, pool: OpenPool, request: Message) -> Answer:
    """Make a volume what it was at a moment. Nobody may be using it."""
    volume = _volume(pool, request)
    moment = _moment(pool, volume, request)
    before = pool.pool.cdp.now()
    return Later(
        pool.pool.flush,
        lambda _: inventory.replace_beneath(
            f"{pool.name}/{volume}",
            lambda: pool.pool.cdp.roll_back(volume, moment),
            lambda _: {"time": moment, "before": before},
        ),
    )


def copy(inventory: Inventory, pool: OpenPool, request: Message) -> Answer:
    """Begin a job that copies a moment to a new file."""
    volume, path = _volume(pool, request), text_in(request, "path")
    if not os.path.isabs(path):
        raise ValueError(f"{path} is not an absolute path")
    moment = _moment(pool, volume, request)
    device = MomentDevice(pool.pool, volume, moment)
    try:
        job = pool.jobs.start(
            "copy", f"{pool.name}/{volume}@{show(moment)}", lambda job: _copy(device, Path(path), job)
        )
    except BaseException:
        device.close()
        raise
    return {"job": job.number, "time": moment}


def _copy(device: MomentDevice, path: Path, job: Job) -> str:
    job.unit = "bytes"
    try:
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        create(path, device.size)
        try:
            _fill(path, device, job)
        except BaseException:
            path.unlink()
            raise
    finally:
        device.close()
    return f"{path} is what it was"


def _fill(path: Path, device: MomentDevice, job: Job) -> None:
    file = FileDevice(str(path))
    try:
        for run in device.runs(0, device.size):
            for at in range(run.offset, run.offset + run.length, _PIECE) if run.mapped else ():
                job(at, device.size)
                file.copy_from(device, at, at, min(_PIECE, run.offset + run.length - at))
        file.flush()
    finally:
        file.close()


def _volume(pool: OpenPool, request: Message) -> str:
    name = text_in(request, "volume")
    find(pool, name)
    return name


def _moment(pool: OpenPool, volume: str, request: Message) -> int:
    return pool.pool.cdp.when(volume, text_in(request, "moment"))


CDP_REQUESTS: Mapping[str, Callable[[Inventory, OpenPool, Message], Answer]] = {
    "cdp on": turn_on,
    "cdp off": turn_off,
    "cdp show": look,
    "cdp bookmark": bookmark,
    "cdp delete bookmark": delete_bookmark,
    "cdp clone": clone,
    "cdp roll back": roll_back,
    "cdp copy": copy,
}
