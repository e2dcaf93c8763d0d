"""The process of a worker: started by this control, or taken over from one that has ended (control/adoption.py)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
from pathlib import Path

from blockyard.control.administration import short_path
from blockyard.worker.handoff import pair, send_message

DOORS = "workers"  # in the state directory: the sockets by which other controls come


class Body:
    """A process that runs, or has just ended. `control` is what messages go by; all of it is to be closed."""

    def __init__(self, pid: int, control: socket.socket, log: int, door: Path | None) -> None:
        self.pid = pid
        self.control = control
        self._pidfd = os.pidfd_open(pid)
        self._log = log
        self._door = door
        self._child: subprocess.Popen[bytes] | None = None

    @classmethod
    def start(cls, directory: Path | None, number: int, log_level: str) -> Body:
        """A new one, of the worker of that number. With a state directory, it outlives this process. Raises OSError."""
        ours, theirs = pair()
        log, its_log = os.pipe()
        with contextlib.ExitStack() as on_failure, theirs, os.fdopen(its_log, "wb") as errors:
            on_failure.enter_context(ours)
            on_failure.callback(os.close, log)
            path = door = None
            if directory is not None:
                door, path = _make_door(directory, number)
                on_failure.callback(path.unlink)
            fds = [theirs.fileno()] if door is None else [theirs.fileno(), door.fileno()]
            try:
                child = subprocess.Popen(
                    [sys.executable, "-m", "blockyard.worker", *map(str, fds)],
                    pass_fds=fds, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors,
                    process_group=0,  # a terminal's Ctrl-C is for control, which stops workers in good order
                    env={**os.environ, "BLOCKYARD_LOG": log_level},
                )  # fmt: skip
            finally:
                if door is not None:
                    door.close()
            on_failure.pop_all()
        ours.setblocking(False)
        body = cls(child.pid, ours, log, path)
        body._child = child
        return body

    @classmethod
    def adopted(cls, pid: int, control: socket.socket, door: Path) -> Body:
        """One that runs already. Its log comes here from now on. Raises OSError."""
        log, its_log = os.pipe()
        try:
            send_message(control, {"type": "log"}, [its_log])
        finally:
            os.close(its_log)
        control.setblocking(False)
        return cls(pid, control, log, door)

    async def log(self) -> asyncio.StreamReader:
        """What it writes to stderr."""
        reader = asyncio.StreamReader()
        pipe = os.fdopen(self._log, "rb")
        self._log = -1
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        return reader

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    async def wait(self) -> str:
        """Until it has ended; how, in words."""
        loop = asyncio.get_running_loop()
        await _readable(self._pidfd, loop)
        try:
            ended = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        except ChildProcessError:  # not a child of this process: nobody tells
            return "it has ended"
        assert ended is not None
        if self._child is not None:
            self._child.returncode = ended.si_status  # so that it is not waited for again
        if ended.si_code == os.CLD_EXITED:
            return f"exit status {ended.si_status}"
        return f"killed by {signal.Signals(ended.si_status).name}"

    def close(self, *, ended: bool) -> None:
        """Let go of it; where it has `ended`, nobody can come by its door any more."""
        self.control.close()
        os.close(self._pidfd)
        if self._log >= 0:
            os.close(self._log)
        else:
            self._transport.close()
        if ended and self._door is not None:
            self._door.unlink(missing_ok=True)
        if self._child is not None and self._child.returncode is None:
            self._child.returncode = 0  # it goes on, and is not this process's any more


async def _readable(fd: int, loop: asyncio.AbstractEventLoop) -> None:
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)


def _make_door(directory: Path, number: int) -> tuple[socket.socket, Path]:
    """A bound unix socket, on which the worker will listen. Its name tells the next control the worker's number."""
    doors = directory / DOORS
    doors.mkdir(mode=0o700, exist_ok=True)
    name = f"{number}-{secrets.token_hex(8)}"
    door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        before = os.umask(0o177)
        try:
            with short_path(doors, name) as path:
                door.bind(path)
        finally:
            os.umask(before)
    except OSError:
        door.close()
        raise
    return door, doors / name
