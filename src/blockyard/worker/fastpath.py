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
from struct import Struct

from blockyard.block.device import Quick
from blockyard.iscsi.connection import Connection, State
from blockyard.iscsi.digest import crc32c
from blockyard.iscsi.pdu import BHS_LENGTH
from blockyard.iscsi.transmit import MAX_INLINE_READ, SEND_THRESHOLD, TransmitBuffer
from blockyard.worker.buffers import ReceiveBuffer

_MASK = 0xFFFFFFFF
_PAGE = os.sysconf("SC_PAGE_SIZE")
_IOV_MAX = os.sysconf("SC_IOV_MAX")

# A SCSI command PDU with its CDB (RFC 7143 §11.3; SBC-4, READ and WRITE (10) and (16)): opcode, flags, AHS and data length |
# LUN | task tag | expected length | CmdSN | operation code and flags | LBA | (group) | length | (group and) control
_COMMAND_10 = Struct(">QQIII4xHIBHB6x").unpack_from
_COMMAND_16 = Struct(">QQIII4xHQIH").unpack_from
# The first eight bytes: not immediate, F with R or W, an attribute that asks for no order, no AHS; the data length is 0,
# or for a write still to be added (RFC 7143 §11.3.1)
_UNTAGGED_READ, _SIMPLE_READ = 0x01C0 << 48, 0x01C1 << 48
_PLAIN_WRITES = frozenset((0x01A0 << 48, 0x01A1 << 48))
_READ_10, _WRITE_10, _READ_16, _WRITE_16 = 0x2800, 0x2A00, 0x8800, 0x8A00
_FORM = bytearray(256)  # by operation code: 10 or 16 for what may be plain
_FORM[0x28] = _FORM[0x2A] = 10
_FORM[0x88] = _FORM[0x8A] = 16

# Data-In with status (RFC 7143 §11.7) and SCSI response (§11.4): opcode, flags, response, status, data length | LUN |
# task tag | transfer tag | StatSN | ExpCmdSN | MaxCmdSN | DataSN | offset | residual; the short form has zeros in the last three
_ANSWER = Struct(">Q8xIIIII12x").pack_into
_DATA_IN_PART = Struct(">Q8xIIIIIII4x").pack_into
_DATA_IN, _DATA_IN_FINAL, _DATA_IN_STATUS, _RESPONSE = (
    word << 32 for word in (0x25000000, 0x25800000, 0x25810000, 0x21800000)
)
_DIGEST = Struct("<I").unpack_from
_PACK_DIGEST = Struct("<I").pack_into
_NO_TAG = 0xFFFFFFFF


def pump(connection: Connection, rx: ReceiveBuffer, tx: TransmitBuffer) -> None:
    """Handle the PDUs in `rx` until no whole one is left or `tx` is full."""
    buffer = rx.memory
    while rx.end - rx.start >= BHS_LENGTH and tx.end < SEND_THRESHOLD:
        if _FORM[buffer[rx.start + 32]] and _answer_plain(connection, rx, tx):
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
    while end - at >= header_length and to < SEND_THRESHOLD and (form := _FORM[buffer[at + 32]]):
        if form == 16:
            head, to_lun, tag, length, cmd_sn, code, lba, count, tail = _COMMAND_16(buffer, at)
        else:
            head, to_lun, tag, length, cmd_sn, code, lba, tail, count, control = _COMMAND_10(buffer, at)
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
        next_cmd_sn, next_max = (cmd_sn + 1) & _MASK, (max_cmd_sn + 1) & _MASK
        if (code == _READ_16 or code == _READ_10) and (head == _SIMPLE_READ or head == _UNTAGGED_READ):
            if length > MAX_INLINE_READ:
                break
            if header_digest and _DIGEST(buffer, at + 48)[0] != crc32c(view[at : at + 48]):
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
                _ANSWER(out, to, _DATA_IN_STATUS | length, tag, _NO_TAG, stat_sn, next_cmd_sn, next_max)
                if digests:
                    after = _add_digests(out, out_view, to, data, after, header_digest, data_digest)
            to = after
            at += header_length
            reads += 1
            read_bytes += length
        elif code == _WRITE_16 or code == _WRITE_10:
            if head - length not in _PLAIN_WRITES or length > immediate_limit or not writable:
                break
            if (lba << shift | length) & (_PAGE - 1):
                break  # part of a page: it may have to be read first, and that may block
            data = at + header_length
            after = data + length
            next_at = after + 4 if data_digest else after
            if next_at > end:
                break
            if digests and not _intact(buffer, view, at, data, after, header_digest, data_digest):
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
            _ANSWER(out, to, _RESPONSE, tag, 0, stat_sn, next_cmd_sn, next_max)
            if header_digest:
                _add_digests(out, out_view, to, to + 52, to + 52, header_digest=True, data_digest=False)
            to += header_length
            at = next_at
            writes += 1
            written_bytes += length
        else:
            break
        exp_cmd_sn, max_cmd_sn, stat_sn = next_cmd_sn, next_max, (stat_sn + 1) & _MASK
    if reads or writes:
        rx.start, tx.end = at, to
        session.exp_cmd_sn, connection.stat_sn = exp_cmd_sn, stat_sn
        counters = unit.counters
        counters.read_ops += reads
        counters.read_bytes += read_bytes
        counters.write_ops += writes
        counters.write_bytes += written_bytes
    return reads + writes


def _intact(
    buffer: mmap, view: memoryview, at: int, data: int, after: int, header_digest: bool, data_digest: bool
) -> bool:
    """Whether the digests of the PDU at `at`, with its data at `data:after`, match."""
    if header_digest and _DIGEST(buffer, at + 48)[0] != crc32c(view[at : at + 48]):
        return False
    return not data_digest or _DIGEST(buffer, after)[0] == crc32c(view[data:after])


def _add_digests(
    out: mmap, view: memoryview, to: int, data: int, after: int, header_digest: bool, data_digest: bool
) -> int:
    """Put the digests of the PDU at `to` in their places; return where the next PDU goes."""
    if header_digest:
        _PACK_DIGEST(out, to + 48, crc32c(view[to : to + 48]))
    if data_digest:
        _PACK_DIGEST(out, after, crc32c(view[data:after]))
        return after + 4
    return after


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
            first_word, sn = _DATA_IN_STATUS, stat_sn
        else:
            first_word, sn = (_DATA_IN if (offset + end - start) % max_burst else _DATA_IN_FINAL), 0
        at = start - before
        _DATA_IN_PART(out, at, first_word | end - start, tag, _NO_TAG, sn, exp_cmd_sn, max_cmd_sn, number, offset)
        _add_digests(out, view, at, start, end, header_digest, data_digest)
    return places[-1][2] + (4 if data_digest else 0)
