"""Several connections a session: order, allegiance, coming and going (RFC 7143 §4.2, §6.3, §7.5, §11.14)."""

from __future__ import annotations

import contextlib
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blockyard.iscsi.connection import State
from blockyard.iscsi.login import COMMAND_WINDOW
from blockyard.iscsi.negotiation import Preferences, decode_text
from blockyard.iscsi.pdu import (
    NO_TAG,
    R2T,
    AsyncEvent,
    AsyncMessage,
    DataOut,
    LoginStatus,
    LogoutReason,
    LogoutRequest,
    LogoutResponse,
    LogoutResponseCode,
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
    TaskResponse,
)
from blockyard.scsi.task import Status
from tests.iscsi.commands import (
    TEST_UNIT_READY,
    acknowledge,
    clear_tas,
    command,
    joined,
    logged_in,
    read,
    sense,
    write,
    write_10,
)
from tests.wire import Rig, Wire, pieces


def pair(rig: Rig, **keys: Any) -> tuple[Wire, Wire]:
    """A session of two connections."""
    first = logged_in(rig, MaxConnections="16", **keys)
    return first, joined(first, 1)


def ping(wire: Wire) -> NopOut:
    return NopOut(final=True, itt=wire.itt, ttt=NO_TAG, cmd_sn=wire.cmd_sn)


def answer_pings(wire: Wire) -> list[Pdu]:
    """What has come on a connection, after the target's NOP-Ins among it have been answered with all of it acknowledged."""
    answers = wire.receive()
    for nop in answers:
        if isinstance(nop, NopIn) and nop.ttt != NO_TAG:
            acknowledge(wire, nop.ttt)
    return [answer for answer in answers if not isinstance(answer, NopIn)]


def manage(wire: Wire, function: TaskFunction, **fields: int) -> TaskManagementRequest:
    values = {"cmd_sn": wire.numbers.cmd_sn, "itt": wire.itt, **fields}
    return TaskManagementRequest(b"", b"", final=True, immediate=True, function=function, **values)


def waiting_write(wire: Wire, lba: int = 0) -> tuple[ScsiCommand, R2T]:
    pdu = command(wire, write_10(lba, 1), write=True, edtl=512)
    return pdu, wire.ask(pdu, R2T)


def blocking_write(wire: Wire) -> ScsiCommand:
    """A write that waits for the medium (FUA): it runs in a thread, and does not end before the loop looks."""
    cdb = bytearray(write_10(0, 1))
    cdb[1] = 0x08
    return command(wire, bytes(cdb), b"x" * 512, write=True, edtl=512)


