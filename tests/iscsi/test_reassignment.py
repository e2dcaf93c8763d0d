"""ErrorRecoveryLevel 2: tasks outlive their connection (RFC 7143 §7.2.2, §7.5, §11.5.1, §11.6.1, §11.14)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blockyard.iscsi.connection import State
from blockyard.iscsi.negotiation import Preferences
from blockyard.iscsi.pdu import (
    NO_TAG,
    R2T,
    DataIn,
    DataOut,
    LogoutReason,
    LogoutRequest,
    LogoutResponse,
    LogoutResponseCode,
    NopIn,
    NopOut,
    Pdu,
    ScsiCommand,
    ScsiResponse,
    SnackRequest,
    SnackType,
    TaskFunction,
    TaskManagementRequest,
    TaskManagementResponse,
    TaskResponse,
)
from blockyard.scsi.task import Status
from tests.iscsi.commands import TEST_UNIT_READY, acknowledge, command, joined, logged_in, read_10, write_10
from tests.wire import Rig, Wire, pieces

PREFERENCES = Preferences(error_recovery_level=2, default_time2retain=20)
DATA = bytes(number * 7 & 0xFF for number in range(256)) * 4096


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    (tmp_path / "disk").write_bytes(DATA)
    with contextlib.closing(Rig.on_existing(tmp_path / "disk", PREFERENCES)) as rig:
        yield rig


def recovering(rig: Rig, **keys: Any) -> Wire:
    offers = {"ErrorRecoveryLevel": "2", "MaxConnections": "4", "DefaultTime2Wait": "3", **keys}
    return logged_in(rig, **offers)


def pair(rig: Rig, **keys: Any) -> tuple[Wire, Wire]:
    first = recovering(rig, **keys)
    return first, joined(first, 1)


def log_out(wire: Wire, reason: LogoutReason, cid: int) -> LogoutResponse:
    request = LogoutRequest(
        final=True, immediate=True, reason=reason, cid=cid, itt=wire.itt, cmd_sn=wire.numbers.cmd_sn
    )
    wire.send(request)
    (answer,) = [answer for answer in wire.receive() if isinstance(answer, LogoutResponse)]
    return answer


def recover(wire: Wire, cid: int) -> None:
    """Log a connection out for recovery."""
    assert log_out(wire, LogoutReason.RECOVERY, cid).response == LogoutResponseCode.CLOSED


def reassign(
    wire: Wire, pdu: ScsiCommand, exp_data_sn: int = 0, lun: int | None = None
) -> tuple[TaskResponse, list[Any]]:
    """Ask for a task; the response, and what came behind it."""
    request = TaskManagementRequest(
        final=True, immediate=True, function=TaskFunction.TASK_REASSIGN, itt=wire.itt, cmd_sn=wire.numbers.cmd_sn,
        lun=pdu.lun if lun is None else lun, referenced_task_tag=pdu.itt, exp_data_sn=exp_data_sn,
    )  # fmt: skip
    wire.send(request)
    response, *rest = [answer for answer in wire.receive() if not isinstance(answer, NopIn)]
    assert isinstance(response, TaskManagementResponse)
    return TaskResponse(response.response), rest


def read(wire: Wire, lba: int, blocks: int) -> ScsiCommand:
    pdu = command(wire, read_10(lba, blocks), read=True, edtl=blocks * 512)
    wire.send(pdu)
    return pdu


class TestReads:
    @pytest.mark.parametrize("segment", [512, 1024, 3072])
    @pytest.mark.parametrize("got", [0, 1, 5, 12])
    def test_data_goes_on_where_the_initiator_says(self, rig: Rig, got: int, segment: int) -> None:
        first, other = pair(rig)
        other = joined(first, 1, MaxRecvDataSegmentLength="1024")
        pdu = read(other, 0, 24)
        assert len(other.receive()) == 13
        other.close()
        first.receive()
        third = joined(first, 2, MaxRecvDataSegmentLength=str(segment))
        recover(third, 1)
        stat_sn = third.connection.stat_sn
        response, [*data, status] = reassign(third, pdu, got)
        assert response == TaskResponse.COMPLETE
        assert [part.data_sn for part in data] == list(range(got, got + len(data)))
        assert all(len(part.data) <= segment for part in data)
        assert b"".join(bytes(part.data) for part in data) == DATA[got * 1024 : 24 * 512]
        assert isinstance(status, ScsiResponse)
        assert (status.stat_sn, status.exp_data_sn) == (stat_sn + 1, got + len(data))
        third.send(SnackRequest(final=True, type=SnackType.DATA, itt=pdu.itt, snack_tag=NO_TAG, beg_run=got))
        assert [part.data for part in third.receive()] == [part.data for part in data]

    def test_status_that_was_acknowledged_is_over(self, rig: Rig) -> None:
        first, other = pair(rig)
        pdu = read(other, 0, 8)
        other.receive()
        acknowledge(other)
        other.close()
        first.receive()
        recover(first, 1)
        assert reassign(first, pdu) == (TaskResponse.NO_SUCH_TASK, [])

    def test_an_r_data_snack_tag_is_forgotten(self, rig: Rig) -> None:
        first, other = pair(rig)
        pdu = read(other, 0, 8)
        other.send(SnackRequest(final=True, type=SnackType.R_DATA, itt=pdu.itt, snack_tag=9))
        assert other.receive()[-1].snack_tag == 9  # type: ignore[attr-defined]
        other.close()
        first.receive()
        recover(first, 1)
        assert reassign(first, pdu)[1][-1].snack_tag == 0


class TestWrites:
    @pytest.mark.parametrize("unsolicited", [True, False])
    def test_data_that_has_not_come_is_asked_for(self, rig: Rig, unsolicited: bool) -> None:
        first, other = pair(rig, ImmediateData="No", InitialR2T="No" if unsolicited else "Yes", MaxBurstLength="2048")
        data = b"w" * 4096
        pdu = command(other, write_10(0, 8), write=True, edtl=4096, final=not unsolicited)
        other.send(pdu)
        ttt = NO_TAG if unsolicited else other.receive()[0].ttt  # type: ignore[attr-defined]
        other.send(*pieces(pdu.itt, ttt, data, 0, 2048, 512)[:3])
        other.close()
        first.receive()
        recover(first, 1)
        response, (r2t,) = reassign(first, pdu)
        assert response == TaskResponse.COMPLETE
        assert isinstance(r2t, R2T)
        assert (r2t.r2t_sn, r2t.buffer_offset, r2t.desired_length) == (0, 1536, 2048)
        first.send(*pieces(pdu.itt, r2t.ttt, data, 1536, 3584, 512))
        (r2t,) = first.receive()
        assert isinstance(r2t, R2T)
        answer = first.ask(pieces(pdu.itt, r2t.ttt, data, 3584, 4096, 512)[0], ScsiResponse)
        assert answer.status == Status.GOOD
        assert first.session.outstanding == 0

    def test_r2ts_are_numbered_from_the_one_that_is_expected(self, rig: Rig) -> None:
        first, other = pair(rig, ImmediateData="No", InitialR2T="Yes", MaxBurstLength="1024")
        pdu = command(other, write_10(0, 6), write=True, edtl=3072)
        r2t = other.ask(pdu, R2T)
        r2t = other.ask(pieces(pdu.itt, r2t.ttt, bytes(3072), 0, 1024, 1024)[0], R2T)
        assert r2t.r2t_sn == 1
        other.close()
        first.receive()
        recover(first, 1)
        _, (again,) = reassign(first, pdu, 1)
        assert (again.r2t_sn, again.buffer_offset) == (1, 1024)

    @pytest.mark.parametrize("cdb", [write_10(1 << 30, 8), TEST_UNIT_READY])
    def test_one_that_does_not_want_its_data_ends(self, rig: Rig, cdb: bytes) -> None:
        first, other = pair(rig, ImmediateData="No", InitialR2T="No")
        pdu = command(other, cdb, write=True, edtl=4096, final=False)
        other.send(pdu)
        assert other.receive() == [], "its data is let pass first"
        other.close()
        first.receive()
        assert not first.session.commands
        recover(first, 1)
        response, (status,) = reassign(first, pdu)
        assert response == TaskResponse.COMPLETE
        assert status.status == (Status.GOOD if cdb == TEST_UNIT_READY else Status.CHECK_CONDITION)

    def test_one_that_runs_ends_without_its_connection(self, rig: Rig) -> None:
        first, other = pair(rig)
        cdb = bytearray(write_10(0, 1))
        cdb[1] = 0x08  # FUA: in a thread
        pdu = command(other, bytes(cdb), b"r" * 512, write=True, edtl=512)
        other.send(pdu)
        assert rig.executor.busy
        other.connection.closed()
        rig.settle()
        assert first.session.outstanding == 0
        first.receive()
        recover(first, 1)
        response, (status,) = reassign(first, pdu)
        assert response == TaskResponse.COMPLETE
        assert status.status == Status.GOOD

    def test_one_that_runs_is_reassigned_first(self, rig: Rig) -> None:
        first, other = pair(rig)
        cdb = bytearray(write_10(0, 1))
        cdb[1] = 0x08
        pdu = command(other, bytes(cdb), b"r" * 512, write=True, edtl=512)
        other.send(pdu)
        other.connection.closed()
        first.send(
            LogoutRequest(final=True, immediate=True, reason=2, cid=1, itt=first.itt, cmd_sn=first.numbers.cmd_sn),
            TaskManagementRequest(
                final=True, immediate=True, function=TaskFunction.TASK_REASSIGN, itt=first.itt,
                cmd_sn=first.numbers.cmd_sn, referenced_task_tag=pdu.itt,
            ),
        )  # fmt: skip
        assert rig.executor.busy, "nothing has ended yet"
        assert [type(answer) for answer in first.receive()[-3:]] == [
            LogoutResponse,
            TaskManagementResponse,
            ScsiResponse,
        ]


class TestResponses:
    """RFC 7143 §11.6.1, §11.15.1."""

    def waiting_write(self, wire: Wire) -> ScsiCommand:
        pdu = command(wire, write_10(0, 1), write=True, edtl=512)
        wire.ask(pdu, R2T)
        return pdu

    def test_still_allegiant_until_it_is_logged_out(self, rig: Rig) -> None:
        first, other = pair(rig, ImmediateData="No")
        pdu, ended = self.waiting_write(other), read(other, 0, 1)
        other.receive()
        assert reassign(first, pdu)[0] == TaskResponse.STILL_ALLEGIANT
        assert reassign(first, ended)[0] == TaskResponse.STILL_ALLEGIANT
        other.close()
        first.receive()
        assert reassign(first, pdu)[0] == TaskResponse.STILL_ALLEGIANT
        recover(first, 1)
        assert reassign(first, pdu)[0] == TaskResponse.COMPLETE
        assert reassign(first, pdu)[0] == TaskResponse.STILL_ALLEGIANT, "now to this one"
        assert reassign(first, ended)[0] == TaskResponse.COMPLETE

    def test_no_such_task(self, rig: Rig) -> None:
        first, other = pair(rig, ImmediateData="No")
        pdu = self.waiting_write(other)
        other.close()
        first.receive()
        recover(first, 1)
        assert reassign(first, pdu, lun=1 << 48)[0] == TaskResponse.NO_SUCH_TASK
        assert reassign(first, ScsiCommand(itt=4711))[0] == TaskResponse.NO_SUCH_TASK

    def test_level_1_does_not_reassign(self, rig: Rig) -> None:
        wire = logged_in(rig, ErrorRecoveryLevel="1", MaxConnections="2", ImmediateData="No")
        other = joined(wire, 1)
        pdu = self.waiting_write(other)
        assert reassign(wire, pdu)[0] == TaskResponse.REASSIGN_UNSUPPORTED
        assert log_out(wire, LogoutReason.RECOVERY, 1).response == LogoutResponseCode.RECOVERY_UNSUPPORTED
        other.close()
        assert not wire.session.commands

    def test_logout_for_recovery_says_how_long_tasks_are_kept(self, rig: Rig) -> None:
        first, other = pair(rig, DefaultTime2Retain="10")
        answer = log_out(first, LogoutReason.RECOVERY, 1)
        assert (answer.response, answer.time2wait, answer.time2retain) == (LogoutResponseCode.CLOSED, 3, 10)
        assert other.dropped, "it was still there"
        assert log_out(first, LogoutReason.RECOVERY, 7).response == LogoutResponseCode.CID_NOT_FOUND
        assert log_out(first, LogoutReason.RECOVERY, 1).response == LogoutResponseCode.CLOSED, (
            "its state is still there"
        )

    def test_logout_of_a_lost_connection_aborts_its_tasks(self, rig: Rig) -> None:
        first, other = pair(rig, ImmediateData="No")
        pdu = self.waiting_write(other)
        other.close()
        first.receive()
        assert log_out(first, LogoutReason.CLOSE_CONNECTION, 1).response == LogoutResponseCode.CLOSED
        assert not first.session.commands
        assert reassign(first, pdu)[0] == TaskResponse.NO_SUCH_TASK
        assert log_out(first, LogoutReason.CLOSE_CONNECTION, 1).response == LogoutResponseCode.CID_NOT_FOUND

    def test_a_connection_can_log_itself_out_for_recovery(self, rig: Rig) -> None:
        first, other = pair(rig, ImmediateData="No")
        pdu = self.waiting_write(other)
        recover(other, 1)
        assert other.connection.state is State.CLOSING
        other.close()
        response, (r2t,) = reassign(first, pdu)
        assert response == TaskResponse.COMPLETE
        assert first.ask(DataOut(bytes(512), final=True, itt=pdu.itt, ttt=r2t.ttt), ScsiResponse).status == Status.GOOD


class TestTime:
    """RFC 7143 §13.15, §13.16."""

    @pytest.mark.parametrize("logged_out", [True, False])
    def test_tasks_are_given_up(self, rig: Rig, logged_out: bool) -> None:
        first, other = pair(rig, ImmediateData="No")
        pdu = command(other, write_10(0, 1), write=True, edtl=512)
        other.ask(pdu, R2T)
        ended = read(other, 0, 1)
        other.close()
        first.receive()
        if logged_out:
            recover(first, 1)
        rig.node.tick(100)
        rig.node.tick(122)
        assert first.session.commands
        rig.node.tick(123)
        assert not first.session.commands
        assert first.session.outstanding == 0
        for task in (pdu, ended):
            assert reassign(first, task)[0] == TaskResponse.NO_SUCH_TASK

    def test_nothing_is_kept_when_the_initiator_does_not_want_it(self, rig: Rig) -> None:
        first, other = pair(rig, ImmediateData="No", DefaultTime2Retain="0")
        pdu = command(other, write_10(0, 1), write=True, edtl=512)
        other.ask(pdu, R2T)
        other.close()
        first.receive()
        assert not first.session.commands
        assert reassign(first, pdu)[0] == TaskResponse.NO_SUCH_TASK

    @pytest.mark.parametrize("same_cid", [True, False])
    def test_a_session_of_one_connection_is_continued(self, rig: Rig, same_cid: bool) -> None:
        wire = recovering(rig, ImmediateData="No", MaxConnections="1")
        pdu = command(wire, write_10(0, 1), write=True, edtl=512)
        wire.ask(pdu, R2T)
        wire.close()
        rig.node.tick(100)
        again = joined(wire, 0 if same_cid else 5)
        if not same_cid:
            assert reassign(again, pdu)[0] == TaskResponse.STILL_ALLEGIANT
            recover(again, 0)
        response, (r2t,) = reassign(again, pdu)
        assert response == TaskResponse.COMPLETE
        assert again.ask(DataOut(bytes(512), final=True, itt=pdu.itt, ttt=r2t.ttt), ScsiResponse).status == Status.GOOD
        rig.node.tick(1000)
        assert rig.node.sessions

    def test_a_session_that_nobody_continues_ends(self, rig: Rig) -> None:
        wire = recovering(rig, ImmediateData="No")
        wire.ask(command(wire, write_10(0, 1), write=True, edtl=512), R2T)
        wire.close()
        rig.node.tick(100)
        rig.node.tick(123)
        assert not rig.node.sessions
        assert not rig.units[0].nexuses


class TestOthers:
    def test_a_live_connection_is_reinstated(self, rig: Rig) -> None:
        first, other = pair(rig, ImmediateData="No")
        pdu = command(other, write_10(0, 1), write=True, edtl=512)
        other.ask(pdu, R2T)
        again = joined(first, 1)
        assert other.dropped
        response, (r2t,) = reassign(again, pdu)
        assert response == TaskResponse.COMPLETE
        assert again.ask(DataOut(bytes(512), final=True, itt=pdu.itt, ttt=r2t.ttt), ScsiResponse).status == Status.GOOD

    def test_a_lost_task_is_aborted(self, rig: Rig) -> None:
        first, other = pair(rig, ImmediateData="No")
        pdu = command(other, write_10(0, 1), write=True, edtl=512)
        other.ask(pdu, R2T)
        other.close()
        first.receive()
        request = TaskManagementRequest(
            final=True, immediate=True, function=TaskFunction.ABORT_TASK, itt=first.itt, cmd_sn=first.numbers.cmd_sn,
            referenced_task_tag=pdu.itt, ref_cmd_sn=pdu.cmd_sn,
        )  # fmt: skip
        assert first.ask(request, TaskManagementResponse).response == TaskResponse.COMPLETE
        recover(first, 1)
        assert reassign(first, pdu)[0] == TaskResponse.NO_SUCH_TASK

    def test_writes_that_wait_for_memory_go_on(self, tmp_path: Path) -> None:
        with contextlib.closing(Rig.on_file(tmp_path / "disk", preferences=PREFERENCES)) as rig:
            self.check_memory(rig)

    def check_memory(self, rig: Rig) -> None:
        first, other = pair(rig, ImmediateData="No", InitialR2T="Yes", MaxBurstLength="4194304")
        large = [command(other, write_10(0, 8192), write=True, edtl=4 << 20) for _ in range(6)]
        other.send(*large)
        assert len(other.receive()) == 4, "the limit of solicited data"
        other.close()
        first.receive()
        recover(first, 1)
        asked = [reassign(first, pdu)[1] for pdu in large]
        assert [len(r2ts) for r2ts in asked] == [1, 1, 1, 1, 0, 0]
        for pdu, r2ts in zip(large[:2], asked[:2], strict=True):
            step = r2ts[0].desired_length
            first.send(*pieces(pdu.itt, r2ts[0].ttt, bytes(step), 0, step, 262144))
        assert first.receive()

    def test_a_task_survives_one_connection_after_the_other(self, rig: Rig) -> None:
        first, wire = pair(rig, ImmediateData="No")
        pdu = command(wire, write_10(0, 1), write=True, edtl=512)
        wire.ask(pdu, R2T)
        for cid in range(1, 10):
            wire.close()
            first.receive()
            recover(first, cid)
            wire = joined(first, cid + 1)
            response, (r2t,) = reassign(wire, pdu)
            assert response == TaskResponse.COMPLETE
        assert wire.ask(DataOut(bytes(512), final=True, itt=pdu.itt, ttt=r2t.ttt), ScsiResponse).status == Status.GOOD


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    script=st.lists(st.tuples(st.booleans(), st.integers(1, 20)), min_size=1, max_size=8),
    cuts=st.lists(st.integers(0, 40), max_size=6),
    random=st.randoms(),
)
def test_cut_anywhere_everything_ends_well(
    tmp_path: Path, script: list[tuple[bool, int]], cuts: list[int], random: Random
) -> None:
    """Reads and writes on a connection that is cut after any PDU, again and again: all of them end, with the right data."""
    (tmp_path / "disk").write_bytes(DATA)
    with contextlib.closing(Rig.on_existing(tmp_path / "disk", PREFERENCES)) as rig:
        Transfers(rig, script, cuts, random).run()
        expected = bytearray(DATA)
        for number, (writes, blocks) in enumerate(script):
            if writes:
                expected[number * 16384 : number * 16384 + blocks * 512] = bytes([number]) * (blocks * 512)
        assert (tmp_path / "disk").read_bytes() == expected


class Transfers:
    """An initiator that gets on with its commands over one connection at a time, which is cut after so many PDUs."""

    def __init__(self, rig: Rig, script: list[tuple[bool, int]], cuts: list[int], random: Random) -> None:
        self.anchor = recovering(rig, ImmediateData="No", InitialR2T="Yes", MaxBurstLength="2048")
        self.script = script
        self.cuts = cuts
        self.random = random
        self.cid = 1
        self.withheld = False  # whether data was lost with the connection that is to be cut now
        self.wire = joined(self.anchor, 1, MaxRecvDataSegmentLength="1024")
        self.data: dict[int, bytearray] = {}
        self.data_sn: dict[int, int] = {}
        self.left: dict[int, tuple[ScsiCommand, int]] = {}

    def run(self) -> None:
        for number, (writes, blocks) in enumerate(self.script):
            cdb = (write_10 if writes else read_10)(number * 32, blocks)
            pdu = command(self.wire, cdb, read=not writes, write=writes, edtl=blocks * 512)
            self.left[pdu.itt] = pdu, number
            self.data[pdu.itt], self.data_sn[pdu.itt] = bytearray(), 0
            self.wire.send(pdu)
        for _ in range(500):
            if not self.left:
                break
            self.go_on()
        assert not self.left

    def go_on(self) -> None:
        answers = self.wire.receive()
        cut = self.cuts.pop() if self.cuts else len(answers)
        for answer in answers[:cut]:
            self.take(answer)
        if cut < len(answers) or self.withheld:
            self.reconnect()

    def take(self, answer: Pdu) -> None:
        if answer.itt not in self.left:
            return
        pdu, number = self.left[answer.itt]
        if isinstance(answer, DataIn):
            assert answer.data_sn == self.data_sn[answer.itt]
            assert answer.buffer_offset == len(self.data[answer.itt])
            self.data_sn[answer.itt] += 1
            self.data[answer.itt] += answer.data
        elif isinstance(answer, R2T):
            end = answer.buffer_offset + answer.desired_length
            sequence = pieces(pdu.itt, answer.ttt, bytes([number]) * end, answer.buffer_offset, end, 512)
            kept = self.random.choice([len(sequence), self.random.randint(0, len(sequence))])
            self.wire.send(*sequence[:kept])
            self.withheld = self.withheld or kept < len(sequence)
        elif isinstance(answer, ScsiResponse):
            assert answer.status == Status.GOOD
            if pdu.read:
                assert self.data[pdu.itt] == DATA[number * 16384 : number * 16384 + pdu.edtl]
            del self.left[answer.itt]

    def reconnect(self) -> None:
        self.withheld = False
        self.wire.close()
        self.anchor.receive()
        recover(self.anchor, self.cid)
        self.cid = 3 - self.cid
        self.wire = joined(self.anchor, self.cid, MaxRecvDataSegmentLength=str(self.random.choice([512, 1024, 4096])))
        answers = []
        for pdu, _ in self.left.values():
            response, rest = reassign(self.wire, pdu, self.data_sn[pdu.itt])
            assert response == TaskResponse.COMPLETE
            answers += rest
        for answer in answers:
            self.take(answer)


def test_the_session_serves_on_meanwhile(rig: Rig) -> None:
    first, other = pair(rig)
    read(other, 0, 8)
    other.close()
    first.receive()
    assert first.ask(command(first, TEST_UNIT_READY), ScsiResponse).status == Status.GOOD
    assert first.ask(NopOut(final=True, itt=first.itt, ttt=NO_TAG, cmd_sn=first.cmd_sn), NopIn)
