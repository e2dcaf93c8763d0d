"""Reservations between sessions: what becomes of commands in progress, and of the nexus after its session."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockyard.iscsi.pdu import R2T, DataOut, ScsiCommand, ScsiResponse
from blockyard.scsi.task import Status
from tests.iscsi.commands import TEST_UNIT_READY, clear_tas, command, logged_in, sense, write, write_10
from tests.scsi.cluster import PREEMPT, PREEMPT_AND_ABORT, REGISTER, RESERVE, WERO, parameters, pr_in, pr_out
from tests.wire import Rig, Wire

ISIDS = (b"\x80\0\0\0\0\1", b"\x80\0\0\0\0\2")


@pytest.fixture
def nodes(rig: Rig) -> list[Wire]:
    """Two sessions of one initiator, both registered, with keys 1 and 2; the first has reserved for registrants."""
    wires = [logged_in(rig, isid=isid, ImmediateData="No") for isid in ISIDS]
    for key, wire in enumerate(wires, 1):
        assert reserve_out(wire, REGISTER, 0, key).status == Status.GOOD
    assert reserve_out(wires[0], RESERVE, 1).status == Status.GOOD
    return wires


def reserve_out(wire: Wire, action: int, key: int, other: int = 0) -> ScsiResponse:
    cdb = pr_out(action, WERO).ljust(16, b"\0")
    pdu = command(wire, cdb, write=True, edtl=24)
    request = wire.ask(pdu, R2T)
    data = parameters(key, other)
    return wire.ask(DataOut(data, final=True, itt=pdu.itt, ttt=request.ttt), ScsiResponse)


def begin_write(wire: Wire) -> tuple[ScsiCommand, R2T]:
    pdu = command(wire, write_10(0, 8), write=True, edtl=4096)
    return pdu, wire.ask(pdu, R2T)


def send_data(wire: Wire, pdu: ScsiCommand, request: R2T) -> None:
    wire.send(DataOut(b"\xff" * 4096, final=True, itt=pdu.itt, ttt=request.ttt))


@pytest.mark.parametrize("tas", [0, 1])
def test_preempt_and_abort_ends_what_the_other_has_begun(nodes: list[Wire], tmp_path: Path, tas: int) -> None:
    first, second = nodes
    if not tas:  # 1 is the default: whoever is fenced off need not wait for what will not come
        clear_tas(second, first)
    mine, theirs = begin_write(second), begin_write(first)
    assert reserve_out(second, PREEMPT_AND_ABORT, 2, 1).status == Status.GOOD
    told = [(pdu.itt, getattr(pdu, "status", None)) for pdu in first.receive()]
    assert told == ([(theirs[0].itt, Status.TASK_ABORTED)] if tas else [])
    send_data(first, *theirs)
    assert first.receive() == []  # it is aborted: no data, no other status
    attentions = ("062a05",) if tas else ("062a05", "062f00")
    for expected in attentions:  # registrations preempted, commands cleared by another initiator
        assert sense(first.ask(command(first, TEST_UNIT_READY), ScsiResponse)) == expected
    assert first.ask(command(first, TEST_UNIT_READY), ScsiResponse).status == Status.GOOD
    assert write(first, 0, bytes(512)).status == Status.RESERVATION_CONFLICT
    assert (tmp_path / "disk").read_bytes()[:4096] == bytes(4096)
    send_data(second, *mine)  # nobody has aborted that
    (answer,) = second.receive()
    assert isinstance(answer, ScsiResponse)
    assert answer.status == Status.GOOD


def test_preempt_lets_what_has_begun_end_but_not_write(nodes: list[Wire], tmp_path: Path) -> None:
    first, second = nodes
    theirs = begin_write(first)
    assert reserve_out(second, PREEMPT, 2, 1).status == Status.GOOD
    send_data(first, *theirs)
    (answer,) = first.receive()
    assert isinstance(answer, ScsiResponse)
    assert answer.status == Status.RESERVATION_CONFLICT
    assert (tmp_path / "disk").read_bytes()[:4096] == bytes(4096)


def test_preempt_and_abort_of_oneself_spares_the_command_itself(nodes: list[Wire]) -> None:
    first, _ = nodes
    pdu, request = begin_write(first)
    assert reserve_out(first, PREEMPT_AND_ABORT, 1, 1).status == Status.GOOD
    send_data(first, pdu, request)
    assert first.receive() == []
    assert first.ask(command(first, TEST_UNIT_READY), ScsiResponse).status == Status.GOOD


def test_a_registration_survives_its_session(rig: Rig, nodes: list[Wire]) -> None:
    first, second = nodes
    first.close()
    assert write(second, 0, bytes(512)).status == Status.GOOD
    again = logged_in(rig, isid=ISIDS[0])
    other = logged_in(rig, isid=b"\x80\0\0\0\0\3")  # another session of the same initiator is another nexus
    assert write(again, 0, bytes(512)).status == Status.GOOD
    assert write(other, 0, bytes(512)).status == Status.RESERVATION_CONFLICT


def test_reserve_does_not_survive_its_session(rig: Rig) -> None:
    first, second = (logged_in(rig, isid=isid) for isid in ISIDS)
    assert first.ask(command(first, bytes([0x16]).ljust(16, b"\0")), ScsiResponse).status == Status.GOOD
    assert write(second, 0, bytes(512)).status == Status.RESERVATION_CONFLICT
    assert second.ask(command(second, pr_in(0).ljust(16, b"\0"), read=True, edtl=8), ScsiResponse).status == 0x18
    first.close()
    assert write(second, 0, bytes(512)).status == Status.GOOD
