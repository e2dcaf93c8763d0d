"""Volumes as the server has them: what LUNs can be made of."""

from __future__ import annotations

from functools import partial
from typing import Any

from fastapi import Response
from pydantic import BaseModel, Field

from blockyard.api import schemas
from blockyard.api.configured import Table, add_routes, described, find
from blockyard.api.context import Context
from blockyard.api.models import Counters
from blockyard.api.security import Here, Owners, Routes, Who
from blockyard.control.layer_commands import looked
from blockyard.control.roles import Role
from blockyard.worker.configuration import Volume as Configured

routes = Routes("volumes")
TABLE = Table("volumes", Configured, "volume", "/volumes/{volume:path}", "volume", paths=("path", "backing"))


class Volume(BaseModel):
    """A file, a block device or a volume or snapshot of a pool, as a logical unit."""

    name: str
    kind: str = Field(description="file, pool or stack")
    source: str = Field(description="a path, POOL/VOLUME or POOL/VOLUME@SNAPSHOT")
    pool: str | None = Field(description="the pool that it is in")
    volume: str | None = Field(description="what it is called in its pool")
    snapshot: str | None
    size: int = Field(description="bytes; 0 for a stack that is not open")
    block_size: int
    read_only: bool
    uuid: str = Field(description="its identity for initiators")
    format: str
    targets: list[str] = Field(description="that show it")
    counters: Counters | None = Field(description="none while nothing leads to it")
    health: str | None = Field(description="of a stack that is open: ok, degraded, failed or what it is busy with")
    configuration: dict[str, Any] | None = schemas.field(Configured)


@routes.get("/volumes", Role.VIEWER, Owners.THEIRS, of=("statistics", "layers"))
async def list_volumes(here: Here, who: Who) -> list[Volume]:
    """All volumes that are configured, and those of pools that are exported; for an owner, those that their targets show."""
    found = await _volumes(here)
    return [volume for volume in found if who.everywhere or who.owns(volume.targets)]


@routes.get("/volumes/{volume:path}", Role.VIEWER, Owners.VOLUME, of=("statistics", "layers"))
async def get_volume(volume: str, here: Here, response: Response) -> Volume:
    """One of them."""
    return find(await _volumes(here), TABLE, volume, response)


add_routes(routes, TABLE)


async def _volumes(here: Context) -> list[Volume]:
    settled = here.server.settled
    told = await here.statistics()
    counters, sizes = told["volumes"], told["sizes"]
    shown: dict[str, list[str]] = {}
    for name, target in settled.targets.items():
        for volume in target.volumes:
            shown.setdefault(volume, []).append(name)
    health = await _health(here)
    return [
        _volume(
            volume,
            sizes.get(name, 0),
            shown.get(name, []),
            counters.get(name),
            health.get(name),
            described(here, TABLE, name),
        )
        for name, volume in settled.volumes.items()
    ]


async def _health(here: Context) -> dict[str, str]:
    """Of volumes that are stacks."""
    if not any(volume.stack for volume in here.server.settled.volumes.values()):
        return {}
    told = await here.shared("layers", partial(looked, here.server))
    return {name: stack["health"] for found in told.values() for name, stack in found["stacks"].items()}


def _volume(
    volume: Configured,
    size: int,
    targets: list[str],
    counters: Any,
    health: str | None,
    configuration: dict[str, Any] | None,
) -> Volume:
    return Volume(
        name=volume.name,
        kind="pool" if volume.pool else "stack" if volume.stack else "file",
        source=volume.source,
        pool=volume.pool or None,
        volume=volume.in_pool if volume.pool else None,
        snapshot=volume.snapshot or None,
        size=int(volume.size) or size,
        block_size=volume.block_size,
        read_only=volume.read_only,
        uuid=volume.uuid,
        format=volume.format,
        targets=sorted(targets),
        counters=counters,
        health=health,
        configuration=configuration,
    )
