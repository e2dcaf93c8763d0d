"""The data path of tape drives: READ and WRITE (6) of one block of variable length, in their usual form.

A block that is written goes from the receive buffer to the cartridge's file, one that is read from there to its place in the
transmit buffer. As in fastpath.py everything else, and whatever fails here, goes the general road, to the handlers of these
commands; tests/worker/test_streaming.py holds the two to the same answers.
"""

from __future__ import annotations

from blockyard.iscsi.connection import Connection, State
from blockyard.iscsi.pdu import BHS_LENGTH
from blockyard.iscsi.transmit import MAX_INLINE_READ, SEND_THRESHOLD, TransmitBuffer
from blockyard.media.drive import TapeDrive
from blockyard.media.record import HEADER_LENGTH
from blockyard.media.streaming import Stream, stream
from blockyard.worker.buffers import ReceiveBuffer
from blockyard.worker.plain import (
    ANSWER,
    COMMAND_6,
    DATA_IN_STATUS,
    DIGEST,
    MASK,
    NO_TAG,
    PACK_DIGEST,
    PLAIN_WRITES,
    READS_6,
    RESPONSE,
    SIMPLE_READ,
    UNTAGGED_READ,
    WRITE_6,
    add_digests,
    intact,
)


def answer_blocks(connection: Connection, rx: ReceiveBuffer, tx: TransmitBuffer) -> int:
    """Answer plain commands on one drive, up to the first that is not; how many they were."""
    session, at = connection.session, rx.start
    if int.from_bytes(rx.memory[at + 5 : at + 8], "big") > rx.end - at - BHS_LENGTH:
        return 0  # a long block comes in several pieces: each is a look at what has come
    if session is None or session.node is None or session.detour or connection.state is not State.FULL_FEATURE:
        return 0
    nexus = session.nexus(int.from_bytes(rx.memory[at + 8 : at + 16], "big"))
    unit = nexus.unit
    if not isinstance(unit, TapeDrive) or nexus.gate is not None or unit.gate is not None:
        return 0
    found = stream(unit, nexus)
    if found is None:
        return 0
    try:
        return _answer(connection, rx, tx, found)
    finally:
        found.close()


def _answer(connection: Connection, rx: ReceiveBuffer, tx: TransmitBuffer, found: Stream) -> int:
    session = connection.session
    assert session is not None
    buffer, view, at, end = rx.memory, rx.view, rx.start, rx.end
    out, out_view, to = tx.memory, tx.view, tx.end
    header_digest, data_digest = connection.header_digest, connection.data_digest
    digests = header_digest or data_digest
    header_length = 52 if header_digest else 48
    largest = min(connection.peer_segment, connection.max_burst, MAX_INLINE_READ)
    immediate_limit = session.parameters.first_burst_length if session.parameters.immediate_data else 0
    lun, done = buffer[at + 8 : at + 16], 0
    while end - at >= header_length and to < SEND_THRESHOLD and buffer[at + 8 : at + 16] == lun:
        head, tag, length, cmd_sn, code, tail = COMMAND_6(buffer, at)
        if cmd_sn != session.exp_cmd_sn or tail != length << 8 or not length or length & 3 or tag in session.commands:
            break
        data = at + header_length
        if code in READS_6:
            after, start = data, to + header_length
            if head not in (SIMPLE_READ, UNTAGGED_READ) or length > largest:
                break
            if header_digest and not intact(buffer, view, at, data, data, header_digest, data_digest=False):
                break
            checksum = found.read(out_view[start - HEADER_LENGTH : start + length])  # its header, where ours comes
            if checksum is None:
                break
            answer, ttt, answered = DATA_IN_STATUS | length, NO_TAG, start + length
        elif code == WRITE_6:
            after, start = data + length + (4 if data_digest else 0), to + header_length
            if head - length not in PLAIN_WRITES or length > immediate_limit or after > end:
                break
            if digests and not intact(buffer, view, at, data, data + length, header_digest, data_digest):
                break
            checksum = DIGEST(buffer, data + length)[0] if data_digest else None  # is that of a record too
            if not found.write(view[data : data + length], checksum):
                break
            answer, ttt, answered = RESPONSE, 0, start
        else:
            break
        session.exp_cmd_sn = (cmd_sn + 1) & MASK
        ANSWER(out, to, answer, tag, ttt, connection.stat_sn, session.exp_cmd_sn, session.max_cmd_sn)
        connection.stat_sn = (connection.stat_sn + 1) & MASK
        if header_digest:
            add_digests(out, out_view, to, start, start, header_digest, data_digest=False)
        if data_digest and answered > start:
            PACK_DIGEST(out, answered, checksum)
            answered += 4
        to, at = answered, after
        done += 1
    rx.start, tx.end = at, to
    return done
