"""What is on a disc: READ TOC/PMA/ATIP, READ DISC INFORMATION, READ TRACK INFORMATION (MMC-6).

A session has one track, with its number: of data, mode 1. All discs are complete.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from blockyard.optical.disc import Disc
from blockyard.optical.kinds import CD, msf
from blockyard.scsi.sense import Asc, CheckCondition, SenseKey, invalid_field

if TYPE_CHECKING:
    from blockyard.optical.drive import OpticalDrive
    from blockyard.scsi.task import Buffer, Task

LEAD_OUT = 0xAA
_DATA_TRACK = 0x14  # ADR 1: Q sub-channel with position; CONTROL 4: data, recorded without interruption, no copies
_TABLE, _SESSIONS, _FULL, _PMA = range(4)  # FORMAT; 4, ATIP, is of blank discs only, 5, CD-TEXT, of audio
_BY_LBA, _BY_TRACK, _BY_SESSION = range(3)  # ADDRESS TYPE
_COMPLETE, _FINALIZED = 3, 2  # STATE OF LAST SESSION, DISC STATUS
_MODE_1 = 1


# ---- READ TOC/PMA/ATIP


def read_toc(drive: OpticalDrive, task: Task) -> Buffer:
    fields = task.fields
    disc = drive.loaded()
    wanted = fields["format"] or fields["legacy_format"]  # in the CONTROL byte, where ATAPI hosts had it (SFF-8020i)
    number, in_msf = fields["track_session"], bool(fields["msf"])
    if wanted == _TABLE:
        return _counted(bytes([1, len(disc.sessions)]) + _tracks(disc, number, in_msf=in_msf))
    if wanted == _SESSIONS:
        last = len(disc.sessions)
        first_track = _descriptor(last, _address(disc.sessions[-1].start, in_msf=in_msf))
        return _counted(bytes([1, last]) + first_track)
    if disc.kind is CD and wanted == _FULL:
        return _counted(bytes([1, len(disc.sessions)]) + _full(disc, number))
    if disc.kind is CD and wanted == _PMA:  # only discs that were written track by track have one
        return _counted(bytes(2))
    raise invalid_field(2, 3)


def _counted(data: bytes) -> bytes:
    """With the TOC DATA LENGTH before it."""
    return len(data).to_bytes(2, "big") + data


def _address(lba: int, *, in_msf: bool) -> bytes:
    return b"\0" + msf(lba) if in_msf else lba.to_bytes(4, "big")


def _descriptor(number: int, address: bytes) -> bytes:
    return bytes([0, _DATA_TRACK, number, 0]) + address


def _tracks(disc: Disc, first: int, *, in_msf: bool) -> bytes:
    """Tracks from `first` on, and the lead-out."""
    if first > len(disc.sessions) and first != LEAD_OUT:
        raise invalid_field(6)
    tracks = [(number, session.start) for number, session in enumerate(disc.sessions, 1) if number >= first]
    tracks.append((LEAD_OUT, disc.sessions[-1].end))
    return b"".join(_descriptor(number, _address(start, in_msf=in_msf)) for number, start in tracks)


def _full(disc: Disc, first: int) -> bytes:
    """The Q sub-channel of the lead-ins, from that of session `first` on: A0h, A1h, A2h and the tracks, then B0h."""
    if first > len(disc.sessions):
        raise invalid_field(6)
    found = []
    for number, session in enumerate(disc.sessions, 1):
        if number < first:
            continue
        points = [
            (0xA0, bytes([number, 0, 0])),  # first track, and CD-ROM as the disc type
            (0xA1, bytes([number, 0, 0])),  # last track
            (0xA2, msf(session.end)),
            (number, msf(session.start)),
        ]
        found += [bytes([number, _DATA_TRACK, 0, point, 0, 0, 0, 0]) + place for point, place in points]
        if number < len(disc.sessions):  # where the next one begins, and the last possible lead-out (MMC-6, mode 5 Q)
            begin = msf(disc.sessions[number].start)
            found.append(bytes([number, 0x54, 0, 0xB0]) + begin + b"\x01" + msf(CD.layers[0]))
    return b"".join(found)


# ---- READ DISC INFORMATION


def check_disc_information(drive: OpticalDrive, task: Task) -> None:
    if task.fields["data_type"]:  # track and POW resources are of BD-R
        raise invalid_field(1, 2)


def read_disc_information(drive: OpticalDrive, task: Task) -> Buffer:
    disc = drive.loaded()
    last = len(disc.sessions)
    return struct.pack(
        ">HBBBBBBB3xIII8xBB",
        32,
        disc.kind.writable << 4 | _COMPLETE << 2 | _FINALIZED,  # ERASABLE; a formatted disc is complete
        1,  # first track
        last,  # sessions
        last,  # first track of the last session
        last,  # last track
        0x20,  # URU: it may be used for anything
        0x00,  # DISC TYPE: CD-DA or CD-ROM; of others it says nothing
        0,  # DISC IDENTIFICATION: not valid
        0xFFFFFFFF,  # no lead-in can follow,
        0xFFFFFFFF,  # and no lead-out
        0,
        0,  # no OPC tables
    )


# ---- READ TRACK INFORMATION


def check_track_information(drive: OpticalDrive, task: Task) -> None:
    if task.fields["address_type"] > _BY_SESSION:
        raise invalid_field(1, 1)


def read_track_information(drive: OpticalDrive, task: Task) -> Buffer:
    disc, fields = drive.loaded(), task.fields
    number = _track_at(disc, fields["address_type"], fields["address"])
    session = disc.sessions[number - 1]
    return struct.pack(
        ">HBBxBBBIIIIIIBBxxIII",
        46,
        number & 0xFF,
        number & 0xFF,
        _DATA_TRACK & 0x0F,  # TRACK MODE; neither damaged nor a copy
        _MODE_1,  # DATA MODE; not blank, not reserved, no packets
        0x02,  # LRA_V
        session.start,
        0,
        0,  # nothing is free
        0,
        session.end - session.start,
        session.end - 1,  # LAST RECORDED ADDRESS
        0,
        0,
        0,
        0,
        0,
    )


def _track_at(disc: Disc, kind: int, address: int) -> int:
    if kind != _BY_LBA:
        if (
            not 1 <= address <= len(disc.sessions)
        ):  # 0 is a lead-in, FFh what comes after: complete discs have no such track
            raise invalid_field(2)
        return address
    for number, session in reversed([*enumerate(disc.sessions, 1)]):
        if session.start <= address < disc.blocks:
            return number
    raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE)
