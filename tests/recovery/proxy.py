"""A proxy between initiator and target that knows where PDUs begin and end, and does harm to those that it is told to.

It counts the PDUs of the full feature phase of each connection, each way, from 0; the login goes through untouched.
What can happen to a PDU is an `Act`. All of it is determined by the PDU's place, so that a run can be repeated.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from blockyard.iscsi.digest import DIGEST_LENGTH
from blockyard.iscsi.pdu import BHS_LENGTH, OPCODE_MASK, Opcode, decode, pdu_length
from blockyard.scsi.task import Status

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: an RST instead of a FIN


class Way(Enum):
    TO_TARGET = "to the target"
    TO_INITIATOR = "to the initiator"


class Act(Enum):
    PASS = "pass"  # noqa: S105
    DROP = "drop"
    DUPLICATE = "duplicate"
    DAMAGE_HEADER = "damage header"
    DAMAGE_HEADER_DIGEST = "damage header digest"
    DAMAGE_DATA = "damage data"
    DAMAGE_DATA_DIGEST = "damage data digest"
    TRUNCATE = "truncate"  # half of it, then the connection is reset
    CUT = "cut"  # the connection is reset instead
    HOLD = "hold"  # until a PDU has passed on another connection the same way


class Place(NamedTuple):
    """One PDU of a run: on which connection (as they were accepted), which way, and the how-many-eth."""

    connection: int
    way: Way
    number: int


class Seen(NamedTuple):
    """A PDU that went by."""

    place: Place
    pdu: Any  # a Pdu

    @property
    def opcode(self) -> int:
        return int(self.pdu.opcode)

    @property
    def data_length(self) -> int:
        return len(self.pdu.data)


Plan = Callable[[Seen], Act]


def harmful(seen: Seen, act: Act) -> bool:
    """Whether an act does anything to a PDU: there has to be data to be damaged."""
    return bool(seen.data_length) or act not in (Act.DAMAGE_DATA, Act.DAMAGE_DATA_DIGEST)


def once(place: Place, act: Act) -> Plan:
    """Harm one PDU only: the one at that place, or after it the first that the act can do anything to.

    On a busy machine a timer may strike and another PDU stand in its place.
    """
    done = False

    def plan(seen: Seen) -> Act:
        nonlocal done
        there = seen.place[:2] == place[:2] and seen.place.number >= place.number
        if done or not there or not harmful(seen, act):
            return Act.PASS
        done = True
        return act

    return plan


@dataclass(eq=False)
class _Flow:
    """One direction of a connection."""

    source: socket.socket
    sink: socket.socket
    way: Way
    input: bytearray = field(default_factory=bytearray)
    output: bytearray = field(default_factory=bytearray)
    number: int = 0
    held: bool = False
    doomed: bool = False  # reset once all output has left


@dataclass(eq=False)
class _Pair:
    """A connection through the proxy."""

    number: int
    flows: tuple[_Flow, _Flow]
    full_feature: bool = False


class Proxy:
    """Listens on `port`, or by `server`, and connects to `target` for each connection that comes in.

    `digests` are those that will be agreed upon, of headers and data.
    """

    def __init__(
        self, target: tuple[str, int], plan: Plan, *, digests: tuple[bool, bool], server: socket.socket | None = None
    ) -> None:
        self.seen: list[Seen] = []
        self.harmed: list[tuple[Seen, Act]] = []
        self.accepted = 0
        self._target = target
        self._plan = plan
        self._digests = {"header_digest": digests[0], "data_digest": digests[1]}
        self._pairs: list[_Pair] = []
        self._server = server or socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._wake = os.eventfd(0)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="proxy")
        self._thread.start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Raises what went wrong in the thread."""
        os.eventfd_write(self._wake, 1)
        self._thread.join(120)
        assert not self._thread.is_alive()
        os.close(self._wake)
        if self._failure is not None:
            raise self._failure

    # ---- the thread

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        except BaseException as failure:
            self._failure = failure
        finally:
            for pair in list(self._pairs):
                self._end(pair)
            self._server.close()

    def _turn(self) -> bool:
        """Move what can be moved. False when the proxy is to end."""
        flows = [(pair, flow) for pair in self._pairs for flow in pair.flows]
        reading: list[int | socket.socket] = [flow.source for _, flow in flows if not flow.doomed]
        writing = [flow.sink for _, flow in flows if flow.output]
        holding = any(flow.held for _, flow in flows)
        ready, writable, _ = select.select([*reading, self._wake, self._server], writing, [], 0.03 if holding else None)
        if self._wake in ready:
            return False
        if self._server in ready:
            self._accept()
        if holding and not ready and not writable:  # nobody else has anything to say
            self._release(None)
        for pair, flow in flows:
            if pair in self._pairs and flow.source in ready:
                self._read(pair, flow)
        for pair, flow in flows:
            if pair in self._pairs and (flow.output or flow.doomed):
                self._write(pair, flow)
        return True

    def _accept(self) -> None:
        source, _ = self._server.accept()
        try:
            sink = socket.create_connection(self._target, 5)
        except OSError:
            _reset(source)
            return
        for sock in (source, sink):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
        flows = _Flow(source, sink, Way.TO_TARGET), _Flow(sink, source, Way.TO_INITIATOR)
        self._pairs.append(_Pair(self.accepted, flows))
        self.accepted += 1

    def _read(self, pair: _Pair, flow: _Flow) -> None:
        try:
            data = flow.source.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end(pair)
            return
        flow.input += data
        self._handle(pair, flow)

    def _handle(self, pair: _Pair, flow: _Flow) -> None:
        while not flow.held and not flow.doomed and len(flow.input) >= BHS_LENGTH:
            digests = self._digests if pair.full_feature else {"header_digest": False, "data_digest": False}
            length = pdu_length(flow.input, 0, **digests)
            if len(flow.input) < length:
                return
            pdu = bytes(flow.input[:length])
            if pair.full_feature:
                self._pass(pair, flow, pdu)
            else:
                del flow.input[:length]
                flow.output += pdu
                pair.full_feature = _ends_login(pdu)

    def _pass(self, pair: _Pair, flow: _Flow, pdu: bytes) -> None:
        seen = Seen(Place(pair.number, flow.way, flow.number), decode(pdu, 0, **self._digests))
        flow.number += 1
        self.seen.append(seen)
        act = self._plan(seen)
        if act is not Act.PASS:
            self.harmed.append((seen, act))
        if act is Act.HOLD:
            flow.held = True
            return
        del flow.input[: len(pdu)]
        flow.output += self._harm(pdu, act)
        flow.doomed = act in (Act.TRUNCATE, Act.CUT)
        self._release(flow)

    def _release(self, passed: _Flow | None) -> None:
        """Let held PDUs go, of other connections than the one that a PDU has passed on."""
        for pair in self._pairs:
            for flow in pair.flows:
                if flow.held and flow is not passed and (passed is None or flow.way is passed.way):
                    flow.held = False
                    length = pdu_length(flow.input, 0, **self._digests)
                    flow.output += flow.input[:length]
                    del flow.input[:length]
                    self._handle(pair, flow)

    def _harm(self, pdu: bytes, act: Act) -> bytes:
        header_end = BHS_LENGTH + pdu[4] * 4
        if act in (Act.DROP, Act.CUT):
            return b""
        if act is Act.DUPLICATE:
            return pdu + pdu
        if act is Act.TRUNCATE:
            return pdu[: len(pdu) // 2]
        at = {
            Act.DAMAGE_HEADER: 20,  # a tag: what is damaged must not lead the proxy astray
            Act.DAMAGE_HEADER_DIGEST: header_end,
            Act.DAMAGE_DATA: header_end + DIGEST_LENGTH * self._digests["header_digest"],
            Act.DAMAGE_DATA_DIGEST: len(pdu) - 1,
        }.get(act)
        if at is None:
            return pdu
        return pdu[:at] + bytes([pdu[at] ^ 0x40]) + pdu[at + 1 :]

    def _write(self, pair: _Pair, flow: _Flow) -> None:
        if flow.output:
            try:
                del flow.output[: flow.sink.send(flow.output)]
            except BlockingIOError:
                return
            except OSError:
                self._end(pair)
                return
        if flow.doomed and not flow.output:
            self._end(pair)

    def _end(self, pair: _Pair) -> None:
        """Both sides see the connection go: what was sent before still gets there."""
        if pair not in self._pairs:
            return
        self._pairs.remove(pair)
        for flow in pair.flows:
            with contextlib.suppress(OSError):
                flow.sink.setblocking(True)
                flow.sink.settimeout(60)
                if flow.output and not flow.doomed:
                    flow.sink.sendall(flow.output)
        for flow in pair.flows:
            flow.source.close()


def _reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    sock.close()


def _ends_login(pdu: bytes) -> bool:
    """Whether this is the login response after which the full feature phase begins."""
    status = int.from_bytes(pdu[36:38], "big")
    return pdu[0] & OPCODE_MASK == Opcode.LOGIN_RESPONSE and status == Status.GOOD and pdu[1] & 0x83 == 0x83
