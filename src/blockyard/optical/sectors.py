"""Whole sectors of a CD, with what stands around the user data (ECMA-130 14 and annex A), and the sub-channels Q and P.

An image may have the user data alone; the rest follows from that: synchronisation, header, error detection and correction codes.
"""

from __future__ import annotations

import binascii
import re
import struct
from enum import IntEnum
from typing import NamedTuple

from blockyard.optical.kinds import BLOCK, PREGAP, msf
from blockyard.optical.layout import WHOLE, Form, Track
from blockyard.scsi.task import Buffer


class SectorType(IntEnum):
    """EXPECTED SECTOR TYPE of READ CD."""

    ANY = 0
    AUDIO = 1
    MODE_1 = 2
    MODE_2 = 3
    FORM_1 = 4
    FORM_2 = 5


_HEADER, _SUB_HEADER, _MODE_2_DATA = 4, 8, 2336
_FORM_BIT = 0x20  # of the submode byte: form 2
_FORM_1 = b"\0\0\x08\0" * 2  # sub-header of data in form 1, twice

_CODE_EVERY = 50  # sectors: so there is one in a hundred, even where one has to stand back for an index
_ISRC_AT, _CATALOG_AT = 2, 27  # which of these
_CATALOG, _ISRC = re.compile(r"[0-9]{13}\Z"), re.compile(r"[0-9A-Z]{5}[0-9]{7}\Z")

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


def header(lba: int, mode: int = _MODE_1) -> bytes:
    """Address and mode: minute, second and frame in binary coded decimals."""
    return bytes(map(bcd, msf(lba))) + bytes([mode])


def bcd(number: int) -> int:
    """A number up to 99 in binary coded decimals."""
    return number // 10 << 4 | number % 10


def error_codes(lba: int, data: bytes | bytearray) -> bytes:
    """EDC, eight zeros, P and Q parity of a mode 1 sector."""
    check = struct.pack("<I8x", edc(SYNC + header(lba) + data))
    seen = header(lba) + data + check
    p = _parity(seen, _P)
    return check + p + _parity(seen + p, _Q)


def _form_1_codes(data: bytes) -> bytes:
    """EDC, P and Q parity of mode 2 form 1, over sub-header and data; the codes see a header of zeros (CD-ROM XA)."""
    check = struct.pack("<I", edc(data))
    seen = bytes(4) + data + check
    p = _parity(seen, _P)
    return check + p + _parity(seen + p, _Q)


class Sector(NamedTuple):
    """A sector taken apart (MMC-6, READ CD)."""

    kind: SectorType
    sync: bytes
    header: bytes
    sub_header: bytes
    data: bytes
    codes: bytes


def user_data(track: Track, stored: bytearray) -> bytearray:
    """The 2048 bytes of user data of each of some sectors, as they are in the file of their track."""
    stride = track.stride
    if stride == BLOCK:
        return stored
    begin = stride - WHOLE + (len(SYNC) + _HEADER + (_SUB_HEADER if track.form is Form.XA else 0))
    data = bytearray()
    for at in range(0, len(stored), stride):
        data += stored[at + begin : at + begin + BLOCK]
    return data


