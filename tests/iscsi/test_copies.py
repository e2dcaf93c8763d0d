"""Third-party copies under way: what else goes on, and how they are ended."""

from __future__ import annotations

import select
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace

import pytest

from blockyard.block.device import Device
from blockyard.block.memory import MemoryDevice
from blockyard.iscsi.connection import Connection
from blockyard.iscsi.login import Found
from blockyard.iscsi.node import TargetNode
from blockyard.iscsi.pdu import (
    DataIn,
    LoginStatus,
    Pdu,
    ScsiCommand,
    ScsiResponse,
    TaskFunction,
    TaskManagementRequest,
    TaskManagementResponse,
    TaskResponse,
)
from blockyard.scsi import limits
from blockyard.scsi.lun import encode_lun
from blockyard.scsi.sense import Asc
from blockyard.scsi.target import Target as ScsiTarget
from blockyard.scsi.task import Status
from blockyard.scsi.taskset import TaskSet
from blockyard.scsi.unit import Identity, LogicalUnit
from tests.scsi.copies import copy_abort, cscd, extended_copy, lid1, lid4, receive, segment
from tests.scsi.host import compare_and_write, read_16
from tests.waiting import LIMIT
from tests.wire import INITIATOR, TARGET, Rig, Wire, parse

_OTHER = "iqn.2026-11.test:other"
_PIECES = 5
_LIST_ID = 7


class TwoTargets(Rig):
    """A second target beside the first, with units of its own."""

    def __init__(self) -> None:
        super().__init__(MemoryDevice(1 << 20))
        self.other_unit = LogicalUnit(MemoryDevice(1 << 20), identity=Identity(uuid.uuid4(), "other"))
        self.other_unit.tasks = TaskSet(self.other_unit, self.executor)
        nodes: dict[str, TargetNode] = {}
        for name, unit in ((TARGET, self.units[0]), (_OTHER, self.other_unit)):
            nodes[name] = TargetNode(name, ScsiTarget(name, {0: unit}), fellows=nodes)
        self.nodes = nodes

    def find(self, name: str, portal: str) -> Found | LoginStatus:
        return Found(self.nodes[name], 1, self.preferences)


