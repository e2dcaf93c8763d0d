"""What the routes of the API work with: the server, its accounts, who is logged in to the console, and the stream."""

from __future__ import annotations

import asyncio
import secrets
import time
import uuid
from functools import cached_property
from typing import Any

from blockyard.api.hub import Hub
from blockyard.api.logins import Logins
from blockyard.api.rates import Rates
from blockyard.control import audit
from blockyard.control.accounts import Accounts
from blockyard.control.carrying_out import carry_out
from blockyard.control.limits import LoginLimits
from blockyard.control.roles import Identity
from blockyard.control.server import Server
from blockyard.control.state import State

SHARED = 0.1  # seconds that what workers have counted is good for


class Context:
    """One for the life of the API."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.hosts: tuple[str, ...] = ()  # names that it goes by, besides its address
        self.logins = Logins(lambda: self.state)
        self.limits = LoginLimits()
        self.rates = Rates()
        self.hub = Hub(self)
        self.totp_secrets: dict[str, bytes] = {}  # of accounts that are just turning one-time passwords on
        self.setup_code = secrets.token_hex(8)  # for whoever makes the first account from elsewhere
        self._asking: asyncio.Future[dict[str, Any]] | None = None
        self._asked = 0.0
        self._state: State | None = None
        self._accounts: Accounts | None = None

    @property
    def state(self) -> State:
        """The state database, opened by the thread that the loop runs in."""
        if self._state is None:
            self._state = State(self.server.options.state)
        return self._state

    @cached_property
    def uuid(self) -> str:
        """The identity of the service: of the name that its default target has, which is made up once."""
        return str(uuid.uuid5(uuid.NAMESPACE_URL, self.state.default_target_name()))

    @property
    def accounts(self) -> Accounts:
        if self._accounts is None:
            self._accounts = Accounts(self.state)
        return self._accounts

    async def statistics(self, *, at_most: float = SHARED) -> dict[str, Any]:
        """Counters of "volumes" and "drives" by their names, and "sessions". Those of just now serve several who ask.

        Each question takes time of the workers' loops, and with it of the data path: so how many are asked does not
        depend on how many ask. Raises ControlError.
        """
        now = time.monotonic()
        if not at_most or self._asking is None or (self._asking.done() and now - self._asked >= at_most):
            self._asked, self._asking = now, asyncio.ensure_future(self._ask())
        return await asyncio.shield(self._asking)

    async def _ask(self) -> dict[str, Any]:
        told = await self.server.supervisor.ask_all({"name": "statistics"})
        reports = [report for report in told if report is not None]
        return {
            "volumes": {name: found for report in reports for name, found in report["volumes"].items()},
            "drives": {name: found for report in reports for name, found in report["drives"].items()},
            "sizes": {name: found for report in reports for name, found in report["sizes"].items()},
            "sessions": [session for report in reports for session in report["sessions"]],
        }

    async def command(self, who: Identity, name: str, /, **arguments: object) -> Any:
        """Have one of control/commands.py carried out, whose rule is the caller's affair. Raises ControlError."""
        return await carry_out(self.server, {**arguments, "command": name, "who": who.name})

    def record(self, who: Identity, what: str, before: object, after: object) -> None:
        """Write down a change that was made. Raises StateError."""
        audit.record(self.state, audit.Entry(who.name, what, before, after))

    def close(self) -> None:
        self.hub.close()
        if self._state is not None:
            self._state.close()
            self._state = self._accounts = None