class TestLogin:
    """RFC 7143 §6.3.1, §6.3.4."""

    def test_connections_join_up_to_the_limit(self, rig: Rig) -> None:
        first = logged_in(rig, MaxConnections="3")
        for cid in (1, 2):
            assert joined(first, cid).session is first.session
        late = Wire(rig, beside=first, cid=3)
        assert late.log_in().status == LoginStatus.TOO_MANY_CONNECTIONS
        assert read(first, 0, 1) == bytes(512)
        assert len(rig.node.sessions) == 1

    def test_sixteen_connections_are_granted(self, rig: Rig) -> None:
        assert logged_in(rig, MaxConnections="100").session.parameters.max_connections == 16

    def test_one_connection_unless_more_were_negotiated(self, rig: Rig) -> None:
        late = Wire(rig, beside=logged_in(rig), cid=1)
        assert late.log_in().status == LoginStatus.TOO_MANY_CONNECTIONS

    def test_the_response_has_the_numbers_of_the_session(self, rig: Rig) -> None:
        first = logged_in(rig, MaxConnections="2", ImmediateData="No")
        waiting_write(first)
        first.numbers.cmd_sn += 5  # commands that are still under way
        other = Wire(rig, beside=first, cid=1)
        response = other.log_in()
        assert response.tsih == first.session.tsih
        assert response.exp_cmd_sn == first.session.exp_cmd_sn == first.numbers.cmd_sn - 5
        assert response.max_cmd_sn == response.exp_cmd_sn + COMMAND_WINDOW - 2

    def test_another_session_does_not_exist(self, rig: Rig) -> None:
        first = logged_in(rig, MaxConnections="2")
        stranger = Wire(rig, beside=first, cid=1, isid=b"\x80\0\0\0\0\x55")
        assert stranger.log_in().status == LoginStatus.SESSION_DOES_NOT_EXIST
        again = logged_in(rig, MaxConnections="2")
        stale = Wire(rig, beside=first, cid=1)  # with the TSIH of before the reinstatement
        assert stale.log_in().status == LoginStatus.SESSION_DOES_NOT_EXIST
        assert joined(again, 1).session is again.session

    def test_keys_of_the_leading_login_are_refused_later(self, rig: Rig) -> None:
        first = logged_in(rig, MaxConnections="2")
        other = Wire(rig, beside=first, cid=1)
        response = other.log_in(MaxConnections="8", ErrorRecoveryLevel="2", HeaderDigest="CRC32C")
        answers = dict(decode_text(response.data))
        assert (answers["MaxConnections"], answers["ErrorRecoveryLevel"]) == ("Reject", "Reject")
        assert answers["HeaderDigest"] == "CRC32C"
        assert other.connection.header_digest
        assert not first.connection.header_digest
        assert read(other, 0, 1) == read(first, 0, 1)

    def test_a_connection_is_reinstated(self, rig: Rig) -> None:
        first, other = pair(rig, ImmediateData="No")
        pdu, r2t = waiting_write(other)
        again = joined(first, 1)
        assert other.dropped
        assert list(first.session.connections) == [0, 1]
        again.send(DataOut(bytes(512), final=True, itt=pdu.itt, ttt=r2t.ttt))
        assert again.receive() == [], "a command of the old connection has lived on"
        assert write(again, 0, b"x" * 512).status == Status.GOOD
        assert first.session.outstanding == 0

    def test_a_reinstated_connection_waits_for_running_tasks(self, rig: Rig) -> None:
        first, other = pair(rig)
        other.send(blocking_write(other))
        assert rig.executor.busy
        again = Wire(rig, beside=first, cid=1)
        request_login(again)
        assert not again._out, "the login was granted while a task of the old connection ran"
        assert again.log_in_response().status == 0
        assert not rig.executor.busy


def request_login(wire: Wire) -> None:
    """Ask for a login without waiting for the answer."""
    wire.log_in_response, answer = (lambda: None), wire.log_in_response  # type: ignore[assignment, method-assign, return-value]
    wire.log_in()
    wire.log_in_response = answer  # type: ignore[method-assign]


