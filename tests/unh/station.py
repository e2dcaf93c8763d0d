"""The testing station of UNH-IOL's full feature phase suite for targets: raw PDUs, one session, several connections.

The suite (iSCSI Consortium, Full Feature Phase Test Suite for Targets, 82 cases) says what is to be sent and what
must be seen; its tests here have its numbers. A `Line` keeps all that it has received, so that the numbering of a
whole connection can be looked at in the end.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from blockyard.block.memory import MemoryDevice
from blockyard.iscsi.negotiation import Pairs, decode_text, encode_text
from blockyard.iscsi.pdu import (
    NO_TAG,
    R2T,
    DataIn,
    DataOut,
    LoginRequest,
    LoginResponse,
    LogoutRequest,
    NopIn,
    NopOut,
    Pdu,
    Reject,
    ScsiCommand,
    ScsiResponse,
    SnackRequest,
    TaskManagementRequest,
    TaskManagementResponse,
    TextRequest,
    TextResponse,
)
from blockyard.scsi.task import Status
from tests.wire import INITIATOR, TARGET, Rig, Wire, parse

P = TypeVar("P", bound=Pdu)

BLOCK = 512
TEST_UNIT_READY = bytes(16)
READ_CAPACITY = struct.pack(">B15x", 0x25)
SOLICITED = {"ImmediateData": "No", "InitialR2T": "Yes"}  # what most cases negotiate
_KEYS = {"MaxBurstLength": "262144", "FirstBurstLength": "65536", "MaxOutstandingR2T": "1"}
_CONNECTION_KEYS = ("HeaderDigest", "DataDigest", "MaxRecvDataSegmentLength")


def inquiry(length: int = 96) -> bytes:
    return struct.pack(">BBBHB10x", 0x12, 0, 0, length, 0)


def read_10(lba: int, blocks: int) -> bytes:
    return struct.pack(">BxIxHx6x", 0x28, lba, blocks)


def write_10(lba: int, blocks: int) -> bytes:
    return struct.pack(">BxIxHx6x", 0x2A, lba, blocks)


def sense_of(response: ScsiResponse) -> tuple[int, int, int]:
    """Sense key, ASC and ASCQ."""
    data = bytes(response.data)[2:]
    return data[2] & 0x0F, data[12], data[13]


class HeldDevice(MemoryDevice):
    """A device in memory whose reads wait while it is held: a command that is in progress for as long as it is wanted."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._free = threading.Event()
        self._free.set()

    def hold(self) -> None:
        self._free.clear()

    def release(self) -> None:
        self._free.set()

    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        assert self._free.wait(120), "a held read was never released"
        super().preadv(buffers, offset)


