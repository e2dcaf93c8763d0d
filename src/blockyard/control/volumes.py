"""Volumes: the files and block devices that logical units are made of."""

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from blockyard.block.file import create
from blockyard.control.errors import UsageError, VolumeError

_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40, "P": 50}  # suffix → power of two
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGTP]?)(I?B)?", re.IGNORECASE | re.ASCII)
_MAX_SIZE = (1 << 63) - 1  # off_t


@dataclass(frozen=True)
class Backing:
    """Something to export, checked: `path` is absolute, `size` is in bytes.

    `key` is what its identity is kept under: a file's canonical path; a block device's path as it was
    given, because /dev/disk/by-id/… lasts and the /dev/sdX behind it does not. `created`: the file was missing.
    """

    path: Path
    key: str
    size: int
    created: bool = False


def parse_size(text: str) -> int:
    """A size in bytes: 10G, 512M, 1.5T, 64KiB, 4096. Suffixes are powers of 1024, as in truncate and qemu-img.

    Raises UsageError for what is no size, is zero, or is not a whole number of bytes.
    """
    match = _SIZE.fullmatch(text.strip())
    hint = "a number with K, M, G or T, for example 10G"
    if match is None:
        raise UsageError(f"{text!r} is not a size: write {hint}")
    number, suffix, tail = match.groups()
    if tail and not suffix and tail.upper() == "IB":
        raise UsageError(f"{text!r} is not a size: write {hint}")
    whole, _, fraction = number.partition(".")
    shifted = int(whole + fraction) << _UNITS[suffix.upper()]
    size, rest = divmod(shifted, int("1" + "0" * len(fraction)))
    if rest:
        raise UsageError(f"{text!r} is not a whole number of bytes")
    if not 0 < size <= _MAX_SIZE:
        raise UsageError(f"{text!r} is not a size that a disk can have: write {hint}")
    return size


def format_size(size: int) -> str:
    """A size as people write it: 1073741824 → "1 GiB", 1000 → "1000 bytes"."""
    for suffix in "PTGMK":
        unit = 1 << _UNITS[suffix]
        if size >= unit:
            return f"{size / unit:.4g} {suffix}iB"
    return f"{size} bytes"


def prepare(path: Path, *, size: int | None, block_size: int, read_only: bool) -> Backing:
    """Check that `path` can be exported; create it, sparse, when it is missing and `size` is given.

    A file that exists is never resized. Raises VolumeError.
    """
    try:
        info = path.stat()
    except FileNotFoundError:
        return _create(path, size, block_size, read_only)
    except OSError as error:
        raise VolumeError(f"{path}: {error.strerror}") from error
    if stat.S_ISDIR(info.st_mode):
        raise VolumeError(f"{path} is a directory: name a file in it, for example {path / 'disk.img'} with --size 10G")
    if not (stat.S_ISREG(info.st_mode) or stat.S_ISBLK(info.st_mode)):
        raise VolumeError(f"{path} is neither a file nor a block device")
    is_device = stat.S_ISBLK(info.st_mode)
    actual = _probe(path, is_device=is_device, read_only=read_only)
    if size is not None and size != actual:
        raise VolumeError(_wrong_size(path, size, actual, is_device=is_device))
    if actual == 0 and is_device:
        raise VolumeError(f"{path} has no size: there is no medium in it, or nothing is attached to it")
    if actual == 0:
        raise VolumeError(f"{path} is empty: give it a size with `truncate -s 10G {path}`, or remove it and use --size")
    if actual % block_size:
        raise VolumeError(
            f"{path} has {actual} bytes, not a multiple of the block size {block_size}: "
            f"pad it with `truncate -s %{block_size} {path}`"
        )
    key = os.path.abspath(path) if is_device else str(path.resolve())
    return Backing(path.resolve(), key, actual)


def missing_space(backing: Backing) -> int | None:
    """The bytes that are free for a sparse file, when they are fewer than it still lacks; else None."""
    info = backing.path.stat()
    if not stat.S_ISREG(info.st_mode):
        return None
    system = os.statvfs(backing.path)
    free = system.f_bavail * system.f_frsize
    return free if free < backing.size - info.st_blocks * 512 else None  # st_blocks counts 512 bytes (stat(2))


def _create(path: Path, size: int | None, block_size: int, read_only: bool) -> Backing:
    if size is None:
        raise VolumeError(f"{path} does not exist: to create it, give its size, for example --size 10G")
    if read_only:
        raise VolumeError(f"{path} does not exist: a disk that is created empty cannot be --read-only")
    if size % block_size:
        raise VolumeError(f"{path}: the size {size} is not a multiple of the block size {block_size}")
    try:
        create(path, size)
    except OSError as error:
        raise VolumeError(_creation_error(path, size, error)) from error
    resolved = path.resolve()
    return Backing(resolved, str(resolved), size, created=True)


def _probe(path: Path, *, is_device: bool, read_only: bool) -> int:
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
        raise VolumeError(_open_error(path, error)) from error


def _open_error(path: Path, error: OSError) -> str:
    if error.errno == errno.EBUSY:
        return f"{path} is mounted, or part of a RAID or volume group, on this machine: release it, or use --read-only"
    if error.errno in (errno.EACCES, errno.EPERM):
        if os.access(path, os.R_OK):
            return f"{path}: not permitted to write: change its owner or mode, or use --read-only"
        return f"{path}: not permitted to read: change its owner or mode, or run as a user who may"
    if error.errno == errno.EROFS:
        return f"{path} lies on a read-only file system: use --read-only"
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


def _wrong_size(path: Path, size: int, actual: int, *, is_device: bool) -> str:
    if is_device:
        return f"{path} is a device of {format_size(actual)} ({actual} bytes): leave out --size"
    what = f"{path} exists and has {format_size(actual)} ({actual} bytes), not {format_size(size)}"
    if size < actual:
        return f"{what}: leave out --size; shrinking would cut off data"
    return f"{what}: leave out --size, or grow it first with `truncate -s {size} {path}`"
