"""A row of the table of what a server can be asked (control/commands.py)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NamedTuple

from blockyard.control.roles import Identity, Role

if TYPE_CHECKING:
    from blockyard.control.administration import Request
    from blockyard.control.server import Server

Run = Callable[["Server", "Request"], Awaitable[object]]


class Command(NamedTuple):
    """A command, and who may have it carried out. Whoever comes by the control socket may do everything.

    What operators and admins have done is written down (control/audit.py), with what `look` sees before and after; unless the
    command writes down by itself what it changes.
    """

    run: Run
    role: Role | Callable[[Request], Role]
    target: str = ""  # the field of the request that names a target: whose owner may do it, too
    look: Run | None = None
    recorded: bool = False  # by itself

    def role_for(self, request: Request) -> Role:
        return self.role if isinstance(self.role, Role) else self.role(request)

    def permits(self, who: Identity, request: Request) -> bool:
        target = request.get(self.target) if self.target else None
        return who.at_least(self.role_for(request)) or (isinstance(target, str) and who.owns([target]))

    def changes(self, request: Request) -> bool:
        """Whether it is to be written down."""
        return not self.recorded and self.role_for(request) is not Role.VIEWER
