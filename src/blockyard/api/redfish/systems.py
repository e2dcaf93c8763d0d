"""The machine that serves, as a system, and what manages it: this program."""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime

from fastapi import Request, Response

from blockyard import __version__
from blockyard.api.redfish.names import FABRIC
from blockyard.api.redfish.resources import (
    MANAGER,
    OK,
    SYSTEM,
    collection,
    counted,
    link,
    new_routes,
    reply,
    resource,
    uri,
)
from blockyard.api.security import Here
from blockyard.control.roles import Role

routes = new_routes()

_GIB = 1 << 30


@routes.get("/v1/Systems", Role.VIEWER, name="redfish_systems")
async def systems(request: Request) -> Response:
    """The one that there is."""
    return reply(request, collection("ComputerSystem", uri("Systems"), [uri(*SYSTEM)]))


@routes.get("/v1/Systems/blockyard", Role.VIEWER, name="redfish_system")
async def system(request: Request) -> Response:
    """The machine, as its operating system knows it."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB
    more = {
        "HostName": socket.gethostname(),
        "PowerState": "On",
        "HostingRoles": ["StorageServer"],
        "ProcessorSummary": {"LogicalProcessorCount": os.cpu_count() or 1},
        "MemorySummary": {"TotalSystemMemoryGiB": round(memory, 2)},
        "Storage": link(uri("Storage")),
        "Links": counted("ManagedBy", [uri(*MANAGER)]),
        "Status": OK,
    }
    return reply(request, resource("ComputerSystem", uri(*SYSTEM), "blockyard", socket.gethostname(), **more))


@routes.get("/v1/Managers", Role.VIEWER, name="redfish_managers")
async def managers(request: Request) -> Response:
    """The one that there is."""
    return reply(request, collection("Manager", uri("Managers"), [uri(*MANAGER)]))


@routes.get("/v1/Managers/blockyard", Role.VIEWER, name="redfish_manager")
async def manager(request: Request, here: Here) -> Response:
    """This program."""
    stable = {
        "ManagerType": "Service",
        "Manufacturer": "Blockyard",
        "Model": "Blockyard",
        "FirmwareVersion": __version__,
        "ServiceEntryPointUUID": here.uuid,
        "UUID": here.uuid,
        "Links": {
            **counted("ManagerForServers", [uri(*SYSTEM)]),
            **counted("ManagerForFabrics", [uri(*FABRIC)]),
        },
        "Status": OK,
    }
    now = datetime.now(UTC).isoformat(timespec="seconds")
    body = resource(
        "Manager", uri(*MANAGER), "blockyard", "Blockyard", DateTime=now, DateTimeLocalOffset="+00:00", **stable
    )
    return reply(request, body, stable)
