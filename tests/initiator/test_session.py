"""The session against a target that plays a part: everything that no well-behaved target does on demand."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from blockyard.initiator import (
    DIGEST_CHOICES,
    Connection,
    InitiatorError,
    InitiatorLogin,
    LoginError,
    ProtocolError,
    Redirected,
    Rejected,
    Session,
    SessionLost,
    open_session,
)
from blockyard.initiator.discovery import parse_targets
from blockyard.iscsi.login import MAX_REQUESTS, Found, LoginState, TargetLogin
from blockyard.iscsi.names import PortalAddress
from blockyard.iscsi.negotiation import Preferences, encode_text
from blockyard.iscsi.pdu import (
    BHS_LENGTH,
    NO_TAG,
    R2T,
    AsyncEvent,
    AsyncMessage,
    DataIn,
    DataOut,
    LoginRequest,
    LoginResponse,
    LoginStatus,
    LogoutRequest,
    LogoutResponse,
    NopIn,
    NopOut,
    Pdu,
    Reject,
    RejectReason,
    ScsiCommand,
    ScsiResponse,
    TaskFunction,
    TaskManagementRequest,
    TaskManagementResponse,
    TextRequest,
    TextResponse,
    decode,
    pdu_length,
)
from blockyard.scsi.lun import encode_lun

INITIATOR = "iqn.2024-01.test:initiator"
TARGET = "iqn.2024-01.test:target"


class Node:
    def find(self, name: str, portal: str) -> Found:
        return Found(self, 1)


class Player:
    """The target's end of a connection, whose part is played by a function in a thread of its own."""

    def __init__(self, sock: socket.socket, preferences: Preferences | None = None, window: int = 16) -> None:
        self.sock = sock
        self.stat_sn = 0
        self.exp_cmd_sn = 0
        self.window = window
        self.digests = {"header_digest": False, "data_digest": False}
        self._preferences = preferences
        self._buffer = b""

    def read(self, length: int) -> bytes:
        while len(self._buffer) < length:
            data = self.sock.recv(1 << 16)
            if not data:
                raise EOFError
            self._buffer += data
        data, self._buffer = self._buffer[:length], self._buffer[length:]
        return data

    def receive(self) -> Any:
        header = self.read(BHS_LENGTH)
        length = pdu_length(header, 0, **self.digests)
        pdu = decode(header + self.read(length - BHS_LENGTH), 0, **self.digests)
        if isinstance(pdu, ScsiCommand | NopOut | TextRequest | LogoutRequest) and not pdu.immediate:
            assert pdu.cmd_sn == self.exp_cmd_sn
            self.exp_cmd_sn += 1
        return pdu

    def send(self, pdu: Any, *, advances: bool = True) -> None:
        if hasattr(pdu, "stat_sn"):  # else it is one that only initiators send
            pdu.stat_sn = self.stat_sn
            pdu.exp_cmd_sn = self.exp_cmd_sn
            pdu.max_cmd_sn = self.exp_cmd_sn + self.window - 1
        self.stat_sn += advances
        self.sock.sendall(pdu.encode(**self.digests))

    def log_in(self) -> TargetLogin:
        login = TargetLogin(
            Node(), "", attach=lambda login: 1, preferences=self._preferences, command_window=self.window
        )
        while login.state is LoginState.NEGOTIATING:
            pdu = self.receive()
            assert isinstance(pdu, LoginRequest)
            for response in login.receive(pdu):
                self.sock.sendall(response.encode())
        self.stat_sn, self.exp_cmd_sn = login.next_stat_sn, login.cmd_sn
        self.digests = {"header_digest": login.parameters.header_digest, "data_digest": login.parameters.data_digest}
        return login

    def complete(self, pdu: ScsiCommand, **fields: Any) -> None:
        self.send(ScsiResponse(itt=pdu.itt, final=True, **fields))

    def log_out(self) -> None:
        while not isinstance(pdu := self.receive(), LogoutRequest):
            pass
        self.send(LogoutResponse(itt=pdu.itt, final=True))


