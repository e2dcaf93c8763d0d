"""What is served where: the targets and portals that discovery tells of (RFC 7143 §4.3, Appendix C)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from blockyard.control.portals import Portal
from blockyard.iscsi.names import InvalidName, normalise

PORTAL_GROUP = 1  # all portals of all targets form one group, as every portal leads to every session (RFC 7143 §4.1.2)


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
        seen = {arrived: None}
        for portal in self.portals:
            reachable = portal.reachable_from(arrived)
            if reachable is not None:
                seen.setdefault(reachable)
        return list(seen)

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
