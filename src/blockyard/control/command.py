"""A row of the table of what a server can be asked (control/commands.py)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NamedTuple

from blockyard.control.roles import Identity, Role

if TYPE_CHECKING:
    from blockyard.control.administration import Request
    from blockyard.control.server import Server


class Command(NamedTuple):
    """A command, and who may have it carried out. Whoever comes by the control socket may do everything."""

    run: Callable[[Server, Request], Awaitable[object]]
    role: Role | Callable[[Request], Role]
    target: str = ""  # the field of the request that names a target: whose owner may do it, too

    def role_for(self, request: Request) -> Role:
        return self.role if isinstance(self.role, Role) else self.role(request)

    def permits(self, who: Identity, request: Request) -> bool:
        target = request.get(self.target) if self.target else None
        return who.at_least(self.role_for(request)) or (isinstance(target, str) and who.owns([target]))
