"""How a volume key is kept under a passphrase: derived keys, the anti-forensic splitter, key areas (LUKS2 On-Disk Format, 3 and
4)."""

from __future__ import annotations

import errno
import hashlib
import os
from dataclasses import dataclass

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from blockyard.block.cipher.xts import UNIT, Xts

HASHES = ("sha1", "sha256", "sha384", "sha512")
_MOST_MEMORY = 4 << 20  # KiB, as in cryptsetup
_MOST_WORK = 1 << 32  # iterations
_XTS_KEYS = (32, 64)
PBKDF2, ARGON2ID = "pbkdf2", "argon2id"


class LuksError(OSError):
    """A header is damaged, or of a kind that cannot be used here. EINVAL, unless it says otherwise."""

    def __init__(self, text: str, code: int = errno.EINVAL) -> None:
        super().__init__(code, text)


@dataclass(frozen=True)
class Kdf:
    """How a key is derived of a passphrase."""

    kind: str  # PBKDF2 or ARGON2ID
    salt: bytes
    hash: str = "sha256"  # of PBKDF2
    time: int = 4  # iterations, or passes of Argon2
    memory: int = 0  # KiB
    lanes: int = 1

    def check(self) -> None:
        """Raises LuksError for what cannot be done, or would take all there is."""
        if self.kind == PBKDF2:
            if self.hash not in HASHES or not 0 < self.time < _MOST_WORK:
                raise LuksError(
                    f"A key slot uses PBKDF2 with {self.hash} and {self.time} iterations, which is not supported"
                )
        elif self.kind == ARGON2ID:
            if not (8 * self.lanes <= self.memory <= _MOST_MEMORY and 0 < self.time < 1 << 16 and 0 < self.lanes <= 64):
                raise LuksError(
                    f"A key slot uses Argon2 with {self.memory} KiB and {self.time} passes, which is not supported"
                )
        else:
            raise LuksError(f"A key slot uses {self.kind}: only pbkdf2 and argon2id are supported")
        if not 8 <= len(self.salt) <= 512:
            raise LuksError(f"A key slot has a salt of {len(self.salt)} bytes")

    def derive(self, passphrase: bytes, length: int) -> bytes:
        if self.kind == PBKDF2:
            return hashlib.pbkdf2_hmac(self.hash, passphrase, self.salt, self.time, length)
        derive = Argon2id(
            salt=self.salt, length=length, iterations=self.time, lanes=self.lanes, memory_cost=self.memory
        )
        return derive.derive(passphrase)


def new_kdf(kind: str, time: int, memory: int, lanes: int = 4) -> Kdf:
    """With a salt of its own; `memory` in KiB."""
    kdf = Kdf(kind, os.urandom(32), "sha256", time, memory if kind == ARGON2ID else 0, lanes if kind == ARGON2ID else 1)
    kdf.check()
    return kdf


@dataclass(frozen=True)
class Slot:
    """A key slot: where and how it keeps the volume key."""

    kdf: Kdf
    offset: int  # bytes, of its area
    key_size: int  # bytes of the volume key
    stripes: int
    hash: str  # of the splitter
    area_key_size: int = 64

    def check(self, start: int, end: int) -> None:
        """Raises LuksError unless it can be used, and lies between these bytes."""
        self.kdf.check()
        if self.hash not in HASHES or not 1 <= self.stripes <= 1 << 16 or self.key_size not in _XTS_KEYS:
            raise LuksError("A key slot is split in a way that is not supported")
        if self.area_key_size not in _XTS_KEYS:
            raise LuksError(f"A key slot is encrypted by a key of {self.area_key_size} bytes, which is not supported")
        if self.offset < start or self.offset % UNIT or self.offset + self.length > end:
            raise LuksError("A key slot lies outside of the area for key slots")

    @property
    def length(self) -> int:
        """Bytes of its area that are used."""
        return -(-self.key_size * self.stripes // UNIT) * UNIT

    def area_key(self, passphrase: bytes) -> bytes:
        return self.kdf.derive(passphrase, self.area_key_size)

    def open(self, area_key: bytes, area: bytes) -> bytes:
        """What may be the volume key: a digest says whether it is."""
        return merge(bytes(Xts(area_key, UNIT).decrypt(area, 0)), self.key_size, self.stripes, self.hash)

    def seal(self, area_key: bytes, volume_key: bytes) -> bytes:
        """What goes to the area."""
        data = split(volume_key, self.stripes, self.hash)
        return bytes(Xts(area_key, UNIT).encrypt(data.ljust(self.length, b"\0"), 0))


def digest(kdf: Kdf, volume_key: bytes, length: int) -> bytes:
    """What a volume key is known by."""
    return kdf.derive(volume_key, length)


# ---- the anti-forensic splitter: to lose any part of it is to lose the key


def split(key: bytes, stripes: int, hash: str) -> bytes:
    size, last, out = len(key), bytes(len(key)), bytearray()
    for _ in range(stripes - 1):
        stripe = os.urandom(size)
        out += stripe
        last = _diffuse(_xor(last, stripe), hash)
    return bytes(out + _xor(last, key))


def merge(data: bytes, size: int, stripes: int, hash: str) -> bytes:
    last = bytes(size)
    for at in range(0, size * (stripes - 1), size):
        last = _diffuse(_xor(last, data[at : at + size]), hash)
    return _xor(last, data[size * (stripes - 1) : size * stripes])


def _xor(one: bytes, other: bytes) -> bytes:
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).to_bytes(len(one), "big")


def _diffuse(data: bytes, hash: str) -> bytes:
    size = hashlib.new(hash).digest_size
    parts = (data[at : at + size] for at in range(0, len(data), size))
    return b"".join(
        hashlib.new(hash, number.to_bytes(4, "big") + part).digest()[: len(part)] for number, part in enumerate(parts)
    )
