"""Blank discs in a drive, and what burning programs send."""

from __future__ import annotations

import struct
from pathlib import Path

from blockyard.optical.kinds import BLANKS
from blockyard.optical.record import make
from tests.optical.drives import DriveHost, drive, host
from tests.scsi.host import mode_select_10, mode_sense_10

SYNCHRONIZE = bytes([0x35]) + bytes(9)
PACKET, TRACK_AT_ONCE, SESSION_AT_ONCE = 0, 1, 2
FURTHER = 3  # MULTI-SESSION


def blank_disc(path: Path, kind: str, capacity: int = 0) -> Path:
    make(path, kind, capacity or BLANKS[kind].sizes[0][1])
    return path


def burner(path: Path, kind: str, capacity: int = 0) -> DriveHost:
    """A host with a blank disc in its drive."""
    return host(drive(blank_disc(path, kind, capacity)))


def parameters(one: DriveHost, **fields: int) -> None:
    """MODE SELECT of the write parameters: what they are, changed by `fields`."""
    page = bytearray(one.ok(mode_sense_10(0x05))[8:])
    page[0] &= 0x3F
    page[2] = page[2] & 0xE0 | fields.get("test", 0) << 4 | fields.get("write_type", TRACK_AT_ONCE)
    page[3] = fields.get("multi_session", 0) << 6 | fields.get("track_mode", 4)
    page[4] = fields.get("block_type", 8)
    one.ok(mode_select_10(8 + len(page)), bytes(8) + bytes(page))


def write(lba: int, count: int) -> bytes:
    return struct.pack(">BxixHx", 0x2A, lba, count)


def read(lba: int, count: int) -> bytes:
    return struct.pack(">BxIxHx", 0x28, lba, count)


def close(function: int, track: int = 0) -> bytes:
    return struct.pack(">BBBxH4x", 0x5B, 0, function, track)


def blank(kind: int, address: int = 0) -> bytes:
    return struct.pack(">BBI6x", 0xA1, kind, address)


def reserve(size: int) -> bytes:
    return struct.pack(">B4xIx", 0x53, size)


def format_unit(kind: int, size: int = 0) -> tuple[bytes, bytes]:
    return bytes([0x04, 0x11, 0, 0, 0, 0]), struct.pack(">BBHIBxxx", 0, 0x82, 8, size, kind << 2)


def cue_sheet(*lines: tuple[int, int, int, int, bytes]) -> tuple[bytes, bytes]:
    """Lines of CTL and ADR, track, index, data form, MSF."""
    data = b"".join(bytes([control, track, index, form, 0]) + place for control, track, index, form, place in lines)
    return struct.pack(">B5x", 0x5D) + len(data).to_bytes(3, "big") + b"\0", data


def next_writable(one: DriveHost) -> tuple[int, int]:
    """What READ TRACK INFORMATION says of the track that is written next: its address and the free blocks."""
    data = one.ok(struct.pack(">BBIxHx", 0x52, 1, 0xFF, 4096))
    assert data[7] & 1
    following, free = struct.unpack_from(">II", data, 12)
    return following, free
