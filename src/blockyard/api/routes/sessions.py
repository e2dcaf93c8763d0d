"""Sessions of initiators."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path
from pydantic import BaseModel, Field

from blockyard.api.context import Context
from blockyard.api.problems import not_found
from blockyard.api.security import Here, Owners, Routes, Who
from blockyard.control.roles import Role

routes = Routes("sessions")

_TSIH = Path(ge=0, le=65535)


class Connection(BaseModel):
    cid: int
    peer: str = Field(description="ADDR:PORT of the initiator")
    portal: str


class Session(BaseModel):
    """An I_T nexus that is logged in (RFC 7143)."""

    target: str
    initiator: str
    tsih: int = Field(description="the target session identifying handle")
    portal_group: int
    user: str = Field(description="the CHAP name; empty: none")
    right: str
    connections: list[Connection]


@routes.get("/sessions", Role.VIEWER, Owners.THEIRS, of=("statistics",))
async def list_sessions(here: Here, who: Who) -> list[Session]:
    """Who is logged in now; for an owner, to their targets."""
    return [session for session in await _sessions(here) if who.everywhere or session.target in who.targets]


@routes.get("/targets/{target}/sessions", Role.VIEWER, Owners.TARGET, of=("statistics",))
async def list_sessions_of_target(target: str, here: Here) -> list[Session]:
    """Who is logged in to a target."""
    if target not in here.server.settled.targets:
        raise not_found(f"target {target!r}")
    return [session for session in await _sessions(here) if session.target == target]


@routes.get("/targets/{target}/sessions/{tsih}", Role.VIEWER, Owners.TARGET)
async def get_session(target: str, tsih: Annotated[int, _TSIH], here: Here) -> Session:
    """One of them."""
    return await _find(here, target, tsih)


@routes.delete("/targets/{target}/sessions/{tsih}", Role.OPERATOR, Owners.TARGET, status_code=204)
async def drop_session(target: str, tsih: Annotated[int, _TSIH], here: Here, who: Who) -> None:
    """End a session. The initiator may log in again."""
    here.forget()
    session = await _find(here, target, tsih)
    await here.command(who, "session drop", initiator=session.initiator, target=target, tsih=tsih)


async def _find(here: Context, target: str, tsih: int) -> Session:
    for session in await _sessions(here):
        if (session.target, session.tsih) == (target, tsih):
            return session
    raise not_found(f"session {tsih} of {target!r}")


async def _sessions(here: Context) -> list[Session]:
    found = await here.statistics()
    return [Session(**session) for session in found["sessions"]]
