"""Groups 6 to 10: allegiance, unsolicited data errors, target transfer tags, Data-In, R2T (RFC 7143 §4.2.5, §11.7, §11.8)."""

from __future__ import annotations

import os
from typing import Any

import pytest

from blockyard.block.memory import MemoryDevice
from blockyard.iscsi.pdu import NO_TAG, R2T, DataIn, DataOut, ScsiResponse
from blockyard.scsi.task import Status
from tests.unh.station import BLOCK, SOLICITED, TEST_UNIT_READY, Line, Prepared, Station, sense_of
from tests.wire import Rig

UNSOLICITED = {"InitialR2T": "No", "ImmediateData": "No"}


def test_ffp_6_1_connection_allegiance(rig: Rig) -> None:
    """R2T, Data-In and status come on the connection that the command was sent on."""
    station = Station(rig, {**SOLICITED, "MaxConnections": "2"})
    lines = [station.connect(), station.connect()]
    writes, reads = [], []
    for line in lines:
        line.prepare()
    for line in lines:
        writes.append(line.write_command(8 * line.cid, 2))
        line.send(writes[-1])
    r2ts = [line.expect(R2T) for line in lines]
    assert [r2t.itt for r2t in r2ts] == [write.itt for write in writes]
    for line in lines:
        reads.append(line.read_command(100, 8))
        line.send(reads[-1])
    for line, read in zip(lines, reads, strict=True):
        answers = line.receive()
        assert {answer.itt for answer in answers} == {read.itt}
        assert sum(len(answer.data) for answer in answers) == 8 * BLOCK
    for line, r2t in zip(lines, r2ts, strict=True):
        line.send(line.data_out(r2t, bytes([line.cid]) * 1024))
        response = line.expect(ScsiResponse)
        assert (response.itt, response.status) == (r2t.itt, Status.GOOD)


def ended_badly(line: Line, answers: list[Any]) -> bool:
    """Whether a command ended in CHECK CONDITION for its data, or the connection did."""
    if line.dropped:
        return True
    (response,) = (answer for answer in answers if isinstance(answer, ScsiResponse))
    assert response.status == Status.CHECK_CONDITION
    return sense_of(response)[:2] == (0x0B, 0x0C)


@pytest.mark.parametrize("level", ["0", "1"])
def test_ffp_7_1_more_data_than_the_r2t_asks_for(prepared: Prepared, level: str) -> None:
    """A Data-Out with more than was asked for ends its command in CHECK CONDITION, or the connection."""
    line = prepared(**SOLICITED, ErrorRecoveryLevel=level)
    r2t = line.ask(line.write_command(0, 2), R2T)
    line.send(line.data_out(r2t, bytes(r2t.desired_length + BLOCK)))
    assert ended_badly(line, line.receive())


@pytest.mark.parametrize("level", ["0", "1"])
def test_ffp_7_2_more_unsolicited_data_than_the_first_burst(prepared: Prepared, level: str) -> None:
    """Unsolicited data beyond FirstBurstLength ends its command in CHECK CONDITION."""
    line = prepared(**UNSOLICITED, FirstBurstLength="512", ErrorRecoveryLevel=level)
    command = line.write_command(0, 8, final=False)
    line.send(command, DataOut(bytes(1024), itt=command.itt, ttt=NO_TAG, final=True))
    assert ended_badly(line, line.receive())


@pytest.mark.parametrize("lun", [0, 1])
def test_ffp_8_1_target_transfer_tag_of_an_r2t(lun: int) -> None:
    """An R2T has a tag other than the reserved one, and the command's LUN."""
    rig = Rig(MemoryDevice(1 << 20), MemoryDevice(1 << 20))
    line = Station(rig, {**UNSOLICITED, "FirstBurstLength": "512", "ErrorRecoveryLevel": "1"}).connect()
    assert line.ask(line.command(TEST_UNIT_READY, lun=lun << 48), ScsiResponse).status == Status.CHECK_CONDITION
    command = line.write_command(0, 4, lun=lun << 48)
    r2t = line.ask(command, R2T)
    assert r2t.ttt != NO_TAG
    assert r2t.lun == command.lun
    rig.close()


@pytest.mark.parametrize("level", ["0", "1"])
def test_ffp_8_2_target_transfer_tag_of_data_in(prepared: Prepared, level: str) -> None:
    """Without the A bit, a Data-In has the reserved tag, and its LUN field is reserved."""
    line = prepared(**UNSOLICITED, ErrorRecoveryLevel=level)
    line.send(line.read_command(0, 8))
    for answer in line.receive():
        if isinstance(answer, DataIn) and not answer.acknowledge:
            assert (answer.ttt, answer.lun) == (NO_TAG, 0)


