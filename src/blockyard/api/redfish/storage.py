"""Swordfish: the storage, its pools, and the volumes in them, to read."""

from __future__ import annotations

from typing import Any

from fastapi import Request, Response

from blockyard.api.context import Context
from blockyard.api.problems import not_found
from blockyard.api.redfish.resources import OK, collection, link, new_routes, reply, resource, uri
from blockyard.api.routes.pool_volumes import PoolVolume, find, list_pool_volumes
from blockyard.api.routes.pools import Pool, get_pool
from blockyard.api.security import Here
from blockyard.control.errors import ControlError
from blockyard.control.roles import Role

routes = new_routes()

_STORAGE = ("Storage", "blockyard")
_POOLS, _VOLUMES = (*_STORAGE, "StoragePools"), (*_STORAGE, "Volumes")


@routes.get("/v1/Storage", Role.VIEWER, name="redfish_storages")
async def storages(request: Request) -> Response:
    """The one that there is."""
    return reply(request, collection("Storage", uri("Storage"), [uri(*_STORAGE)]))


@routes.get("/v1/Storage/blockyard", Role.VIEWER, name="redfish_storage")
async def storage(request: Request) -> Response:
    """This server."""
    parts = {"StoragePools": link(uri(*_POOLS)), "Volumes": link(uri(*_VOLUMES))}
    return reply(request, resource("Storage", uri(*_STORAGE), "blockyard", "Blockyard", Status=OK, **parts))


@routes.get("/v1/Storage/blockyard/StoragePools", Role.VIEWER, name="redfish_pools")
async def pools(request: Request, here: Here) -> Response:
    """All pools."""
    return reply(
        request, collection("StoragePool", uri(*_POOLS), [uri(*_POOLS, each) for each in here.server.settled.pools])
    )


@routes.get("/v1/Storage/blockyard/StoragePools/{pool}", Role.VIEWER, name="redfish_pool")
async def pool_(pool: str, request: Request, here: Here) -> Response:
    """One of them."""
    found = await get_pool(pool, here, Response())
    return reply(request, _pool(found), found.changeable)


@routes.get("/v1/Storage/blockyard/StoragePools/{pool}/AllocatedVolumes", Role.VIEWER, name="redfish_pool_volumes")
async def pool_volumes(pool: str, request: Request, here: Here) -> Response:
    """The volumes of a pool."""
    members = [_uri(each) for each in await list_pool_volumes(pool, here)]
    return reply(request, collection("Volume", uri(*_POOLS, pool, "AllocatedVolumes"), members))


@routes.get("/v1/Storage/blockyard/Volumes", Role.VIEWER, name="redfish_volumes")
async def volumes(request: Request, here: Here) -> Response:
    """The volumes of all pools."""
    return reply(request, collection("Volume", uri(*_VOLUMES), [_uri(each) for each in await _all(here)]))


@routes.get("/v1/Storage/blockyard/Volumes/{volume}", Role.VIEWER, name="redfish_volume")
async def volume_(volume: str, request: Request, here: Here) -> Response:
    """One of them: POOL:VOLUME."""
    pool, colon, name = volume.partition(":")
    if not colon:
        raise not_found(f"volume {volume!r}")
    found = await find(here, pool, name)
    return reply(request, _volume(found), found.changeable)


async def _all(here: Context) -> list[PoolVolume]:
    found: list[PoolVolume] = []
    for pool in here.server.settled.pools:
        try:
            found += await list_pool_volumes(pool, here)
        except ControlError:  # it is not open: its Status says so
            continue
    return found


def _pool(pool: Pool) -> dict[str, Any]:
    status = OK if pool.health == "ok" else {"State": "UnavailableOffline", "Health": "Critical"}
    more: dict[str, Any] = {"AllocatedVolumes": link(uri(*_POOLS, pool.name, "AllocatedVolumes"))}
    if pool.space is not None:
        space = pool.space
        data = {"AllocatedBytes": space.size, "ConsumedBytes": space.used, "ProvisionedBytes": space.provisioned}
        more["Capacity"] = {"Data": data, "IsThinProvisioned": True}
        more["RemainingCapacityPercent"] = 100 * space.free // space.size if space.size else 0
    return resource("StoragePool", uri(*_POOLS, pool.name), pool.name, pool.name, Status=status, **more)


def _volume(volume: PoolVolume) -> dict[str, Any]:
    more: dict[str, Any] = {
        "CapacityBytes": volume.size,
        "Capacity": {
            "Data": {"ProvisionedBytes": volume.size, "ConsumedBytes": volume.used},
            "IsThinProvisioned": True,
        },
        "Identifiers": [{"DurableName": volume.uuid, "DurableNameFormat": "UUID"}],
        "Status": OK,
    }
    return resource("Volume", _uri(volume), f"{volume.pool}:{volume.name}", volume.name, **more)


def _uri(volume: PoolVolume) -> str:
    return uri(*_VOLUMES, f"{volume.pool}:{volume.name}")
