"""The configuration file: TOML (https://toml.io) in the shape of worker.configuration.Configuration.

Nothing in it is passed over: an unknown key or a wrong type is an error, told with the file, the key path and what to do.
docs/configuration.md is its reference.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from blockyard.block import records
from blockyard.block.records import RecordError, join, key
from blockyard.block.size import Size
from blockyard.control.consistency import checked
from blockyard.control.errors import ConfigurationError
from blockyard.control.stacks import with_absolute_paths
from blockyard.worker.configuration import PORTAL_GROUP, Configuration, PortalGroup

DEFAULT_PORTAL = "127.0.0.1:3260"  # one only: with [::1] beside it an initiator would find each disk on two paths


def load(path: Path, *, portals: tuple[str, ...] = ()) -> Configuration:
    """What a file says, checked; relative paths are made absolute from the file's directory.

    `portals` make the portal group 1 of a file that has no portal groups. Raises ConfigurationError.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: byte {error.start} is not UTF-8, which TOML is written in") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} is not TOML: {error}") from None
    try:
        return _make(data, path.absolute().parent, portals)
    except RecordError as error:
        raise ConfigurationError(f"{path}: {error}") from None


def _make(data: dict[str, Any], directory: Path, portals: tuple[str, ...]) -> Configuration:
    configuration = records.read(Configuration, data)
    if not configuration.portal_groups:
        groups = {PORTAL_GROUP: PortalGroup(portals or (DEFAULT_PORTAL,))}
        configuration = replace(configuration, portal_groups=groups)
    elif portals:
        raise RecordError("portal_groups", "the portals stand here: leave out --portal")
    configuration = checked(configuration)
    volumes = {
        name: replace(volume, path=volume.path and os.path.abspath(directory / volume.path))
        for name, volume in configuration.volumes.items()
    }
    pools = {
        name: replace(pool, directory=os.path.abspath(directory / pool.directory))
        for name, pool in configuration.pools.items()
    }
    libraries = {
        name: replace(library, directory=os.path.abspath(directory / library.directory))
        for name, library in configuration.libraries.items()
    }
    drives = {
        name: replace(
            drive,
            image=drive.image and os.path.abspath(directory / drive.image),
            jukebox=drive.jukebox and os.path.abspath(directory / drive.jukebox),
        )
        for name, drive in configuration.drives.items()
    }
    api = configuration.api and replace(
        configuration.api,
        certificate=configuration.api.certificate and os.path.abspath(directory / configuration.api.certificate),
        key=configuration.api.key and os.path.abspath(directory / configuration.api.key),
    )
    configuration = replace(configuration, pools=pools, volumes=volumes, libraries=libraries, drives=drives, api=api)
    return with_absolute_paths(configuration, directory)


def dump(configuration: Configuration) -> str:
    """The configuration as a file that `load` takes."""
    return "\n".join(_table(records.write(configuration), "")).strip() + "\n"


def _table(table: dict[str, Any], path: str) -> Iterator[str]:
    """The lines of a table: first its plain values, then the tables in it."""
    tables = {name: value for name, value in table.items() if isinstance(value, dict)}
    lists = {name: value for name, value in table.items() if _is_list_of_tables(value)}
    for name, value in table.items():
        if name not in tables and name not in lists:
            yield f"{key(name)} = {value_text(value)}"
    for name, value in tables.items():
        inner = join(path, key(name))
        if not value or not all(isinstance(one, dict) for one in value.values()):  # else its parts say where they are
            yield from ("", f"[{inner}]")
        yield from _table(value, inner)
    for name, values in lists.items():
        for value in values:
            yield from ("", f"[[{join(path, key(name))}]]")
            yield from _table(value, join(path, key(name)))


def _is_list_of_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def value_text(value: object) -> str:
    """A plain value as TOML writes it."""
    if isinstance(value, Size):
        text = str(value)
        return text if text.isdecimal() else f'"{text}"'
    if isinstance(value, list):
        return f"[{', '.join(map(value_text, value))}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # a JSON text or number is a TOML one
