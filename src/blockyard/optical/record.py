"""The record of a disc that can be burned: a small document beside its image, which says what is on it (docs/disc-format.md).

    x.iso               blocks of 2048 bytes, each at its address: what READ gives of data tracks
    x.iso.disc.json     the record
    x.iso.audio         sectors of other tracks, each at its address times 2352; where there are any

A record is replaced whole (scsi/durable.py), and after what it speaks of is on stable storage. So a loss of power leaves the disc
as it was synchronised last: what is behind that in the files is cut off when it is opened for writing.
"""

from __future__ import annotations

import errno
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blockyard.block.file import FileDevice, create
from blockyard.optical.kinds import BLANKS, BLOCK
from blockyard.optical.layout import WHOLE, Form, Session, Text, Track
from blockyard.scsi.durable import Durable

_FORMAT = 1
_INDEXES = 98  # of a track: 2 to 99
SOLD_FORMATTED = ("dvd-ram", "bd-re")
_DOCUMENT = "disc"
IMAGE, AUDIO = 0, 1  # the files of a disc
_TRACK = (
    "start",
    "end",
    "control",
    "stride",
    "first",
    "complete",
    "reserved",
    "planned",
    "packet",
    "fixed_packet",
    "isrc",
)


@dataclass
class Record:
    """What is recorded on a disc."""

    kind: str
    capacity: int  # blocks
    identity: str  # of the disc: eight hexadecimal digits
    sessions: list[Session] = field(default_factory=list)
    final: bool = False  # nothing can be added
    formatted: bool = False  # any block can be written
    pseudo_overwrite: bool = False  # of a BD-R: what is recorded can be replaced
    text: Text = field(default_factory=Text)

    def files(self, image: Path) -> list[Path]:
        """Those that it needs."""
        audio = any(track.file == AUDIO for session in self.sessions for track in session.tracks)
        return [image, audio_file(image)] if audio else [image]

    def used(self, file: int) -> int:
        """The bytes of a file that are recorded."""
        return max(
            (
                track.position + (track.end - track.first) * track.stride
                for session in self.sessions for track in session.tracks
                if track.file == file and track.end > track.start
            ),
            default=0,
        )  # fmt: skip


def audio_file(image: Path) -> Path:
    return image.with_name(image.name + ".audio")


def record_file(image: Path) -> Path:
    return image.with_name(f"{image.name}.{_DOCUMENT}.json")


def _durable(image: Path) -> Durable:
    return Durable(image.parent, image.name)


def load(image: Path) -> Record | None:
    """The record beside an image; None where there is none. Raises OSError; EUCLEAN when it is damaged."""
    found = _durable(image).load(_DOCUMENT)
    if found is None:
        return None
    try:
        return _record(found)
    except (LookupError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise OSError(errno.EUCLEAN, f"The record of the disc is damaged ({error})", f"{image}.disc.json") from None


def save(image: Path, record: Record) -> None:
    """Replace the record; it is on stable storage when this returns. Raises OSError."""
    _durable(image).save(
        _DOCUMENT,
        {
            "format": _FORMAT, "kind": record.kind, "capacity": record.capacity, "identity": record.identity,
            "final": record.final, "formatted": record.formatted,
            "pseudo_overwrite": record.pseudo_overwrite, "catalog": record.text.catalog,
            "text": record.text.packs.hex(),
            "sessions": [
                {"closed": session.closed, "tracks": [_track_document(track) for track in session.tracks]}
                for session in record.sessions
            ],
        },
    )  # fmt: skip


def make(image: Path, kind: str, capacity: int) -> None:
    """A blank disc of so many blocks (kinds.py), in files that are not there yet. Raises OSError, ValueError."""
    if image.suffix.lower() == ".cue":
        raise ValueError("a .cue is a cue sheet: give the disc another name")
    formatted = kind in SOLD_FORMATTED
    create(image, capacity * BLOCK if formatted else 0)
    audio_file(image).unlink(missing_ok=True)
    try:
        save(image, Record(kind, capacity, secrets.token_hex(4), formatted=formatted))
    except OSError:
        os.unlink(image)
        raise


def cut(record: Record, files: list[FileDevice]) -> None:
    """Let the files end where what is recorded does: what is behind was not synchronised. Raises OSError.

    EUCLEAN where a file is shorter than its record says.
    """
    for number, device in enumerate(files):
        used, size = record.used(number), os.stat(device.path).st_size
        if size < used:
            raise OSError(errno.EUCLEAN, f"The file has {size} bytes, and its record speaks of {used}", device.path)
        if size > used and not device.read_only:
            device.truncate(used)


# ---- the document


def _track_document(track: Track) -> dict[str, Any]:
    return {
        "form": track.form.value,
        "file": track.file,
        "indexes": list(track.indexes),
        **{name: getattr(track, name) for name in _TRACK},
    }


def _record(found: dict[str, Any]) -> Record:
    if found["format"] != _FORMAT:
        raise ValueError(f"its format is {found['format']!r}, and {_FORMAT} is known")
    kind, capacity = str(found["kind"]), int(found["capacity"])
    if kind not in BLANKS:
        raise ValueError(f"there is no disc {kind!r}")
    record = Record(
        kind,
        capacity,
        str(found["identity"]),
        final=bool(found["final"]),
        formatted=bool(found["formatted"]),
        pseudo_overwrite=bool(found.get("pseudo_overwrite")),  # discs of old had none
    )
    record.text = Text(str(found["catalog"]), bytes.fromhex(found["text"]))
    number, at = 1, 0
    for session in found["sessions"]:
        tracks = []
        for document in session["tracks"]:
            track = _track(number, document)
            places = [at, track.first, track.start, *track.indexes, track.limit, capacity]
            if places != sorted(places) or not track.start <= track.end <= track.limit:
                raise ValueError(f"track {number} lies where it cannot")
            tracks.append(track)
            number, at = number + 1, track.limit
        if not tracks:
            raise ValueError("a session has no track")
        record.sessions.append(Session(tracks, bool(session["closed"])))
    if any(not session.closed for session in record.sessions[:-1]) or (record.sessions and record.formatted):
        raise ValueError("its sessions contradict each other")
    return record


def _track(number: int, document: dict[str, Any]) -> Track:
    track = Track(number, form=Form(document["form"]), file=int(document["file"]), **{k: document[k] for k in _TRACK})
    for name in ("start", "end", "control", "stride", "first", "fixed_packet"):
        if type(getattr(track, name)) is not int:
            raise ValueError(f"{name} of track {number} is no number")
    if not 0 <= track.control <= 15 or type(track.isrc) is not str:
        raise ValueError(f"the sub-channel of track {number} cannot be made")
    track.indexes = tuple(document.get("indexes", ()))  # discs of old had none
    if len(track.indexes) > _INDEXES or any(type(lba) is not int for lba in track.indexes):
        raise ValueError(f"the indexes of track {number} are none")
    if track.file not in (IMAGE, AUDIO) or track.stride not in (BLOCK, 2336, WHOLE):
        raise ValueError(f"track {number} is in no file of a disc")
    track.position = place(track.file, track.first)
    return track


def place(file: int, lba: int) -> int:
    """Where a sector is in a file."""
    return lba * (BLOCK if file == IMAGE else WHOLE)
