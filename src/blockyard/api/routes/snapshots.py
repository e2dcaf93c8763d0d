"""Snapshots of volumes of pools, and clones of those."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from fastapi import Response
from pydantic import BaseModel, Field

from blockyard.api import etags
from blockyard.api.context import Context
from blockyard.api.etags import IfMatch
from blockyard.api.models import Input
from blockyard.api.problems import not_found
from blockyard.api.routes.pool_volumes import NAME, PoolVolume, created, find
from blockyard.api.routes.pools import ask, command
from blockyard.api.security import Here, Owners, Routes, Who
from blockyard.control.roles import Role

routes = Routes("snapshots")


class Snapshot(BaseModel):
    """A volume as it was."""

    pool: str
    volume: str
    name: str
    time: str = Field(description="RFC 3339")
    size: int = Field(description="of the volume then, in bytes")

    @property
    def changeable(self) -> dict[str, Any]:
        """What its ETag is of: it never changes, but another one may come to have its name."""
        return self.model_dump()


class NewSnapshot(Input):
    name: str | None = Field(None, max_length=128, description="nothing: the time")


class NewSnapshots(NewSnapshot):
    volumes: list[str] = Field(min_length=1, max_length=1000, description="of the pool: all at one moment")


class NewClone(Input):
    name: str = NAME


@routes.get("/pools/{pool}/snapshots", Role.VIEWER)
async def list_pool_snapshots(pool: str, here: Here) -> list[Snapshot]:
    """All snapshots in a pool, those of a volume from the oldest on."""
    return await _snapshots(here, pool)


@routes.post("/pools/{pool}/snapshots", Role.OPERATOR, status_code=201)
async def take_pool_snapshots(pool: str, new: NewSnapshots, here: Here, who: Who) -> list[Snapshot]:
    """Take a snapshot of several volumes at one moment."""
    name = new.name or _now()
    await command(here, who, pool, "create snapshot", volumes=new.volumes, snapshot=name)
    return [each for each in await _snapshots(here, pool) if each.name == name and each.volume in new.volumes]


@routes.get("/pools/{pool}/volumes/{volume}/snapshots", Role.VIEWER, Owners.VOLUME)
async def list_snapshots(pool: str, volume: str, here: Here) -> list[Snapshot]:
    """Those of a volume, the oldest first."""
    await find(here, pool, volume)
    return await _snapshots(here, pool, volume)


@routes.post("/pools/{pool}/volumes/{volume}/snapshots", Role.OPERATOR, Owners.VOLUME, status_code=201)
async def take_snapshot(pool: str, volume: str, new: NewSnapshot, here: Here, who: Who, response: Response) -> Snapshot:
    """Take one."""
    await find(here, pool, volume)
    name = new.name or _now()
    await command(here, who, pool, "create snapshot", volumes=[volume], snapshot=name)
    response.headers["Location"] = f"/api/v1/pools/{pool}/volumes/{volume}/snapshots/{name}"
    return await get_snapshot(pool, volume, name, here, response)


@routes.get("/pools/{pool}/volumes/{volume}/snapshots/{snapshot}", Role.VIEWER, Owners.VOLUME)
async def get_snapshot(pool: str, volume: str, snapshot: str, here: Here, response: Response) -> Snapshot:
    """One of them."""
    found = await _find(here, pool, volume, snapshot)
    etags.mark(response, found.changeable)
    return found


@routes.delete("/pools/{pool}/volumes/{volume}/snapshots/{snapshot}", Role.OPERATOR, Owners.VOLUME, status_code=204)
async def delete_snapshot(
    pool: str, volume: str, snapshot: str, here: Here, who: Who, if_match: IfMatch = None
) -> None:
    """Delete one. Its space is freed in the background."""
    etags.check(if_match, (await _find(here, pool, volume, snapshot)).changeable)
    await command(here, who, pool, "delete snapshots", volume=volume, snapshots=[snapshot])


@routes.post("/pools/{pool}/volumes/{volume}/snapshots/{snapshot}/clone", Role.OPERATOR, status_code=201)
async def clone_snapshot(
    pool: str, volume: str, snapshot: str, new: NewClone, here: Here, who: Who, response: Response
) -> PoolVolume:
    """Make a volume that begins as a snapshot, and takes space for what changes only."""
    await _find(here, pool, volume, snapshot)
    await command(here, who, pool, "create clone", volume=volume, snapshot=snapshot, clone=new.name)
    return await created(here, response, pool, new.name)


@routes.post("/pools/{pool}/volumes/{volume}/snapshots/{snapshot}/rollback", Role.OPERATOR, Owners.VOLUME)
async def roll_back_to_snapshot(pool: str, volume: str, snapshot: str, here: Here, who: Who) -> PoolVolume:
    """Make the volume what it was. Nobody may be logged in to it."""
    await _find(here, pool, volume, snapshot)
    await command(here, who, pool, "roll back", volume=volume, snapshot=snapshot)
    return await find(here, pool, volume)


async def _snapshots(here: Context, pool: str, volume: str | None = None) -> list[Snapshot]:
    told = await ask(here, pool, "snapshots", **({} if volume is None else {"volume": volume}))
    return [
        Snapshot(**{**each, "pool": pool, "time": datetime.fromtimestamp(each["time"], UTC).isoformat()})
        for each in told["snapshots"]
    ]


async def _find(here: Context, pool: str, volume: str, snapshot: str) -> Snapshot:
    await find(here, pool, volume)
    for each in await _snapshots(here, pool, volume):
        if each.name == snapshot:
            return each
    raise not_found(f"snapshot {snapshot!r} of {pool}/{volume}")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
