"""Targets: their LUNs, who may use them, and by which portals they are reached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

from fastapi import Path, Response
from pydantic import BaseModel, Field

from blockyard.api import etags, schemas
from blockyard.api.configured import Table, add_routes, change, described, find
from blockyard.api.context import Context
from blockyard.api.etags import IfMatch
from blockyard.api.models import Input
from blockyard.api.problems import not_found
from blockyard.api.security import Here, Owners, Routes, Who
from blockyard.control.roles import Identity, Role
from blockyard.iscsi.access import Rule as AccessRule
from blockyard.iscsi.names import validate
from blockyard.scsi.lun import MAX_LUN
from blockyard.worker.configuration import Configuration, Volume
from blockyard.worker.configuration import Target as Configured

routes = Routes("targets")
TABLE = Table("targets", Configured, "target", "/targets/{target}", "target", validate)


class Rule(BaseModel):
    """One line of an access list: where a condition is empty, everybody meets it; the first that fits decides."""

    right: str = Field(description="full, read-only, virtual-write or refuse")
    initiators: list[str] = Field(description="iSCSI names, or patterns of them with *, ? and [...]")
    addresses: list[str] = Field(description="single ones, or networks as ADDR/BITS")
    users: list[str] = Field(description="CHAP names; * for all")
    groups: list[str] = Field(description="of users")
    mutual: bool = Field(description="the initiator has to let the target prove itself as well")
    luns: dict[int, str] = Field(description="what is seen under which LUNs; empty: what the target has")


class Lun(BaseModel):
    lun: int
    volume: str = Field(description="the name of a volume or drive")


class NewLun(Input):
    volume: str = Field(min_length=1, max_length=256, description="the name of a volume or drive, or POOL/VOLUME")


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
    configuration: dict[str, Any] | None = schemas.field(Configured)


@routes.get("/targets", Role.VIEWER, Owners.THEIRS, of=("statistics",))
async def list_targets(here: Here, who: Who) -> list[Target]:
    """All targets; for an owner, theirs."""
    return [target for target in await _targets(here) if who.everywhere or target.name in who.targets]


@routes.get("/targets/{target}", Role.VIEWER, Owners.TARGET, of=("statistics",))
async def get_target(target: str, here: Here, response: Response) -> Target:
    """One of them."""
    return find(await _targets(here), TABLE, target, response)


add_routes(routes, TABLE)


@routes.get("/targets/{target}/luns", Role.VIEWER, Owners.TARGET)
async def list_luns(target: str, here: Here) -> list[Lun]:
    """What a target shows to those whom no rule of access shows something else."""
    if target not in here.server.settled.targets:
        raise not_found(f"target {target!r}")
    return [Lun(lun=lun, volume=volume) for lun, volume in sorted(here.server.settled.targets[target].luns.items())]


@routes.get("/targets/{target}/luns/{lun}", Role.VIEWER, Owners.TARGET)
async def get_lun(target: str, lun: Annotated[int, Path(ge=0, le=MAX_LUN)], here: Here, response: Response) -> Lun:
    """One of them. The ETag is the target's."""
    for each in await list_luns(target, here):
        if each.lun == lun:
            described(here, TABLE, target, response)
            return each
    raise not_found(f"LUN {lun} of {target!r}")


@routes.put("/targets/{target}/luns/{lun}", Role.ADMIN)
async def put_lun(
    target: str,
    lun: Annotated[int, Path(ge=0, le=MAX_LUN)],
    new: NewLun,
    here: Here,
    who: Who,
    response: Response,
    if_match: IfMatch = None,
) -> Target:
    """Show a volume under a LUN: one that is configured, or POOL/VOLUME, which is with it then. The ETag is the target's."""

    def edit(configuration: Configuration, old: Configured) -> Configuration:
        configuration = replace(configuration, volumes=with_volume(configuration, new.volume))
        return _with(configuration, replace(old, luns={**old.luns, lun: new.volume}))

    await _change(here, who, target, if_match, edit)
    return await get_target(TABLE.key(target), here, response)


@routes.delete("/targets/{target}/luns/{lun}", Role.ADMIN)
async def delete_lun(
    target: str,
    lun: Annotated[int, Path(ge=0, le=MAX_LUN)],
    here: Here,
    who: Who,
    response: Response,
    if_match: IfMatch = None,
) -> Target:
    """Show it no more; initiators are told. The ETag is the target's."""

    def edit(configuration: Configuration, old: Configured) -> Configuration:
        if lun not in old.luns:
            raise not_found(f"LUN {lun} of {target}")
        return _with(configuration, replace(old, luns={each: name for each, name in old.luns.items() if each != lun}))

    await _change(here, who, target, if_match, edit)
    return await get_target(TABLE.key(target), here, response)


async def _change(
    here: Context,
    who: Identity,
    target: str,
    if_match: str | None,
    edit: Callable[[Configuration, Configured], Configuration],
) -> None:
    """Change a target that is configured. Raises Refused, ControlError."""
    name = TABLE.key(target)

    def edited(configuration: Configuration) -> Configuration:
        if name not in configuration.targets:
            raise not_found(f"target {name!r} in the configuration")
        etags.check(if_match, schemas.whole(configuration.targets[name]))
        return edit(configuration, configuration.targets[name])

    await change(here, who, edited)


def _with(configuration: Configuration, target: Configured) -> Configuration:
    return replace(configuration, targets={**configuration.targets, target.name: target})


def with_volume(configuration: Configuration, name: str) -> dict[str, Volume]:
    """The volumes that are configured, and one of a pool that is now."""
    pool, slash, volume = name.partition("/")
    if name in configuration.volumes or name in configuration.drives or not slash or pool not in configuration.pools:
        return configuration.volumes
    volume, _, snapshot = volume.partition("@")
    return {**configuration.volumes, name: Volume(name, pool=pool, volume=volume, snapshot=snapshot)}


async def _targets(here: Context) -> list[Target]:
    settled = here.server.settled
    sessions = [session["target"] for session in (await here.statistics())["sessions"]]
    groups = {tag: PortalGroup(tag=tag, portals=list(group.portals)) for tag, group in settled.portal_groups.items()}
    return [
        _target(target, groups, sessions.count(name), described(here, TABLE, name))
        for name, target in settled.targets.items()
    ]


def _target(
    target: Configured, groups: dict[int, PortalGroup], sessions: int, configuration: dict[str, Any] | None
) -> Target:
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
        configuration=configuration,
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
