"""What the routes of the API work with: the server, its accounts, who is logged in to the console, and the stream."""

from __future__ import annotations

import secrets
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


class Context:
    """One for the life of the API."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.hosts: tuple[str, ...] = ()  # names that it goes by, besides its address
        self.logins = Logins()
        self.limits = LoginLimits()
        self.rates = Rates()
        self.hub = Hub(self)
        self.totp_secrets: dict[str, bytes] = {}  # of accounts that are just turning one-time passwords on
        self.setup_code = secrets.token_hex(8)  # for whoever makes the first account from elsewhere
        self._state: State | None = None
        self._accounts: Accounts | None = None

    @property
    def state(self) -> State:
        """The state database, opened by the thread that the loop runs in."""
        if self._state is None:
            self._state = State(self.server.options.state)
        return self._state

    @property
    def accounts(self) -> Accounts:
        if self._accounts is None:
            self._accounts = Accounts(self.state)
        return self._accounts

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
