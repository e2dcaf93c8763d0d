"""Full feature phase on the wire: numbering, data, task management, text, logout, damage (RFC 7143 §4, §7, §11)."""

from __future__ import annotations

import gc
import itertools
import struct

import pytest

from blockyard.iscsi.connection import State
from blockyard.iscsi.login import COMMAND_WINDOW
from blockyard.iscsi.negotiation import Preferences, decode_text, encode_text
from blockyard.iscsi.pdu import (
    NO_TAG,
    R2T,
    AsyncEvent,
    AsyncMessage,
    DataIn,
    DataOut,
    LogoutRequest,
    LogoutResponse,
    NopIn,
    NopOut,
    Pdu,
    Reject,
    RejectReason,
    ScsiCommand,
    ScsiResponse,
    SnackRequest,
    TaskFunction,
    TaskManagementRequest,
    TaskManagementResponse,
    TaskResponse,
    TextRequest,
    TextResponse,
    extended_cdb_ahs,
)
from blockyard.scsi.sense import Asc
from blockyard.scsi.task import Status, Task
from tests.iscsi.commands import (
    TEST_UNIT_READY,
    acknowledge,
    clear_tas,
    command,
    logged_in,
    read,
    read_10,
    sense,
    write,
    write_10,
)
from tests.wire import TARGET, Rig, Wire, pieces


@pytest.fixture
def wire(rig: Rig) -> Wire:
    return logged_in(rig)


class TestNumbering:
    """RFC 7143 §4.2.2."""

    def test_commands_out_of_order_run_in_order(self, wire: Wire) -> None:
        first, second, third = (NopOut(final=True, itt=wire.itt, ttt=NO_TAG, cmd_sn=wire.cmd_sn) for _ in range(3))
        wire.send(third)
        wire.send(second)
        assert wire.receive() == []
        wire.send(first)
        assert [answer.itt for answer in wire.receive()] == [first.itt, second.itt, third.itt]

    def test_a_duplicate_is_ignored(self, wire: Wire) -> None:
        ping = NopOut(final=True, itt=wire.itt, ttt=NO_TAG, cmd_sn=wire.cmd_sn)
        assert wire.ask(ping, NopIn).itt == ping.itt
        wire.send(ping)
        assert wire.receive() == []

    @pytest.mark.parametrize("distance", [COMMAND_WINDOW, COMMAND_WINDOW + 1, -1, -1000, 1 << 31])
    def test_outside_the_window_is_ignored(self, wire: Wire, distance: int) -> None:
        sn = wire.cmd_sn
        wire.send(command(wire, TEST_UNIT_READY, cmd_sn=(sn + distance) & 0xFFFFFFFF))
        assert wire.receive() == []
        assert wire.ask(command(wire, TEST_UNIT_READY, cmd_sn=sn), ScsiResponse).status == Status.GOOD

    def test_the_window_closes_while_commands_wait_for_data_and_opens_again(self, rig: Rig) -> None:
        wire = logged_in(rig, ImmediateData="No", InitialR2T="Yes")
        pdus = [command(wire, write_10(n, 1), write=True, edtl=512) for n in range(COMMAND_WINDOW)]
        wire.send(*pdus)
        r2ts = wire.receive()
        assert len(r2ts) == COMMAND_WINDOW
        last = r2ts[-1]
        assert isinstance(last, R2T)
        assert (last.max_cmd_sn - last.exp_cmd_sn + 1) & 0xFFFFFFFF == 0
        wire.send(*(DataOut(bytes(512), final=True, itt=r2t.itt, ttt=r2t.ttt) for r2t in r2ts))  # type: ignore[attr-defined]
        responses = wire.receive()
        assert len(responses) == COMMAND_WINDOW
        (end,) = {
            (answer.max_cmd_sn - answer.exp_cmd_sn) & 0xFFFFFFFF  # type: ignore[attr-defined]
            for answer in responses[-1:]
        }
        assert end == COMMAND_WINDOW - 1

    def test_immediate_commands_do_not_advance_cmd_sn(self, wire: Wire) -> None:
        before = wire.ask(NopOut(final=True, itt=wire.itt, ttt=NO_TAG, cmd_sn=wire.cmd_sn), NopIn).exp_cmd_sn
        ping = NopOut(final=True, itt=wire.itt, ttt=NO_TAG, cmd_sn=before, immediate=True)
        assert wire.ask(ping, NopIn).exp_cmd_sn == before

    def test_too_many_immediate_commands_are_rejected(self, rig: Rig) -> None:
        wire = logged_in(rig, ImmediateData="No")
        pdus = [command(wire, write_10(n, 1), write=True, edtl=512, immediate=True, cmd_sn=2) for n in range(17)]
        wire.send(*pdus)
        *r2ts, rejection = wire.receive()
        assert len(r2ts) == 16
        assert isinstance(rejection, Reject)
        assert rejection.reason == RejectReason.TOO_MANY_IMMEDIATE

    def test_cmd_sn_wraps_around(self, rig: Rig) -> None:
        wire = Wire(rig)
        assert wire.log_in().status == 0
        assert wire.connection.session is not None
        wire.connection.session.exp_cmd_sn = wire._cmd_sn = 0xFFFFFFFE
        for expected in (0xFFFFFFFF, 0, 1, 2):
            answer = wire.ask(NopOut(final=True, itt=wire.itt, ttt=NO_TAG, cmd_sn=wire.cmd_sn), NopIn)
            assert answer.exp_cmd_sn == expected

    def test_a_task_tag_in_use_is_rejected(self, rig: Rig) -> None:
        wire = logged_in(rig, ImmediateData="No")
        pdu = command(wire, write_10(0, 1), write=True, edtl=512)
        wire.ask(pdu, R2T)
        again = command(wire, TEST_UNIT_READY, itt=pdu.itt)
        assert wire.ask(again, Reject).reason == RejectReason.TASK_IN_PROGRESS


