"""The control socket: how `blockyard status`, `reload` and others talk to a server that runs.

A unix socket `control.sock` in the state directory, for whoever owns that. A request is one line of JSON, {"command": NAME, …},
to which the server adds the user who asks as "who"; so is the answer, {"result": …} or {"error": text, "status": exit status}.
Which commands there are is the table in commands.py.

The file `control.lock` beside it is locked for as long as the server lives, so that there is one for a state directory at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pwd
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Protocol

from blockyard.control.errors import ControlError, StateError, UsageError

Request = dict[str, Any]
Handler = Callable[[Request], Awaitable[object]]

_SOCKET, _LOCK = "control.sock", "control.lock"
_LIMIT = 64 << 20  # bytes of a request: a whole configuration may be in it
_FAREWELL = 5.0  # seconds that requests have to be answered before another server takes over
_CREDENTIALS = struct.Struct("3i")  # process, user, group (unix(7), SO_PEERCRED)
_PATIENCE = 120.0  # seconds that a client waits for an answer: initiators may have to log out first


class Remote(Protocol):
    """A server elsewhere (control/remote.py)."""

    def ask(self, command: str, arguments: dict[str, object]) -> Any: ...


REMOTE: ContextVar[Remote | None] = ContextVar("REMOTE", default=None)  # who is asked instead of a server here


class NotServing(ControlError):
    """Nobody serves with this state directory."""

    exit_status = 7


class ControlSocket:
    """The server's end. `handle` gets each request. Raises StateError when another server has the state directory."""

    def __init__(self, directory: Path, handle: Handler) -> None:
        self._directory = directory
        self._handle = handle
        self._server: asyncio.Server | None = None
        self._answering: set[asyncio.Task[None]] = set()
        self._lock = _take_lock(directory)

    async def start(self) -> None:
        """Answer from now on. Raises StateError."""
        sock = socket.socket(socket.AF_UNIX)
        try:
            with short_path(self._directory, _SOCKET) as path, contextlib.suppress(FileNotFoundError):
                os.unlink(path)  # of a server that was killed: the lock says that it is gone
            with short_path(self._directory, _SOCKET) as path:
                before = os.umask(0o177)
                try:
                    sock.bind(path)
                finally:
                    os.umask(before)
            self._server = await asyncio.start_unix_server(self._serve, sock=sock, limit=_LIMIT)
        except OSError as error:
            sock.close()
            raise StateError(f"{self._directory / _SOCKET}: {error.strerror}") from error

    async def cease(self) -> None:
        """Take no more requests; those that there are get their answers, if that does not take long."""
        if self._server is not None:
            self._server.close()
        if self._answering:
            await asyncio.wait(self._answering, timeout=_FAREWELL)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
            with contextlib.suppress(FileNotFoundError):
                (self._directory / _SOCKET).unlink()
        os.close(self._lock)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)
        with contextlib.suppress(OSError, ValueError, asyncio.IncompleteReadError, asyncio.CancelledError):
            line = await reader.readline()
            if line:
                who = _peer(writer.get_extra_info("socket"))
                writer.write(json.dumps(await self._answer(line, who)).encode() + b"\n")
                await writer.drain()
        writer.close()

    async def _answer(self, line: bytes, who: str) -> Request:
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise UsageError("a request is a JSON object")
            return {"result": await self._handle({**request, "who": who})}
        except json.JSONDecodeError as error:
            return {"error": f"a request is a line of JSON: {error}", "status": UsageError.exit_status}
        except ControlError as error:
            return {"error": str(error), "status": error.exit_status}
        except OSError as error:
            return {"error": str(error), "status": ControlError.exit_status}


def ask(directory: Path, command: str, **arguments: object) -> Any:
    """Have the server that has this state directory carry out a command, or the one that is `REMOTE`; its result.

    Raises NotServing when there is none, ControlError with what the server says.
    """
    remote = REMOTE.get()
    if remote is not None:
        return remote.ask(command, arguments)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(_PATIENCE)
        try:
            with short_path(directory, _SOCKET) as path:
                sock.connect(path)
            sock.sendall(json.dumps({"command": command, **arguments}).encode() + b"\n")
            with sock.makefile("rb") as answers:
                line = answers.readline()
        except PermissionError:
            raise NotServing(f"{directory / _SOCKET}: not permitted: be the user who serves") from None
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            raise NotServing(f"nobody serves with the state directory {directory}: name it with --state") from None
        except OSError as error:
            raise NotServing(f"{directory / _SOCKET}: {error}") from None
    if not line:
        raise NotServing("the server has ended without an answer")
    answer = json.loads(line)
    if "error" in answer:
        refusal = ControlError(answer["error"])
        refusal.exit_status = answer["status"]
        raise refusal
    return answer["result"]


def _peer(sock: socket.socket) -> str:
    """Who is at the other end, as the kernel knows it."""
    _, user, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return user_name(user)


def user_name(user: int) -> str:
    """Of a user of this machine."""
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"uid {user}"


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[None]:
    """No server has this state directory while this lasts. Raises StateError when one has."""
    lock = _take_lock(directory)
    try:
        yield
    finally:
        os.close(lock)


def _take_lock(directory: Path) -> int:
    path = directory / _LOCK
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateError(f"{path}: {error.strerror}: name another directory with --state") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    except OSError:
        holder = os.pread(fd, 20, 0).decode(errors="replace").strip()
        os.close(fd)
        raise StateError(
            f"{directory} is in use by another `blockyard serve`{f' (pid {holder})' if holder else ''}: "
            "stop that, or name another directory with --state"
        ) from None
    return fd


@contextlib.contextmanager
def short_path(directory: Path, name: str) -> Iterator[str]:
    """A path of a socket in a directory that is short enough for a socket address, however long the directory's is (unix(7))."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.close(fd)
