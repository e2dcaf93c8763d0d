"""What is served where: the targets and portals that discovery tells of (RFC 7143 §4.3, Appendix C)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from blockyard.iscsi.names import InvalidName, normalise, parse_portal

PORTAL_GROUP = 1  # all portals of all targets form one group, as every portal leads to every session (RFC 7143 §4.1.2)

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Portal:
    """A network portal: an address and a TCP port (RFC 7143 §3.1).

    `str()` has the form of TargetAddress: 192.0.2.1:3260, [2001:db8::1]:3260.
    """

    address: IPAddress
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def host(self) -> str:
        """The address as it stands before the port, without a zone: that means something on this machine only."""
        if isinstance(self.address, ipaddress.IPv6Address):
            return f"[{str(self.address).partition('%')[0]}]"
        return str(self.address)

    @property
    def wildcard(self) -> bool:
        return self.address.is_unspecified

    @property
    def loopback(self) -> bool:
        return self.address.is_loopback

    def reachable_from(self, arrived: Portal) -> Portal | None:
        """This portal as an initiator sees it that has come in on `arrived`, or None when it cannot get there.

        A wildcard stands for the very address that the initiator came to; loopback and link-local
        addresses are of use to those only who came by the same road.
        """
        if self.wildcard:
            same = self.address.version == arrived.address.version
            return Portal(arrived.address, self.port) if same else None
        if self.loopback and not arrived.loopback:
            return None
        if self.address.is_link_local and not arrived.address.is_link_local:
            return None
        return self


def portal_of(name: tuple[str, int] | tuple[str, int, int, int]) -> Portal:
    """The portal that a socket name stands for (getsockname, getpeername)."""
    return Portal(ipaddress.ip_address(name[0]), name[1])


def portal_from(text: str) -> Portal:
    """The portal that `str()` of one has written. Raises ValueError."""
    written = parse_portal(text)
    return Portal(ipaddress.ip_address(written.host), written.port)


@dataclass(frozen=True)
class Entry:
    """A target as the login phase wants to know of it (iscsi.login.Directory)."""

    name: str
    portal_group: int = PORTAL_GROUP


class Directory:
    """Target names and portals. Both may be looked up while connections come and go."""

    def __init__(self, targets: Iterable[str], portals: Iterable[Portal]) -> None:
        self.targets = list(targets)
        self.portals = list(portals)

    def addresses(self, arrived: Portal) -> list[Portal]:
        """The portals that an initiator can reach who came in on `arrived`; that one stands first."""
        seen = {str(arrived): arrived}  # by what initiators are told, which leaves out the zone of a link-local address
        for portal in self.portals:
            reachable = portal.reachable_from(arrived)
            if reachable is not None:
                seen.setdefault(str(reachable), reachable)
        return list(seen.values())

    def send_targets(self, name: str | None, arrived: Portal) -> list[tuple[str, str]]:
        """The answer to SendTargets=name, or to SendTargets=All for None (RFC 7143 Appendix C)."""
        return list(self._records(self._asked_for(name), arrived))

    def _asked_for(self, name: str | None) -> list[str]:
        if name is None:
            return self.targets
        try:
            normalised = normalise(name)
        except InvalidName:
            return []
        return [target for target in self.targets if target == normalised]

    def _records(self, targets: list[str], arrived: Portal) -> Iterator[tuple[str, str]]:
        for target in targets:
            yield "TargetName", target
            for portal in self.addresses(arrived):
                yield "TargetAddress", f"{portal},{PORTAL_GROUP}"
