"""What can be asked of a server that runs, by the control socket: one function for each command, and their table.

A command gets the server and the request, and returns what JSON can say. It raises ControlError for what cannot be done. The
table says as well who may ask for it by the API.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar

from blockyard import __version__
from blockyard.block.size import Size
from blockyard.control.account_commands import ACCOUNT_COMMANDS
from blockyard.control.activity import ACTIVITY_COMMANDS
from blockyard.control.command import Command
from blockyard.control.configuration_commands import CONFIGURATION_COMMANDS
from blockyard.control.errors import UsageError
from blockyard.control.event_commands import EVENT_COMMANDS
from blockyard.control.history_commands import HISTORY_COMMANDS
from blockyard.control.layer_commands import LAYER_COMMANDS
from blockyard.control.optical_commands import OPTICAL_COMMANDS
from blockyard.control.pool_commands import POOL_COMMANDS
from blockyard.control.roles import Role
from blockyard.control.schedule_commands import SCHEDULE_COMMANDS
from blockyard.control.tape_commands import TAPE_COMMANDS
from blockyard.control.user_commands import USER_COMMANDS

if TYPE_CHECKING:
    from blockyard.control.administration import Request
    from blockyard.control.server import Server

T = TypeVar("T")


async def status(server: Server, request: Request) -> dict[str, Any]:
    """Targets, their LUNs and sessions; portals; volumes with their counters."""
    settled = server.settled
    told = [report for report in await server.supervisor.ask_all({"name": "statistics"}) if report is not None]
    volumes = {name: found for report in told for name, found in report["volumes"].items()}
    drives = {name: found for report in told for name, found in report["drives"].items()}
    sizes = {name: found for report in told for name, found in report["sizes"].items()}
    return {
        "version": __version__,
        "pid": os.getpid(),
        "began": server.began,
        "workers": [
            {"number": worker.number, "pid": worker.pid, "restarts": worker.restarts}
            for worker in server.supervisor.workers
        ],
        "config": None if server.options.config is None else str(server.options.config.absolute()),
        "revision": None if server.managed is None else server.managed.revision,
        "portal_groups": {str(tag): list(group.portals) for tag, group in settled.portal_groups.items()},
        "pools": {name: {"directory": pool.directory} for name, pool in settled.pools.items()},
        "volumes": {
            name: {"path": volume.path, "source": volume.source, "size": int(volume.size) or sizes.get(name, 0),
                   "block_size": volume.block_size, "read_only": volume.read_only, "uuid": volume.uuid,
                   "counters": volumes.get(name)}
            for name, volume in settled.volumes.items()
        },
        "drives": {
            name: {"image": drive.image, "uuid": drive.uuid, "counters": drives.get(name)}
            for name, drive in settled.drives.items()
        },
        "targets": {
            name: {"alias": target.alias, "portal_groups": list(target.portal_groups),
                   "library": target.library, "luns": {str(lun): volume for lun, volume in sorted(target.luns.items())}}
            for name, target in settled.targets.items()
        },
        "sessions": [session for report in told for session in report["sessions"]],
    }  # fmt: skip


async def reload(server: Server, request: Request) -> list[str]:
    """Read the configuration file again; what has changed."""
    return await server.reload()


async def restart(server: Server, request: Request) -> None:
    """Start the control process again, by itself: workers and sessions go on."""
    server.restart()


async def volume_resize(server: Server, request: Request) -> dict[str, int]:
    """Give a volume another size."""
    try:
        size = Size.read(_field(request, "size", str))
    except ValueError as error:
        raise UsageError(str(error)) from None
    await server.resize(_field(request, "volume", str), size, who=request["who"], force=bool(request.get("force")))
    return {"size": int(size)}


async def _volume(server: Server, request: Request) -> dict[str, int]:
    volumes = server.settled.volumes.values()
    return {"size": next((int(each.size) for each in volumes if request["volume"] in (each.name, each.source)), 0)}


async def session_drop(server: Server, request: Request) -> int:
    """End sessions of an initiator, or one of them; how many there were."""
    wanted = {
        "initiator": _field(request, "initiator", str),
        "target": request.get("target"),
        "tsih": request.get("tsih"),
    }
    told = await server.supervisor.ask_all({"name": "drop sessions", **wanted})
    dropped: int = sum(report["dropped"] for report in told if report is not None)
    if not dropped:
        raise UsageError(f"there is no such session: `blockyard status` lists them ({wanted['initiator']})")
    return dropped


async def alua_show(server: Server, request: Request) -> dict[str, Any]:
    """The target port groups by target and tag: of all targets, or of `target`, whose worker alone is asked then."""
    question, wanted = {"name": "port groups"}, request.get("target")
    if wanted is None:
        told = await server.supervisor.ask_all(question)
    else:
        told = [await server.supervisor.ask(_field(request, "target", str), question)]
    found = {name: groups for report in told if report is not None for name, groups in report["targets"].items()}
    return {name: groups for name, groups in found.items() if wanted in (None, name)}


async def alua_set(server: Server, request: Request) -> None:
    """Change a target port group of a target, while initiators are logged in."""
    change = {
        "group": _field(request, "group", int),
        "state": request.get("state"),
        "preferred": request.get("preferred"),
    }
    if change["state"] is None and change["preferred"] is None:
        raise UsageError("there is nothing to change: give a state, or say whether the group is preferred")
    reply = await server.supervisor.ask(_field(request, "target", str), {"name": "set port group", **change,
                                                                         "target": request["target"]})  # fmt: skip
    if reply is None:
        raise UsageError("the worker of that target is just being started: try again")


async def _port_group(server: Server, request: Request) -> object:
    target, group = _field(request, "target", str), _field(request, "group", int)
    return (await alua_show(server, {"target": target}))[target][str(group)]


COMMANDS: dict[str, Command] = {
    "status": Command(status, Role.VIEWER),
    "reload": Command(reload, Role.ADMIN),
    "restart": Command(restart, Role.ADMIN),
    "volume resize": Command(volume_resize, Role.OPERATOR, look=_volume),
    "session drop": Command(session_drop, Role.OPERATOR, target="target"),
    "alua show": Command(alua_show, Role.VIEWER),
    "alua set": Command(alua_set, Role.OPERATOR, target="target", look=_port_group),
    **CONFIGURATION_COMMANDS,
    **ACCOUNT_COMMANDS,
    **POOL_COMMANDS,
    **TAPE_COMMANDS,
    **SCHEDULE_COMMANDS,
    **OPTICAL_COMMANDS,
    **LAYER_COMMANDS,
    **EVENT_COMMANDS,
    **USER_COMMANDS,
    **HISTORY_COMMANDS,
    **ACTIVITY_COMMANDS,
}


def _field(request: Request, name: str, kind: type[T]) -> T:
    value = request.get(name)
    if not isinstance(value, kind):
        raise UsageError(f"the request has no {name}")
    return value
