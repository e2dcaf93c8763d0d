"""Carrying out what a server is asked, by whichever road it has come, and writing down what that has changed."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING

from blockyard.control import audit
from blockyard.control.commands import COMMANDS
from blockyard.control.errors import ControlError, UsageError
from blockyard.control.redaction import redacted
from blockyard.control.state import State

if TYPE_CHECKING:
    from blockyard.control.administration import Request
    from blockyard.control.command import Command
    from blockyard.control.server import Server

_LENGTH = 200  # characters of a request that an entry names


async def carry_out(server: Server, request: Request) -> object:
    """What a command answers; `request["who"]` is who asks. Raises ControlError."""
    command = COMMANDS.get(str(request.get("command")))
    if command is None:
        raise UsageError(f"the server has no command {request.get('command')!r}: it may be of another version")
    if not command.changes(request):
        return await command.run(server, request)
    before = await _seen(command, server, request)
    result = await command.run(server, request)
    entry = audit.Entry(request["who"], _described(request), before, await _seen(command, server, request))
    await asyncio.to_thread(_record, server, entry)
    return result


async def _seen(command: Command, server: Server, request: Request) -> object:
    if command.look is None:
        return None
    try:
        return await command.look(server, request)
    except (ControlError, LookupError):  # there is none, or none any more
        return None


def _described(request: Request) -> str:
    arguments = {name: value for name, value in request.items() if name not in ("command", "who") and value is not None}
    text = json.dumps(redacted(arguments), ensure_ascii=False, default=str)
    return f"{request['command']} {text if len(text) <= _LENGTH else text[: _LENGTH - 1] + '…'}"


def _record(server: Server, entry: audit.Entry) -> None:
    with contextlib.closing(State(server.options.state)) as state:
        audit.record(state, entry)
