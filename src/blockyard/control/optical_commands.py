"""What can be asked of a server about its optical drives: passed on to the worker that has the drive."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from blockyard.control.errors import UsageError

if TYPE_CHECKING:
    from blockyard.control.administration import Request
    from blockyard.control.server import Server


async def optical(server: Server, request: Request) -> dict[str, Any]:
    """One of worker/optical_requests.py for a drive."""
    name, wanted = request.get("drive"), request.get("request")
    if not isinstance(name, str) or not isinstance(wanted, str):
        raise UsageError("the request has no drive, or does not say what it wants of it")
    arguments = {key: request.get(key) for key in ("request", "image", "kind", "force")}
    return await _ask(server, name, arguments)


async def drives(server: Server, request: Request) -> dict[str, Any]:
    """All drives that a target shows, each as `status` tells of it."""
    settled = server.settled
    shown = sorted(set().union(*(target.volumes for target in settled.targets.values())) & settled.drives.keys())
    return {name: await _ask(server, name, {"request": "status"}) for name in shown}


async def _ask(server: Server, drive: str, request: Request) -> dict[str, Any]:
    """What the worker replies, without what belongs to the message."""
    reply = await server.supervisor.ask_drive(drive, request)
    return {key: value for key, value in reply.items() if key not in ("type", "number")}


OPTICAL_COMMANDS: dict[str, Callable[[Server, Request], Awaitable[object]]] = {
    "optical": optical,
    "optical drives": drives,
}
