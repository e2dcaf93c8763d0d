"""Groups 16 and 19: SCSI Response, residuals, unexpected data, retries, EDTL (RFC 7143 §11.3, §11.4; SAM-5 §5.4.3)."""

from __future__ import annotations

import os

from blockyard.iscsi.pdu import NO_TAG, R2T, DataIn, DataOut, Reject, ScsiResponse
from blockyard.scsi.task import Status
from tests.unh.station import READ_CAPACITY, SOLICITED, Line, Prepared, check_reject, inquiry, sense_of

UNEXPECTED_UNSOLICITED_DATA = (0x0B, 0x0C, 0x0C)
INCORRECT_AMOUNT_OF_DATA = (0x0B, 0x0C, 0x0D)


def check_condition(line: Line) -> tuple[int, int, int]:
    """The sense of the one answer, a CHECK CONDITION."""
    response = line.expect(ScsiResponse)
    assert response.status == Status.CHECK_CONDITION
    return sense_of(response)


def test_ffp_16_1_residual_underflow(prepared: Prepared) -> None:
    """INQUIRY with a longer EDTL than there is data: U, and how much fewer; O is not set."""
    line = prepared()
    line.send(line.command(inquiry(4096), read=True, edtl=4096))
    answers = line.receive()
    length = sum(len(answer.data) for answer in answers if isinstance(answer, DataIn))
    assert (answers[-1].underflow, answers[-1].overflow, answers[-1].residual) == (True, False, 4096 - length)


def test_ffp_16_2_residual_overflow(prepared: Prepared) -> None:
    """INQUIRY with an EDTL of 4: O, and how much more there would be."""
    line = prepared()
    line.send(line.command(inquiry(96), read=True, edtl=4))
    answers = line.receive()
    assert sum(len(answer.data) for answer in answers if isinstance(answer, DataIn)) == 4
    assert (answers[-1].underflow, answers[-1].overflow, answers[-1].residual) == (False, True, 92)


def test_ffp_16_3_1_immediate_data_and_an_r2t(prepared: Prepared) -> None:
    """Immediate data up to FirstBurstLength, the rest asked for: GOOD.

    The case sets F to 0, which with InitialR2T=Yes would announce unsolicited data that may not come (§11.3.1, §13.10).
    """
    line = prepared(ImmediateData="Yes", InitialR2T="Yes", FirstBurstLength="512")
    data = os.urandom(1024)
    r2t = line.ask(line.write_command(0, 2, data[:512]), R2T)
    assert (r2t.buffer_offset, r2t.desired_length) == (512, 512)
    line.send(line.data_out(r2t, data[512:]))
    assert line.expect(ScsiResponse).status == Status.GOOD
    assert line.read_all(line.read_command(0, 2)) == data


def test_ffp_16_3_2_more_immediate_data_than_the_first_burst(prepared: Prepared) -> None:
    """CHECK CONDITION, unexpected unsolicited data."""
    line = prepared(ImmediateData="Yes", InitialR2T="Yes", FirstBurstLength="512")
    line.send(line.write_command(0, 2, os.urandom(1024)))
    assert check_condition(line) == UNEXPECTED_UNSOLICITED_DATA
    assert line.read_all(line.read_command(0, 2)) == bytes(1024)


def test_ffp_16_3_3_solicited_data(prepared: Prepared) -> None:
    """A WRITE whose R2T is answered in one Data-Out: GOOD."""
    line = prepared(**SOLICITED)
    r2t = line.ask(line.write_command(0, 2), R2T)
    line.send(line.data_out(r2t, b"s" * 1024))
    assert line.expect(ScsiResponse).status == Status.GOOD


def test_ffp_16_3_4_immediate_data_that_was_not_agreed_upon(prepared: Prepared) -> None:
    """CHECK CONDITION, unexpected unsolicited data."""
    line = prepared(**SOLICITED)
    line.send(line.write_command(0, 2, os.urandom(1024)))
    assert check_condition(line) == UNEXPECTED_UNSOLICITED_DATA
    assert line.read_all(line.read_command(0, 2)) == bytes(1024)


