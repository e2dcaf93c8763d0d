"""Group 18: digest errors (RFC 7143 §7.7, §7.8)."""

from __future__ import annotations

import pytest

from blockyard.iscsi.pdu import R2T, Reject, RejectReason, ScsiResponse
from blockyard.scsi.task import Status
from tests.unh.station import SOLICITED, Prepared, check_reject, sense_of


def test_ffp_18_1_1_header_digest_error(prepared: Prepared) -> None:
    """A WRITE without its header digest is discarded: no R2T, no response; the connection may be dropped."""
    line = prepared(HeaderDigest="CRC32C", ImmediateData="Yes", InitialR2T="Yes", FirstBurstLength="512")
    line.send_bytes(line.write_command(0, 1, b"x" * 512).encode(header_digest=False))
    assert line.receive() == []
    assert line.rig.units[0].device.data[:512] == bytes(512)  # type: ignore[attr-defined]


@pytest.mark.parametrize("level", ["0", "1"])
def test_ffp_18_2_1_data_digest_error_in_a_command(prepared: Prepared, level: str) -> None:
    """A WRITE with damaged immediate data is rejected (reason 2), and causes no R2T."""
    keys = {"DataDigest": "CRC32C", "ImmediateData": "Yes", "InitialR2T": "Yes", "FirstBurstLength": "512"}
    line = prepared(**keys, ErrorRecoveryLevel=level)
    command = line.write_command(0, 2, b"x" * 512)
    damaged = bytearray(command.encode(data_digest=True))
    damaged[-1] ^= 0x80
    line.send_bytes(bytes(damaged))
    rejection, *others = line.receive()
    assert rejection.reason == RejectReason.DATA_DIGEST_ERROR
    check_reject(rejection, command)
    assert not any(isinstance(other, R2T) for other in others)
    line.send(line.write_command(8, 2))
    assert all(other.itt != command.itt or other.status for other in line.receive())


@pytest.mark.parametrize("level", ["0", "1", "2"])
def test_ffp_18_2_2_data_digest_error_in_data_out(prepared: Prepared, level: str) -> None:
    """Damaged data is rejected (reason 2); then a recovery R2T asks for it, or the WRITE ends after its last Data-Out."""
    line = prepared(**SOLICITED, DataDigest="CRC32C", ErrorRecoveryLevel=level)
    r2t = line.ask(line.write_command(0, 4), R2T)
    data = [bytes([number]) * 512 for number in range(4)]
    pdus = [
        line.data_out(r2t, part, data_sn=number, buffer_offset=512 * number, final=number == 3)
        for number, part in enumerate(data)
    ]
    damaged = bytearray(pdus[0].encode(data_digest=True))
    damaged[50] ^= 1
    line.send_bytes(bytes(damaged))
    rejection, *answers = line.receive()
    assert isinstance(rejection, Reject)
    assert rejection.reason == RejectReason.DATA_DIGEST_ERROR
    check_reject(rejection, pdus[0])
    assert not any(isinstance(answer, ScsiResponse) for answer in answers), "data is still to come"
    line.send(*pdus[1:])
    answers += line.receive()
    while not isinstance(answers[-1], ScsiResponse):
        recovery = answers.pop()
        assert isinstance(recovery, R2T)
        end = recovery.buffer_offset + recovery.desired_length
        line.send(line.data_out(recovery, b"".join(data)[recovery.buffer_offset : end]))
        answers += line.receive()
    if answers[-1].status == Status.GOOD:
        assert line.read_all(line.read_command(0, 4)) == b"".join(data)
    else:
        assert sense_of(answers[-1]) == (0x0B, 0x47, 0x05)
    assert (answers[-1].status == Status.GOOD) is (level != "0")
