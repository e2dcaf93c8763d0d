"""Group 12: SNACK (RFC 7143 §11.16)."""

from __future__ import annotations

from typing import Any

from blockyard.iscsi.pdu import R2T, DataIn, Reject, RejectReason, ScsiResponse, SnackType
from blockyard.scsi.task import Status
from tests.unh.station import SOLICITED, Line, Prepared, check_reject

KEYS = {**SOLICITED, "MaxRecvDataSegmentLength": "1024", "ErrorRecoveryLevel": "1"}
_NUMBERS = slice(24, 36)  # ExpCmdSN and MaxCmdSN, which are to be current; StatSN, which is reserved or the next one


def same(one: Any, other: Any) -> bool:
    """Whether a PDU without status is a replica of another, its current numbers apart."""
    first, second = bytearray(one.bhs), bytearray(other.bhs)
    first[_NUMBERS] = second[_NUMBERS] = bytes(12)
    return first == second and bytes(one.data) == bytes(other.data)


def outstanding_read(line: Line) -> tuple[int, list[DataIn]]:
    """A READ that has been answered in eight Data-In PDUs, its status not acknowledged: tag and PDUs."""
    command = line.read_command(0, 16)
    line.send(command)
    answers = [answer for answer in line.receive() if isinstance(answer, DataIn)]
    assert len(answers) == 8
    return command.itt, answers


def test_ffp_12_1_snack_for_an_r2t(prepared: Prepared) -> None:
    """An R2T is sent once more, a replica with current ExpCmdSN and MaxCmdSN."""
    line = prepared(**KEYS)
    command = line.write_command(0, 2)
    r2t = line.ask(command, R2T)
    assert line.is_alive()  # StatSN has gone up by one
    line.send(line.snack(SnackType.DATA, r2t.r2t_sn, 1, itt=command.itt))
    again = line.expect(R2T)
    assert same(again, r2t)
    line.send(line.data_out(again, b"x" * 1024))
    assert line.expect(ScsiResponse).status == Status.GOOD


def test_ffp_12_2_snack_for_data(prepared: Prepared) -> None:
    """One Data-In is sent once more, a replica."""
    line = prepared(**KEYS)
    tag, answers = outstanding_read(line)
    line.send(line.snack(SnackType.DATA, answers[1].data_sn, 1, itt=tag))
    assert same(line.expect(DataIn), answers[1])


def test_ffp_12_3_snack_for_all_data(prepared: Prepared) -> None:
    """With BegRun and RunLength 0 every Data-In is sent once more."""
    line = prepared(**KEYS)
    tag, answers = outstanding_read(line)
    line.send(line.snack(SnackType.DATA, 0, 0, itt=tag))
    again = [answer for answer in line.receive() if isinstance(answer, DataIn)]
    assert len(again) == len(answers)
    assert all(same(one, other) for one, other in zip(again, answers, strict=True))


def test_ffp_12_4_snack_for_what_was_never_sent(prepared: Prepared) -> None:
    """It is rejected as a protocol error, with the last number that was sent; the task goes on."""
    line = prepared(**KEYS)
    command = line.write_command(0, 2)
    r2t = line.ask(command, R2T)
    snack = line.snack(SnackType.DATA, 255, 1, itt=command.itt)
    rejection = line.ask(snack, Reject)
    check_reject(rejection, snack)
    assert rejection.reason == RejectReason.PROTOCOL_ERROR
    assert rejection.data_sn == r2t.r2t_sn
    line.send(line.data_out(r2t, b"x" * 1024))
    assert line.expect(ScsiResponse).status == Status.GOOD
