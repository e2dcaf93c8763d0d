"""Events to syslog (RFC 5424; over TCP with octet counting, RFC 6587 §3.4.1, or TLS, RFC 5425) and to systemd's journal.

A message has the kind of the event as MSGID, and its fields as structured data. The number in the name of these stands for
examples (RFC 5612), as this project has none of its own.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import ssl
import struct

from blockyard.control.events import Event, stamp
from blockyard.worker.receivers import Syslog

ENTERPRISE = 32473
PATIENCE = 10.0  # seconds for connecting and sending
_FACILITIES = {"daemon": 3, **{f"local{number}": 16 + number for number in range(8)}}
_LONGEST = 8 << 10  # bytes of text: receivers may cut off what is longer than 2048 (RFC 5424 §6.1)
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


class SyslogSender:
    """Sends events one by one."""

    together = 1
    interval = 0.0

    def __init__(self, receiver: Syslog) -> None:
        self._receiver = receiver
        self._way, self._host, self._port = receiver.place
        self._stream: socket.socket | None = None

    def send(self, events: list[Event]) -> None:
        """Raises OSError."""
        for event in events:
            if self._way == "journal":
                self._to_path(journal_entry(event))
            else:
                message = syslog_message(event, _FACILITIES[self._receiver.facility])
                {"unix": self._to_path, "udp": self._by_udp}.get(self._way, self._by_stream)(message)

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _to_path(self, message: bytes) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(self._host)
            sock.send(message)

    def _by_udp(self, message: bytes) -> None:
        family, kind, protocol, _, address = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as sock:
            sock.sendto(message, address)

    def _by_stream(self, message: bytes) -> None:
        if self._stream is not None and _is_closed(self._stream):
            self.close()
        try:
            if self._stream is None:
                self._stream = self._connect()
            self._stream.sendall(b"%d %s" % (len(message), message))
        except OSError:
            self.close()
            raise

    def _connect(self) -> socket.socket:
        sock = socket.create_connection((self._host, self._port), PATIENCE)
        if self._way != "tls":
            return sock
        with contextlib.ExitStack() as undo:
            undo.callback(sock.close)
            context = ssl.create_default_context(cafile=self._receiver.authority or None)
            wrapped = context.wrap_socket(sock, server_hostname=self._host)
            undo.pop_all()
        return wrapped


def _is_closed(stream: socket.socket) -> bool:
    """Whether the other end has closed it: what is written then goes nowhere, without an error at first."""
    stream.setblocking(False)
    try:
        return stream.recv(1) == b""  # a receiver says nothing
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True
    finally:
        with contextlib.suppress(OSError):
            stream.settimeout(PATIENCE)


def syslog_message(event: Event, facility: int) -> bytes:
    """RFC 5424 §6."""
    head = (
        f"<{8 * facility + event.severity.syslog}>1 {stamp(event.time)} {_host()} blockyard {os.getpid()} {event.what}"
    )
    fields = {"id": str(event.id), "severity": event.severity, **_fields(event)}
    data = "".join(f' {name}="{_escaped(value)}"' for name, value in fields.items())
    text = _CONTROL.sub(" ", event.text)
    mark = "" if text.isascii() else "\ufeff"  # a text in UTF-8 begins with it (§6.4)
    said = f"{mark}{text}".encode()[:_LONGEST].decode(errors="ignore")
    return f"{head} [blockyard@{ENTERPRISE}{data}] {said}".encode()


def journal_entry(event: Event) -> bytes:
    """The journal's native protocol (https://systemd.io/JOURNAL_NATIVE_PROTOCOL/)."""
    fields = {
        "MESSAGE": event.text,
        "PRIORITY": str(event.severity.syslog),
        "SYSLOG_IDENTIFIER": "blockyard",
        "BLOCKYARD_EVENT": event.what,
        "BLOCKYARD_EVENT_ID": str(event.id),
        "BLOCKYARD_TIME": stamp(event.time),
        **{f"BLOCKYARD_{name.upper()}": value for name, value in _fields(event).items()},
    }
    return b"".join(_journal_field(name, value.encode(errors="replace")[:_LONGEST]) for name, value in fields.items())


def _journal_field(name: str, value: bytes) -> bytes:
    if b"\n" in value:
        return name.encode() + b"\n" + struct.pack("<Q", len(value)) + value + b"\n"
    return name.encode() + b"=" + value + b"\n"


def _fields(event: Event) -> dict[str, str]:
    fields = {"who": event.who, "address": event.address, "target": event.target}
    return {name: value for name, value in fields.items() if value}


def _escaped(value: str) -> str:
    """A value of structured data (§6.3.3)."""
    return re.sub(r'(["\\\]])', r"\\\1", _CONTROL.sub(" ", value))


def _host() -> str:
    name = re.sub(r"[^!-~]", "", socket.gethostname())[:255]
    return name or "-"
