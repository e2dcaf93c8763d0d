"""What the routes of the API work with: the server, its accounts, who is logged in to the console, and the stream."""

from __future__ import annotations

import asyncio
import secrets
import time
import uuid
from collections.abc import Awaitable, Callable, Collection
from functools import cached_property
from typing import Any, TypeVar

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

T = TypeVar("T")

SHARED = 0.2  # seconds that what workers have told is good for


class Context:
    """One for the life of the API."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._hosts: tuple[str, ...] = ()
        self.logins = Logins(lambda: self.state)
        self.limits = LoginLimits()
        self.rates = Rates()
        self.hub = Hub(self)
        self.totp_secrets: dict[str, bytes] = {}  # of accounts that are just turning one-time passwords on
        self.setup_code = secrets.token_hex(8)  # for whoever makes the first account from elsewhere
        self._shared: dict[str, tuple[float, asyncio.Future[Any]]] = {}  # what was asked, and when
        self._seen = 0  # of the changes, when that was asked
        self._changes = 0  # that were made by requests
        self._state: State | None = None
        self._accounts: Accounts | None = None

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names that it goes by, besides its address."""
        return self._hosts

    @hosts.setter
    def hosts(self, names: tuple[str, ...]) -> None:
        self._hosts = names
        self.forget()  # who has asked by another name has to be looked at again

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

    async def shared(self, what: str, ask: Callable[[], Awaitable[T]]) -> T:
        """What workers tell when they are asked, for all who want to know it within a moment.

        Each question takes time of the workers' loops, and with it of the data path: so how many are asked does not
        depend on how many ask. Raises what `ask` does.
        """
        changes = self.changes()
        if changes != self._seen:  # what was told before is not good for anybody who asks from now on
            self._seen = changes
            self._shared.clear()
        now = time.monotonic()
        asked, told = self._shared.get(what, (0.0, None))
        if told is None or (told.done() and now - asked >= SHARED):
            told = asyncio.ensure_future(ask())
            self._shared[what] = (now, told)
        found: T = await asyncio.shield(told)
        return found

    def forget(self) -> None:
        """Something has changed: what workers have told is not good for anybody who asks from now on."""
        self._changes += 1

    def changes(self) -> int:
        """Grows with each change that is known of here: by requests and commands, by initiators that come, and by events."""
        supervisor = self.server.supervisor
        if supervisor.handing_over:  # an initiator may be logged in by now
            self._changes += 1
        return self._changes + self.server.changes + supervisor.handed_over

    def good_until(self, of: Collection[str]) -> float:
        """When an answer is too old that was made just now of what is shared under these names, in time.monotonic."""
        return min([time.monotonic(), *(self._shared[what][0] for what in of if what in self._shared)]) + SHARED

    async def statistics(self) -> dict[str, Any]:
        """Counters of "volumes" and "drives" by their names, and "sessions"; none from before an initiator came last.

        Raises ControlError.
        """
        return await self.shared("statistics", self._ask)

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
