"""A disc as files that other programs read: an ISO image of its data, or a cue sheet with one file of all its sectors.

Each file is made under another name, `.NAME.part`, while an empty one holds its place: nobody takes a part for the whole, and a
copy that was cut short leaves an empty file, which is no disc.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from blockyard.block.file import create, sync_directory
from blockyard.optical.disc import Disc
from blockyard.optical.kinds import BLOCK, FRAMES, SECONDS
from blockyard.optical.layout import WHOLE, Form, Session, Track
from blockyard.optical.sectors import sector

_PIECE = 256  # blocks that are copied together
_MODES = {Form.AUDIO: "AUDIO", Form.MODE_1: "MODE1/2352", Form.MODE_2: "MODE2/2352", Form.XA: "MODE2/2352"}


Progress = Callable[[int], None]  # bytes of the new file that are there


def check(disc: Disc, path: Path) -> int:
    """The bytes that a copy of a disc at `path` will have, its cue sheet aside. Raises ValueError for what cannot be copied."""
    if not disc.tracks:
        raise ValueError("nothing is on the disc")
    if not _is_sheet(path):
        if not all(track.form.has_blocks for track in disc.tracks):
            raise ValueError("the disc has tracks that no ISO image can hold: give the file a name that ends in .cue")
        return disc.tracks[-1].end * BLOCK
    if disc.kind.family != "cd":
        raise ValueError("a cue sheet is of a CD: give the file a name that ends in .iso")
    return sum(track.end - track.first for track in disc.tracks) * WHOLE


def export(disc: Disc, path: Path, progress: Progress) -> None:
    """Write what is on a disc to a new file, a cue sheet where that is called .cue. Raises OSError, ValueError.

    Whatever is raised, by `progress` too: there are no new files then.
    """
    check(disc, path)
    as_sheet = _is_sheet(path)
    data = path.with_suffix(".bin") if as_sheet else path
    with contextlib.ExitStack() as undo:
        with _new(data, undo) as file:
            _sectors(disc, file, progress) if as_sheet else _blocks(disc, file, progress)
        if as_sheet:
            with _new(path, undo) as file:
                file.write(_sheet(disc, data.name).encode())
        sync_directory(path.parent)
        undo.pop_all()


def _is_sheet(path: Path) -> bool:
    return path.suffix.lower() == ".cue"


@contextlib.contextmanager
def _new(path: Path, undo: contextlib.ExitStack) -> Iterator[BinaryIO]:
    """A file that appears when it is whole and on stable storage; others cannot read it."""
    create(path, 0)
    undo.callback(path.unlink, missing_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)  # of a copy that a crash has ended, or a link that somebody has put there
    undo.callback(part.unlink, missing_ok=True)
    create(part, 0)
    with part.open("r+b") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _blocks(disc: Disc, file: BinaryIO, progress: Progress) -> None:
    """Each block at its address; what is between tracks stays a hole."""
    for track in disc.tracks:
        for lba in range(track.start, track.end, _PIECE):
            progress(lba * BLOCK)
            data = disc.read(lba, min(_PIECE, track.end - lba))
            if any(data):
                file.seek(lba * BLOCK)
                file.write(data)
    file.truncate(disc.tracks[-1].end * BLOCK)


def _sectors(disc: Disc, file: BinaryIO, progress: Progress) -> None:
    """The tracks with their pregaps one behind the other, in whole sectors."""
    for track in disc.tracks:
        for each, lba, stored in disc.sectors(track.first, track.end - track.first):
            if lba % _PIECE == 0:
                progress(file.tell())
            whole = sector(each, lba, stored)
            data = whole.sync + whole.header + whole.sub_header + whole.data + whole.codes
            assert len(data) == WHOLE
            file.write(data)


def _sheet(disc: Disc, name: str) -> str:
    lines = [f"CATALOG {disc.text.catalog}"] if disc.text.catalog else []
    lines.append(f'FILE "{name}" BINARY')
    at = 0  # sectors in the file
    before: Track | None = None
    for number, session in enumerate(disc.sessions, 1):
        if len(disc.sessions) > 1:
            lines.append(f"REM SESSION {number:02}")
        for track in session.tracks:
            lines += _track(session, track, before, at)
            at += track.end - track.first
            before = track
    return "\n".join(lines) + "\n"


def _track(session: Session, track: Track, before: Track | None, at: int) -> list[str]:
    lines = [f"  TRACK {track.number:02} {_MODES[track.form]}"]
    flags = [word for bit, word in ((1, "PRE"), (2, "DCP"), (8, "4CH")) if track.control & bit]
    if flags:
        lines.append(f"    FLAGS {' '.join(flags)}")
    if track.isrc:
        lines.append(f"    ISRC {track.isrc}")
    gap = track.first - before.end if before is not None and track is not session.tracks[0] else 0
    if gap:
        lines.append(f"    PREGAP {_time(gap)}")
    places = [(0, track.first), (1, track.start)] if track.first < track.start else [(1, track.start)]
    places += [(number, lba) for number, lba in enumerate(track.indexes, 2)]
    return lines + [f"    INDEX {number:02} {_time(at + lba - track.first)}" for number, lba in places]


def _time(frames: int) -> str:
    return f"{frames // FRAMES // SECONDS:02}:{frames // FRAMES % SECONDS:02}:{frames % FRAMES:02}"
