"""What `blockyard serve` serves that was told by its arguments: paths, pools and options, as a configuration."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path

from blockyard.block.building import absolute
from blockyard.block.records import RecordError
from blockyard.block.size import Size, parse_size
from blockyard.block.stack import parse
from blockyard.control.configuration_file import DEFAULT_PORTAL
from blockyard.control.consistency import checked
from blockyard.control.errors import UsageError
from blockyard.control.portals import parse_portal
from blockyard.control.state import State
from blockyard.iscsi.names import validate
from blockyard.worker.configuration import (
    PORTAL_GROUP,
    Api,
    Configuration,
    Isns,
    Metrics,
    Pool,
    PortalGroup,
    Target,
    Volume,
)

DEMO_SIZE = 1 << 30  # bytes
_STACK = "stack"  # before the colon of a PATH that is a stack of layers
_DEMO = "demo.img"  # in the state directory
_NAME_LENGTH = 56  # characters of a file's name that serve as the name of a volume
_NAME_TYPES = ("iqn.", "eui.", "naa.")  # RFC 7143 §4.2.7.2


def from_arguments(options: argparse.Namespace) -> Configuration:
    """What the command line names. Raises UsageError."""
    try:
        size = Size(0 if options.size is None else parse_size(options.size))
        portals = tuple(parse_portal(text).written for text in options.portal or [DEFAULT_PORTAL])
        volumes: dict[str, Volume] = {}
        luns: dict[str, dict[int, str]] = {}
        wanted = _wanted(options.volumes, options.target) if options.volumes or not options.pool else []
        for target, path in wanted:
            stack = _stack(path)
            volume = Volume(
                name=_volume_name(stack.partition("(")[0] if stack else path or _DEMO, volumes),
                path="" if stack else path,
                stack=stack,
                format=options.format,
                size=size,
                block_size=options.block_size,
                read_only=options.read_only,
                write_through=options.write_through,
                thick=options.thick,
                removable=options.removable,
                protection=options.protection,
                background_rate=Size(0 if options.background_rate is None else parse_size(options.background_rate)),
                soft_threshold=Size(0 if options.soft_threshold is None else parse_size(options.soft_threshold)),
            )
            volumes[volume.name] = volume
            units = luns.setdefault(target, {})
            units[len(units)] = volume.name
    except ValueError as error:
        raise UsageError(str(error)) from None
    targets = {
        name: Target(
            name,
            units,
            max_connections=options.max_connections,
            error_recovery_level=options.error_recovery_level,
        )
        for name, units in luns.items()
    }
    isns = None if options.isns is None else Isns(options.isns)
    metrics = None if options.metrics is None else Metrics(options.metrics)
    api = None if options.console is None else Api("" if options.console == "off" else options.console)
    pools = _pools(options.pool, options.target or "")
    return Configuration(
        {PORTAL_GROUP: PortalGroup(portals)}, volumes, targets, isns=isns, pools=pools, metrics=metrics, api=api
    )


def _pools(directories: Iterable[str], target: str) -> dict[str, Pool]:
    """Pools that were given by their directories only, which name them."""
    pools: dict[str, Pool] = {}
    for directory in directories:
        path = os.path.abspath(directory)
        base = name = re.sub(r"[^A-Za-z0-9._-]|^[._-]+", "", os.path.basename(path))[:_NAME_LENGTH] or "pool"
        count = 1
        while name in pools:
            count += 1
            name = f"{base}-{count}"
        pools[name] = Pool(name, path, export=True, target=target)
    return pools


def with_defaults(configuration: Configuration, directory: Path) -> Configuration:
    """With the name and the demo disk that the state directory has. Raises UsageError or StateError."""
    with contextlib.closing(State(directory)) as state:
        default = state.default_target_name()
    targets = [replace(target, name=target.name or default) for target in configuration.targets.values()]
    demo = directory.absolute() / _DEMO
    volumes = {
        name: volume if volume.source else replace(volume, path=str(demo), size=_demo_size(demo, volume.size))
        for name, volume in configuration.volumes.items()
    }
    try:
        return checked(replace(configuration, volumes=volumes, targets={target.name: target for target in targets}))
    except RecordError as error:
        raise UsageError(str(error)) from None


def _stack(path: str) -> str:
    """The stack that a PATH is, with absolute paths; "" for a file or device. Raises ValueError."""
    prefix, colon, text = path.partition(":")
    return str(absolute(parse(text), names=False)) if colon and prefix == _STACK else ""


def _demo_size(path: Path, asked: Size) -> Size:
    return asked or Size(0 if path.exists() else DEMO_SIZE)


def _wanted(arguments: Iterable[str], target: str | None) -> list[tuple[str, str]]:
    """Target name ("": the default one) and path ("": the demo disk) for each argument. Raises ValueError."""
    default = "" if target is None else validate(target)
    wanted: list[tuple[str, str]] = []
    for argument in arguments:
        name, equals, path = argument.partition("=")
        named = bool(equals) and name.lower().startswith(_NAME_TYPES)
        if not (path if named else argument):
            raise ValueError(f"{argument!r}: the PATH is empty")
        wanted.append((validate(name), path) if named else (default, argument))
    return wanted or [(default, "")]


def _volume_name(path: str, taken: Collection[str]) -> str:
    """What to call a volume that was given by its path only: the file's name, with a number where that is taken."""
    base = name = re.sub(r"[\x00-\x1f\x7f]", "_", os.path.basename(os.path.abspath(path)))[:_NAME_LENGTH] or "disk"
    count = 1
    while name in taken:
        count += 1
        name = f"{base}-{count}"
    return name
