"""Swordfish: the storage and its pools. The volumes in them are in volumes.py."""

from __future__ import annotations

from typing import Any

from fastapi import Request, Response

from blockyard.api.redfish.names import CONNECTIONS, POOLS, VOLUMES
from blockyard.api.redfish.resources import (
    OK,
    STORAGE,
    SYSTEM,
    collection,
    counted,
    link,
    new_routes,
    reply,
    resource,
    uri,
)
from blockyard.api.redfish.volumes import pool_volumes, uris
from blockyard.api.routes.pools import Pool, get_pool
from blockyard.api.security import Here
from blockyard.control.roles import Role

routes = new_routes()


@routes.get("/v1/Storage", Role.VIEWER, name="redfish_storages")
async def storages(request: Request) -> Response:
    """The one that there is."""
    return reply(request, collection("Storage", uri("Storage"), [uri(*STORAGE)]))


@routes.get("/v1/Storage/blockyard", Role.VIEWER, name="redfish_storage")
async def storage(request: Request) -> Response:
    """This server."""
    parts = {
        "StoragePools": link(uri(*POOLS)),
        "Volumes": link(uri(*VOLUMES)),
        "Connections": link(uri(*CONNECTIONS)),
        "Links": counted("HostingStorageSystems", [uri(*SYSTEM)]),
    }
    return reply(request, resource("Storage", uri(*STORAGE), "blockyard", "Blockyard", Status=OK, **parts))


@routes.get("/v1/Storage/blockyard/StoragePools", Role.VIEWER, name="redfish_pools")
async def pools(request: Request, here: Here) -> Response:
    """All pools."""
    members = [uri(*POOLS, each) for each in here.server.settled.pools]
    return reply(request, collection("StoragePool", uri(*POOLS), members))


@routes.get("/v1/Storage/blockyard/StoragePools/{pool}", Role.VIEWER, name="redfish_pool")
async def pool_(pool: str, request: Request, here: Here) -> Response:
    """One of them."""
    found = await get_pool(pool, here, Response())
    return reply(request, _pool(found), found.changeable)


@routes.get("/v1/Storage/blockyard/StoragePools/{pool}/AllocatedVolumes", Role.VIEWER, name="redfish_pool_volumes")
async def allocated_volumes(pool: str, request: Request, here: Here) -> Response:
    """The volumes of a pool, and their snapshots."""
    members = uris(await pool_volumes(here, pool))
    return reply(request, collection("Volume", uri(*POOLS, pool, "AllocatedVolumes"), members))


def _pool(pool: Pool) -> dict[str, Any]:
    status = OK if pool.health == "ok" else {"State": "UnavailableOffline", "Health": "Critical"}
    more: dict[str, Any] = {
        "AllocatedVolumes": link(uri(*POOLS, pool.name, "AllocatedVolumes")),
        "SupportedProvisioningPolicies": ["Thin"],
        "Links": {"OwningStorageResource": link(uri(*STORAGE))},
    }
    if pool.space is not None:
        space = pool.space
        data = {
            "AllocatedBytes": space.size,
            "ConsumedBytes": space.used,
            "GuaranteedBytes": space.reserved,
            "ProvisionedBytes": space.provisioned,
        }
        more["Capacity"] = {"Data": data, "IsThinProvisioned": True}
        more["RemainingCapacityPercent"] = 100 * space.free // space.size if space.size else 0
    return resource("StoragePool", uri(*POOLS, pool.name), pool.name, pool.name, Status=status, **more)