class TestOrder:
    """RFC 7143 §4.2.2.1."""

    def test_a_command_waits_for_one_of_another_connection(self, rig: Rig) -> None:
        first, other = pair(rig)
        one, two = ping(first), ping(other)
        other.send(two)
        assert other.receive() == []
        first.send(one)
        assert [answer.itt for answer in first.receive()] == [one.itt]
        assert [answer.itt for answer in other.receive()] == [two.itt]

    def test_unsolicited_data_waits_with_its_command(self, rig: Rig) -> None:
        first, other = pair(rig, ImmediateData="No")
        before = ping(first)
        pdu = command(other, write_10(0, 4), write=True, edtl=2048, final=False)
        other.send(pdu, *pieces(pdu.itt, NO_TAG, b"d" * 2048, 0, 2048, 512))
        assert other.receive() == []
        first.send(before)
        first.receive()
        (answer,) = other.receive()
        assert isinstance(answer, ScsiResponse)
        assert answer.status == Status.GOOD
        assert read(first, 0, 4) == b"d" * 2048

    def test_the_data_path_does_not_overtake_what_is_held(self, rig: Rig) -> None:
        first, other = pair(rig)
        turns = enumerate((first, other, first))
        writes = [command(wire, write_10(0, 8), bytes([n]) * 4096, write=True, edtl=4096) for n, wire in turns]
        other.send(writes[1])
        first.send(writes[2])
        assert first.receive() == []
        first.send(writes[0])
        assert [answer.itt for answer in first.receive()] == [writes[0].itt, writes[2].itt]
        assert [answer.itt for answer in other.receive()] == [writes[1].itt]
        assert read(other, 0, 8) == bytes([2]) * 4096

    def test_an_immediate_command_does_not_wait(self, rig: Rig) -> None:
        first, other = pair(rig)
        ping(first)
        assert other.ask(
            NopOut(final=True, immediate=True, itt=other.itt, ttt=NO_TAG, cmd_sn=first.numbers.cmd_sn), NopIn
        )

    def test_a_duplicate_on_another_connection_is_ignored(self, rig: Rig) -> None:
        first, other = pair(rig)
        early = ping(first)
        late = ping(other)
        other.send(late)
        first.send(late)
        assert first.receive() == []
        first.send(early)
        assert [answer.itt for answer in first.receive()] == [early.itt]
        assert [answer.itt for answer in other.receive()] == [late.itt]

    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(script=st.lists(st.integers(0, 3), min_size=2, max_size=24), immediate=st.booleans(), random=st.randoms())
    def test_any_interleaving_runs_in_order(
        self, tmp_path: Path, script: list[int], immediate: bool, random: Random
    ) -> None:
        with contextlib.closing(Rig.on_file(tmp_path / "disk")) as rig:
            self.check(rig, script, immediate, random)

    def check(self, rig: Rig, script: list[int], immediate: bool, random: Random) -> None:
        first = logged_in(rig, MaxConnections="16", ImmediateData="Yes" if immediate else "No")
        wires = [first, *(joined(first, cid) for cid in range(1, 4))]
        # Where data comes behind its command the next commands need not wait for it: no two write the same block then.
        blocks = 3 if immediate else len(script)
        queues: list[list[list[Pdu]]] = [[] for _ in wires]
        expected: list[list[int]] = [[] for _ in wires]
        for number, line in enumerate(script):
            block = bytes([number]) * 4096
            pdu = command(
                wires[line], write_10(8 * (number % blocks), 8), block if immediate else b"", write=True, edtl=4096,
                final=immediate,
            )  # fmt: skip
            follow = [] if immediate else pieces(pdu.itt, NO_TAG, block, 0, 4096, 2048)
            queues[line].append([pdu, *follow])
            expected[line].append(pdu.itt)
        answers: list[list[Pdu]] = [[] for _ in wires]
        while any(queues):
            line = random.choice([line for line, queue in enumerate(queues) if queue])
            wires[line].send(*queues[line].pop(0))
            for index, wire in enumerate(wires):
                answers[index] += wire.receive()
        for line, wire in enumerate(wires):
            assert [answer.itt for answer in answers[line]] == expected[line]
            stat_sns = [answer.stat_sn for answer in answers[line]]  # type: ignore[attr-defined]
            assert stat_sns == list(range(wire.connection.stat_sn - len(stat_sns), wire.connection.stat_sn))
            assert all(isinstance(answer, ScsiResponse) and answer.status == Status.GOOD for answer in answers[line])
        for slot in range(min(blocks, len(script))):
            last = max(number for number in range(len(script)) if number % blocks == slot)
            assert read(first, 8 * slot, 8) == bytes([last]) * 4096
        assert not first.session.detour


