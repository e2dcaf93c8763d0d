"""The handshake with an NBD server: options are haggled over, then the export is opened (Handshake phase, fixed newstyle).

Servers that know neither NBD_OPT_GO nor fixed newstyle get NBD_OPT_EXPORT_NAME, the only option that all of them know.
"""

from __future__ import annotations

import socket
import ssl
import struct
from typing import NamedTuple

from blockyard.block.nbd.protocol import (
    ALLOCATION,
    BLOCK_SIZES,
    EXPORT,
    FIXED_NEWSTYLE,
    GREETING,
    INIT_MAGIC,
    MAX_PAYLOAD,
    NO_ZEROES,
    OPTION,
    OPTION_MAGIC,
    OPTION_REPLY,
    OPTION_REPLY_MAGIC,
    REFUSALS,
    REFUSED,
    Flag,
    Info,
    Option,
    ProtocolError,
    Reply,
)
from blockyard.block.nbd.stream import receive_exactly

_MAX_REPLY = 1 << 16  # bytes of data of one option reply that makes sense


class Export(NamedTuple):
    """What the server offers."""

    size: int  # bytes
    flags: Flag
    minimum: int = 1  # requests are in multiples of it
    preferred: int = 4096
    maximum: int = MAX_PAYLOAD  # bytes of data of a request
    structured: bool = False  # reads are answered in chunks
    allocation: int | None = None  # the number of the context that tells what is allocated


class Tls(NamedTuple):
    """With what to secure a connection, and whom to expect at the other end."""

    context: ssl.SSLContext
    hostname: str


def negotiate(sock: socket.socket, name: str, tls: Tls | None = None) -> tuple[socket.socket, Export]:
    """Open the export `name`. What the connection is from then on, and what the export is. Raises OSError, ProtocolError."""
    magic, style, flags = GREETING.unpack(receive_exactly(sock, GREETING.size))
    if magic != INIT_MAGIC or style != OPTION_MAGIC:
        raise ProtocolError("it is no NBD server, or one older than 2012 (oldstyle)")
    fixed = bool(flags & FIXED_NEWSTYLE)
    sock.sendall(struct.pack(">I", flags & (FIXED_NEWSTYLE | NO_ZEROES)))
    if not fixed:
        if tls is not None:
            raise ProtocolError("it knows no TLS")
        return sock, _export_name(sock, name, zeroes=not flags & NO_ZEROES)
    if tls is not None:
        if _ask(sock, Option.STARTTLS) is None:
            raise ProtocolError("it does not want TLS")
        sock = tls.context.wrap_socket(sock, server_hostname=tls.hostname)
    structured = _ask(sock, Option.STRUCTURED_REPLY) is not None
    allocation = _allocation(sock, name) if structured else None
    export = _go(sock, name)
    if export is None:
        export = _export_name(sock, name, zeroes=not flags & NO_ZEROES)
    return sock, export._replace(structured=structured, allocation=allocation)


def _ask(sock: socket.socket, option: Option, data: bytes = b"") -> list[tuple[int, bytes]] | None:
    """Ask for an option; the replies but for the last, or None where it is refused. Raises ProtocolError."""
    sock.sendall(OPTION.pack(OPTION_MAGIC, option, len(data)) + data)
    replies: list[tuple[int, bytes]] = []
    while True:
        magic, about, kind, length = OPTION_REPLY.unpack(receive_exactly(sock, OPTION_REPLY.size))
        if magic != OPTION_REPLY_MAGIC or about != option or length > _MAX_REPLY or len(replies) > _MAX_REPLY:
            raise ProtocolError("its answer to an option makes no sense")
        content = receive_exactly(sock, length)
        if kind == Reply.ACK:
            return replies
        if kind & REFUSED:
            _judge(kind, content)
            return None
        replies.append((kind, content))


def _judge(kind: int, content: bytes) -> None:
    """Raise ProtocolError for refusals that cannot be borne with."""
    if kind in (REFUSED + 2, REFUSED + 5, REFUSED + 6, REFUSED + 7):
        said = content.decode("utf-8", "replace").strip()
        raise ProtocolError(REFUSALS[kind] + (f" ({said})" if said else ""))


def _text(name: str) -> bytes:
    data = name.encode()
    return struct.pack(">I", len(data)) + data


def _allocation(sock: socket.socket, name: str) -> int | None:
    """Have BLOCK_STATUS tell what is allocated; the number of that context."""
    query = _text(name) + struct.pack(">II", 1, len(ALLOCATION)) + ALLOCATION
    for kind, content in _ask(sock, Option.SET_META_CONTEXT, query) or ():
        if kind == Reply.META_CONTEXT and content[4:] == ALLOCATION:
            return int.from_bytes(content[:4], "big")
    return None


def _go(sock: socket.socket, name: str) -> Export | None:
    """Open the export, keeping its block sizes; None for a server that cannot be asked so."""
    replies = _ask(sock, Option.GO, _text(name) + struct.pack(">HH", 1, Info.BLOCK_SIZE))
    if replies is None:
        return None
    found: dict[int, bytes] = {
        int.from_bytes(content[:2], "big"): content[2:] for kind, content in replies if kind == Reply.INFO
    }
    try:
        size, flags = EXPORT.unpack(found[Info.EXPORT])
        minimum, preferred, maximum = BLOCK_SIZES.unpack(
            found.get(Info.BLOCK_SIZE, BLOCK_SIZES.pack(1, 4096, MAX_PAYLOAD))
        )
    except (KeyError, struct.error):
        raise ProtocolError("it does not say what the export is") from None
    if minimum & (minimum - 1) or not 1 <= minimum <= 1 << 16 or preferred < minimum or maximum < minimum:
        raise ProtocolError(f"block sizes {minimum}, {preferred}, {maximum} make no sense")
    return Export(size, Flag(flags), minimum, preferred, min(maximum, MAX_PAYLOAD) // minimum * minimum)


def _export_name(sock: socket.socket, name: str, *, zeroes: bool) -> Export:
    data = name.encode()
    sock.sendall(OPTION.pack(OPTION_MAGIC, Option.EXPORT_NAME, len(data)) + data)
    size, flags = EXPORT.unpack(receive_exactly(sock, EXPORT.size))  # it closes the connection if it has no such export
    if zeroes:
        receive_exactly(sock, 124)
    return Export(size, Flag(flags))
