"""Every route has a rule, which stands in the OpenAPI document; and the rule is what holds."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterator
from typing import Any

import httpx
from starlette.routing import Route

from blockyard.api.app import application
from blockyard.control.commands import COMMANDS
from blockyard.control.roles import Role
from tests.api.conftest import ApiFactory
from tests.api.serving import TWO

OTHER = "iqn.2026-11.test:other"  # a target that is nobody's
_KEYS = {"target": OTHER, "name": "status", **dict.fromkeys(("tag", "number", "lun", "tsih", "revision"), "9999")}
_RANKS: list[str] = [Role.VIEWER, Role.OPERATOR, Role.ADMIN]
_OPEN = {("GET", "/setup"), ("POST", "/setup"), ("POST", "/login")}


@functools.cache
def _operations() -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method.upper(), path.removeprefix("/api/v1"), operation)
        for path, item in application().openapi()["paths"].items()
        for method, operation in item.items()
    ]


def test_no_route_is_without_a_rule() -> None:
    served = {
        (method, route.path)
        for route in application().routes
        if isinstance(route, Route)
        for method in route.methods or ()
        if route.path != "/api/v1/openapi.json"
    }
    documented = {(method, f"/api/v1{path}") for method, path, _ in _operations()}
    assert {(method, re.sub(r":path}", "}", path)) for method, path in served} == documented
    for method, path, operation in _operations():
        assert operation["x-role"] in (*_RANKS, "anybody"), (method, path)
        assert operation["x-owners"] in ("nothing", "theirs", "target", "volume"), (method, path)
        assert (operation["x-role"] == "anybody") == ((method, path) in _OPEN), (method, path)
        if operation["x-role"] == "viewer":
            assert method in ("GET", "POST", "PUT", "DELETE")
            assert method == "GET" or path.startswith(("/commands/", "/me/", "/tokens", "/logout")), (method, path)


def test_every_command_has_a_role() -> None:
    for name, command in COMMANDS.items():
        assert command.role_for({"command": name}) in _RANKS, name


def _calls() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each operation, on objects that there are not."""
    for method, path, operation in _operations():
        filled = path.replace("{target}", OTHER).replace("{volume}", "nothing").replace("{name}", "status")
        yield (
            method,
            re.sub(
                r"{(tag|number|lun|tsih|revision)}",
                "9999",
                re.sub(r"{(?!tag|number|lun|tsih|rev)\w+}", "nothing", filled),
            ),
            operation,
        )


def _status(client: httpx.Client, method: str, path: str) -> int:
    if path == "/stream":
        with client.stream(method, path) as answer:
            return answer.status_code
    body: dict[str, Any] = {} if method in ("GET", "DELETE") else {"json": {}}
    return client.request(method, path, **body).status_code


def test_the_rules_hold(api: ApiFactory) -> None:
    served = api(managed=True)
    wrong = []
    for role in (None, *Role):
        theirs = ["iqn.2026-11.test:theirs"] if role is Role.OWNER else []
        token = None if role is None else served.token(role, *theirs)
        for number, (method, path, operation) in enumerate(_calls()):
            if number % 80 == 0:  # who has no token is counted by address, and may send so many at once
                transport = httpx.HTTPTransport(local_address=f"127.0.0.{2 + number // 80}")
                client = served.client(token, transport=transport)
            found = _status(client, method, path)
            if found not in _expected(role, method, path, operation):
                wrong.append(f"{method} {path} as {role}: {found}, where {operation['x-role']} is needed")
    assert not wrong


def _expected(role: Role | None, method: str, path: str, operation: dict[str, Any]) -> Collection[int]:
    """The statuses that are right."""
    needed, owners = operation["x-role"], operation["x-owners"]
    done = {200, 201, 202, 204, 400, 404, 409, 422, 428}  # or is not to be done, whoever asks
    if needed == "anybody":
        return {*done, 401} if path == "/login" else done
    if role is None:
        return {401}
    if role is not Role.OWNER:
        return done if _RANKS.index(role) >= _RANKS.index(needed) else {403}
    if owners in ("target", "volume"):
        return {404} if method == "GET" else {403}  # nor are they told whether there is one
    return (
        done if owners == "theirs" and not path.startswith("/commands/") else {403}
    )  # commands have rules of their own


def test_owners_see_what_is_theirs(api: ApiFactory) -> None:
    served = api(config=TWO)
    with served.client(served.token(Role.OWNER, "iqn.2026-11.test:a")) as client:
        assert [target["name"] for target in client.get("/targets").json()] == ["iqn.2026-11.test:a"]
        assert [volume["name"] for volume in client.get("/volumes").json()] == ["a"]
        assert client.get("/targets/iqn.2026-11.test:a").status_code == 200
        assert client.get("/targets/iqn.2026-11.test:b").status_code == 404
        assert client.get("/volumes/a").status_code == 200
        assert client.get("/volumes/b").status_code == 404
        assert client.get("/status").json()["targets"] == 1
        assert client.get("/pools").status_code == 403
        assert client.delete("/targets/iqn.2026-11.test:a/sessions/1").status_code == 404
        assert client.delete("/targets/iqn.2026-11.test:b/sessions/1").status_code == 403
        drop = {"initiator": "iqn.2026-11.test:i", "target": "iqn.2026-11.test:b"}
        assert client.post("/commands/session drop", json=drop).status_code == 403
        assert client.post("/commands/session drop", json={**drop, "target": "iqn.2026-11.test:a"}).status_code == 400
        assert client.post("/commands/status", json={}).status_code == 403


def test_the_role_of_a_command_depends_on_what_is_asked(api: ApiFactory) -> None:
    served = api()
    with served.client(served.token(Role.VIEWER)) as viewer:
        assert viewer.post("/commands/status", json={}).status_code == 200
        assert viewer.post("/commands/pool", json={"pool": "p", "request": "show"}).status_code == 400  # there is none
        assert viewer.post("/commands/pool", json={"pool": "p", "request": "delete volume"}).status_code == 403
        assert viewer.post("/commands/nonsense", json={}).status_code == 404
    with served.client(served.token(Role.OPERATOR)) as operator:
        assert operator.post("/commands/pool", json={"pool": "p", "request": "delete volume"}).status_code == 400
        assert operator.post("/commands/pool", json={"pool": "p", "request": "cdp copy"}).status_code == 403
        assert (
            operator.post("/commands/optical", json={"drive": "d", "request": "insert", "image": "/x"}).status_code
            == 403
        )
