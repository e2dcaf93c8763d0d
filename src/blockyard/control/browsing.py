"""What lies in a directory of the machine that serves, for whoever looks for a path: names and what they are, never contents.

Files are opened for a moment, to see of which format they are. Not so what this process has open itself or may open: a file
that is closed takes the locks of the whole process with it (fcntl_locking(2)), those of SQLite and LMDB, too.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from blockyard.block.formats import RAW, format_of
from blockyard.control.allowed import is_allowed, is_own
from blockyard.control.devices import BlockDevice, block_devices
from blockyard.control.uses import Uses
from blockyard.worker.configuration import Configuration, Settled

ISO = "iso"
_SECTOR = 512
_DESCRIPTOR, _STANDARD = 32769, b"CD001"  # of a disc (ECMA-119 §8.1)
_NOWHERE = ("/proc", "/sys")  # no disk can be there
_LONGEST = 4096  # bytes of a path: PATH_MAX
_PLACES = 8


class Kind(StrEnum):
    DIRECTORY = "directory"
    FILE = "file"
    DEVICE = "device"  # a block device
    OTHER = "other"  # which nothing can be made of


@dataclass(frozen=True)
class Entry:
    """Something in a directory."""

    name: str  # what is not UTF-8 of it is replaced
    path: str | None  # None: it cannot be named
    kind: Kind
    link: bool = False
    size: int | None = None  # bytes of a file or device
    modified: float | None = None  # seconds since 1970
    format: str = ""  # of a file, by what it begins and ends with
    model: str = ""  # of a device
    used: str = ""  # by whom
    holds: str = ""  # what somebody has left on a device
    problem: str = ""  # why it cannot be used


@dataclass(frozen=True)
class Directory:
    """A part of what is in it."""

    path: str
    parent: str | None  # None: there is none that may be looked at
    writable: bool
    size: int  # of its file system, in bytes
    free: int  # of that, for this server
    entries: list[Entry]
    more: bool  # there are others that fit


@dataclass(frozen=True)
class Rules:
    """What may be looked at, and what there is to know of it."""

    configuration: Configuration
    settled: Settled
    state: Path

    def refusal(self, path: str) -> str:
        """Why nobody may use a path; "": he may."""
        real = os.path.realpath(path)
        if is_own(self.state, real):
            return "it is the server's own"
        # Nor by way of there: a link of /proc, such as root of a process, leads elsewhere than what it reads as
        if any(each == place or each.startswith(f"{place}/") for place in _NOWHERE for each in (path, real)):
            return "no disk can be there"
        if not is_allowed(self.configuration, real):
            return "api.paths does not have it"
        return ""

    def places(self) -> list[str]:
        """Directories to begin at: those that are allowed, else where things are already, and the usual ones."""
        api = self.configuration.api
        if api is not None and api.paths:
            return [each for each in api.paths if os.path.isdir(each)]
        files = [os.path.dirname(volume.path) for volume in self.settled.volumes.values() if volume.path]
        made = [os.path.dirname(each.directory) for each in self.settled.pools.values()]
        made += [drive.jukebox for drive in self.settled.drives.values() if drive.jukebox]
        usual = ["/srv", os.fspath(self.state.absolute()), "/mnt", "/"]
        found = [each for each in dict.fromkeys(files + made) if each.startswith("/") and not each.startswith("/dev")]
        return [each for each in dict.fromkeys(found[: _PLACES - len(usual)] + usual) if os.path.isdir(each)]


def look(directory: str, rules: Rules, *, prefix: str = "", limit: int = 200, hidden: bool = False) -> Directory:
    """What is in a directory: those whose names begin with `prefix`, in whichever letters; directories first.

    Raises OSError: EACCES for what nobody may look at here, too.
    """
    directory = os.path.normpath(directory)
    if directory.startswith("//"):  # which POSIX leaves as it is
        directory = directory[1:]
    refusal = rules.refusal(directory)
    if refusal:
        raise PermissionError(errno.EACCES, refusal, directory)
    looking = _Looking(directory, rules)
    wanted = prefix.casefold()
    with os.scandir(directory) as found:
        fitting = (each for each in found if _fits(each.name, wanted, hidden) and looking.may_show(each))
        first = heapq.nsmallest(limit + 1, fitting, key=_order)
    space = os.statvfs(directory)
    parent = os.path.dirname(directory)
    return Directory(
        directory,
        None if parent == directory or rules.refusal(parent) else parent,
        os.access(directory, os.W_OK | os.X_OK),
        space.f_blocks * space.f_frsize,
        space.f_bavail * space.f_frsize,
        [entry for each in first[:limit] for entry in looking.at(each)],
        len(first) > limit,
    )


def _fits(name: str, prefix: str, hidden: bool) -> bool:
    return (hidden or prefix.startswith(".") or not name.startswith(".")) and name.casefold().startswith(prefix)


def _order(entry: os.DirEntry[str]) -> tuple[int, str, str]:
    with contextlib.suppress(OSError):
        if entry.is_dir():
            return 0, entry.name.casefold(), entry.name
    return 1, entry.name.casefold(), entry.name


class _Looking:
    """At the entries of one directory."""

    def __init__(self, directory: str, rules: Rules) -> None:
        self._directory = os.path.realpath(directory)
        self._rules = rules
        self._uses = Uses(rules.settled)
        self._has_own = self._directory == os.path.realpath(rules.state)
        self._open = frozenset(_open_here())
        self._devices: dict[int, BlockDevice] | None = None

    def may_show(self, entry: os.DirEntry[str]) -> bool:
        """Not what the server keeps for itself."""
        return not (self._has_own and is_own(self._rules.state, os.path.join(self._directory, entry.name)))

    def at(self, entry: os.DirEntry[str]) -> Iterator[Entry]:
        """What is there; nothing, if it has just gone."""
        link = entry.is_symlink()
        try:
            status = entry.stat()
        except FileNotFoundError:
            if link:
                yield self._unusable(entry, "it leads to nothing", link=True)
            return
        except OSError as error:
            yield self._unusable(entry, error.strerror or str(error), link=link)
            return
        path, problem = _named(entry)
        real = os.path.realpath(entry.path) if link else os.path.join(self._directory, entry.name)
        if link and not problem:
            problem = self._rules.refusal(real)
        kind = _kind(status.st_mode)
        name = entry.name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        used = self._uses.of(real, status)
        common = (name, path, kind, link)
        if kind is Kind.DEVICE:
            yield self._device(common, status, used, problem)
        elif kind is Kind.FILE:
            format = "" if problem or self._uses.of_directory(real) else self._format(entry.path, status)
            yield Entry(*common, status.st_size, status.st_mtime, format, used=used, problem=problem)
        elif kind is Kind.DIRECTORY:
            if not problem and not os.access(entry.path, os.R_OK | os.X_OK):
                problem = os.strerror(errno.EACCES)
            yield Entry(*common, modified=status.st_mtime, used=used, problem=problem)
        else:
            yield Entry(*common, problem=problem or "it is neither a file nor a block device")

    def _unusable(self, entry: os.DirEntry[str], why: str, *, link: bool) -> Entry:
        path, problem = _named(entry)
        name = entry.name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        return Entry(name, path, Kind.OTHER, link, problem=problem or why)

    def _device(
        self, common: tuple[str, str | None, Kind, bool], status: os.stat_result, used: str, problem: str
    ) -> Entry:
        if self._devices is None:
            self._devices = {os.makedev(*each.number): each for each in block_devices()}
        found = self._devices.get(status.st_rdev)
        if found is None:
            return Entry(*common, used=used, problem=problem or "it is no disk, or has no medium")
        return Entry(
            *common, found.size, model=found.model, used=used or found.used, holds=found.holds,
            problem=problem or ("it can only be read" if found.read_only else ""),
        )  # fmt: skip

    def _format(self, path: str, status: os.stat_result) -> str:
        if status.st_size < _SECTOR or (status.st_dev, status.st_ino) in self._open:
            return ""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        except OSError:
            return ""
        try:
            now = os.fstat(fd)
            if not stat.S_ISREG(now.st_mode) or (now.st_dev, now.st_ino) in self._open:
                return ""
            first, last = os.pread(fd, _SECTOR, 0), os.pread(fd, _SECTOR, (now.st_size & ~511) - _SECTOR)
            found = format_of(first, last)
            is_disc = found == RAW and os.pread(fd, len(_STANDARD), _DESCRIPTOR) == _STANDARD
            return ISO if is_disc else found
        except OSError:
            return ""
        finally:
            os.close(fd)


def _open_here() -> Iterator[tuple[int, int]]:
    """The files that this process has open, by device and inode."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            status = os.fstat(int(name))
            yield status.st_dev, status.st_ino


def _kind(mode: int) -> Kind:
    if stat.S_ISDIR(mode):
        return Kind.DIRECTORY
    if stat.S_ISREG(mode):
        return Kind.FILE
    return Kind.DEVICE if stat.S_ISBLK(mode) else Kind.OTHER


def _named(entry: os.DirEntry[str]) -> tuple[str | None, str]:
    """The path of an entry, or why it can be named nowhere."""
    try:
        length = len(entry.path.encode())
    except UnicodeEncodeError:
        return None, "its name is not UTF-8: rename it to use it here"
    if not entry.name.isprintable():
        return None, "its name has characters that cannot be typed: rename it to use it here"
    return (entry.path, "") if length < _LONGEST else (None, "its path is too long")
