"""Stacks of layers in a configuration: checked as far as that can be without opening anything.

What is where is only known when files are looked at; so that no two volumes have one is checked twice, first by what is written.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from blockyard.block.building import Claim, Layer, absolute, check_apart, understood
from blockyard.block.formats import RAW
from blockyard.block.records import RecordError, join, key
from blockyard.block.stack import Call, StackError, Written, parse
from blockyard.control.errors import VolumeError
from blockyard.worker.configuration import Configuration, Volume
from blockyard.worker.declared import DeclaredLayer


def check_stack_volume(at: str, volume: Volume) -> None:
    """That a volume with a stack says nothing that the stack says already. Raises RecordError."""
    for option, default, why in (
        ("path", "", "a volume has a path or a stack, not both"),
        ("pool", "", "a volume of a pool is a layer of a stack: write pool(POOL/VOLUME) in it"),
        ("volume", "", "a volume of a pool is a layer of a stack: write pool(POOL/VOLUME) in it"),
        ("snapshot", "", "a snapshot is a layer of a stack: write pool(POOL/VOLUME@SNAPSHOT) in it"),
        ("format", RAW, "images are layers of a stack: write vhd(PATH) or vhdx(PATH) in it"),
        ("size", 0, "a stack has the size that its layers give it: leave this out"),
        ("protection", 0, "a stack has none: there is nothing that protection information could be kept beside"),
    ):
        if getattr(volume, option) != default:
            raise RecordError(join(at, option), why)


def check_stacks(configuration: Configuration) -> None:
    """Layers that are declared, and the stacks of volumes. Raises RecordError."""
    for name, stack in configuration.declared.items():
        _understood(join("layers", key(name)), stack, configuration)
    claims: list[Claim] = []
    for name, volume in configuration.volumes.items():
        if volume.stack:
            at = join("volumes", key(name), "stack")
            layer = _understood(at, volume.stack, configuration)
            _check_pools(at, layer, configuration)
            claims += layer.claims()
            try:
                check_apart(claims)
            except StackError as error:
                raise RecordError(at, str(error)) from None


def _understood(at: str, stack: Written | str, configuration: Configuration) -> Layer:
    try:
        return understood(stack, configuration.declared)
    except StackError as error:
        raise RecordError(at, str(error)) from None


def _check_pools(at: str, layer: Layer, configuration: Configuration) -> None:
    for claim in layer.claims():
        kind, _, what = claim.what.partition(":")
        if kind == "pool" and what.partition("/")[0] not in configuration.pools:
            raise RecordError(at, f"there is no pool {what.partition('/')[0]!r}: add it to [pools]")


def with_absolute_paths(configuration: Configuration, directory: Path) -> Configuration:
    """A configuration that is known to make sense, with the paths in its stacks made absolute."""
    layers = {
        name: DeclaredLayer(name, _absolute_call(layer.written, directory))
        for name, layer in configuration.layers.items()
    }
    volumes = {
        name: replace(volume, stack=str(absolute(parse(volume.stack), str(directory), names=True)))
        if volume.stack
        else volume
        for name, volume in configuration.volumes.items()
    }
    return replace(configuration, layers=layers, volumes=volumes)


def _absolute_call(call: Call, directory: Path) -> Call:
    made = absolute(call, str(directory), names=True)
    assert isinstance(made, Call)
    return made


def expanded(configuration: Configuration) -> dict[str, Volume]:
    """The volumes that are stacks, with what they say in place of names."""
    declared = configuration.declared
    return {
        name: replace(volume, stack=str(understood(volume.stack, declared).written))
        for name, volume in configuration.volumes.items()
        if volume.stack
    }


def on_stack(volume: Volume, stack: str) -> Volume:
    """A volume as it is when it stands on that, whatever it stood on before."""
    return replace(
        volume, path="", pool="", volume="", snapshot="", format=RAW, backing="", size=Volume.size, stack=stack
    )


def identity_key(volume: Volume) -> str:
    """What the identity of a volume that is a stack is kept under.

    Above a single file it is that file's, so that layers can be put on it and taken off; else it is the volume's name.
    """
    kinds = [claim.what.partition(":")[::2] for claim in volume.claims]
    if len(kinds) == 1 and kinds[0][0] == "file" and not volume.claims[0].parts:
        path = kinds[0][1]
        return os.path.abspath(path) if Path(path).is_block_device() else str(Path(path).resolve())
    return f"volume {volume.name}"


def check_claims(volumes: Iterable[Volume]) -> None:
    """That no file, device or volume of a pool is in two volumes, whatever it is called. Raises VolumeError."""
    known: dict[tuple[int, int], str] = {}
    try:
        check_apart(claim for volume in volumes for claim in _identified(volume, known))
    except StackError as error:
        raise VolumeError(str(error)) from None


def _identified(volume: Volume, known: dict[tuple[int, int], str]) -> Iterator[Claim]:
    """What a volume claims, files by the names under which they have come first."""
    for claim in volume.claims:
        kind, _, path = claim.what.partition(":")
        if kind == "file":
            try:
                info = os.stat(path)
            except OSError:  # it is missed when it is opened, if it must be there
                yield claim
                continue
            yield claim._replace(what=known.setdefault((info.st_dev, info.st_rdev or info.st_ino), claim.what))
        else:
            yield claim
