"""An initiator's end of a connection in memory: PDUs in, PDUs out, no socket.

`Rig` is what a worker is without its process: a target with real units on real files, and its executor.
"""

from __future__ import annotations

import select
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from blockyard.block.device import Device
from blockyard.block.file import FileDevice
from blockyard.iscsi.connection import Connection
from blockyard.iscsi.login import Found, TargetLogin
from blockyard.iscsi.negotiation import Preferences, encode_text
from blockyard.iscsi.node import TargetNode
from blockyard.iscsi.pdu import DataOut, LoginRequest, LoginResponse, LoginStatus, Pdu, decode, pdu_length
from blockyard.iscsi.session import Session
from blockyard.iscsi.transmit import TransmitBuffer
from blockyard.scsi.target import Target
from blockyard.scsi.taskset import TaskSet
from blockyard.scsi.unit import Identity, LogicalUnit
from blockyard.worker.buffers import ReceiveBuffer
from blockyard.worker.executor import ThreadExecutor
from blockyard.worker.fastpath import pump
from tests.waiting import LIMIT

TARGET = "iqn.2026-11.test:wire"
INITIATOR = "iqn.2026-11.test:initiator"
P = TypeVar("P", bound=Pdu)

# What libiscsi and QEMU offer: everything at once and unsolicited.
LOGIN_KEYS = {
    "HeaderDigest": "None",
    "DataDigest": "None",
    "InitialR2T": "No",
    "ImmediateData": "Yes",
    "MaxBurstLength": "262144",
    "FirstBurstLength": "262144",
    "MaxRecvDataSegmentLength": "262144",
    "MaxOutstandingR2T": "1",
}
JOINING_KEYS = {  # of a connection that joins a session: what belongs to the connection (RFC 7143 §13, "IO" and "ALL")
    "HeaderDigest": "None",
    "DataDigest": "None",
    "MaxRecvDataSegmentLength": "262144",
}


class Rig:
    """A target in memory, with one unit for each device. It is the Service of its connections."""

    def __init__(self, *devices: Device, write_through: bool = False, preferences: Preferences | None = None) -> None:
        self.preferences = preferences
        self.executor = ThreadExecutor(limit=4)
        self.units = {
            lun: LogicalUnit(
                device, block_size=512, write_through=write_through,
                identity=Identity(uuid=uuid.UUID(int=lun + 1), name=f"unit-{lun}"),
            )
            for lun, device in enumerate(devices)
        }  # fmt: skip
        for unit in self.units.values():
            unit.tasks = TaskSet(unit, self.executor)
            if unit.device.overlapped is not None:
                self.executor.watch(unit.device.overlapped.fd, unit.device.overlapped.reap)
        self.node = TargetNode(TARGET, Target(TARGET, dict(self.units)))

    @classmethod
    def on_file(cls, path: Path, size: int = 8 << 20, preferences: Preferences | None = None) -> Rig:
        with path.open("wb") as file:
            file.truncate(size)
        return cls.on_existing(path, preferences)

    @classmethod
    def on_existing(cls, path: Path, preferences: Preferences | None = None) -> Rig:
        return cls(FileDevice(path), preferences=preferences)

    def new_login(self, portal: str, peer: str, attach: Callable[[TargetLogin], int | LoginStatus]) -> TargetLogin:
        return TargetLogin(self, portal, peer=peer, attach=attach)

    def find(self, name: str, portal: str) -> Found | LoginStatus:
        return Found(self.node, 1, self.preferences) if name == TARGET else LoginStatus.NOT_FOUND

    def send_targets(self, name: str | None, portal: str) -> list[tuple[str, str]]:
        return [("TargetName", TARGET), ("TargetAddress", f"{portal},1")] if name in (None, TARGET) else []

    def settle(self) -> None:
        """Wait until nothing runs in a thread any more, and what overlaps has ended."""
        while (ready := select.select([*self.executor.watched], [], [], 0)[0]) or self.executor.busy:
            for fd in ready:
                self.executor.watched[fd]()
            if not ready:
                assert select.select([self.executor.eventfd], [], [], LIMIT)[0], "a job did not end"
            self.executor.complete()

    def close(self) -> None:
        self.settle()
        self.executor.close()
        for unit in self.units.values():
            unit.close()


class Numbers:
    """What all connections of a session number together."""

    def __init__(self) -> None:
        self.itt = 0
        self.cmd_sn = 0


