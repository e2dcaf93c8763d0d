"""Whole sectors of a CD-ROM, with what stands around the user data (ECMA-130 14 and annex A).

An image has the user data alone; the rest follows from that: synchronisation, header, error detection and correction codes.
"""

from __future__ import annotations

import struct

from blockyard.optical.kinds import BLOCK, msf
from blockyard.scsi.task import Buffer

SYNC = b"\0" + b"\xff" * 10 + b"\0"
_MODE_1 = 1
# the EDC is a CRC with the polynomial (x^16 + x^15 + x^2 + 1)(x^16 + x^2 + x + 1), least significant bit first
_POLYNOMIAL = 0xD8018001


def _edc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return tuple(table)


_EDC = _edc_table()
# GF(2^8) of the Reed-Solomon product code, with the polynomial x^8 + x^4 + x^3 + x^2 + 1
_DOUBLE = bytes(value << 1 ^ (0x11D if value & 0x80 else 0) for value in range(256))
_DIVIDE = bytearray(256)  # by x + 1
for _value in range(256):
    _DIVIDE[_value ^ _DOUBLE[_value]] = _value

# The codes see header and data as two planes of 16-bit words, in 24 rows of 43; P goes down columns, Q along diagonals.
_P = tuple(tuple(major + 86 * minor for minor in range(24)) for major in range(86))
_Q = tuple(
    tuple(((major >> 1) * 86 + (major & 1) + 88 * minor) % 2236 for minor in range(43)) for major in range(52)
)  # fmt: skip


def edc(data: Buffer) -> int:
    value = 0
    for byte in data:
        value = value >> 8 ^ _EDC[(value ^ byte) & 0xFF]
    return value


def _parity(data: Buffer, vectors: tuple[tuple[int, ...], ...]) -> bytes:
    """Two bytes of parity for each vector: first the one of all vectors, then the other."""
    first, second = bytearray(), bytearray()
    for vector in vectors:
        a = b = 0
        for at in vector:
            byte = data[at]
            a = _DOUBLE[a ^ byte]
            b ^= byte
        a = _DIVIDE[_DOUBLE[a] ^ b]
        first.append(a)
        second.append(a ^ b)
    return bytes(first + second)


def header(lba: int) -> bytes:
    """Address and mode: minute, second and frame in binary coded decimals."""
    return bytes(number // 10 << 4 | number % 10 for number in msf(lba)) + bytes([_MODE_1])


def error_codes(lba: int, data: bytes | bytearray) -> bytes:
    """EDC, eight zeros, P and Q parity of a mode 1 sector."""
    check = struct.pack("<I8x", edc(SYNC + header(lba) + data))
    seen = header(lba) + data + check
    p = _parity(seen, _P)
    return check + p + _parity(seen + p, _Q)


def select(lba: int, data: bytes | bytearray, fields: int) -> bytes:
    """The parts of the sector at `lba` that byte 9 of READ CD selects (MMC-6, main channel selection)."""
    assert len(data) == BLOCK
    parts = ((0x80, SYNC), (0x20, header(lba)), (0x10, data))
    chosen = b"".join(part for bit, part in parts if fields & bit)
    return chosen + (error_codes(lba, data) if fields & 0x08 else b"")
