"""Accepting: whose connection is it? And whatever a stranger sends, it costs him more than us."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from blockyard.control.acceptor import Acceptor, WorkerUnavailable
from blockyard.control.portals import listen, parse_portal
from blockyard.iscsi.directory import Directory, Entry
from blockyard.iscsi.negotiation import decode_text, encode_text
from blockyard.iscsi.pdu import LoginRequest, LoginResponse, LoginStatus, LogoutRequest, LogoutResponse, NopOut, Pdu
from blockyard.worker.handoff import Message
from tests.control import serving
from tests.waiting import comes_about

TARGET = "iqn.2026-11.test:target"


@dataclass
class Inbox:
    """The workers' end: keeps what is handed over."""

    available: bool = True
    messages: list[Message] = field(default_factory=list)
    sockets: list[socket.socket] = field(default_factory=list)

    async def hand_over(self, target: str, message: Message, fd: int) -> None:
        if not self.available:
            raise WorkerUnavailable
        self.messages.append(message)
        self.sockets.append(socket.socket(fileno=os.dup(fd)))


class Peer:
    """One connection to the acceptor, from the initiator's end; its calls run in a thread."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.sock = socket.create_connection(address, timeout=120)

    async def send(self, data: bytes) -> None:
        await asyncio.to_thread(self.sock.sendall, data)

    async def receive(self) -> Pdu:
        return await asyncio.to_thread(serving.receive, self.sock)

    async def login_response(self) -> LoginResponse:
        response = await self.receive()
        assert isinstance(response, LoginResponse)
        return response

    async def closed(self) -> bool:
        """Whether the other end closes without another byte."""
        try:
            return await asyncio.to_thread(self.sock.recv, 1) == b""
        except ConnectionResetError:
            return True


Connect = Callable[[], Peer]


def run(
    scene: Callable[[Connect, Inbox, Acceptor], Awaitable[None]], *, deadline: float = 60.0, max_half_open: int = 256
) -> Inbox:
    """Play a scene with an acceptor on a port of its own."""
    inbox = Inbox()

    async def play() -> None:
        listener, portal = listen(parse_portal("127.0.0.1:0"))
        acceptor = Acceptor(
            Directory(
                [Entry(TARGET, (1,)), Entry("iqn.2026-11.test:other", (1,))], {1: [portal, parse_portal("192.0.2.1")]}
            ),
            inbox, [listener],
            login_deadline=deadline, max_half_open=max_half_open,
        )  # fmt: skip
        acceptor.start()
        peers: list[Peer] = []

        def connect() -> Peer:
            peers.append(Peer(("127.0.0.1", portal.port)))
            return peers[-1]

        try:
            async with asyncio.timeout(120):
                await scene(connect, inbox, acceptor)
        finally:
            await acceptor.close()
            for sock in [*inbox.sockets, *(peer.sock for peer in peers)]:
                sock.close()

    asyncio.run(play())
    return inbox


def bare_request(text: bytes) -> bytes:
    return LoginRequest(csg=1, nsg=3, final=True, data=text).encode()


def test_a_login_goes_to_its_worker_unanswered() -> None:
    request = serving.login_request(TARGET)

    async def scene(connect: Connect, inbox: Inbox, acceptor: Acceptor) -> None:
        peer = connect()
        await peer.send(request)
        await comes_about(lambda: bool(inbox.messages))
        message = inbox.messages[0]
        assert base64.b64decode(message["received"]) == request
        assert message["answered"] == 0
        assert message["portal"] == "{}:{}".format(*peer.sock.getpeername())
        assert message["peer"] == "{}:{}".format(*peer.sock.getsockname())
        assert not os.get_blocking(inbox.sockets[0].fileno())
        assert inbox.sockets[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert inbox.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        inbox.sockets[0].send(b"from the worker")
        assert await asyncio.to_thread(peer.sock.recv, 100) == b"from the worker"
        await comes_about(lambda: not acceptor.half_open)

    run(scene)


def test_a_login_that_comes_byte_by_byte() -> None:
    request = serving.login_request(TARGET)

    async def scene(connect: Connect, inbox: Inbox, acceptor: Acceptor) -> None:
        peer = connect()
        for byte in request:
            peer.sock.send(bytes([byte]))
            await asyncio.sleep(0)
        await comes_about(lambda: bool(inbox.messages))
        assert base64.b64decode(inbox.messages[0]["received"]) == request

    run(scene)


def test_what_follows_the_login_at_once_goes_along() -> None:
    request, ping = serving.login_request(TARGET), NopOut(itt=5, final=True).encode()

    async def scene(connect: Connect, inbox: Inbox, acceptor: Acceptor) -> None:
        await connect().send(request + ping)
        await comes_about(lambda: bool(inbox.messages))
        assert base64.b64decode(inbox.messages[0]["received"]) == request + ping

    run(scene)


def test_text_in_several_pdus_is_answered_until_the_target_is_known() -> None:
    text = encode_text([("InitiatorName", serving.INITIATOR), ("TargetName", TARGET), ("SessionType", "Normal")])
    parts = [text[:10], text[10:50], text[50:]]
    requests = []
    for part in parts:
        last = part is parts[-1]
        requests.append(
            LoginRequest(data=part, csg=1, nsg=3 if last else 0, final=last, continued=not last, immediate=True)
        )

    async def scene(connect: Connect, inbox: Inbox, acceptor: Acceptor) -> None:
        peer = connect()
        answered = 0
        for request in requests[:-1]:
            await peer.send(request.encode())
            response = await peer.login_response()
            assert (response.status, response.final, len(response.data)) == (0, False, 0)
            answered += len(response.encode())
        await peer.send(requests[-1].encode())
        await comes_about(lambda: bool(inbox.messages))
        assert inbox.messages[0]["answered"] == answered == 96
        assert base64.b64decode(inbox.messages[0]["received"]) == b"".join(request.encode() for request in requests)

    run(scene)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (serving.login_request("iqn.2026-11.test:nowhere"), LoginStatus.NOT_FOUND),
        (serving.login_request(TARGET, version_min=1, version_max=1), LoginStatus.UNSUPPORTED_VERSION),
        (serving.login_request(TARGET, keys={"TargetName": ""}), None),
        (bare_request(b"InitiatorName=iqn.2026-11.test:i\0"), LoginStatus.MISSING_PARAMETER),
        (bare_request(b"TargetName=iqn.2026-11.test:t\0"), LoginStatus.MISSING_PARAMETER),
        (bare_request(b"\xff\xfe\0\0="), None),
    ],
)  # fmt: skip
def test_a_login_that_cannot_be_is_answered_with_the_reason(request_bytes: bytes, status: LoginStatus | None) -> None:
    async def scene(connect: Connect, inbox: Inbox, acceptor: Acceptor) -> None:
        peer = connect()
        await peer.send(request_bytes)
        response = await peer.login_response()
        assert response.status >= 0x0200
        assert status in (None, response.status)
        assert await peer.closed()
        await comes_about(lambda: not acceptor.half_open)
        assert not inbox.messages

    run(scene)


def test_a_target_whose_worker_is_away() -> None:
    async def scene(connect: Connect, inbox: Inbox, acceptor: Acceptor) -> None:
        inbox.available = False
        peer = connect()
        await peer.send(serving.login_request(TARGET))
        response = await peer.login_response()
        assert response.status == LoginStatus.SERVICE_UNAVAILABLE
        assert await peer.closed()

    run(scene)


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: example.com\r\nUser-Agent: somebody\r\n\r\n",
        b"\x16\x03\x01" + bytes(200),
        NopOut(itt=1).encode(),
        b"\x43" + b"\xff" * 47,
        bytes([0x43, 0x80, 0, 0, 255, 0xFF, 0xFF, 0xFF]) + bytes(40),
        bytes(4096),
    ],
)
def test_garbage_is_closed_and_logged(garbage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def scene(connect: Connect, inbox: Inbox, acceptor: Acceptor) -> None:
        peer = connect()
        await peer.send(garbage)
        assert await peer.closed()
        await comes_about(lambda: not acceptor.half_open)

    with caplog.at_level(logging.WARNING):
        run(scene)
    assert len([record for record in caplog.records if record.name.startswith("blockyard.")]) == 1


def test_silence_is_closed_after_the_deadline() -> None:
    async def scene(connect: Connect, inbox: Inbox, acceptor: Acceptor) -> None:
        silent, slow = connect(), connect()
        began = asyncio.get_running_loop().time()
        await slow.send(serving.login_request(TARGET)[:30])
        assert await slow.closed()
        assert await silent.closed()
        assert asyncio.get_running_loop().time() - began > 0.2
        await comes_about(lambda: not acceptor.half_open)

    run(scene, deadline=0.3)


def test_too_many_half_open_logins_push_out_the_oldest() -> None:
    async def scene(connect: Connect, inbox: Inbox, acceptor: Acceptor) -> None:
        idle = [connect() for _ in range(40)]
        await comes_about(lambda: acceptor.half_open == 8)
        assert all([await peer.closed() for peer in idle[:32]])
        honest = connect()
        await honest.send(serving.login_request(TARGET))
        await comes_about(lambda: bool(inbox.messages))
        assert acceptor.half_open <= 8

    run(scene, deadline=120, max_half_open=8)


def test_many_connections_at_once() -> None:
    async def scene(connect: Connect, inbox: Inbox, acceptor: Acceptor) -> None:
        peers = [connect() for _ in range(200)]
        for peer in peers:
            await peer.send(serving.login_request(TARGET))
        await comes_about(lambda: len(inbox.messages) == 200)
        await comes_about(lambda: acceptor.half_open == 0)

    run(scene)


def test_connections_that_are_gone_before_they_are_looked_at() -> None:
    async def scene(connect: Connect, inbox: Inbox, acceptor: Acceptor) -> None:
        for _ in range(50):
            sock = connect().sock
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # close sends a reset
            sock.close()
        await connect().send(serving.login_request(TARGET))
        await comes_about(lambda: bool(inbox.messages))
        await comes_about(lambda: acceptor.half_open == 0)

    run(scene)


@pytest.mark.parametrize(
    ("question", "targets"),
    [
        ("All", [TARGET, "iqn.2026-11.test:other"]),
        (TARGET, [TARGET]),
        (TARGET.upper(), [TARGET]),
        ("iqn.2026-11.test:nowhere", []),
        ("not a name", []),
    ],
)
def test_discovery(question: str, targets: list[str]) -> None:
    async def scene(connect: Connect, inbox: Inbox, acceptor: Acceptor) -> None:
        peer = connect()
        await peer.send(serving.login_request(None))
        response = await peer.login_response()
        assert (response.status, response.nsg, response.final) == (0, 3, True)
        await comes_about(lambda: not acceptor.half_open)
        await peer.send(serving.text_request(question, response))
        pairs = list(decode_text((await peer.receive()).data))
        address = "{}:{},1".format(*peer.sock.getpeername())
        assert [value for key, value in pairs if key == "TargetName"] == targets
        assert [value for key, value in pairs if key == "TargetAddress"] == [address, "192.0.2.1:3260,1"] * len(targets)
        await peer.send(LogoutRequest(itt=2, reason=0, cmd_sn=response.exp_cmd_sn + 1, final=True).encode())
        assert isinstance(await peer.receive(), LogoutResponse)
        assert await peer.closed()

    run(scene)


def test_discovery_may_name_a_target() -> None:
    async def scene(connect: Connect, inbox: Inbox, acceptor: Acceptor) -> None:
        peer = connect()
        await peer.send(serving.login_request(None, keys={"TargetName": TARGET}))
        response = await peer.login_response()
        assert response.status == 0
        await peer.send(serving.text_request(TARGET, response))
        pairs = list(decode_text((await peer.receive()).data))
        assert ("TargetName", TARGET) in pairs

    run(scene)


def test_who_has_come_by_a_portal_that_is_gone_is_dropped() -> None:
    async def scene(connect: Connect, inbox: Inbox, acceptor: Acceptor) -> None:
        asking, half = connect(), connect()
        await asking.send(serving.login_request(None))
        assert (await asking.login_response()).status == 0
        await half.send(serving.login_request(None)[:40])
        await comes_about(lambda: acceptor.half_open == 1)
        await acceptor.drop_stranded()
        assert acceptor.half_open == 1, "the portal is still there"
        acceptor.directory = Directory([], {1: [parse_portal("192.0.2.1")]})
        await acceptor.drop_stranded()
        assert acceptor.half_open == 0
        assert await asking.closed()
        assert await half.closed()

    run(scene, deadline=120)