def test_ffp_16_3_5_unsolicited_data(prepared: Prepared) -> None:
    """A Data-Out that nobody asked for, as agreed upon: GOOD."""
    line = prepared(FirstBurstLength="1024", ImmediateData="No", InitialR2T="No")
    command = line.write_command(0, 2, final=False)
    line.send(command, DataOut(b"u" * 1024, itt=command.itt, ttt=NO_TAG, final=True))
    assert line.expect(ScsiResponse).status == Status.GOOD
    assert line.read_all(line.read_command(0, 2)) == b"u" * 1024


def test_ffp_16_3_6_less_unsolicited_data_than_announced(prepared: Prepared) -> None:
    """Half of the data, and F: CHECK CONDITION with incorrect amount of data, or the rest is asked for.

    The case comes from RFC 3720; RFC 7143 §11.7.1 has the initiator end its unsolicited data early, so that this target
    asks for what is missing, and what is written is whole.
    """
    line = prepared(InitialR2T="No", ImmediateData="No", DataSequenceInOrder="Yes")
    command = line.write_command(0, 2, final=False)
    line.send(command, DataOut(b"u" * 512, itt=command.itt, ttt=NO_TAG, final=True))
    (answer,) = line.receive()
    if isinstance(answer, ScsiResponse):
        assert sense_of(answer) == INCORRECT_AMOUNT_OF_DATA
        return
    assert isinstance(answer, R2T)
    assert (answer.buffer_offset, answer.desired_length) == (512, 512)
    line.send(line.data_out(answer, b"v" * 512))
    assert line.expect(ScsiResponse).status == Status.GOOD
    assert line.read_all(line.read_command(0, 2)) == b"u" * 512 + b"v" * 512


def test_ffp_16_3_7_unknown_command(prepared: Prepared) -> None:
    """A CDB with an operation code that is none: CHECK CONDITION."""
    line = prepared(InitialR2T="No", DataSequenceInOrder="Yes")
    line.send(line.command(b"\xff" + bytes(15)))
    assert check_condition(line) == (0x05, 0x20, 0x00)


def duplicated_write(line: Line, *, within_data: bool) -> None:
    """A WRITE that comes twice is carried out once."""
    data = os.urandom(1024)
    command = line.write_command(0, 2)
    r2t = line.ask(command, R2T)
    sent = 0
    if within_data:
        line.send(line.data_out(r2t, data[:512], final=False))
        sent = 512
    line.send(command)
    assert line.receive() == []
    line.send(line.data_out(r2t, data[sent:], data_sn=sent // 512, buffer_offset=sent))
    response = line.expect(ScsiResponse)
    assert (response.itt, response.status) == (command.itt, Status.GOOD)
    assert line.read_all(line.read_command(0, 2)) == data


def test_ffp_16_4_1_duplicate_command_amid_its_data(prepared: Prepared) -> None:
    """The second is silently discarded; the first completes."""
    duplicated_write(prepared(**SOLICITED), within_data=True)


def test_ffp_16_4_2_duplicate_command_before_its_data(prepared: Prepared) -> None:
    """The second is silently discarded; the first completes."""
    duplicated_write(prepared(**SOLICITED), within_data=False)


def test_ffp_16_5_data_for_another_task(prepared: Prepared) -> None:
    """A Data-Out with a wrong task tag may be rejected; the WRITE answers only after its last Data-Out, and is whole."""
    line = prepared(**SOLICITED)
    command = line.write_command(0, 4)
    r2t = line.ask(command, R2T)
    assert r2t.desired_length == 2048
    data = os.urandom(2048)
    wrong = line.data_out(r2t, b"w" * 512, itt=command.itt + 1, final=False)
    line.send(wrong)
    for rejection in line.receive():
        assert isinstance(rejection, Reject)
        check_reject(rejection, wrong)
    for number in range(4):
        part = data[number * 512 : number * 512 + 512]
        last = number == 3
        line.send(line.data_out(r2t, part, data_sn=number, buffer_offset=number * 512, final=last))
        if not last:
            assert line.receive() == []
    assert line.expect(ScsiResponse).status == Status.GOOD
    assert line.read_all(line.read_command(0, 4)) == data


def test_ffp_19_1_edtl_of_0(prepared: Prepared) -> None:
    """READ CAPACITY with an EDTL of 0: no data is sent."""
    line = prepared(**SOLICITED, MaxRecvDataSegmentLength="1024")
    response = line.ask(line.command(READ_CAPACITY, read=True, edtl=0), ScsiResponse)
    assert (response.status, response.overflow, response.residual) == (Status.GOOD, True, 8)
