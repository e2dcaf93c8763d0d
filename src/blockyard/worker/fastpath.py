"""The data path: READ and WRITE commands in their usual form, straight between file and network.

`pump` walks over the PDUs of one receive. A command that is plain — READ or WRITE (10) or (16), next in
CmdSN order, all its data with it, inside the unit, nothing in the way — is answered right here: the
data of a read goes from the page cache to its place in the transmit buffer with one preadv, that
of a write from the receive buffer to the file with one pwrite, and the answer's header is packed
with one struct. Everything else goes to Connection.receive, which knows it all; so does whatever
fails here, untouched, to fail again there and be reported. tests/worker/test_fastpath.py holds the two to the
same answers.

This is the one module that is shaped by speed. What that means:

* one function, locals instead of attributes, numbers written back once a batch (a Python call
  costs as much as packing a header);
* the state of the logical unit is looked at once a batch and after each detour, not per command:
  nothing else runs on this thread in between, and `gate` closes before anything changes;
* a memoryview slice and a tuple are the only objects made for a command.
"""

from __future__ import annotations

import os
from mmap import mmap
from os import preadv, pwrite
from time import monotonic

from blockyard.block.device import Quick
from blockyard.iscsi.connection import Connection, State
from blockyard.iscsi.digest import crc32c
from blockyard.iscsi.pdu import BHS_LENGTH
from blockyard.iscsi.transmit import MAX_INLINE_READ, SEND_THRESHOLD, TransmitBuffer
from blockyard.worker.buffers import ReceiveBuffer
from blockyard.worker.deferred import begin_plain
from blockyard.worker.plain import (
    ANSWER,
    COMMAND_10,
    COMMAND_16,
    DATA_IN,
    DATA_IN_FINAL,
    DATA_IN_PART,
    DATA_IN_STATUS,
    DIGEST,
    FORM,
    MASK,
    NO_TAG,
    PLAIN_WRITES,
    READ_10,
    READ_16,
    RESPONSE,
    SIMPLE_READ,
    UNTAGGED_READ,
    WRITE_10,
    WRITE_16,
    add_digests,
    intact,
)
from blockyard.worker.streaming import answer_blocks

_PAGE = os.sysconf("SC_PAGE_SIZE")
_IOV_MAX = os.sysconf("SC_IOV_MAX")


def pump(connection: Connection, rx: ReceiveBuffer, tx: TransmitBuffer) -> None:
    """Handle the PDUs in `rx` until no whole one is left or `tx` is full."""
    buffer = rx.memory
    while rx.end - rx.start >= BHS_LENGTH and tx.end < SEND_THRESHOLD:
        form = FORM[buffer[rx.start + 32]]
        if form == 6:
            if answer_blocks(connection, rx, tx):
                continue
        elif form and (_answer_plain(connection, rx, tx) or begin_plain(connection, rx)):
            continue
        after = connection.receive(rx.view, rx.start, rx.end)
        if after == rx.start:
            return
        rx.start = after
        if not connection.fill(tx):
            return


