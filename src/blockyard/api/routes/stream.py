"""What changes, as it changes: server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from http import HTTPStatus

from fastapi import Request
from fastapi.responses import StreamingResponse

from blockyard.api.problems import Refused
from blockyard.api.security import Here, Owners, Routes, Who
from blockyard.control.roles import Role

routes = Routes("stream")

_EXAMPLE = {
    200: {
        "description": "messages `statistics` (rates of volumes) and `activity` (their latency, what sessions do) each second; "
        "`sessions`, `jobs` and `configuration` when they have changed; "
        "`event` for each event, whose id a client that comes again sends as Last-Event-ID",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


@routes.get("/stream", Role.VIEWER, Owners.THEIRS, response_class=StreamingResponse, responses=_EXAMPLE)
async def get_stream(request: Request, here: Here, who: Who) -> StreamingResponse:
    """Live: throughput, sessions, jobs and events. For an owner, what concerns their targets."""
    after = request.headers.get("last-event-id", "")
    subscription = here.hub.subscribe(
        who, int(after) if after.isascii() and after.isdecimal() and len(after) < 18 else None
    )
    if subscription is None:
        raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "too many streams are open", {"retry-after": "10"})

    async def messages() -> AsyncIterator[bytes]:
        try:
            async for message in subscription:
                yield message
        finally:
            here.hub.leave(subscription)

    return StreamingResponse(messages(), media_type="text/event-stream", headers={"x-accel-buffering": "no"})
