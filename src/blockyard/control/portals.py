"""Portals as an administrator names them, and listening on them."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from blockyard.control.errors import PortalError, UsageError
from blockyard.iscsi import names
from blockyard.iscsi.directory import Portal, portal_from
from blockyard.worker.configuration import PortalGroup

BACKLOG = 1024  # connections that wait to be accepted; the kernel's somaxconn caps it
_PATIENCE = 15.0  # seconds that workers have to let go of sockets
_PAUSE = 0.02  # seconds between two looks whether they have


def parse_portal(text: str) -> Portal:
    """ADDR or ADDR:PORT, an IPv6 address in brackets where a port follows. Raises UsageError."""
    try:
        written = names.parse_portal(text)
        return Portal(ipaddress.ip_address(written.host), written.port)
    except names.InvalidName as error:
        raise UsageError(str(error)) from None
    except ValueError:
        raise UsageError(f"{text!r} has no IP address, such as 192.0.2.1 or [2001:db8::1]") from None


_Asked = tuple[Portal, int]  # a portal, and which of those that are the same (with port 0) it is


@dataclass(frozen=True)
class Opening:
    """Portals that have been opened, beside those that go on. `groups` has the ports that they really have."""

    groups: dict[int, PortalGroup]
    new: dict[_Asked, tuple[socket.socket, Portal]]
    gone: tuple[_Asked, ...]

    def undo(self) -> None:
        for sock, _ in self.new.values():
            sock.close()


class Listeners:
    """The sockets of all portals that are listened on."""

    def __init__(self) -> None:
        self._open: dict[_Asked, tuple[socket.socket, Portal]] = {}
        self._inherited: dict[str, socket.socket] = {}  # by the names of what was asked for
        self._forgo: Callable[[], None]  # who else has these lets go of them

    @property
    def sockets(self) -> list[socket.socket]:
        return [sock for sock, _ in self._open.values()]

    @property
    def by_name(self) -> dict[str, socket.socket]:
        """The sockets as the next control is to find them."""
        return {_name(asked): sock for asked, (sock, _) in self._open.items()}

    def inherit(self, sockets: Mapping[str, socket.socket], forgo: Callable[[], None]) -> None:
        """Take these where the same portals are asked for: connections wait in them. `forgo` has others let go of them."""
        self._inherited, self._forgo = dict(sockets), forgo

    def inherited(self, name: str, asked: Portal) -> tuple[socket.socket, Portal] | None:
        """A copy of what the control before this one has listened on by that name, and the portal with its port."""
        old = self._inherited.get(name)
        if old is None:
            self._make_room(asked)
            return None
        sock = old.dup()
        sock.setblocking(False)  # dup(), of Python's, makes it a blocking one
        return sock, Portal(asked.address, sock.getsockname()[1])

    def _make_room(self, asked: Portal) -> None:
        """What was listened on there under another name, or at all addresses, must not bar it: nobody else would end that."""
        barring = [name for name, sock in self._inherited.items() if _bars(sock, asked)]
        if not barring:
            return
        for name in barring:
            self._inherited.pop(name).close()
        self._forgo()
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            with suppress(PortalError):
                listen(asked)[0].close()
                return
            time.sleep(_PAUSE)

    def forget_inherited(self) -> None:
        for sock in self._inherited.values():
            sock.close()
        self._inherited.clear()

    def _listen(self, asked: _Asked) -> tuple[socket.socket, Portal]:
        return self.inherited(_name(asked), asked[0]) or listen(asked[0])

    def prepare(self, groups: Mapping[int, PortalGroup]) -> Opening:
        """Listen on the portals of `groups` that are not open yet. Raises PortalError; then nothing has changed."""
        asked = _asked_for(groups)
        gone = tuple(portal for portal in self._open if portal not in asked)
        new: dict[_Asked, tuple[socket.socket, Portal]] = {}
        try:
            for portal in asked:
                if portal not in self._open:
                    check_free(portal[0], [other for other, _ in gone])
                    new[portal] = self._listen(portal)
        except PortalError:
            for sock, _ in new.values():
                sock.close()
            raise
        real = {portal: found.written for portal, (_, found) in (self._open | new).items()}
        names = iter(asked)
        made = {tag: PortalGroup(tuple(real[next(names)] for _ in group.portals)) for tag, group in groups.items()}
        return Opening(made, new, gone)

    def commit(self, opening: Opening) -> list[socket.socket]:
        """Take over what was opened; the sockets of portals that are gone, to be closed."""
        self._open |= opening.new
        return [self._open.pop(portal)[0] for portal in opening.gone]

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()
        self._open.clear()
        self.forget_inherited()


def _name(asked: _Asked) -> str:
    portal, number = asked
    return f"{portal.written} {number}"


def _bars(sock: socket.socket, asked: Portal) -> bool:
    """Whether nobody can listen there as long as this one does."""
    host, port, *_ = sock.getsockname()
    held = Portal(ipaddress.ip_address(host), port)
    return held == asked or _overlap(held, asked)


def _overlap(one: Portal, other: Portal) -> bool:
    """Whether they have the same port, and one of them is at all addresses."""
    same = one.port == other.port and one.address.version == other.address.version
    return same and (one.wildcard or other.wildcard)


def check_free(portal: Portal, gone: Iterable[Portal]) -> None:
    """That no portal has the port still that is just going. Raises PortalError."""
    for other in gone:
        if _overlap(portal, other):
            raise PortalError(f"{portal} cannot be opened while {other} is: take that out first, then add this")


def _asked_for(groups: Mapping[int, PortalGroup]) -> list[_Asked]:
    """All portals in order; of one with port 0 there may be several."""
    portals = [portal_from(text) for group in groups.values() for text in group.portals]
    return [(portal, portals[:number].count(portal)) for number, portal in enumerate(portals)]


def listen(portal: Portal, option: str = "--portal") -> tuple[socket.socket, Portal]:
    """A non-blocking listening socket, and the portal with the port that it really has.

    Raises PortalError, which names the option by which another can be chosen.
    """
    family = socket.AF_INET6 if portal.address.version == 6 else socket.AF_INET
    sock = None
    try:
        name = socket.getaddrinfo(
            str(portal.address), portal.port, family, socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )[0][4]
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections in TIME_WAIT do not bar a restart
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # [::] beside 0.0.0.0
        sock.bind(name)
        sock.listen(BACKLOG)
    except OSError as error:
        if sock is not None:
            sock.close()
        raise PortalError(_explain(portal, error, option)) from error
    sock.setblocking(False)
    return sock, Portal(portal.address, sock.getsockname()[1])


async def cease(server: asyncio.Server) -> None:
    """Accept no more, and close the sockets; who has been accepted is known to the protocol then.

    A server that is closed drops connections that were accepted in the same turn of the loop: it has let go of what they are
    to be counted by. From there to the protocol there are a task that makes the transport, `connection_made`, and the task that
    servers of streams begin in that.
    """
    for sock in server.sockets:
        asyncio.get_running_loop().remove_reader(sock.fileno())
    for _ in range(4):
        await asyncio.sleep(0)
    server.close()


# A copy of what the control before this one has listened on by a name, and the portal with its port (Listeners.inherited)
Inherited = Callable[[str, Portal], tuple[socket.socket, Portal] | None]


class OneSocket(ABC):
    """What listens on at most one socket, which may change while it serves.

    `name` is what the next control finds it by, with its address; `option` says in errors where it was asked for.
    """

    def __init__(self, name: str, option: str, inherited: Inherited) -> None:
        self._name = name
        self._option = option
        self._inherited = inherited
        self._listen = ""
        self._sock: socket.socket | None = None

    @property
    def listening(self) -> dict[str, socket.socket]:
        """What the next control is to find."""
        return {} if self._sock is None else {self._called(portal_from(self._listen)): self._sock}

    def _called(self, asked: Portal) -> str:
        return f"{self._name} {asked.written}"

    def prepare(self, address: str) -> socket.socket | None:
        """The socket that is to be listened on, None where that stays as it is or ends. Raises PortalError."""
        if address in ("", self._listen):
            return None
        portal = portal_from(address)
        if self._listen:
            check_free(portal, [portal_from(self._listen)])
        return (self._inherited(self._called(portal), portal) or listen(portal, self._option))[0]

    def commit(self, address: str, sock: socket.socket | None) -> None:
        """Take over what was prepared for this address."""
        if address != self._listen:
            self.close()
            self._listen, self._sock = address, sock

    def close(self) -> None:
        """Listen no more."""
        self._end()
        self._listen, self._sock = "", None

    @abstractmethod
    def _end(self) -> None:
        """Close `_sock`, or what serves on it, and let go of whoever is being answered."""


def _explain(portal: Portal, error: OSError, option: str) -> str:
    if error.errno == errno.EADDRINUSE:
        other = Portal(portal.address, portal.port + 1 if portal.port < 65535 else 0)
        holder = _holder(portal)
        stop = f", or stop {holder}" if holder else ""
        return f"{portal} is taken{' by ' + holder if holder else ''}: choose another with {option} {other}{stop}"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{portal}: {portal.host} is not an address of this machine (`ip address` lists them)"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{portal}: not permitted; ports below 1024 are root's: choose a higher one with {option}"
    if error.errno == errno.EAFNOSUPPORT:
        return f"{portal}: this machine has no IPv{portal.address.version}"
    return f"{portal}: cannot listen: {error.strerror or error}"


def _holder(portal: Portal) -> str | None:
    """Who listens on a port: "tgtd (pid 123)". Only root sees other users' processes in /proc."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == portal.port:  # 0A: TCP_LISTEN
                    inodes.add(f"socket:[{fields[9]}]")
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if any(os.readlink(fd) in inodes for fd in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
    return None
