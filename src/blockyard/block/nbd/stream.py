"""The two kinds of connection that NBD runs over: plain sockets, and TLS on top of them.

One thread receives while others send; senders keep each other out by a lock of their own (transfer.py).
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import time
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Protocol

from blockyard.block.nbd.protocol import ProtocolError

Buffer = memoryview | bytes | bytearray
_MOST_BUFFERS = 64  # of one call (IOV_MAX is 1024)


class Stream(Protocol):
    """Bytes both ways. All methods raise OSError; a wait that takes too long is a TimeoutError."""

    def fileno(self) -> int: ...

    def receive_some(self, view: memoryview) -> int:
        """What has come, without waiting: how many bytes, -1 where nothing has; 0 at the end."""

    def receive(self, view: memoryview) -> None:
        """Fill `view`, waiting for it."""

    def send_some(self, buffers: Sequence[memoryview]) -> list[memoryview]:
        """Send without waiting; what is left."""

    def fail(self) -> None:
        """Let whoever waits notice that this is over. From any thread."""

    def close(self) -> None: ...


class PlainStream:
    """A TCP or unix socket.

    The kernel looks after the timeout: with one of Python's every call would ask poll() first,
    and none could be told not to wait.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        seconds, microseconds = divmod(int((sock.gettimeout() or 0) * 1_000_000), 1_000_000)
        sock.settimeout(None)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", seconds, microseconds))
        self.fileno = sock.fileno
        self.close = sock.close

    def receive_some(self, view: memoryview) -> int:
        try:
            return self._sock.recv_into(view, 0, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return -1

    def receive(self, view: memoryview) -> None:
        while view:
            try:
                count = self._sock.recv_into(view)
            except BlockingIOError:
                raise TimeoutError("it stops in the midst of an answer") from None
            if not count:
                raise ConnectionResetError("it has closed the connection")
            view = view[count:]

    def send_some(self, buffers: Sequence[memoryview]) -> list[memoryview]:
        left = list(buffers)
        try:
            while left:
                sent = self._sock.sendmsg(left[:_MOST_BUFFERS], (), socket.MSG_DONTWAIT)
                while left and sent >= len(left[0]):
                    sent -= len(left.pop(0))
                if left:
                    left[0] = left[0][sent:]
        except BlockingIOError:
            pass
        return left

    def fail(self) -> None:
        _shut(self._sock)


class TlsStream:
    """TLS. One of its connections must not be read and written at the same time, so that all calls are short, under a lock."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self._timeout = sock.gettimeout() or 30.0
        self._sock = sock
        self._lock = Lock()
        self.fileno = sock.fileno
        self.close = sock.close
        sock.setblocking(False)

    def receive_some(self, view: memoryview) -> int:
        try:
            with self._lock:
                return self._sock.recv_into(view)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return -1

    def receive(self, view: memoryview) -> None:
        while view:
            count = self._patiently(lambda: self._sock.recv_into(view))  # noqa: B023  (called at once)
            if not count:
                raise ConnectionResetError("it has closed the connection")
            view = view[count:]

    def send_some(self, buffers: Sequence[memoryview]) -> list[memoryview]:
        data = memoryview(b"".join(buffers)) if len(buffers) > 1 else buffers[0]  # one record is better than many
        try:
            while data:
                with self._lock:
                    data = data[self._sock.send(data) :]
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return [data]
        return []

    def _patiently(self, action: Callable[[], int]) -> int:
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                with self._lock:
                    return action()
            except ssl.SSLWantReadError:
                event = select.POLLIN
            except ssl.SSLWantWriteError:
                event = select.POLLOUT
            poll = select.poll()
            poll.register(self._sock, event)
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError("it takes nothing and says nothing")

    def fail(self) -> None:
        # not the method of SSLSocket, which would free what another thread may be using
        try:
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
        except OSError:
            return


def _shut(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:  # it is over already
        return


def receive_exactly(sock: socket.socket, length: int) -> bytes:
    """For the handshake: `length` bytes. Raises OSError, ProtocolError at the end of the connection."""
    data = memoryview(bytearray(length))
    at = 0
    while at < length:
        count = sock.recv_into(data[at:])
        if not count:
            raise ProtocolError("it closes the connection in the handshake")
        at += count
    return bytes(data)
