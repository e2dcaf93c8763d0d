"""READ and WRITE on a device that answers later: side by side, in any order, and known to all that ends or counts commands."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from blockyard.iscsi.pdu import (
    DataIn,
    Pdu,
    ScsiCommand,
    ScsiResponse,
    TaskFunction,
    TaskManagementRequest,
    TaskManagementResponse,
    TaskResponse,
)
from blockyard.scsi.sense import Asc, SenseKey
from blockyard.scsi.task import Status
from tests.block.late import LateDevice
from tests.wire import Rig, Wire

BLOCKS = 2048


class Bench:
    """A wire to a unit on a LateDevice, whose unit attention has been taken."""

    def __init__(self) -> None:
        content = b"".join(block.to_bytes(4, "big") * 128 for block in range(BLOCKS))
        self.device = LateDevice(BLOCKS * 512, content)
        self.rig = Rig(self.device)
        self.wire = Wire(self.rig)
        self.wire.log_in()
        self.wire.ask(self.command(bytes(16)), Pdu)

    def command(self, cdb: bytes, data: bytes = b"", read: int = 0) -> ScsiCommand:
        wire = self.wire
        return ScsiCommand(
            data, final=True, read=bool(read), write=bool(data), attribute=1, itt=wire.itt, edtl=len(data) or read,
            cmd_sn=wire.cmd_sn, cdb=cdb.ljust(16, b"\0"),
        )  # fmt: skip

    def read(self, lba: int) -> ScsiCommand:
        return self.command(bytes([0x28, 0]) + lba.to_bytes(4, "big") + b"\0\0\x08\0", read=4096)

    def write(self, lba: int, letter: bytes) -> ScsiCommand:
        return self.command(bytes([0x2A, 0]) + lba.to_bytes(4, "big") + b"\0\0\x08\0", letter * 4096)

    def compare_and_write(self, lba: int, expected: bytes, data: bytes) -> ScsiCommand:
        return self.command(bytes([0x89, 0]) + lba.to_bytes(8, "big") + b"\0\0\0\x01\0\0", expected * 512 + data * 512)

    @property
    def running(self) -> int:
        tasks = self.rig.units[0].tasks
        assert tasks is not None
        return len(tasks)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.device.late.held = False
    made.wire.close()
    made.rig.close()


def sense_of(pdu: Pdu) -> tuple[int, int]:
    assert isinstance(pdu, ScsiResponse)
    assert pdu.status == Status.CHECK_CONDITION
    sense = bytes(pdu.data[2:])
    return sense[2] & 0xF, int.from_bytes(sense[12:14], "big")


def test_all_of_a_batch_is_under_way_at_a_time(bench: Bench) -> None:
    batch = [bench.read(8 * number) for number in range(100)]
    bench.wire.send(*batch)
    assert bench.device.late.most == 100
    answers = bench.wire.receive()
    assert sorted(answer.itt for answer in answers) == [command.itt for command in batch]
    assert [answer.itt for answer in answers] != [command.itt for command in batch], "they end in another order"
    for answer in answers:
        assert isinstance(answer, DataIn)
        number = answer.itt - batch[0].itt
        assert bytes(answer.data) == bytes(bench.device.data[number * 4096 : number * 4096 + 4096])
    assert [answer.stat_sn for answer in answers] == list(range(answers[0].stat_sn, answers[0].stat_sn + 100))  # type: ignore[attr-defined]
    assert bench.rig.units[0].counters.read_ops == 100
    assert not bench.running
    assert bench.wire.session.outstanding == 0


def test_no_more_are_begun_than_the_window_holds(bench: Bench) -> None:
    bench.device.late.held = True
    bench.wire.send(*(bench.read(8 * number) for number in range(128)))
    assert bench.wire.session.max_cmd_sn == bench.wire.session.exp_cmd_sn - 1
    late = bench.read(0)
    bench.wire.send(late)  # against the window: ignored
    bench.device.late.held = False
    answers = bench.wire.receive()
    assert len(answers) == 128
    assert late.itt not in {answer.itt for answer in answers}


def test_an_aborted_command_is_not_answered_and_ends_before_that_is_said(bench: Bench) -> None:
    bench.device.late.held = True
    doomed, other = bench.write(0, b"d"), bench.read(800)
    bench.wire.send(doomed, other)
    bench.wire.send(
        TaskManagementRequest(
            final=True, immediate=True, function=TaskFunction.ABORT_TASK, itt=bench.wire.itt, cmd_sn=bench.wire._cmd_sn,
            referenced_task_tag=doomed.itt, ref_cmd_sn=doomed.cmd_sn,
        )
    )  # fmt: skip
    assert not bench.wire._out, "what has begun may still land: nobody is told that it is over"
    bench.device.late.held = False
    answers = bench.wire.receive()
    assert {type(answer) for answer in answers} == {DataIn, TaskManagementResponse}
    (told,) = (answer for answer in answers if isinstance(answer, TaskManagementResponse))
    assert told.response == TaskResponse.COMPLETE
    assert not bench.running


def test_what_must_be_alone_waits_for_what_is_under_way(bench: Bench) -> None:
    bench.device.late.held = True
    before = bench.write(0, b"b")
    alone = bench.compare_and_write(0, b"b", b"c")
    after = bench.read(0)
    bench.wire.send(before, alone, after)
    assert len(bench.device.late.waiting) == 1
    bench.device.late.held = False
    answers = bench.wire.receive()
    assert [answer.itt for answer in answers] == [before.itt, alone.itt, after.itt]
    assert bytes(answers[-1].data) == b"c" * 512 + b"b" * 3584
    assert all(answer.status == Status.GOOD for answer in answers)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.ENOTCONN, (SenseKey.NOT_READY, Asc.LOGICAL_UNIT_IS_IN_PROCESS_OF_BECOMING_READY)),
        (errno.ESHUTDOWN, (SenseKey.NOT_READY, Asc.LOGICAL_UNIT_NOT_READY_MANUAL_INTERVENTION_REQUIRED)),
        (errno.ENOSPC, (SenseKey.DATA_PROTECT, Asc.SPACE_ALLOCATION_FAILED_WRITE_PROTECT)),
    ],
)
def test_errors_become_sense_data(bench: Bench, number: int, told: tuple[int, int]) -> None:
    bench.device.late.errors = [number, 0, number]
    failing, well, also = bench.read(0), bench.read(8), bench.write(16, b"w")
    bench.wire.send(failing, well, also)
    answers = {answer.itt: answer for answer in bench.wire.receive()}
    assert sense_of(answers[failing.itt]) == told
    assert sense_of(answers[also.itt]) == told
    assert isinstance(answers[well.itt], DataIn)
    assert bench.rig.units[0].counters.errors == 2
    assert not bench.running


def test_what_fails_on_the_medium_is_tried_again_in_a_thread(bench: Bench) -> None:
    """There the block is found that is to blame; here it was a passing trouble."""
    bench.device.late.errors = [errno.EIO]
    bench.wire.send(bench.read(8))
    (answer,) = bench.wire.receive()
    assert isinstance(answer, DataIn)
    assert bytes(answer.data) == bytes(bench.device.data[4096:8192])


def test_a_connection_that_goes_takes_its_commands_with_it(bench: Bench) -> None:
    bench.device.late.held = True
    bench.wire.send(*(bench.read(8 * number) for number in range(10)))
    bench.wire.connection.closed()
    bench.device.late.held = False
    bench.rig.settle()
    assert not bench.running
    assert not bench.wire._out


def test_other_commands_overlap_too(bench: Bench) -> None:
    """SYNCHRONIZE CACHE, WRITE SAME, UNMAP and WRITE with FUA, by the long road, without a thread."""
    wire = bench.wire
    wire.ask(bench.write(0, b"x"), ScsiResponse)
    forced = bench.command(bytes([0x2A, 0x08]) + bytes(6) + b"\x08\0", b"f" * 4096)
    assert wire.ask(forced, ScsiResponse).status == Status.GOOD
    assert bench.device.data[:4096] == b"f" * 4096
    same = bench.command(bytes([0x41, 0, 0, 0, 0, 8, 0, 0, 8, 0]), b"s" * 512)
    assert wire.ask(same, ScsiResponse).status == Status.GOOD
    assert bench.device.data[4096:8192] == b"s" * 4096
    unmapped = (
        (22).to_bytes(2, "big") + (16).to_bytes(2, "big") + bytes(4) + (0).to_bytes(8, "big") + (8).to_bytes(4, "big")
    )
    unmap = bench.command(bytes([0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0]), unmapped + bytes(4))
    assert wire.ask(unmap, ScsiResponse).status == Status.GOOD
    assert bench.device.data[:4096] == bytes(4096)
    beyond = unmapped[:8] + BLOCKS.to_bytes(8, "big") + (8).to_bytes(4, "big")
    wrong = bench.command(bytes([0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0]), beyond + bytes(4))
    key, asc = sense_of(wire.ask(wrong, ScsiResponse))
    assert (key, asc) == (SenseKey.ILLEGAL_REQUEST, Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE)
    assert wire.ask(bench.command(bytes([0x35])), ScsiResponse).status == Status.GOOD
    assert not bench.rig.executor.threads