def sector(track: Track, lba: int, stored: bytes) -> Sector:
    """The whole of a sector of which these bytes are in the file; none where it is zeros."""
    form, begin = track.form, WHOLE - track.stride
    if form is Form.AUDIO:
        return Sector(SectorType.AUDIO, b"", b"", b"", stored or bytes(WHOLE), b"")
    top = stored[: len(SYNC) + _HEADER] if stored and not begin else SYNC + header(lba, 1 if form is Form.MODE_1 else 2)
    sync, head = top[: len(SYNC)], top[len(SYNC) :]
    rest = stored[len(SYNC) + _HEADER - begin :] if track.stride != BLOCK else b""
    if form is Form.MODE_1:
        if rest:
            return Sector(SectorType.MODE_1, sync, head, b"", rest[:BLOCK], rest[BLOCK:])
        data = stored or bytes(BLOCK)
        return Sector(SectorType.MODE_1, sync, head, b"", data, error_codes(lba, data))
    if form is Form.MODE_2:
        return Sector(SectorType.MODE_2, sync, head, b"", rest or bytes(_MODE_2_DATA), b"")
    if not rest:
        data = stored or bytes(BLOCK)
        return Sector(SectorType.FORM_1, sync, head, _FORM_1, data, _form_1_codes(_FORM_1 + data))
    if rest[2] & _FORM_BIT:  # its EDC counts as data, as drives give it (MMC-6, READ CD)
        return Sector(SectorType.FORM_2, sync, head, rest[:_SUB_HEADER], rest[_SUB_HEADER:], b"")
    at = _SUB_HEADER + BLOCK
    return Sector(SectorType.FORM_1, sync, head, rest[:_SUB_HEADER], rest[_SUB_HEADER:at], rest[at:])


def select(whole: Sector, fields: int) -> bytes:
    """The parts of a sector that byte 9 of READ CD selects (MMC-6, main channel selection)."""
    parts = (
        (0x80, whole.sync),
        (0x20, whole.header),
        (0x40, whole.sub_header),
        (0x10, whole.data),
        (0x08, whole.codes),
    )
    return b"".join(part for bit, part in parts if fields & bit)


def _q(mode: int, track: Track, data: bytes) -> bytes:
    """CONTROL and ADR, what is told, and the CRC of both (ECMA-130 22.3)."""
    q = bytes([track.control << 4 | mode]) + data
    return q + (~binascii.crc_hqx(q, 0) & 0xFFFF).to_bytes(2, "big")


def q_channel(track: Track, lba: int) -> bytes:
    """The Q sub-channel of a sector, with its position (ADR 1): ten bytes, and their CRC."""
    index = 0 if lba < track.start else 1 + sum(lba >= begin for begin in track.indexes)
    relative = abs(lba - track.start) - (lba < track.start)
    places = bytes(map(bcd, msf(relative - PREGAP))) + b"\0" + bytes(map(bcd, msf(lba)))
    return _q(1, track, bytes([bcd(track.number), bcd(index)]) + places)


def q_as_recorded(track: Track, lba: int, catalog: str) -> bytes:
    """The Q sub-channel as it is on the disc: one sector of a hundred at least has a code in the place of its position.

    These are the media catalog number (ADR 2) and, in audio tracks and their pregaps, the ISRC (ADR 3; IEC 60908). Where an index
    begins, the position stands in any case, as whoever looks for it goes by that. The ISRC comes soon after: programs that read
    some sectors twice ascribe to a track what they see first.
    """
    at = (lba - track.first) % _CODE_EVERY
    frame = bytes([bcd(msf(lba)[2])])
    if lba in (track.start, *track.indexes):
        return q_channel(track, lba)
    if at == _CATALOG_AT and _CATALOG.match(catalog):
        return _q(2, track, bytes.fromhex(catalog + "000") + frame)
    if at == _ISRC_AT and not track.form.is_data and _ISRC.match(track.isrc):
        return _q(3, track, _isrc(track.isrc) + frame)
    return q_channel(track, lba)


def _isrc(text: str) -> bytes:
    """Five characters of six bits, two zeros, seven decimals of four bits, four zeros."""
    value = 0
    for character in text[:5]:
        value = value << 6 | ord(character) - ord("0")
    return (value << 34 | int(text[5:], 16) << 4).to_bytes(8, "big")


def raw_sub_channels(q: bytes, *, paused: bool) -> bytes:
    """P to W of a sector, 96 bytes: a bit of each channel in each byte, P in the highest. P says the pause before a track."""
    bits = "".join(f"{byte:08b}" for byte in q)
    return bytes(paused << 7 | (bit == "1") << 6 for bit in bits)
