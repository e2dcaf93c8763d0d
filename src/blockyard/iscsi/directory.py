"""What is served where: the targets and portals that discovery tells of (RFC 7143 §4.3, Appendix C)."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from blockyard.iscsi.login import Found, Moved
from blockyard.iscsi.names import DEFAULT_PORT, InvalidName, normalise, parse_portal, split_moment
from blockyard.iscsi.pdu import LoginStatus

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
    def written(self) -> str:
        """The portal as an administrator of this machine writes it: with the zone of its address."""
        return f"[{self.address}]:{self.port}" if self.address.version == 6 else str(self)

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


def portal_from(text: str, port: int = DEFAULT_PORT) -> Portal:
    """The portal that ADDR or ADDR:PORT names; `port` is the one that is meant where none is named. Raises ValueError."""
    written = parse_portal(text, port)
    return Portal(ipaddress.ip_address(written.host), written.port)


@dataclass(frozen=True)
class Entry:
    """A target: the portal groups by which it is reached, and whether it is to be had elsewhere (RFC 7143 §11.13.5)."""

    name: str
    portal_groups: tuple[int, ...]  # tags
    moved: Moved | None = None
    moved_on: frozenset[str] = frozenset()  # the portals ("ADDR:PORT") whose logins are sent there; empty: all


class Directory:
    """Targets, and portals by the tags of their groups. A portal is in one group."""

    def __init__(self, targets: Iterable[Entry], groups: Mapping[int, Iterable[Portal]]) -> None:
        self.targets = {entry.name: entry for entry in targets}
        self.groups = {tag: tuple(portals) for tag, portals in groups.items()}
        self._tags = {str(portal): tag for tag, portals in self.groups.items() for portal in portals}

    def group_of(self, arrived: Portal) -> int | None:
        """The tag of the portal group by which a connection has come: of that very portal, or of a wildcard."""
        anywhere = ipaddress.ip_address("::" if arrived.address.version == 6 else "0.0.0.0")
        return self._tags.get(str(arrived), self._tags.get(str(Portal(anywhere, arrived.port))))

    def find(self, name: str, arrived: Portal) -> Found | Moved | LoginStatus:
        """The target of that name, as a login finds it that has come in on `arrived`; whatever moment is added to it."""
        entry = self.targets.get(split_moment(name)[0])
        tag = self.group_of(arrived)
        if entry is None or tag not in entry.portal_groups:
            return LoginStatus.NOT_FOUND
        if entry.moved is not None and (not entry.moved_on or str(arrived) in entry.moved_on):
            return entry.moved
        assert tag is not None
        return Found(entry, tag)

    def addresses(self, entry: Entry, arrived: Portal) -> list[tuple[Portal, int]]:
        """The portals of a target that an initiator can reach who came in on `arrived`; that one stands first."""
        seen: dict[str, tuple[Portal, int]] = {}  # by what initiators are told: without the zone of an address
        own = self.group_of(arrived)
        if own in entry.portal_groups:
            seen[str(arrived)] = arrived, own
        for tag in entry.portal_groups:
            for portal in self.groups.get(tag, ()):
                reachable = portal.reachable_from(arrived)
                if reachable is not None:
                    seen.setdefault(str(reachable), (reachable, tag))
        return list(seen.values())

    def send_targets(
        self, name: str | None, arrived: Portal, shown: Callable[[str], bool] = lambda name: True
    ) -> list[tuple[str, str]]:
        """The answer to SendTargets=name, or to SendTargets=All for None (RFC 7143 Appendix C).

        `shown` says which targets the initiator may know of.
        """
        return list(self._records((entry for entry in self._asked_for(name) if shown(entry.name)), arrived))

    def _asked_for(self, name: str | None) -> Iterable[Entry]:
        if name is None:
            return self.targets.values()
        try:
            entry = self.targets.get(normalise(name))
        except InvalidName:
            return ()
        return () if entry is None else (entry,)

    def _records(self, targets: Iterable[Entry], arrived: Portal) -> Iterator[tuple[str, str]]:
        for entry in targets:
            addresses = self.addresses(entry, arrived)
            if addresses:  # else nothing that the initiator could reach it by
                yield "TargetName", entry.name
            for portal, tag in addresses:
                yield "TargetAddress", f"{portal},{tag}"