SHAPES = list(
    itertools.product(
        ["Yes", "No"], ["Yes", "No"], [(512, 512), (512, 4096), (1024, 16384), (65536, 262144)], ["1", "4"]
    )
)


class TestData:
    """RFC 7143 §4.2.5.2, §11.7, §11.8."""

    @pytest.mark.parametrize(("initial_r2t", "immediate", "bursts", "r2ts"), SHAPES)
    def test_every_way_of_sending_data(
        self, rig: Rig, initial_r2t: str, immediate: str, bursts: tuple[int, int], r2ts: str
    ) -> None:
        wire = logged_in(
            rig, InitialR2T=initial_r2t, ImmediateData=immediate, FirstBurstLength=str(bursts[0]),
            MaxBurstLength=str(bursts[1]), MaxOutstandingR2T=r2ts, MaxRecvDataSegmentLength="2048",
        )  # fmt: skip
        for size in (512, 1024, 4096, 66048):
            data = bytes(number * 7 & 0xFF for number in range(size))
            answer = write(wire, 3, data)
            assert answer.status == Status.GOOD
            assert not answer.underflow
            assert not answer.overflow
            assert read(wire, 3, size // 512) == data

    @pytest.mark.parametrize("digests", list(itertools.product(["None", "CRC32C"], repeat=2)))
    def test_digests_both_ways(self, rig: Rig, digests: tuple[str, str]) -> None:
        wire = logged_in(rig, HeaderDigest=digests[0], DataDigest=digests[1], MaxRecvDataSegmentLength="4096")
        assert (wire.connection.header_digest, wire.connection.data_digest) == tuple(d == "CRC32C" for d in digests)
        data = bytes(range(256)) * 64
        assert write(wire, 8, data).status == Status.GOOD
        assert read(wire, 8, 32) == data

    @pytest.mark.parametrize("fast", [True, False])
    @pytest.mark.parametrize(
        ("edtl", "flag", "residual"), [(512, "overflow", 512), (1024, None, 0), (4096, "underflow", 3072)]
    )
    def test_residuals_of_reads(self, rig: Rig, fast: bool, edtl: int, flag: str | None, residual: int) -> None:
        wire = logged_in(rig, fast=fast)
        answer = wire.ask(command(wire, read_10(0, 2), read=True, edtl=edtl), DataIn)
        assert len(answer.data) == min(edtl, 1024)
        assert answer.overflow == (flag == "overflow")
        assert answer.underflow == (flag == "underflow")
        assert answer.residual == residual

    def test_residuals_of_a_failed_read(self, wire: Wire) -> None:
        answer = wire.ask(command(wire, read_10(1 << 30, 2), read=True, edtl=1024), ScsiResponse)
        assert answer.status == Status.CHECK_CONDITION
        assert answer.underflow
        assert answer.residual == 1024

    @pytest.mark.parametrize("fault", ["data_sn", "offset", "too much", "too little"])
    def test_data_out_that_breaks_the_rules_fails_its_command_alone(self, rig: Rig, fault: str) -> None:
        wire = logged_in(rig, ImmediateData="No")
        r2t = wire.ask(command(wire, write_10(0, 4), write=True, edtl=2048), R2T)
        data = {"too much": 2560, "too little": 1024}.get(fault, 2048)
        wire.send(
            DataOut(
                bytes(data), final=True, itt=r2t.itt, ttt=r2t.ttt, data_sn=int(fault == "data_sn"),
                buffer_offset=512 if fault == "offset" else 0,
            )
        )  # fmt: skip
        (answer,) = wire.receive()
        assert isinstance(answer, ScsiResponse)
        assert answer.status == Status.CHECK_CONDITION
        assert sense(answer)[:2] == "0b"
        assert wire.ask(command(wire, TEST_UNIT_READY), ScsiResponse).status == Status.GOOD

    def test_unexpected_immediate_data_fails_the_command(self, rig: Rig) -> None:
        wire = logged_in(rig, ImmediateData="No")
        answer = wire.ask(command(wire, write_10(0, 1), bytes(512), write=True, edtl=512), ScsiResponse)
        assert sense(answer) == "0b0c0c"

    def test_a_doomed_write_is_not_asked_for_its_data(self, rig: Rig) -> None:
        wire = logged_in(rig, ImmediateData="No")
        answer = wire.ask(command(wire, write_10(1 << 30, 1), write=True, edtl=512), ScsiResponse)
        assert answer.status == Status.CHECK_CONDITION

    def test_a_doomed_write_lets_its_unsolicited_data_pass(self, rig: Rig) -> None:
        wire = logged_in(rig, ImmediateData="No", InitialR2T="No")
        pdu = command(wire, write_10(1 << 30, 2), write=True, edtl=1024, final=False)
        wire.send(pdu)
        assert wire.receive() == []
        wire.send(*pieces(pdu.itt, NO_TAG, bytes(1024), 0, 1024, 512))
        (answer,) = wire.receive()
        assert isinstance(answer, ScsiResponse)
        assert answer.status == Status.CHECK_CONDITION

    def test_no_more_is_asked_for_than_the_command_takes(self, rig: Rig) -> None:
        wire = logged_in(rig, ImmediateData="No")
        r2t = wire.ask(command(wire, write_10(0, 1), write=True, edtl=0xFFFFFFFF), R2T)
        assert r2t.desired_length == 512
        answer = wire.ask(DataOut(bytes(512), final=True, itt=r2t.itt, ttt=r2t.ttt), ScsiResponse)
        assert answer.underflow
        assert answer.residual == 0xFFFFFFFF - 512

    def test_data_for_no_command_is_ignored(self, wire: Wire) -> None:
        wire.send(DataOut(bytes(512), final=True, itt=99, ttt=NO_TAG))
        assert wire.receive() == []

    def test_large_reads_come_in_bursts(self, rig: Rig) -> None:
        wire = logged_in(rig, MaxRecvDataSegmentLength="3072", MaxBurstLength="8192")
        wire.send(command(wire, read_10(0, 64), read=True, edtl=32768))
        answers = [answer for answer in wire.receive() if isinstance(answer, DataIn)]
        ends = [answer.buffer_offset + len(answer.data) for answer in answers if answer.final]
        assert ends == [8192, 16384, 24576, 32768]

    def test_a_cdb_of_32_bytes_arrives_whole(self, wire: Wire) -> None:
        cdb = bytes([0x7F]) + bytes(6) + bytes([24]) + bytes(24)
        pdu = command(wire, cdb[:16], ahs=extended_cdb_ahs(cdb))
        answer = wire.ask(pdu, ScsiResponse)
        assert sense(answer)[:4] == "0524", "VARIABLE LENGTH CDB has no service action 0000h"

    @pytest.mark.parametrize("ahs", [b"\0\0\1\0", b"\0\x30\1\0", b"\0\5\2\0\0\0\2\0\0\5\2\0\0\0\2\0"])
    def test_an_ahs_that_makes_no_sense_is_rejected(self, wire: Wire, ahs: bytes) -> None:
        assert wire.ask(command(wire, TEST_UNIT_READY, ahs=ahs), Reject).reason == RejectReason.INVALID_PDU_FIELD
        assert wire.ask(command(wire, TEST_UNIT_READY), ScsiResponse).status == Status.GOOD

    def test_bidirectional_without_a_read_length_is_rejected(self, wire: Wire) -> None:
        pdu = command(wire, TEST_UNIT_READY, read=True, write=True, edtl=0)
        assert wire.ask(pdu, Reject).reason == RejectReason.INVALID_PDU_FIELD


class TestDamage:
    """RFC 7143 §7.8 at ErrorRecoveryLevel 0."""

    def test_a_damaged_header_ends_the_connection(self, rig: Rig) -> None:
        wire = logged_in(rig, HeaderDigest="CRC32C")
        data = bytearray(command(wire, TEST_UNIT_READY).encode(header_digest=True))
        data[20] ^= 1
        wire.send_bytes(bytes(data))
        assert wire.dropped

    @pytest.mark.parametrize("fast", [True, False])
    def test_damaged_immediate_data_fails_the_command(self, rig: Rig, fast: bool) -> None:
        wire = logged_in(rig, fast=fast, DataDigest="CRC32C")
        pdu = command(wire, write_10(0, 8), b"x" * 4096, write=True, edtl=4096)
        data = bytearray(pdu.encode(data_digest=True))
        data[100] ^= 1
        wire.send_bytes(bytes(data))
        rejection, answer = wire.receive()
        assert isinstance(rejection, Reject)
        assert rejection.reason == RejectReason.DATA_DIGEST_ERROR
        assert bytes(rejection.data[:48]) == bytes(pdu.bhs)
        assert isinstance(answer, ScsiResponse)
        assert sense(answer) == "0b4705"
        assert read(wire, 0, 8) == bytes(4096), "damaged data has been written"

    def test_damaged_solicited_data_fails_the_command(self, rig: Rig) -> None:
        wire = logged_in(rig, DataDigest="CRC32C", ImmediateData="No")
        r2t = wire.ask(command(wire, write_10(0, 1), write=True, edtl=512), R2T)
        data = bytearray(DataOut(bytes(512), final=True, itt=r2t.itt, ttt=r2t.ttt).encode(data_digest=True))
        data[-1] ^= 1
        wire.send_bytes(bytes(data))
        rejection, answer = wire.receive()
        assert isinstance(rejection, Reject)
        assert isinstance(answer, ScsiResponse)
        assert answer.status == Status.CHECK_CONDITION

    def test_a_segment_that_is_too_long_ends_the_connection(self, wire: Wire) -> None:
        pdu = NopOut(final=True, itt=1, ttt=NO_TAG, cmd_sn=wire.cmd_sn)
        data = bytearray(pdu.encode())
        data[5:8] = b"\xff\xff\xff"
        wire.send_bytes(bytes(data))
        assert wire.dropped

    @pytest.mark.parametrize("opcode", [0x07, 0x1C, 0x1F, 0x20, 0x3F])
    def test_an_unknown_opcode_is_rejected_with_its_header(self, wire: Wire, opcode: int) -> None:
        pdu = Pdu(itt=7, final=True)
        pdu.bhs[0] = opcode
        rejection = wire.ask(pdu, Reject)
        assert rejection.reason == RejectReason.COMMAND_NOT_SUPPORTED
        assert bytes(rejection.data) == bytes(pdu.bhs)

    def test_snack_is_rejected(self, wire: Wire) -> None:
        assert wire.ask(SnackRequest(final=True, itt=NO_TAG), Reject).reason == RejectReason.SNACK_REJECT


FORMS_OF_LUN_0 = (0x4000 << 48, 0xD2 << 56, 0xE2 << 56)  # flat space, extended, long extended (SAM-5 4.7.7)


@pytest.mark.parametrize("lun", FORMS_OF_LUN_0)
class TestFormsOfLuns:
    """However an initiator writes a LUN, it is one nexus."""

    def test_a_unit_attention_is_told_once(self, rig: Rig, wire: Wire, lun: int) -> None:
        assert wire.ask(command(wire, TEST_UNIT_READY, lun=lun), ScsiResponse).status == Status.GOOD
        rig.units[0].attention(Asc.CAPACITY_DATA_HAS_CHANGED)
        assert sense(wire.ask(command(wire, TEST_UNIT_READY, lun=lun), ScsiResponse)) == "062a09"
        assert wire.ask(command(wire, TEST_UNIT_READY), ScsiResponse).status == Status.GOOD
        assert len(rig.units[0].nexuses) == 1

    def test_reads_and_writes(self, wire: Wire, lun: int) -> None:
        data = bytes([lun >> 56]) * 4096
        pdu = command(wire, write_10(8, 8), data, write=True, edtl=4096, lun=lun)
        assert wire.ask(pdu, ScsiResponse).status == Status.GOOD
        assert read(wire, 8, 8) == data

    def test_tasks_are_managed_by_any_form(self, rig: Rig, lun: int) -> None:
        wire = logged_in(rig, ImmediateData="No")
        for function, fields in ((TaskFunction.ABORT_TASK, True), (TaskFunction.ABORT_TASK_SET, False)):
            pdu = command(wire, write_10(0, 1), write=True, edtl=512)
            wire.ask(pdu, R2T)
            request = TaskManagementRequest(
                final=True, immediate=True, function=function, itt=wire.itt, cmd_sn=wire._cmd_sn, lun=lun,
                referenced_task_tag=pdu.itt if fields else NO_TAG, ref_cmd_sn=pdu.cmd_sn,
            )  # fmt: skip
            assert wire.ask(request, TaskManagementResponse).response == TaskResponse.COMPLETE
            assert pdu.itt not in wire.connection.session.commands  # type: ignore[union-attr]


class TestTaskManagement:
    """RFC 7143 §11.5, §11.6; SAM-5 §7."""

    def waiting_write(self, wire: Wire, lun: int = 0) -> ScsiCommand:
        pdu = command(wire, write_10(0, 1), write=True, edtl=512, lun=lun)
        wire.ask(pdu, R2T)
        return pdu

    def manage(self, wire: Wire, function: int, **fields: int) -> TaskResponse:
        request = TaskManagementRequest(
            b"", b"", final=True, immediate=True, function=function, itt=wire.itt, cmd_sn=wire._cmd_sn, **fields
        )
        return TaskResponse(wire.ask(request, TaskManagementResponse).response)

    def test_abort_task(self, rig: Rig) -> None:
        wire = logged_in(rig, ImmediateData="No")
        pdu = self.waiting_write(wire)
        aborted = self.manage(wire, TaskFunction.ABORT_TASK, referenced_task_tag=pdu.itt, ref_cmd_sn=pdu.cmd_sn)
        assert aborted == TaskResponse.COMPLETE
        wire.send(DataOut(bytes(512), final=True, itt=pdu.itt, ttt=0))
        assert wire.receive() == []
        assert wire.ask(command(wire, TEST_UNIT_READY), ScsiResponse).status == Status.GOOD

    def test_abort_a_task_that_has_ended(self, wire: Wire) -> None:
        pdu = command(wire, TEST_UNIT_READY)
        wire.ask(pdu, ScsiResponse)
        gone = self.manage(wire, TaskFunction.ABORT_TASK, referenced_task_tag=pdu.itt, ref_cmd_sn=pdu.cmd_sn)
        assert gone == TaskResponse.NO_SUCH_TASK

    def test_abort_a_task_that_has_not_come_yet(self, wire: Wire) -> None:
        pdu = command(wire, TEST_UNIT_READY)
        request = TaskManagementRequest(
            final=True, immediate=True, function=TaskFunction.ABORT_TASK, itt=wire.itt, cmd_sn=wire._cmd_sn,
            referenced_task_tag=pdu.itt, ref_cmd_sn=pdu.cmd_sn,
        )  # fmt: skip
        assert wire.ask(request, TaskManagementResponse).response == TaskResponse.COMPLETE
        wire.send(pdu)
        assert wire.receive() == [], "a command ran after it was aborted"
        assert wire.ask(command(wire, TEST_UNIT_READY), ScsiResponse).status == Status.GOOD

    @pytest.mark.parametrize("tas", [0, 1])
    @pytest.mark.parametrize(
        ("function", "attention"),
        [
            (TaskFunction.ABORT_TASK_SET, None),
            (TaskFunction.CLEAR_TASK_SET, None),
            (TaskFunction.LOGICAL_UNIT_RESET, "29"),
            (TaskFunction.TARGET_WARM_RESET, "29"),
        ],
    )
    def test_a_whole_task_set(self, rig: Rig, function: TaskFunction, attention: str | None, tas: int) -> None:
        """SAM-5, TAS bit: TASK ABORTED, or a unit attention; neither for tasks of the nexus that asks."""
        wire = logged_in(rig, ImmediateData="No")
        other = logged_in(rig, ImmediateData="No", isid=b"\x80\0\0\0\0\7")
        if not tas:  # 1 is the default
            clear_tas(wire, other)
        mine, theirs = self.waiting_write(wire), self.waiting_write(other)
        assert self.manage(wire, function) == TaskResponse.COMPLETE
        answer = wire.ask(command(wire, TEST_UNIT_READY), ScsiResponse)
        if attention:
            assert sense(answer)[2:4] == attention
        else:
            assert answer.status == Status.GOOD
        if function == TaskFunction.ABORT_TASK_SET:
            r2t_ttt = 0
            other.send(DataOut(bytes(512), final=True, itt=theirs.itt, ttt=r2t_ttt))
            (answer,) = other.receive()  # type: ignore[assignment]
            assert answer.status == Status.GOOD, "another nexus' task was aborted"
        else:
            told = [(pdu.itt, getattr(pdu, "status", None)) for pdu in other.receive()]
            assert told == ([(theirs.itt, Status.TASK_ABORTED)] if tas else [])
            answer = other.ask(command(other, TEST_UNIT_READY), ScsiResponse)
            if tas and function == TaskFunction.CLEAR_TASK_SET:
                assert answer.status == Status.GOOD
            else:
                assert sense(answer)[2:4] == ("2f" if function == TaskFunction.CLEAR_TASK_SET else "29")
        wire.send(DataOut(bytes(512), final=True, itt=mine.itt, ttt=0))
        assert wire.receive() == []

    def test_a_task_of_another_nexus_that_runs(self, rig: Rig) -> None:
        """It is answered when it can do nothing any more, and the function after that (RFC 7143 §11.5.1)."""
        wire = logged_in(rig)
        other = logged_in(rig, isid=b"\x80\0\0\0\0\7")
        fua = bytes([0x2A, 0x08]) + write_10(0, 1)[2:]  # that the write waits for the medium, in a thread
        theirs = command(other, fua, bytes(512), write=True, edtl=512)
        other.send(theirs)
        assert rig.executor.busy
        assert self.manage(wire, TaskFunction.CLEAR_TASK_SET) == TaskResponse.COMPLETE
        (answer,) = other.receive()
        assert isinstance(answer, ScsiResponse)
        assert (answer.itt, answer.status) == (theirs.itt, Status.TASK_ABORTED)
        assert other.ask(command(other, TEST_UNIT_READY), ScsiResponse).status == Status.GOOD

    def test_clear_aca(self, wire: Wire) -> None:
        """SAM-5, ACA: an error with NACA blocks the nexus until it clears that."""
        beyond = struct.pack(">BxIxHB6x", 0x28, 1 << 30, 1, 0x04)
        assert wire.ask(command(wire, beyond, read=True, edtl=512), ScsiResponse).status == Status.CHECK_CONDITION
        assert wire.ask(command(wire, TEST_UNIT_READY), ScsiResponse).status == Status.ACA_ACTIVE
        plain = command(wire, read_10(0, 1), read=True, edtl=512)
        assert wire.ask(plain, ScsiResponse).status == Status.ACA_ACTIVE
        assert wire.ask(command(wire, TEST_UNIT_READY, attribute=4), ScsiResponse).status == Status.GOOD
        assert self.manage(wire, TaskFunction.CLEAR_ACA) == TaskResponse.COMPLETE
        assert len(read(wire, 0, 1)) == 512
        assert self.manage(wire, TaskFunction.CLEAR_ACA) == TaskResponse.COMPLETE

    def test_an_ordered_write_gets_its_data_when_memory_is_held_by_what_waits_for_it(self, rig: Rig) -> None:
        size = 8 << 20
        wire = logged_in(rig, ImmediateData="No", MaxBurstLength=str(size), FirstBurstLength=str(size))
        first = command(
            wire, write_10(0, size // 512), write=True, edtl=size, final=False, attribute=2
        )  # its unsolicited data is still to come
        wire.send(first)
        assert wire.receive() == []
        others = [command(wire, write_10(0, size // 512), write=True, edtl=size) for _ in range(2)]
        for pdu in others:
            wire.send(pdu)
            assert self.feed(wire) == []  # it waits, and holds memory: there is no more than for two
        wire.send(DataOut(bytes(512), final=True, itt=first.itt, ttt=NO_TAG))
        answers = self.feed(wire)
        assert answers[0].itt == first.itt
        assert {answer.itt for answer in answers[1:]} == {pdu.itt for pdu in others}

    def feed(self, wire: Wire) -> list[Pdu]:
        """Send zeros for every R2T until the target asks for no more; what else it says."""
        others: list[Pdu] = []
        while answers := wire.receive():
            for answer in answers:
                if isinstance(answer, R2T):
                    start, end = answer.buffer_offset, answer.buffer_offset + answer.desired_length
                    wire.send(*pieces(answer.itt, answer.ttt, bytes(end), start, end, wire.connection.segment))
                else:
                    others.append(answer)
        return others

    def test_cold_reset_ends_every_session(self, rig: Rig) -> None:
        wire, other = logged_in(rig), logged_in(rig, isid=b"\x80\0\0\0\0\7")
        assert self.manage(wire, TaskFunction.TARGET_COLD_RESET) == TaskResponse.COMPLETE
        assert wire.connection.state is State.CLOSING
        (message,) = other.receive()
        assert isinstance(message, AsyncMessage)
        assert message.event == AsyncEvent.SESSION_DROPPED
        assert other.connection.state is State.CLOSING
        assert not rig.node.sessions

    @pytest.mark.parametrize(
        ("function", "lun", "response"),
        [
            (TaskFunction.TASK_REASSIGN, 0, TaskResponse.REASSIGN_UNSUPPORTED),
            (99, 0, TaskResponse.UNSUPPORTED),
            (TaskFunction.LOGICAL_UNIT_RESET, 5 << 48, TaskResponse.NO_SUCH_LUN),
            (TaskFunction.ABORT_TASK_SET, 5 << 48, TaskResponse.NO_SUCH_LUN),
            (TaskFunction.CLEAR_ACA, 5 << 48, TaskResponse.NO_SUCH_LUN),
        ],
    )
    def test_what_cannot_be_done_is_said(
        self, wire: Wire, function: TaskFunction, lun: int, response: TaskResponse
    ) -> None:
        assert self.manage(wire, function, lun=lun) == response


class TestText:
    """RFC 7143 §11.10, §11.11, Appendix C."""

    def text(self, wire: Wire, pairs: list[tuple[str, str]], **fields: object) -> TextRequest:
        values = {"final": True, "itt": wire.itt, "ttt": NO_TAG, "cmd_sn": wire.cmd_sn, **fields}
        return TextRequest(encode_text(pairs), **values)  # type: ignore[arg-type]

    def answers(self, wire: Wire, *pairs: tuple[str, str]) -> list[tuple[str, str]]:
        response = wire.ask(self.text(wire, list(pairs)), TextResponse)
        assert response.final
        assert response.ttt == NO_TAG
        return decode_text(response.data)

    @pytest.mark.parametrize("name", ["", TARGET])
    def test_send_targets_in_a_normal_session(self, wire: Wire, name: str) -> None:
        found = self.answers(wire, ("SendTargets", name))
        assert found == [("TargetName", TARGET), ("TargetAddress", "127.0.0.1:3260,1")]

    @pytest.mark.parametrize("name", ["All", "iqn.2026-11.test:other"])
    def test_a_normal_session_may_not_ask_for_other_targets(self, wire: Wire, name: str) -> None:
        assert self.answers(wire, ("SendTargets", name)) == [("SendTargets", "Reject")]

    def test_discovery(self, rig: Rig) -> None:
        wire = Wire(rig)
        assert wire.log_in(SessionType="Discovery").status == 0
        assert ("TargetName", TARGET) in self.answers(wire, ("SendTargets", "All"))
        assert wire.ask(command(wire, TEST_UNIT_READY), Reject).reason == RejectReason.PROTOCOL_ERROR

    def test_unknown_keys(self, wire: Wire) -> None:
        assert self.answers(wire, ("X-org.example.what", "ever")) == [("X-org.example.what", "NotUnderstood")]

    def test_a_new_segment_length_holds_at_once(self, wire: Wire) -> None:
        self.answers(wire, ("MaxRecvDataSegmentLength", "512"))
        assert len(read(wire, 0, 8)) == 4096

    def test_text_in_several_pdus_both_ways(self, wire: Wire) -> None:
        self.answers(wire, ("MaxRecvDataSegmentLength", "512"))
        keys = [(f"X-org.example.{number}", "value") for number in range(30)]
        first = self.text(wire, keys[:15], final=False, continued=True)
        answer = wire.ask(first, TextResponse)
        assert (answer.final, len(answer.data)) == (False, 0)
        request = self.text(wire, keys[15:], itt=first.itt, ttt=answer.ttt)
        received = b""
        while True:
            answer = wire.ask(request, TextResponse)
            received += bytes(answer.data)
            assert len(answer.data) <= 512
            if answer.final:
                break
            assert answer.continued
            request = self.text(wire, [], itt=first.itt, ttt=answer.ttt)
        assert decode_text(received) == [(key, "NotUnderstood") for key, _ in keys]

    @pytest.mark.parametrize("data", [b"no equals sign\0", b"=x\0", b"\xff\xfe=\0"])
    def test_text_that_is_none_is_rejected(self, wire: Wire, data: bytes) -> None:
        request = self.text(wire, [])
        request.data = data
        assert wire.ask(request, Reject).reason == RejectReason.PROTOCOL_ERROR
        assert wire.connection.state is State.FULL_FEATURE


class TestLife:
    """NOP, logout, asynchronous messages, sessions (RFC 7143 §6.3, §11.9, §11.14, §11.18)."""

    def test_a_ping_is_echoed(self, wire: Wire) -> None:
        ping = NopOut(b"are you there", final=True, itt=wire.itt, ttt=NO_TAG, cmd_sn=wire.cmd_sn)
        answer = wire.ask(ping, NopIn)
        assert bytes(answer.data) == b"are you there"
        assert answer.ttt == NO_TAG

    def test_our_ping_must_be_answered(self, wire: Wire) -> None:
        assert wire.connection.ping()
        (ping,) = wire.receive()
        assert isinstance(ping, NopIn)
        assert ping.itt == NO_TAG
        assert not wire.connection.ping(), "the last one has not been answered"
        wire.send(NopOut(final=True, immediate=True, itt=NO_TAG, ttt=ping.ttt, cmd_sn=wire._cmd_sn))
        assert wire.receive() == []
        assert wire.connection.ping()

    @pytest.mark.parametrize(("reason", "cid", "code"), [(0, 0, 0), (1, 0, 0), (1, 5, 1), (2, 0, 2)])
    def test_logout(self, wire: Wire, reason: int, cid: int, code: int) -> None:
        request = LogoutRequest(final=True, reason=reason, cid=cid, itt=wire.itt, cmd_sn=wire.cmd_sn)
        assert wire.ask(request, LogoutResponse).response == code
        assert wire.connection.state is (State.FULL_FEATURE if code else State.CLOSING)

    def test_the_target_asks_for_logout(self, wire: Wire) -> None:
        wire.connection.request_logout(10)
        (message,) = wire.receive()
        assert isinstance(message, AsyncMessage)
        assert (message.event, message.parameter3) == (1, 10)

    def test_a_session_is_reinstated(self, rig: Rig, wire: Wire) -> None:
        assert wire.connection.session is not None
        again = Wire(rig)
        assert again.log_in().status == 0
        assert wire.dropped
        assert len(rig.node.sessions) == 1

    def test_sessions_with_other_isids_stand_beside_each_other(self, rig: Rig) -> None:
        wires = [logged_in(rig, isid=b"\x80\0\0\0\0" + bytes([number])) for number in range(5)]
        assert len({wire.connection.session.tsih for wire in wires}) == 5  # type: ignore[union-attr]
        for wire in wires:
            wire.close()
        assert not rig.node.sessions

    def test_a_closed_connection_leaves_nothing_behind(self, rig: Rig) -> None:
        wire = logged_in(rig, ImmediateData="No")
        wire.ask(command(wire, write_10(0, 1), write=True, edtl=512), R2T)
        wire.close()
        assert not rig.node.sessions
        assert not rig.units[0].nexuses

    @pytest.mark.parametrize("level", ["0", "1"])
    def test_a_command_that_has_ended_is_free_without_the_garbage_collector(self, rig: Rig, level: str) -> None:
        rig.preferences = Preferences(error_recovery_level=1)
        wire = logged_in(rig, fast=False, ErrorRecoveryLevel=level)
        acknowledge(wire)
        gc.collect()
        gc.disable()
        try:
            before = sum(isinstance(thing, Task) for thing in gc.get_objects())
            for _ in range(3):
                assert wire.ask(command(wire, TEST_UNIT_READY), ScsiResponse).status == Status.GOOD
            acknowledge(wire)
            assert sum(isinstance(thing, Task) for thing in gc.get_objects()) == before
        finally:
            gc.enable()
