"""Workers that go on after their control has ended are taken over by the next one, with their sessions (worker/tether.py).

A worker of another version is not: what it would be told might mean something else to it. It has its initiators log out, and
ends; so does what does not answer at its door, by force.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from blockyard import __version__
from blockyard.block import records
from blockyard.control.administration import short_path
from blockyard.control.body import DOORS, Body
from blockyard.worker.configuration import Settled
from blockyard.worker.handoff import Message, receive_message, send_message
from blockyard.worker.tether import listening_messages

log = logging.getLogger(__name__)

PATIENCE = 15.0  # seconds that a worker has to answer: it may be in the midst of a change
_PAUSE = 0.02  # seconds between two tries at a door
GRACE = 5  # seconds that initiators of another version's worker have to log out
FLUSH = 60.0  # seconds that it has to end altogether
_CREDENTIALS = struct.Struct("3i")  # process, user, group (unix(7), SO_PEERCRED)


@dataclass
class Orphan:
    """A worker without a control, as it has told. Its control is this process now."""

    pid: int
    door: Path
    control: socket.socket
    version: str = ""
    configuration: Settled = field(default_factory=Settled)
    listening: dict[str, socket.socket] = field(default_factory=dict)  # copies of what is listened on
    told: list[Message] = field(default_factory=list)  # what it had to tell meanwhile

    @property
    def number(self) -> int:
        """Of the worker; -1 where its door does not say it."""
        number, dash, _ = self.door.name.partition("-")
        return int(number) if dash and number.isdecimal() else -1

    def body(self) -> Body:
        """Raises OSError when it has just ended."""
        return Body.adopted(self.pid, self.control, self.door)


def find_orphans(directory: Path) -> list[Orphan]:
    """All workers of a state directory; those that cannot be taken over have ended. The directory is this process's alone."""
    found = [orphan for door in sorted((directory / DOORS).glob("*")) if (orphan := _knock(door)) is not None]
    others = [orphan for orphan in found if orphan.version != __version__]
    for orphan in others:
        log.warning("worker process %d is of version %s: its sessions are ended", orphan.pid, orphan.version)
        with contextlib.suppress(OSError):
            send_message(orphan.control, {"type": "stop", "grace": GRACE})
    for orphan in others:
        _see_off(orphan, FLUSH)
    return [orphan for orphan in found if orphan not in others]


def listening_of(orphans: Iterable[Orphan]) -> dict[str, socket.socket]:
    """The sockets that they have kept, each once."""
    found: dict[str, socket.socket] = {}
    for orphan in orphans:
        for name, sock in orphan.listening.items():
            if name in found:
                sock.close()
            found.setdefault(name, sock)
        orphan.listening.clear()
    return found


def keep_nothing(orphans: Iterable[Orphan]) -> None:
    """Have them close the sockets that they have kept; this process may have copies."""
    for orphan in orphans:
        with contextlib.suppress(OSError):
            for message, fds in listening_messages({}):
                send_message(orphan.control, message, fds)


def _knock(door: Path) -> Orphan | None:
    """The worker at that door; None when there is none any more."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(PATIENCE)
    try:
        _connect(sock, door)
        pid, _, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    except OSError:  # nobody listens: it has ended
        sock.close()
        door.unlink(missing_ok=True)
        return None
    orphan = Orphan(pid, door, sock)
    try:
        _hear(orphan)
    except (OSError, ValueError, KeyError) as error:
        log.error("worker process %d does not say what it serves (%s): it is killed", pid, error)
        _see_off(orphan, 0)
        return None
    return orphan


def _connect(sock: socket.socket, door: Path) -> None:
    """Wait for a worker that has been started only just: it does not listen yet. Raises OSError when there is none."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            with short_path(door.parent, door.name) as path:
                return sock.connect(path)
        except ConnectionRefusedError:
            if not _is_held(door) or time.monotonic() > end:
                raise
        time.sleep(_PAUSE)


def _is_held(door: Path) -> bool:
    """Whether a process has it, listening or not (proc(5), /proc/net/unix: each bound socket with its path)."""
    with open("/proc/net/unix", errors="replace") as sockets:
        return any(line.rstrip("\n").endswith(f"/{door.name}") for line in sockets)


def _hear(orphan: Orphan) -> None:
    """Take its greeting. Raises OSError, ValueError or KeyError."""
    wanted: int | None = None  # how many sockets it has; unknown before the greeting
    while wanted is None or len(orphan.listening) < wanted:
        received = receive_message(orphan.control)
        if received is None:
            raise OSError("it has ended")
        message, fds = received
        if message["type"] == "adopted":
            orphan.version, wanted = str(message["version"]), int(message["listening"])
            if orphan.version == __version__:
                orphan.configuration = records.read(Settled, message["configuration"])
        elif message["type"] == "listening":
            orphan.listening |= {name: socket.socket(fileno=fd) for name, fd in zip(message["names"], fds, strict=True)}
        else:
            orphan.told.append(message)


def _see_off(orphan: Orphan, seconds: float) -> None:
    """Wait for its end, and then make one."""
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(orphan.pid)
        try:
            if not select.select([pidfd], [], [], seconds)[0]:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                select.select([pidfd], [], [], FLUSH)
        finally:
            os.close(pidfd)
    orphan.control.close()
    for sock in orphan.listening.values():
        sock.close()
    orphan.door.unlink(missing_ok=True)
