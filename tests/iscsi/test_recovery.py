"""ErrorRecoveryLevel 1: what is lost or damaged is sent again, and nothing else happens (RFC 7143 §7, §11.16)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blockyard.iscsi.connection import State
from blockyard.iscsi.dataout import MAX_RECOVERIES, PATIENCE
from blockyard.iscsi.negotiation import Preferences, decode_text, encode_text
from blockyard.iscsi.pdu import (
    NO_TAG,
    R2T,
    DataIn,
    DataOut,
    NopIn,
    NopOut,
    Pdu,
    Reject,
    RejectReason,
    ScsiCommand,
    ScsiResponse,
    SnackRequest,
    SnackType,
    TextRequest,
    TextResponse,
)
from blockyard.iscsi.recovery import MAX_DATA, MAX_STATUSES
from blockyard.scsi.task import Status
from tests.iscsi.commands import TEST_UNIT_READY, acknowledge, command, joined, logged_in, read_10, sense, write_10
from tests.wire import Rig, Wire, pieces

PREFERENCES = Preferences(error_recovery_level=1)
DATA = bytes(number * 7 & 0xFF for number in range(256)) * 4096


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    (tmp_path / "disk").write_bytes(DATA)
    with contextlib.closing(Rig.on_existing(tmp_path / "disk", PREFERENCES)) as rig:
        yield rig


def recovering(rig: Rig, **keys: Any) -> Wire:
    return logged_in(rig, ErrorRecoveryLevel="1", **keys)


def start_read(wire: Wire, lba: int, blocks: int) -> tuple[ScsiCommand, list[DataIn], ScsiResponse]:
    """A READ, and what is answered."""
    pdu = command(wire, read_10(lba, blocks), read=True, edtl=blocks * 512)
    wire.send(pdu)
    *data, response = wire.receive()
    assert isinstance(response, ScsiResponse)
    assert all(isinstance(part, DataIn) and not part.has_status for part in data)
    return pdu, data, response  # type: ignore[return-value]


def snack(kind: SnackType, begin: int, length: int, itt: int = NO_TAG, tag: int = NO_TAG, lun: int = 0) -> SnackRequest:
    return SnackRequest(final=True, type=kind, itt=itt, snack_tag=tag, lun=lun, beg_run=begin, run_length=length)


def same(one: list[Any], other: list[Any]) -> bool:
    """Whether PDUs are replicas: all but ExpCmdSN, MaxCmdSN, and the StatSN of what has none (RFC 7143 §11.16)."""

    def essence(pdu: Pdu) -> tuple[bytes, bytes]:
        bhs = bytearray(pdu.bhs)
        bhs[28:36] = bytes(8)
        if isinstance(pdu, DataIn | R2T):
            bhs[24:28] = bytes(4)
        return bytes(bhs), bytes(pdu.data)

    return [essence(pdu) for pdu in one] == [essence(pdu) for pdu in other]


def ticks(wire: Wire, count: int) -> None:
    for now in range(count):
        wire.rig.node.tick(float(now))
        wire.work()


class TestNegotiation:
    """RFC 7143 §13.19, §13.20."""

    @pytest.mark.parametrize(("offer", "result"), [("0", 0), ("1", 1), ("2", 1)])
    def test_the_lower_level(self, rig: Rig, offer: str, result: int) -> None:
        wire = logged_in(rig, ErrorRecoveryLevel=offer)
        assert wire.session.parameters.error_recovery_level == result
        assert wire.session.detour == bool(result), "the short cut keeps nothing of what it sends"

    def test_one_r2t_at_a_time(self, rig: Rig) -> None:
        wire = Wire(rig)
        answers = dict(decode_text(wire.log_in(ErrorRecoveryLevel="1", MaxOutstandingR2T="8").data))
        assert (answers["ErrorRecoveryLevel"], answers["MaxOutstandingR2T"]) == ("1", "1")

    def test_level_0_rejects_snack(self, rig: Rig) -> None:
        wire = logged_in(rig)
        answer = wire.ask(snack(SnackType.STATUS, 0, 0), Reject)
        assert answer.reason == RejectReason.SNACK_REJECT


class TestDataIn:
    """RFC 7143 §11.7.2, §11.16."""

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        segment=st.sampled_from([512, 1024, 3072, 8192]), burst=st.sampled_from([2048, 4096, 65536]),
        blocks=st.integers(1, 40), begin=st.integers(0, 40), length=st.integers(0, 40),
    )  # fmt: skip
    def test_any_run_is_sent_again_as_it_was(
        self, tmp_path: Path, segment: int, burst: int, blocks: int, begin: int, length: int
    ) -> None:
        (tmp_path / "disk").write_bytes(DATA)
        with contextlib.closing(Rig.on_existing(tmp_path / "disk", PREFERENCES)) as rig:
            wire = recovering(rig, MaxRecvDataSegmentLength=str(segment), MaxBurstLength=str(burst))
            pdu, data, response = start_read(wire, 1, blocks)
            assert b"".join(bytes(part.data) for part in data) == DATA[512 : 512 + blocks * 512]
            assert response.exp_data_sn == len(data)
            wire.send(snack(SnackType.DATA, begin, length, pdu.itt))
            answers = wire.receive()
            end = begin + length if length else len(data)
            if begin <= end <= len(data):
                assert same(answers, data[begin:end])
            else:
                (rejection,) = answers
                assert isinstance(rejection, Reject)
                assert rejection.reason == RejectReason.PROTOCOL_ERROR

    def test_each_burst_but_the_last_is_to_be_acknowledged(self, rig: Rig) -> None:
        wire = recovering(rig, MaxRecvDataSegmentLength="1024", MaxBurstLength="4096")
        _, data, _ = start_read(wire, 0, 24)
        assert [part.data_sn for part in data if part.acknowledge] == [3, 7]
        assert all(part.final for part in data if part.acknowledge)
        assert {part.ttt == NO_TAG for part in data if part.acknowledge} == {False}

    def test_what_has_been_acknowledged_is_not_sent_again(self, rig: Rig) -> None:
        wire = recovering(rig, MaxRecvDataSegmentLength="1024", MaxBurstLength="4096")
        pdu, data, _ = start_read(wire, 0, 24)
        wire.send(snack(SnackType.DATA_ACK, 4, 0, tag=data[3].ttt))
        assert wire.receive() == []
        wire.send(snack(SnackType.DATA, 4, 0, pdu.itt))
        assert same(wire.receive(), data[4:])
        assert wire.ask(snack(SnackType.DATA, 3, 1, pdu.itt), Reject).reason == RejectReason.PROTOCOL_ERROR

    @pytest.mark.parametrize(("begin", "tag", "lun"), [(13, 0, 0), (4, 1, 0), (4, 0, 1 << 48)])
    def test_an_acknowledgement_of_nothing_is_rejected(self, rig: Rig, begin: int, tag: int, lun: int) -> None:
        wire = recovering(rig, MaxRecvDataSegmentLength="1024", MaxBurstLength="4096")
        _, data, _ = start_read(wire, 0, 24)
        answer = wire.ask(snack(SnackType.DATA_ACK, begin, 0, tag=data[3].ttt + tag, lun=lun), Reject)
        assert answer.reason == RejectReason.INVALID_DATA_ACK

    def test_data_is_forgotten_with_its_status(self, rig: Rig) -> None:
        wire = recovering(rig)
        pdu, _, _ = start_read(wire, 0, 8)
        acknowledge(wire)
        assert wire.ask(snack(SnackType.DATA, 0, 0, pdu.itt), Reject).reason == RejectReason.PROTOCOL_ERROR
        assert wire.connection.retention is not None
        assert list(wire.connection.retention.statuses) == [wire.connection.stat_sn - 1], "the Reject alone"

    @pytest.mark.parametrize("acknowledged", [0, 4])
    def test_data_is_cut_anew_for_another_segment_length(self, rig: Rig, acknowledged: int) -> None:
        wire = recovering(rig, MaxRecvDataSegmentLength="1024", MaxBurstLength="4096")
        pdu, data, response = start_read(wire, 0, 24)
        if acknowledged:
            wire.send(snack(SnackType.DATA_ACK, acknowledged, 0, tag=data[3].ttt))
        text = TextRequest(
            encode_text([("MaxRecvDataSegmentLength", "512")]), final=True, itt=wire.itt, ttt=NO_TAG, cmd_sn=wire.cmd_sn
        )
        wire.ask(text, TextResponse)
        wire.send(snack(SnackType.R_DATA, 0, 0, pdu.itt, tag=77))
        *again, last = wire.receive()
        assert [part.data_sn for part in again] == list(range(acknowledged, acknowledged + len(again)))  # type: ignore[attr-defined]
        assert {len(part.data) for part in again} == {512}
        assert b"".join(bytes(part.data) for part in again) == DATA[acknowledged * 1024 : 24 * 512]
        assert isinstance(last, ScsiResponse)
        assert (last.snack_tag, last.stat_sn, last.exp_data_sn) == (77, response.stat_sn, acknowledged + len(again))
        wire.send(snack(SnackType.STATUS, response.stat_sn, 1))
        assert same(wire.receive(), [last]), "a Status SNACK gets the latest response"

    def test_r_data_before_anything_was_sent(self, rig: Rig) -> None:
        wire = recovering(rig, ImmediateData="No")
        pdu = command(wire, write_10(0, 1), write=True, edtl=512)
        r2t = wire.ask(pdu, R2T)
        wire.send(snack(SnackType.R_DATA, 0, 0, pdu.itt, tag=5))
        answer = wire.ask(DataOut(bytes(512), final=True, itt=pdu.itt, ttt=r2t.ttt), ScsiResponse)
        assert answer.snack_tag == 5

    @pytest.mark.parametrize("kind", [SnackType.DATA, SnackType.R_DATA, 9])
    def test_snack_for_no_command(self, rig: Rig, kind: int) -> None:
        wire = recovering(rig)
        answer = wire.ask(snack(kind, 0, 0, 4711), Reject)  # type: ignore[arg-type]
        assert answer.reason == RejectReason.PROTOCOL_ERROR


class TestStatus:
    """RFC 7143 §4.2.2.2, §7.1.4.2, §11.16."""

    def test_statuses_are_sent_again_as_they_were(self, rig: Rig) -> None:
        wire = recovering(rig)
        acknowledge(wire)
        wire.send(*(command(wire, cdb) for cdb in (TEST_UNIT_READY, b"\xff" * 16, TEST_UNIT_READY)))
        wire.send(NopOut(b"ping", final=True, itt=wire.itt, ttt=NO_TAG, cmd_sn=wire.cmd_sn))
        answers: list[Any] = wire.receive()
        first = answers[0].stat_sn
        for begin, length in [(0, 0), (0, 4), (1, 2), (3, 1), (2, 0)]:
            wire.send(snack(SnackType.STATUS, first + begin, length))
            assert same(wire.receive(), answers[begin : begin + length if length else None])
        assert wire.connection.stat_sn == first + 4

    @pytest.mark.parametrize(("begin", "length"), [(-1, 1), (0, 5), (9, 1)])
    def test_not_what_was_acknowledged_or_never_sent(self, rig: Rig, begin: int, length: int) -> None:
        wire = recovering(rig)
        acknowledge(wire)
        first = wire.connection.stat_sn
        wire.send(*(command(wire, TEST_UNIT_READY) for _ in range(4)))
        assert len(wire.receive()) == 4
        answer = wire.ask(snack(SnackType.STATUS, first + begin, length), Reject)
        assert answer.reason == RejectReason.PROTOCOL_ERROR

    def test_an_acknowledgement_from_the_future_is_ignored(self, rig: Rig) -> None:
        wire = recovering(rig)
        acknowledge(wire)
        pdu = command(wire, TEST_UNIT_READY, exp_stat_sn=wire.connection.stat_sn + 100)
        answer = wire.ask(pdu, ScsiResponse)
        wire.send(snack(SnackType.STATUS, answer.stat_sn, 1))
        assert same(wire.receive(), [answer])

    def test_the_initiator_is_asked_to_acknowledge(self, rig: Rig) -> None:
        wire = recovering(rig)
        acknowledge(wire)
        wire.ask(command(wire, TEST_UNIT_READY), ScsiResponse)
        ticks(wire, 1)
        assert wire.receive() == [], "it may have been about to"
        ticks(wire, 1)
        (nop,) = wire.receive()
        assert isinstance(nop, NopIn)
        assert nop.stat_sn == wire.connection.stat_sn, "which shows what it has not got"
        acknowledge(wire, nop.ttt)
        ticks(wire, 3)
        assert wire.receive() == []

    def test_what_is_kept_for_one_that_never_acknowledges_is_bounded(self, rig: Rig) -> None:
        wire = recovering(rig)
        retention = wire.connection.retention
        assert retention is not None
        blocks = 2048
        for _ in range(MAX_STATUSES + 10):
            wire.send(command(wire, TEST_UNIT_READY))
        for _ in range(MAX_DATA // (blocks * 512) + 10):
            wire.send(command(wire, read_10(0, blocks), read=True, edtl=blocks * 512))
        wire.receive()
        assert len(retention.statuses) == MAX_STATUSES
        assert sum(len(completion.data) for completion in retention.completions) == MAX_DATA


class TestDataOut:
    """RFC 7143 §7.8, §11.8."""

    @settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        lost=st.lists(st.sampled_from(["sent", "lost", "damaged", "twice"]), min_size=1, max_size=60),
        unsolicited=st.booleans(),
    )
    def test_whatever_is_lost_is_asked_for_again(self, tmp_path: Path, lost: list[str], unsolicited: bool) -> None:
        (tmp_path / "disk").write_bytes(DATA)
        with contextlib.closing(Rig.on_existing(tmp_path / "disk", PREFERENCES)) as rig:
            wire = recovering(
                rig, ImmediateData="No", InitialR2T="No" if unsolicited else "Yes", DataDigest="CRC32C",
                FirstBurstLength="4096", MaxBurstLength="4096",
            )  # fmt: skip
            data = bytes(number * 3 & 0xFF for number in range(10240))
            pdu = command(wire, write_10(0, 20), write=True, edtl=len(data), final=not unsolicited)
            fate = iter(lost)
            wire.send(pdu)
            if unsolicited:
                self.deliver(wire, pieces(pdu.itt, NO_TAG, data, 0, 4096, 512), fate)
            r2t_sn = 0
            for _ in range(200):
                answers = [answer for answer in wire.receive() if not isinstance(answer, Reject | NopIn)]
                if not answers:  # the last PDU of a sequence was lost: only time tells
                    ticks(wire, PATIENCE * (1 + r2t_sn))
                for answer in answers:
                    if isinstance(answer, ScsiResponse):
                        expected = Status.GOOD if r2t_sn <= MAX_RECOVERIES else answer.status
                        assert answer.status == expected
                        assert answer.exp_data_sn == r2t_sn
                        if answer.status == Status.GOOD:
                            assert start_read(wire, 0, 20)[2].status == Status.GOOD
                            assert (tmp_path / "disk").read_bytes() == data + DATA[len(data) :]
                        return
                    assert isinstance(answer, R2T)
                    assert answer.r2t_sn == r2t_sn
                    r2t_sn += 1
                    end = answer.buffer_offset + answer.desired_length
                    self.deliver(wire, pieces(pdu.itt, answer.ttt, data, answer.buffer_offset, end, 512), fate)
            pytest.fail("the command did not come to an end")

    def deliver(self, wire: Wire, pdus: list[DataOut], fate: Iterator[str]) -> None:
        for pdu in pdus:
            what = next(fate, "sent")
            encoded = bytearray(pdu.encode(data_digest=True))
            if what == "damaged":
                encoded[60] ^= 0x40
            wire.send_bytes(bytes(encoded) * {"lost": 0, "twice": 2}.get(what, 1))

    def test_a_damaged_pdu_is_rejected_and_its_rest_asked_for(self, rig: Rig) -> None:
        wire = recovering(rig, ImmediateData="No", DataDigest="CRC32C")
        pdu = command(wire, write_10(0, 8), write=True, edtl=4096)
        r2t = wire.ask(pdu, R2T)
        first, second = pieces(pdu.itt, r2t.ttt, b"a" * 4096, 0, 4096, 2048)
        encoded = bytearray(second.encode(data_digest=True))
        encoded[100] ^= 1
        wire.send(first)
        wire.send_bytes(bytes(encoded))
        rejection, again = wire.receive()
        assert isinstance(rejection, Reject)
        assert rejection.reason == RejectReason.DATA_DIGEST_ERROR
        assert isinstance(again, R2T)
        assert (again.buffer_offset, again.desired_length, again.r2t_sn) == (2048, 2048, 1)
        assert again.ttt != r2t.ttt
        wire.send(second)
        assert wire.receive() == [], "data for the old R2T is waited for no more"
        answer = wire.ask(pieces(pdu.itt, again.ttt, b"a" * 4096, 2048, 4096, 2048)[0], ScsiResponse)
        assert answer.status == Status.GOOD

    def test_one_that_never_gets_through_fails(self, rig: Rig) -> None:
        wire = recovering(rig, ImmediateData="No", DataDigest="CRC32C")
        pdu = command(wire, write_10(0, 1), write=True, edtl=512)
        answers: list[Pdu] = [wire.ask(pdu, R2T)]
        for _ in range(MAX_RECOVERIES + 1):
            r2t = answers[-1]
            assert isinstance(r2t, R2T)
            encoded = bytearray(pieces(pdu.itt, r2t.ttt, bytes(512), 0, 512, 512)[0].encode(data_digest=True))
            encoded[60] ^= 1
            wire.send_bytes(bytes(encoded))
            answers = wire.receive()
        assert isinstance(answers[-1], ScsiResponse)
        assert sense(answers[-1]) == "0b4705"

    def test_a_lost_r2t_is_sent_again_on_demand_or_in_time(self, rig: Rig) -> None:
        wire = recovering(rig, ImmediateData="No")
        pdu = command(wire, write_10(0, 1), write=True, edtl=512)
        r2t = wire.ask(pdu, R2T)
        wire.send(snack(SnackType.DATA, 0, 0, pdu.itt))
        assert same(wire.receive(), [r2t])
        ticks(wire, PATIENCE)
        another = [answer for answer in wire.receive() if isinstance(answer, R2T)]
        assert [(again.r2t_sn, again.buffer_offset, again.desired_length) for again in another] == [(1, 0, 512)]
        assert wire.ask(snack(SnackType.DATA, 2, 1, pdu.itt), Reject).reason == RejectReason.PROTOCOL_ERROR
        wire.send(DataOut(bytes(512), final=True, itt=pdu.itt, ttt=another[0].ttt))
        (answer,) = wire.receive()
        assert isinstance(answer, ScsiResponse)


class TestCommands:
    """RFC 7143 §7.2.1, §7.7, §7.8."""

    def test_damaged_immediate_data_has_the_command_sent_again(self, rig: Rig) -> None:
        wire = recovering(rig, DataDigest="CRC32C")
        pdu = command(wire, write_10(0, 8), b"x" * 4096, write=True, edtl=4096)
        later = command(wire, TEST_UNIT_READY)
        encoded = bytearray(pdu.encode(data_digest=True))
        encoded[100] ^= 1
        wire.send_bytes(bytes(encoded))
        rejection = wire.receive()[0]
        assert isinstance(rejection, Reject)
        assert (rejection.reason, rejection.exp_cmd_sn) == (RejectReason.DATA_DIGEST_ERROR, pdu.cmd_sn)
        wire.send(later)
        assert wire.receive() == []
        ticks(wire, 2)
        (nop,) = wire.receive()
        assert isinstance(nop, NopIn)
        assert nop.exp_cmd_sn == pdu.cmd_sn, "which shows what is missing"
        wire.send(pdu)
        assert [answer.itt for answer in wire.receive()] == [pdu.itt, later.itt]

    def test_a_damaged_header_costs_its_pdu_alone(self, rig: Rig) -> None:
        wire = recovering(rig, HeaderDigest="CRC32C", DataDigest="CRC32C")
        pdu = command(wire, write_10(0, 8), b"x" * 4096, write=True, edtl=4096)
        later = command(wire, TEST_UNIT_READY)
        encoded = bytearray(pdu.encode(header_digest=True, data_digest=True))
        encoded[20] ^= 1
        wire.send_bytes(bytes(encoded))
        assert wire.receive() == []
        assert wire.connection.state is State.FULL_FEATURE
        wire.send(later)
        assert wire.receive() == [], "it came too early"
        wire.send(pdu)
        assert [answer.itt for answer in wire.receive()] == [pdu.itt, later.itt]
        assert start_read(wire, 0, 8)[1][0].data == b"x" * 4096

    @pytest.mark.parametrize("octet", [4, 5, 6, 7])
    def test_a_header_with_damaged_lengths_ends_the_connection(self, rig: Rig, octet: int) -> None:
        wire = recovering(rig, HeaderDigest="CRC32C", MaxConnections="2")
        other = joined(wire, 1)
        encoded = bytearray(command(wire, TEST_UNIT_READY).encode(header_digest=True))
        encoded[octet] ^= 4
        wire.send_bytes(bytes(encoded))
        padding = NopOut(bytes(8192), final=True, itt=1, ttt=NO_TAG, cmd_sn=99).encode(header_digest=True)
        wire.send_bytes(padding * 40)
        assert wire.dropped
        assert other.connection.state is State.FULL_FEATURE

    def test_a_command_sent_again_that_has_come_is_ignored(self, rig: Rig) -> None:
        wire = recovering(rig, ImmediateData="No", InitialR2T="No")
        pdu = command(wire, write_10(0, 2), write=True, edtl=1024, final=False)
        data = pieces(pdu.itt, NO_TAG, b"y" * 1024, 0, 1024, 512)
        wire.send(pdu, data[0], pdu, data[0], data[1], pdu, *data)
        (answer,) = wire.receive()
        assert isinstance(answer, ScsiResponse)
        assert answer.status == Status.GOOD
        assert start_read(wire, 0, 2)[1][0].data == b"y" * 1024
