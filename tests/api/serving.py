"""A real server with the API, and clients of it: with a token, with a cookie, by the unix socket."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from blockyard.control import passwords
from blockyard.control.accounts import Accounts
from blockyard.control.roles import Role
from blockyard.control.state import State
from tests.serving import Serving, free_port
from tests.waiting import LIMIT

PASSWORD = "correct horse battery"  # noqa: S105
# Two targets, each with a volume of its own.
TWO = """
[volumes.a]
path = "a.img"
size = "8M"
[volumes.b]
path = "b.img"
size = "8M"
[targets."iqn.2026-11.test:a"]
luns = { 0 = "a" }
[targets."iqn.2026-11.test:b"]
luns = { 0 = "b" }
"""


class Api:
    """A server that has the API, and its base URL."""

    def __init__(self, serving: Serving, address: str, state: Path) -> None:
        self.serving = serving
        self.address = address
        self.state = state
        self.base = f"http://{address}/api/v1"

    def client(self, token: str | None = None, **options: Any) -> httpx.Client:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return httpx.Client(base_url=self.base, headers=headers, timeout=LIMIT, **options)

    def local(self) -> httpx.Client:
        """By the unix socket: who comes there may do everything."""
        transport = httpx.HTTPTransport(uds=str(self.state / "api.sock"))
        return httpx.Client(base_url="http://local/api/v1", transport=transport, timeout=LIMIT)

    def token(self, role: Role, *targets: str, name: str | None = None) -> str:
        """A token of a new account."""
        with contextlib.closing(State(self.state)) as state:
            accounts = Accounts(state)
            account = accounts.add(name or f"the-{role}", role, known(), targets)
            return accounts.add_token(account.name, "test", None, None)[1]

    def account(self, name: str, role: Role, *targets: str) -> None:
        """A new account that has the password above."""
        with contextlib.closing(State(self.state)) as state:
            Accounts(state).add(name, role, known(), targets)


@functools.cache
def known() -> str:
    """The hash of the password above: making one is meant to take its time."""
    return passwords.hashed(PASSWORD)


@contextlib.contextmanager
def logged_in(api: Api, name: str, **more: Any) -> Iterator[httpx.Client]:
    """A client that has a session of the console, and sends the CSRF token with all that it does."""
    with api.client() as client:
        answer = client.post("/login", json={"name": name, "password": PASSWORD, **more})
        assert answer.status_code == 200, answer.text
        client.headers["X-CSRF-Token"] = answer.json()["csrf"]
        yield client


def address() -> str:
    return f"127.0.0.1:{free_port()}"
