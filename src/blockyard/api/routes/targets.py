"""Targets: their LUNs, who may use them, and by which portals they are reached."""

from __future__ import annotations

from pydantic import BaseModel, Field

from blockyard.api.context import Context
from blockyard.api.problems import not_found
from blockyard.api.security import Here, Owners, Routes, Who
from blockyard.control.roles import Role
from blockyard.iscsi.access import Rule as AccessRule
from blockyard.worker.configuration import Target as Configured

routes = Routes("targets")


class Rule(BaseModel):
    """One line of an access list: where a condition is empty, everybody meets it; the first that fits decides."""

    right: str = Field(description="full, read-only, virtual-write or refuse")
    initiators: list[str] = Field(description="iSCSI names, or patterns of them with *, ? and [...]")
    addresses: list[str] = Field(description="single ones, or networks as ADDR/BITS")
    users: list[str] = Field(description="CHAP names; * for all")
    groups: list[str] = Field(description="of users")
    mutual: bool = Field(description="the initiator has to let the target prove itself as well")
    luns: dict[int, str] = Field(description="what is seen under which LUNs; empty: what the target has")


class PortalGroup(BaseModel):
    tag: int
    portals: list[str] = Field(description="ADDR:PORT")


class Target(BaseModel):
    """An iSCSI target node."""

    name: str
    alias: str
    luns: dict[int, str] = Field(description="LUN → name of a volume or drive")
    library: str | None = Field(description="the tape library that it shows instead")
    portal_groups: list[PortalGroup]
    access: list[Rule] = Field(description="none: everybody may do everything")
    max_connections: int
    error_recovery_level: int
    sessions: int = Field(description="how many there are now")


@routes.get("/targets", Role.VIEWER, Owners.THEIRS)
async def list_targets(here: Here, who: Who) -> list[Target]:
    """All targets; for an owner, theirs."""
    return [target for target in await _targets(here) if who.everywhere or target.name in who.targets]


@routes.get("/targets/{target}", Role.VIEWER, Owners.TARGET)
async def get_target(target: str, here: Here) -> Target:
    """One of them."""
    for each in await _targets(here):
        if each.name == target:
            return each
    raise not_found(f"target {target!r}")


async def _targets(here: Context) -> list[Target]:
    settled = here.server.settled
    told = await here.server.supervisor.ask_all({"name": "statistics"})
    sessions = [session["target"] for report in told if report is not None for session in report["sessions"]]
    groups = {tag: PortalGroup(tag=tag, portals=list(group.portals)) for tag, group in settled.portal_groups.items()}
    return [_target(target, groups, sessions.count(name)) for name, target in settled.targets.items()]


def _target(target: Configured, groups: dict[int, PortalGroup], sessions: int) -> Target:
    return Target(
        name=target.name,
        alias=target.alias,
        luns=target.luns,
        library=target.library or None,
        portal_groups=[groups[tag] for tag in target.portal_groups],
        access=list(map(rule, target.access)),
        max_connections=target.max_connections,
        error_recovery_level=target.error_recovery_level,
        sessions=sessions,
    )


def rule(configured: AccessRule) -> Rule:
    return Rule(
        right=str(configured.right),
        initiators=list(configured.initiators),
        addresses=list(configured.addresses),
        users=list(configured.users),
        groups=list(configured.groups),
        mutual=configured.mutual,
        luns=configured.luns,
    )
