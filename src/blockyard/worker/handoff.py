"""Messages and sockets between the control process and its workers.

One JSON object is one datagram of a SOCK_SEQPACKET socket pair; file descriptors ride along as
SCM_RIGHTS (unix(7)). An object too large for a datagram travels in a memfd of its own. The messages
are listed in worker/process.py.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from typing import Any

_DATAGRAM = 64 << 10  # bytes; well below the smallest net.core.wmem_max that Linux ships with
_MAX_FDS = 4
_IN_MEMFD = b"memfd"  # no JSON object begins so: the object is in the last descriptor

Message = dict[str, Any]


def pair() -> tuple[socket.socket, socket.socket]:
    """A socket pair for control and one worker."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send_message(sock: socket.socket, message: Message, fds: Sequence[int] = ()) -> None:
    """Send one message. Raises OSError (EAGAIN on a non-blocking socket that is full, EPIPE when the peer is gone)."""
    data = json.dumps(message, separators=(",", ":")).encode()
    if len(data) <= _DATAGRAM:
        socket.send_fds(sock, [data], list(fds))
        return
    with os.fdopen(os.memfd_create("blockyard-message", os.MFD_CLOEXEC), "w+b") as file:
        file.write(data)
        file.flush()
        socket.send_fds(sock, [_IN_MEMFD], [*fds, file.fileno()])


def receive_message(sock: socket.socket) -> tuple[Message, list[int]] | None:
    """The next message and its descriptors, or None when the peer has closed its end.

    Raises BlockingIOError on a non-blocking socket without a message, ValueError for what is not a message.
    """
    data, fds, flags, _ = socket.recv_fds(sock, _DATAGRAM, _MAX_FDS)
    if not data:
        return None
    try:
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise ValueError("a message or its descriptors did not fit")
        if data == _IN_MEMFD and fds:
            with os.fdopen(fds.pop(), "rb") as file:
                file.seek(0)
                data = file.read()
        message = json.loads(data)
        if not isinstance(message, dict) or not isinstance(message.get("type"), str):
            raise ValueError("a message has no type")
    except ValueError:
        for fd in fds:
            os.close(fd)
        raise
    return message, fds