class Turnstile(MemoryDevice):
    """A device that copies a piece each time it is let."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.arrived = threading.Semaphore(0)
        self.let = threading.Semaphore(0)
        self.copied = 0

    def copy_from(self, source: Device, source_offset: int, offset: int, length: int, *, thin: bool = True) -> None:
        self.arrived.release()
        assert self.let.acquire(timeout=120)
        super().copy_from(source, source_offset, offset, length, thin=thin)
        self.copied += 1

    def await_piece(self) -> None:
        assert self.arrived.acquire(timeout=120), "no piece was begun"


class Bench:
    """A session with a source at LUN 0 and a turnstile at LUN 1."""

    def __init__(self) -> None:
        size = _PIECES * limits.COPY_PIECE
        self.source, self.destination = MemoryDevice(size), Turnstile(size)
        self.source.pwritev([b"x" * size], 0)
        self.rig = Rig(self.source, self.destination)
        self.wire = Wire(self.rig)
        self.wire.log_in(InitialR2T="Yes")
        for lun in (0, 1):
            self.command(bytes(6), lun=lun)
            (attention,) = self.wire.receive()
            assert isinstance(attention, ScsiResponse)

    def command(self, cdb: bytes, data: bytes = b"", *, lun: int = 0, read: int = 0) -> ScsiCommand:
        pdu = ScsiCommand(
            final=True, read=bool(read), write=bool(data), lun=encode_lun(lun), itt=self.wire.itt,
            edtl=read or len(data), cmd_sn=self.wire.cmd_sn, cdb=cdb.ljust(16, b"\0"), data=data,
        )  # fmt: skip
        self.wire.send(pdu)
        return pdu

    def copy(self, *, immediate: bool = False) -> ScsiCommand:
        """Begin to copy the whole disk, and wait for the first piece to be under way."""
        names = [cscd(unit) for unit in self.rig.units.values()]
        blocks = limits.COPY_PIECE // 512
        segments = [segment(0, 1, blocks, number * blocks, number * blocks) for number in range(_PIECES)]
        if immediate:
            parameters = lid4(names, segments, list_id=_LIST_ID, immediate=True)
        else:
            parameters = lid1(names, segments, list_id=_LIST_ID)
        pdu = self.command(extended_copy(len(parameters), int(immediate)), parameters)
        self.destination.await_piece()
        return pdu

    def manage(self, function: TaskFunction, lun: int = 0, of: ScsiCommand | None = None) -> None:
        request = TaskManagementRequest(
            final=True, immediate=True, function=function, lun=encode_lun(lun), itt=self.wire.itt,
            cmd_sn=self.wire.numbers.cmd_sn,
            referenced_task_tag=of.itt if of else 0xFFFFFFFF, ref_cmd_sn=of.cmd_sn if of else 0,
        )  # fmt: skip
        self.wire.send(request)

    def let(self, pieces: int = _PIECES) -> None:
        self.destination.let.release(pieces)

    def answers(self) -> list[Pdu]:
        """What has been answered by now, without waiting for the copy."""
        self.rig.executor.complete()
        self.wire.work()
        data = bytes(self.wire._out)
        self.wire._out.clear()
        return list(parse(data, header_digest=False, data_digest=False))

    def some_answers(self, number: int) -> list[Pdu]:
        """So many answers, while a copy goes on."""
        found: list[Pdu] = []
        while len(found) < number:
            assert select.select([self.rig.executor.eventfd], [], [], LIMIT)[0], "no answer came"
            found += self.answers()
        assert len(found) == number
        return found


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.let(100)
    made.wire.close()
    made.rig.close()


def test_a_copy_to_its_end(bench: Bench) -> None:
    bench.copy()
    bench.let()
    (response,) = bench.wire.receive()
    assert isinstance(response, ScsiResponse)
    assert response.status == Status.GOOD
    assert bench.destination.data == bench.source.data


def test_other_commands_go_on(bench: Bench) -> None:
    bench.copy()
    bench.command(read_16(0, 1), lun=1, read=512)
    bench.command(read_16(8, 1), lun=0, read=512)
    answers = bench.some_answers(2)
    assert all(isinstance(answer, DataIn) for answer in answers)
    # COMPARE AND WRITE is not in the middle of a piece, and does not wait for the copy's end
    bench.command(compare_and_write(1, 1), b"x" * 512 + b"y" * 512, lun=1)
    assert not bench.answers()
    bench.let(1)
    (answer,) = bench.some_answers(1)
    assert isinstance(answer, ScsiResponse)
    assert answer.status == Status.GOOD
    assert bench.destination.copied == 1
    bench.let()
    bench.wire.receive()
    assert bench.destination.copied == _PIECES


def test_abort_task(bench: Bench) -> None:
    pdu = bench.copy()
    bench.manage(TaskFunction.ABORT_TASK, of=pdu)
    assert not bench.answers()  # the piece under way may still write
    bench.let()
    (answer,) = bench.wire.receive()
    assert isinstance(answer, TaskManagementResponse)
    assert answer.response == TaskResponse.COMPLETE
    assert bench.destination.copied == 1


@pytest.mark.parametrize("function", [TaskFunction.LOGICAL_UNIT_RESET, TaskFunction.CLEAR_TASK_SET])
def test_the_unit_that_got_the_command_ends_it(bench: Bench, function: TaskFunction) -> None:
    bench.copy()
    bench.manage(function)
    bench.let()
    (answer,) = bench.wire.receive()
    assert isinstance(answer, TaskManagementResponse)
    assert bench.destination.copied == 1


def test_reset_ends_a_copy_in_the_background(bench: Bench) -> None:
    bench.copy(immediate=True)
    (response,) = bench.answers()
    assert isinstance(response, ScsiResponse)
    assert response.status == Status.GOOD
    bench.manage(TaskFunction.LOGICAL_UNIT_RESET)
    bench.let()
    bench.wire.receive()
    assert bench.destination.copied == 1


def test_the_end_of_the_session_ends_its_copies(bench: Bench) -> None:
    for immediate in (False, True):
        bench = Bench()
        bench.copy(immediate=immediate)
        bench.wire.connection.closed()
        bench.let()
        bench.rig.settle()
        assert bench.destination.copied == 1
        bench.rig.close()


@pytest.mark.parametrize("immediate", [False, True])
def test_copy_operation_abort(bench: Bench, immediate: bool) -> None:
    copy = bench.copy(immediate=immediate)
    status = bench.command(receive(5, _LIST_ID), read=1024)
    found = bench.answers()
    if immediate:
        assert found.pop(0).itt == copy.itt
    assert found[0].itt == status.itt
    assert found[0].data[5] == (0x12 if immediate else 0x11)
    again = bench.command(extended_copy(16), lid1([], [], list_id=_LIST_ID))
    (busy,) = bench.answers()
    assert isinstance(busy, ScsiResponse)
    assert busy.itt == again.itt
    assert bytes(busy.data)[2 + 12 : 2 + 14] == Asc.OPERATION_IN_PROGRESS.to_bytes(2, "big")
    bench.command(copy_abort(_LIST_ID))
    bench.let()
    responses = bench.wire.receive()
    if not immediate:
        ended = next(each for each in responses if each.itt == copy.itt)
        assert isinstance(ended, ScsiResponse)
        assert ended.status == Status.CHECK_CONDITION
        assert bytes(ended.data)[2 + 12 : 2 + 14] == Asc.IO_PROCESS_TERMINATED.to_bytes(2, "big")
    bench.command(receive(5, _LIST_ID), read=1024)
    (answer,) = bench.wire.receive()
    assert answer.data[5] == 0x60
    assert bench.destination.copied == 1


# ---- units of another target (CVE-2020-28374)


def _copy_between(rig: TwoTargets, wire: Wire) -> int:
    """The ASC of an attempt to copy from the other target's unit to LUN 0; 0 when it succeeds."""
    names = [cscd(rig.units[0]), cscd(rig.other_unit)]
    parameters = lid1(names, [segment(1, 0, 1, 0, 0)])
    pdu = ScsiCommand(
        final=True, write=True, lun=0, itt=wire.itt, edtl=len(parameters), cmd_sn=wire.cmd_sn,
        cdb=extended_copy(len(parameters)), data=parameters,
    )  # fmt: skip
    response = wire.ask(pdu, ScsiResponse)
    return int.from_bytes(bytes(response.data)[2 + 12 : 2 + 14], "big") if response.data else 0


