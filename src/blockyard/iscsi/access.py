"""Who may do what with a target: rules in order, the first that matches decides (RFC 7143 §9.2, §11.13.5).

A rule matches an initiator by its name, its address and the user that it has proved to be by CHAP. It
gives a right, and may say which logical units there are and under which numbers. One that names users
makes CHAP necessary: whoever does not authenticate is not matched by it.

Two questions are asked. Before authentication, `methods`: which values of AuthMethod can lead to a right at all, for an
initiator of this name and address. And at the end of the login, `decide`: which rule it is.

Pure functions of what they are given: control uses them for discovery, workers for logins.
"""

from __future__ import annotations

import ipaddress
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import lru_cache

from blockyard.iscsi.chap import METHOD
from blockyard.iscsi.pdu import LoginStatus

ANY_USER = "*"  # among the users of a rule: whoever has authenticated
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Right(StrEnum):
    """What a rule permits."""

    FULL = "full"
    READ_ONLY = "read-only"
    VIRTUAL_WRITE = "virtual-write"  # writes go to an overlay of the session's own, which ends with it
    REFUSE = "refuse"


@dataclass(frozen=True)
class Rule:
    """One line of an access list. Where a condition is empty, everybody meets it.

    `luns` says which volumes are seen, and under which LUNs; without it, those of the target under its own.
    """

    right: str = Right.FULL
    initiators: tuple[str, ...] = ()  # iSCSI names, or patterns of them with *, ? and [...]
    addresses: tuple[str, ...] = ()  # of IPv4 and IPv6: single ones, or networks as ADDR/BITS
    users: tuple[str, ...] = ()  # CHAP names
    groups: tuple[str, ...] = ()  # of users
    mutual: bool = False  # the initiator has to let the target prove itself as well
    luns: dict[int, str] = field(default_factory=dict)  # LUN → name of a volume
    virtual_write_limit: int = 1 << 30  # bytes that sessions with this rule may write, all together
    hosts: tuple[str, ...] = ()  # names of [hosts.NAME], instead of the conditions above, which control makes of these

    def __post_init__(self) -> None:
        """Raises ValueError, with a message for whoever wrote the rule."""
        if self.right not in tuple(Right):
            raise ValueError(f"a right is one of {', '.join(Right)}, not {self.right!r}")
        for pattern in self.initiators:
            if not pattern or pattern != normalise_pattern(pattern):
                raise ValueError(f"names of initiators are lower case: {normalise_pattern(pattern)!r}, not {pattern!r}")
        for address in self.addresses:
            network(address)
        if self.hosts and (self.initiators or self.addresses or self.users or self.groups):
            raise ValueError(
                "hosts say by themselves what they are known by: leave out initiators, addresses, users and groups"
            )
        if self.virtual_write_limit <= 0:
            raise ValueError(f"virtual_write_limit is {self.virtual_write_limit}: it is a number of bytes")
        if self.mutual and not (self.demands_user or self.hosts):
            raise ValueError("mutual authentication needs users or groups, whose secrets it is made of")

    @property
    def demands_user(self) -> bool:
        return bool(self.users or self.groups)

    @property
    def refuses(self) -> bool:
        return self.right == Right.REFUSE


def normalise_pattern(pattern: str) -> str:
    """A pattern in the form in which initiators' names are kept (RFC 3722), as far as that goes for a pattern."""
    return unicodedata.normalize("NFKC", pattern.strip()).lower()


@lru_cache(maxsize=4096)
def network(text: str) -> Network:
    """The network that an address or ADDR/BITS stands for. Raises ValueError."""
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is neither an IP address nor a network (ADDR/BITS): {error}") from None


def address_of(peer: str) -> Address | None:
    """The address in "ADDR:PORT"; an IPv4 one that was mapped into IPv6 is itself again."""
    host = peer.rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


@dataclass(frozen=True)
class Host:
    """Who asks: what can be known without authentication."""

    initiator: str  # normalised
    address: Address | None


@dataclass(frozen=True)
class AccessList:
    """The rules of one target, or those of discovery; without any, everybody has the full right."""

    rules: Sequence[Rule] = ()
    groups: Mapping[str, Collection[str]] = field(default_factory=dict)  # group → names of users

    def methods(self, host: Host) -> tuple[str, ...]:
        """The values of AuthMethod with which `host` can come to a right, most wanted first; none when there is none."""
        chap = False
        for rule in self._matching(host):
            if not rule.demands_user:
                return (METHOD,) * chap + ("None",) * (not rule.refuses)
            chap = chap or not rule.refuses
        return (METHOD,) if chap else ()

    def decide(self, host: Host, user: str, *, mutual: bool) -> Rule | LoginStatus:
        """The rule that holds for `host` as `user` ("": not authenticated), or why it is not let in (RFC 7143 §11.13.5)."""
        unmet = False
        for rule in self._matching(host):
            if not rule.demands_user or self._is_one(rule, user):
                if rule.refuses:
                    return LoginStatus.AUTHORIZATION_FAILURE
                return rule if mutual or not rule.mutual else LoginStatus.AUTHENTICATION_FAILURE
            unmet = unmet or not (user or rule.refuses)
        return LoginStatus.AUTHENTICATION_FAILURE if unmet else LoginStatus.AUTHORIZATION_FAILURE

    def shows(self, host: Host, user: str) -> bool:
        """Whether discovery tells `host` of the target. Without a `user`, of whatever one could log in to."""
        if user:
            return isinstance(self.decide(host, user, mutual=True), Rule)
        return bool(self.methods(host))

    def names(self, user: str) -> bool:
        """Whether a rule speaks of this very user, by name or by group."""
        return any(
            user in rule.users or any(user in self.groups.get(group, ()) for group in rule.groups)
            for rule in self.rules
        )

    def _matching(self, host: Host) -> Iterator[Rule]:
        return (rule for rule in self.rules or (_EVERYTHING,) if _meets(rule, host))

    def _is_one(self, rule: Rule, user: str) -> bool:
        if not user:
            return False
        return (
            user in rule.users
            or ANY_USER in rule.users
            or any(user in self.groups.get(group, ()) for group in rule.groups)
        )


_EVERYTHING = Rule()


def _meets(rule: Rule, host: Host) -> bool:
    if rule.hosts:  # nobody has said what they are: no reason to let everybody in
        return False
    if rule.initiators and not any(fnmatchcase(host.initiator, pattern) for pattern in rule.initiators):
        return False
    if not rule.addresses:
        return True
    address = host.address
    return address is not None and any(
        address.version == net.version and address in net for net in map(network, rule.addresses)
    )
