"""What maps volumes to hosts: a connection is the first rule of access of a target that names a host.

Who makes one for a target that was everybody's makes it that host's; and when the last one goes, a target is nobody's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Any, Literal

from fastapi import Request, Response
from pydantic import BaseModel, Field

from blockyard.api.configured import change
from blockyard.api.context import Context
from blockyard.api.etags import IfMatch
from blockyard.api.problems import Refused, not_found
from blockyard.api.redfish.fabric import NOBODY_ELSE
from blockyard.api.redfish.names import CONNECTIONS, ENDPOINTS, EVERYBODY, VOLUMES, Mapping, key_of, mappings, uri_of
from blockyard.api.redfish.resources import (
    OK,
    Body,
    Link,
    check_match,
    collection,
    counted,
    link,
    missing,
    new_routes,
    nothing,
    refuse_others,
    reply,
    resource,
    uri,
    wrong,
)
from blockyard.api.routes.targets import with_volume
from blockyard.api.schemas import whole
from blockyard.api.security import Here, Who
from blockyard.control.roles import Role
from blockyard.iscsi.access import Right, Rule
from blockyard.scsi.lun import MAX_LUN
from blockyard.worker.configuration import Configuration, Target, Volume

routes = new_routes()

_CONNECTIONS = "/v1/Fabrics/iSCSI/Connections"
_ONE = f"{_CONNECTIONS}/{{connection}}"
_Lun = Field(None, ge=0, le=MAX_LUN)
_Capability = Literal["Read", "Write"]


class Shown(Body):
    """A volume, and the LUN that it is to be seen under: nothing for the lowest that is free."""

    Volume: Link
    LUN: int | None = _Lun
    AccessCapabilities: list[_Capability] | None = None
    AccessState: Literal["Optimized"] | None = None

    @property
    def right(self) -> Right:
        return Right.READ_ONLY if self.AccessCapabilities == ["Read"] else Right.FULL


class Ends(BaseModel):
    InitiatorEndpoints: list[Link] = Field([], max_length=1)
    TargetEndpoints: list[Link] = Field([], max_length=1)


class NewConnection(Body):
    Name: str | None = None
    ConnectionType: Literal["Storage"] | None = None
    VolumeInfo: list[Shown] = Field([], max_length=MAX_LUN)
    Links: Ends


@routes.get(_CONNECTIONS, Role.VIEWER, name="redfish_connections")
async def connections(request: Request, here: Here) -> Response:
    """Which host sees what of which target."""
    return reply(request, collection("Connection", uri(*CONNECTIONS), (each.uri for each in mappings(here))))


@routes.get(_ONE, Role.VIEWER, name="redfish_connection")
async def connection_(connection: str, request: Request, here: Here) -> Response:
    """One of them."""
    return _tell(request, here, connection)


@routes.post(_CONNECTIONS, Role.ADMIN, status_code=201, name="redfish_new_connection")
async def new_connection(new: NewConnection, request: Request, here: Here, who: Who) -> Response:
    """Show volumes of a target to a host; without any, what the target shows to all who may use it."""
    refuse_others(new)
    host = _end(new.Links.InitiatorEndpoints, "host", "InitiatorEndpoints")
    target = _end(new.Links.TargetEndpoints, "target", "TargetEndpoints")
    rights = {shown.right for shown in new.VolumeInfo} or {Right.FULL}
    if len(rights) > 1:
        raise wrong(
            "VolumeInfo", "a host may do the same with all volumes of a connection: have AccessCapabilities agree"
        )

    def edit(configuration: Configuration) -> Configuration:
        old = _target(configuration, target)
        if host not in configuration.hosts:
            raise wrong("InitiatorEndpoints", f"there is no host {host!r}")
        if any(host in rule.hosts for rule in old.access):
            raise Refused(HTTPStatus.CONFLICT, f"{host} is connected to {target} already")
        luns: dict[int, str] = {}
        for shown in new.VolumeInfo:
            configuration, luns = _shown(here, configuration, luns, shown)
        rule = Rule(right=next(iter(rights)), luns=luns, hosts=(host,))
        rest = old.access or (NOBODY_ELSE,)
        return _with(configuration, replace(old, access=(rule, *rest)))

    await change(here, who, edit)
    return _tell(request, here, f"{host},{target}", HTTPStatus.CREATED)


@routes.delete(_ONE, Role.ADMIN, status_code=204, name="redfish_delete_connection")
async def delete_connection(
    connection: str, request: Request, here: Here, who: Who, if_match: IfMatch = None
) -> Response:
    """Show a host nothing more of a target. Volumes that stood in the configuration for that alone go out of it."""

    def edit(configuration: Configuration) -> Configuration:
        seen = _configured(here, configuration, connection)
        check_match(if_match, _state(seen))
        access = tuple(kept for rule in seen.target.access if (kept := _without(rule, seen.host)) is not None)
        changed = _with(configuration, replace(seen.target, access=access or (NOBODY_ELSE,)))
        return _tidied(changed, set(seen.luns.values()))

    await change(here, who, edit)
    return nothing(request)


@routes.post(f"{_ONE}/Actions/Connection.AddVolumeInfo", Role.ADMIN, status_code=204, name="redfish_add_volume")
async def add_volume(connection: str, shown: Shown, request: Request, here: Here, who: Who) -> Response:
    """Show one more volume to the host."""
    refuse_others(shown)

    def edit(configuration: Configuration) -> Configuration:
        seen = _configured(here, configuration, connection)
        if shown.AccessCapabilities is not None and shown.right != seen.rule.right:
            raise wrong("AccessCapabilities", "a host may do the same with all volumes of a connection")
        configuration, luns = _shown(here, configuration, seen.luns, shown)
        return _with_luns(configuration, seen, luns)

    await change(here, who, edit)
    return nothing(request)


@routes.post(f"{_ONE}/Actions/Connection.RemoveVolumeInfo", Role.ADMIN, status_code=204, name="redfish_remove_volume")
async def remove_volume(connection: str, shown: Shown, request: Request, here: Here, who: Who) -> Response:
    """Show the host a volume no more. The last one goes with the connection."""
    refuse_others(shown)

    def edit(configuration: Configuration) -> Configuration:
        seen = _configured(here, configuration, connection)
        name = _name(here, configuration, shown.Volume)
        rest = {lun: each for lun, each in seen.luns.items() if each != name or shown.LUN not in (None, lun)}
        if rest == seen.luns:
            raise wrong("Volume", "the connection does not have it")
        if not rest:
            raise Refused(HTTPStatus.CONFLICT, "it is the last volume of the connection: delete that")
        return _tidied(_with_luns(configuration, seen, rest), {name})

    await change(here, who, edit)
    return nothing(request)


# ---- what is configured


def _end(ends: Sequence[Link], kind: str, name: str) -> str:
    if not ends:
        raise missing(f"Links/{name}")
    found = ends[0].below(*ENDPOINTS) or ""
    if not found.startswith(f"{kind}:"):
        raise wrong(name, f"name one, as {uri(*ENDPOINTS, f'{kind}:NAME')}")
    return found.removeprefix(f"{kind}:")


def _target(configuration: Configuration, name: str) -> Target:
    if name not in configuration.targets:
        raise wrong("TargetEndpoints", f"there is no target {name!r} in the configuration")
    return configuration.targets[name]


def _configured(here: Context, configuration: Configuration, connection: str) -> Mapping:
    """One that is to be changed. Raises Refused."""
    host, _, name = connection.rpartition(",")
    target = configuration.targets.get(name)
    for rule in target.access if target is not None else ():
        if target is not None and host in rule.hosts and not rule.refuses:
            return Mapping(host, target, rule)
    _find(here, connection)
    raise Refused(
        HTTPStatus.CONFLICT, f"{name} is everybody's, or not configured by itself: connect a host to it first"
    )


def _find(here: Context, connection: str) -> Mapping:
    for each in mappings(here):
        if each.uri == uri(*CONNECTIONS, connection):
            return each
    raise not_found(f"connection {connection!r}")


def _shown(
    here: Context, configuration: Configuration, luns: dict[int, str], shown: Shown
) -> tuple[Configuration, dict[int, str]]:
    """With one more volume under a LUN. Raises Refused."""
    free = next(lun for lun in range(MAX_LUN + 2) if lun not in luns)
    lun = free if shown.LUN is None else shown.LUN
    if lun in luns or lun > MAX_LUN:
        raise wrong("LUN", f"{lun} is not free")
    name = _name(here, configuration, shown.Volume)
    return replace(configuration, volumes=with_volume(configuration, name)), {**luns, lun: name}


def _name(here: Context, configuration: Configuration, volume: Link) -> str:
    """What a volume is called in the configuration, where it may stand already. Raises Refused."""
    found = volume.below(*VOLUMES)
    for name, each in {**here.server.settled.volumes, **configuration.volumes}.items():
        if found is not None and uri_of(each) == uri(*VOLUMES, found):
            return name
    if found is None or found.startswith("~"):
        raise wrong("Volume", f"there is none: name it as {uri(*VOLUMES, 'POOL:VOLUME')}")
    return key_of(found).source


def _with(configuration: Configuration, target: Target) -> Configuration:
    return replace(configuration, targets={**configuration.targets, target.name: target})


def _with_luns(configuration: Configuration, seen: Mapping, luns: dict[int, str]) -> Configuration:
    """Its host sees these from now on; others that share its rule, what they saw."""
    own = replace(seen.rule, luns=luns, hosts=(seen.host,))
    rest = _without(seen.rule, seen.host)
    instead = (own,) if rest is None else (own, rest)
    access = tuple(each for rule in seen.target.access for each in (instead if rule is seen.rule else (rule,)))
    return _with(configuration, replace(seen.target, access=access))


def _without(rule: Rule, host: str) -> Rule | None:
    """What is left of a rule without a host."""
    if host not in rule.hosts:
        return rule
    hosts = tuple(each for each in rule.hosts if each != host)
    return replace(rule, hosts=hosts) if hosts else None


def _tidied(configuration: Configuration, names: set[str]) -> Configuration:
    """Without those of these volumes that nothing shows any more, and of which nothing is said but where they are."""
    used = {name for target in configuration.targets.values() for name in target.volumes}
    idle = {name for name in names - used if (each := configuration.volumes.get(name)) and _is_bare(each)}
    return replace(configuration, volumes={k: v for k, v in configuration.volumes.items() if k not in idle})


def _is_bare(volume: Volume) -> bool:
    bare = Volume(volume.source, pool=volume.pool, volume=volume.in_pool, snapshot=volume.snapshot)
    return bool(volume.pool) and volume == bare


# ---- telling


def _state(seen: Mapping) -> dict[str, Any]:
    """What the ETag is of."""
    return {"luns": seen.luns, "rule": whole(seen.rule)}


def _tell(request: Request, here: Context, connection: str, status: int = 200) -> Response:
    seen = _find(here, connection)
    volumes = here.server.settled.volumes
    can = ["Read"] if seen.rule.right == Right.READ_ONLY else ["Read", "Write"]
    info = [
        {"LUN": lun, "AccessCapabilities": can, "AccessState": "Optimized", "Volume": link(place)}
        for lun, name in sorted(seen.luns.items())
        if name in volumes and (place := uri_of(volumes[name]))
    ]
    hosts = [] if seen.host == EVERYBODY else [uri(*ENDPOINTS, f"host:{seen.host}")]
    ends = {
        **counted("InitiatorEndpoints", hosts),
        **counted("TargetEndpoints", [uri(*ENDPOINTS, f"target:{seen.target.name}")]),
    }
    name = f"{'everybody' if seen.host == EVERYBODY else seen.host} at {seen.target.name}"
    actions = {
        f"#Connection.{action}": {"target": f"{seen.uri}/Actions/Connection.{action}"}
        for action in ("AddVolumeInfo", "RemoveVolumeInfo")
    }
    more = {"ConnectionType": "Storage", "VolumeInfo": info, "Links": ends, "Status": OK}
    if hosts:
        more["Actions"] = actions
    body = resource("Connection", seen.uri, connection, name, **more)
    return reply(request, body, _state(seen), status)
