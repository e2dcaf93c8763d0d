"""Logging in: a session is begun with a name and a password, and ended (DSP0266 §13.3.4). One sees and ends one's own."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Request, Response
from pydantic import BaseModel, Field

from blockyard.api.hashing import address, failed, is_password, succeeded
from blockyard.api.logins import IDLE, Login
from blockyard.api.problems import not_found
from blockyard.api.redfish.door import TOKEN, unauthorized
from blockyard.api.redfish.resources import collection, link, new_routes, reply, resource, uri
from blockyard.api.security import Here, Owners
from blockyard.control.passwords import MAX_PASSWORD
from blockyard.control.roles import Role

routes = new_routes()

_SESSIONS = ("SessionService", "Sessions")
_Text = Annotated[str, Field(max_length=MAX_PASSWORD)]


class Credentials(BaseModel):
    UserName: _Text
    Password: _Text
    Token: Annotated[str, Field(max_length=10)] | None = None


@routes.get("/v1/SessionService", Role.VIEWER, Owners.THEIRS, name="redfish_session_service")
async def session_service(request: Request) -> Response:
    """How one logs in."""
    more = {"ServiceEnabled": True, "SessionTimeout": int(IDLE), "Sessions": link(uri(*_SESSIONS))}
    return reply(request, resource("SessionService", uri("SessionService"), "SessionService", "Sessions", **more))


@routes.get("/v1/SessionService/Sessions", Role.VIEWER, Owners.THEIRS, name="redfish_sessions")
async def sessions(request: Request) -> Response:
    """One's own, if one has come by it."""
    login: Login | None = request.state.login
    members = [] if login is None else [uri(*_SESSIONS, login.id)]
    return reply(request, collection("Session", uri(*_SESSIONS), members))


@routes.post("/v1/SessionService/Sessions", None, name="redfish_log_in")
async def log_in(credentials: Credentials, request: Request, here: Here) -> Response:
    """Begin one: its token is in X-Auth-Token."""
    name = credentials.UserName
    if not await is_password(here, request, name, credentials.Password):
        raise unauthorized("the name or the password is wrong")
    if here.accounts.get(name).totp and not here.accounts.take_code(name, credentials.Token or ""):
        failed(here, request, name, "a wrong one-time password")
        raise unauthorized("Token: a one-time password is needed, and this is none that is good now")
    succeeded(here, request, name)
    token, login = here.logins.begin(name, here.accounts.get(name).changed, address(request))
    return reply(request, _session(login), status=HTTPStatus.CREATED, fields={TOKEN: token})


@routes.get("/v1/SessionService/Sessions/{session}", Role.VIEWER, Owners.THEIRS, name="redfish_session")
async def session_(session: str, request: Request) -> Response:
    """One's own."""
    return reply(request, _session(_mine(request, session)))


@routes.delete(
    "/v1/SessionService/Sessions/{session}", Role.VIEWER, Owners.THEIRS, name="redfish_log_out", status_code=204
)
async def log_out(session: str, request: Request, here: Here) -> None:
    """End it."""
    _mine(request, session)
    here.logins.end(request.headers.get(TOKEN, ""))


def _mine(request: Request, number: str) -> Login:
    login: Login | None = request.state.login
    if login is None or login.id != number:
        raise not_found(f"session {number!r} of yours")
    return login


def _session(login: Login) -> dict[str, Any]:
    return resource("Session", uri(*_SESSIONS, login.id), login.id, "Session", UserName=login.account)
