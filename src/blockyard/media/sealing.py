"""Blocks that are encrypted: AES-256-GCM with a key of the host, which is never written anywhere (docs/tape-format.md).

Each setting of a key has a salt of its own, from which and from the key the key of the cipher is derived (RFC 5869). So
the nonce can be a counter: nonces of one key are never the same, however many blocks are written with it on however many
cartridges (NIST SP 800-38D §8.3 allows no more than 2^32 random ones). A check value that is derived too tells
a wrong key from a damaged block.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from blockyard.block import codec
from blockyard.media.envelope import CHECK, SALT, Associated, Envelope, encode, envelope
from blockyard.media.record import Sealed

_KEY_LENGTH = 32

_BOUND = struct.Struct("<BIQ")  # of the record: codec, length, number
_INFO = b"blockyard tape block"
_OPENED = 16  # salts whose keys are kept


class Key:
    """A key, set in a drive. Used by one thread at a time."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._salt = os.urandom(SALT)
        self._derived: dict[bytes, tuple[AESGCM, bytes]] = {}
        self._counter = 0

    def _derive(self, salt: bytes) -> tuple[AESGCM, bytes]:
        """The cipher for a salt, and what the check says where it is the right one."""
        found = self._derived.get(salt)
        if found is None:
            made = HKDF(hashes.SHA256(), _KEY_LENGTH + CHECK, salt, _INFO).derive(self._secret)
            found = AESGCM(made[:_KEY_LENGTH]), made[_KEY_LENGTH:]
            if len(self._derived) >= _OPENED:
                self._derived.clear()
            self._derived[salt] = found
        return found

    def fits(self, head: Envelope) -> bool:
        """Whether a block was encrypted with this key."""
        return self._derive(head.salt)[1] == head.check

    def seal(
        self, kind: int, data: bytes | bytearray | memoryview, length: int, number: int, *,
        associated: Sequence[Associated] = (), raw: bool = True,
    ) -> bytes:  # fmt: skip
        """What to store for the object `number`, a block of this length that the codec `kind` has made to `data`."""
        cipher, check = self._derive(self._salt)
        counter, self._counter = self._counter, self._counter + 1
        head = encode(Envelope(raw, tuple(associated), self._salt, check, counter))
        bound = head + _BOUND.pack(kind, length, number)
        return head + cipher.encrypt(_nonce(counter), data, bound)

    def open(self, sealed: Sealed) -> bytes:
        """The block. Raises OSError; EKEYREJECTED where it was encrypted with another key, EBADMSG where it is damaged."""
        head = envelope(sealed)
        cipher, check = self._derive(head.salt)
        if check != head.check:
            raise OSError(errno.EKEYREJECTED, "The block is encrypted with another key")
        view = memoryview(sealed.stored)
        bound = b"".join((view[: head.length], _BOUND.pack(sealed.codec, sealed.length, sealed.number)))
        try:
            data = cipher.decrypt(_nonce(head.counter), view[head.length :], bound)
        except (InvalidTag, ValueError) as error:
            raise OSError(errno.EBADMSG, "The encrypted block is not what was written") from error
        return codec.decompress(sealed.codec, data, sealed.length)


def _nonce(counter: int) -> bytes:
    return counter.to_bytes(12, "little")
