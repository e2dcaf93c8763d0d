"""The numbers of the NBD protocol, and how its headers are laid out.

Source: "The NBD protocol", doc/proto.md of the Network Block Device project; section names below are its own. All numbers on
the wire are big-endian.
"""

from __future__ import annotations

import errno
from enum import IntEnum, IntFlag
from struct import Struct

PORT = 10809  # registered with IANA

# ---- the handshake (Handshake phase, fixed newstyle)

GREETING = Struct(">QQH")  # NBDMAGIC, IHAVEOPT, handshake flags
INIT_MAGIC, OPTION_MAGIC, OPTION_REPLY_MAGIC = 0x4E42444D41474943, 0x49484156454F5054, 0x0003E889045565A9
FIXED_NEWSTYLE, NO_ZEROES = 1, 2  # handshake flags, and those of the client's answer
OPTION = Struct(">QII")  # IHAVEOPT, option, length of its data
OPTION_REPLY = Struct(">QIII")  # magic, option, type, length of its data
EXPORT = Struct(">QH")  # size, transmission flags
BLOCK_SIZES = Struct(">III")  # minimum, preferred, largest payload


class Option(IntEnum):
    EXPORT_NAME = 1
    ABORT = 2
    STARTTLS = 5
    GO = 7
    STRUCTURED_REPLY = 8
    SET_META_CONTEXT = 10


class Reply(IntEnum):
    """To an option; those with the highest bit are refusals."""

    ACK = 1
    INFO = 3
    META_CONTEXT = 4


REFUSED = 1 << 31
REFUSALS = {
    REFUSED + 1: "it does not know that option",
    REFUSED + 2: "its administrator forbids it",
    REFUSED + 3: "it finds the request wrong",
    REFUSED + 4: "it cannot do that where it runs",
    REFUSED + 5: "it demands TLS",
    REFUSED + 6: "it has no such export",
    REFUSED + 7: "it is shutting down",
    REFUSED + 8: "it demands that block sizes be kept",
    REFUSED + 9: "it finds the request too big",
}


class Info(IntEnum):
    EXPORT = 0
    BLOCK_SIZE = 3


# ---- transmission


class Flag(IntFlag):
    """What an export has (Transmission flags)."""

    HAS_FLAGS = 1
    READ_ONLY = 2
    SEND_FLUSH = 4
    ROTATIONAL = 16
    SEND_TRIM = 32
    SEND_WRITE_ZEROES = 64
    CAN_MULTI_CONN = 256
    SEND_CACHE = 1024


class Command(IntEnum):
    READ = 0
    WRITE = 1
    DISC = 2
    FLUSH = 3
    TRIM = 4
    CACHE = 5
    WRITE_ZEROES = 6
    BLOCK_STATUS = 7


NO_HOLE = 2  # flag of WRITE_ZEROES: the space stays allocated
REQUEST = Struct(">IHHQQI")  # magic, flags, command, cookie, offset, length
REQUEST_MAGIC = 0x25609513
SIMPLE = Struct(">IIQ")  # magic, error, cookie
SIMPLE_MAGIC = 0x67446698
CHUNK = Struct(">IHHQI")  # magic, flags, type, cookie, length of what follows
CHUNK_MAGIC = 0x668E33EF
DONE = 1  # flag of the last chunk of a reply


class Chunk(IntEnum):
    """Types of structured reply chunks; those with the bit ERROR are errors."""

    NONE = 0
    OFFSET_DATA = 1
    OFFSET_HOLE = 2
    BLOCK_STATUS = 5


ERROR_CHUNK = 1 << 15
DATA_CHUNK = Struct(">Q")  # offset, before the data
HOLE_CHUNK = Struct(">QI")  # offset, length
ERROR_HEAD = Struct(">IH")  # error, length of a text
EXTENT = Struct(">II")  # length, status
ALLOCATION = b"base:allocation"
HOLE, ZERO = 1, 2  # its status bits: takes no space; reads as zeros

MAX_PAYLOAD = 32 << 20  # of a request or a reply, where the server says nothing else (Size constraints)
SHUTDOWN = 108  # an error: the server is going away

# what its errors mean to the layers above (Error values); all others are EIO
ERRNOS = {1: errno.EROFS, 12: errno.ENOMEM, 28: errno.ENOSPC, 95: errno.EOPNOTSUPP}


class ProtocolError(OSError):
    """The server breaks the rules, or refuses what this client cannot do without. The connection is of no use any more."""

    def __init__(self, what: str) -> None:
        super().__init__(errno.EPROTO, what)