class TestAllegiance:
    """RFC 7143 §4.2.5.1."""

    def test_everything_of_a_command_stays_on_its_connection(self, rig: Rig) -> None:
        wires = pair(rig, ImmediateData="No", InitialR2T="Yes")
        for number, wire in enumerate(wires):
            assert write(wire, number, bytes([number]) * 512).status == Status.GOOD
        assert read(wires[0], 1, 1) == b"\1" * 512

    def test_data_on_another_connection_is_rejected(self, rig: Rig) -> None:
        first, other = pair(rig, ImmediateData="No")
        pdu, r2t = waiting_write(first)
        data = DataOut(b"x" * 512, final=True, itt=pdu.itt, ttt=r2t.ttt)
        assert other.ask(data, Reject).reason == RejectReason.PROTOCOL_ERROR
        assert first.ask(data, ScsiResponse).status == Status.GOOD

    def test_a_task_tag_is_taken_on_all_connections(self, rig: Rig) -> None:
        first, other = pair(rig, ImmediateData="No")
        pdu, _ = waiting_write(first)
        again = command(other, TEST_UNIT_READY, itt=pdu.itt)
        assert other.ask(again, Reject).reason == RejectReason.TASK_IN_PROGRESS


class TestLogout:
    """RFC 7143 §11.14, §11.15."""

    def log_out(self, wire: Wire, reason: LogoutReason, cid: int = 0) -> LogoutResponseCode:
        request = LogoutRequest(final=True, reason=reason, cid=cid, itt=wire.itt, cmd_sn=wire.cmd_sn)
        return LogoutResponseCode(wire.ask(request, LogoutResponse).response)

    def test_of_this_connection(self, rig: Rig) -> None:
        first, other = pair(rig)
        assert self.log_out(other, LogoutReason.CLOSE_CONNECTION, 1) == LogoutResponseCode.CLOSED
        assert other.connection.state is State.CLOSING
        other.close()
        assert list(first.session.connections) == [0]
        assert first.receive() == [], "a logout is no drop"
        assert read(first, 0, 1) == bytes(512)

    def test_of_another_connection(self, rig: Rig) -> None:
        first, other = pair(rig, ImmediateData="No")
        waiting_write(other)
        assert self.log_out(first, LogoutReason.CLOSE_CONNECTION, 1) == LogoutResponseCode.CLOSED
        assert other.dropped
        assert not first.session.commands
        assert read(first, 0, 1) == bytes(512)
        assert self.log_out(first, LogoutReason.CLOSE_CONNECTION, 1) == LogoutResponseCode.CID_NOT_FOUND

    def test_of_the_last_connection_ends_the_session(self, rig: Rig) -> None:
        first, other = pair(rig)
        assert self.log_out(other, LogoutReason.CLOSE_CONNECTION, 1) == LogoutResponseCode.CLOSED
        assert self.log_out(first, LogoutReason.CLOSE_CONNECTION, 0) == LogoutResponseCode.CLOSED
        assert not rig.node.sessions
        assert not rig.units[0].nexuses

    def test_of_the_session(self, rig: Rig) -> None:
        first, other = pair(rig, ImmediateData="No")
        waiting_write(first)
        assert self.log_out(other, LogoutReason.CLOSE_SESSION) == LogoutResponseCode.CLOSED
        assert first.dropped
        assert other.connection.state is State.CLOSING
        assert not rig.node.sessions

    def test_the_answer_waits_for_running_tasks(self, rig: Rig) -> None:
        first, _ = pair(rig)
        first.send(blocking_write(first))
        first.send(LogoutRequest(final=True, reason=LogoutReason.CLOSE_SESSION, itt=first.itt, cmd_sn=first.cmd_sn))
        assert not first._out, "the logout was answered while a task ran"
        (answer,) = first.receive()
        assert isinstance(answer, LogoutResponse)
        assert first.connection.state is State.CLOSING

    def test_for_recovery_at_level_0(self, rig: Rig) -> None:
        first, other = pair(rig)
        assert self.log_out(first, LogoutReason.RECOVERY, 1) == LogoutResponseCode.RECOVERY_UNSUPPORTED
        assert not other.dropped
        assert self.log_out(other, LogoutReason.RECOVERY, 1) == LogoutResponseCode.RECOVERY_UNSUPPORTED
        assert other.connection.state is State.FULL_FEATURE


