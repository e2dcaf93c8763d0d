"""Group 11: task management (RFC 7143 §11.5, §11.6, §7.2.2)."""

from __future__ import annotations

import os

import pytest

from blockyard.iscsi.connection import State
from blockyard.iscsi.pdu import (
    NO_TAG,
    R2T,
    DataIn,
    LogoutReason,
    LogoutResponse,
    NopIn,
    ScsiResponse,
    TaskFunction,
    TaskManagementResponse,
    TaskResponse,
)
from blockyard.scsi.task import Status
from tests.unh.station import BLOCK, SOLICITED, HeldDevice, Line, Prepared, Station, response_of
from tests.wire import Rig

KEYS = {**SOLICITED, "MaxRecvDataSegmentLength": "1024"}
RECOVERING = {
    **KEYS,
    "ErrorRecoveryLevel": "2",
    "MaxConnections": "2",
    "DefaultTime2Wait": "0",
    "DefaultTime2Retain": "20",
}


def pair(rig: Rig) -> tuple[Line, Line]:
    """Two prepared connections of a session with ErrorRecoveryLevel 2."""
    station = Station(rig, RECOVERING)
    lines = station.connect(), station.connect()
    assert station.answer_of(lines[0], "ErrorRecoveryLevel") == "2"
    for line in lines:
        line.prepare()
    return lines


def held_read(line: Line, device: HeldDevice, blocks: int = 8) -> int:
    """Begin a READ that does not end before the device is released; its task tag."""
    device.hold()
    command = line.read_command(0, blocks)
    line.send(command)
    assert line.peek() == []
    return int(command.itt)


def test_ffp_11_1_immediate_and_non_immediate(prepared: Prepared) -> None:
    """An immediate ABORT TASK ends a WRITE that waits for data; an immediate WRITE beside it is carried out."""
    line = prepared(**KEYS)
    first = line.write_command(0, 2)
    r2t = line.ask(first, R2T)
    second = line.write_command(8, 2, immediate=True)
    other = line.ask(second, R2T)
    assert other.itt == second.itt
    abort = line.manage(TaskFunction.ABORT_TASK, referenced_task_tag=first.itt, ref_cmd_sn=first.cmd_sn)
    answer = line.ask(abort, TaskManagementResponse)
    assert (answer.itt, answer.response) == (abort.itt, TaskResponse.COMPLETE)
    line.send(line.data_out(r2t, b"a" * 1024))
    assert line.receive() == []
    line.send(line.data_out(other, b"b" * 1024))
    response = line.expect(ScsiResponse)
    assert (response.itt, response.status) == (second.itt, Status.GOOD)
    assert line.read_all(line.read_command(0, 10)) == bytes(8 * BLOCK) + b"b" * 1024


def test_ffp_11_2_1_reassign_after_logout(rig: Rig) -> None:
    """After its connection has logged out for recovery, a READ is reassigned, answered where that was asked."""
    first, second = pair(rig)
    command = first.read_command(0, 8)
    first.send(command)
    assert isinstance(first.receive()[0], DataIn)
    second.send(second.log_out(LogoutReason.RECOVERY, cid=first.cid, immediate=True))
    assert second.expect(LogoutResponse).response == 0
    request = second.manage(TaskFunction.TASK_REASSIGN, referenced_task_tag=command.itt)
    second.send(request)
    answers = second.receive()
    answer = response_of(answers)
    assert (answer.itt, answer.response) == (request.itt, TaskResponse.COMPLETE)
    assert first.receive() == []


def test_ffp_11_2_2_still_allegiant(rig: Rig, device: HeldDevice) -> None:
    """A task whose connection lives is still allegiant to it (response 3)."""
    first, second = pair(rig)
    tag = held_read(first, device)
    second.send(second.manage(TaskFunction.TASK_REASSIGN, referenced_task_tag=tag))
    (answer,) = second.peek()
    assert answer.response == TaskResponse.STILL_ALLEGIANT
    device.release()
    answers = first.receive()
    assert sum(len(each.data) for each in answers) == 8 * BLOCK
    assert answers[-1].status == Status.GOOD


@pytest.mark.parametrize("in_progress", [True, False])
def test_ffp_11_2_3_reassign_after_a_dropped_connection(rig: Rig, device: HeldDevice, in_progress: bool) -> None:
    """After its connection is gone, a READ is reassigned and goes on on the other connection.

    The suite takes the loss for an implicit logout, but allows for other responses; by RFC 7143 §7.2.2 the task is still
    allegiant (response 3) until the connection has been logged out.
    """
    first, second = pair(rig)
    data = os.urandom(8 * BLOCK)
    assert first.written(0, data).status == Status.GOOD
    if in_progress:
        tag = held_read(first, device)
    else:
        command = first.read_command(0, 8)
        first.send(command)
        assert first.receive()[-1].status == Status.GOOD
        tag = command.itt
    first.connection.closed()
    second.send(second.manage(TaskFunction.TASK_REASSIGN, referenced_task_tag=tag))
    answers = second.peek()
    if response_of(answers).response == TaskResponse.STILL_ALLEGIANT:
        second.send(second.log_out(LogoutReason.RECOVERY, cid=first.cid, immediate=True))
        (logout,) = second.peek()
        assert logout.response == 0
        second.send(second.manage(TaskFunction.TASK_REASSIGN, referenced_task_tag=tag))
        answers = second.peek()
    device.release()
    answers += second.receive()
    assert response_of(answers).response == TaskResponse.COMPLETE
    received = [each for each in answers if isinstance(each, DataIn)]
    assert [each.data_sn for each in received] == list(range(4))
    assert b"".join(bytes(each.data) for each in received) == data
    assert answers[-1].status == Status.GOOD