class Wire:
    """One connection to a Rig. With `fast` False the data path's short cut is not taken.

    It belongs to a session of its own, or to that of the wire that it is `beside`.
    """

    def __init__(
        self,
        rig: Rig,
        *,
        fast: bool = True,
        isid: bytes = b"\x80\0\0\0\0\1",
        beside: Wire | None = None,
        cid: int = 0,
    ) -> None:
        self.cid = cid
        self.beside = beside
        self.numbers: Numbers = Numbers() if beside is None else beside.numbers
        self.rig = rig
        self.connection = Connection(rig, "127.0.0.1:3260", "127.0.0.1:40000")
        self.isid = isid
        self.dropped = False
        self._fast = fast
        self._rx = ReceiveBuffer()
        self._tx = TransmitBuffer()
        self._out = bytearray()
        self._logging_in = True
        self.connection.on_drop = self._drop

    def _drop(self) -> None:
        self.dropped = True

    # ---- bytes

    def send_bytes(self, data: bytes) -> None:
        """Let the target have bytes, in as many pieces as fit, and gather what it answers."""
        at = 0
        while at < len(data) and not self.dropped:
            room = self._rx.room
            piece = data[at : at + len(room)]
            room[: len(piece)] = piece
            self._rx.end += len(piece)
            at += len(piece)
            self.work()

    def work(self) -> None:
        """What Link.work does with a socket."""
        while True:
            before = self._rx.start
            if self.connection.fill(self._tx):
                if self._fast:
                    pump(self.connection, self._rx, self._tx)
                else:
                    self._receive()
            sent = self._tx.end
            self._out += self._tx.pending
            self._tx.sent(sent)
            if not sent and before == self._rx.start:
                return

    def _receive(self) -> None:
        while not self._tx.full:
            after = self.connection.receive(self._rx.view, self._rx.start, self._rx.end)
            if after == self._rx.start:
                return
            self._rx.start = after
            if not self.connection.fill(self._tx):
                return

    def take_bytes(self) -> bytes:
        """All output so far that has not been taken, after waiting for running commands."""
        self.rig.settle()
        self.work()
        data = bytes(self._out)
        self._out.clear()
        return data

    # ---- PDUs

    @property
    def cmd_sn(self) -> int:
        """The CmdSN of the next command; counts up with each look."""
        self._cmd_sn = (self._cmd_sn + 1) & 0xFFFFFFFF
        return (self._cmd_sn - 1) & 0xFFFFFFFF

    @property
    def _cmd_sn(self) -> int:
        return self.numbers.cmd_sn

    @_cmd_sn.setter
    def _cmd_sn(self, value: int) -> None:
        self.numbers.cmd_sn = value

    @property
    def itt(self) -> int:
        """A fresh initiator task tag."""
        self.numbers.itt += 1
        return self.numbers.itt

    @property
    def session(self) -> Session:
        assert self.connection.session is not None
        return self.connection.session

    def log_in(self, **keys: str) -> LoginResponse:
        """Log in to the target with LOGIN_KEYS, changed by `keys`, in one exchange."""
        declared = {"InitiatorName": INITIATOR, "TargetName": TARGET}
        tsih = 0
        if self.beside is None:
            offers = {**declared, "SessionType": "Normal", **LOGIN_KEYS, **keys}
            self._cmd_sn = 1
        else:
            offers = {**declared, **JOINING_KEYS, **keys}
            tsih = self.beside.session.tsih
        request = LoginRequest(
            isid=self.isid, tsih=tsih, cid=self.cid, itt=self.itt, cmd_sn=self._cmd_sn, csg=1, nsg=3, final=True,
            data=encode_text(list(offers.items())),
        )  # fmt: skip
        request.immediate = True
        self.send_bytes(request.encode())
        return self.log_in_response()

    def log_in_response(self) -> LoginResponse:
        """The answer to a login that has been asked for."""
        (response,) = self.receive()
        assert isinstance(response, LoginResponse)
        self._logging_in = False
        return response

    def send(self, *pdus: Pdu) -> None:
        digests = {"header_digest": self.connection.header_digest, "data_digest": self.connection.data_digest}
        self.send_bytes(b"".join(pdu.encode(**digests) for pdu in pdus))

    def receive(self) -> list[Pdu]:
        """What the target has answered since the last time. Digests are checked."""
        header_digest = self.connection.header_digest and not self._logging_in
        data_digest = self.connection.data_digest and not self._logging_in
        return list(parse(self.take_bytes(), header_digest=header_digest, data_digest=data_digest))

    def ask(self, pdu: Pdu, kind: type[P]) -> P:
        """Send one PDU and take its one answer, which must be of a kind."""
        self.send(pdu)
        (answer,) = self.receive()
        assert isinstance(answer, kind), answer
        return answer

    def close(self) -> None:
        self.connection.closed()
        self.rig.settle()


def pieces(itt: int, ttt: int, data: bytes, start: int, end: int, segment: int) -> list[DataOut]:
    """A sequence of Data-Out PDUs for `data[start:end]`."""
    offsets = range(start, end, segment)
    return [
        DataOut(
            data[offset : min(offset + segment, end)], itt=itt, ttt=ttt, data_sn=number, buffer_offset=offset,
            final=offset + segment >= end,
        )
        for number, offset in enumerate(offsets)
    ]  # fmt: skip


def parse(data: bytes, *, header_digest: bool = False, data_digest: bool = False) -> Iterator[Pdu]:
    """The PDUs in `data`, which must hold nothing else."""
    at = 0
    while at < len(data):
        yield decode(data, at, header_digest=header_digest, data_digest=data_digest)
        at += pdu_length(data, at, header_digest=header_digest, data_digest=data_digest)
    assert at == len(data)
