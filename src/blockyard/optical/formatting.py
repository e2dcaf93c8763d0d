"""What makes a disc ready to be written, or once more so (MMC-6): FORMAT UNIT, READ FORMAT CAPACITIES, BLANK."""

from __future__ import annotations

import contextlib
import errno
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from blockyard.optical.burning import recorder_of
from blockyard.optical.kinds import BLOCK, Writing
from blockyard.optical.layout import Session
from blockyard.optical.recorder import Recorder
from blockyard.scsi.sense import (
    Asc,
    CheckCondition,
    SenseKey,
    invalid_field,
    invalid_parameter,
    parameter_list_length_error,
)

if TYPE_CHECKING:
    from blockyard.optical.disc import Disc
    from blockyard.optical.drive import OpticalDrive
    from blockyard.scsi.task import Buffer, Task

_LIST = 12  # bytes: header and one format descriptor
_FULL = 0x00
# FORMAT TYPEs of each kind, and what their descriptors say besides the size: blocks of a packet or of an ECC block
FORMATS: dict[str, dict[int, int]] = {
    "cd-rw": {0x10: 32},
    "dvd-rw": {0x00: 16, 0x10: 16, 0x15: 16},
    "dvd-ram": {0x00: BLOCK, 0x01: 0},
    "dvd+rw": {0x26: 0, 0x00: 0},
    "dvd+rw-dl": {0x26: 0, 0x00: 0},
    "bd-r": {0x00: 0, 0x32: 0},  # in order (SRM), as it comes, with POW or without
    "bd-re": {0x00: 0, 0x30: 0, 0x31: 0},
}
_POW, _NO_POW = 0, 1  # FORMAT SUB-TYPE of a BD-R; random recording (RRM) is not there
_UNFORMATTED, _FORMATTED, _NO_MEDIUM = 1, 2, 3  # DESCRIPTOR TYPE
# BLANKING TYPE
_DISC, _MINIMAL, _BLANK_TRACK, _UNRESERVE, _TAIL, _UNCLOSE, _SESSION = range(7)


def format_list(fields: dict[str, int], block_size: int) -> int:
    """The Data-Out of FORMAT UNIT."""
    return _LIST if fields["fmtdata"] else 0


def format_unit(drive: OpticalDrive, task: Task) -> Buffer:
    """Any block can be written then. What is formatted stays as it is, with what is on it (MMC-6: contents are not specified)."""
    data, disc = bytes(task.data_out), drive.loaded()
    drive.check_same_medium(task)
    formats = FORMATS.get(disc.kind.name, {})
    if not formats:
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.CANNOT_WRITE_MEDIUM_INCOMPATIBLE_FORMAT)
    if task.fields["fmtdata"]:
        _check_list(data, disc, formats)
    if disc.kind.writing is Writing.ONCE and not disc.blank:
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.COMMAND_SEQUENCE_ERROR)
    if disc.kind.writing is Writing.ONCE:
        with disc.recording():
            disc.formatted_in_order(pseudo_overwrite=len(data) >= _LIST and data[8] & 0x3 == _POW)
    elif disc.record is not None and not disc.record.formatted:
        with disc.recording(), _sole():
            disc.formatted()
    task.effect = drive.recorded
    return b""


@contextlib.contextmanager
def _sole() -> Iterator[None]:
    """A disc that is closed can be in other drives: then it is not taken from under their hosts."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise CheckCondition(SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED) from error
        raise


def _check_list(data: bytes, disc: Disc, formats: dict[int, int]) -> None:
    if len(data) < _LIST:
        raise parameter_list_length_error()
    kind, size = data[8] >> 2, int.from_bytes(data[4:8], "big")
    if kind not in formats:
        raise invalid_parameter(8, 7)
    if disc.kind.writing is Writing.ONCE and data[8] & 0x3 > _NO_POW:
        raise invalid_parameter(8, 1)
    if (size not in (0, disc.capacity)) if kind == _FULL else size > disc.capacity and size != 0xFFFFFFFF:
        raise invalid_parameter(4)


def read_format_capacities(drive: OpticalDrive, task: Task) -> Buffer:
    """What the medium has, and what it can be formatted to: the same."""
    disc = drive.disc
    blocks, kind, formats = 0, _NO_MEDIUM, b""
    if disc is not None:
        blank = disc.unformatted or disc.blank
        blocks, kind = (disc.capacity, _UNFORMATTED) if blank else (disc.blocks, _FORMATTED)
        formats = b"".join(
            struct.pack(">IB", disc.capacity, code << 2) + more.to_bytes(3, "big")
            for code, more in FORMATS.get(disc.kind.name, {}).items()
        )
    return struct.pack(">3xBIB", 8 + len(formats), blocks, kind) + BLOCK.to_bytes(3, "big") + formats


# ---- BLANK


def check_blank(drive: OpticalDrive, task: Task) -> None:
    if task.fields["blanking_type"] > _SESSION:
        raise invalid_field(1, 2)


def blank(drive: OpticalDrive, task: Task) -> Buffer:
    """Take back what is on a CD-RW or DVD-RW: all, or what came last."""
    disc, kind, place = drive.loaded(), task.fields["blanking_type"], task.fields["address"]
    if disc.record is None or disc.record.kind not in ("cd-rw", "dvd-rw"):
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.CANNOT_WRITE_MEDIUM_INCOMPATIBLE_FORMAT)
    with disc.recording(), _sole():
        if kind in (_DISC, _MINIMAL):
            disc.blanked()
        else:
            disc.reopen()
            _take_back(recorder_of(disc), kind, place)
    task.effect = drive.recorded
    return b""


def _take_back(recorder: Recorder, kind: int, place: int) -> None:
    sessions = recorder.sessions
    if not sessions:
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.COMMAND_SEQUENCE_ERROR)
    last = sessions[-1]
    if kind == _SESSION:
        recorder.keep(sessions[:-1])
    elif kind == _UNCLOSE:
        if not last.closed:
            raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.COMMAND_SEQUENCE_ERROR)
        last.closed = False
        recorder.keep(sessions)
    else:
        _take_back_track(recorder, last, kind, place)


def _take_back_track(recorder: Recorder, last: Session, kind: int, place: int) -> None:
    """Of the session that is open, the last track: the whole of it, its reservation, or what is behind an address."""
    track = last.tracks[-1]
    by_number = kind in (_BLANK_TRACK, _UNRESERVE)
    if last.closed or (track.number != place if by_number else not track.start <= place < track.limit):
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)
    if kind == _UNRESERVE and (track.reserved is None or track.end > track.start):
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.COMMAND_SEQUENCE_ERROR)
    track.complete = False
    track.end = min(track.end, place) if kind == _TAIL else track.start
    if kind == _UNRESERVE or (track.end == track.start and track.reserved is None):
        del last.tracks[-1]
    recorder.keep([session for session in recorder.sessions if session.tracks])
