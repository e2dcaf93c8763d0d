"""The iSCSI network as a fabric: its endpoints are the targets, and the hosts that log in to them."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import Any, Literal

from fastapi import Request, Response
from pydantic import BaseModel, Field

from blockyard.api.configured import change
from blockyard.api.context import Context
from blockyard.api.etags import IfMatch
from blockyard.api.problems import not_found
from blockyard.api.redfish.names import CONNECTIONS, ENDPOINTS, FABRIC, mappings
from blockyard.api.redfish.resources import (
    MANAGER,
    OK,
    Body,
    check_match,
    collection,
    counted,
    link,
    new_routes,
    nothing,
    refuse_others,
    reply,
    resource,
    uri,
    wrong,
)
from blockyard.api.schemas import whole
from blockyard.api.security import Here, Who
from blockyard.control.roles import Role
from blockyard.iscsi.access import Right, Rule
from blockyard.iscsi.names import validate
from blockyard.worker.configuration import Configuration, Host, Target

routes = new_routes()

NOBODY_ELSE = Rule(right=Right.REFUSE)  # without any rule a target is everybody's
_FABRIC = "/v1/Fabrics/iSCSI"


class Identifier(BaseModel):
    DurableName: str = Field(max_length=223)
    DurableNameFormat: Literal["iQN"] = "iQN"


class Entity(BaseModel):
    EntityRole: Literal["Initiator", "Target"] = "Initiator"
    Identifiers: list[Identifier] = []


class NewEndpoint(Body):
    Name: str | None = Field(None, min_length=1, max_length=64)
    EndpointProtocol: Literal["iSCSI"] | None = None
    ConnectedEntities: list[Entity] = Field([], max_length=1)
    Identifiers: list[Identifier] = Field([], max_length=64)


@routes.get("/v1/Fabrics", Role.VIEWER, name="redfish_fabrics")
async def fabrics(request: Request) -> Response:
    """The one that there is."""
    return reply(request, collection("Fabric", uri("Fabrics"), [uri(*FABRIC)]))


@routes.get(_FABRIC, Role.VIEWER, name="redfish_fabric")
async def fabric(request: Request) -> Response:
    """All that speaks iSCSI here."""
    parts = {"Endpoints": link(uri(*ENDPOINTS)), "Connections": link(uri(*CONNECTIONS))}
    managed = {"Links": counted("ManagedBy", [uri(*MANAGER)])}
    return reply(
        request, resource("Fabric", uri(*FABRIC), "iSCSI", "iSCSI", FabricType="iSCSI", Status=OK, **parts, **managed)
    )


@routes.get(f"{_FABRIC}/Endpoints", Role.VIEWER, name="redfish_endpoints")
async def endpoints(request: Request, here: Here) -> Response:
    """Targets and hosts."""
    targets = [f"target:{name}" for name in here.server.settled.targets]
    hosts = [f"host:{name}" for name in here.server.configuration.hosts if "/" not in name]
    return reply(request, collection("Endpoint", uri(*ENDPOINTS), (uri(*ENDPOINTS, each) for each in targets + hosts)))


@routes.get(f"{_FABRIC}/Endpoints/{{endpoint}}", Role.VIEWER, name="redfish_endpoint")
async def endpoint_(endpoint: str, request: Request, here: Here) -> Response:
    """One of them."""
    return _tell(request, here, endpoint)


@routes.post(f"{_FABRIC}/Endpoints", Role.ADMIN, status_code=201, name="redfish_new_endpoint")
async def new_endpoint(new: NewEndpoint, request: Request, here: Here, who: Who) -> Response:
    """A host, known by its iSCSI names; or a target, which shows nothing to anybody before a connection says otherwise."""
    refuse_others(new)
    role = new.ConnectedEntities[0].EntityRole if new.ConnectedEntities else "Initiator"
    names = [each.DurableName for each in new.Identifiers]
    names += [each.DurableName for entity in new.ConnectedEntities for each in entity.Identifiers]
    if not names or (role == "Target" and len(set(names)) != 1):
        raise wrong("Identifiers", "a target has one iSCSI name, a host at least one")
    try:
        names = list(dict.fromkeys(validate(name) for name in names))
        if role == "Target":
            made: Host | Target = Target(names[0], alias=new.Name or "", access=(NOBODY_ELSE,))
        else:
            made = Host(new.Name or names[0], tuple(names))
    except ValueError as error:
        raise wrong("Identifiers", str(error)) from None
    if "/" in made.name:
        raise wrong("Name", "it is a part of a path here, and has no /")

    def edit(configuration: Configuration) -> Configuration:
        if isinstance(made, Host):
            _check_new(made.name in configuration.hosts, made.name)
            return replace(configuration, hosts={**configuration.hosts, made.name: made})
        _check_new(made.name in configuration.targets, made.name)
        return replace(configuration, targets={**configuration.targets, made.name: made})

    await change(here, who, edit)
    return _tell(request, here, f"{role.lower() if role == 'Target' else 'host'}:{made.name}", 201)


@routes.delete(f"{_FABRIC}/Endpoints/{{endpoint}}", Role.ADMIN, status_code=204, name="redfish_delete_endpoint")
async def delete_endpoint(endpoint: str, request: Request, here: Here, who: Who, if_match: IfMatch = None) -> Response:
    """Take a host or a target out of the configuration; not a host that rules of access name."""
    kind, _, name = endpoint.partition(":")

    def edit(configuration: Configuration) -> Configuration:
        if kind == "host" and name in configuration.hosts:
            check_match(if_match, whole(configuration.hosts[name]))
            rest = {each: host for each, host in configuration.hosts.items() if each != name}
            return replace(configuration, hosts=rest)
        if kind == "target" and name in configuration.targets:
            check_match(if_match, whole(configuration.targets[name]))
            targets = {each: target for each, target in configuration.targets.items() if each != name}
            return replace(configuration, targets=targets)
        raise not_found(f"endpoint {endpoint!r} in the configuration")

    await change(here, who, edit)
    return nothing(request)


def _check_new(there: bool, name: str) -> None:
    if there:
        raise wrong("Name", f"there is a {name} already")


def _tell(request: Request, here: Context, name: str, status: int = 200) -> Response:
    where = uri(*ENDPOINTS, name)
    kind, _, rest = name.partition(":")
    of = [each for each in mappings(here) if rest == (each.host if kind == "host" else each.target.name)]
    configuration, settled = here.server.configuration, here.server.settled
    if kind == "host" and rest in configuration.hosts:
        host = configuration.hosts[rest]
        state: Any = whole(host)
        more = _endpoint("Initiator", "StorageInitiator", host.initiators)
    elif kind == "target" and rest in settled.targets:
        target = configuration.targets.get(rest, settled.targets[rest])
        state = whole(target)
        more = _endpoint("Target", "StorageSubsystem", [rest])
        groups = [settled.portal_groups[tag] for tag in target.portal_groups if tag in settled.portal_groups]
        more["IPTransportDetails"] = [_transport(portal) for group in groups for portal in group.portals]
    else:
        raise not_found(f"endpoint {name!r}")
    connections = counted("Connections", (each.uri for each in of))
    body = resource("Endpoint", where, name, rest, EndpointProtocol="iSCSI", Status=OK, Links=connections, **more)
    return reply(request, body, state, status)


def _endpoint(role: str, kind: str, names: Any) -> dict[str, Any]:
    identifiers = [{"DurableName": name, "DurableNameFormat": "iQN"} for name in names]
    return {"ConnectedEntities": [{"EntityRole": role, "EntityType": kind}], "Identifiers": identifiers}


def _transport(portal: str) -> dict[str, Any]:
    host, _, port = portal.rpartition(":")
    address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    return {
        "TransportProtocol": "TCP",
        f"IPv{address.version}Address": {"Address": str(address)},
        "Port": int(port),
    }
