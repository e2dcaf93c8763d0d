"""What can be asked of a server about events: send one to every receiver, to see whether it arrives."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from blockyard.control.command import Command
from blockyard.control.delivery import try_all
from blockyard.control.errors import UsageError
from blockyard.control.roles import Role

if TYPE_CHECKING:
    from blockyard.control.administration import Request
    from blockyard.control.server import Server


async def events_test(server: Server, request: Request) -> dict[str, str]:
    """Why an event has not arrived by the receiver it was sent to; "" where it has."""
    receivers = server.configuration.events.by_place
    if not receivers:
        raise UsageError(
            "events are delivered nowhere: [events] in the configuration says where to (docs/notifications.md)"
        )
    return await asyncio.to_thread(try_all, receivers, f"{request['who']} tries whether events arrive")


EVENT_COMMANDS: dict[str, Command] = {"events test": Command(events_test, Role.OPERATOR)}