@pytest.mark.parametrize("fault", [False, True])
def test_ffp_9_1_status_in_data_in(prepared: Prepared, fault: bool) -> None:
    """S comes with F, and only when the command did not end with an exception."""
    line = prepared(**SOLICITED)
    line.send(line.read_command((8 << 20) // BLOCK - 4, 8) if fault else line.read_command(0, 8))
    answers = line.receive()
    for answer in answers:
        if isinstance(answer, DataIn) and answer.has_status:
            assert answer.final
            assert answer.status == Status.GOOD
            assert not fault
    assert isinstance(answers[-1], ScsiResponse) is fault
    assert answers[-1].status == (Status.CHECK_CONDITION if fault else Status.GOOD)


def test_ffp_9_2_final_bit_of_data_in(prepared: Prepared) -> None:
    """F is set in the last Data-In of a sequence, which is a burst, and in no other."""
    line = prepared(**SOLICITED, MaxRecvDataSegmentLength="512", MaxBurstLength="2048")
    line.send(line.read_command(0, 16))
    answers = line.receive()
    assert [answer.final for answer in answers] == [False, False, False, True] * 4


def test_ffp_9_3_1_data_in_is_no_longer_than_declared(prepared: Prepared) -> None:
    """No Data-In is longer than the MaxRecvDataSegmentLength of the station."""
    line = prepared(MaxRecvDataSegmentLength="512")
    lengths = line.segments(33)
    assert max(lengths) <= 512
    assert sum(lengths) == 33 * BLOCK


def test_ffp_9_3_2_data_out_of_no_length(prepared: Prepared) -> None:
    """A Data-Out without data is no error."""
    line = prepared(**SOLICITED)
    r2t = line.ask(line.write_command(5, 2), R2T)
    line.send(line.data_out(r2t, b"", final=False))
    assert line.receive() == []
    data = os.urandom(1024)
    line.send(line.data_out(r2t, data, data_sn=1))
    assert line.expect(ScsiResponse).status == Status.GOOD
    assert line.read_all(line.read_command(5, 2)) == data


def test_ffp_9_3_3_data_in_fills_whole_words(prepared: Prepared) -> None:
    """Every data segment but the last of a sequence is a whole number of 4-byte words, whatever was declared."""
    line = prepared(**SOLICITED, MaxRecvDataSegmentLength="1022", MaxBurstLength="3001")
    line.send(line.read_command(0, 32))
    answers = line.receive()
    assert sum(len(answer.data) for answer in answers) == 32 * BLOCK
    for answer in answers:
        assert len(answer.data) <= 1022
        assert answer.final or len(answer.data) % 4 == 0


def test_ffp_9_4_data_sn_of_data_in(prepared: Prepared) -> None:
    """Every Data-In has its DataSN, from 0 on."""
    line = prepared(**SOLICITED, MaxRecvDataSegmentLength="512")
    line.send(line.read_command(0, 20))
    assert [answer.data_sn for answer in line.receive()] == list(range(20))


def test_ffp_9_5_buffer_offset_of_data_in(prepared: Prepared) -> None:
    """The buffer offset says where the data belongs, and only goes up."""
    line = prepared(
        **SOLICITED,
        DataPDUInOrder="Yes",
        DataSequenceInOrder="Yes",
        MaxRecvDataSegmentLength="512",
        MaxBurstLength="1024",
    )
    data = os.urandom(8 * BLOCK)
    assert line.written(9, data).status == Status.GOOD
    line.send(line.read_command(9, 8))
    offset = 0
    for answer in line.receive():
        assert answer.buffer_offset == offset
        assert bytes(answer.data) == data[offset : offset + len(answer.data)]
        offset += len(answer.data)
    assert offset == len(data)


def test_ffp_10_1_r2t(prepared: Prepared) -> None:
    """R2Ts ask for contiguous, non-overlapping runs of at most MaxBurstLength; their numbers and tags are right."""
    line = prepared(
        **SOLICITED,
        DataSequenceInOrder="Yes",
        MaxRecvDataSegmentLength="1024",
        MaxBurstLength="512",
        FirstBurstLength="512",
    )
    command = line.write_command(0, 6, itt=0xA2A2A2A2)
    line.send(command)
    stat_sn = line.received[-1].stat_sn + 1
    for number in range(6):
        r2t = line.expect(R2T)
        assert (r2t.itt, r2t.r2t_sn, r2t.buffer_offset) == (0xA2A2A2A2, number, number * 512)
        assert r2t.ttt != NO_TAG
        assert r2t.stat_sn == stat_sn
        assert 0 < r2t.desired_length <= 512
        line.send(line.data_out(r2t, bytes(r2t.desired_length)))
    response = line.expect(ScsiResponse)
    assert (response.status, response.stat_sn) == (Status.GOOD, stat_sn)
