"""SCSI commands over a Wire, as an initiator makes them."""

from __future__ import annotations

import struct

from blockyard.iscsi.pdu import NO_TAG, R2T, DataIn, DataOut, NopOut, ScsiCommand, ScsiResponse
from blockyard.scsi.task import Status
from tests.wire import Rig, Wire, pieces

TEST_UNIT_READY = bytes(16)


def read_10(lba: int, blocks: int) -> bytes:
    return struct.pack(">BxIxHx6x", 0x28, lba, blocks)


def write_10(lba: int, blocks: int) -> bytes:
    return struct.pack(">BxIxHx6x", 0x2A, lba, blocks)


def command(wire: Wire, cdb: bytes, data: bytes = b"", **fields: object) -> ScsiCommand:
    """A SCSI command PDU with the next CmdSN and a fresh task tag."""
    values = {"final": True, "attribute": 1, "itt": wire.itt, "cdb": cdb, **fields}
    if "cmd_sn" not in values:
        values["cmd_sn"] = wire.cmd_sn
    return ScsiCommand(data, values.pop("ahs", b""), **values)  # type: ignore[arg-type]


def logged_in(rig: Rig, *, fast: bool = True, isid: bytes = b"\x80\0\0\0\0\1", **keys: str) -> Wire:
    """A connection in full feature phase whose unit attention has been taken."""
    wire = Wire(rig, fast=fast, isid=isid)
    assert wire.log_in(**keys).status == 0
    answer = wire.ask(command(wire, TEST_UNIT_READY), ScsiResponse)
    assert answer.status == Status.CHECK_CONDITION
    assert sense(answer)[:2] == "06"
    return wire


def sense(answer: ScsiResponse) -> str:
    """Sense key, ASC and ASCQ of fixed format sense data, in hexadecimal."""
    data = bytes(answer.data)[2:]
    return bytes([data[2] & 0x0F, data[12], data[13]]).hex()


def write(wire: Wire, lba: int, data: bytes) -> ScsiResponse:
    """Write as an initiator does that uses all that was negotiated: immediate, unsolicited and solicited data."""
    parameters = wire.connection.session.parameters  # type: ignore[union-attr]
    segment = wire.connection.segment
    first = min(parameters.first_burst_length, len(data))
    immediate = min(first, segment) if parameters.immediate_data else 0
    unsolicited = first if not parameters.initial_r2t else immediate
    pdu = command(
        wire, write_10(lba, len(data) // 512), data[:immediate], write=True, edtl=len(data),
        final=unsolicited <= immediate,
    )  # fmt: skip
    wire.send(pdu, *pieces(pdu.itt, NO_TAG, data, immediate, unsolicited, segment))
    outstanding = 0
    while True:
        answers = wire.receive()
        assert answers, "the target neither asks for data nor answers"
        for answer in answers:
            if isinstance(answer, ScsiResponse):
                assert answer.itt == pdu.itt
                return answer
            assert isinstance(answer, R2T), answer
            outstanding += 1
            assert answer.desired_length <= parameters.max_burst_length
            assert outstanding <= parameters.max_outstanding_r2t
        for answer in answers:
            assert isinstance(answer, R2T)
            end = answer.buffer_offset + answer.desired_length
            outstanding -= 1
            wire.send(*pieces(pdu.itt, answer.ttt, data, answer.buffer_offset, end, segment))


def read(wire: Wire, lba: int, blocks: int) -> bytes:
    wire.send(command(wire, read_10(lba, blocks), read=True, edtl=blocks * 512))
    data = b""
    answers = wire.receive()
    for number, answer in enumerate(answers):
        assert isinstance(answer, DataIn), answer
        assert answer.data_sn == number
        assert answer.buffer_offset == len(data)
        assert len(answer.data) <= wire.connection.peer_segment
        data += bytes(answer.data)
    assert isinstance(answers[-1], DataIn)
    assert answers[-1].has_status
    assert answers[-1].final
    return data


def clear_tas(wire: Wire, *others: Wire) -> None:
    """MODE SELECT: tasks that another nexus aborts end without a status. `others` take the unit attention about it."""
    page = bytes.fromhex("0a0a 0210 0000 0000 ffff 0000")  # Control
    data = bytes(4) + page
    immediate = wire.connection.session.parameters.immediate_data  # type: ignore[union-attr]
    cdb = bytes([0x15, 0x10, 0, 0, len(data)]).ljust(16, b"\0")
    pdu = command(wire, cdb, data if immediate else b"", write=True, edtl=len(data))
    if immediate:
        answer = wire.ask(pdu, ScsiResponse)
    else:
        ttt = wire.ask(pdu, R2T).ttt
        answer = wire.ask(DataOut(data, final=True, itt=pdu.itt, ttt=ttt), ScsiResponse)
    assert answer.status == Status.GOOD
    for other in others:
        assert sense(other.ask(command(other, TEST_UNIT_READY), ScsiResponse)) == "062a01"  # mode parameters changed


def joined(wire: Wire, cid: int, **keys: str) -> Wire:
    """Another connection of the session of `wire`, in full feature phase."""
    other = Wire(wire.rig, isid=wire.isid, beside=wire, cid=cid)
    assert other.log_in(**keys).status == 0
    return other


def acknowledge(wire: Wire, ttt: int = NO_TAG) -> None:
    """Say that everything sent so far has come: in answer to a NOP-In, or unasked."""
    nop = NopOut(final=True, immediate=True, itt=NO_TAG, ttt=ttt, cmd_sn=wire.numbers.cmd_sn)
    nop.exp_stat_sn = wire.connection.stat_sn
    wire.send(nop)
