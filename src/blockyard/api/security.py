"""Who may use a route: each declares its rule, which stands in the OpenAPI document, too (x-role, x-owners).

`Routes` is the only way to add one, so that none is without.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

from fastapi import Depends, FastAPI, Request

from blockyard.api.context import Context
from blockyard.api.etags import Conditional
from blockyard.api.guard import CSRF, UNPROVED, unauthorized
from blockyard.api.problems import Refused, not_found, responses
from blockyard.control.roles import Identity, Role

F = TypeVar("F", bound=Callable[..., Coroutine[Any, Any, Any]])


class Owners(StrEnum):
    """What a route is for owners of targets."""

    NOTHING = "nothing"  # as for everybody whose role is not enough
    THEIRS = "theirs"  # it tells or does what concerns their targets
    TARGET = "target"  # as for operators, where its parameter `target` is one of theirs
    VOLUME = "volume"  # the same, where its `volume` (of `pool`) is shown by theirs only


@dataclass(frozen=True)
class Rule:
    """Who may use a route. `role` is None where nobody has to prove anything."""

    role: Role | None
    owners: Owners = Owners.NOTHING


def context(request: Request) -> Context:
    found: Context = request.state.context
    return found


def identity(request: Request) -> Identity:
    found: Identity = request.state.identity
    return found


async def _context(request: Request) -> Context:  # what is async FastAPI calls at once, all else in a thread
    return context(request)


async def _identity(request: Request) -> Identity:
    return identity(request)


Here = Annotated[Context, Depends(_context)]
Who = Annotated[Identity, Depends(_identity)]


def check(rule: Rule, who: Identity, request: Request) -> None:
    """Raises Refused for whom the rule does not let."""
    if rule.role is None:
        return
    if who is UNPROVED:
        raise Refused(HTTPStatus.FORBIDDEN, f"a change that comes with a cookie needs the field {CSRF} from the login")
    if not who.by:
        raise unauthorized("log in, or send a token")
    if who.at_least(rule.role):
        return
    if who.role is Role.OWNER and _is_owner(rule.owners, who, request):
        return
    raise Refused(HTTPStatus.FORBIDDEN, f"{who.name} is {who.role}: that is for {rule.role}s")


def _is_owner(owners: Owners, who: Identity, request: Request) -> bool:
    if owners is Owners.NOTHING:
        return False
    if owners is Owners.THEIRS:
        return True
    if owners is Owners.TARGET:
        owned = who.owns([request.path_params["target"]])
    else:
        owned = who.owns(shown_by(context(request), **request.path_params))
    if not owned and request.method in ("GET", "HEAD"):
        raise not_found("such thing")  # whether there is one is not for everybody
    return owned


def shown_by(here: Context, *, volume: str, pool: str = "", **others: str) -> set[str]:
    """The targets that show a volume: one that is configured, or one of a pool with all of its snapshots."""
    settled = here.server.settled
    names = {
        name
        for name, each in settled.volumes.items()
        if (each.pool == pool and each.in_pool == volume if pool else name == volume)
    }
    return {name for name, target in settled.targets.items() if names & target.volumes}


@dataclass(frozen=True)
class Route:
    """One that was added."""

    method: str
    path: str
    rule: Rule
    function: Callable[..., Any]
    plain: bool  # what its function returns is what is told, as JSON
    of: (
        tuple[str, ...] | None
    )  # all that its answer is made of, besides the configuration (Context.shared); None: it is not said
    told: dict[str, Any]  # what FastAPI has to know


class Routes:
    """The routes of one kind of object."""

    def __init__(self, tag: str) -> None:
        self._tag = tag
        self.added: list[Route] = []

    def add_to(self, app: FastAPI, prefix: str) -> None:
        """Give an application these routes; itself, and not as a router of its own: so it knows which methods a path has."""
        for route in self.added:
            app.add_api_route(prefix + route.path, route.function, **route.told)

    def get(self, path: str, role: Role | None, owners: Owners = Owners.NOTHING, **more: Any) -> Callable[[F], F]:
        return self._add("GET", path, Rule(role, owners), more)

    def post(self, path: str, role: Role | None, owners: Owners = Owners.NOTHING, **more: Any) -> Callable[[F], F]:
        return self._add("POST", path, Rule(role, owners), more)

    def put(self, path: str, role: Role | None, owners: Owners = Owners.NOTHING, **more: Any) -> Callable[[F], F]:
        return self._add("PUT", path, Rule(role, owners), more)

    def patch(self, path: str, role: Role | None, owners: Owners = Owners.NOTHING, **more: Any) -> Callable[[F], F]:
        return self._add("PATCH", path, Rule(role, owners), more)

    def delete(self, path: str, role: Role | None, owners: Owners = Owners.NOTHING, **more: Any) -> Callable[[F], F]:
        return self._add("DELETE", path, Rule(role, owners), more)

    def _add(self, method: str, path: str, rule: Rule, more: dict[str, Any]) -> Callable[[F], F]:
        async def checked(request: Request) -> None:
            check(rule, identity(request), request)

        told, text, of = more.pop("responses", {}), more.pop("text", None), more.pop("of", None)
        body, media = more.pop("body", None), more.pop("media", "application/json")
        problems = [400, 408, 413, 421, 422, 429, 503] + ([] if rule.role is None else [401]) + [403]
        if "{" in path:
            problems.append(404)
        if method not in ("GET", "HEAD"):
            problems.append(409)
        extra: dict[str, Any] = {
            "x-role": "anybody" if rule.role is None else str(rule.role),
            "x-owners": str(rule.owners),
        }
        if rule.role is None:
            extra["security"] = []
        if body is not None:  # which the route reads by itself
            extra["requestBody"] = {"required": True, "content": {media: {"schema": body}}}
            problems.append(415)

        def add(function: F) -> F:
            taken = inspect.signature(function).parameters.values()
            if any(each.name == "if_match" or each.annotation in (Conditional, "Conditional") for each in taken):
                problems.extend((404, 412, 428))
            name = more.pop("name", function.__name__)
            described = {"name": name, "operation_id": name, "summary": name.replace("_", " "), "description": text}
            rules = {"dependencies": [Depends(checked)], "openapi_extra": extra}
            told_too = {"responses": {**responses(*problems), **told}, "tags": [self._tag]}
            whole = {"methods": [method], **described, **rules, **told_too, **more}
            self.added.append(Route(method, path, rule, function, not more, of, whole))
            return function

        return add
