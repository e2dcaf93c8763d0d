"""Portals as an administrator names them, and listening on them."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from blockyard.control.errors import PortalError, UsageError
from blockyard.iscsi import names
from blockyard.iscsi.directory import Portal, portal_from
from blockyard.worker.configuration import PortalGroup

BACKLOG = 1024  # connections that wait to be accepted; the kernel's somaxconn caps it


def parse_portal(text: str) -> Portal:
    """ADDR or ADDR:PORT, an IPv6 address in brackets where a port follows. Raises UsageError."""
    try:
        written = names.parse_portal(text)
        return Portal(ipaddress.ip_address(written.host), written.port)
    except names.InvalidName as error:
        raise UsageError(str(error)) from None
    except ValueError:
        raise UsageError(f"{text!r} has no IP address, such as 192.0.2.1 or [2001:db8::1]") from None


class Listeners:
    """The sockets of all portals that are listened on, by portal groups."""

    def __init__(self) -> None:
        self._open: dict[
            tuple[Portal, int], tuple[socket.socket, Portal]
        ] = {}  # by what was asked for, and which of it

    @property
    def sockets(self) -> list[socket.socket]:
        return [sock for sock, _ in self._open.values()]

    def open(self, groups: Mapping[int, PortalGroup]) -> dict[int, PortalGroup]:
        """Listen on all portals of `groups`; the groups with the ports that they really have.

        Raises PortalError; then none is open.
        """
        try:
            for portal in _asked_for(groups):
                self._open[portal] = listen(portal[0])
        except PortalError:
            self.close()
            raise
        real = {portal: found.written for portal, (_, found) in self._open.items()}
        asked = iter(_asked_for(groups))
        return {tag: PortalGroup(tuple(real[next(asked)] for _ in group.portals)) for tag, group in groups.items()}

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()
        self._open.clear()


def _asked_for(groups: Mapping[int, PortalGroup]) -> list[tuple[Portal, int]]:
    """All portals in order; of one with port 0 there may be several."""
    portals = [portal_from(text) for group in groups.values() for text in group.portals]
    return [(portal, portals[:number].count(portal)) for number, portal in enumerate(portals)]


def listen(portal: Portal) -> tuple[socket.socket, Portal]:
    """A non-blocking listening socket, and the portal with the port that it really has.

    Raises PortalError.
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
        raise PortalError(_explain(portal, error)) from error
    sock.setblocking(False)
    return sock, Portal(portal.address, sock.getsockname()[1])


def _explain(portal: Portal, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        other = Portal(portal.address, portal.port + 1 if portal.port < 65535 else 0)
        holder = _holder(portal)
        stop = f", or stop {holder}" if holder else ""
        return f"{portal} is taken{' by ' + holder if holder else ''}: choose another with --portal {other}{stop}"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{portal}: {portal.host} is not an address of this machine (`ip address` lists them)"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{portal}: not permitted; ports below 1024 are root's: choose a higher one with --portal"
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
