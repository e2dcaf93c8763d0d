"""Continuous data protection: any moment of a volume, and bookmarks (docs/cdp.md)."""

from __future__ import annotations

from typing import Any

from fastapi import Response
from pydantic import BaseModel, Field

from blockyard.api import etags
from blockyard.api.context import Context
from blockyard.api.etags import IfMatch
from blockyard.api.models import Input
from blockyard.api.problems import not_found
from blockyard.api.routes.jobs import Started, started
from blockyard.api.routes.pool_volumes import NAME, PoolVolume, created, find
from blockyard.api.routes.pools import ask, command
from blockyard.api.security import Here, Owners, Routes, Who
from blockyard.block.size import MAX_VOLUME
from blockyard.control.roles import Role
from blockyard.pool import instant

routes = Routes("continuous data protection")

_AT = "/pools/{pool}/volumes/{volume}/cdp"
_SECOND = 1_000_000_000
_MOMENT = Field(
    max_length=128, description="2026-11-22T12:00:01.5Z, so long ago (-5m, -2h30m), now, or the name of a bookmark"
)


class Bookmark(BaseModel):
    """A moment that has a name."""

    name: str
    time: str = Field(description="RFC 3339, to the nanosecond")
    keep: bool = Field(description="it stays when the window has passed it")


class Span(BaseModel):
    """All moments from one to another can be opened."""

    start: str
    end: str


class Protection(BaseModel):
    """The journal of a volume."""

    on: bool
    window: float = Field(description="seconds that it goes back; 0: no limit")
    size: int = Field(description="bytes that it may take; 0: no limit")
    now: str
    spans: list[Span]
    writes: int
    held: int = Field(description="bytes that the journal alone takes")
    bookmarks: list[Bookmark]

    @property
    def changeable(self) -> dict[str, Any]:
        """What its ETag is of."""
        return self.model_dump(include={"on", "window", "size", "bookmarks"})


class Window(Input):
    window: int | None = Field(None, ge=0, le=100 * 366 * 86400, description="seconds that it goes back; 0: no limit")
    size: int | None = Field(None, ge=0, le=MAX_VOLUME, description="bytes that it may take; 0: no limit")


class NewBookmark(Input):
    name: str = NAME
    moment: str = _MOMENT
    keep: bool = Field(False, description="keep it when the window has passed it")


class Moment(Input):
    moment: str = _MOMENT


class NewOfMoment(Moment):
    name: str = NAME


class Copy(Moment):
    path: str = Field(max_length=4096, pattern="^/", description="the new file, on the server")


class RolledBack(BaseModel):
    moment: str = Field(description="what the volume is now")
    before: str = Field(description="the moment that a roll back to would undo it")


@routes.get(_AT, Role.VIEWER, Owners.VOLUME)
async def get_protection(pool: str, volume: str, here: Here, response: Response) -> Protection:
    """The journal of a volume: from when to when it goes, and its bookmarks."""
    found = await _protection(here, pool, volume)
    if found is None:
        raise not_found(f"journal of {pool}/{volume}: it is not protected")
    etags.mark(response, found.changeable)
    return found


@routes.put(_AT, Role.OPERATOR, Owners.VOLUME)
async def protect(
    pool: str, volume: str, window: Window, here: Here, who: Who, response: Response, if_match: IfMatch = None
) -> Protection:
    """Protect a volume, or give its journal another window."""
    now = await _protection(here, pool, volume)
    if now is not None:
        etags.check(if_match, now.changeable)
    time = None if window.window is None else window.window * _SECOND
    await command(here, who, pool, "cdp on", volume=volume, time=time, size=window.size)
    return await get_protection(pool, volume, here, response)


