"""READ and WRITE commands in their usual form, and the answers to them, as they stand on the wire: for the data path.

Numbers in it are whole words of PDUs, so that one comparison says of a command that there is nothing unusual about it.
"""

from __future__ import annotations

from mmap import mmap
from struct import Struct

from blockyard.iscsi.digest import crc32c

MASK = 0xFFFFFFFF

# A SCSI command PDU with its CDB (RFC 7143 §11.3; SBC-4, READ and WRITE (10) and (16)): opcode, flags, AHS and data length |
# LUN | task tag | expected length | CmdSN | operation code and flags | LBA | (group) | length | (group and) control
COMMAND_10 = Struct(">QQIII4xHIBHB6x").unpack_from
COMMAND_16 = Struct(">QQIII4xHQIH").unpack_from
# Likewise without the LUN, for READ and WRITE (6) of tapes (SSC-5): operation code and flags | length and control
COMMAND_6 = Struct(">Q8xIII4xHI").unpack_from
# The first eight bytes: not immediate, F with R or W, an attribute that asks for no order, no AHS; the data length is 0,
# or for a write still to be added (RFC 7143 §11.3.1)
UNTAGGED_READ, SIMPLE_READ = 0x01C0 << 48, 0x01C1 << 48
PLAIN_WRITES = frozenset((0x01A0 << 48, 0x01A1 << 48))
READ_10, WRITE_10, READ_16, WRITE_16 = 0x2800, 0x2A00, 0x8800, 0x8A00
READS_6, WRITE_6 = frozenset((0x0800, 0x0802)), 0x0A00  # one block of variable length, with SILI and without
FORM = bytearray(256)  # by operation code: the length of CDB for what may be plain
FORM[0x08] = FORM[0x0A] = 6
FORM[0x28] = FORM[0x2A] = 10
FORM[0x88] = FORM[0x8A] = 16

# Data-In with status (RFC 7143 §11.7) and SCSI response (§11.4): opcode, flags, response, status, data length | LUN |
# task tag | transfer tag | StatSN | ExpCmdSN | MaxCmdSN | DataSN | offset | residual; the short form has zeros in the last three
ANSWER = Struct(">Q8xIIIII12x").pack_into
DATA_IN_PART = Struct(">Q8xIIIIIII4x").pack_into
DATA_IN, DATA_IN_FINAL, DATA_IN_STATUS, RESPONSE = (
    word << 32 for word in (0x25000000, 0x25800000, 0x25810000, 0x21800000)
)
DIGEST = Struct("<I").unpack_from
PACK_DIGEST = Struct("<I").pack_into
NO_TAG = 0xFFFFFFFF


def intact(
    buffer: mmap, view: memoryview, at: int, data: int, after: int, header_digest: bool, data_digest: bool
) -> bool:
    """Whether the digests of the PDU at `at`, with its data at `data:after`, match."""
    if header_digest and DIGEST(buffer, at + 48)[0] != crc32c(view[at : at + 48]):
        return False
    return not data_digest or DIGEST(buffer, after)[0] == crc32c(view[data:after])


def add_digests(
    out: mmap, view: memoryview, to: int, data: int, after: int, header_digest: bool, data_digest: bool
) -> int:
    """Put the digests of the PDU at `to` in their places; return where the next PDU goes."""
    if header_digest:
        PACK_DIGEST(out, to + 48, crc32c(view[to : to + 48]))
    if data_digest:
        PACK_DIGEST(out, after, crc32c(view[data:after]))
        return after + 4
    return after
