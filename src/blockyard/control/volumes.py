"""Volumes: the files and block devices that logical units are made of."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from blockyard.block.file import create
from blockyard.block.size import format_size
from blockyard.control.errors import VolumeError


@dataclass(frozen=True)
class Backing:
    """Something to export, checked: `path` is absolute, `size` is in bytes.

    `key` is what its identity is kept under: a file's canonical path; a block device's path as it was
    given, because /dev/disk/by-id/… lasts and the /dev/sdX behind it does not. `created`: the file was missing.
    `grown_from`: the size that it had, if it was made larger. `size` is that of the disk, whatever the `format` of the file.
    """

    path: Path
    key: str
    size: int
    created: bool = False
    grown_from: int | None = None
    format: str = "raw"


@dataclass(frozen=True)
class Wording:
    """How whoever has asked for a volume says what he wants."""

    size: str  # an example
    leave_out: str
    read_only: str


OPTIONS = Wording("--size 10G", "leave out --size", "--read-only")
FILE = Wording('size = "10G"', "leave out `size`", "`read_only = true`")


def prepare(
    path: Path,
    *,
    size: int | None,
    block_size: int,
    read_only: bool,
    grow: bool = False,
    served: bool = False,
    wording: Wording = OPTIONS,
) -> Backing:
    """Check that `path` can be exported; create it, sparse, when it is missing and `size` is given.

    A file that exists is grown to `size` when that is wanted, and never shrunk. `served`: it is in use already, by a
    worker of ours. Raises VolumeError.
    """
    try:
        info = path.stat()
    except FileNotFoundError:
        return _create(path, size, block_size, read_only, wording)
    except OSError as error:
        raise VolumeError(f"{path}: {error.strerror}") from error
    if stat.S_ISDIR(info.st_mode):
        raise VolumeError(
            f"{path} is a directory: name a file in it, for example {path / 'disk.img'} with {wording.size}"
        )
    if not (stat.S_ISREG(info.st_mode) or stat.S_ISBLK(info.st_mode)):
        raise VolumeError(f"{path} is neither a file nor a block device")
    is_device = stat.S_ISBLK(info.st_mode)
    before = actual = _probe(path, is_device=is_device, read_only=read_only or served, wording=wording)
    if size is not None and grow and not is_device and not read_only and size > actual:
        actual = _grow(path, size)
    if size is not None and size != actual:
        raise VolumeError(_wrong_size(path, size, actual, is_device=is_device, wording=wording))
    if actual == 0 and is_device:
        raise VolumeError(f"{path} has no size: there is no medium in it, or nothing is attached to it")
    if actual == 0:
        raise VolumeError(
            f"{path} is empty: give it a size with `truncate -s 10G {path}`, or remove it and use {wording.size}"
        )
    if actual % block_size:
        raise VolumeError(
            f"{path} has {actual} bytes, not a multiple of the block size {block_size}: "
            f"pad it with `truncate -s %{block_size} {path}`"
        )
    grown_from = before if actual != before else None
    return Backing(path.resolve(), _key(path, is_device=is_device), actual, grown_from=grown_from)


def _key(path: Path, *, is_device: bool) -> str:
    return os.path.abspath(path) if is_device else str(path.resolve())


def _grow(path: Path, size: int) -> int:
    """Let a file have `size` bytes. Raises VolumeError."""
    try:
        os.truncate(path, size)
    except OSError as error:
        raise VolumeError(f"{path} cannot grow to {format_size(size)}: {error.strerror}") from error
    return size


def missing_space(backing: Backing) -> int | None:
    """The bytes that are free for a sparse file, when they are fewer than it still lacks; else None."""
    info = backing.path.stat()
    if not stat.S_ISREG(info.st_mode):
        return None
    system = os.statvfs(backing.path)
    free = system.f_bavail * system.f_frsize
    return free if free < backing.size - info.st_blocks * 512 else None  # st_blocks counts 512 bytes (stat(2))


def _create(path: Path, size: int | None, block_size: int, read_only: bool, wording: Wording) -> Backing:
    if size is None:
        raise VolumeError(f"{path} does not exist: to create it, give its size, for example {wording.size}")
    if read_only:
        raise VolumeError(f"{path} does not exist: a disk that is created empty cannot be {wording.read_only}")
    if size % block_size:
        raise VolumeError(f"{path}: the size {size} is not a multiple of the block size {block_size}")
    try:
        create(path, size)
    except OSError as error:
        raise VolumeError(_creation_error(path, size, error)) from error
    resolved = path.resolve()
    return Backing(resolved, str(resolved), size, created=True)


def _probe(path: Path, *, is_device: bool, read_only: bool, wording: Wording) -> int:
    """Open as it will be opened for serving; the size in bytes. Raises VolumeError."""
    flags = os.O_RDONLY if read_only else os.O_RDWR
    if is_device and not read_only:
        flags |= os.O_EXCL  # fails on a device that is mounted or part of another one (open(2))
    try:
        fd = os.open(path, flags | os.O_CLOEXEC)
        try:
            return os.lseek(fd, 0, os.SEEK_END)
        finally:
            os.close(fd)
    except OSError as error:
        raise VolumeError(_open_error(path, error, wording.read_only)) from error


def _open_error(path: Path, error: OSError, read_only: str) -> str:
    if error.errno == errno.EBUSY:
        return f"{path} is mounted, or part of a RAID or volume group, on this machine: release it, or use {read_only}"
    if error.errno in (errno.EACCES, errno.EPERM):
        if os.access(path, os.R_OK):
            return f"{path}: not permitted to write: change its owner or mode, or use {read_only}"
        return f"{path}: not permitted to read: change its owner or mode, or run as a user who may"
    if error.errno == errno.EROFS:
        return f"{path} lies on a read-only file system: use {read_only}"
    return f"{path}: {error.strerror}"


def _creation_error(path: Path, size: int, error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return f"{path}: the directory {path.parent} does not exist: create it first"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{path}: not permitted to create it in {path.parent} ({error.strerror})"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{path}: no space for it in {path.parent}"
    if error.errno in (errno.EFBIG, errno.EINVAL):
        return f"{path}: {format_size(size)} is more than a file there can have"
    return f"{path}: cannot create it: {error.strerror}"


def _wrong_size(path: Path, size: int, actual: int, *, is_device: bool, wording: Wording) -> str:
    if is_device:
        return f"{path} is a device of {format_size(actual)} ({actual} bytes): {wording.leave_out}"
    what = f"{path} exists and has {format_size(actual)} ({actual} bytes), not {format_size(size)}"
    if size < actual:
        return f"{what}: {wording.leave_out}; shrinking would cut off data"
    return f"{what}: {wording.leave_out}, or grow it first with `truncate -s {size} {path}`"
