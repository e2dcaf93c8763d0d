"""The server as a whole, and every command that it can be asked for."""

from __future__ import annotations

import os
import time
from http import HTTPStatus
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from blockyard import __version__
from blockyard.api.problems import Refused, not_found
from blockyard.api.security import Here, Owners, Routes, Who
from blockyard.control.commands import COMMANDS
from blockyard.control.roles import Role

routes = Routes("server")
_BEGAN = time.time()


class Status(BaseModel):
    """The server, and how much of everything there is."""

    version: str
    pid: int
    began: float = Field(description="when the API began to serve, in seconds since 1970")
    configured_by: Literal["file", "arguments", "managed"] = Field(
        description="file or arguments: there, changes have to be made; managed: here"
    )
    configuration_file: str | None
    workers: int
    targets: int
    volumes: int
    pools: int
    libraries: int
    drives: int
    sessions: int


class CommandRequest(BaseModel):
    """The arguments of a command, as the control socket takes them."""

    model_config = ConfigDict(extra="allow")


class CommandResult(BaseModel):
    result: Any = Field(description="what the command answers; its form is the command's own")


class CommandDescription(BaseModel):
    name: str
    text: str
    role: str = Field(description="who may ask for it; where it depends on the arguments, 'depends'")


@routes.get("/status", Role.VIEWER, Owners.THEIRS, of=("statistics",))
async def get_status(here: Here, who: Who) -> Status:
    """How it goes, and how much there is; for an owner, of what is theirs."""
    server = here.server
    settled = server.settled
    seen = {name for name in settled.targets if who.everywhere or name in who.targets}
    shown = {volume for name in seen for volume in settled.targets[name].volumes}
    sessions = (await here.statistics())["sessions"]
    config = server.options.config
    return Status(
        version=__version__,
        pid=os.getpid(),
        began=_BEGAN,
        configured_by="managed" if server.managed is not None else "arguments" if config is None else "file",
        configuration_file=None if config is None or not who.everywhere else str(config.absolute()),
        workers=len(server.supervisor.workers),
        targets=len(seen),
        volumes=len(settled.volumes.keys() if who.everywhere else settled.volumes.keys() & shown),
        pools=len(settled.pools) if who.everywhere else 0,
        libraries=len(settled.libraries) if who.everywhere else 0,
        drives=len(settled.drives.keys() if who.everywhere else settled.drives.keys() & shown),
        sessions=sum(session["target"] in seen for session in sessions),
    )


@routes.get("/commands", Role.VIEWER, Owners.THEIRS)
async def list_commands() -> list[CommandDescription]:
    """What `blockyard` asks a server for."""
    return [
        CommandDescription(
            name=name,
            text=(command.run.__doc__ or "").strip().partition("\n")[0],
            role=str(command.role) if isinstance(command.role, Role) else "depends",
        )
        for name, command in COMMANDS.items()
    ]


@routes.post("/commands/{name}", Role.VIEWER, Owners.THEIRS)
async def run_command(name: str, request: CommandRequest, here: Here, who: Who) -> CommandResult:
    """Have a command carried out, whose own role holds: what `blockyard --url` does."""
    command = COMMANDS.get(name)
    if command is None:
        raise not_found(f"command {name!r}: it may be of another version")
    arguments = request.model_extra or {}
    if not command.permits(who, arguments):
        raise Refused(HTTPStatus.FORBIDDEN, f"{who.name} is {who.role}: {name} is for {command.role_for(arguments)}s")
    return CommandResult(result=await here.command(who, name, **arguments))
