"""Layers are made: what keeps marks on what it stands on (arrays, caches, encrypted and compressed disks) gets them.

It is a job of this process, in a thread of its own, so that no worker waits for it; only what stands on volumes of pools is made
by the worker that has those open, as a job that the one here follows. Whoever asks gets the result when it is there within a
moment, else the job. Files that are missing are made with the size that is asked for, and are gone again, as is the key, when it
fails or is stopped. A layer that was not made whole has no mark that it could be opened by.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from blockyard.block import building
from blockyard.block.building import Layer
from blockyard.block.file import create as create_file
from blockyard.block.file import sync_directory
from blockyard.block.layers import Opening
from blockyard.block.records import RecordError
from blockyard.block.size import MAX_VOLUME, Size
from blockyard.block.stack import Call, StackError, Word, listed, parse
from blockyard.control.allowed import check_layer, check_paths, files_of
from blockyard.control.consistency import checked
from blockyard.control.errors import ControlError, UsageError
from blockyard.control.stacks import check_claims, on_stack
from blockyard.pool.names import check_volume_name
from blockyard.worker.configuration import Configuration, Volume
from blockyard.worker.declared import DeclaredLayer
from blockyard.worker.jobs import Cancelled, Job, Jobs

if TYPE_CHECKING:
    from blockyard.control.administration import Request
    from blockyard.control.server import Server

_T = TypeVar("_T")
_OnLoop = Callable[[Coroutine[Any, Any, dict[str, Any]]], dict[str, Any]]
CONTROL = "control"  # for the number of a worker, in the names of jobs that this process does itself
QUICK, PATIENT = 2.0, 60.0  # seconds that whoever asks is kept waiting for a result, and at most
_SOON, _LOOK = 0.01, 0.1  # seconds between two looks whether something is done: at first, and at last
_ENDING = 10.0  # seconds that jobs have to end in when the server does
_KEYS = "keys"  # in the state directory: passphrases that somebody has typed, for opening the disks again


class Making(Jobs):
    """The layers that are being made."""

    def __init__(self) -> None:
        super().__init__("blockyard layer jobs", (ControlError, StackError))
        self.lent: set[int] = set()  # jobs of workers that ones of these follow
        self._reserved: list[tuple[str | None, list[Volume]]] = []

    def beneath(self) -> list[Volume]:
        """What they are made of, as volumes that have it."""
        return [volume for _, volumes in list(self._reserved) for volume in volumes]

    @contextlib.contextmanager
    def reserved(self, name: str | None, volumes: list[Volume]) -> Iterator[None]:
        """Inside, no other layer is made under this name, and nothing else of what these volumes have. Raises ControlError."""
        if name is not None and any(name == other for other, _ in list(self._reserved)):
            raise ControlError(f"a layer {name!r} is just being made")
        self._reserved.append(mine := (name, volumes))
        try:
            yield
        finally:
            self._reserved.remove(mine)

    def close(self) -> None:
        """Have all of them stop, and wait for that, though not for ever: a disk elsewhere may not answer."""
        for job in self:
            job.cancel()
        end = time.monotonic() + _ENDING
        for job in self:
            job.wait(max(0.0, end - time.monotonic()))


async def create(server: Server, request: Request) -> dict[str, Any]:
    """Make the layer at the top of `stack`, with files of `size` where there are none yet. What there is to say, and the stack
    that opens it; or the job, where that takes longer. `passphrase` is for encrypted disks: the server keeps it, under `name`
    if there is one. With `declare`, the layer is declared under that when it is there. After `wait` seconds it is a job."""
    size, name = _size(request.get("size")), request.get("name") if request.get("declare") else None
    wait = _seconds(request.get("wait"))
    if not isinstance(name, str | None):
        raise UsageError("a name is text")
    if name is not None and server.managed is None:
        raise ControlError(server.elsewhere())
    if name in server.configuration.layers:
        raise ControlError(f"there is a layer {name!r} already")
    with contextlib.ExitStack() as undo:
        text = undo.enter_context(_key(server, request))
        layer = _understood(server, text)
        check_layer(server, layer)
        volumes = _beneath(layer)
        others = server.making.beneath()
        undo.enter_context(server.making.reserved(name, volumes))  # before the check, which takes its time
        await asyncio.to_thread(check_claims, [*server.settled.volumes.values(), *others, *volumes])
        stack = opening(text, layer)
        if name is not None:
            _check_name(server, name, stack)
        undo.enter_context(missing_files(files_of(layer), size))
        job = _begin(server, layer, stack, name, str(request.get("who", "layer create")), undo.pop_all())
    if not await _over(job, wait):
        return {"job": job.number, "name": f"{CONTROL}.{job.number}", "stack": str(stack)}
    if job.error is not None:
        raise job.error
    if job.state != "done":
        raise ControlError(f"{job.kind} of {job.subject} was stopped")
    return {"said": job.result, "stack": str(stack)}


async def _over(job: Job, seconds: float) -> bool:
    """Whether it is within so many seconds. No thread waits: there are few, and others have need of them."""
    end, pause = time.monotonic() + seconds, _SOON
    while job.state == "running" and (left := end - time.monotonic()) > 0:
        await asyncio.sleep(min(pause, left))
        pause = min(2 * pause, _LOOK)
    return job.state != "running"


def _seconds(given: object) -> float:
    if given is None:
        return QUICK
    if not isinstance(given, (int, float)) or isinstance(given, bool) or not 0 <= given <= PATIENT:
        raise UsageError(f"wait: from 0 to {PATIENT:.0f} seconds")
    return given


def _begin(server: Server, layer: Layer, stack: Call, name: str | None, who: str, undo: contextlib.ExitStack) -> Job:
    """The job; `undo` takes back what was made for it, when it fails."""
    loop = asyncio.get_running_loop()

    def on_loop(work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    def work(job: Job) -> str:
        job.unit, job.details = layer.kind.unit, {"stack": str(stack)}
        with undo:
            said = _made(server, layer, job, on_loop)
            if name is not None:
                on_loop(_declare(server, name, stack, who))
            return said

    with contextlib.ExitStack() as failed:
        failed.push(undo)
        try:
            job = server.making.start("create", str(stack), work)
        except (ValueError, OSError) as error:
            raise ControlError(str(error)) from None
        failed.pop_all()
    return job


def _check_name(server: Server, name: str, stack: Call) -> None:
    """Before anything is made. Raises UsageError."""
    try:
        checked(_declaring(server.configuration, name, stack))
    except RecordError as error:
        raise UsageError(str(error)) from None


def _declaring(configuration: Configuration, name: str, stack: Call) -> Configuration:
    return replace(configuration, layers={**configuration.layers, name: DeclaredLayer(name, stack)})


async def _declare(server: Server, name: str, stack: Call, who: str) -> None:
    def edit(configuration: Configuration) -> Configuration:
        if name in configuration.layers:  # somebody has declared another one meanwhile, and may have volumes on it
            raise ControlError(f"there is a layer {name!r} by now: {stack} cannot be declared under that")
        return _declaring(configuration, name, stack)

    await server.change(edit, expected=None, who=who)


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


def _made(server: Server, layer: Layer, job: Job, on_loop: _OnLoop) -> str:
    pools = {
        claim.what.partition(":")[2].partition("/")[0] for claim in layer.claims() if claim.what.startswith("pool:")
    }
    if pools:
        return _made_by_worker(server, layer, pools, job, on_loop)
    try:
        return building.make(layer, Opening(), job)
    except StackError as error:
        raise UsageError(str(error)) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise ControlError(f"{where}{error.strerror or error}") from None


def _made_by_worker(server: Server, layer: Layer, pools: set[str], job: Job, on_loop: _OnLoop) -> str:
    having = sum(bool(pools & worker.configuration.pools.keys()) for worker in server.supervisor.workers)
    if having > 1:
        raise UsageError(
            f"the pools {', '.join(sorted(pools))} are served by {having} processes: make it of one of them"
        )

    def ask(name: str, **more: object) -> dict[str, Any]:
        return on_loop(server.supervisor.ask_pool(min(pools), {"name": name, **more}))

    async def begin() -> dict[str, Any]:
        begun = await server.supervisor.ask_pool(min(pools), {"name": "make layer", "stack": str(layer.written)})
        server.making.lent.add(begun["job"])  # in the loop, before anybody else is told of it there
        return begun

    number = on_loop(begin())["job"]
    pause = _SOON
    while (told := ask("layer job", job=number)["found"]) is not None and told["state"] == "running":
        try:
            job(told["done"], told["total"])
        except Cancelled:
            ask("cancel layer job", job=number)
        time.sleep(pause)
        pause = min(2 * pause, _LOOK)
    if told is None:
        raise ControlError("the worker that made it was started anew meanwhile: it is not known how far that has come")
    if told["state"] == "cancelled":
        raise Cancelled
    if told["state"] == "failed":
        raise ControlError(told["result"])
    return str(told["result"])


def _beneath(layer: Layer) -> list[Volume]:
    """What it is to be made of, as volumes that have it."""
    return [on_stack(Volume("what is to be made"), str(child.written)) for child in layer.children]


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
            Path(path).unlink(missing_ok=True)
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
        given = options.get(name) or []
        texts: Sequence[str] = ()
        with contextlib.suppress(StackError):  # the layer says what is wrong with it, here and below
            texts = tuple(map(str, given)) if isinstance(given, list) else listed(str(given))
        for text in texts:
            if text.startswith("/"):
                check_paths(server, [text])
                continue
            with contextlib.suppress(StackError):
                check_layer(server, building.understood(text, server.configuration.declared))