Part = Callable[[Player], None]
Play = Callable[..., Session]


@pytest.fixture
def play() -> Iterator[Play]:
    """Start a part; what comes back is the session that has logged in to it. Its failures fail the test."""
    threads: list[threading.Thread] = []
    failures: list[BaseException] = []
    sessions: list[Session] = []

    def start(
        part: Part, *, target: Preferences | None = None, window: int = 16, timeout: float = 120, **options: Any
    ) -> Session:
        ours, theirs = socket.socketpair()

        def run() -> None:
            with theirs:
                try:
                    player = Player(theirs, target, window)
                    player.log_in()
                    part(player)
                    player.log_out()
                except (EOFError, ConnectionError):
                    pass
                except BaseException as failure:
                    failures.append(failure)

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        login = InitiatorLogin(INITIATOR, TARGET, isid=b"\x80" + bytes(5), **options)
        session = Session(Connection(ours, login, timeout), timeout)
        sessions.append(session)
        return session

    yield start
    for session in sessions:
        session.close()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    assert not failures, failures


READ = bytes((0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0))
WRITE = bytes((0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0))


# ---- data out


@pytest.mark.parametrize(
    ("wishes", "length", "expected"),
    [
        # (immediate bytes, unsolicited Data-Out lengths)
        ({"initial_r2t": True, "immediate_data": False}, 5000, (0, [])),
        ({"initial_r2t": True, "immediate_data": True}, 5000, (1024, [])),
        ({"initial_r2t": True, "immediate_data": True}, 800, (800, [])),
        ({"initial_r2t": False, "immediate_data": False}, 5000, (0, [1024, 1024])),
        ({"initial_r2t": False, "immediate_data": True}, 5000, (1024, [1024])),
        ({"initial_r2t": False, "immediate_data": True}, 1500, (1024, [476])),
        ({"initial_r2t": False, "immediate_data": True}, 1024, (1024, [])),
    ],
)
def test_unsolicited_and_solicited_data(
    play: Play, wishes: dict[str, Any], length: int, expected: tuple[int, list[int]]
) -> None:
    data = bytes(range(256)) * 20
    received = bytearray()

    def part(player: Player) -> None:
        command = player.receive()
        assert isinstance(command, ScsiCommand)
        assert (command.write, command.read, command.edtl) == (True, False, length)
        received.extend(command.data)
        lengths: list[int] = []
        final = command.final
        while not final:
            pdu = player.receive()
            assert isinstance(pdu, DataOut)
            assert (pdu.ttt, pdu.data_sn, pdu.buffer_offset) == (NO_TAG, len(lengths), len(received))
            lengths.append(len(pdu.data))
            received.extend(pdu.data)
            final = pdu.final
        assert (len(command.data), lengths) == expected
        r2t_sn = 0
        while len(received) < length:
            wanted = min(2500, length - len(received))
            r2t = R2T(
                itt=command.itt, ttt=77, final=True, r2t_sn=r2t_sn, buffer_offset=len(received), desired_length=wanted
            )
            player.send(r2t, advances=False)
            r2t_sn += 1
            for data_sn in range(-(-wanted // 1024)):
                pdu = player.receive()
                assert (pdu.ttt, pdu.data_sn, pdu.buffer_offset) == (77, data_sn, len(received))
                received.extend(pdu.data)
            assert pdu.final
        player.complete(command)

    target = Preferences(max_recv_data_segment_length=1024, first_burst_length=2048, max_burst_length=4096, **wishes)
    session = play(part, target=target)
    assert session.command(0, WRITE, data[:length]).status == 0
    assert received == data[:length]


def test_a_long_write_and_long_reads_do_not_lock_up(play: Play) -> None:
    size = 4 << 20

    def part(player: Player) -> None:
        commands = [player.receive() for _ in range(4)]
        for command in commands:  # more than a socket holds, while the initiator has a long write to send
            for at in range(0, size, 1 << 18):
                last = at + (1 << 18) == size
                player.send(
                    DataIn(
                        itt=command.itt, ttt=NO_TAG, data_sn=at >> 18, buffer_offset=at, final=True, has_status=last,
                        data=bytes(1 << 18),
                    ),
                    advances=last,
                )  # fmt: skip
        write = player.receive()
        got = len(write.data)
        player.send(R2T(itt=write.itt, ttt=1, final=True, buffer_offset=got, desired_length=1 << 20), advances=False)
        while got < len(write.data) + (1 << 20):
            got += len(player.receive().data)
        player.complete(write)

    session = play(part)
    reads = [session.submit(0, READ, read_length=size) for _ in range(4)]
    write = session.submit(0, WRITE, bytes((1 << 20) + (1 << 18)))
    assert session.wait(write).status == 0
    assert [len(session.wait(read).data) for read in reads] == [size] * 4


@pytest.mark.parametrize(
    "r2t",
    [
        {"buffer_offset": 0, "desired_length": 0},
        {"buffer_offset": 0, "desired_length": 4097},
        {"buffer_offset": 4000, "desired_length": 1000},
        {"buffer_offset": 0, "desired_length": 100, "r2t_sn": 1},
        {"buffer_offset": 0, "desired_length": 100, "itt": 0x77},
    ],
)
def test_impossible_r2ts(play: Play, r2t: dict[str, int]) -> None:
    def part(player: Player) -> None:
        command = player.receive()
        player.send(R2T(**({"itt": command.itt, "ttt": 1, "final": True} | r2t)), advances=False)

    session = play(part, target=Preferences(max_burst_length=4096, first_burst_length=512))
    with pytest.raises(ProtocolError):
        session.command(0, WRITE, bytes(4500))
    with pytest.raises(ProtocolError):
        session.ping()


# ---- data in, status


def test_status_comes_with_data_or_alone(play: Play) -> None:
    def part(player: Player) -> None:
        command = player.receive()
        player.send(DataIn(itt=command.itt, ttt=NO_TAG, data=b"abcd"), advances=False)
        player.send(
            DataIn(
                itt=command.itt, ttt=NO_TAG, data=b"ef", data_sn=1, buffer_offset=4, final=True, has_status=True,
                underflow=True, residual=4,
            )
        )  # fmt: skip
        command = player.receive()
        player.send(DataIn(itt=command.itt, ttt=NO_TAG, final=True, data=b"xyz"), advances=False)
        player.complete(command, status=2, overflow=True, residual=7, data=b"\0\x03\x70\0\x05")

    session = play(part)
    first = session.command(0, READ, read_length=10)
    assert (first.status, first.data, first.residual, first.overflow, first.sense) == (0, b"abcdef", 4, False, b"")
    second = session.command(0, READ, read_length=10)
    assert (second.status, second.data, second.residual, second.overflow) == (2, b"xyz", 7, True)
    assert second.sense == b"\x70\0\x05"


@pytest.mark.parametrize(
    "pdu",
    [
        DataIn(ttt=NO_TAG, data=b"abcd", data_sn=1),
        DataIn(ttt=NO_TAG, data=b"abcd", buffer_offset=1),
        DataIn(ttt=NO_TAG, data=b"abcdefghijk"),
        DataIn(ttt=NO_TAG, data=bytes(513)),
        LoginResponse(),
        NopOut(),
    ],
    ids=["DataSN", "offset", "too much", "too long a segment", "login", "opcode"],
)
def test_protocol_errors(play: Play, pdu: Pdu) -> None:
    def part(player: Player) -> None:
        pdu.itt = player.receive().itt
        player.send(pdu, advances=False)

    session = play(part, preferences=Preferences(max_recv_data_segment_length=512))
    with pytest.raises(ProtocolError):
        session.command(0, READ, read_length=10)


def test_a_response_that_is_lost(play: Play) -> None:
    def part(player: Player) -> None:
        command = player.receive()
        player.stat_sn += 1
        player.complete(command)

    with pytest.raises(ProtocolError, match="StatSN"):
        play(part).command(0, READ, read_length=10)


@pytest.mark.parametrize("at", [10, -1], ids=["header", "data"])
def test_digests_are_checked(play: Play, at: int) -> None:
    def part(player: Player) -> None:
        command = player.receive()
        pdu = DataIn(itt=command.itt, ttt=NO_TAG, stat_sn=player.stat_sn, final=True, data=b"abcd")
        data = bytearray(pdu.encode(**player.digests))
        data[at] ^= 1
        player.sock.sendall(data)

    session = play(part, preferences=Preferences(header_digest=("CRC32C",), data_digest=("CRC32C",)))
    with pytest.raises(ProtocolError, match="digest"):
        session.command(0, READ, read_length=4)


def test_a_command_that_the_target_fails(play: Play) -> None:
    def part(player: Player) -> None:
        player.complete(player.receive(), response=1)
        player.complete(player.receive())

    session = play(part)
    with pytest.raises(InitiatorError, match="response 0x01"):
        session.command(0, READ)
    assert session.command(0, READ).status == 0


def test_long_and_bidirectional_commands(play: Play) -> None:
    cdb = bytes(range(32))

    def part(player: Player) -> None:
        command = player.receive()
        assert command.cdb == cdb[:16]
        assert command.ahs == b"\0\x11\x01\0" + cdb[16:] + b"\0\x05\x02\0" + (100).to_bytes(4, "big")
        assert (command.read, command.write, command.edtl) == (True, True, 4)
        player.complete(command)

    assert play(part).command(0, cdb, b"abcd", 100).status == 0


# ---- command window


def test_the_command_window_is_respected(play: Play) -> None:
    def part(player: Player) -> None:
        for window in (1, 1, 4):
            command = player.receive()
            player.sock.settimeout(0.05)
            with pytest.raises(TimeoutError):  # nothing comes beyond the window
                player.receive()
            player.sock.settimeout(None)
            player.window = window
            player.complete(command)
        commands = [player.receive() for _ in range(4)]
        for command in reversed(commands):
            player.complete(command)

    session = play(part, window=1)
    assert session.window == 1
    commands = [session.submit(0, READ) for _ in range(7)]
    for command in commands:
        assert session.wait(command).status == 0
    assert session.window == 4


# ---- everything else


def test_a_ping_of_the_target_is_answered(play: Play) -> None:
    def part(player: Player) -> None:
        command = player.receive()
        player.send(NopIn(itt=NO_TAG, ttt=5, lun=9, final=True, data=b"abc"), advances=False)
        answer = player.receive()
        assert isinstance(answer, NopOut)
        assert (answer.itt, answer.ttt, answer.lun, answer.immediate) == (NO_TAG, 5, 9, True)
        assert answer.cmd_sn == player.exp_cmd_sn
        player.complete(command)

    assert play(part).command(0, READ).status == 0


def test_rejects(play: Play) -> None:
    def part(player: Player) -> None:
        first, second = player.receive(), player.receive()
        reason = RejectReason.COMMAND_NOT_SUPPORTED
        player.send(Reject(itt=NO_TAG, reason=reason, final=True, data=bytes(first.bhs)))
        player.complete(second)

    session = play(part)
    first, second = session.submit(0, READ), session.submit(0, READ)
    assert session.wait(second).status == 0
    with pytest.raises(Rejected, match="command not supported"):
        session.wait(first)


def test_a_reject_of_nothing_known_ends_the_session(play: Play) -> None:
    def part(player: Player) -> None:
        player.receive()
        player.send(Reject(itt=NO_TAG, reason=0x99, final=True, data=bytes(48)))

    with pytest.raises(Rejected, match="0x99"):
        play(part).command(0, READ)


def test_asynchronous_messages(play: Play) -> None:
    def part(player: Player) -> None:
        command = player.receive()
        player.send(AsyncMessage(itt=NO_TAG, final=True, event=AsyncEvent.LOGOUT_REQUESTED, parameter3=5))
        player.send(AsyncMessage(itt=NO_TAG, final=True, event=AsyncEvent.NEGOTIATION_REQUESTED, parameter3=5))
        text = player.receive()
        assert isinstance(text, TextRequest)
        player.send(TextResponse(itt=text.itt, ttt=NO_TAG, final=True))
        player.complete(command)
        command = player.receive()
        player.send(AsyncMessage(itt=NO_TAG, final=True, event=AsyncEvent.SESSION_DROPPED))

    session = play(part)
    assert session.command(0, READ).status == 0
    assert session.logout_requested
    assert [message.event for message in session.events] == [
        AsyncEvent.LOGOUT_REQUESTED,
        AsyncEvent.NEGOTIATION_REQUESTED,
    ]
    with pytest.raises(SessionLost, match="drops the session"):
        session.command(0, READ)


def test_task_management(play: Play) -> None:
    def part(player: Player) -> None:
        commands = [player.receive() for _ in range(3)]
        request = player.receive()
        assert isinstance(request, TaskManagementRequest)
        assert (request.function, request.lun) == (TaskFunction.ABORT_TASK, encode_lun(3))
        assert (request.referenced_task_tag, request.ref_cmd_sn) == (commands[1].itt, commands[1].cmd_sn)
        player.send(TaskManagementResponse(itt=request.itt, final=True))
        request = player.receive()
        player.send(TaskManagementResponse(itt=request.itt, final=True))
        player.complete(commands[2])

    session = play(part)
    commands = [session.submit(lun, READ) for lun in (3, 3, 4)]
    assert session.manage(TaskFunction.ABORT_TASK, 3, commands[1]) == 0
    assert session.outstanding == 2
    assert session.manage(TaskFunction.ABORT_TASK_SET, 3) == 0
    for aborted in commands[:2]:
        with pytest.raises(SessionLost, match="aborted"):
            session.wait(aborted)
    assert session.wait(commands[2]).status == 0


@pytest.mark.parametrize("segment", [7, 1000])
def test_text_both_ways_in_pieces(play: Play, segment: int) -> None:
    answer = [(f"X-{number}", "x" * 20) for number in range(20)]

    def part(player: Player) -> None:
        text = b""
        ttt = NO_TAG
        while True:
            request = player.receive()
            assert request.ttt == ttt
            text += bytes(request.data)
            if not request.continued:
                break
            ttt = 3
            player.send(TextResponse(itt=request.itt, ttt=ttt))
        assert text == b"SendTargets=All\0"
        rest = encode_text(answer)
        while True:
            piece, rest = rest[:segment], rest[segment:]
            if not rest:
                player.send(TextResponse(itt=request.itt, ttt=NO_TAG, final=True, data=piece))
                return
            player.send(TextResponse(itt=request.itt, ttt=4, continued=True, data=piece))
            request = player.receive()
            assert (request.ttt, bytes(request.data), request.final) == (4, b"", True)

    assert play(part, window=100).text([("SendTargets", "All")], segment=segment) == answer


def test_silence_and_death(play: Play) -> None:
    def silent(player: Player) -> None:
        command = player.receive()
        event.wait(120)
        player.complete(command)
        player.receive()
        raise EOFError  # the connection closes

    event = threading.Event()
    session = play(silent, timeout=120)
    exchange = session.submit(0, READ)
    session.timeout = 0.2
    with pytest.raises(TimeoutError, match=r"0\.2 s"):
        session.wait(exchange)
    session.timeout = 120
    event.set()
    assert session.wait(exchange).status == 0
    with pytest.raises(SessionLost, match="closed the connection"):
        session.command(0, READ)


def test_a_login_that_is_redirected() -> None:
    """A portal that sends the initiator to another, and one that sends it round in circles."""
    with (
        socket.create_server(("127.0.0.1", 0)) as first,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as second,
    ):
        elsewhere = f"[::1]:{second.getsockname()[1]},1"

        def redirect() -> None:
            sock, _ = first.accept()
            with sock:
                request = Player(sock).receive()
                pairs = encode_text([("TargetAddress", elsewhere)])
                status = LoginStatus.MOVED_TEMPORARILY
                sock.sendall(LoginResponse(itt=request.itt, isid=request.isid, status=status, data=pairs).encode())

        def serve() -> None:
            sock, _ = second.accept()
            with sock:
                player = Player(sock)
                player.log_in()
                player.log_out()

        threads = [threading.Thread(target=part) for part in (redirect, serve)]
        for thread in threads:
            thread.start()
        portal = PortalAddress("127.0.0.1", first.getsockname()[1])
        with open_session(portal, TARGET, initiator_name=INITIATOR, timeout=120) as session:
            assert session.parameters.target_portal_group_tag == 1
        for thread in threads:
            thread.join(120)


@pytest.mark.parametrize(
    ("response", "error"),
    [
        ({"status": LoginStatus.SERVICE_UNAVAILABLE}, LoginError),
        ({"status": LoginStatus.MOVED_PERMANENTLY, "data": b"TargetAddress=192.0.2.1:5,1\0"}, Redirected),
        ({"status": LoginStatus.MOVED_PERMANENTLY}, ProtocolError),
        ({"status": LoginStatus.MOVED_PERMANENTLY, "data": b"TargetAddress=:\0"}, ProtocolError),
        ({"status": 0x7777}, LoginError),
        ({"version_active": 1}, ProtocolError),
        ({"itt": 99}, ProtocolError),
        ({"isid": b"\1" * 6}, ProtocolError),
        ({"csg": 1}, ProtocolError),
        ({"final": True, "continued": True}, ProtocolError),
        ({"final": True, "nsg": 3}, ProtocolError),
        ({"data": b"what?"}, ProtocolError),
        ({"data": b"HeaderDigest=None\0"}, ProtocolError),
    ],
)
def test_bad_login_responses(response: dict[str, Any], error: type[Exception]) -> None:
    login = InitiatorLogin(INITIATOR, TARGET, isid=b"\x80" + bytes(5))
    request = login.start()
    fields: dict[str, Any] = {"itt": request.itt, "isid": request.isid} | response
    with pytest.raises(error):
        login.receive(LoginResponse(**fields))


def test_a_login_without_end() -> None:
    login = InitiatorLogin(INITIATOR, TARGET, isid=b"\x80" + bytes(5))
    request = login.start()
    response = LoginResponse(itt=request.itt, isid=request.isid)
    for _ in range(MAX_REQUESTS - 1):
        assert login.receive(response) is not None
    with pytest.raises(ProtocolError, match="not ended"):
        login.receive(response)


def test_targets_without_an_address() -> None:
    portal = PortalAddress("192.0.2.1")
    targets = parse_targets([("TargetName", "a"), ("TargetName", "b"), ("TargetAddress", "[::1]:5,9")], portal)
    assert targets[0].portals == [(portal, 1)]
    assert targets[1].portals == [(PortalAddress("::1", 5), 9)]
    with pytest.raises(ProtocolError):
        parse_targets([("TargetName", "a"), ("TargetAddress", "x:y")], portal)


@pytest.mark.parametrize(("lun", "field"), [(0, 0), (255, 0xFF << 48), (256, 0x4100 << 48), (0x3FFF, 0x7FFF << 48)])
def test_luns(lun: int, field: int) -> None:
    assert encode_lun(lun) == field


@pytest.mark.parametrize("lun", [-1, 0x4000])
def test_impossible_luns(lun: int) -> None:
    with pytest.raises(ValueError, match="LUN"):
        encode_lun(lun)


def test_digest_choices_are_preferences() -> None:
    for choice in DIGEST_CHOICES.values():
        Preferences(header_digest=choice)