class TestLoss:
    """RFC 7143 §7.5, §11.9.1."""

    def test_the_others_are_told_and_go_on(self, rig: Rig) -> None:
        first, other = pair(rig, ImmediateData="No", DefaultTime2Wait="5")
        waiting_write(other)
        other.close()
        (message,) = first.receive()
        assert isinstance(message, AsyncMessage)
        assert (message.event, message.parameter1) == (AsyncEvent.CONNECTION_DROPPED, 1)
        assert (message.parameter2, message.parameter3) == (5, 0)
        assert not first.session.commands
        assert write(first, 0, b"x" * 512).status == Status.GOOD

    def test_what_was_held_can_be_sent_again_by_another_connection(self, rig: Rig) -> None:
        first, other = pair(rig)
        missing, early = ping(first), ping(other)
        other.send(early)
        other.close()
        first.receive()
        first.send(early, missing)
        assert [answer.itt for answer in first.receive()] == [missing.itt, early.itt]

    def test_the_session_ends_with_the_last(self, rig: Rig) -> None:
        first, other = pair(rig)
        first.close()
        assert rig.node.sessions
        other.close()
        assert not rig.node.sessions

    @pytest.mark.parametrize("returns", [True, False])
    def test_a_session_without_connections_waits_to_be_continued(self, tmp_path: Path, returns: bool) -> None:
        preferences = Preferences(default_time2wait=2, default_time2retain=20)
        rig = Rig.on_file(tmp_path / "disk", preferences=preferences)
        first = logged_in(rig, DefaultTime2Wait="2", DefaultTime2Retain="60")
        first.close()
        rig.node.tick(100)
        rig.node.tick(121)
        if returns:
            again = joined(first, 0)
            rig.node.tick(1000)
            assert again.session is first.session
            assert again.ask(command(again, TEST_UNIT_READY), ScsiResponse).status == Status.GOOD, "the nexus was lost"
            again.close()
            rig.node.tick(1001)
            rig.node.tick(1022)
            assert rig.node.sessions
        rig.node.tick(1023 if returns else 122)
        assert not rig.node.sessions
        assert not rig.units[0].nexuses
        late = Wire(rig, beside=first, cid=0)
        assert late.log_in().status == LoginStatus.SESSION_DOES_NOT_EXIST
        rig.close()

    def test_session_reinstatement_waits_for_running_tasks(self, rig: Rig) -> None:
        first, other = pair(rig)
        other.send(blocking_write(other))
        again = Wire(rig)
        request_login(again)
        assert first.dropped
        assert other.dropped
        assert not again._out, "the login was granted while a task of the old session ran"
        assert again.log_in_response().status == 0
        assert sense(again.ask(command(again, TEST_UNIT_READY), ScsiResponse))[:2] == "06"
        assert len(rig.node.sessions) == 1
        assert len(rig.units[0].nexuses) == 1


