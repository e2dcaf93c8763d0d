"""CD-TEXT: titles and performers in the lead-in of a CD, in packs of 18 bytes (MMC-6, READ TOC/PMA/ATIP format 5)."""

from __future__ import annotations

import binascii
import struct

TITLE, PERFORMER = 0x80, 0x81
_SIZES = 0x8F
_TEXT = 12  # bytes of text in a pack
_ENGLISH = 0x09
_MOST = 0xFF  # packs of a block

Texts = dict[int, dict[int, str]]  # kind of pack → track, 0 for the disc → text


def packs(texts: Texts, tracks: int) -> bytes:
    """The packs of one block in ISO 8859-1; none where there is no text."""
    made: list[tuple[int, int, int, bytes]] = []  # kind, track, characters that were before, text
    for kind, words in texts.items():
        if words:
            made += _pack(kind, [words.get(track, "") for track in range(tracks + 1)])
    if not made:
        return b""
    made = made[: _MOST - 3]
    counts = bytearray(16)
    for kind, *_ in made:
        counts[kind & 0xF] += 1
    counts[_SIZES & 0xF] = 3
    last = len(made) + 2
    sizes = struct.pack(">BBBB16s8s8s", 0, 1, tracks, 0, counts, bytes([last]) + bytes(7), bytes([_ENGLISH]) + bytes(7))
    made += [(_SIZES, number, 0, sizes[number * _TEXT : (number + 1) * _TEXT]) for number in range(3)]
    return b"".join(_sealed(bytes([kind, track, number, before & 0xF]) + text)
                    for number, (kind, track, before, text) in enumerate(made))  # fmt: skip


def _pack(kind: int, words: list[str]) -> list[tuple[int, int, int, bytes]]:
    """Texts one behind the other, each with a zero at its end; a pack names the track of its first character."""
    text, begins = b"", list[int]()
    for word in words:
        begins.append(len(text))
        text += word.encode("latin-1", "replace") + b"\0"
    found = []
    for at in range(0, len(text), _TEXT):
        track = max(number for number, begin in enumerate(begins) if begin <= at)
        found.append((kind, track, min(at - begins[track], 15), text[at : at + _TEXT].ljust(_TEXT, b"\0")))
    return found


def _sealed(data: bytes) -> bytes:
    return data + (~binascii.crc_hqx(data, 0) & 0xFFFF).to_bytes(2, "big")
