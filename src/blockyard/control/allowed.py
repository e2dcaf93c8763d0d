"""Where volumes, pools and layers may lie: `api.paths`, for whoever wants to keep hands off the other disks of a machine.

It holds for the whole configuration, whoever changes it, and for what commands make or take in; a path with symbolic links in it
counts as what it leads to. Without a word of it, everything may be used.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from blockyard.block.building import Layer
from blockyard.block.records import RecordError, join, key
from blockyard.control.errors import UsageError, VolumeError
from blockyard.control.stacks import expanded
from blockyard.worker.configuration import Configuration

if TYPE_CHECKING:
    from blockyard.control.server import Server

# In the state directory; the databases with what SQLite has beside them
_OWN = ("state.db", "history.db", "secrets.key", "api.key", "api.crt", "api.sock", "control.lock", "control.sock")
_OWN_DIRECTORIES = ("keys", "units", "workers", "acme")


def check_places(configuration: Configuration) -> None:
    """That all that is configured lies where it may. Raises RecordError. Relative paths are those of whoever wrote the file."""
    if configuration.api is None or not configuration.api.paths:
        return
    for at, path in _places(configuration):
        if os.path.isabs(path) and not is_allowed(configuration, path):
            raise RecordError(at, _refusal(configuration, path))


def _places(configuration: Configuration) -> Iterator[tuple[str, str]]:
    for name, volume in {**configuration.volumes, **expanded(configuration)}.items():
        for claim in volume.claims:
            kind, _, path = claim.what.partition(":")
            if kind == "file":
                yield join("volumes", key(name)), path
    for name, pool in configuration.pools.items():
        yield join("pools", key(name), "directory"), pool.directory
    for name, library in configuration.libraries.items():
        yield join("libraries", key(name), "directory"), library.directory
    for name, drive in configuration.drives.items():
        for path in filter(None, (drive.image, drive.jukebox)):
            yield join("drives", key(name)), path


def check_paths(server: Server, paths: Iterable[str]) -> None:
    """That what somebody names to be read or written may be. Raises UsageError, VolumeError for what is the server's own."""
    for path in paths:
        if not path or "\0" in path:
            raise UsageError("a path has one character at least, and no NUL")
        if not is_allowed(server.configuration, path):
            raise UsageError(_refusal(server.configuration, path))
        check_not_own(server.options.state, [path])


def check_layer(server: Server, layer: Layer) -> None:
    """That a stack stands only on what it may. Raises UsageError, VolumeError."""
    check_paths(server, files_of(layer))


def files_of(layer: Layer) -> list[str]:
    """The files and devices that a stack stands on."""
    return [claim.what.removeprefix("file:") for claim in layer.claims() if claim.what.startswith("file:")]


def is_allowed(configuration: Configuration, path: str) -> bool:
    wanted = () if configuration.api is None else configuration.api.paths
    real = os.path.realpath(path)
    return not wanted or any(os.path.commonpath([place, real]) == place for place in map(os.path.realpath, wanted))


def check_not_own(state: Path, paths: Iterable[str]) -> None:
    """Raises VolumeError for a file that the server keeps things of its own in: whoever writes to it would make it useless."""
    for path in paths:
        if is_own(state, path):
            raise VolumeError(f"{path} is the server's own: name another file")


def is_own(state: Path, path: str) -> bool:
    """Whether the server keeps things of its own there, wherever links lead."""
    try:
        below = Path(os.path.realpath(path)).relative_to(os.path.realpath(state)).parts
    except ValueError:  # it is elsewhere
        return False
    return bool(below) and (below[0] in _OWN_DIRECTORIES or below[0].startswith(_OWN))


def _refusal(configuration: Configuration, path: str) -> str:
    assert configuration.api is not None
    return f"{path} may not be used here: api.paths allows {', '.join(configuration.api.paths)}"
