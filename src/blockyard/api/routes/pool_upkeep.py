"""Upkeep of pools: members, thresholds, checks."""

from __future__ import annotations

from fastapi import Response
from pydantic import Field

from blockyard.api import etags
from blockyard.api.context import Context
from blockyard.api.etags import IfMatch
from blockyard.api.models import Input
from blockyard.api.problems import not_found
from blockyard.api.routes.jobs import Started, started
from blockyard.api.routes.pools import Member, Pool, ask, command, get_pool
from blockyard.api.security import Here, Routes, Who
from blockyard.block.size import MAX_VOLUME
from blockyard.control.roles import Role

routes = Routes("upkeep of pools")

_SIZE = Field(0, ge=0, le=MAX_VOLUME, description="bytes of a file that is to be made, or made larger")
_LIMIT = Field(None, max_length=32, description="80%: so much is used; 10G: so much is left; none")


class NewMember(Input):
    path: str = Field(
        max_length=4096, pattern="^/", description="a block device, a file, or a directory that a file is made in"
    )
    size: int = _SIZE
    force: bool = Field(False, description="take it even if there is something on it")


class Growth(Input):
    size: int = _SIZE


class Thresholds(Input):
    soft: str | None = _LIMIT
    hard: str | None = _LIMIT


class Check(Input):
    repair: bool = Field(False, description="mend what can be mended")


class Scrub(Input):
    rate: int = Field(0, ge=0, le=MAX_VOLUME, description="bytes a second at most; 0: no limit")


@routes.put("/pools/{pool}/thresholds", Role.ADMIN)
async def set_pool_thresholds(
    pool: str, limits: Thresholds, here: Here, who: Who, response: Response, if_match: IfMatch = None
) -> Pool:
    """At which use events are recorded and initiators told (soft), and nothing new is stored (hard). The ETag is the pool's."""
    etags.check(if_match, (await get_pool(pool, here, response)).changeable)
    await command(here, who, pool, "set", **limits.model_dump(exclude_none=True))
    return await get_pool(pool, here, response)


@routes.post("/pools/{pool}/members", Role.ADMIN, status_code=201)
async def add_pool_member(pool: str, new: NewMember, here: Here, who: Who) -> Member:
    """Let a pool keep data in another file or block device."""
    before = {member.number for member in await _members(here, pool)}
    await command(here, who, pool, "add member", **new.model_dump())
    return next(member for member in await _members(here, pool) if member.number not in before)


@routes.post("/pools/{pool}/members/{number}/grow", Role.ADMIN)
async def grow_pool_member(pool: str, number: int, growth: Growth, here: Here, who: Who) -> Member:
    """Use what a member has become larger by; a file is made larger first, if a size is given."""
    await _member(here, pool, number)
    await command(here, who, pool, "grow member", member=number, size=growth.size)
    return await _member(here, pool, number)


@routes.delete("/pools/{pool}/members/{number}", Role.ADMIN, status_code=204)
async def remove_pool_member(pool: str, number: int, here: Here, who: Who, if_match: IfMatch = None) -> None:
    """Take out a member that holds nothing. The ETag is that of the member, or *."""
    etags.check(if_match, (await _member(here, pool, number)).model_dump())
    await command(here, who, pool, "remove member", member=number)


@routes.get("/pools/{pool}/members/{number}", Role.VIEWER)
async def get_pool_member(pool: str, number: int, here: Here, response: Response) -> Member:
    """A file or block device of a pool."""
    found = await _member(here, pool, number)
    etags.mark(response, found.model_dump())
    return found


@routes.post("/pools/{pool}/check", Role.OPERATOR, status_code=202)
async def check_pool_metadata(pool: str, check: Check, here: Here, who: Who, response: Response) -> Started:
    """Begin a job that checks the metadata of a pool."""
    told = await command(here, who, pool, "check", repair=check.repair)
    return started(response, pool, told["job"])


@routes.post("/pools/{pool}/scrub", Role.OPERATOR, status_code=202)
async def scrub_pool(pool: str, scrub: Scrub, here: Here, who: Who, response: Response) -> Started:
    """Begin a job that reads all data of a pool, and names what is bad."""
    told = await command(here, who, pool, "scrub", rate=scrub.rate)
    return started(response, pool, told["job"])


async def _members(here: Context, pool: str) -> list[Member]:
    told = await ask(here, pool, "show")
    return [Member(number=int(number), **member) for number, member in told["members"].items()]


async def _member(here: Context, pool: str, number: int) -> Member:
    for member in await _members(here, pool):
        if member.number == number:
            return member
    raise not_found(f"member {number} of the pool {pool!r}")
