"""`blockyard serve` as people run it, and just enough of an initiator to see whether it is there.

Who wants a target only, to test something else against, takes tests/serving.py; here it matters what it prints and
how it ends.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from blockyard.iscsi.negotiation import decode_text, encode_text
from blockyard.iscsi.pdu import LoginRequest, LoginResponse, Pdu, TextRequest, TextResponse, decode, pdu_length
from tests.serving import workers_of
from tests.waiting import LIMIT

INITIATOR = "iqn.2026-11.test:initiator"


class Served:
    """A running `blockyard serve` that has said that it is ready."""

    def __init__(self, process: subprocess.Popen[str], printed: str) -> None:
        self.process = process
        self.printed = printed
        self.targets = re.findall(r"^  target  (\S+)$", printed, re.MULTILINE)
        self.portals = re.findall(r"^  portal  (\S+)", printed, re.MULTILINE)
        self.log = ""  # what stood on stderr, once it has ended

    @property
    def address(self) -> tuple[str, int]:
        """The first portal."""
        host, _, port = self.portals[0].rpartition(":")
        return host.strip("[]"), int(port)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end. Returns the exit status."""
        self.process.send_signal(number)
        self.log = self.process.communicate(timeout=LIMIT)[1]
        return self.process.returncode

    def workers(self) -> list[int]:
        """The process ids of the workers that run now."""
        return workers_of(self.process.pid)


def start(
    state: Path, *arguments: str, portal: str | None = "127.0.0.1:0", **environment: str
) -> subprocess.Popen[str]:
    """Start `blockyard serve` with these arguments."""
    portals = [] if portal is None else ["--portal", portal]
    if not {"--config", "--console"} & {*arguments}:
        portals += ["--console", "off"]  # which takes its time to begin
    return subprocess.Popen(
        [sys.executable, "-m", "blockyard", "serve", "--state", str(state), *portals, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


@contextmanager
def serve(state: Path, *arguments: str, portal: str | None = "127.0.0.1:0", **environment: str) -> Iterator[Served]:
    """Run `blockyard serve` until the block ends."""
    process = start(state, *arguments, portal=portal, **environment)
    try:
        assert process.stdout is not None
        printed = ""
        for line in process.stdout:
            printed += line
            if line == "Ready.\n":
                break
        else:
            raise AssertionError(f"serve ended: {process.communicate(timeout=LIMIT)[1]}")
        yield Served(process, printed)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def login_request(target: str | None, *, keys: dict[str, str] | None = None, **fields: int) -> bytes:
    """The first login request: straight to full feature phase, for `target` or (None) for discovery."""
    pairs = {"InitiatorName": INITIATOR}
    pairs |= {"SessionType": "Discovery"} if target is None else {"SessionType": "Normal", "TargetName": target}
    request = LoginRequest(
        data=encode_text((pairs | (keys or {})).items()), csg=1, nsg=3, final=True, isid=b"\x80\0\0\0\0\1"
    )
    for name, value in fields.items():
        setattr(request, name, value)
    request.immediate = True
    return request.encode()


def receive(sock: socket.socket) -> Pdu:
    """The next PDU. Raises EOFError when there is none any more."""
    data = _exactly(sock, 48)
    data += _exactly(sock, pdu_length(data, 0, header_digest=False, data_digest=False) - 48)
    return decode(data, 0)


def log_in(address: tuple[str, int], target: str | None) -> tuple[socket.socket, LoginResponse]:
    """A connection, and the answer to its login."""
    sock = socket.create_connection(address, timeout=LIMIT)
    sock.sendall(login_request(target))
    response = receive(sock)
    assert isinstance(response, LoginResponse)
    return sock, response


def discover(address: tuple[str, int], question: str = "All") -> list[tuple[str, str]]:
    """What SendTargets answers."""
    sock, response = log_in(address, None)
    with sock:
        assert response.status == 0
        assert response.nsg == 3
        sock.sendall(text_request(question, response))
        answer = receive(sock)
        assert isinstance(answer, TextResponse)
        return list(decode_text(answer.data))


def text_request(question: str, login: LoginResponse) -> bytes:
    """SendTargets=question as the first command after `login`."""
    return TextRequest(
        data=encode_text([("SendTargets", question)]), itt=1, ttt=0xFFFFFFFF, final=True, cmd_sn=login.exp_cmd_sn,
        exp_stat_sn=login.stat_sn + 1,
    ).encode()  # fmt: skip


def _exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data
