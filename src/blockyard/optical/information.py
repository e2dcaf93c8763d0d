"""How far a disc is written: READ DISC INFORMATION, READ TRACK INFORMATION (MMC-6)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from blockyard.optical.disc import Disc
from blockyard.optical.kinds import PREGAP, Writing, msf
from blockyard.optical.layout import DATA, Form, Track
from blockyard.scsi.sense import Asc, CheckCondition, SenseKey, invalid_field

if TYPE_CHECKING:
    from blockyard.optical.drive import OpticalDrive
    from blockyard.scsi.task import Buffer, Task

_BY_LBA, _BY_TRACK, _BY_SESSION = range(3)  # ADDRESS TYPE
_INVISIBLE = 0xFF
_STANDARD, _POW_RESOURCES = 0, 2  # DISC INFORMATION DATA TYPE
_EMPTY, _APPENDABLE, _FINALIZED = 0, 1, 2  # DISC STATUS
_NO_SESSION, _INCOMPLETE, _COMPLETE = 0, 1, 3  # STATE OF LAST SESSION
_NONE = 0xFFFFFFFF
LEAD_IN = 4500  # blocks of a lead-in
LEAD_IN_START = bytes([97, 26, 66])  # of the first one, as a CD-R has it in its pregroove
_EMPTY_TRACK, _EMPTY_INCREMENTAL = 0x4F, 0x6F  # BLANK, PACKET where it is written in increments; DATA MODE: none
_DATA_MODES = {Form.AUDIO: 0xF, Form.MODE_1: 1, Form.MODE_2: 2, Form.XA: 2}
_BLANK_KIND = 0xFF  # DISC TYPE of what nothing is on
_FORMAT_DONE = 3  # BG FORMAT STATUS


class _State(NamedTuple):
    """What READ DISC INFORMATION says of sessions and tracks."""

    status: int
    last_session: int
    sessions: int
    first_track: int  # of the last session
    last_track: int


def _state(disc: Disc) -> _State:
    recorder, sessions, tracks = disc.recorder, len(disc.sessions), len(disc.tracks)
    if disc.unformatted:
        return _State(_EMPTY, _NO_SESSION, 1, 1, 1)
    if recorder is None or recorder.record.final or (recorder.space is None and recorder.open_session is None):
        return _State(_FINALIZED, _COMPLETE, sessions, disc.sessions[-1].tracks[0].number, tracks)
    last = tracks + (recorder.space is not None)
    if recorder.open_session is not None:
        return _State(_APPENDABLE, _INCOMPLETE, sessions, recorder.open_session.tracks[0].number, last)
    return _State(_APPENDABLE if sessions else _EMPTY, _NO_SESSION, sessions + 1, last, last)


def check_disc_information(drive: OpticalDrive, task: Task) -> None:
    if task.fields["data_type"] not in (_STANDARD, _POW_RESOURCES):  # no track resources: there is no limit to them
        raise invalid_field(1, 2)


def read_disc_information(drive: OpticalDrive, task: Task) -> Buffer:
    disc = drive.loaded()
    if task.fields["data_type"] == _POW_RESOURCES:
        if not disc.kind.pseudo_overwrite:
            raise invalid_field(1, 2)
        return struct.pack(">HBxIII", 14, _POW_RESOURCES << 5, *[disc.capacity // disc.kind.blocking] * 3)
    state = _state(disc)
    erasable = disc.kind.writing in (Writing.AGAIN, Writing.ANYWHERE)
    lead_in, lead_out = _leads(disc) if state.status != _FINALIZED else (_NONE, _NONE)
    identity = int(disc.record.identity, 16) if disc.record is not None and disc.kind.family == "cd" else 0
    plus_rw = disc.kind.name.startswith("dvd+rw") and not disc.unformatted
    return struct.pack(
        ">HBBBBBBBBBBIII8xBB",
        32,
        erasable << 4 | state.last_session << 2 | state.status,
        1,  # first track
        state.sessions & 0xFF,
        state.first_track & 0xFF,
        state.last_track & 0xFF,
        (identity > 0) << 7 | 0x20 | (_FORMAT_DONE if plus_rw else 0),  # DID_V; URU: it may be used for anything
        _disc_type(disc),
        state.sessions >> 8,
        state.first_track >> 8,
        state.last_track >> 8,
        identity,
        lead_in,
        lead_out,
        0,
        0,  # no OPC tables
    )


def _disc_type(disc: Disc) -> int:
    """CD-DA or CD-ROM, or CD-ROM XA; of other discs it says nothing."""
    if disc.kind.family != "cd":
        return 0
    if not disc.sessions:
        return _BLANK_KIND
    return 0x20 if any(track.form is Form.XA for track in disc.tracks) else 0


def _leads(disc: Disc) -> tuple[int, int]:
    """Where the lead-in of the last session would begin, and its lead-out at last. Of a CD, as MSF."""
    if disc.kind.family != "cd" or disc.recorder is None:
        return 0, 0
    space = disc.recorder.space
    if not disc.sessions or space is None or len(disc.sessions) == (disc.recorder.open_session is not None):
        begin = LEAD_IN_START
    else:
        begin = msf(space.start - PREGAP - LEAD_IN)
    return int.from_bytes(begin, "big"), int.from_bytes(msf(disc.capacity), "big")


# ---- READ TRACK INFORMATION


def check_track_information(drive: OpticalDrive, task: Task) -> None:
    if task.fields["address_type"] > _BY_SESSION:
        raise invalid_field(1, 1)


def read_track_information(drive: OpticalDrive, task: Task) -> Buffer:
    disc, fields = drive.loaded(), task.fields
    found = _found(disc, fields["address_type"], fields["address"])
    if found is None:
        return _space(disc)
    session = next(number for number, each in enumerate(disc.sessions, 1) if found in each.tracks)
    recorder = disc.recorder
    following = free = 0
    size = found.size
    if recorder is not None and not found.complete and found.planned is None:
        following = recorder.next_of(found)
        free = recorder.limit_of(found) - following
        size = recorder.limit_of(found) - found.start
    blank = found.end == found.start
    return _track(
        found.number, session, found.control, (found.planned or 0) > found.end,
        (found.reserved is not None and not found.complete) << 7 | blank << 6 | found.packet << 5
        | (found.fixed_packet > 0) << 4 | (_DATA_MODES[found.form] if not blank else 0xF),
        (not found.complete and found.planned is None) | (not blank) << 1,  # NWA_V, LRA_V
        found.start, following, free, found.fixed_packet, size, 0 if blank else found.end - 1,
    )  # fmt: skip


def _space(disc: Disc) -> Buffer:
    """The track that is not there yet."""
    assert disc.recorder is not None
    space = disc.recorder.space
    assert space is not None
    incremental = disc.kind.family != "cd"
    following = disc.recorder.rehearsed or space.start
    return _track(
        space.number, space.session, DATA, False,
        _EMPTY_INCREMENTAL if incremental else _EMPTY_TRACK,
        0x01, space.start, following, space.start + space.free - following,
        0, space.free, 0,
    )  # fmt: skip


def _track(
    number: int, session: int, mode: int, damaged: bool, state: int, valid: int, *places: int
) -> Buffer:  # fmt: skip
    """START, NEXT WRITABLE ADDRESS, FREE BLOCKS, PACKET SIZE, SIZE, LAST RECORDED ADDRESS are the `places`."""
    return struct.pack(
        ">HBBxBBBIIIIIIBBxxIII",
        46, number & 0xFF, session & 0xFF, damaged << 5 | mode, state, valid, *places, number >> 8, session >> 8, 0, 0, 0,
    )  # fmt: skip


def _found(disc: Disc, kind: int, address: int) -> Track | None:
    """The track that is asked for; None for the one that is not there yet."""
    space = None if disc.recorder is None else disc.recorder.space
    if disc.unformatted:
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.MEDIUM_NOT_FORMATTED)
    if kind == _BY_SESSION:
        if 1 <= address <= len(disc.sessions):
            return disc.sessions[address - 1].tracks[0]
        if space is not None and address == space.session:
            return None
        raise invalid_field(2)
    if kind == _BY_TRACK:
        return _by_number(disc, address)
    if space is not None and space.start <= address < space.start + space.free:
        return None
    track = disc.track_at(address)
    last = None if disc.recorder is None else disc.recorder.unfinished
    end = disc.capacity if last is not None else max(disc.blocks, track.limit if track is not None else 0)
    if track is None or not track.start <= address < end:
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE)
    return track


def _by_number(disc: Disc, number: int) -> Track | None:
    """0 is a lead-in, which is no track here; FFh is what is written next."""
    tracks = disc.tracks
    space = None if disc.recorder is None else disc.recorder.space
    if number == _INVISIBLE or (space is not None and number == space.number):
        if space is not None:
            return None
        unfinished = None if disc.recorder is None else disc.recorder.unfinished
        if unfinished is not None:
            return unfinished
    if not 1 <= number <= len(tracks):
        raise invalid_field(2)
    return tracks[number - 1]
