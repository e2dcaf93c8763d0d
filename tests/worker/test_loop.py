"""The event loop with real sockets: bad peers are dropped in bounded time and memory, good ones do not notice."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from blockyard.iscsi.connection import State
from blockyard.iscsi.negotiation import encode_text
from blockyard.iscsi.pdu import (
    BHS_LENGTH,
    NO_TAG,
    DataIn,
    LoginRequest,
    LoginResponse,
    NopIn,
    NopOut,
    Pdu,
    ScsiCommand,
    ScsiResponse,
    decode,
    pdu_length,
)
from blockyard.worker import loop as loop_module
from blockyard.worker.loop import Loop, Patience
from tests.waiting import eventually
from tests.wire import INITIATOR, JOINING_KEYS, LOGIN_KEYS, TARGET, Rig

PATIENCE = Patience(login=0.6, silence=0.3, stall=1.5, tick=0.1)
_EVER = Patience(login=600, silence=600, stall=600)
SIZE = 8 << 20


class Server:
    """A loop on a thread, serving one end of socket pairs."""

    def __init__(self, rig: Rig, patience: Patience, *, poll: bool = False) -> None:
        self.rig = rig
        self.loop = Loop(rig.executor, poll=poll, patience=patience)
        self._waiting: list[socket.socket] = []
        self._wake = os.eventfd(0)
        self.loop.watch(self._wake, self._on_wake)
        self._thread = threading.Thread(target=self.loop.run)
        self._thread.start()

    def _on_wake(self, _: int) -> None:
        os.eventfd_read(self._wake)
        while self._waiting:
            self.loop.add(self._waiting.pop(), self.rig, "127.0.0.1:3260", "peer")

    def connect(self) -> Peer:
        ours, theirs = socket.socketpair()
        self._waiting.append(theirs)
        os.eventfd_write(self._wake, 1)
        return Peer(ours)

    def close(self) -> None:
        self.loop.running = False
        os.eventfd_write(self._wake, 1)
        self._thread.join(120)
        assert not self._thread.is_alive()
        self.loop.close()
        os.close(self._wake)
        self.rig.close()


def login_request(isid: int = 1, *, tsih: int = 0, cid: int = 0, **wishes: str) -> LoginRequest:
    """A login to the target in one request: a new session, or another connection of the one with that TSIH."""
    rest = JOINING_KEYS if tsih else {"SessionType": "Normal", **LOGIN_KEYS}
    keys = {"InitiatorName": INITIATOR, "TargetName": TARGET, **rest, **wishes}
    request = LoginRequest(
        encode_text(list(keys.items())),
        isid=b"\x80" + isid.to_bytes(5, "big"),
        tsih=tsih,
        cid=cid,
        itt=1,
        cmd_sn=1,
        csg=1,
        nsg=3,
        final=True,
    )
    request.immediate = True
    return request


class Peer:
    """An initiator that can misbehave."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(120)
        self._buffer = b""
        self._sn = 1

    def log_in(self, isid: int = 1, **wishes: str) -> LoginResponse:
        self.send(login_request(isid, **wishes))  # type: ignore[arg-type]
        answer = self.receive()
        assert isinstance(answer, LoginResponse)
        assert answer.status == 0
        self.command(bytes(16))  # takes the unit attention
        return answer

    def join(self, tsih: int, cid: int) -> None:
        """Log in as another connection of a session."""
        self.send(login_request(tsih=tsih, cid=cid))
        answer = self.receive()
        assert isinstance(answer, LoginResponse)
        assert (answer.status, answer.tsih) == (0, tsih)

    def send(self, *pdus: Pdu) -> None:
        self.sock.sendall(b"".join(pdu.encode() for pdu in pdus))

    def receive(self) -> Pdu:
        while True:
            if len(self._buffer) >= BHS_LENGTH:
                length = pdu_length(self._buffer, 0, header_digest=False, data_digest=False)
                if len(self._buffer) >= length:
                    pdu = decode(self._buffer[:length], 0)
                    self._buffer = self._buffer[length:]
                    return pdu
            data = self.sock.recv(1 << 20)
            if not data:
                raise EOFError
            self._buffer += data

    def pdu(self, cdb: bytes, length: int = 0, data: bytes = b"") -> ScsiCommand:
        self._sn += 1
        return ScsiCommand(
            data, final=True, read=bool(length) and not data, write=bool(data), attribute=1, itt=self._sn,
            edtl=length, cmd_sn=self._sn - 1, cdb=cdb,
        )  # fmt: skip

    def command(self, cdb: bytes, length: int = 0, data: bytes = b"") -> Pdu:
        self.send(self.pdu(cdb, length, data))
        return self.receive()

    def read(self, lba: int, blocks: int) -> bytes:
        answer = self.command(
            bytes([0x28, 0]) + lba.to_bytes(4, "big") + b"\0" + blocks.to_bytes(2, "big") + bytes(7), blocks * 512
        )
        assert isinstance(answer, DataIn), answer
        return bytes(answer.data)

    def dropped_within(self, seconds: float) -> bool:
        """Whether the target closes the connection in time; pings of the target's are read and not answered."""
        self.sock.settimeout(seconds)
        try:
            while self.sock.recv(1 << 20):
                pass
        except TimeoutError:
            return False
        except ConnectionError:
            return True
        return True


