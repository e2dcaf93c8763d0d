"""What can be asked of a server about the layers of its volumes: passed on to the worker that has the volume."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blockyard.control.command import Command
from blockyard.control.errors import UsageError
from blockyard.control.roles import Role

if TYPE_CHECKING:
    from blockyard.control.administration import Request
    from blockyard.control.server import Server

_ROLES = {"show": Role.VIEWER, "actions": Role.VIEWER}  # an action may open files


async def layer(server: Server, request: Request) -> dict[str, Any]:
    """One of worker/layer_requests.py for "layer", which is VOLUME or VOLUME/PATH."""
    volume, path = _named(server, request)
    arguments = {key: request.get(key) for key in ("request", "action", "options")}
    return _plain(await server.supervisor.ask_volume(volume, {**arguments, "path": path}))


def _named(server: Server, request: Request) -> tuple[str, str]:
    """The volume and the path of a layer in it: names of volumes may have a slash, too, so that the longest one counts."""
    name = request.get("layer")
    if not isinstance(name, str):
        raise UsageError("the request has no layer")
    there = [volume for volume in server.settled.volumes if name == volume or name.startswith(f"{volume}/")]
    if not there:
        raise UsageError(f"there is no volume {name.partition('/')[0]!r}: `blockyard status` lists them")
    volume = max(there, key=len)
    return volume, name[len(volume) + 1 :]


def _plain(reply: dict[str, Any]) -> dict[str, Any]:
    """What a worker replies, without what belongs to the message."""
    return {key: value for key, value in reply.items() if key not in ("type", "number")}


async def jobs(server: Server, request: Request) -> dict[str, Any]:
    """The jobs of all layers."""
    told = await server.supervisor.ask_all({"name": "layer jobs"})
    return {"jobs": [job for reply in told if reply is not None for job in reply["jobs"]]}


async def cancel(server: Server, request: Request) -> None:
    """Have a job of a layer stop."""
    told = await server.supervisor.ask_all({"name": "cancel layer job", "job": request.get("job")})
    if not any(reply["cancelled"] for reply in told if reply is not None):
        raise UsageError(f"there is no job {request.get('job')}: `blockyard layer jobs` lists them")


LAYER_COMMANDS = {
    "layer": Command(layer, lambda request: _ROLES.get(str(request.get("request")), Role.ADMIN)),
    "layer jobs": Command(jobs, Role.VIEWER),
    "layer cancel": Command(cancel, Role.OPERATOR),
}