def _log_in(rig: TwoTargets, target: str, initiator: str = INITIATOR, *, peer: str = "127.0.0.1:40000") -> Wire:
    wire = Wire(rig)
    wire.connection = Connection(rig, "127.0.0.1:3260", peer)
    wire.log_in(TargetName=target, InitiatorName=initiator)
    pdu = ScsiCommand(final=True, lun=0, itt=wire.itt, cmd_sn=wire.cmd_sn, cdb=bytes(16))
    assert wire.ask(pdu, ScsiResponse).status == Status.CHECK_CONDITION  # the unit attention of a new nexus
    return wire


def test_a_copy_reaches_other_targets_only_by_sessions_of_the_same_initiator() -> None:
    rig = TwoTargets()
    rig.other_unit.device.pwritev([b"s" * 512], 0)
    mine = _log_in(rig, TARGET)
    unreachable = Asc.COPY_TARGET_DEVICE_NOT_REACHABLE
    assert _copy_between(rig, mine) == unreachable  # it has no session with the other target
    _log_in(rig, _OTHER, "iqn.2026-11.test:somebody")
    assert _copy_between(rig, mine) == unreachable
    _log_in(rig, _OTHER, peer="127.0.0.2:40000")  # from elsewhere, under the same name
    assert _copy_between(rig, mine) == unreachable
    own = _log_in(rig, _OTHER)
    assert _copy_between(rig, mine) == 0
    data = bytearray(512)
    rig.units[0].device.preadv([memoryview(data)], 0)
    assert data == b"s" * 512
    own.session.permit = replace(own.session.permit, user="alice")  # proved another user there
    assert _copy_between(rig, mine) == unreachable
    rig.close()