class TestTaskManagement:
    """RFC 7143 §4.2.3.3, §4.2.2.3, §11.5."""

    def test_abort_task_of_another_connection(self, rig: Rig) -> None:
        first, other = pair(rig, ImmediateData="No")
        pdu, r2t = waiting_write(first)
        request = manage(other, TaskFunction.ABORT_TASK, referenced_task_tag=pdu.itt, ref_cmd_sn=pdu.cmd_sn)
        assert other.ask(request, TaskManagementResponse).response == TaskResponse.COMPLETE
        first.send(DataOut(bytes(512), final=True, itt=pdu.itt, ttt=r2t.ttt))
        assert first.receive() == []

    def test_that_a_task_has_ended_is_said_after_its_response(self, rig: Rig) -> None:
        first, other = pair(rig)
        pdu = command(other, TEST_UNIT_READY)
        other.send(pdu)
        first.send(manage(first, TaskFunction.ABORT_TASK, referenced_task_tag=pdu.itt, ref_cmd_sn=pdu.cmd_sn))
        assert answer_pings(first) == []
        assert [answer.itt for answer in answer_pings(other)] == [pdu.itt]
        (answer,) = answer_pings(first)
        assert isinstance(answer, TaskManagementResponse)
        assert answer.response == TaskResponse.NO_SUCH_TASK

    def test_abort_task_that_is_held(self, rig: Rig) -> None:
        first, other = pair(rig)
        missing, early = ping(first), command(other, TEST_UNIT_READY)
        other.send(early)
        request = manage(first, TaskFunction.ABORT_TASK, referenced_task_tag=early.itt, ref_cmd_sn=early.cmd_sn)
        assert first.ask(request, TaskManagementResponse).response == TaskResponse.COMPLETE
        first.send(missing)
        assert [answer.itt for answer in first.receive()] == [missing.itt]
        assert other.receive() == []
        assert first.ask(command(first, TEST_UNIT_READY), ScsiResponse).status == Status.GOOD

    def test_a_function_on_many_tasks_waits_for_all_commands_before_it(self, rig: Rig) -> None:
        first, other = pair(rig, ImmediateData="No")
        late = command(other, write_10(0, 1), write=True, edtl=512)
        first.send(manage(first, TaskFunction.ABORT_TASK_SET))
        assert first.receive() == []
        other.send(late)
        assert [type(answer) for answer in answer_pings(other)] == [R2T]
        answer_pings(first)
        (answer,) = answer_pings(first)
        assert isinstance(answer, TaskManagementResponse)
        assert answer.response == TaskResponse.COMPLETE
        assert not first.session.commands

    def test_its_response_waits_until_earlier_ones_have_arrived(self, rig: Rig) -> None:
        first, other = pair(rig)
        other.send(command(other, TEST_UNIT_READY))
        first.send(manage(first, TaskFunction.LOGICAL_UNIT_RESET))
        (nop,) = first.receive()
        assert isinstance(nop, NopIn)
        acknowledge(first, nop.ttt)
        assert first.receive() == [], "the other connection has not acknowledged"
        response, nop = other.receive()
        assert isinstance(response, ScsiResponse)
        assert isinstance(nop, NopIn)
        other.send(command(other, TEST_UNIT_READY))
        assert other.receive() == [], "a response has passed the fence"
        acknowledge(other, nop.ttt)
        answer, nop = first.receive()
        assert isinstance(answer, TaskManagementResponse)
        assert isinstance(nop, NopIn)
        assert other.receive() == [], "a response has passed the fence"
        acknowledge(first, nop.ttt)
        (late,) = other.receive()
        assert isinstance(late, ScsiResponse)
        assert sense(late)[:4] == "0629"
        assert not first.session.detour

    def test_what_begins_an_aca_condition_is_fenced(self, rig: Rig) -> None:
        first, other = pair(rig)
        cdb = bytearray(write_10(1 << 30, 1))
        cdb[9] = 0x04  # NACA
        first.send(command(first, bytes(cdb), b"x" * 512, write=True, edtl=512))
        assert answer_pings(first) == [], "the other connection has not acknowledged"
        other.send(command(other, TEST_UNIT_READY))
        assert answer_pings(other) == []
        (established,) = answer_pings(first)
        assert isinstance(established, ScsiResponse)
        assert established.status == Status.CHECK_CONDITION
        answer_pings(first)
        answers = answer_pings(other) + answer_pings(first) + answer_pings(other)
        assert [answer.status for answer in answers if isinstance(answer, ScsiResponse)] == [Status.ACA_ACTIVE]
        assert first.ask(manage(first, TaskFunction.CLEAR_ACA), NopIn)

    def test_the_fence_falls_with_the_connection_that_it_waits_for(self, rig: Rig) -> None:
        first, other = pair(rig)
        first.send(manage(first, TaskFunction.LOGICAL_UNIT_RESET))
        answer_pings(first)
        other.close()
        message, answer = answer_pings(first)
        assert isinstance(message, AsyncMessage)
        assert isinstance(answer, TaskManagementResponse)
        answer_pings(first)
        assert not first.session.detour
        assert first.ask(command(first, TEST_UNIT_READY), ScsiResponse).status == Status.CHECK_CONDITION

    @pytest.mark.parametrize("tas", [0, 1])
    @pytest.mark.parametrize("reporting", ["RFC3720", "ResponseFence", "FastAbort"])
    def test_other_sessions_are_fenced_and_told(self, rig: Rig, reporting: str, tas: int) -> None:
        mine = logged_in(rig)
        first = logged_in(rig, isid=b"\x80\0\0\0\0\7", ImmediateData="No", MaxConnections="2", TaskReporting=reporting)
        if not tas:  # 1 is the default
            clear_tas(mine, first)
        other = joined(first, 1)
        theirs, _ = waiting_write(first)
        assert mine.ask(manage(mine, TaskFunction.CLEAR_TASK_SET), TaskManagementResponse).response == 0
        ready = command(other, TEST_UNIT_READY)
        other.send(ready)
        told = [answer_pings(first), answer_pings(other)]
        events = [(m.event, m.lun) for m in told[0] + told[1][:-1] if isinstance(m, AsyncMessage)]
        assert events == ([(AsyncEvent.TASKS_TERMINATED, 0)] * (2 if reporting == "FastAbort" else 0))[: len(events)]
        rest = [*told[1], *answer_pings(other), *answer_pings(first)]
        answers = [pdu for pdu in rest if isinstance(pdu, ScsiResponse)]
        if tas:
            assert sorted((answer.itt, answer.status) for answer in answers) == [
                (theirs.itt, Status.TASK_ABORTED),
                (ready.itt, Status.GOOD),
            ]
        else:
            (answer,) = answers
            assert sense(answer)[:4] == "062f"
        assert not first.session.commands

    def test_cold_reset_ends_all_connections(self, rig: Rig) -> None:
        first, other = pair(rig)
        first.send(manage(first, TaskFunction.TARGET_COLD_RESET))
        answer_pings(other)
        answer_pings(first)
        answer, _ = first.receive()
        assert isinstance(answer, TaskManagementResponse)
        assert first.connection.state is State.CLOSING
        assert other.connection.state is State.CLOSING
        assert not rig.node.sessions


