"""READ TOC/PMA/ATIP (MMC-6): what the lead-ins of a disc say, and its pregroove."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard.optical.disc import Disc
from blockyard.optical.information import LEAD_IN_START
from blockyard.optical.kinds import CD_R, msf
from blockyard.optical.layout import Form, Session, Track
from blockyard.scsi.sense import invalid_field

if TYPE_CHECKING:
    from blockyard.optical.drive import OpticalDrive
    from blockyard.scsi.task import Buffer, Task

LEAD_OUT = 0xAA
_ADR = 0x1  # Q sub-channel with position
_TABLE, _SESSIONS, _FULL, _PMA, _ATIP, _TEXT = range(6)  # FORMAT
_OF_CD = (_FULL, _PMA, _ATIP, _TEXT)
_XA_DISC = 0x20  # PSEC of A0h


def read_toc(drive: OpticalDrive, task: Task) -> Buffer:
    fields = task.fields
    disc = drive.loaded()
    wanted = fields["format"] or fields["legacy_format"]  # in the CONTROL byte, where ATAPI hosts had it (SFF-8020i)
    number, in_msf = fields["track_session"], bool(fields["msf"])
    sessions = [session for session in disc.sessions if session.closed]
    if wanted > _TEXT or (wanted in _OF_CD and disc.kind.family != "cd"):
        raise invalid_field(2, 3)
    if wanted == _PMA:
        return _counted(bytes(2) + _pma(disc))
    if wanted == _ATIP and disc.record is not None:
        return _counted(_atip(disc))
    if wanted == _TEXT and disc.text.packs:
        return _counted(bytes(2) + disc.text.packs)
    if wanted in (_ATIP, _TEXT) or not sessions:
        raise invalid_field(2, 3)
    if wanted == _TABLE:
        last = sessions[-1].tracks[-1].number
        return _counted(bytes([1, min(last, 0xFF)]) + _tracks(sessions, number, in_msf=in_msf))
    if wanted == _SESSIONS:
        first = sessions[-1].tracks[0]
        entry = _descriptor(first.control, first.number, _address(first.start, in_msf=in_msf))
        return _counted(bytes([1, min(len(sessions), 0xFF)]) + entry)
    return _counted(bytes([1, len(sessions)]) + _full(disc, sessions, number))


def _counted(data: bytes) -> bytes:
    """With the TOC DATA LENGTH before it."""
    return len(data).to_bytes(2, "big") + data


def _address(lba: int, *, in_msf: bool) -> bytes:
    return b"\0" + msf(lba) if in_msf else lba.to_bytes(4, "big")


def _descriptor(control: int, number: int, address: bytes) -> bytes:
    return bytes([0, _ADR << 4 | control, number & 0xFF, 0]) + address


def _tracks(sessions: list[Session], first: int, *, in_msf: bool) -> bytes:
    """Tracks from `first` on, and the lead-out."""
    tracks = [track for session in sessions for track in session.tracks]
    if first > tracks[-1].number and first != LEAD_OUT:
        raise invalid_field(6)
    found = [(track.control, track.number, track.start) for track in tracks if track.number >= first]
    found.append((tracks[-1].control, LEAD_OUT, sessions[-1].end))
    return b"".join(_descriptor(control, number, _address(start, in_msf=in_msf)) for control, number, start in found)


def _full(disc: Disc, sessions: list[Session], first: int) -> bytes:
    """The Q sub-channel of the lead-ins, from that of session `first` on: A0h, A1h, A2h and the tracks, then B0h and C0h."""
    if first > len(sessions):
        raise invalid_field(6)
    found = []
    for number, session in enumerate(sessions, 1):
        if number < first:
            continue
        tracks = session.tracks
        kind = _XA_DISC if any(track.form is Form.XA for track in tracks) else 0
        found += [
            _point(number, tracks[0].control, 0xA0, bytes([tracks[0].number, kind, 0])),  # first track, disc type
            _point(number, tracks[-1].control, 0xA1, bytes([tracks[-1].number, 0, 0])),
            _point(number, tracks[-1].control, 0xA2, msf(session.end)),
            *(_point(number, track.control, track.number, msf(track.start)) for track in tracks),
        ]
        found += _what_follows(disc, sessions, number)
    return b"".join(found)


def _point(session: int, control: int, point: int, place: bytes) -> bytes:
    return bytes([session, _ADR << 4 | control, 0, point, 0, 0, 0, 0]) + place


def _what_follows(disc: Disc, sessions: list[Session], number: int) -> list[bytes]:
    """Mode 5 Q of a session that another one follows, or may: where that begins, and the last possible lead-out."""
    space = None if disc.recorder is None else disc.recorder.space
    if number < len(sessions):
        begin = sessions[number].start
    elif space is not None:
        begin = space.start
    else:
        return []
    last = CD_R.sizes[0][1] if disc.record is None else disc.capacity
    last = max(last, disc.blocks)
    found = [bytes([number, 0x54, 0, 0xB0]) + msf(begin) + b"\x01" + msf(last)]
    if number == 1 and disc.record is not None:  # where the first lead-in begins
        found.append(bytes([number, 0x54, 0, 0xC0, 0, 0, 0, 0]) + LEAD_IN_START)
    return found


def _pma(disc: Disc) -> bytes:
    """What is noted of tracks before a lead-in is written: begin and end. Only discs that were burned have one."""
    if disc.record is None:
        return b""
    return b"".join(_noted(track) for track in disc.tracks if track.complete)


def _noted(track: Track) -> bytes:
    return bytes([0, _ADR << 4 | track.control, 0, track.number]) + msf(track.end) + b"\0" + msf(track.start)


def _atip(disc: Disc) -> bytes:
    """The pregroove of a CD-R or CD-RW: its kind, where the lead-in begins, and where the lead-out must."""
    rewritable = disc.record is not None and disc.record.kind == "cd-rw"
    head = bytes([0, 0, 0xC0, 0x40, 0x80 | rewritable << 6, 0])  # write power; URU
    return head + LEAD_IN_START + b"\0" + msf(disc.capacity) + bytes(13)
