"""Accounts, tokens, one-time passwords: who they are for, and that nobody gets back what is secret."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from fastapi import Request

from blockyard.api.hashing import is_password
from blockyard.api.logins import ABSOLUTE, IDLE, Logins
from blockyard.control import passwords, totp
from blockyard.control.accounts import AccountError, Accounts
from blockyard.control.limits import LoginLimits
from blockyard.control.roles import Role
from blockyard.control.state import State
from tests.api.conftest import ApiFactory
from tests.api.serving import PASSWORD, Api, known, logged_in
from tests.conftest import need, run
from tests.waiting import eventually


def test_passwords_are_kept_as_hashes() -> None:
    kept = passwords.hashed("ångström horse battery")
    assert kept.startswith("scrypt$15$8$3$")
    assert passwords.matches("ångström horse battery", kept), "however the letters are composed (NFKC)"
    assert not passwords.matches("angstrom horse battery", kept)
    assert not passwords.matches("anything at all", passwords.NOBODYS)
    assert passwords.check_password("short")
    assert passwords.check_password("a" * 20)
    assert passwords.check_password(PASSWORD) is None


def test_one_time_passwords_are_those_of_the_standard() -> None:
    secret = b"12345678901234567890"  # RFC 6238, appendix B, the last six digits
    for moment, code in ((59, "287082"), (1111111109, "081804"), (1234567890, "005924"), (20000000000, "353130")):
        assert totp.code(secret, moment // 30) == code
        assert totp.verified(secret, code, moment, 0) == moment // 30
        assert totp.verified(secret, code, moment + 30, 0), "clocks may be wrong by a period"
        assert totp.verified(secret, code, moment + 90, 0) is None
        assert totp.verified(secret, code, moment, moment // 30) is None, "each is good once"


def test_sessions_of_the_console_end(tmp_path: Path) -> None:
    now = 1e9
    with contextlib.closing(State(tmp_path)) as state:

        def again() -> Logins:
            """As another process has them."""
            return Logins(lambda: state, lambda: now)

        logins = again()
        cookie, login = logins.begin("a", 1.0, "192.0.2.1")
        now += IDLE - 1
        assert logins.find(cookie) is login
        now += IDLE - 1
        assert logins.find(cookie) is login, "it was seen meanwhile"
        found = again().find(cookie)
        assert found == login
        assert found.csrf == login.csrf, "a start of the server does not end it"
        now += IDLE
        assert again().find(cookie) is None
        assert logins.find(cookie) is None
        cookie, _ = logins.begin("a", 1.0, "192.0.2.1")
        end = now + ABSOLUTE
        while now < end - IDLE / 2:
            assert again().find(cookie)
            now += IDLE / 2
        now = end
        assert again().find(cookie) is None, "however busy it is"
        kept, _ = logins.begin("a", 1.0, "192.0.2.1")
        other, mine = logins.begin("a", 1.0, "192.0.2.1")
        logins.end_of("a", but=mine)
        logins.renew(mine, now + 5)
        assert again().find(kept) is None
        found = again().find(other)
        assert found is not None
        assert found.since == now + 5
        logins.end(other)
        assert again().find(other) is None
        for _ in range(30):
            logins.begin("b", 1.0, "192.0.2.1")
        with state.transaction() as database:
            rows = database.execute("SELECT * FROM logins").fetchall()
        assert len(rows) == 20, "of one account"
        assert cookie not in repr(rows)


def test_another_password_ends_sessions_whatever_the_clock_says(shared: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    shared.account("punctual", Role.VIEWER)
    with logged_in(shared, "punctual") as client, contextlib.closing(State(shared.state)) as state:
        assert client.get("/me").status_code == 200
        with monkeypatch.context() as earlier:
            earlier.setattr("blockyard.control.accounts.time.time", lambda: 1e9)
            Accounts(state).set("punctual", password_hash=passwords.NOBODYS)
        assert client.get("/me").status_code == 401


def test_a_password_that_is_changed_while_it_is_compared_lets_nobody_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    events = SimpleNamespace(record=lambda what, text, **more: told.append(what))
    server = SimpleNamespace(gate=SimpleNamespace(events=events))
    with contextlib.closing(State(tmp_path)) as state:
        accounts = Accounts(state)
        accounts.add("a", Role.ADMIN, known())
        here: Any = SimpleNamespace(accounts=accounts, limits=LoginLimits(), server=server)
        request = Request({"type": "http", "client": ("192.0.2.1", 1), "headers": []})
        assert asyncio.run(is_password(here, request, "a", PASSWORD))

        async def meanwhile(work: Callable[..., bool], *arguments: str) -> bool:
            accounts.set("a", password_hash=passwords.NOBODYS)
            return work(*arguments)

        monkeypatch.setattr("blockyard.api.hashing._in_thread", meanwhile)
        assert not asyncio.run(is_password(here, request, "a", PASSWORD))
        assert told == ["console-login-failed"]


def test_who_is_known_gets_in_where_nothing_can_be_written(tmp_path: Path) -> None:
    now = time.time()
    with contextlib.closing(State(tmp_path)) as state:
        accounts = Accounts(state)
        accounts.add("a", Role.ADMIN, known())
        token = accounts.add_token("a", "", None, None)[1]
        logins = Logins(lambda: state, lambda: now)
        cookie, login = logins.begin("a", 1.0, "192.0.2.1")
        with state.transaction() as database:
            database.execute("PRAGMA query_only = 1")  # as on a disk that is full
        now += IDLE - 1
        assert logins.find(cookie) is login
        assert accounts.of_token(token, now) is not None
        now += IDLE
        assert logins.find(cookie) is None


def test_there_is_always_an_admin(tmp_path: Path) -> None:
    with contextlib.closing(State(tmp_path)) as state:
        accounts = Accounts(state)
        accounts.add("admin", Role.ADMIN, known())
        for change in ({"role": Role.VIEWER}, {"enabled": False}):
            with pytest.raises(AccountError, match="last account"):
                accounts.set("admin", **change)
        with pytest.raises(AccountError, match="last account"):
            accounts.remove("admin")
        accounts.add("other", Role.ADMIN, known())
        accounts.remove("admin")
        with pytest.raises(AccountError, match="name targets"):
            accounts.add("owner", Role.OWNER, known())
        with pytest.raises(AccountError, match="letters"):
            accounts.add("no/name", Role.VIEWER, known())


def test_tokens_end(tmp_path: Path) -> None:
    with contextlib.closing(State(tmp_path)) as state, contextlib.closing(State(tmp_path)) as elsewhere:
        accounts, others = Accounts(state), Accounts(elsewhere)
        accounts.add("admin", Role.ADMIN, known())
        token, text = accounts.add_token("admin", "", Role.VIEWER, 3600)
        found = others.of_token(text)
        assert found is not None
        assert (found.name, found.role) == ("admin", Role.VIEWER)
        assert others.of_token(text, time.time() + 3601) is None
        accounts.add("other", Role.ADMIN, known())
        accounts.set("admin", enabled=False)
        assert others.of_token(text) is None, "the account is disabled, by another process"
        accounts.set("admin", enabled=True)
        assert others.of_token(text)
        accounts.revoke(token.id)
        assert others.of_token(text) is None


def test_accounts_by_the_api(api: ApiFactory) -> None:
    served = api()
    served.account("admin", Role.ADMIN)
    with logged_in(served, "admin") as client:
        new = {"name": "carl", "role": "operator", "password": PASSWORD}
        answer = client.post("/accounts", json=new)
        assert answer.status_code == 201
        assert answer.headers["location"].endswith("/accounts/carl")
        assert client.post("/accounts", json=new).status_code == 409
        assert client.post("/accounts", json={**new, "name": "weak", "password": "weak"}).status_code == 422
        etag = client.get("/accounts/carl").headers["etag"]
        assert client.patch("/accounts/carl", json={"role": "viewer"}).status_code == 428
        assert client.patch("/accounts/carl", json={"role": "viewer"}, headers={"If-Match": etag}).status_code == 200
        assert client.patch("/accounts/carl", json={"role": "admin"}, headers={"If-Match": etag}).status_code == 412
        assert client.delete("/accounts/admin", headers={"If-Match": "*"}).status_code == 409
        with logged_in(served, "carl") as carl:
            assert carl.get("/me").json()["role"] == "viewer"
            assert carl.get("/accounts").status_code == 403
            etag = client.get("/accounts/carl").headers["etag"]
            answer = client.patch("/accounts/carl", json={"enabled": False}, headers={"If-Match": etag})
            assert answer.status_code == 200
            assert carl.get("/me").status_code == 401, "its sessions have ended"
        assert client.delete("/accounts/carl", headers={"If-Match": "*"}).status_code == 204
        told = client.get("/audit").json()
        assert [entry["what"] for entry in told if "carl" in entry["what"]] == [
            "account carl made", "account carl changed", "account carl changed", "account carl removed",
        ]  # fmt: skip
        assert told[-1]["before"]["enabled"] is False
        assert PASSWORD not in client.get("/audit").text
        assert "scrypt" not in client.get("/audit").text + client.get("/accounts").text


def test_a_session_outlives_a_start_of_the_server(api: ApiFactory) -> None:
    served = api()
    served.account("admin", Role.ADMIN)
    with logged_in(served, "admin") as client:
        served.serving.restart()
        assert client.get("/me").json()["by"] == "session"
        assert client.post("/tokens", json={}).status_code == 201, "its CSRF token, too"
        assert client.post("/logout").status_code == 204
        served.serving.restart()
        assert client.get("/me").status_code == 401


def test_of_those_who_set_a_password_at_a_time_one_does(shared: Api) -> None:
    shared.account("raced", Role.VIEWER)
    with shared.local() as client, ThreadPoolExecutor(4) as threads:
        etag = client.get("/accounts/raced").headers["etag"]

        def change(number: int) -> int:
            password = {"password": f"{PASSWORD} {number}"}
            return client.patch("/accounts/raced", json=password, headers={"If-Match": etag}).status_code

        assert sorted(threads.map(change, range(4))) == [200, 412, 412, 412]


def test_ones_own_password(shared: Api) -> None:
    shared.account("vera", Role.VIEWER)
    with logged_in(shared, "vera") as client, logged_in(shared, "vera") as other:
        assert client.put("/me/password", json={"old": "wrong", "new": PASSWORD[::-1]}).status_code == 403
        assert client.put("/me/password", json={"old": PASSWORD, "new": PASSWORD[::-1]}).status_code == 204
        assert client.get("/me").status_code == 200
        assert other.get("/me").status_code == 401
    with shared.client() as client:
        assert client.post("/login", json={"name": "vera", "password": PASSWORD}).status_code == 401
        assert client.post("/login", json={"name": "vera", "password": PASSWORD[::-1]}).status_code == 200


def test_one_time_passwords(shared: Api, tmp_path: Path) -> None:
    shared.account("otto", Role.ADMIN)
    with logged_in(shared, "otto") as client:
        told = client.put("/me/totp", json={"password": PASSWORD}).json()
        uri = told["uri"]
        assert _read_qr(told["qr"], tmp_path) == uri
        secret = parse_qs(urlsplit(uri).query)["secret"][0]
        code = _code(secret, 0)
        assert client.put("/me/totp", json={"password": PASSWORD, "code": "000000"}).status_code in (403, 200)
        assert client.put("/me/totp", json={"password": PASSWORD, "code": code}).status_code == 200
        assert client.get("/me").json()["totp"], "who has turned it on stays logged in"
        assert secret not in client.get("/accounts").text + client.get("/audit").text
    with shared.client() as client:
        answer = client.post("/login", json={"name": "otto", "password": PASSWORD})
        assert answer.status_code == 401
        assert answer.headers["x-needs"] == "code"
        assert client.post("/login", json={"name": "otto", "password": PASSWORD, "code": code}).status_code == 401, (
            "used"
        )
        following = _code(secret, 1)
        answer = client.post("/login", json={"name": "otto", "password": PASSWORD, "code": following})
        assert answer.status_code == 200
        client.headers["X-CSRF-Token"] = answer.json()["csrf"]
        assert client.put("/me/totp", json={"password": "wrong", "off": True}).status_code == 403
        assert client.put("/me/totp", json={"password": PASSWORD, "off": True}).status_code == 200
        assert not client.get("/me").json()["totp"]


def _read_qr(data_uri: str, directory: Path) -> str:
    """What a telephone makes of it."""
    kind, _, text = data_uri.partition(",")
    assert kind == "data:image/svg+xml;base64"
    picture = directory / "qr.png"
    svg = directory / "qr.svg"
    svg.write_bytes(base64.b64decode(text))
    run(
        [
            need("rsvg-convert", "librsvg2-bin"),
            "--width",
            "400",
            "--background-color",
            "white",
            svg,
            "--output",
            picture,
        ]
    )
    return run([need("zbarimg", "zbar-tools"), "--nodbus", "--quiet", "--raw", picture]).stdout.strip()


def _code(secret: str, later: int) -> str:
    return totp.code(base64.b32decode(secret + "=" * (-len(secret) % 8)), int(time.time() // 30) + later)


def test_tokens_by_the_api(api: ApiFactory) -> None:
    served = api()
    served.account("admin", Role.ADMIN)
    served.account("op", Role.OPERATOR)
    with logged_in(served, "op") as client:
        made = client.post("/tokens", json={"note": "backup", "lifetime": 3600}).json()
        assert made["role"] == "operator"
        assert client.post("/tokens", json={"role": "admin"}).status_code in (403, 409)
        assert client.post("/tokens", json={"account": "admin"}).status_code == 403
        assert made["token"] not in client.get("/tokens").text
        assert [each["id"] for each in client.get("/tokens").json()] == [made["id"]]
        narrow = client.post("/tokens", json={"role": "viewer"}).json()
    with served.client(narrow["token"]) as client:
        assert client.get("/me").json()["role"] == "viewer"
        assert client.post("/tokens", json={"role": "operator"}).status_code == 403, (
            "a token makes none that can do more"
        )
        assert client.post("/tokens", json={}).json()["role"] == "viewer"
    with logged_in(served, "admin") as client, served.client(made["token"]) as program:
        assert program.get("/me").status_code == 200
        assert len(client.get("/tokens").json()) == 3
        eventually(lambda: client.get(f"/tokens/{made['id']}").json()["used"], "use was noted")
        assert client.delete(f"/tokens/{made['id']}").status_code == 428
        assert client.delete(f"/tokens/{made['id']}", headers={"If-Match": "*"}).status_code == 204
        assert program.get("/me").status_code == 401
