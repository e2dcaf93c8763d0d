"""Volumes of pools."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Response
from pydantic import BaseModel, Field

from blockyard.api import etags
from blockyard.api.context import Context
from blockyard.api.etags import IfMatch
from blockyard.api.models import Input
from blockyard.api.problems import not_found
from blockyard.api.routes.jobs import Started, started
from blockyard.api.routes.pools import ask, check_pool, command
from blockyard.api.security import Here, Owners, Routes, Who
from blockyard.block.size import MAX_VOLUME, Size
from blockyard.control.roles import Role
from blockyard.worker.pool_requests import SMALLEST

routes = Routes("volumes of pools")

NAME = Field(max_length=64)
_SIZE = Field(ge=SMALLEST, le=MAX_VOLUME, description="bytes")
_BYTES = Field(None, ge=0, le=MAX_VOLUME, description="bytes; 0: none")


class PoolVolume(BaseModel):
    """A thin volume of a pool."""

    pool: str
    name: str
    size: int = Field(description="bytes")
    mapped: int = Field(description="of its size, what has been written and not given back")
    used: int = Field(description="of the pool, with its snapshots and its journal")
    quota: int = Field(description="the most that it may use; 0: no limit")
    reservation: int = Field(description="what is kept for it in any case")
    zero_detection: bool = Field(description="chunks that are written with zeros take no space")
    chunk: int
    checksums: bool
    uuid: str
    snapshots: int
    origin: str | None = Field(description="the snapshot that it began as: POOL/VOLUME@SNAPSHOT")
    initiators: list[str] = Field(description="that are logged in to it")

    @property
    def changeable(self) -> dict[str, Any]:
        """What its ETag is of."""
        return self.model_dump(include={"uuid", "size", "quota", "reservation", "zero_detection"})


class NewPoolVolume(Input):
    name: str = NAME
    size: int = _SIZE
    chunk: int | None = Field(None, ge=4096, le=4 << 20, description="in what it takes space: 4K to 4M, a power of two")
    checksums: bool = Field(False, description="verify all that is read")
    quota: int | None = _BYTES
    reservation: int | None = _BYTES
    zero_detection: bool | None = None


class PoolVolumeChange(Input):
    size: int | None = Field(None, ge=SMALLEST, le=MAX_VOLUME, description="bytes; smaller only while nobody uses it")
    force: bool = Field(False, description="cut off data where it becomes smaller")
    quota: int | None = _BYTES
    reservation: int | None = _BYTES
    zero_detection: bool | None = None


@routes.get("/pools/{pool}/volumes", Role.VIEWER)
async def list_pool_volumes(pool: str, here: Here) -> list[PoolVolume]:
    """All volumes of a pool."""
    told = await ask(here, pool, "volumes")
    return [_volume(pool, name, found) for name, found in told["volumes"].items()]


@routes.post("/pools/{pool}/volumes", Role.OPERATOR, status_code=201)
async def create_pool_volume(pool: str, new: NewPoolVolume, here: Here, who: Who, response: Response) -> PoolVolume:
    """Make one. It takes no space before it is written."""
    arguments = new.model_dump(exclude_none=True)
    arguments["volume"] = arguments.pop("name")
    await command(here, who, pool, "create volume", **arguments)
    return await created(here, response, pool, new.name)


@routes.get("/pools/{pool}/volumes/{volume}", Role.VIEWER, Owners.VOLUME)
async def get_pool_volume(pool: str, volume: str, here: Here, response: Response) -> PoolVolume:
    """One of them."""
    found = await find(here, pool, volume)
    etags.mark(response, found.changeable)
    return found


@routes.patch("/pools/{pool}/volumes/{volume}", Role.OPERATOR, Owners.VOLUME)
async def change_pool_volume(
    pool: str, volume: str, change: PoolVolumeChange, here: Here, who: Who, response: Response, if_match: IfMatch = None
) -> PoolVolume:
    """Another size, which initiators are told, or other limits; what is not said stays."""
    now = await find(here, pool, volume)
    etags.check(if_match, now.changeable)
    limits = change.model_dump(exclude_none=True, include={"quota", "reservation", "zero_detection"})
    if limits:
        await command(here, who, pool, "set volume", volume=volume, **limits)
    if change.size not in (None, now.size):
        await here.server.resize(f"{pool}/{volume}", Size(change.size or 0), who=who.name, force=change.force)
    return await get_pool_volume(pool, volume, here, response)


@routes.delete("/pools/{pool}/volumes/{volume}", Role.OPERATOR, Owners.VOLUME, status_code=204)
async def delete_pool_volume(
    pool: str,
    volume: str,
    here: Here,
    who: Who,
    if_match: IfMatch = None,
    snapshots: Annotated[bool, Query(description="with its snapshots; clones of them stay")] = False,
) -> None:
    """Delete one, and all that is in it. Its space is freed in the background."""
    etags.check(if_match, (await find(here, pool, volume)).changeable)
    await command(here, who, pool, "delete volume", volume=volume, snapshots=snapshots)


@routes.post("/pools/{pool}/volumes/{volume}/survey", Role.OPERATOR, Owners.VOLUME, status_code=202)
async def survey_pool_volume(pool: str, volume: str, here: Here, who: Who, response: Response) -> Started:
    """Find out what it and each of its snapshots have alone, and share: a job, whose details tell it."""
    await find(here, pool, volume)
    told = await command(here, who, pool, "survey", volume=volume)
    return started(response, pool, told["job"])


async def find(here: Context, pool: str, volume: str) -> PoolVolume:
    """Raises Refused where there is none."""
    check_pool(here, pool)
    told = await ask(here, pool, "volumes")
    if volume not in told["volumes"]:
        raise not_found(f"volume {volume!r} in the pool {pool!r}")
    return _volume(pool, volume, told["volumes"][volume])


async def created(here: Context, response: Response, pool: str, volume: str) -> PoolVolume:
    """The answer to what has made a volume."""
    found = await find(here, pool, volume)
    response.headers["Location"] = f"/api/v1/pools/{pool}/volumes/{volume}"
    etags.mark(response, found.changeable)
    return found


def _volume(pool: str, name: str, found: dict[str, Any]) -> PoolVolume:
    return PoolVolume.model_validate({**found, "pool": pool, "name": name, "origin": found["origin"] or None})
