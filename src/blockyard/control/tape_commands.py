"""What can be asked of a server about its tape libraries: passed on to the worker that has the library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blockyard.control.allowed import check_paths
from blockyard.control.command import Command
from blockyard.control.errors import UsageError
from blockyard.control.roles import Role

if TYPE_CHECKING:
    from blockyard.control.administration import Request
    from blockyard.control.server import Server


async def tape(server: Server, request: Request) -> dict[str, Any]:
    """One of worker/tape_requests.py for a library."""
    name, wanted = request.get("library"), request.get("request")
    if not isinstance(name, str) or not isinstance(wanted, str):
        raise UsageError("the request has no library, or does not say what it wants of it")
    arguments = {
        key: value for key, value in request.items() if key not in ("command", "library", "name", "number", "type")
    }
    if request.get("file") is not None:
        check_paths(server, [str(request["file"])])
    reply = await server.supervisor.ask_library(name, arguments)
    _tell(server, name, request)
    return reply


def _tell(server: Server, library: str, request: Request) -> None:
    """The events of what was done."""
    events, who, cartridge = server.gate.events, request["who"], f"the cartridge {request.get('barcode')} of {library}"
    if request["request"] == "label":
        events.record("cartridge-labelled", f"{cartridge} is {request['to']} now, by {who}", who=who)
    elif request["request"] == "remove":
        events.record("cartridge-deleted", f"{cartridge} was deleted, by {who}", who=who)


async def libraries(server: Server, request: Request) -> dict[str, Any]:
    """All libraries that a target shows, each as `status` tells of it."""
    shown = sorted({target.library for target in server.settled.targets.values() if target.library})
    return {name: await server.supervisor.ask_library(name, {"request": "status"}) for name in shown}


def _role(request: Request) -> Role:
    """Files are for admins: by their paths one could get at any. So is throwing cartridges away."""
    if request.get("request") in ("status", "cartridges"):
        return Role.VIEWER
    if request.get("request") == "remove":
        return Role.ADMIN
    return Role.OPERATOR if request.get("file") is None else Role.ADMIN


TAPE_COMMANDS = {"tape": Command(tape, _role), "tape libraries": Command(libraries, Role.VIEWER)}
