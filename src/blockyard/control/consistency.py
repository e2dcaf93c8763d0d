"""Whether a configuration makes sense as a whole: what no type can tell.

`checked` brings names and portals to their normal form, and refuses what contradicts itself, with the key path to
it. It asks neither the network nor any file.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
import uuid
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from importlib.util import find_spec

from blockyard.block.formats import FORMATS, RAW, VHD, VHDX
from blockyard.block.records import RecordError, join, key
from blockyard.block.size import MAX_SIZE
from blockyard.control.allowed import check_places
from blockyard.control.catalogue import CATALOGUE
from blockyard.control.hosts import check_hosts
from blockyard.control.stacks import check_stack_volume, check_stacks
from blockyard.iscsi import isns as isns_protocol
from blockyard.iscsi.directory import Portal, portal_from
from blockyard.iscsi.names import DEFAULT_PORT, InvalidName, parse_portal, validate
from blockyard.pool.names import check_snapshot_name, check_volume_name
from blockyard.pool.schedule import chosen
from blockyard.scsi.lun import MAX_LUN
from blockyard.worker.configuration import (
    Api,
    Configuration,
    Drive,
    Isns,
    Library,
    Metrics,
    Pool,
    PortalGroup,
    Redirect,
    Schedule,
    Target,
    Volume,
)
from blockyard.worker.receivers import Receivers

API_PORT = 3261  # beside iSCSI's 3260
DEFAULT_API = Api(f"127.0.0.1:{API_PORT}")  # of a server that keeps its configuration: by it that can be changed
METRICS_PORT = 9464  # of exporters of OpenTelemetry, which no other is likely to have here
MAX_TAG = 65535  # portal group tags have 16 bits (RFC 7143 §13.9)
BLOCK_SIZES = (512, 4096)
_VOLUME_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,64}\Z")
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?\Z")
_ENTITY_LIMIT = 255  # bytes (RFC 4171 §6.2.1)
_ALIAS_LIMIT = 255  # bytes (RFC 7143 §13.6)


def checked(configuration: Configuration) -> Configuration:
    """The configuration in its normal form. Raises RecordError."""
    groups = _portal_groups(configuration)
    pools = {name: _pool(join("pools", key(name)), pool) for name, pool in configuration.pools.items()}
    check_hosts(configuration)
    _check_receivers(configuration.events)
    if configuration.events.snmp:
        _check_extra(join("events", "snmp"), "pysnmp", "snmp")
    if configuration.telemetry is not None:
        _check_extra("telemetry", "opentelemetry.sdk", "otel")
    _check_libraries(configuration.libraries.values())
    for name, volume in configuration.volumes.items():
        _check_volume(join("volumes", key(name)), volume, pools)
    check_stacks(configuration)
    check_places(configuration)
    for name, schedule in configuration.schedules.items():
        _check_schedule(join("schedules", key(name)), schedule, pools)
    _check_sources(configuration.volumes.values())
    _check_drives(configuration.drives.values(), configuration.volumes)
    _check_identities([*configuration.volumes.values(), *configuration.drives.values()])
    targets: dict[str, Target] = {}
    for name, target in configuration.targets.items():
        at = join("targets", key(name))
        made = _target(at, target, groups, configuration.volumes.keys() | configuration.drives.keys())
        _check_library(at, target, configuration.libraries)
        if made.name in targets:
            raise RecordError(at, f"the target {made.name} stands here twice: names do not differ by case alone")
        targets[made.name] = made
    isns = configuration.isns and _isns(configuration.isns)
    metrics = configuration.metrics and _metrics(configuration.metrics, groups)
    api = configuration.api and _api(configuration.api, groups)
    if metrics and api and api.listen and _same_place(portal_from(metrics.listen), portal_from(api.listen)):
        raise RecordError(join("api", "listen"), f"{api.listen} is taken by metrics.listen")
    return replace(
        configuration, portal_groups=groups, pools=pools, targets=targets, isns=isns, metrics=metrics, api=api
    )


def _check_receivers(receivers: Receivers) -> None:
    for place, receiver in receivers.by_place.items():
        for number, pattern in enumerate(receiver.kinds):
            if not fnmatch.filter(CATALOGUE, pattern):
                at = join("events", place, f"kinds[{number}]")
                raise RecordError(at, f"there is no kind of event {pattern!r}{_hint('kinds', pattern, CATALOGUE)}")


def _check_extra(at: str, module: str, extra: str) -> None:
    """That what an extra brings is there."""
    try:
        found = find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise RecordError(at, f"that needs packages that are not here: pip install 'blockyard[{extra}]'")


def _metrics(metrics: Metrics, groups: Mapping[int, PortalGroup]) -> Metrics:
    at = join("metrics", "listen")
    portal = _portal(at, metrics.listen, port=METRICS_PORT)
    if not portal.port:
        raise RecordError(at, f"{portal} has no port: name one that Prometheus can be told, such as {METRICS_PORT}")
    _check_no_portal(at, portal, groups)
    return replace(metrics, listen=portal.written)


def _api(api: Api, groups: Mapping[int, PortalGroup]) -> Api:
    at = join("api", "listen")
    if not api.listen:
        return api
    portal = _portal(at, api.listen, port=API_PORT)
    if portal.port:
        _check_no_portal(at, portal, groups)
    for number, host in enumerate(api.hosts):
        if not _HOST.match(host):
            raise RecordError(
                join("api", "hosts", f"[{number}]"), f"{host!r} is not the name of a host, in small letters"
            )
    if api.http:
        plain = _portal(join("api", "http"), api.http, port=80)
        _check_no_portal(join("api", "http"), plain, groups)
        if _same_place(plain, portal):
            raise RecordError(join("api", "http"), f"{plain} is taken by api.listen")
        api = replace(api, http=plain.written)
    for number, path in enumerate(api.paths):
        if not path.startswith("/"):
            raise RecordError(join("api", f"paths[{number}]"), f"{path!r} does not begin with a slash")
    return replace(api, listen=portal.written)


def _check_no_portal(at: str, portal: Portal, groups: Mapping[int, PortalGroup]) -> None:
    for tag, group in groups.items():
        for other in map(portal_from, group.portals):
            if _same_place(portal, other):
                raise RecordError(at, f"{portal} is taken by {other}, a portal of the group {tag}")


def _same_place(portal: Portal, other: Portal) -> bool:
    same = other.port == portal.port != 0 and other.address.version == portal.address.version
    return same and (other.wildcard or portal.wildcard or other.address == portal.address)


def _check_schedule(at: str, schedule: Schedule, pools: Collection[str]) -> None:
    for number, pattern in enumerate(schedule.volumes):
        pool = pattern.partition("/")[0]
        if not chosen(pools, [pool]):
            raise RecordError(join(at, f"volumes[{number}]"), f"there is no pool {pool!r}{_hint('pools', pool, pools)}")


def _isns(isns: Isns) -> Isns:
    server = _portal(join("isns", "server"), isns.server, port=isns_protocol.DEFAULT_PORT)
    if server.wildcard or not server.port:
        raise RecordError(join("isns", "server"), f"{server} is no server's address")
    if len(isns.entity.encode()) > _ENTITY_LIMIT or not isns.entity.isprintable():
        raise RecordError(join("isns", "entity"), f"a name has at most {_ENTITY_LIMIT} bytes, all of them printable")
    return replace(isns, server=server.written)


# ---- portals


def _portal_groups(configuration: Configuration) -> dict[int, PortalGroup]:
    places: dict[Portal, str] = {}
    groups = {}
    for tag, group in configuration.portal_groups.items():
        at = join("portal_groups", str(tag))
        if not 1 <= tag <= MAX_TAG:
            raise RecordError(at, f"the tag of a portal group is from 1 to {MAX_TAG}")
        if not group.portals:
            raise RecordError(join(at, "portals"), 'a group has one portal at least, such as "192.0.2.1:3260"')
        portals = []
        for number, text in enumerate(group.portals):
            place = join(at, "portals", f"[{number}]")
            portal = _portal(place, text)
            _check_apart(place, portal, places)
            places[portal] = place
            portals.append(portal.written)
        groups[tag] = PortalGroup(tuple(portals))
    return groups


def _portal(at: str, text: str, *, port: int = DEFAULT_PORT) -> Portal:
    try:
        return portal_from(text, port)
    except InvalidName as error:
        raise RecordError(at, str(error)) from None
    except ValueError:
        raise RecordError(at, f"{text!r} has no IP address, such as 192.0.2.1:3260 or [2001:db8::1]:3260") from None


def _check_apart(at: str, portal: Portal, others: dict[Portal, str]) -> None:
    """That no portal takes what comes for another one."""
    for other, place in others.items():
        if portal.port == 0 or other.port != portal.port or other.address.version != portal.address.version:
            continue
        if str(other) == str(portal):  # initiators are not told zones, so that these must not make the difference
            raise RecordError(at, f"{portal} stands at {place} already: a portal is in one group, once")
        if other.wildcard or portal.wildcard:
            wildcard = portal if portal.wildcard else other
            raise RecordError(at, f"{wildcard} takes all addresses with this port, and {place} has another of them")


# ---- pools


def _pool(at: str, pool: Pool) -> Pool:
    try:
        check_volume_name(pool.name)
    except ValueError as error:
        raise RecordError(at, str(error)) from None
    if not pool.directory or "\0" in pool.directory:
        raise RecordError(join(at, "directory"), "the directory that `blockyard pool create` has made belongs here")
    for option in ("target", "access"):
        if getattr(pool, option) and not pool.export:
            raise RecordError(join(at, option), "that is for pools that are exported: add `export = true`")
    try:
        return replace(pool, target=pool.target and validate(pool.target))
    except InvalidName as error:
        raise RecordError(join(at, "target"), str(error)) from None


# ---- volumes


def _check_volume(at: str, volume: Volume, pools: Collection[str]) -> None:
    if not _VOLUME_NAME.match(volume.name):
        raise RecordError(at, "the name of a volume has 1 to 64 characters, none of which is a control character")
    if volume.stack:
        check_stack_volume(at, volume)
    elif volume.pool:
        _check_pool_volume(at, volume, pools)
    elif volume.volume or volume.snapshot:
        option = "volume" if volume.volume else "snapshot"
        raise RecordError(join(at, option), "that is for volumes of pools: say by `pool` which one it is in")
    elif not volume.path:
        raise RecordError(
            join(at, "path"), "it is missing: name a file or device here, a pool by `pool`, or layers by `stack`"
        )
    elif "\0" in volume.path:
        raise RecordError(join(at, "path"), "no path has a NUL in it")
    if volume.format not in FORMATS:
        raise RecordError(join(at, "format"), f"{volume.format!r} is not one of {', '.join(FORMATS)}")
    if volume.backing and volume.format in (RAW, VHD, VHDX):
        raise RecordError(
            join(at, "backing"), "that is for images of QEMU's formats: others find their parents by themselves"
        )
    if volume.block_size not in BLOCK_SIZES:
        raise RecordError(join(at, "block_size"), f"{volume.block_size} is neither 512 nor 4096")
    if not 0 <= volume.protection <= 3:
        raise RecordError(join(at, "protection"), f"{volume.protection} is not a type of protection information, or 0")
    if volume.size % volume.block_size:
        size, block_size = int(volume.size), volume.block_size
        raise RecordError(join(at, "size"), f"{size} bytes are not a multiple of the block size {block_size}")
    if volume.size > MAX_SIZE:
        raise RecordError(join(at, "size"), "that is not a size that a file can have")
    _check_uuid(at, volume.uuid)


def _check_uuid(at: str, text: str) -> None:
    try:
        if text:
            uuid.UUID(text)
    except ValueError:
        example = "5e3a7c1e-6f0b-4c55-9a39-0f0c9a2d7b11"
        raise RecordError(join(at, "uuid"), f'{text!r} is not a UUID, such as "{example}"') from None


def _check_pool_volume(at: str, volume: Volume, pools: Collection[str]) -> None:
    if volume.pool not in pools:
        raise RecordError(join(at, "pool"), f"there is no pool {volume.pool!r}{_hint('pools', volume.pool, pools)}")
    if volume.path:
        raise RecordError(join(at, "path"), "a volume is in a pool or has a path, not both")
    if volume.format != RAW:
        raise RecordError(join(at, "format"), "that is for files: volumes of pools have no format")
    if volume.size:
        change = f"`blockyard volume resize {volume.pool}/{volume.in_pool} SIZE` changes it"
        raise RecordError(join(at, "size"), f"the pool knows the size: leave this out; {change}")
    if volume.protection:
        raise RecordError(join(at, "protection"), "volumes of pools have none: it could not go back with a snapshot")
    for option, name, check in (
        ("volume", volume.volume, check_volume_name),
        ("snapshot", volume.snapshot, check_snapshot_name),
    ):
        try:
            if name:
                check(name)
        except ValueError as error:
            raise RecordError(join(at, option), str(error)) from None


def _check_sources(volumes: Iterable[Volume]) -> None:
    """That no two are the same volume of a pool. Files that are the same only show when they are looked at."""
    seen: dict[str, str] = {}
    for volume in volumes:
        if volume.pool:
            if volume.source in seen:
                at = join("volumes", key(volume.name))
                other = join("volumes", key(seen[volume.source]))
                raise RecordError(at, f"{other} is {volume.source} too: name it once, and let targets share it")
            seen[volume.source] = volume.name


def _hint(table: str, name: str, there: Collection[str]) -> str:
    close = difflib.get_close_matches(name, there, 1)
    return f"; did you mean {close[0]!r}?" if close else f": add [{join(table, key(name))}], or correct the name"


def _check_drives(drives: Iterable[Drive], volumes: Collection[str]) -> None:
    for drive in drives:
        at = join("drives", key(drive.name))
        if not _VOLUME_NAME.match(drive.name):
            raise RecordError(at, "the name of a drive has 1 to 64 characters, none of which is a control character")
        if drive.name in volumes:
            raise RecordError(at, f"a volume is called {drive.name!r} too, so that no LUN could tell them apart")
        for option in ("image", "jukebox"):
            if "\0" in getattr(drive, option):
                raise RecordError(join(at, option), "no path has a NUL in it")
        _check_uuid(at, drive.uuid)


def _check_identities(volumes: Iterable[Volume | Drive]) -> None:
    seen: dict[uuid.UUID, str] = {}
    for volume in volumes:
        if volume.uuid:
            identity = uuid.UUID(volume.uuid)
            if identity in seen:
                at = join("volumes", key(volume.name), "uuid")
                raise RecordError(at, f"{seen[identity]} has the same: initiators would take the two for one disk")
            seen[identity] = volume.name


def _check_libraries(libraries: Iterable[Library]) -> None:
    seen: dict[str, str] = {}
    for library in libraries:
        at = join("libraries", key(library.name))
        if not _VOLUME_NAME.match(library.name):
            raise RecordError(at, "the name of a library has 1 to 64 characters, none of which is a control character")
        if not library.directory or "\0" in library.directory:
            raise RecordError(join(at, "directory"), "the directory of its cartridges belongs here")
        if library.directory in seen:
            raise RecordError(join(at, "directory"), f"{seen[library.directory]} has the same")
        seen[library.directory] = library.name


# ---- targets


def _target(at: str, target: Target, groups: Collection[int], volumes: Collection[str]) -> Target:
    try:
        name = validate(target.name)
    except InvalidName as error:
        raise RecordError(at, str(error)) from None
    if len(target.alias.encode()) > _ALIAS_LIMIT or not target.alias.isprintable():
        raise RecordError(join(at, "alias"), f"an alias has at most {_ALIAS_LIMIT} bytes, all of them printable")
    for option, low, high in (("max_connections", 1, 16), ("error_recovery_level", 0, 2)):
        value = getattr(target, option)
        if not low <= value <= high:
            raise RecordError(join(at, option), f"{value} is not from {low} to {high}")
    _check_portal_groups(join(at, "portal_groups"), target.portal_groups, groups)
    _check_luns(join(at, "luns"), target.luns, volumes)
    for number, rule in enumerate(target.access):
        _check_luns(join(at, "access", f"[{number}]", "luns"), rule.luns, volumes)
    redirect = target.redirect and _redirect(join(at, "redirect"), target.redirect)
    return replace(target, name=name, redirect=redirect)


def _check_library(at: str, target: Target, libraries: Collection[str]) -> None:
    if not target.library:
        return
    if target.library not in libraries:
        hint = f"add [libraries.{key(target.library)}], or correct the name"
        raise RecordError(join(at, "library"), f"there is no library {target.library!r}: {hint}")
    if target.luns or any(rule.luns for rule in target.access):
        raise RecordError(join(at, "library"), "a target shows a library or volumes: leave out `luns`")


def _check_portal_groups(at: str, tags: tuple[int, ...], groups: Collection[int]) -> None:
    if not tags:
        raise RecordError(at, "a target is reached by one portal group at least")
    for number, tag in enumerate(tags):
        if tag not in groups:
            there = ", ".join(map(str, groups)) or "none"
            raise RecordError(join(at, f"[{number}]"), f"there is no portal group {tag}; there are: {there}")
        if tag in tags[:number]:
            raise RecordError(join(at, f"[{number}]"), f"the portal group {tag} stands here twice")


def _check_luns(at: str, luns: dict[int, str], volumes: Collection[str]) -> None:
    for lun, volume in luns.items():
        if not 0 <= lun <= MAX_LUN:
            raise RecordError(join(at, str(lun)), f"a LUN is from 0 to {MAX_LUN}")
        if volume not in volumes:
            raise RecordError(join(at, str(lun)), f"there is no volume {volume!r}{_hint('volumes', volume, volumes)}")


def _redirect(at: str, redirect: Redirect) -> Redirect:
    try:
        to = parse_portal(redirect.to)
    except InvalidName as error:
        raise RecordError(join(at, "to"), str(error)) from None
    portals = (_portal(join(at, "portals", f"[{number}]"), text) for number, text in enumerate(redirect.portals))
    return replace(redirect, to=str(to), portals=tuple(map(str, portals)))
