"""What can be asked of a server about events: send one to every receiver, to see whether it arrives."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from blockyard.control.command import Command
from blockyard.control.delivery import try_all
from blockyard.control.errors import UsageError
from blockyard.control.events import read_events
from blockyard.control.roles import Role
from blockyard.control.state import State

if TYPE_CHECKING:
    from blockyard.control.administration import Request
    from blockyard.control.server import Server

_MOST = 10_000  # events that are told at once


async def events_test(server: Server, request: Request) -> dict[str, str]:
    """Why an event has not arrived by the receiver it was sent to, "" where it has: by all, or by `receiver` ("mail.team")."""
    receivers = server.configuration.events.by_place
    if not receivers:
        raise UsageError(
            "events are delivered nowhere: [events] in the configuration says where to (docs/notifications.md)"
        )
    only = request.get("receiver")
    if only is not None and only not in receivers:
        raise UsageError(f"events are delivered to {', '.join(receivers)}, not to {only!r}")
    wanted = receivers if only is None else {only: receivers[only]}
    return await asyncio.to_thread(try_all, wanted, f"{request['who']} tries whether events arrive")


async def events(server: Server, request: Request) -> list[dict[str, object]]:
    """What has been recorded: the `last` ones of those with an id after `after`."""
    after, last = request.get("after", 0), request.get("last", _MOST)
    if type(after) is not int or type(last) is not int or not 0 <= after < 1 << 62 or not 0 <= last <= _MOST:
        raise UsageError(f"after is an id of an event, and last a number up to {_MOST}")

    def read() -> list[dict[str, object]]:
        with contextlib.closing(State(server.options.state)) as state:
            return [event.as_dict() for event in read_events(state, after=after, last=last)]

    return await asyncio.to_thread(read)


EVENT_COMMANDS: dict[str, Command] = {
    "events": Command(events, Role.VIEWER),
    "events test": Command(events_test, Role.OPERATOR),
}
