"""Groups 13 and 14: logout, Reject (RFC 7143 §11.14, §11.15, §11.17)."""

from __future__ import annotations

from blockyard.iscsi.connection import State
from blockyard.iscsi.pdu import R2T, DataIn, LogoutReason, LogoutResponse, Reject, RejectReason, ScsiResponse, SnackType
from blockyard.scsi.task import Status
from tests.unh.station import BLOCK, SOLICITED, Line, Prepared, Station, check_reject
from tests.wire import Rig

KEYS = {**SOLICITED, "MaxRecvDataSegmentLength": "1024"}


def pair_with_writes(rig: Rig) -> list[tuple[Line, R2T]]:
    """Two connections of a session, each with a WRITE that waits for data."""
    station = Station(rig, {**KEYS, "MaxConnections": "2"})
    lines = [station.connect(), station.connect()]
    for line in lines:
        line.prepare()
    return [(line, line.ask(line.write_command(8 * line.cid, 2), R2T)) for line in lines]


def finish(line: Line, r2t: R2T) -> None:
    line.send(line.data_out(r2t, b"x" * 1024))
    response = line.expect(ScsiResponse)
    assert (response.itt, response.status) == (r2t.itt, Status.GOOD)


def test_ffp_13_1_close_the_connection(rig: Rig) -> None:
    """Reason 1 closes the connection that it comes on; the other's tasks go on."""
    (first, _), (second, r2t) = pair_with_writes(rig)
    assert first.ask(first.log_out(LogoutReason.CLOSE_CONNECTION), LogoutResponse).response == 0
    assert first.connection.state is State.CLOSING
    assert second.connection.state is State.FULL_FEATURE
    first.close()
    finish(second, r2t)


def test_ffp_13_2_close_the_session(rig: Rig) -> None:
    """Reason 0 closes every connection of the session."""
    (first, _), (second, _) = pair_with_writes(rig)
    assert first.ask(first.log_out(LogoutReason.CLOSE_SESSION), LogoutResponse).response == 0
    first.close()
    assert first.connection.state is State.CLOSING
    assert second.connection.state is State.CLOSING or second.dropped
    assert not rig.node.sessions


def test_ffp_13_3_a_connection_that_is_not_there(rig: Rig) -> None:
    """Reason 1 for an unknown CID: response 1, and both connections stay."""
    lines = pair_with_writes(rig)
    first = lines[0][0]
    assert first.ask(first.log_out(LogoutReason.CLOSE_CONNECTION, cid=77), LogoutResponse).response == 1
    for line, r2t in lines:
        finish(line, r2t)


def test_ffp_14_1_reject_of_data_for_no_task(prepared: Prepared) -> None:
    """A Data-Out for an unknown task is rejected or ignored; the WRITE answers only after its own last Data-Out."""
    line = prepared(**KEYS)
    r2t = line.ask(line.write_command(0, 2), R2T)
    wrong = line.data_out(r2t, b"w" * 512, itt=0x7777, final=False)
    line.send(wrong)
    for rejection in line.receive():
        assert isinstance(rejection, Reject)
        check_reject(rejection, wrong)
        assert rejection.exp_cmd_sn == r2t.exp_cmd_sn
    before = line.received[-1]
    line.send(line.data_out(r2t, b"r" * 512, final=False))
    assert line.receive() == []
    line.send(line.data_out(r2t, b"s" * 512, data_sn=1, buffer_offset=512))
    response = line.expect(ScsiResponse)
    assert response.status == Status.GOOD
    assert response.stat_sn == before.stat_sn + isinstance(before, Reject)
    assert line.read_all(line.read_command(0, 2)) == b"r" * 512 + b"s" * 512


def test_ffp_14_2_reject_of_a_bad_data_ack(prepared: Prepared) -> None:
    """A DataACK with a task tag is rejected; the numbers go on, and the READ is not disturbed."""
    line = prepared(**KEYS, ErrorRecoveryLevel="1")
    command = line.read_command(0, 4)
    line.send(command)
    answers = line.receive()
    assert sum(len(answer.data) for answer in answers if isinstance(answer, DataIn)) == 4 * BLOCK
    ack = line.snack(SnackType.DATA_ACK, 1, 0, itt=command.itt, snack_tag=0)
    rejection = line.ask(ack, Reject)
    check_reject(rejection, ack)
    assert rejection.stat_sn == answers[-1].stat_sn + 1
    assert rejection.exp_cmd_sn == answers[-1].exp_cmd_sn
    assert line.is_alive()


def test_ffp_14_3_reject_of_a_snack(prepared: Prepared) -> None:
    """Without recovery within a connection, a SNACK for an R2T is rejected; the numbers go on, and the WRITE too."""
    line = prepared(**KEYS, ErrorRecoveryLevel="0")
    command = line.write_command(0, 2)
    r2t = line.ask(command, R2T)
    snack = line.snack(SnackType.DATA, 0, 1, itt=command.itt)
    rejection = line.ask(snack, Reject)
    check_reject(rejection, snack)
    assert rejection.reason == RejectReason.SNACK_REJECT
    assert (rejection.stat_sn, rejection.exp_cmd_sn) == (r2t.stat_sn, r2t.exp_cmd_sn)
    line.send(line.data_out(r2t, b"x" * 1024))
    response = line.expect(ScsiResponse)
    assert (response.status, response.stat_sn) == (Status.GOOD, rejection.stat_sn + 1)
