"""Volumes that are images: VHD, VHDX and QEMU's formats, whose disks are smaller or larger than the files."""

from __future__ import annotations

import os
from pathlib import Path

from blockyard.block import formats
from blockyard.block.formats import AUTO, MADE, RAW, create_image, describe, disk_size, format_of_name
from blockyard.block.size import format_size
from blockyard.control.errors import VolumeError
from blockyard.control.volumes import Backing, Wording
from blockyard.worker.configuration import Volume


def prepare_image(volume: Volume, *, served: bool, wording: Wording) -> Backing:
    """Check that an image can be exported; make it, dynamic, when it is missing and has a size. Raises VolumeError.

    `served`: it is in use already, by a worker of ours.
    """
    path = Path(volume.path)
    try:
        created = not path.exists()
        kind = _format_of_new(path, volume, wording) if created else _format_of(path, volume)
        if created:
            _check_size(path, volume, int(volume.size))
            create_image(path, kind, int(volume.size))
            return Backing(path.resolve(), str(path.resolve()), int(volume.size), created=True, format=kind)
        size = disk_size(path, kind) if served else _inspected(path, kind, volume)
    except OSError as error:
        where = error.filename or path
        raise VolumeError(f"{where}: {error.strerror or error}") from error
    _check_size(path, volume, size)
    resolved = path.resolve()
    return Backing(resolved, str(resolved), size, format=kind)


def looks_like(path: Path) -> str:
    """What a file seems to be that is served raw: a format, or "raw"."""
    try:
        return formats.looks_like(path)
    except OSError:
        return RAW


def _format_of(path: Path, volume: Volume) -> str:
    """What an image is: what the configuration says, or found out where that says auto."""
    if volume.format != AUTO:
        return volume.format
    kind = looks_like(path)
    if kind == RAW:
        raise VolumeError(
            f'{path} is no image of a format that is known: if it is the disk itself, its format is "raw"'
        )
    return kind


def _format_of_new(path: Path, volume: Volume, wording: Wording) -> str:
    if not volume.size:
        raise VolumeError(f"{path} does not exist: to create it, give its size, for example {wording.size}")
    if volume.read_only:
        raise VolumeError(f"{path} does not exist: a disk that is created empty cannot be {wording.read_only}")
    kind = format_of_name(path) if volume.format == AUTO else volume.format
    if kind == RAW:
        raise VolumeError(f"{path} does not exist: to create it, say what its format is: {', '.join(MADE[1:])}")
    if kind not in MADE:
        raise VolumeError(f"{path} does not exist: images of the format {kind} can be read, not made")
    return kind


def _inspected(path: Path, kind: str, volume: Volume) -> int:
    """The size of the disk in an image that is sound, with all that it stands on."""
    found = describe(path, kind, lock=False, backing=volume.backing)
    if not volume.read_only and kind in formats.READ_ONLY:
        raise VolumeError(f"{path}: images of the format {kind} can only be read: serve it read-only")
    if not volume.read_only and not os.access(path, os.W_OK):
        raise VolumeError(f"{path}: not permitted to write: change its owner or mode, or serve it read-only")
    if found.sector_size > volume.block_size:
        raise VolumeError(f"{path} is a disk with sectors of {found.sector_size} bytes: let its block size be that too")
    return found.size


def _check_size(path: Path, volume: Volume, size: int) -> None:
    if volume.size and volume.size != size:
        raise VolumeError(
            f"{path} holds a disk of {format_size(size)} ({size} bytes), not of {format_size(volume.size)}: leave out its "
            "size, or let it grow by `blockyard image resize` while it is not served"
        )
    if size % volume.block_size:
        raise VolumeError(f"{path} holds a disk of {size} bytes, not a multiple of the block size {volume.block_size}")
