"""Pools."""

from __future__ import annotations

from typing import Any

from fastapi import Response
from pydantic import BaseModel, Field

from blockyard.api import etags
from blockyard.api.context import Context
from blockyard.api.problems import not_found
from blockyard.api.security import Here, Routes
from blockyard.control.errors import ControlError
from blockyard.control.roles import Identity, Role

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


class Pool(BaseModel):
    """Thin volumes, their snapshots and clones, and the space that they share."""

    name: str
    directory: str
    exported: bool = Field(description="each of its volumes is a target of its own")
    health: str = Field(description="ok, failed or unreachable")
    problem: str = Field(description="what is wrong")
    space: Space | None
    soft: str | None = Field(description="threshold: 80% used, 10G left, or none")
    hard: str | None
    level: str | None = Field(description="which of them is reached: none, soft or hard")
    volumes: int | None
    snapshots: int | None
    members: list[Member]

    @property
    def changeable(self) -> dict[str, Any]:
        """What its ETag is of."""
        return self.model_dump(include={"directory", "exported", "soft", "hard"})


@routes.get("/pools", Role.VIEWER)
async def list_pools(here: Here) -> list[Pool]:
    """All pools that are served."""
    return [await _pool(here, name) for name in here.server.settled.pools]


@routes.get("/pools/{pool}", Role.VIEWER)
async def get_pool(pool: str, here: Here, response: Response) -> Pool:
    """One of them."""
    check_pool(here, pool)
    found = await _pool(here, pool)
    etags.mark(response, found.changeable)
    return found


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


async def _pool(here: Context, name: str) -> Pool:
    configured = here.server.settled.pools[name]
    common: dict[str, Any] = {"name": name, "directory": configured.directory, "exported": configured.export}
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
