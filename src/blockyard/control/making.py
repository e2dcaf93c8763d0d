"""Layers are made: what keeps marks on what it stands on (arrays, caches, encrypted and compressed disks) gets them.

It is done in this process, in a thread, so that no worker waits for it; only what stands on volumes of pools is made by the
worker that has those open. Files that are missing are made with the size that is asked for, and are gone again when it fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blockyard.block import building
from blockyard.block.building import Layer
from blockyard.block.file import create as create_file
from blockyard.block.file import sync_directory
from blockyard.block.layers import Opening
from blockyard.block.size import MAX_VOLUME, Size
from blockyard.block.stack import Call, StackError, Word, parse
from blockyard.control.allowed import check_layer, check_not_own, check_paths, files_of
from blockyard.control.errors import ControlError, UsageError
from blockyard.control.stacks import check_claims, on_stack
from blockyard.pool.names import check_volume_name
from blockyard.worker.configuration import Volume

if TYPE_CHECKING:
    from blockyard.control.administration import Request
    from blockyard.control.server import Server

_KEYS = "keys"  # in the state directory: passphrases that somebody has typed, for opening the disks again


async def create(server: Server, request: Request) -> dict[str, str]:
    """Make the layer at the top of `stack`, with files of `size` where there are none yet; what there is to say, and the stack
    that opens it. `passphrase` is for encrypted disks: the server keeps it, under `name` if there is one."""
    size = _size(request.get("size"))
    with _key(server, request) as text:
        layer = _understood(server, text)
        check_layer(server.configuration, layer)
        check_not_own(server.options.state, files_of(layer))
        await asyncio.to_thread(_check_free, server, layer)
        with missing_files(files_of(layer), size):
            said = await _make(server, layer)
        return {"said": said, "stack": str(opening(text, layer))}


def opening(text: str, layer: Layer) -> Call:
    """The stack that opens what was made, as whoever wrote it has called its parts: with the options that are for that, too."""
    call = building.absolute(parse(text), names=True)
    assert isinstance(call, Call)
    known = {field.name for field in fields(layer.kind.options)}
    return replace(call, options=tuple((name, value) for name, value in call.options if name in known))


def _understood(server: Server, text: str) -> Layer:
    try:
        return building.creation(text, server.configuration.declared)
    except StackError as error:
        raise UsageError(str(error)) from None


async def _make(server: Server, layer: Layer) -> str:
    pools = {
        claim.what.partition(":")[2].partition("/")[0] for claim in layer.claims() if claim.what.startswith("pool:")
    }
    if pools:
        return await _made_by_worker(server, layer, pools)
    try:
        return await asyncio.to_thread(building.make, layer, Opening())
    except StackError as error:
        raise UsageError(str(error)) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise ControlError(f"{where}{error.strerror or error}") from None


async def _made_by_worker(server: Server, layer: Layer, pools: set[str]) -> str:
    having = [worker for worker in server.supervisor.workers if pools & worker.configuration.pools.keys()]
    if len(having) > 1:
        raise UsageError(
            f"the pools {', '.join(sorted(pools))} are served by {len(having)} processes: make it of one of them"
        )
    reply = await server.supervisor.ask_pool(min(pools), {"name": "make layer", "stack": str(layer.written)})
    return str(reply["said"])


def _check_free(server: Server, layer: Layer) -> None:
    """That nobody has what it is to be made of. Raises ControlError."""
    volume = Volume("what is to be made")
    wanted = {f"{volume.name} {at}": on_stack(volume, str(child.written)) for at, child in enumerate(layer.children)}
    check_claims({**server.settled.volumes, **wanted})


def _size(given: object) -> int | None:
    try:
        size = None if given in (None, "", 0) else int(Size.read(given))
    except ValueError as error:
        raise UsageError(f"size: {error}") from None
    if size is not None and not 512 <= size <= MAX_VOLUME:
        raise UsageError(f"size: from 512 bytes to {MAX_VOLUME}")
    return size


@contextlib.contextmanager
def missing_files(paths: list[str], size: int | None) -> Iterator[None]:
    """Files that are missing are there inside; they stay when it ends well."""
    made: list[str] = []
    try:
        for path in paths:
            if not os.path.lexists(path):
                if size is None:
                    raise UsageError(f"{path} does not exist: say the size of files that are to be made")
                create_file(path, size)
                made.append(path)
        yield
    except BaseException as error:
        for path in made:
            os.unlink(path)
        if isinstance(error, OSError):
            raise ControlError(f"{error.filename or ''}: {error.strerror}") from None
        raise


@contextlib.contextmanager
def _key(server: Server, request: Request) -> Iterator[str]:
    """The stack to be made; a passphrase is a file that it names, which stays when it ends well."""
    text, passphrase = request.get("stack"), request.get("passphrase")
    if not isinstance(text, str):
        raise UsageError("the request has no stack")
    if passphrase is None:
        yield text
        return
    path = _key_file(server, request)
    call = _with_key(text, path)
    if not isinstance(passphrase, str) or not passphrase:
        raise UsageError("a passphrase is text")
    path.parent.mkdir(mode=0o700, exist_ok=True)
    sync_directory(path.parent.parent)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(passphrase.encode())
            file.flush()
            os.fsync(file.fileno())
        sync_directory(path.parent)  # nothing is encrypted by a key that a loss of power could take
        yield str(call)
    except BaseException:
        path.unlink()
        raise


def _key_file(server: Server, request: Request) -> Path:
    name = request.get("name") or secrets.token_hex(8)
    try:
        check_volume_name(str(name))
    except ValueError as error:
        raise UsageError(f"name: {error}") from None
    path = server.options.state.absolute() / _KEYS / f"{name}.key"
    if path.exists():
        raise UsageError(f"there is a key {name} already: take another name")
    return path


def _with_key(text: str, path: Path) -> Call:
    try:
        call = parse(text)
    except StackError as error:
        raise UsageError(str(error)) from None
    if not isinstance(call, Call) or call.name != "luks":
        raise UsageError("a passphrase is for encrypted disks: luks(…)")
    return Call(call.name, call.arguments, (*call.options, ("key_file", Word(str(path), True))))


def check_devices(server: Server, options: dict[str, Any]) -> None:
    """That what an action of a layer takes in may be used. Raises UsageError."""
    for name in ("device", "devices", "by"):
        given = options.get(name, ())
        for text in (given,) if isinstance(given, str) else given:
            if isinstance(text, str) and text.startswith("/"):
                check_paths(server.configuration, [text])
            elif isinstance(text, str) and text:
                with contextlib.suppress(StackError):  # the layer says what is wrong with it
                    check_layer(server.configuration, building.understood(text, server.configuration.declared))
