"""The messages of a worker process, to and fro (worker/process.py)."""

from __future__ import annotations

import base64
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from blockyard.iscsi.negotiation import decode_text
from blockyard.iscsi.pdu import LoginResponse
from blockyard.worker.handoff import pair, receive_message, send_message
from tests.wire import TARGET
from tests.worker.test_loop import Peer, login_request


class Worker:
    """A worker process and the end of its socket that control has."""

    def __init__(self) -> None:
        self.control, theirs = pair()
        self.control.settimeout(120)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "blockyard.worker", str(theirs.fileno())], pass_fds=[theirs.fileno()]
            )

    def send(self, **message: Any) -> None:
        send_message(self.control, message)

    def receive(self) -> dict[str, Any]:
        received = receive_message(self.control)
        assert received is not None, "the worker has gone"
        return received[0]

    def start(self, path: Path, **options: int) -> dict[str, Any]:
        volume = {"path": str(path), "uuid": str(uuid.UUID(int=7))}
        configuration = {
            "portal_groups": {"1": {"portals": ["127.0.0.1:3260"]}},
            "volumes": {"disk": volume},
            "targets": {TARGET: {"luns": {"0": "disk"}, **options}},
        }
        self.send(type="configure", configuration=configuration, poll=False)
        return self.receive()

    def hand_over(self, received: bytes, answered: int = 0) -> Peer:
        """Give it a connection of which `received` has been read already."""
        ours, theirs = socket.socketpair()
        message = {
            "type": "connection", "number": 7, "portal": "127.0.0.1:3260", "peer": "test",
            "received": base64.b64encode(received).decode(), "answered": answered,
        }  # fmt: skip
        with theirs:
            send_message(self.control, message, [theirs.fileno()])
        assert self.receive() == {"type": "reply", "number": 7}
        return Peer(ours)


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.control.close()
    assert worker.process.wait(120) in (0, 1)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(bytes(8 << 20))
    return path


def test_from_start_to_stop(worker: Worker, disk: Path) -> None:
    assert worker.start(disk) == {"type": "ready"}
    peer = worker.hand_over(login_request().encode())
    assert peer.receive().opcode == 0x23
    peer.command(bytes(16))  # takes the unit attention
    assert peer.read(0, 8) == bytes(4096)
    peer.command(bytes([0x2A]) + bytes(6) + b"\0\x08" + bytes(7), 4096, b"x" * 4096)
    worker.send(type="request", name="statistics", number=5)
    answer = worker.receive()
    assert (answer["type"], answer["number"]) == ("reply", 5)
    counters = answer["volumes"]["disk"]
    assert (counters["read_ops"], counters["read_bytes"]) == (1, 4096)
    assert (counters["write_ops"], counters["write_bytes"]) == (1, 4096)
    (session,) = answer["sessions"]
    assert session["target"] == TARGET
    assert session["connections"] == [{"cid": 0, "peer": "test", "portal": "127.0.0.1:3260"}]
    worker.send(type="request", name="drop sessions", number=6, initiator="nobody", target=None, tsih=None)
    assert worker.receive() == {"type": "reply", "number": 6, "dropped": 0}
    worker.send(type="request", name="nonsense", number=7)
    assert worker.receive() == {
        "type": "reply",
        "number": 7,
        "error": "a worker knows no request 'nonsense'",
        "refused": True,
    }
    worker.send(type="stop", grace=0)
    assert worker.receive() == {"type": "stopped"}
    assert worker.process.wait(120) == 0


def test_targets_have_limits_of_their_own(worker: Worker, disk: Path) -> None:
    assert worker.start(disk, max_connections=3, error_recovery_level=2) == {"type": "ready"}
    wishes = {"MaxConnections": "8", "ErrorRecoveryLevel": "2", "DefaultTime2Retain": "60"}
    peer = worker.hand_over(login_request(**wishes).encode())  # type: ignore[arg-type]
    answer = peer.receive()
    assert isinstance(answer, LoginResponse)
    agreed = dict(decode_text(answer.data))
    assert (agreed["MaxConnections"], agreed["ErrorRecoveryLevel"]) == ("3", "2")
    assert agreed["DefaultTime2Retain"] == "20"


def test_statistics_know_every_connection(worker: Worker, disk: Path) -> None:
    assert worker.start(disk) == {"type": "ready"}
    peer = worker.hand_over(login_request(MaxConnections="2").encode())
    answer = peer.receive()
    assert isinstance(answer, LoginResponse)
    other = worker.hand_over(login_request(tsih=answer.tsih, cid=5).encode())
    assert other.receive().opcode == 0x23
    worker.send(type="request", name="statistics", number=0)
    (session,) = worker.receive()["sessions"]
    assert session["tsih"] == answer.tsih
    assert [connection["cid"] for connection in session["connections"]] == [0, 5]


def test_no_reply_is_lost_when_control_is_behind_with_reading(worker: Worker, disk: Path) -> None:
    assert worker.start(disk) == {"type": "ready"}
    sent = 0

    def ask() -> None:
        nonlocal sent
        for number in range(3000):
            worker.send(type="request", name="alive", number=number)
            sent += 1

    asking = threading.Thread(target=ask)
    asking.start()
    before = -1
    while sent != before:  # until the sockets are full both ways
        before = sent
        time.sleep(0.1)
    assert [worker.receive()["number"] for _ in range(3000)] == list(range(3000))
    asking.join()


def test_what_has_been_answered_is_not_said_again(worker: Worker, disk: Path) -> None:
    assert worker.start(disk) == {"type": "ready"}
    peer = worker.hand_over(login_request().encode())
    answer = peer.receive().encode()
    again = worker.hand_over(login_request(isid=2).encode(), answered=len(answer) - 4)
    assert again.sock.recv(100) == answer[-4:]


def test_a_disk_that_cannot_be_opened_is_reported(worker: Worker, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    answer = worker.start(missing)
    assert answer["type"] == "failed"
    assert str(missing) in answer["error"]
    assert worker.process.wait(120) == 1


def test_a_worker_without_control_ends(worker: Worker, disk: Path) -> None:
    assert worker.start(disk) == {"type": "ready"}
    worker.control.close()
    assert worker.process.wait(120) == 0
