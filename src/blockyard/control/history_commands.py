"""What can be asked of a server about what was: graphs, and which there are."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from blockyard.control.command import Command
from blockyard.control.errors import UsageError
from blockyard.control.history.recorder import as_message, span
from blockyard.control.history.series import MOST_TOLD, parse
from blockyard.control.roles import Role

if TYPE_CHECKING:
    from blockyard.control.administration import Request
    from blockyard.control.server import Server


async def history_show(server: Server, request: Request) -> dict[str, Any]:
    """What was measured of "series", a list of names, between "from" and "to", with a point each "resolution" seconds."""
    names, begin, end, step = (request.get(each) for each in ("series", "from", "to", "resolution"))
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UsageError("series is a list of names: total, volume:NAME, pool:NAME")
    if len(names) > MOST_TOLD:
        raise UsageError(f"that are {len(names)} series: {MOST_TOLD} at most are told at once")
    if not isinstance(begin, int | float) or not isinstance(end, int | float | None):
        raise UsageError("from and to are seconds since 1970, or before now where they are negative")
    if not isinstance(step, int | None):
        raise UsageError("resolution is a number of seconds")
    try:
        wanted = span(begin, end, step, time.time())
        return dict(
            as_message(wanted, await server.history.read([parse(name) for name in names], wanted, server.settled))
        )
    except (ValueError, OverflowError) as error:
        raise UsageError(str(error)) from None
    except LookupError as error:
        raise UsageError(
            f"there is no history of {error.args[0]}: `blockyard history --list` tells of what there is"
        ) from None


async def history_list(server: Server, request: Request) -> list[dict[str, Any]]:
    """All series that there are, and from when to when."""
    return [
        {"series": str(each.name), "began": each.began, "seen": each.seen} for each in await server.history.series()
    ]


HISTORY_COMMANDS: dict[str, Command] = {
    "history show": Command(history_show, Role.VIEWER),
    "history list": Command(history_list, Role.VIEWER),
}