def test_every_connection_can_be_asked_to_log_out(rig: Rig) -> None:
    for wire in pair(rig):
        wire.connection.request_logout(7)
        (message,) = wire.receive()
        assert isinstance(message, AsyncMessage)
        assert (message.event, message.parameter3) == (AsyncEvent.LOGOUT_REQUESTED, 7)


def test_all_connections_share_one_window(rig: Rig) -> None:
    first, other = pair(rig, ImmediateData="No")
    writes = [command(wire, write_10(0, 1), write=True, edtl=512) for wire in (first, other) * (COMMAND_WINDOW // 2)]
    for wire, pdu in zip((first, other) * (COMMAND_WINDOW // 2), writes, strict=True):
        wire.send(pdu)
    r2ts = first.receive() + other.receive()
    assert len(r2ts) == COMMAND_WINDOW
    assert (first.session.max_cmd_sn - first.session.exp_cmd_sn + 1) & 0xFFFFFFFF == 0
    sn = first.numbers.cmd_sn
    other.send(command(other, TEST_UNIT_READY, cmd_sn=sn))
    assert other.receive() == [], "a command beyond the window was taken"
    for r2t in r2ts:
        assert isinstance(r2t, R2T)
        wire = first if r2t.itt in {pdu.itt for pdu in writes[::2]} else other
        wire.send(DataOut(bytes(512), final=True, itt=r2t.itt, ttt=r2t.ttt))
    first.receive()
    other.receive()
    assert other.ask(command(other, TEST_UNIT_READY, cmd_sn=sn), ScsiResponse).status == Status.GOOD
