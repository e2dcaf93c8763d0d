"""Pools."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from pathlib import Path as FilePath
from typing import Annotated, Any

from fastapi import Query, Response
from pydantic import BaseModel, Field

from blockyard.api import etags
from blockyard.api.configured import change
from blockyard.api.context import Context
from blockyard.api.etags import IfMatch
from blockyard.api.models import Input
from blockyard.api.problems import Refused, not_found
from blockyard.api.security import Here, Routes, Who
from blockyard.block.records import RecordError
from blockyard.block.size import MAX_VOLUME
from blockyard.control.allowed import check_paths
from blockyard.control.consistency import checked
from blockyard.control.errors import ControlError
from blockyard.control.pools import create as make
from blockyard.control.pools import destroy
from blockyard.control.roles import Identity, Role
from blockyard.worker.configuration import Configuration
from blockyard.worker.configuration import Pool as Configured

routes = Routes("pools")


class Member(BaseModel):
    """A file or block device that a pool keeps its data in."""

    number: int
    path: str
    size: int


class Space(BaseModel):
    """What there is of a pool, in bytes."""

    size: int
    used: int
    free: int
    reserved: int = Field(description="for volumes that have not used it")
    provisioned: int = Field(description="the sizes of all volumes together")
    metadata: int
    lacking: int = Field(description="of what is free, what the file systems beneath have no room for")
    freeing: int = Field(description="what is still to be worked off of what was deleted")


class NewPool(Input):
    name: str = Field(max_length=64)
    directory: str = Field(
        max_length=4096, pattern="^/", description="where its metadata shall be; it is made, or is empty"
    )
    create: bool = Field(True, description="false: the pool is there already")
    members: list[str] = Field(
        [], max_length=256, description="where its data shall be: block devices, files, or directories that a file is made in; "
        "nothing: a file in the directory",
    )  # fmt: skip
    size: int = Field(0, ge=0, le=MAX_VOLUME, description="bytes of each file that is to be made")
    force: bool = Field(False, description="take devices and files even if there is something on them")
    export: bool = Field(False, description="each of its volumes becomes a target of its own")
    target: str = Field("", max_length=223, description="what the names of these begin with")


class PoolChange(Input):
    export: bool | None = None
    target: str | None = Field(None, max_length=223)


class Pool(BaseModel):
    """Thin volumes, their snapshots and clones, and the space that they share."""

    name: str
    directory: str
    exported: bool = Field(description="each of its volumes is a target of its own")
    target: str = Field(description="what the names of these begin with; empty: like that of the default target")
    health: str = Field(description="ok, failed or unreachable")
    problem: str = Field(description="what is wrong")
    space: Space | None
    soft: str | None = Field(description="threshold: 80% used, 10G left, or none")
    hard: str | None
    level: str | None = Field(description="which of them is reached: good (none), soft, hard, or full")
    volumes: int | None
    snapshots: int | None
    members: list[Member]

    @property
    def changeable(self) -> dict[str, Any]:
        """What its ETag is of."""
        return self.model_dump(include={"directory", "exported", "target", "soft", "hard"})


@routes.get("/pools", Role.VIEWER, of=("pools",))
async def list_pools(here: Here) -> list[Pool]:
    """All pools that are served."""
    return await here.shared("pools", partial(_pools, here))


@routes.get("/pools/{pool}", Role.VIEWER)
async def get_pool(pool: str, here: Here, response: Response) -> Pool:
    """One of them."""
    check_pool(here, pool)
    found = await _pool(here, pool)
    etags.mark(response, found.changeable)
    return found


@routes.post("/pools", Role.ADMIN, status_code=201)
async def create_pool(new: NewPool, here: Here, who: Who, response: Response) -> Pool:
    """Make a pool at a path, and serve it."""
    directory, members = FilePath(new.directory), [os.path.abspath(member) for member in new.members]
    pool = Configured(new.name, str(directory), export=new.export, target=new.target)
    _check_new(here, pool)
    check_paths(here.server, [str(directory), *members])
    if new.create:
        await asyncio.to_thread(make, directory, members, new.size, force=new.force)
        here.record(who, f"pool {new.name} made in {directory}", None, new.model_dump())

    def edit(configuration: Configuration) -> Configuration:
        if new.name in configuration.pools:
            raise _taken(new.name)
        return replace(configuration, pools={**configuration.pools, new.name: pool})

    try:
        await change(here, who, edit)
    except BaseException:
        if new.create:
            await asyncio.to_thread(destroy, directory)
        raise
    response.headers["Location"] = f"/api/v1/pools/{new.name}"
    return await get_pool(new.name, here, response)


@routes.patch("/pools/{pool}", Role.ADMIN)
async def change_pool(
    pool: str, new: PoolChange, here: Here, who: Who, response: Response, if_match: IfMatch = None
) -> Pool:
    """Export it, or not any more."""
    seen = await get_pool(pool, here, response)
    etags.check(if_match, seen.changeable)

    def edit(configuration: Configuration) -> Configuration:
        changed = replace(configuration.pools[pool], **new.model_dump(exclude_none=True))
        return replace(configuration, pools={**configuration.pools, pool: changed})

    await change(here, who, edit)
    return await get_pool(pool, here, response)


@routes.delete("/pools/{pool}", Role.ADMIN, status_code=204)
async def delete_pool(
    pool: str,
    here: Here,
    who: Who,
    if_match: IfMatch = None,
    destroying: Annotated[bool, Query(alias="destroy", description="do away with all that is in it, too")] = False,
) -> None:
    """Serve it no more; it stays where it is, unless it is to be destroyed."""
    check_pool(here, pool)
    seen = await _pool(here, pool)
    etags.check(if_match, seen.changeable)

    def edit(configuration: Configuration) -> Configuration:
        rest = {name: each for name, each in configuration.pools.items() if name != pool}
        return replace(configuration, pools=rest)

    await change(here, who, edit)
    if destroying:
        await asyncio.to_thread(destroy, FilePath(seen.directory))
        here.record(who, f"pool {pool} destroyed", seen.model_dump(), None)


def _check_new(here: Context, pool: Configured) -> None:
    """That it can be served when it is there, before anything is made of it. Raises Refused."""
    configuration = here.server.configuration
    if here.server.managed is None:
        raise Refused(HTTPStatus.CONFLICT, here.server.elsewhere())
    if pool.name in configuration.pools:
        raise _taken(pool.name)
    try:
        checked(replace(configuration, pools={**configuration.pools, pool.name: pool}))
    except RecordError as error:
        raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from None


def _taken(name: str) -> Refused:
    return Refused(HTTPStatus.CONFLICT, f"there is a pool {name!r} already")


def check_pool(here: Context, pool: str) -> None:
    """Raises Refused where there is no such pool."""
    if pool not in here.server.settled.pools:
        raise not_found(f"pool {pool!r}")


async def command(here: Context, who: Identity, pool: str, request: str, **arguments: object) -> dict[str, Any]:
    """Have a change made to a pool (control/pool_commands.py), whose reply it is. Raises ControlError."""
    check_pool(here, pool)
    told: dict[str, Any] = await here.command(who, "pool", pool=pool, request=request, **arguments)
    return told


async def ask(here: Context, pool: str, request: str, **arguments: object) -> dict[str, Any]:
    """What the worker that has a pool open replies (worker/pool_requests.py). Raises ControlError."""
    check_pool(here, pool)
    return await here.server.supervisor.ask_pool(pool, {"request": request, **arguments})


async def _pools(here: Context) -> list[Pool]:
    return [await _pool(here, name) for name in here.server.settled.pools]


async def _pool(here: Context, name: str) -> Pool:
    configured = here.server.settled.pools[name]
    common: dict[str, Any] = {"name": name, "directory": configured.directory, "exported": configured.export,
                              "target": configured.target}  # fmt: skip
    nothing: dict[str, Any] = dict.fromkeys(("space", "soft", "hard", "level", "volumes", "snapshots"))
    try:
        found = await ask(here, name, "show")
    except ControlError as error:
        return Pool(**common, health="unreachable", problem=str(error), members=[], **nothing)
    return Pool(
        **common,
        health="failed" if found["failed"] else "ok",
        problem=found["failed"],
        space=Space.model_validate(found),
        members=[Member(number=int(number), **member) for number, member in found["members"].items()],
        **{key: found[key] for key in ("soft", "hard", "level", "volumes", "snapshots")},
    )