@routes.delete(_AT, Role.OPERATOR, Owners.VOLUME, status_code=204)
async def unprotect(pool: str, volume: str, here: Here, who: Who, if_match: IfMatch = None) -> None:
    """Protect a volume no more: all moments are lost that no bookmark keeps."""
    now = await _protection(here, pool, volume)
    if now is None:
        raise not_found(f"journal of {pool}/{volume}: it is not protected")
    etags.check(if_match, now.changeable)
    await command(here, who, pool, "cdp off", volume=volume)


@routes.post(f"{_AT}/bookmarks", Role.OPERATOR, Owners.VOLUME, status_code=201)
async def set_bookmark(pool: str, volume: str, new: NewBookmark, here: Here, who: Who) -> Bookmark:
    """Give a moment a name."""
    await _protected(here, pool, volume)
    moment = None if new.moment == "now" else new.moment
    told = await command(
        here, who, pool, "cdp bookmark", volume=volume, bookmark=new.name, moment=moment, keep=new.keep
    )
    return Bookmark(name=new.name, time=instant.show(told["time"]), keep=new.keep)


@routes.delete(f"{_AT}/bookmarks/{{bookmark}}", Role.OPERATOR, Owners.VOLUME, status_code=204)
async def delete_bookmark(
    pool: str, volume: str, bookmark: str, here: Here, who: Who, if_match: IfMatch = None
) -> None:
    """Forget the name of a moment. The ETag is that of the journal."""
    now = await _protected(here, pool, volume)
    if all(each.name != bookmark for each in now.bookmarks):
        raise not_found(f"bookmark {bookmark!r} of {pool}/{volume}")
    etags.check(if_match, now.changeable)
    await command(here, who, pool, "cdp delete bookmark", volume=volume, bookmark=bookmark)


@routes.post(f"{_AT}/clone", Role.OPERATOR, status_code=201)
async def clone_moment(
    pool: str, volume: str, new: NewOfMoment, here: Here, who: Who, response: Response
) -> PoolVolume:
    """Make a volume that begins as a moment."""
    await _protected(here, pool, volume)
    await command(here, who, pool, "cdp clone", volume=volume, moment=new.moment, clone=new.name)
    return await created(here, response, pool, new.name)


@routes.post(f"{_AT}/rollback", Role.OPERATOR, Owners.VOLUME)
async def roll_back_to_moment(pool: str, volume: str, moment: Moment, here: Here, who: Who) -> RolledBack:
    """Make the volume what it was at a moment, which can be undone. Nobody may be logged in to it."""
    await _protected(here, pool, volume)
    told = await command(here, who, pool, "cdp roll back", volume=volume, moment=moment.moment)
    return RolledBack(moment=instant.show(told["time"]), before=instant.show(told["before"]))


@routes.post(f"{_AT}/copy", Role.ADMIN, status_code=202)
async def copy_moment(pool: str, volume: str, copy: Copy, here: Here, who: Who, response: Response) -> Started:
    """Begin a job that copies a moment to a new file on the server."""
    await _protected(here, pool, volume)
    told = await command(here, who, pool, "cdp copy", volume=volume, moment=copy.moment, path=copy.path)
    return started(response, pool, told["job"])


async def _protected(here: Context, pool: str, volume: str) -> Protection:
    found = await _protection(here, pool, volume)
    if found is None:
        raise not_found(f"journal of {pool}/{volume}: it is not protected")
    return found


async def _protection(here: Context, pool: str, volume: str) -> Protection | None:
    await find(here, pool, volume)
    journals = (await ask(here, pool, "cdp show"))["journals"]
    if volume not in journals:
        return None
    found = journals[volume]
    marks = sorted(found["bookmarks"].items(), key=lambda each: each[1]["time"])
    return Protection(
        on=found["on"],
        window=found["time"] / _SECOND,
        size=found["size"],
        now=instant.show(found["now"]),
        spans=[Span(start=instant.show(start), end=instant.show(end)) for start, end in found["spans"]],
        writes=found["writes"],
        held=found["held"],
        bookmarks=[Bookmark(name=name, time=instant.show(mark["time"]), keep=mark["keep"]) for name, mark in marks],
    )
