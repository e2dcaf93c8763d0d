"""Groups 1 to 5: CmdSN, StatSN, DataSN, R2TSN, command retry (RFC 7143 §4.2.2, §7.2.1)."""

from __future__ import annotations

from blockyard.iscsi.login import COMMAND_WINDOW
from blockyard.iscsi.pdu import R2T, DataIn, Reject, RejectReason, ScsiResponse, serial_less
from blockyard.scsi.task import Status
from tests.unh.station import BLOCK, SOLICITED, Line, Prepared, check_reject, check_stat_sn

KEYS = {**SOLICITED, "MaxRecvDataSegmentLength": "1024"}


def ten_writes(line: Line) -> None:
    for number in range(10):
        assert line.written(number, bytes([number]) * 1024).status == Status.GOOD


def test_ffp_1_1_max_cmd_sn(prepared: Prepared) -> None:
    """MaxCmdSN is never less than the last ExpCmdSN - 1."""
    line = prepared(**KEYS)
    ten_writes(line)
    highest = line.login.exp_cmd_sn
    for answer in line.received:
        assert not serial_less(answer.exp_cmd_sn, highest), "ExpCmdSN went back"
        highest = answer.exp_cmd_sn
        assert not serial_less(answer.max_cmd_sn, (highest - 1) & 0xFFFFFFFF)


def test_ffp_1_2_cmd_sn_outside_the_window(prepared: Prepared) -> None:
    """A command whose CmdSN is outside of the window is silently ignored, and those that follow are not."""
    line = prepared(**KEYS)
    for number in range(10):
        if number == 6:
            far = line.station.cmd_sn + COMMAND_WINDOW
            line.send(line.write_command(number, 2, cmd_sn=far))
            assert line.receive() == []
        assert line.written(number, bytes(1024)).status == Status.GOOD


def test_ffp_1_3_duplicate_cmd_sn(prepared: Prepared) -> None:
    """A command with a CmdSN that has been used is silently ignored, and those that follow are not."""
    line = prepared(**KEYS)
    for number in range(10):
        if number == 6:
            line.send(line.write_command(number, 2, cmd_sn=line.station.cmd_sn - 1))
            assert line.receive() == []
        assert line.written(number, bytes(1024)).status == Status.GOOD


def test_ffp_2_1_stat_sn(prepared: Prepared) -> None:
    """StatSN goes up with each response, from the login on."""
    line = prepared(**KEYS)
    ten_writes(line)
    check_stat_sn(line.received)


def test_ffp_3_1_data_sn(prepared: Prepared) -> None:
    """DataSN begins with 0 for each READ, and goes up by one with each Data-In PDU."""
    line = prepared(**KEYS)
    commands = [line.read_command(0, 16) for _ in range(3)]
    line.send(*commands)
    answers = line.receive()
    for command in commands:
        numbers = [answer.data_sn for answer in answers if answer.itt == command.itt and isinstance(answer, DataIn)]
        assert numbers == list(range(8))


def test_ffp_4_1_r2t_sn(prepared: Prepared) -> None:
    """R2TSN begins with 0 for each WRITE, and goes up by one with each R2T."""
    line = prepared(**KEYS, MaxBurstLength="1024")
    commands = [line.write_command(8 * number, 8) for number in range(3)]
    line.send(*commands)
    numbers: dict[int, list[int]] = {command.itt: [] for command in commands}
    ended = 0
    while ended < 3:
        answers = line.receive()
        assert answers
        for answer in answers:
            if isinstance(answer, R2T):
                numbers[answer.itt].append(answer.r2t_sn)
                line.send(line.data_out(answer, bytes(answer.desired_length)))
            else:
                assert answer.status == Status.GOOD
                ended += 1
    assert list(numbers.values()) == [[0, 1, 2, 3]] * 3


def test_ffp_5_1_command_retry(prepared: Prepared) -> None:
    """A WRITE with damaged immediate data is rejected and leaves a gap in CmdSN; sent again, it fills the gap."""
    line = prepared(ImmediateData="Yes", ErrorRecoveryLevel="1", DataDigest="CRC32C")
    data = b"retried " * 64
    command = line.write_command(3, 1, data)
    damaged = bytearray(command.encode(data_digest=True))
    damaged[60] ^= 1
    line.send_bytes(bytes(damaged))
    rejection = line.expect(Reject)
    check_reject(rejection, command)
    assert rejection.reason == RejectReason.DATA_DIGEST_ERROR
    assert rejection.exp_cmd_sn == command.cmd_sn, "there is no gap"
    response = line.ask(command, ScsiResponse)
    assert (response.status, response.exp_cmd_sn) == (Status.GOOD, command.cmd_sn + 1)
    assert line.read_all(line.read_command(3, 1)) == data
    assert len(data) == BLOCK
