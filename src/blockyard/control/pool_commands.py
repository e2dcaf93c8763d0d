"""What can be asked of a server about its pools: most of it is passed on to the worker that has the pool open.

Where a change of a pool concerns what is served, control does its part before and after: nothing is deleted that leads to a
target, and volumes of a pool that is exported become targets.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blockyard.block.records import join, key
from blockyard.block.size import MAX_VOLUME
from blockyard.control.allowed import check_paths
from blockyard.control.command import Command
from blockyard.control.errors import ControlError, UsageError
from blockyard.control.pools import create, destroy
from blockyard.control.roles import Role

if TYPE_CHECKING:
    from blockyard.control.administration import Request
    from blockyard.control.server import Server

_PLAIN: dict[str, Role] = {  # what the worker alone has to do with
    "show": Role.VIEWER,
    "volumes": Role.VIEWER,
    "snapshots": Role.VIEWER,
    "create snapshot": Role.OPERATOR,
    "set": Role.ADMIN,
    "set volume": Role.OPERATOR,
    "add member": Role.ADMIN,
    "grow member": Role.ADMIN,
    "remove member": Role.ADMIN,
    "survey": Role.OPERATOR,
    "jobs": Role.VIEWER,
    "cancel job": Role.OPERATOR,
    "check": Role.OPERATOR,
    "scrub": Role.OPERATOR,
    "cdp on": Role.OPERATOR,
    "cdp off": Role.OPERATOR,
    "cdp show": Role.VIEWER,
    "cdp bookmark": Role.OPERATOR,
    "cdp delete bookmark": Role.OPERATOR,
    "cdp copy": Role.ADMIN,  # it writes a file wherever it is told to
}
_OF_VOLUMES = frozenset({"create volume", "create clone", "cdp clone"})  # what is served may have changed after it


def _role(request: Request) -> Role:
    """Who may ask for this of a pool. What deletes volumes and snapshots, or rolls them back, is for operators."""
    return _PLAIN.get(str(request.get("request")), Role.OPERATOR)


async def pool(server: Server, request: Request) -> dict[str, Any]:
    """One of worker/pool_requests.py for a pool."""
    name, wanted = request.get("pool"), request.get("request")
    if not isinstance(name, str) or not isinstance(wanted, str):
        raise UsageError("the request has no pool, or does not say what it wants of it")
    arguments = {
        key: value for key, value in request.items() if key not in ("command", "pool", "name", "number", "type")
    }
    if wanted in ("add member", "cdp copy"):
        check_paths(server, [str(arguments.get("path"))])
    if wanted in _PLAIN:
        return await server.supervisor.ask_pool(name, arguments)
    if wanted in _OF_VOLUMES:
        reply = await server.supervisor.ask_pool(name, arguments)
        await server.look_again(name)
        return reply
    if wanted == "delete volume":
        return await _delete_volume(server, name, arguments)
    if wanted == "delete snapshots":
        for snapshot in arguments.get("snapshots", ()):
            _check_not_configured(server, f"{name}/{arguments.get('volume')}@{snapshot}")
        return await server.supervisor.ask_pool(name, arguments)
    if wanted in ("roll back", "cdp roll back"):
        async with server.unchanging():
            reply = await server.supervisor.ask_pool(name, arguments)
        await server.look_again(name)
        return reply
    raise UsageError(f"the server cannot do {wanted!r} to a pool: it may be of another version")


async def pools(server: Server, request: Request) -> dict[str, Any]:
    """All pools that are served, each as `show` tells of it, or with the error why it cannot."""
    found: dict[str, Any] = {}
    for name, served in server.settled.pools.items():
        try:
            found[name] = await server.supervisor.ask_pool(name, {"request": "show"})
        except ControlError as error:
            found[name] = {"directory": served.directory, "error": str(error)}
    return found


async def _delete_volume(server: Server, pool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Delete a volume: first it is no target any more, if it is exported."""
    source = f"{pool}/{arguments.get('volume')}"
    _check_not_configured(server, source, with_snapshots=True)
    await server.supervisor.ask_pool(pool, {**arguments, "request": "check deletable"})
    async with server.withheld(source):
        return await server.supervisor.ask_pool(pool, arguments)


def _check_not_configured(server: Server, source: str, *, with_snapshots: bool = False) -> None:
    """Neither as a volume nor beneath one. Raises UsageError."""
    for name, volume in server.settled.volumes.items():
        for claim in volume.claims if name in server.configuration.volumes else ():
            kind, _, what = claim.what.partition(":")
            if kind == "pool" and (what == source or (with_snapshots and what.startswith(f"{source}@"))):
                at = join("volumes", key(name))
                raise UsageError(f"{what} stands in the configuration, as {at}: take it out there and reload first")


async def _look(server: Server, request: Request) -> dict[str, Any]:
    """What can be changed of a pool, and of those volumes of it that a request is about."""
    name = request["pool"]
    found = await server.supervisor.ask_pool(name, {"request": "show"})
    seen = {key: found[key] for key in ("soft", "hard", "members")}
    volumes = (await server.supervisor.ask_pool(name, {"request": "volumes"}))["volumes"]
    snapshots = (await server.supervisor.ask_pool(name, {"request": "snapshots"}))["snapshots"]
    about = [request.get("volume"), request.get("clone"), *(request.get("volumes") or ())]
    seen["volumes"] = {
        each: {
            **{key: volumes[each][key] for key in ("size", "quota", "reservation", "zero_detection", "uuid")},
            "snapshots": [snapshot["name"] for snapshot in snapshots if snapshot["volume"] == each],
        }
        for each in about
        if each in volumes
    }
    return seen


async def pool_create(server: Server, request: Request) -> None:
    """Make a pool at a path, which nobody serves yet: see control/pools.py."""
    directory, members, size = _directory(request), request.get("members") or [], request.get("size") or 0
    if not isinstance(members, list) or not all(isinstance(each, str) and os.path.isabs(each) for each in members):
        raise UsageError("members are a list of paths, from / on")
    if type(size) is not int or not 0 <= size <= MAX_VOLUME:
        raise UsageError("the size is a number of bytes")
    check_paths(server, [str(directory), *members])
    await asyncio.to_thread(create, directory, members, size, force=bool(request.get("force")))


async def pool_destroy(server: Server, request: Request) -> list[str]:
    """Do away with a pool that is not served; the paths of members that are elsewhere, and free now."""
    directory = _directory(request)
    check_paths(server, [str(directory)])
    return await asyncio.to_thread(destroy, directory)


def _directory(request: Request) -> Path:
    directory = request.get("path")
    if not isinstance(directory, str) or not os.path.isabs(directory) or "\0" in directory:
        raise UsageError("the directory of a pool is a path, from / on")
    return Path(directory)


POOL_COMMANDS = {
    "pool create": Command(pool_create, Role.ADMIN),
    "pool destroy": Command(pool_destroy, Role.ADMIN),
    "pool": Command(pool, _role, look=_look),
    "pools": Command(pools, Role.VIEWER),
}
