"""What control knows of pools: which volumes there are, and the targets that are made of those that are exported.

A worker has a pool open; control reads its catalog beside it.
"""

from __future__ import annotations

import difflib
import logging
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from blockyard.block.file import FileDevice
from blockyard.block.size import Size
from blockyard.control.errors import UsageError, VolumeError
from blockyard.control.state import State
from blockyard.pool import catalog
from blockyard.pool.catalog import Catalog
from blockyard.pool.members import erase, prepare
from blockyard.pool.pool import Pool as OpenPool
from blockyard.pool.pool import create as create_pool
from blockyard.worker.configuration import Configuration, Pool, Target, Volume

log = logging.getLogger(__name__)


def create(directory: Path, members: Sequence[str], size: int, *, force: bool = False) -> None:
    """Make a pool in a directory that is empty or missing (see members.prepare). Raises UsageError; then no file was made."""
    made: list[Path] = []
    paths: list[str] = []
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise UsageError(f"{directory} is not empty: name a directory that is, or that is to be made")
        for number, each in enumerate(members or [str(directory)]):
            there = Path(each).is_file() or Path(each).is_block_device()
            path = prepare(each, size, number=number, force=force)
            made += [] if there else [Path(path)]
            paths.append(path)
        create_pool(directory, paths)
    except BaseException as error:
        for file in made:
            file.unlink()
        if isinstance(error, OSError):
            raise UsageError(f"{error.filename or directory}: {error.strerror}") from error
        raise


def destroy(directory: Path) -> list[str]:
    """Do away with a pool that nobody has open: its directory and all in it. Members elsewhere stay, and are free for others.

    The paths of those. Raises UsageError.
    """
    try:
        with OpenPool(directory, FileDevice) as pool:
            members = [directory / member.path for member in pool.members.values()]
        elsewhere = [path for path in members if path.parent != directory]
        for path in elsewhere:
            device = FileDevice(path)
            try:
                erase(device)
            finally:
                device.close()
        shutil.rmtree(directory)
    except OSError as error:
        raise UsageError(f"{error.filename or directory}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{directory}: it cannot be opened ({error}): remove it and its members yourself") from error
    return list(map(str, elsewhere))


def read_catalogs(pools: Mapping[str, Pool]) -> dict[str, Catalog]:
    """The catalogs of pools by their names. Raises VolumeError."""
    found: dict[str, Catalog] = {}
    seen: dict[tuple[int, int], Pool] = {}
    for name, pool in pools.items():
        found[name] = _read(pool)
        info = Path(pool.directory).stat()
        other = seen.setdefault((info.st_dev, info.st_ino), pool)
        if other is not pool:
            raise VolumeError(f"{pool.directory} is the pool {other.name} and the pool {name}: name it once")
    return found


def _read(pool: Pool) -> Catalog:
    try:
        return catalog.read(Path(pool.directory))
    except FileNotFoundError:
        raise VolumeError(
            f"{pool.directory}: there is no pool: make one with `blockyard pool create {pool.directory}`"
        ) from None
    except OSError as error:
        raise VolumeError(f"{pool.directory}: the pool cannot be read: {error.strerror}") from error
    except (LookupError, TypeError, ValueError) as error:
        raise VolumeError(f"{pool.directory}: the catalog of this pool is damaged: {error!r}") from error


def described(configuration: Configuration, catalogs: Mapping[str, Catalog]) -> dict[str, Volume]:
    """The volumes that are in pools, with the sizes and identities that they have there. Raises VolumeError."""
    return {
        name: _described(volume, catalogs[volume.pool]) for name, volume in configuration.volumes.items() if volume.pool
    }


def _described(volume: Volume, found: Catalog) -> Volume:
    there = found.volumes.get(volume.in_pool)
    if there is None:
        create = f"`blockyard volume create {volume.pool}/{volume.in_pool} SIZE`"
        raise VolumeError(
            f"there is no volume {volume.in_pool!r} in the pool {volume.pool}{_close(volume.in_pool, found.volumes, create)}"
        )
    size, uuid, read_only = there.size, there.uuid, volume.read_only
    if volume.snapshot:
        snapshots = found.snapshots.get(volume.in_pool, {})
        snapshot = snapshots.get(volume.snapshot)
        if snapshot is None:
            create = f"`blockyard snapshot create {volume.source}`"
            of = f"{volume.pool}/{volume.in_pool}"
            raise VolumeError(
                f"there is no snapshot {volume.snapshot!r} of {of}{_close(volume.snapshot, snapshots, create)}"
            )
        size, uuid, read_only = snapshot.size, str(snapshot.identity(there.uuid)), True
    if size % volume.block_size:
        raise VolumeError(f"{volume.source} has {size} bytes, not a multiple of the block size {volume.block_size}")
    return replace(volume, size=Size(size), uuid=volume.uuid or uuid, read_only=read_only)


def _close(name: str, there: Collection[str], create: str) -> str:
    close = difflib.get_close_matches(name, there, 1, 0.5)
    return f"; did you mean {close[0]!r}, or is it to be made with {create}?" if close else f": make it with {create}"


def exported(
    configuration: Configuration, catalogs: Mapping[str, Catalog], state: State, withheld: Collection[str] = ()
) -> Configuration:
    """The configuration together with a target for each volume of pools that are exported. Raises StateError."""
    volumes, targets = dict(configuration.volumes), dict(configuration.targets)
    known = {volume.source: name for name, volume in volumes.items() if volume.pool}
    layers = {claim.what for volume in volumes.values() if volume.stack for claim in volume.claims}
    for pool in configuration.pools.values():
        if not pool.export:
            continue
        base = pool.target or state.default_target_name()
        for name in sorted(catalogs[pool.name].volumes):
            volume = Volume(f"{pool.name}/{name}", pool=pool.name, volume=name)
            target = Target(
                f"{base}:{_label(name)}",
                {0: known.get(volume.source, volume.name)},
                portal_groups=tuple(configuration.portal_groups),
                access=pool.access,
            )
            if volume.source in withheld or f"pool:{volume.source}" in layers:
                continue
            if target.name in targets:
                log.error("%s is not exported: the name %s is another target's already", volume.source, target.name)
                continue
            targets[target.name] = target
            if volume.source not in known:
                volumes[volume.name] = volume
    return replace(configuration, volumes=volumes, targets=targets)


def _label(name: str) -> str:
    """What the name of a volume becomes in that of its target (RFC 7143 §4.2.7.1, RFC 3722)."""
    return re.sub(r"[^a-z0-9.-]", "-", name.lower())