@pytest.fixture(params=[False, True], ids=["sleep", "poll"])
def poll(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def served(directory: Path, patience: Patience, *, poll: bool) -> Iterator[Server]:
    path = directory / "disk"
    path.write_bytes(os.urandom(4096) * (SIZE // 4096))
    server = Server(Rig.on_existing(path), patience, poll=poll)
    yield server
    server.close()


@pytest.fixture
def server(tmp_path: Path, *, poll: bool) -> Iterator[Server]:
    """One that drops nobody because this machine is slow."""
    yield from served(tmp_path, _EVER, poll=poll)


@pytest.fixture
def hasty(tmp_path: Path, *, poll: bool) -> Iterator[Server]:
    """One that has PATIENCE and no more."""
    yield from served(tmp_path, PATIENCE, poll=poll)


@pytest.fixture
def strict(tmp_path: Path, *, poll: bool) -> Iterator[Server]:
    """One that has PATIENCE and no more with who is logged in; to log in, a slow machine may take its time."""
    yield from served(tmp_path, replace(PATIENCE, login=_EVER.login), poll=poll)


def test_it_serves(server: Server) -> None:
    peer = server.connect()
    peer.log_in()
    block = peer.read(0, 8)
    assert block == (server.rig.node.scsi.luns.units and peer.read(8, 8))


def test_a_login_that_is_not_finished(hasty: Server) -> None:
    assert hasty.connect().dropped_within(120)


def test_a_login_that_drips(hasty: Server) -> None:
    peer = hasty.connect()
    with pytest.raises(OSError, match=r"."):  # long before it is all sent, which takes many times PATIENCE.login
        for byte in LoginRequest(final=True).encode() * 10:
            peer.sock.send(bytes([byte]))
            time.sleep(0.05)


def test_a_session_that_goes_silent_is_pinged_and_dropped(strict: Server) -> None:
    peer = strict.connect()
    peer.log_in()
    ping = peer.receive()
    assert isinstance(ping, NopIn)
    assert peer.dropped_within(120)
    eventually(lambda: not strict.rig.node.sessions, "the end of the session")


def test_what_was_held_is_answered_where_it_came_from(server: Server) -> None:
    first, other = server.connect(), server.connect()
    tsih = first.log_in(MaxConnections="2").tsih
    other.join(tsih, 1)
    before = first.pdu(bytes(16))
    behind = first.pdu(bytes(16))
    other.send(behind)
    other.send(NopOut(final=True, immediate=True, itt=99, ttt=NO_TAG, cmd_sn=behind.cmd_sn + 1))
    assert other.receive().itt == 99, "what is immediate does not wait"
    first.send(before)
    assert first.receive().itt == before.itt
    assert other.receive().itt == behind.itt


def test_a_connection_that_is_reinstated_is_closed(server: Server) -> None:
    first, other, again = server.connect(), server.connect(), server.connect()
    tsih = first.log_in(MaxConnections="2").tsih
    other.join(tsih, 1)
    again.join(tsih, 1)
    assert other.dropped_within(120)
    assert len(first.read(0, 8)) == 4096


def test_a_session_that_answers_pings_stays(strict: Server) -> None:
    peer = strict.connect()
    peer.log_in()
    until = time.monotonic() + 2 * PATIENCE.stall
    while time.monotonic() < until:
        ping = peer.receive()
        assert isinstance(ping, NopIn)
        peer.send(NopOut(final=True, immediate=True, itt=NO_TAG, ttt=ping.ttt, cmd_sn=peer._sn))
    assert len(peer.read(0, 8)) == 4096


def test_half_a_pdu_that_drips_on(strict: Server) -> None:
    peer = strict.connect()
    peer.log_in()
    data = peer.pdu(bytes([0x2A]) + bytes(6) + b"\1\0" + bytes(7), 131072, bytes(131072)).encode()
    with pytest.raises(OSError, match=r"."):  # long before it is all sent, which takes many times PATIENCE.stall
        for at in range(0, len(data), 100):
            peer.sock.send(data[at : at + 100])
            time.sleep(0.05)


def test_a_peer_that_does_not_read_stalls_itself_alone(strict: Server) -> None:
    strict.loop.patience = replace(strict.loop.patience, silence=600)  # the modest one answers no pings
    greedy, modest = strict.connect(), strict.connect()
    greedy.log_in(1)
    modest.log_in(2)
    greedy.sock.settimeout(0.3)
    with pytest.raises(OSError, match=r"."):  # nobody takes it any more, or it has been dropped for that already
        while True:
            cdb = bytes([0x28, 0]) + bytes(5) + (512).to_bytes(2, "big") + bytes(7)
            greedy.send(*(greedy.pdu(cdb, 262144) for _ in range(100)))
    for _ in range(100):
        assert len(modest.read(0, 8)) == 4096
    assert greedy.dropped_within(120)


def test_peers_are_not_blamed_for_the_time_that_the_process_stood_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine that has other things to do: who had nothing to say was never asked, and who logs in may go on."""
    rig = Rig.on_file(tmp_path / "disk")
    skipped = 0
    monkeypatch.setattr(loop_module, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + skipped))
    loop = Loop(rig.executor, patience=Patience(tick=0.01))
    ends = [socket.socketpair() for _ in range(2)]
    links = [loop.add(theirs, rig, "127.0.0.1:3260", "peer") for _, theirs in ends]
    states = []

    def look(now: float) -> None:
        nonlocal skipped
        states.append([link.connection.state for link in links])
        skipped += 1000
        loop.running = len(states) < 3

    loop.on_tick = look
    ends[0][0].sendall(login_request().encode())
    loop.run()
    assert states == [[State.FULL_FEATURE, State.LOGIN]] * 3
    assert len(loop.links) == 2
    loop.close()
    for ours, _ in ends:
        ours.close()
    rig.close()


def test_a_connection_cut_in_the_middle_of_a_write(server: Server) -> None:
    peer = server.connect()
    peer.log_in()
    data = peer.pdu(bytes([0x2A]) + bytes(6) + b"\1\0" + bytes(7), 131072, b"x" * 131072).encode()
    peer.sock.sendall(data[:70000])
    peer.sock.close()
    other = server.connect()
    other.log_in(2)
    assert len(other.read(0, 8)) == 4096


def test_buffers_go_back_to_their_pools(server: Server) -> None:
    peers = []
    for number in range(50):
        peer = server.connect()
        peer.log_in(number + 1)
        peer.sock.sendall(peer.pdu(bytes(16)).encode()[:-1])  # all but the last byte of a PDU
        peers.append(peer)
    eventually(  # half a PDU is dropped later
        lambda: all(link._rx is None for link in list(server.loop.links.values())), "half a PDU holds no buffer"
    )
    for peer in peers:
        peer.sock.sendall(b"\0")
        answer = peer.receive()
        assert isinstance(answer, ScsiResponse)
        assert answer.status == 0


def test_a_thousand_small_writes_in_one_stream(server: Server) -> None:
    """Many PDUs across the borders of the receive buffer: what was written is read back."""
    peer = server.connect()
    peer.log_in()
    for first in range(0, 1000, 100):
        blocks = range(first, first + 100)
        peer.send(
            *(
                peer.pdu(
                    bytes([0x2A, 0]) + (n * 8).to_bytes(4, "big") + b"\0\0\x08" + bytes(7),
                    4096, n.to_bytes(4, "big") * 1024,
                )
                for n in blocks
            )
        )  # fmt: skip
        for _ in blocks:
            answer = peer.receive()
            assert isinstance(answer, ScsiResponse)
            assert answer.status == 0
    for n in (0, 1, 499, 998, 999):
        assert peer.read(n * 8, 8) == n.to_bytes(4, "big") * 1024
