"""What can be asked of a server about its configuration: to show it, change it as a whole, go back, and who has changed what."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from blockyard.block import records
from blockyard.block.records import RecordError
from blockyard.control import audit
from blockyard.control.command import Command
from blockyard.control.configuration_file import dump
from blockyard.control.difference import differences
from blockyard.control.errors import ConfigurationError, UsageError
from blockyard.control.events import stamp
from blockyard.control.managed import Managed
from blockyard.control.revisions import Revision
from blockyard.control.roles import Role
from blockyard.control.state import State
from blockyard.worker.configuration import Configuration

if TYPE_CHECKING:
    from blockyard.control.administration import Request
    from blockyard.control.server import Server

_LAST = 20  # revisions and entries that are told unless something else was asked


async def config_show(server: Server, request: Request) -> str:
    """The configuration that is served, or that of a revision, as a file."""
    if request.get("revision") is None:
        return dump(server.configuration)
    found = await asyncio.to_thread(_managed(server).at, number_in(request, "revision"))
    return dump(found.configuration)


async def config_get(server: Server, request: Request) -> dict[str, Any]:
    """The configuration that is served as plain data, and the number of its revision; null where it is not managed."""
    revision = None if server.managed is None else server.managed.revision
    return {"configuration": records.write(server.configuration), "revision": revision}


async def config_apply(server: Server, request: Request) -> dict[str, Any]:
    """Serve another configuration, or say with `dry_run` what would change: {"changes": lines, "revision": number}."""
    configuration = read_configuration(request.get("configuration"))
    return await _change_to(server, request, configuration)


async def config_rollback(server: Server, request: Request) -> dict[str, Any]:
    """Serve what a revision says again: a new revision that is like the old one."""
    found = await asyncio.to_thread(_managed(server).at, number_in(request, "revision"))
    return await _change_to(server, request, found.configuration)


async def _change_to(server: Server, request: Request, configuration: Configuration) -> dict[str, Any]:
    managed = _managed(server)
    lines = differences(server.configuration, configuration)
    expected = None if request.get("expected") is None else number_in(request, "expected")
    if request.get("dry_run"):
        return {"changes": lines, "revision": managed.revision}
    revision = await server.change(lambda _: configuration, expected=expected, who=request["who"])
    return {"changes": lines, "revision": revision}


async def config_history(server: Server, request: Request) -> list[dict[str, Any]]:
    """The last revisions: number, time, who, what."""
    managed = _managed(server)
    last = _LAST if request.get("last") is None else number_in(request, "last")
    return [describe(revision) for revision in await asyncio.to_thread(managed.history, last)]


async def audit_list(server: Server, request: Request) -> list[dict[str, Any]]:
    """The last entries of the audit log, or the first ones after the entry `after`."""
    last = _LAST if request.get("last") is None else number_in(request, "last")
    after = 0 if request.get("after") is None else number_in(request, "after")

    def look() -> list[dict[str, Any]]:
        with contextlib.closing(State(server.options.state)) as state:
            return [entry.as_dict() for entry in audit.read(state, after=after, last=last)]

    return await asyncio.to_thread(look)


def read_configuration(data: object) -> Configuration:
    """A configuration that has come as plain data. Raises ConfigurationError."""
    try:
        return records.read(Configuration, data)
    except RecordError as error:
        raise ConfigurationError(str(error)) from None


def describe(revision: Revision) -> dict[str, Any]:
    """A revision without its configuration."""
    return {"revision": revision.number, "time": stamp(revision.time), "who": revision.who, "what": revision.what}


def number_in(request: Request, name: str) -> int:
    """A whole number of a request. Raises UsageError."""
    value = request.get(name)
    if type(value) is not int or value < 0:
        raise UsageError(f"the request has no {name}")
    return value


def _managed(server: Server) -> Managed:
    if server.managed is None:
        raise UsageError(server.elsewhere())
    return server.managed


CONFIGURATION_COMMANDS: dict[str, Command] = {
    "config show": Command(config_show, Role.VIEWER),
    "config get": Command(config_get, Role.VIEWER),
    "config apply": Command(config_apply, Role.ADMIN, recorded=True),
    "config rollback": Command(config_rollback, Role.ADMIN, recorded=True),
    "config history": Command(config_history, Role.VIEWER),
    "audit": Command(audit_list, Role.ADMIN, recorded=True),
}