class Line(Wire):
    """One connection of the station's session."""

    def __init__(self, station: Station, cid: int, isid: bytes, beside: Line | None) -> None:
        super().__init__(station.rig, isid=isid, beside=beside, cid=cid)
        self.station = station
        self.received: list[Any] = []  # everything, in order
        self.login: LoginResponse

    def enter(self, pairs: Pairs) -> LoginResponse:
        """Log in, in the operational stage, in one exchange."""
        tsih = self.beside.session.tsih if self.beside is not None else 0
        request = LoginRequest(
            isid=self.isid, tsih=tsih, cid=self.cid, itt=self.itt, cmd_sn=self.numbers.cmd_sn, csg=1, nsg=3, final=True,
            data=encode_text(pairs),
        )  # fmt: skip
        request.immediate = True
        self.send_bytes(request.encode())
        self.login = self.log_in_response()
        return self.login

    def receive(self) -> list[Any]:
        answers = super().receive()
        self.received += answers
        return answers

    def peek(self) -> list[Any]:
        """What has been answered so far, without waiting for commands that run."""
        self.work()
        data = bytes(self._out)
        self._out.clear()
        digests = {"header_digest": self.connection.header_digest, "data_digest": self.connection.data_digest}
        answers = list(parse(data, **digests))
        self.received += answers
        return answers

    def expect(self, kind: type[P]) -> P:
        """The one answer there is, which must be of a kind."""
        answers = self.receive()
        assert len(answers) == 1, answers
        assert isinstance(answers[0], kind), answers
        return answers[0]

    # ---- PDUs of the station's

    def command(self, cdb: bytes, data: bytes = b"", **fields: Any) -> ScsiCommand:
        values = {"final": True, "attribute": 1, "itt": self.itt, "cdb": cdb, **fields}
        return ScsiCommand(data, **self._numbered(values))

    def read_command(self, lba: int, blocks: int, **fields: Any) -> ScsiCommand:
        return self.command(read_10(lba, blocks), **{"read": True, "edtl": blocks * BLOCK, **fields})

    def write_command(self, lba: int, blocks: int, data: bytes = b"", **fields: Any) -> ScsiCommand:
        return self.command(write_10(lba, blocks), data, **{"write": True, "edtl": blocks * BLOCK, **fields})

    def ping(self, data: bytes = b"", **fields: Any) -> NopOut:
        values = {"final": True, "itt": self.itt, "ttt": NO_TAG, **fields}
        return NopOut(data, **self._numbered(values))

    def text(self, pairs: Pairs, **fields: Any) -> TextRequest:
        values = {"final": True, "itt": self.itt, "ttt": NO_TAG, **fields}
        return TextRequest(encode_text(pairs), **self._numbered(values))

    def manage(self, function: int, **fields: Any) -> TaskManagementRequest:
        values = {"final": True, "immediate": True, "itt": self.itt, "referenced_task_tag": NO_TAG, **fields}
        return TaskManagementRequest(function=function, **self._numbered(values))

    def log_out(self, reason: int, **fields: Any) -> LogoutRequest:
        values = {"final": True, "itt": self.itt, "cid": self.cid, **fields}
        return LogoutRequest(reason=reason, **self._numbered(values))

    def snack(self, kind: int, first: int, count: int, **fields: Any) -> SnackRequest:
        values = {"final": True, "itt": NO_TAG, "snack_tag": NO_TAG, **fields}
        return SnackRequest(type=kind, beg_run=first, run_length=count, **values)

    def _numbered(self, values: dict[str, Any]) -> dict[str, Any]:
        """With the next CmdSN, which an immediate request does not use up, unless there is one."""
        if "cmd_sn" not in values:
            values["cmd_sn"] = self.station.cmd_sn if values.get("immediate") else self.cmd_sn
        return values

    # ---- everyday exchanges

    def prepare(self) -> None:
        """INQUIRY, TEST UNIT READY and READ CAPACITY, as most cases begin."""
        assert self.read_all(self.command(inquiry(), read=True, edtl=96))
        if self.ask(self.command(TEST_UNIT_READY), ScsiResponse).status == Status.CHECK_CONDITION:
            assert (
                self.ask(self.command(TEST_UNIT_READY), ScsiResponse).status == Status.GOOD
            )  # the first told of a reset
        assert len(self.read_all(self.command(READ_CAPACITY, read=True, edtl=8))) == 8

    def read_all(self, command: ScsiCommand) -> bytes:
        """Send a command that reads; its data, once it has ended GOOD."""
        self.send(command)
        data = b""
        answers = self.receive()
        for answer in answers:
            assert answer.itt == command.itt
            if isinstance(answer, DataIn):
                assert answer.buffer_offset == len(data)
                data += bytes(answer.data)
        assert isinstance(answers[-1], DataIn | ScsiResponse)
        assert answers[-1].status == Status.GOOD
        return data

    def data_out(self, r2t: R2T, data: bytes, **fields: Any) -> DataOut:
        """The one Data-Out that answers an R2T, or what `fields` make of it."""
        values = {"final": True, "itt": r2t.itt, "ttt": r2t.ttt, "buffer_offset": r2t.buffer_offset, **fields}
        return DataOut(data, **values)

    def write_all(self, command: ScsiCommand, data: bytes) -> ScsiResponse:
        """Send a command that writes solicited data only, and answer its R2Ts; the response."""
        self.send(command)
        while True:
            (answer,) = self.receive()
            if not isinstance(answer, R2T):
                assert isinstance(answer, ScsiResponse), answer
                return answer
            end = answer.buffer_offset + answer.desired_length
            self.send(self.data_out(answer, data[answer.buffer_offset : end]))

    def written(self, lba: int, data: bytes) -> ScsiResponse:
        return self.write_all(self.write_command(lba, len(data) // BLOCK), data)

    def segments(self, blocks: int) -> list[int]:
        """The lengths of the data segments that a READ of so many blocks comes in."""
        self.send(self.read_command(0, blocks))
        answers = self.receive()
        assert all(isinstance(answer, DataIn) for answer in answers), answers
        return [len(answer.data) for answer in answers]

    def pairs(self, request: TextRequest) -> Pairs:
        """Send a text request that is answered by one text response; its pairs."""
        return decode_text(self.ask(request, TextResponse).data)

    def answer_pings(self) -> list[Any]:
        """Take what has come, and answer the target's pings, acknowledging all of it; what that brings comes too."""
        answers = self.receive()
        for ping in [each for each in answers if isinstance(each, NopIn) and each.itt == NO_TAG and each.ttt != NO_TAG]:
            pong = self.ping(
                immediate=True, itt=NO_TAG, ttt=ping.ttt, lun=ping.lun, exp_stat_sn=self.connection.stat_sn
            )
            self.send(pong)
        return answers + self.receive()

    def is_alive(self) -> bool:
        ping = self.ping(immediate=True)
        self.send(ping)
        return any(isinstance(answer, NopIn) and answer.itt == ping.itt for answer in self.receive())


class Station:
    """The initiator of one session; `keys` are negotiated by its first connection."""

    def __init__(
        self, rig: Rig, keys: dict[str, str] | None = None, *, isid: bytes = b"\x80\0\0\0\0\1", discovery: bool = False
    ) -> None:
        self.rig = rig
        self.lines: list[Line] = []
        self._isid = isid
        self._keys = keys or {}
        self._discovery = discovery

    @property
    def cmd_sn(self) -> int:
        """Of the next request."""
        return self.lines[0].numbers.cmd_sn

    def connect(self, cid: int | None = None) -> Line:
        """Log one more connection in."""
        leading = self.lines[0] if self.lines else None
        line = Line(self, len(self.lines) if cid is None else cid, self._isid, leading)
        pairs = [("InitiatorName", INITIATOR)]
        if not self._discovery:
            pairs.append(("TargetName", TARGET))
        if leading is None:
            line.numbers.cmd_sn = 1
            keys = self._keys if self._discovery else {**_KEYS, **self._keys}
            pairs += [("SessionType", "Discovery" if self._discovery else "Normal"), *keys.items()]
        else:
            pairs += [(key, self._keys[key]) for key in _CONNECTION_KEYS if key in self._keys]
        response = line.enter(pairs)
        assert response.status == 0, hex(response.status)
        assert line.connection.session is not None
        self.lines.append(line)
        return line

    def answer_of(self, line: Line, key: str) -> str:
        """What the target answered at login."""
        return dict(decode_text(line.login.data)).get(key, "")


Prepared = Callable[..., Line]


def check_stat_sn(answers: Sequence[Any]) -> None:
    """StatSN goes up by one with every response, and not with what is none (RFC 7143 §4.2.2.2)."""
    expected = answers[0].stat_sn
    for answer in answers:
        if isinstance(answer, DataIn) and not answer.has_status:
            continue
        assert answer.stat_sn == expected, answer
        asks = isinstance(answer, R2T) or (isinstance(answer, NopIn) and answer.itt == NO_TAG)
        expected = (expected + (not asks)) & 0xFFFFFFFF


def check_reject(rejection: Reject, rejected: Pdu) -> None:
    """What every Reject must be like (RFC 7143 §11.17)."""
    assert rejection.final
    assert rejection.itt == NO_TAG
    assert bytes(rejection.data[:48]) == bytes(rejected.bhs)


def response_of(answers: Sequence[Any]) -> TaskManagementResponse:
    (answer,) = (answer for answer in answers if isinstance(answer, TaskManagementResponse))
    return answer
