"""What stands before the cipher text of an encrypted block (docs/tape-format.md): all that can be known of it without its key."""

from __future__ import annotations

import errno
import struct
from typing import NamedTuple

from blockyard.media.record import MAX_SEALING, Sealed
from blockyard.scsi.sense import ReadFailure

UNAUTHENTICATED, AUTHENTICATED = 0, 1  # types of key-associated data (SSC-5)
MOST_ASSOCIATED = {UNAUTHENTICATED: 32, AUTHENTICATED: 12}  # bytes, as LTO drives have it
SALT, CHECK = 16, 8  # bytes

_HEAD = struct.Struct("<BxH16s8sQ")  # flags, bytes of key-associated data, salt, check, counter
_NOT_RAW = 0x01
_TAG = 16
_ASSOCIATED = struct.Struct(">BxH")  # as in the pages of SSC-5


class Associated(NamedTuple):
    """Key-associated data: what a host writes beside a block to know its key again."""

    kind: int
    data: bytes


class Envelope(NamedTuple):
    """What can be known of a sealed block without its key."""

    raw: bool  # it may be read as it is stored
    associated: tuple[Associated, ...]
    salt: bytes
    check: bytes
    counter: int
    length: int = 0  # of all this, as it is stored


def envelope(sealed: Sealed) -> Envelope:
    """Raises ReadFailure, EBADMSG, for what is none."""
    try:
        flags, size, salt, check, counter = _HEAD.unpack_from(sealed.stored)
        associated = tuple(_associated(sealed.stored[_HEAD.size : _HEAD.size + size], size))
    except (struct.error, ValueError) as error:
        raise ReadFailure(errno.EBADMSG, "The head of an encrypted block is damaged") from error
    return Envelope(not flags & _NOT_RAW, associated, salt, check, counter, _HEAD.size + size)


def _associated(data: bytes, size: int) -> list[Associated]:
    if len(data) != size:
        raise ValueError("it is too short")
    found, at = [], 0
    while at < size:
        kind, length = _ASSOCIATED.unpack_from(data, at)
        at += _ASSOCIATED.size + length
        if at > size:
            raise ValueError("it is too short")
        found.append(Associated(kind, data[at - length : at]))
    return found


def encode(head: Envelope) -> bytes:
    """All that stands before the cipher text."""
    beside = b"".join(_ASSOCIATED.pack(one.kind, len(one.data)) + one.data for one in head.associated)
    return _HEAD.pack(0 if head.raw else _NOT_RAW, len(beside), head.salt, head.check, head.counter) + beside


assert _HEAD.size + sum(_ASSOCIATED.size + most for most in MOST_ASSOCIATED.values()) + _TAG <= MAX_SEALING
