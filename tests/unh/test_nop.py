"""Group 15: NOP-In (RFC 7143 §11.18, §11.19)."""

from __future__ import annotations

import os

from blockyard.iscsi.login import COMMAND_WINDOW
from blockyard.iscsi.pdu import NO_TAG, NopIn, NopOut, ScsiResponse
from blockyard.scsi.task import Status
from tests.unh.station import TEST_UNIT_READY, Line, Prepared


def answered(line: Line, data: bytes, *, immediate: bool, expected: bytes | None = None) -> None:
    """A ping is answered by its data, and takes a StatSN."""
    ping = line.ping(data, immediate=immediate)
    answer = line.ask(ping, NopIn)
    assert (answer.itt, answer.ttt) == (ping.itt, NO_TAG)
    assert bytes(answer.data) == (data if expected is None else expected)
    response = line.ask(line.command(TEST_UNIT_READY), ScsiResponse)
    assert response.status == Status.GOOD
    assert response.stat_sn == answer.stat_sn + 1


def test_ffp_15_1_1_immediate_ping(prepared: Prepared) -> None:
    """An immediate ping without data."""
    answered(prepared(), b"", immediate=True)


def test_ffp_15_1_2_ping(prepared: Prepared) -> None:
    """A ping without data."""
    answered(prepared(), b"", immediate=False)


def test_ffp_15_1_3_ping_with_data(prepared: Prepared) -> None:
    """A ping with data: all of it comes back."""
    answered(prepared(), os.urandom(1001), immediate=False)


def test_ffp_15_1_4_immediate_ping_with_data(prepared: Prepared) -> None:
    """An immediate ping with data: all of it comes back."""
    answered(prepared(), os.urandom(1001), immediate=True)


def test_ffp_15_1_5_immediate_ping_with_more_data_than_may_come_back(prepared: Prepared) -> None:
    """As much comes back as the station takes in one PDU."""
    line = prepared(MaxRecvDataSegmentLength="1024")
    data = os.urandom(line.connection.segment)
    answered(line, data, immediate=True, expected=data[:1024])


def test_ffp_15_1_6_ping_with_more_data_than_may_come_back(prepared: Prepared) -> None:
    """As much comes back as the station takes in one PDU."""
    line = prepared(MaxRecvDataSegmentLength="1024")
    data = os.urandom(line.connection.segment)
    answered(line, data, immediate=False, expected=data[:1024])


def test_ffp_15_2_the_target_pings(prepared: Prepared) -> None:
    """The target's own ping has a target transfer tag, no task tag and no data, and takes no StatSN."""
    line = prepared()
    assert line.connection.ping()  # what the worker does after some time of silence
    ping = line.expect(NopIn)
    assert ping.itt == NO_TAG
    assert ping.ttt != NO_TAG
    assert len(ping.data) == 0
    line.send(NopOut(final=True, immediate=True, itt=NO_TAG, ttt=ping.ttt, lun=ping.lun, cmd_sn=line.station.cmd_sn))
    assert line.receive() == []
    assert line.connection.ping(), "the answer was not understood"
    line.receive()
    response = line.ask(line.command(TEST_UNIT_READY), ScsiResponse)
    assert response.stat_sn == ping.stat_sn


def test_ffp_15_3_the_window_closes_and_opens(prepared: Prepared) -> None:
    """After a whole window of READs the station learns of the new window; a NOP-In for that takes no StatSN."""
    line = prepared()
    line.send(*(line.read_command(0, 8) for _ in range(COMMAND_WINDOW)))
    answers = line.receive()
    told = answers[-1]
    for answer in answers:
        if isinstance(answer, NopIn):
            assert (answer.itt, answer.ttt, len(answer.data)) == (NO_TAG, NO_TAG, 0)
    assert told.max_cmd_sn - told.exp_cmd_sn == COMMAND_WINDOW - 1
    ended = [answer for answer in answers if not isinstance(answer, NopIn) and answer.has_status]
    assert len(ended) == COMMAND_WINDOW
    response = line.ask(line.command(TEST_UNIT_READY), ScsiResponse)
    assert response.stat_sn == ended[-1].stat_sn + 1
