"""What lies in the directories of the machine that serves: for choosing a path rather than typing it. Nobody is told contents."""

from __future__ import annotations

from dataclasses import asdict
from http import HTTPStatus
from typing import Annotated

from fastapi import Query
from pydantic import BaseModel, Field

from blockyard.api.aside import aside
from blockyard.api.context import Context
from blockyard.api.problems import Refused, responses
from blockyard.api.security import Here, Routes
from blockyard.control.browsing import Kind, Rules, look
from blockyard.control.roles import Role

routes = Routes("files")


class Entry(BaseModel):
    """Something in a directory."""

    name: str = Field(description="with what is not UTF-8 in it replaced")
    path: str | None = Field(description="none: it cannot be named")
    kind: Kind
    link: bool = Field(description="whether it is a symbolic link; all else is told of what that leads to")
    size: int | None = Field(description="bytes of a file or block device")
    modified: float | None = Field(description="seconds since 1970")
    format: str = Field(
        description="of a file, by what it begins and ends with: raw, vhd, vhdx, qcow2 …, iso; empty: it was not looked at"
    )
    model: str = Field(description="of a block device")
    used: str = Field(description="by whom; empty: by nobody that is known of")
    holds: str = Field(description="what somebody has left on a block device; empty: nothing that is known")
    problem: str = Field(description="why it cannot be used; empty: it can")


class Directory(BaseModel):
    """A directory and the first of what fits in it, directories first."""

    path: str
    parent: str | None = Field(description="none: there is none that may be looked at")
    writable: bool = Field(description="whether the server may make files in it")
    size: int = Field(description="bytes of its file system")
    free: int = Field(description="bytes of that which are left for the server")
    entries: list[Entry]
    more: bool = Field(description="there are others: a longer prefix finds them")
    places: list[str] = Field(description="directories to begin at")


@routes.get("/files", Role.ADMIN, responses=responses(404))
async def list_files(
    here: Here,
    path: Annotated[str, Query(max_length=4096, description="from / on; empty: the first of the places")] = "",
    prefix: Annotated[str, Query(max_length=255, description="only names that begin so, in whichever letters")] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    hidden: Annotated[bool, Query(description="names that begin with a dot, too")] = False,
) -> Directory:
    """A directory of the server: what is in it, and which of that could be used for something (api.paths)."""
    if path and (not path.startswith("/") or "\0" in path):
        raise Refused(HTTPStatus.BAD_REQUEST, "path: it begins with /, and has no NUL")
    return await aside(lambda: _looked(_rules(here), path, prefix, limit, hidden=hidden))


def _rules(here: Context) -> Rules:
    server = here.server
    return Rules(server.configuration, server.settled, server.options.state)


def _looked(rules: Rules, path: str, prefix: str, limit: int, *, hidden: bool) -> Directory:
    """Raises Refused."""
    places = rules.places()
    path = path or next(iter(places), "/")
    try:
        found = look(path, rules, prefix=prefix, limit=limit, hidden=hidden)
    except OSError as error:
        raise Refused(_status(error), f"{path}: {error.strerror or error}") from None
    return Directory(**asdict(found), places=places)


def _status(error: OSError) -> HTTPStatus:
    if isinstance(error, FileNotFoundError):
        return HTTPStatus.NOT_FOUND
    if isinstance(error, PermissionError):
        return HTTPStatus.FORBIDDEN
    return HTTPStatus.BAD_REQUEST
