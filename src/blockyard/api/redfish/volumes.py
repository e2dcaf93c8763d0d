"""Volumes of pools, and snapshots of them, which Swordfish has as volumes, too: made, resized, copied and deleted.

What else the server has as a volume is there to read.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Literal

from fastapi import Request, Response
from pydantic import BaseModel, Field

from blockyard.api.context import Context
from blockyard.api.etags import IfMatch
from blockyard.api.problems import not_found
from blockyard.api.redfish.names import POOLS, VOLUMES, Key, connections_of, key_of, uri_of
from blockyard.api.redfish.resources import (
    OK,
    STORAGE,
    Body,
    Link,
    check_change,
    check_match,
    collection,
    counted,
    link,
    made,
    missing,
    new_routes,
    nothing,
    refuse_others,
    reply,
    resource,
    uri,
    wrong,
)
from blockyard.api.redfish.tasks import accepted
from blockyard.api.routes import pool_upkeep, snapshots
from blockyard.api.routes import pool_volumes as kept
from blockyard.api.routes.pools import ask, check_pool
from blockyard.api.security import Here, Who
from blockyard.control.errors import ControlError
from blockyard.control.roles import Role

routes = new_routes()

_VOLUME = "/v1/Storage/blockyard/Volumes/{volume}"
_ACTIONS = f"{_VOLUME}/Actions"


class Space(BaseModel):
    ProvisionedBytes: int | None = None
    AllocatedBytes: int | None = None


class Extent(BaseModel):
    Data: Space | None = None

    @property
    def size(self) -> int | None:
        data = self.Data or Space()
        return data.AllocatedBytes if data.ProvisionedBytes is None else data.ProvisionedBytes


class Source(BaseModel):
    """What a volume is made of. Where a pool is named, the schema has a link to it, or to a collection that holds it."""

    ProvidingPools: Link | list[Link] | None = None


class VolumeLinks(BaseModel):
    ProvidingStoragePool: Link | None = None


class Sized(Body):
    CapacityBytes: int | None = None
    Capacity: Extent | None = None

    @property
    def size(self) -> int | None:
        return self.CapacityBytes if self.CapacityBytes is not None or self.Capacity is None else self.Capacity.size


class NewVolume(Sized):
    Name: str | None = None
    DisplayName: str | None = None
    CapacitySources: list[Source] | None = None
    Links: VolumeLinks | None = None
    ProvisioningPolicy: Literal["Thin"] | None = None

    @property
    def pools(self) -> list[Link]:
        """The pools that are named, by whichever of the ways to do so."""
        found = [self.Links.ProvidingStoragePool] if self.Links and self.Links.ProvidingStoragePool else []
        for source in self.CapacitySources or ():
            providing = source.ProvidingPools
            found += providing if isinstance(providing, list) else [providing] if providing else []
        return found


class NewReplica(Body):
    """CreateReplicaTarget of Volume."""

    ReplicaType: Literal["Snapshot", "Clone"]
    ReplicaUpdateMode: Literal["Active", "Synchronous", "Asynchronous", "Adaptive"] | None = None
    TargetStoragePool: str | None = None
    VolumeName: str | None = Field(None, max_length=128)


# ---- looking


@routes.get("/v1/Storage/blockyard/Volumes", Role.VIEWER, name="redfish_volumes")
async def volumes(request: Request, here: Here) -> Response:
    """All that there are, with their snapshots."""
    members: list[str] = []
    for pool in here.server.settled.pools:
        try:
            members += uris(await pool_volumes(here, pool))
        except ControlError:  # it is not open: its Status says so
            continue
    members += [place for each in here.server.settled.volumes.values() if not each.pool and (place := uri_of(each))]
    return reply(request, collection("Volume", uri(*VOLUMES), members))


@routes.get(_VOLUME, Role.VIEWER, name="redfish_volume")
async def volume_(volume: str, request: Request, here: Here) -> Response:
    """One of them."""
    return await _tell(request, here, volume)


async def pool_volumes(here: Context, pool: str) -> list[Key]:
    """The volumes of a pool, and their snapshots. Raises ControlError, and Refused where there is no such pool."""
    found = [Key(pool, name) for name in (await ask(here, pool, "volumes"))["volumes"]]
    return found + [
        Key(pool, each["volume"], each["name"]) for each in (await ask(here, pool, "snapshots"))["snapshots"]
    ]


def uris(keys: Iterable[Key]) -> list[str]:
    return [each.uri for each in keys]


async def _tell(request: Request, here: Context, text: str, status: int = 200, body: Body | None = None) -> Response:
    if text.startswith("~"):
        return reply(request, _plain(here, text))
    key = key_of(text)
    volume = await kept.find(here, key.pool, key.volume)
    if key.snapshot:
        snapshot = await snapshots.get_snapshot(key.pool, key.volume, key.snapshot, here, Response())
        return reply(request, _snapshot(here, key, snapshot, volume), snapshot.changeable, status)
    replicas = [each for each in await pool_volumes(here, key.pool) if each.volume == key.volume and each.snapshot]
    return reply(request, _volume(here, key, volume, replicas), volume.changeable, status, body)


def _volume(here: Context, key: Key, volume: kept.PoolVolume, replicas: list[Key]) -> dict[str, Any]:
    space = {"ProvisionedBytes": volume.size, "ConsumedBytes": volume.used, "GuaranteedBytes": volume.reservation}
    more: dict[str, Any] = {
        "CapacityBytes": volume.size,
        "Capacity": {"Data": space, "IsThinProvisioned": True},
        "ProvisioningPolicy": "Thin",
        "AccessCapabilities": ["Read", "Write"],
        "Identifiers": [{"DurableName": volume.uuid, "DurableNameFormat": "UUID"}],
        **counted("ReplicaTargets", uris(replicas)),
        "Actions": _actions(key),
    }
    if volume.origin:
        more["ReplicaInfo"] = _replica("Clone", key_of(volume.origin.replace("/", ":", 1).replace("@", ":", 1)))
    return _resource(here, key, volume.name, more)


def _snapshot(here: Context, key: Key, snapshot: snapshots.Snapshot, of: kept.PoolVolume) -> dict[str, Any]:
    more: dict[str, Any] = {
        "CapacityBytes": snapshot.size,
        "Capacity": {"Data": {"ProvisionedBytes": snapshot.size}, "IsThinProvisioned": True},
        "ProvisioningPolicy": "Thin",
        "AccessCapabilities": ["Read"],
        "ReplicaInfo": {**_replica("Snapshot", Key(of.pool, of.name)), "WhenActivated": snapshot.time},
        "Actions": _actions(key, "Clone"),
    }
    return _resource(here, key, key.snapshot, more)


def _plain(here: Context, text: str) -> dict[str, Any]:
    """A volume that is not in a pool."""
    volume = here.server.settled.volumes.get(text.removeprefix("~"))
    if volume is None or volume.pool:
        raise not_found(f"volume {text!r}")
    more = {
        "CapacityBytes": int(volume.size),
        "BlockSizeBytes": volume.block_size,
        "AccessCapabilities": ["Read"] if volume.read_only else ["Read", "Write"],
        "Identifiers": [{"DurableName": volume.uuid, "DurableNameFormat": "UUID"}] if volume.uuid else [],
        **counted("Connections", connections_of(here, volume.name)),
        "Links": {"OwningStorageResource": link(uri(*STORAGE))},
    }
    return resource("Volume", uri(*VOLUMES, text), text, volume.name, Status=OK, **more)


def _resource(here: Context, key: Key, name: str, more: dict[str, Any]) -> dict[str, Any]:
    settled = here.server.settled.volumes
    shown = [each for each, volume in settled.items() if volume.pool and volume.source == key.source]
    pool = {"ProvidingStoragePool": link(uri(*POOLS, key.pool)), "OwningStorageResource": link(uri(*STORAGE))}
    connections = counted("Connections", (place for each in shown for place in connections_of(here, each)))
    return resource("Volume", key.uri, key.id, name, Status=OK, **connections, Links=pool, **more)


def _replica(kind: str, source: Key) -> dict[str, Any]:
    return {"ReplicaType": kind, "ReplicaRole": "Target", "ReplicaState": "Split", "SourceReplica": link(source.uri)}


def _actions(key: Key, *kinds: str) -> dict[str, Any]:
    create: dict[str, Any] = {
        "target": f"{key.uri}/Actions/Volume.CreateReplicaTarget",
        "ReplicaType@Redfish.AllowableValues": list(kinds or ("Snapshot", "Clone")),
        "TargetStoragePool@Redfish.AllowableValues": [uri(*POOLS, key.pool)],
    }
    if key.snapshot:
        return {"#Volume.CreateReplicaTarget": create}
    check = {"target": f"{key.uri}/Actions/Volume.CheckConsistency"}
    return {"#Volume.CreateReplicaTarget": create, "#Volume.CheckConsistency": check}


# ---- changing


@routes.post("/v1/Storage/blockyard/Volumes", Role.OPERATOR, status_code=201, name="redfish_new_volume")
async def new_volume(new: NewVolume, request: Request, here: Here, who: Who) -> Response:
    """Make one, in the pool that is named, or in the only one."""
    pools = list(here.server.settled.pools)
    named = [place.below(*POOLS) for place in new.pools]
    if named:
        pools = [name for name in pools if name in named]
        if len(named) > 1 or not pools:
            raise wrong("CapacitySources", f"name one pool, as {uri(*POOLS, 'NAME')}")
    if len(pools) != 1:
        raise missing("Links/ProvidingStoragePool")
    return await _make(pools[0], new, request, here, who)


@routes.post(
    "/v1/Storage/blockyard/StoragePools/{pool}/AllocatedVolumes",
    Role.OPERATOR,
    status_code=201,
    name="redfish_new_pool_volume",
)
async def new_pool_volume(pool: str, new: NewVolume, request: Request, here: Here, who: Who) -> Response:
    """Make one, in this pool."""
    check_pool(here, pool)
    return await _make(pool, new, request, here, who)


async def _make(pool: str, new: NewVolume, request: Request, here: Context, who: Who) -> Response:
    refuse_others(new)
    if new.size is None:
        raise missing("CapacityBytes")
    name = new.Name or new.DisplayName or time.strftime("volume-%Y%m%d-%H%M%S", time.gmtime())
    wanted = made(kept.NewPoolVolume, name=name, size=new.size)
    await kept.create_pool_volume(pool, wanted, here, who, Response())
    return await _tell(request, here, Key(pool, name).id, HTTPStatus.CREATED)


@routes.patch(_VOLUME, Role.OPERATOR, name="redfish_change_volume")
async def change_volume(
    volume: str, change: Sized, request: Request, here: Here, who: Who, if_match: IfMatch = None
) -> Response:
    """Another size. Smaller only while nobody uses it, and never so that data is cut off."""
    key = key_of(volume)
    if key.snapshot:
        raise wrong("CapacityBytes", "a snapshot stays as it is")
    now = await kept.find(here, key.pool, key.volume)
    check_match(if_match, now.changeable)
    check_change(change)
    if change.size is not None:
        wanted = made(kept.PoolVolumeChange, size=change.size)
        await kept.change_pool_volume(key.pool, key.volume, wanted, here, who, Response(), "*")
    return await _tell(request, here, volume, body=change)


@routes.delete(_VOLUME, Role.OPERATOR, status_code=204, name="redfish_delete_volume")
async def delete_volume(volume: str, request: Request, here: Here, who: Who, if_match: IfMatch = None) -> Response:
    """Delete a volume that has no snapshots, or a snapshot."""
    key, any_state = key_of(volume), if_match or "*"
    if key.snapshot:
        await snapshots.delete_snapshot(key.pool, key.volume, key.snapshot, here, who, any_state)
    else:
        await kept.delete_pool_volume(key.pool, key.volume, here, who, any_state)
    return nothing(request)


@routes.post(f"{_ACTIONS}/Volume.CreateReplicaTarget", Role.OPERATOR, status_code=201, name="redfish_replicate")
async def replicate(volume: str, new: NewReplica, request: Request, here: Here, who: Who) -> Response:
    """Take a snapshot, or make a clone: of a snapshot, or of the volume as it is now, which takes a snapshot first."""
    key = key_of(volume)
    refuse_others(new)
    if new.TargetStoragePool not in (None, uri(*POOLS, key.pool)):
        raise wrong(
            "TargetStoragePool", f"snapshots and clones are in the pool of their volume: {uri(*POOLS, key.pool)}"
        )
    if new.ReplicaType == "Snapshot" and key.snapshot:
        raise wrong("ReplicaType", "of a snapshot there are clones")
    if new.ReplicaType == "Clone" and not new.VolumeName:
        raise missing("VolumeName")
    snapshot = key.snapshot
    if not snapshot:
        name = new.VolumeName if new.ReplicaType == "Snapshot" else None
        taken = made(snapshots.NewSnapshot, name=name)
        snapshot = (await snapshots.take_snapshot(key.pool, key.volume, taken, here, who, Response())).name
    if new.ReplicaType == "Snapshot":
        return await _tell(request, here, Key(key.pool, key.volume, snapshot).id, HTTPStatus.CREATED)
    clone = made(snapshots.NewClone, name=new.VolumeName)
    await snapshots.clone_snapshot(key.pool, key.volume, snapshot, clone, here, who, Response())
    return await _tell(request, here, Key(key.pool, clone.name).id, HTTPStatus.CREATED)


@routes.post(f"{_ACTIONS}/Volume.CheckConsistency", Role.OPERATOR, status_code=202, name="redfish_check_volume")
async def check_volume(volume: str, request: Request, here: Here, who: Who) -> Response:
    """Read all data of the volume's pool, and compare checksums: a task."""
    key = key_of(volume)
    await kept.find(here, key.pool, key.volume)
    scrub = pool_upkeep.Scrub(rate=0)
    begun = await pool_upkeep.scrub_pool(key.pool, scrub, here, who, Response())
    return await accepted(request, here, begun.job)
