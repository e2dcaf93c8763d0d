"""From a configuration to what workers are told: files looked at or made, pools read, identities and numbers looked up.

Volumes that are served already are in use by a worker, which has them locked: of these only the size is looked at.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from blockyard.block.formats import RAW
from blockyard.block.size import Size
from blockyard.control.allowed import check_not_own
from blockyard.control.errors import VolumeError
from blockyard.control.hosts import without_hosts
from blockyard.control.images import prepare_image
from blockyard.control.pools import described, exported, read_catalogs
from blockyard.control.stacks import check_claims, expanded, identity_key
from blockyard.control.state import State
from blockyard.control.volumes import FILE, OPTIONS, Backing, prepare
from blockyard.worker.configuration import Configuration, Drive, PortalGroup, Settled, Target, Volume


@dataclass(frozen=True)
class Found:
    """A configuration that can be served, and what those of its volumes that are in no pool are made of, by their names."""

    settled: Settled
    backings: dict[str, Backing]

    def remove_created(self) -> None:
        """It will not be served after all: remove the files that were made."""
        _undo(backing for backing in self.backings.values() if backing.created)


def settle(
    configuration: Configuration,
    portals: Mapping[int, PortalGroup],
    state: State,
    *,
    from_file: bool,
    grow: bool,
    served: Collection[Path] = (),
    withheld: Collection[str] = (),
    making: Collection[Volume] = (),
    before: Mapping[str, Volume] | None = None,
) -> Found:
    """Check and make what `configuration` needs. `portals` has the groups with the ports that they really have.

    With `grow`, files grow to the sizes that they shall have. `served` has the canonical paths of what is open
    already, `withheld` volumes of pools that are not exported now, `making` what layers are just made of, `before` all
    volumes as they are served. Raises VolumeError or StateError; then no file has been made or changed.
    """
    configuration = without_hosts(configuration)
    catalogs = read_catalogs(configuration.pools)
    configuration = replace(configuration, volumes={**configuration.volumes, **expanded(configuration)})
    configuration = exported(configuration, catalogs, state, withheld)
    of_pools = described(configuration, catalogs)
    claims = (claim.what for volume in configuration.volumes.values() for claim in volume.claims)
    check_not_own(state.directory, (what.removeprefix("file:") for what in claims if what.startswith("file:")))
    backings: dict[str, Backing] = {}
    try:
        for name, volume in configuration.volumes.items():
            if volume.path:
                backings[name] = _prepare(volume, served, from_file=from_file, grow=grow)
        _check_apart(configuration.volumes, backings)
        check_claims([*configuration.volumes.values(), *making])
        settled = Settled(
            portal_groups=dict(portals),
            pools=configuration.pools,
            libraries=configuration.libraries,
            schedules=configuration.schedules,
            drives=_drives(configuration.drives, state),
            volumes=configuration.volumes
            | _identified(configuration.volumes, backings, state)
            | _stacks(configuration.volumes.values(), before or {}, state)
            | of_pools,
            targets=configuration.targets,
            discovery=configuration.discovery,
            auth=configuration.auth,
            isns=configuration.isns,
            relative_ports=_relative_ports(configuration.targets.values(), state),
            units_directory=str(state.units_directory),
        )
    except BaseException:
        _undo(backings.values())
        raise
    return Found(settled, backings)


def _prepare(volume: Volume, served: Collection[Path], *, from_file: bool, grow: bool) -> Backing:
    path = Path(volume.path)
    taken = path.resolve() in served
    wording = FILE if from_file else OPTIONS
    if volume.format != RAW:
        return prepare_image(volume, served=taken, wording=wording)
    return prepare(
        path,
        size=volume.size or None,
        block_size=volume.block_size,
        read_only=volume.read_only,
        grow=grow,
        served=taken,
        wording=wording,
    )


def _check_apart(volumes: Mapping[str, Volume], backings: Mapping[str, Backing]) -> None:
    """That no two volumes are one file or device."""
    seen: dict[tuple[int, int], Volume] = {}
    for name, backing in backings.items():
        info = backing.path.stat()
        identity = (info.st_dev, info.st_rdev or info.st_ino)
        if identity in seen:
            path, other = volumes[name].path, seen[identity].path
            raise VolumeError(f"{path} and {other} are one volume: name it once, and let targets share it")
        seen[identity] = volumes[name]


def _identified(volumes: Mapping[str, Volume], backings: Mapping[str, Backing], state: State) -> dict[str, Volume]:
    uuids = state.volume_uuids(
        (backing.key for name, backing in backings.items() if not volumes[name].uuid),
        new=(backing.key for backing in backings.values() if backing.created),
    )
    return {
        name: replace(
            volumes[name],
            path=str(backing.path),
            size=Size(backing.size),
            format=backing.format,
            uuid=volumes[name].uuid or str(uuids[backing.key]),
        )
        for name, backing in backings.items()
    }


def _stacks(volumes: Iterable[Volume], before: Mapping[str, Volume], state: State) -> dict[str, Volume]:
    """With their identities. What size they have is known when they are open.

    One that is served as something else, and still has something of that, stays the disk that it was.
    """
    stacks = [volume for volume in volumes if volume.stack]
    state.keep_volume_uuids(
        {
            identity_key(volume): before[volume.name].uuid
            for volume in stacks
            if volume.name in before
            and not {claim.what for claim in volume.claims}.isdisjoint(
                claim.what for claim in before[volume.name].claims
            )
        }
    )
    uuids = state.volume_uuids(identity_key(volume) for volume in stacks if not volume.uuid)
    return {volume.name: replace(volume, uuid=volume.uuid or str(uuids[identity_key(volume)])) for volume in stacks}


def _drives(drives: Mapping[str, Drive], state: State) -> dict[str, Drive]:
    """With their identities, which are kept by their names."""
    uuids = state.volume_uuids(f"drive {name}" for name, drive in drives.items() if not drive.uuid)
    return {name: replace(drive, uuid=drive.uuid or str(uuids[f"drive {name}"])) for name, drive in drives.items()}


def _relative_ports(targets: Iterable[Target], state: State) -> dict[str, dict[int, int]]:
    ports = [(target.name, tag) for target in targets for tag in target.portal_groups]
    numbers = state.relative_ports(ports)
    found: dict[str, dict[int, int]] = {}
    for name, tag in ports:
        found.setdefault(name, {})[tag] = numbers[name, tag]
    return found


def _undo(backings: Iterable[Backing]) -> None:
    for backing in backings:
        with contextlib.suppress(OSError):
            if backing.created:
                backing.path.unlink()
            elif backing.grown_from is not None:
                os.truncate(backing.path, backing.grown_from)