def test_ffp_11_3_1_abort_task_set(prepared: Prepared, device: HeldDevice) -> None:
    """Nothing comes of an aborted READ after the response to ABORT TASK SET; a NOP-Out with its CmdSN is answered."""
    line = prepared(**KEYS, ErrorRecoveryLevel="1")
    tag = held_read(line, device)
    request = line.manage(TaskFunction.ABORT_TASK_SET)
    line.send(request)
    line.send(line.ping(cmd_sn=request.cmd_sn))
    answers = line.peek()
    device.release()
    answers += line.receive()
    assert response_of(answers).response == TaskResponse.COMPLETE
    assert sum(isinstance(answer, NopIn) for answer in answers) == 1
    after = answers[answers.index(response_of(answers)) :]
    assert all(answer.itt != tag for answer in after)


def test_ffp_11_3_2_abort_task_set_with_a_command_that_comes_late(rig: Rig, device: HeldDevice) -> None:
    """A READ with a smaller CmdSN that comes on another connection after ABORT TASK SET is aborted with the set."""
    station = Station(rig, {**KEYS, "MaxConnections": "2"})
    first, second = station.connect(), station.connect()
    first.prepare()
    tag = held_read(first, device)
    late = second.read_command(8, 8)
    request = first.manage(TaskFunction.ABORT_TASK_SET)
    assert request.cmd_sn == late.cmd_sn + 1
    first.send(request)
    second.send(late)
    first.send(first.ping(cmd_sn=request.cmd_sn))
    device.release()
    answers = first.answer_pings() + second.answer_pings() + first.receive()
    assert response_of(answers).response == TaskResponse.COMPLETE
    assert sum(isinstance(answer, NopIn) and answer.itt != NO_TAG for answer in answers) == 1
    assert all(answer.itt not in (tag, late.itt) for answer in answers)


def test_ffp_11_3_3_abort_task_that_does_not_exist(prepared: Prepared, device: HeldDevice) -> None:
    """ABORT TASK for an unknown tag and a RefCmdSN outside of the window: response 1; nothing else is touched."""
    line = prepared(**KEYS, ErrorRecoveryLevel="1")
    tag = held_read(line, device)
    request = line.manage(TaskFunction.ABORT_TASK, referenced_task_tag=0x77777, ref_cmd_sn=line.station.cmd_sn + 100000)
    line.send(request)
    line.send(line.ping(cmd_sn=request.cmd_sn))
    answers = line.peek()
    device.release()
    answers += line.receive()
    assert response_of(answers).response == TaskResponse.NO_SUCH_TASK
    assert sum(isinstance(answer, NopIn) for answer in answers) == 1
    of_read = [answer for answer in answers if answer.itt == tag]
    assert sum(len(answer.data) for answer in of_read) == 8 * BLOCK
    assert of_read[-1].status == Status.GOOD


def test_ffp_11_4_target_warm_reset(prepared: Prepared, device: HeldDevice) -> None:
    """TARGET WARM RESET ends all tasks; the session lives on, and is told of the reset."""
    line = prepared(**KEYS, ErrorRecoveryLevel="1")
    tag = held_read(line, device)
    line.send(line.manage(TaskFunction.TARGET_WARM_RESET, immediate=False))
    answers = line.peek()
    device.release()
    answers += line.receive()
    assert response_of(answers).response == TaskResponse.COMPLETE
    assert all(answer.itt != tag for answer in answers)
    line.prepare()


def test_ffp_11_5_target_cold_reset(prepared: Prepared, device: HeldDevice) -> None:
    """TARGET COLD RESET ends all tasks, and every connection."""
    line = prepared(**KEYS, ErrorRecoveryLevel="1")
    tag = held_read(line, device)
    line.send(line.manage(TaskFunction.TARGET_COLD_RESET, immediate=False))
    answers = line.peek()
    device.release()
    answers += line.receive()
    assert response_of(answers).response == TaskResponse.COMPLETE
    assert all(answer.itt in (NO_TAG, response_of(answers).itt) for answer in answers)
    assert all(answer.itt != tag for answer in answers)
    assert line.connection.state is State.CLOSING
