"""A server of our own: qemu-nbd or nbdkit, started to serve one disk to one process, and started again when it dies.

Its connections are there before it is. The listening socket is made and connected to here, in a directory that nobody else can
open and that is gone when the server starts; the server finds it as a service manager would hand it over, with the
connections waiting. So there is no other way to it, nothing is left behind, whatever is killed, and there is nothing to poll
for. Who dies ends the other: the server when its connections or its parent are gone, and the keeper of the device
(block/keeper.py) starts another, after a while that grows, and writes again what had not been flushed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from blockyard.block.layers import Notify
from blockyard.block.nbd.transfer import Links
from blockyard.block.nbd.uri import link_over

_CHILD = Path(__file__).with_name("child.py")
_GRACE = 10.0  # seconds that a server may take to end
OPENING = 60.0  # seconds that it may take to open what it serves
_LINES = 20  # that it may say in one life before it is not listened to any more
_LONGEST = 500  # characters of what it says


class Engine:
    """A Connector (block/keeper.py) to a server that `command` starts. Its death is noticed by the end of its connections."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        export: str = "",
        connections: int = 1,
        timeout: float,
        notify: Notify,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        self.name = name
        self._command = command
        self._export = export
        self._connections = connections
        self._timeout = timeout
        self._notify = notify
        self._prepare = prepare  # what to do before each start; raises OSError
        self._process: subprocess.Popen[bytes] | None = None
        self._said = b""
        self._lines = 0

    # ---- its life; the calls come from one thread, whose end would be taken for that of this process

    def connect(self) -> Links:
        if self._prepare is not None:
            self._prepare()
        with contextlib.ExitStack() as undo:
            listener, sockets = self._sockets()
            for sock in (listener, *sockets):
                undo.callback(sock.close)
            self._start(listener)
            undo.callback(self.lost)
            listener.close()
            try:
                links = [link_over(sock, self._export, None, self._timeout) for sock in sockets]
            except OSError as error:
                raise self._why(error) from None
            undo.pop_all()
            return Links(links, self._timeout, (self._stderr, self._listen))

    def _sockets(self) -> tuple[socket.socket, list[socket.socket]]:
        """A socket to listen on, and connections that are waiting there."""
        with tempfile.TemporaryDirectory(prefix="blockyard-") as directory, contextlib.ExitStack() as undo:
            address = f"{directory}/nbd"
            listener = undo.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(address)
            listener.listen(self._connections)
            sockets = []
            for _ in range(self._connections):
                sock = undo.enter_context(socket.socket(socket.AF_UNIX))
                sock.settimeout(OPENING)
                sock.connect(address)
                sockets.append(sock)
            undo.pop_all()
            return listener, sockets

    def _start(self, listener: socket.socket) -> None:
        descriptor = str(listener.fileno())
        self._said, self._lines = b"", 0
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_CHILD), str(os.getpid()), descriptor, *self._command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=(listener.fileno(),),
            start_new_session=True,  # a Ctrl-C at a terminal is not meant for it
            cwd="/",
        )
        os.set_blocking(self._stderr, False)

    def _why(self, error: OSError) -> OSError:
        """Why it does not answer: what it says of it."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1.0)
            self._read()
        said = self._said.decode("utf-8", "replace").strip().splitlines()
        return OSError(errno.EINVAL, said[-1][:_LONGEST], self.name) if said else error

    def lost(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stderr is not None
        process.stderr.close()

    # ---- what it says

    @property
    def _stderr(self) -> int:
        assert self._process is not None
        assert self._process.stderr is not None
        return self._process.stderr.fileno()

    def _listen(self) -> bool:
        going_on = self._read()
        *lines, self._said = self._said.split(b"\n")
        if not going_on or len(self._said) > _LONGEST:
            lines, self._said = [*lines, self._said], b""
        for line in filter(None, lines):
            self._lines += 1
            if self._lines <= _LINES:
                text = line.decode("utf-8", "replace")[:_LONGEST]
                self._notify("warning", "server-says", f"{self.name}: {text}")
        return going_on

    def _read(self) -> bool:
        """Take what there is of its standard error; False at the end."""
        try:
            data = os.read(self._stderr, 1 << 16)
        except BlockingIOError:
            return True
        self._said += data
        return bool(data)
