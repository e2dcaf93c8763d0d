"""Where an NBD server is: nbd://, nbds://, nbd+unix://, nbds+unix://, as the NBD project's URI specification has them.

    nbd://host[:port]/export
    nbd+unix:///export?socket=/run/nbd.sock

Of its parameters `socket` alone is known; files of keys are options of the layer.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

from blockyard.block.nbd.handshake import Tls, negotiate
from blockyard.block.nbd.protocol import PORT, Flag, ProtocolError
from blockyard.block.nbd.stream import PlainStream, TlsStream
from blockyard.block.nbd.transfer import Link, Links

_SCHEMES = {"nbd": False, "nbds": True, "nbd+unix": False, "nbds+unix": True}  # whether with TLS
CONNECTING = 5.0  # seconds


@dataclass(frozen=True)
class Location:
    """An export of a server."""

    text: str
    export: str
    tls: bool
    host: str = ""
    port: int = PORT
    socket: str = ""  # path of a unix socket, instead of host and port


def parse_uri(text: str) -> Location:
    """Take a URI apart. Raises ValueError, with what it should be like."""
    parts = urlsplit(text)
    if parts.scheme not in _SCHEMES:
        raise ValueError(f"{text!r} is not nbd://HOST[:PORT]/EXPORT, nbds://… or nbd+unix:///EXPORT?socket=PATH")
    tls, export = _SCHEMES[parts.scheme], unquote(parts.path.removeprefix("/"))
    query = parse_qs(parts.query, keep_blank_values=True)
    if "\0" in export or len(export.encode()) > 4096:
        raise ValueError("the name of an export has at most 4096 bytes, and no NUL")
    if parts.scheme.endswith("+unix"):
        paths = query.pop("socket", [])
        if len(paths) != 1 or not paths[0].startswith("/") or query or parts.netloc:
            raise ValueError(f"{text!r} is not {parts.scheme}:///EXPORT?socket=/PATH")
        return Location(text, export, tls, socket=paths[0])
    if query or parts.fragment:
        raise ValueError(
            f"{text!r}: what follows the export is an option of the layer: nbd({parts.scheme}://…, tls_ca=PATH)"
        )
    if parts.username is not None or not parts.hostname:
        raise ValueError(f"{text!r} is not {parts.scheme}://HOST[:PORT]/EXPORT")
    return Location(text, export, tls, parts.hostname, parts.port or PORT)


def tls_context(authority: str = "", certificate: str = "", key: str = "") -> ssl.SSLContext:
    """Certificates of the server are checked, by those of `authority` (a file) or the system's. Raises OSError."""
    context = ssl.create_default_context(cafile=authority or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate:
        context.load_cert_chain(certificate, key or None)
    return context


class Remote:
    """A Connector (block/keeper.py) to the server of a URI.

    `context` makes what TLS needs, anew each time: certificates expire.
    """

    def __init__(
        self,
        where: Location,
        *,
        connections: int = 1,
        timeout: float = 30.0,
        context: Callable[[], ssl.SSLContext] = tls_context,
    ) -> None:
        self.name = where.text
        self._where = where
        self._connections = connections
        self._timeout = timeout
        self._context = context

    def connect(self) -> Links:
        links = [self._link()]
        try:
            if Flag.CAN_MULTI_CONN in links[0].export.flags:
                while len(links) < self._connections:
                    links.append(self._link())
                    if links[-1].export.size != links[0].export.size:
                        raise ProtocolError("it offers another disk at each connection")
        except BaseException:
            for link in links:
                link.close()
            raise
        return Links(links, self._timeout)

    def _link(self) -> Link:
        where = self._where
        tls = Tls(self._context(), where.host or "localhost") if where.tls else None
        if where.socket:
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(CONNECTING)
            try:
                sock.connect(where.socket)
            except BaseException:
                sock.close()
                raise
        else:
            sock = socket.create_connection((where.host, where.port), CONNECTING)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self._timeout * 1000))
        return link_over(sock, where.export, tls, self._timeout)

    def lost(self) -> None:
        """The server is somebody else's."""


def link_over(sock: socket.socket, export: str, tls: Tls | None, timeout: float) -> Link:
    """Shake hands. Closes the socket where that fails. Raises OSError."""
    try:
        secured, found = negotiate(sock, export, tls)
        sock = secured
        sock.settimeout(timeout)
        return Link(TlsStream(sock) if isinstance(sock, ssl.SSLSocket) else PlainStream(sock), found)
    except ssl.SSLError as error:
        sock.close()
        if isinstance(error, ssl.SSLCertVerificationError):  # which is a ValueError too
            raise ProtocolError(f"its certificate is not to be trusted: {error.verify_message}") from None
        raise ProtocolError(f"TLS fails: {error.reason or error}") from None
    except BaseException:
        sock.close()
        raise