def _answer_plain(connection: Connection, rx: ReceiveBuffer, tx: TransmitBuffer) -> int:
    """Answer plain commands on one logical unit, up to the first that is not; how many they were."""
    session = connection.session
    if session is None or session.node is None or session.detour or connection.state is not State.FULL_FEATURE:
        return 0
    buffer, view, at, end = rx.memory, rx.view, rx.start, rx.end
    lun = int.from_bytes(buffer[at + 8 : at + 16], "big")
    nexus = session.nexus(lun)
    unit = nexus.unit
    if nexus.gate is not None or unit.gate is not None or not unit.fast_read:
        return 0
    fd, shift, blocks, read_flags, quick = unit.fd, unit.shift, unit.blocks, unit.read_flags, unit.quick
    writable = unit.fast_write and not nexus.read_only
    header_digest, data_digest = connection.header_digest, connection.data_digest
    digests = header_digest or data_digest
    header_length = 52 if header_digest else 48
    segment, max_burst = connection.peer_segment, connection.max_burst
    immediate_limit = session.parameters.first_burst_length if session.parameters.immediate_data else 0
    exp_cmd_sn, max_cmd_sn, stat_sn = session.exp_cmd_sn, session.max_cmd_sn, connection.stat_sn
    tags = session.commands
    out, out_view, to = tx.memory, tx.view, tx.end
    reads = read_bytes = writes = written_bytes = 0
    while end - at >= header_length and to < SEND_THRESHOLD and (form := FORM[buffer[at + 32]]):
        if form == 16:
            head, to_lun, tag, length, cmd_sn, code, lba, count, tail = COMMAND_16(buffer, at)
        else:
            head, to_lun, tag, length, cmd_sn, code, lba, tail, count, control = COMMAND_10(buffer, at)
            tail |= control
        if (
            cmd_sn != exp_cmd_sn
            or to_lun != lun
            or tail
            or count << shift != length
            or lba + count > blocks
            or not count
            or (tags and tag in tags)
        ):
            break
        next_cmd_sn, next_max = (cmd_sn + 1) & MASK, (max_cmd_sn + 1) & MASK
        if (code == READ_16 or code == READ_10) and (head == SIMPLE_READ or head == UNTAGGED_READ):
            if length > MAX_INLINE_READ:
                break
            if header_digest and DIGEST(buffer, at + 48)[0] != crc32c(view[at : at + 48]):
                break
            if length > segment or length > max_burst:
                after = _read_in_segments(
                    fd, quick, lba << shift, length, read_flags, segment, max_burst, header_digest, data_digest,
                    out, out_view, to, tag, stat_sn, next_cmd_sn, next_max,
                )  # fmt: skip
                if not after:
                    break
            else:
                data = to + header_length
                after = data + length
                if quick is not None:
                    if not quick.read((out_view[data:after],), lba << shift, length):
                        break
                else:
                    try:
                        if preadv(fd, (out_view[data:after],), lba << shift, read_flags) != length:
                            break
                    except OSError:
                        break
                ANSWER(out, to, DATA_IN_STATUS | length, tag, NO_TAG, stat_sn, next_cmd_sn, next_max)
                if digests:
                    after = add_digests(out, out_view, to, data, after, header_digest, data_digest)
            to = after
            at += header_length
            reads += 1
            read_bytes += length
        elif code == WRITE_16 or code == WRITE_10:
            if head - length not in PLAIN_WRITES or length > immediate_limit or not writable:
                break
            if (lba << shift | length) & (_PAGE - 1):
                break  # part of a page: it may have to be read first, and that may block
            data = at + header_length
            after = data + length
            next_at = after + 4 if data_digest else after
            if next_at > end:
                break
            if digests and not intact(buffer, view, at, data, after, header_digest, data_digest):
                break
            if quick is not None:
                if not quick.write(view[data:after], lba << shift):
                    break
            else:
                try:
                    if pwrite(fd, view[data:after], lba << shift) != length:
                        break
                except OSError:
                    break
            ANSWER(out, to, RESPONSE, tag, 0, stat_sn, next_cmd_sn, next_max)
            if header_digest:
                add_digests(out, out_view, to, to + 52, to + 52, header_digest=True, data_digest=False)
            to += header_length
            at = next_at
            writes += 1
            written_bytes += length
        else:
            break
        exp_cmd_sn, max_cmd_sn, stat_sn = next_cmd_sn, next_max, (stat_sn + 1) & MASK
    if reads or writes:
        rx.start, tx.end = at, to
        session.exp_cmd_sn, connection.stat_sn = exp_cmd_sn, stat_sn
        counters = unit.counters
        counters.read_ops += reads
        counters.read_bytes += read_bytes
        counters.write_ops += writes
        counters.write_bytes += written_bytes
        seconds = monotonic() - rx.since
        if reads:
            nexus.traffic.reads.add(seconds, reads, read_bytes)
        if writes:
            nexus.traffic.writes.add(seconds, writes, written_bytes)
    return reads + writes


def _read_in_segments(
    fd: int, quick: Quick | None, position: int, length: int, flags: int, segment: int, max_burst: int, header_digest: bool,
    data_digest: bool, out: mmap, view: memoryview, to: int, tag: int, stat_sn: int, exp_cmd_sn: int, max_cmd_sn: int,
) -> int:  # fmt: skip
    """A read whose answer takes several Data-In PDUs (MaxRecvDataSegmentLength, MaxBurstLength; RFC 7143 §11.7).

    One read scatters the data to its places, then the headers go between. Returns where the next PDU goes; 0
    when the data is not at hand, for whatever reason.
    """
    before = 52 if header_digest else 48
    places: list[tuple[int, int, int]] = []  # of each PDU: buffer offset, where its data begins and ends
    offset, data = 0, to + before
    while offset < length:
        size = min(segment, length - offset, max_burst - offset % max_burst)
        places.append((offset, data, data + size))
        offset += size
        data += size + (4 if data_digest else 0) + before
    if len(places) > _IOV_MAX:
        return 0
    buffers = [view[a:b] for _, a, b in places]
    if quick is not None:
        if not quick.read(buffers, position, length):
            return 0
    else:
        try:
            if preadv(fd, buffers, position, flags) != length:
                return 0
        except OSError:
            return 0
    for number, (offset, start, end) in enumerate(places):
        if number == len(places) - 1:
            first_word, sn = DATA_IN_STATUS, stat_sn
        else:
            first_word, sn = (DATA_IN if (offset + end - start) % max_burst else DATA_IN_FINAL), 0
        at = start - before
        DATA_IN_PART(out, at, first_word | end - start, tag, NO_TAG, sn, exp_cmd_sn, max_cmd_sn, number, offset)
        add_digests(out, view, at, start, end, header_digest, data_digest)
    return places[-1][2] + (4 if data_digest else 0)
