"""What can be asked of a server about its optical drives: passed on to the worker that has the drive."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from blockyard.control.allowed import check_paths
from blockyard.control.command import Command
from blockyard.control.errors import UsageError
from blockyard.control.roles import Role

if TYPE_CHECKING:
    from blockyard.control.administration import Request
    from blockyard.control.server import Server

_LOOK = 0.1  # seconds between two looks whether a host has ejected


async def optical(server: Server, request: Request) -> dict[str, Any]:
    """One of worker/optical_requests.py for a drive."""
    name, wanted = request.get("drive"), request.get("request")
    if not isinstance(name, str) or not isinstance(wanted, str):
        raise UsageError("the request has no drive, or does not say what it wants of it")
    arguments = {key: request.get(key) for key in ("request", "image", "kind", "blank", "force", "size", "file", "to")}
    check_paths(server, paths_in(arguments))
    reply = await _ask(server, name, arguments)
    return await _when_ejected(server, name, arguments, request.get("wait")) if "asked" in reply else reply


def paths_in(arguments: Request) -> list[str]:
    """Those of them that name a file by its path."""
    named = (arguments.get(key) for key in ("image", "to", "file"))
    return [text for text in named if isinstance(text, str) and "/" in text]


async def _when_ejected(server: Server, drive: str, arguments: Request, wait: object) -> dict[str, Any]:
    """It is done when the hosts that keep a disc in eject it, as they are asked to. Raises UsageError when they do not."""
    seconds = wait if isinstance(wait, int) else 0
    keepers: list[str] = []
    for _ in range(round(seconds / _LOOK) + 1):
        now = await _ask(server, drive, {"request": "status"})
        if not now["wished"]:
            return {}
        if not now["locked_by"]:  # they have let go of it without more
            return await _ask(server, drive, arguments)
        keepers = now["locked_by"]
        await asyncio.sleep(_LOOK)
    await _ask(server, drive, {"request": "withdraw"})
    raise UsageError(
        f"{', '.join(keepers)} keeps the disc in {drive}, and has not ejected it within {seconds} seconds, as it was asked to: "
        "to take it out all the same, say --force"
    )


async def drives(server: Server, request: Request) -> dict[str, Any]:
    """All drives that a target shows, each as `status` tells of it."""
    settled = server.settled
    shown = sorted(set().union(*(target.volumes for target in settled.targets.values())) & settled.drives.keys())
    return {name: await _ask(server, name, {"request": "status"}) for name in shown}


async def jobs(server: Server, request: Request) -> dict[str, Any]:
    """Those of all drives and tape libraries: copies of discs and cartridges."""
    if not server.settled.drives and not server.settled.libraries:
        return {"jobs": []}
    told = await server.supervisor.ask_all({"name": "media jobs"})
    return {"jobs": [job for reply in told if reply is not None for job in reply["jobs"]]}


async def cancel(server: Server, request: Request) -> None:
    """Have one stop."""
    owner, number = request.get("owner"), request.get("job")
    told = await server.supervisor.ask_all({"name": "cancel media job", "owner": owner, "job": number})
    if not any(reply["cancelled"] for reply in told if reply is not None):
        raise UsageError(f"there is no job {number} of {owner}: `blockyard optical jobs` lists them")


async def _ask(server: Server, drive: str, request: Request) -> dict[str, Any]:
    """What the worker replies, without what belongs to the message."""
    reply = await server.supervisor.ask_drive(drive, request)
    return {key: value for key, value in reply.items() if key not in ("type", "number")}


def _role(request: Request) -> Role:
    """Who may ask for it: operators take images from the jukebox; by a path one could get at any file."""
    if request.get("request") in ("status", "list"):
        return Role.VIEWER
    if request.get("request") == "remove":
        return Role.ADMIN
    return Role.ADMIN if paths_in(request) or request.get("file") is not None else Role.OPERATOR


OPTICAL_COMMANDS = {
    "optical": Command(optical, _role),
    "optical drives": Command(drives, Role.VIEWER),
    "media jobs": Command(jobs, Role.VIEWER),
    "media cancel": Command(cancel, Role.OPERATOR),
}
