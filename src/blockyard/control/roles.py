"""What those who log in here may do: roles, and the rule that each command and each route of the API declares.

Roles include one another, from viewer to admin. An owner stands beside them: of all that there is it knows some targets and what
they show, and there it may do what an operator may.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What an account or a token is."""

    OWNER = "owner"  # of targets that are named
    VIEWER = "viewer"  # sees everything, but for secrets
    OPERATOR = "operator"  # and does what happens every day, to what is configured
    ADMIN = "admin"  # and decides what is configured, and who may do what

    @property
    def rank(self) -> int:
        return _RANKS[self]


_RANKS = {Role.OWNER: 0, Role.VIEWER: 1, Role.OPERATOR: 2, Role.ADMIN: 3}


@dataclass(frozen=True)
class Identity:
    """Who asks for something."""

    name: str
    role: Role
    targets: frozenset[str] = frozenset()  # of an owner
    by: str = ""  # how it is known: "session", "token ID", "local"; "": nobody has proved anything

    def at_least(self, role: Role) -> bool:
        return self.role.rank >= role.rank

    @property
    def everywhere(self) -> bool:
        """Whether it may know of every target."""
        return self.role is not Role.OWNER

    def owns(self, targets: Collection[str]) -> bool:
        """Whether it is the owner of all of these, and there are any."""
        return self.role is Role.OWNER and bool(targets) and self.targets.issuperset(targets)


NOBODY = Identity("", Role.OWNER)
