"""Discovery: which targets a portal knows of (RFC 7143 §4.3, Appendix C)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from blockyard.initiator.errors import ProtocolError
from blockyard.initiator.opening import open_session
from blockyard.iscsi.names import InvalidName, PortalAddress, parse_portal
from blockyard.iscsi.negotiation import Pairs


@dataclass(frozen=True, slots=True)
class DiscoveredTarget:
    """A target's name, and where it can be reached: portals with their portal group tags."""

    name: str
    portals: list[tuple[PortalAddress, int]] = field(default_factory=list)


def discover_targets(portal: PortalAddress, *, initiator_name: str, **options: Any) -> list[DiscoveredTarget]:
    """Log in for discovery and ask for all targets. `options` and errors are those of open_session."""
    with open_session(portal, None, initiator_name=initiator_name, **options) as session:
        return parse_targets(session.text([("SendTargets", "All")]), portal)


def parse_targets(pairs: Pairs, portal: PortalAddress) -> list[DiscoveredTarget]:
    """The answer to SendTargets; a target without an address is behind the portal that was asked."""
    targets: list[DiscoveredTarget] = []
    for key, value in pairs:
        if key == "TargetName":
            targets.append(DiscoveredTarget(value))
        elif key == "TargetAddress" and targets:
            targets[-1].portals.append(_parse_address(value))
    for target in targets:
        if not target.portals:
            target.portals.append((portal, 1))
    return targets


def _parse_address(value: str) -> tuple[PortalAddress, int]:
    address, _, tag = value.rpartition(",")
    try:
        return parse_portal(address), int(tag)
    except (InvalidName, ValueError) as error:
        raise ProtocolError(f"the target tells of the address {value!r}, which is none") from error
