"""Cue sheets: text files that say which tracks a CD has, and in which files they are (.cue with .bin, .wav or .iso).

    CATALOG 1234567890123
    FILE "disc.bin" BINARY
      TRACK 01 MODE1/2352
        INDEX 01 00:00:00
      TRACK 02 AUDIO
        PREGAP 00:02:00             silence that is in no file
        INDEX 00 10:00:00           the pause before the track: minutes, seconds and frames in the file
        INDEX 01 10:02:00

The libraries on PyPI that read them stop at the titles of songs; here the sectors matter. Sessions are told by `REM SESSION 02`.
"""

from __future__ import annotations

import os
import shlex
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from blockyard.optical.cdtext import PERFORMER, TITLE, Texts, packs
from blockyard.optical.kinds import BLOCK, CD_R, FRAMES, SECONDS
from blockyard.optical.layout import AUDIO_CONTROL, DATA, WHOLE, Form, Session, Text, Track

_MOST_BYTES = 1 << 20  # of a cue sheet
_MOST_TRACKS = 99
_MODES: dict[str, tuple[Form, int]] = {
    "AUDIO": (Form.AUDIO, WHOLE), "MODE1/2048": (Form.MODE_1, BLOCK), "MODE1/2352": (Form.MODE_1, WHOLE),
    "MODE2/2048": (Form.XA, BLOCK), "MODE2/2336": (Form.XA, 2336), "MODE2/2352": (Form.XA, WHOLE),
    "CDI/2336": (Form.XA, 2336), "CDI/2352": (Form.XA, WHOLE),
}  # fmt: skip
_FLAGS = {"PRE": 0x1, "DCP": 0x2, "4CH": 0x8, "SCMS": 0x0, "DATA": 0x4}  # bits of CONTROL
_IGNORED = ("CDTEXTFILE", "SONGWRITER")


class Sheet(NamedTuple):
    """What a cue sheet says: the files, and the sessions whose tracks are in them."""

    files: list[Path]
    sessions: list[Session]
    text: Text


class _File(NamedTuple):
    path: Path
    number: int
    begin: int  # where its samples or sectors begin
    size: int  # bytes of them


@dataclass
class _Entry:
    """A track as it is read."""

    number: int
    form: Form
    stride: int
    session: int
    file: _File
    flags: int = 0
    isrc: str = ""
    pregap: int = 0  # frames that are in no file
    postgap: int = 0
    indexes: dict[int, int] = field(default_factory=dict)  # number → frames in the file


class _Reader:
    def __init__(self, path: Path) -> None:
        self._path = path
        self.files: list[_File] = []
        self.entries: list[_Entry] = []
        self.catalog = ""
        self.titles: Texts = {TITLE: {}, PERFORMER: {}}
        self._session = 1
        self._commands: dict[str, Callable[[list[str]], None]] = {
            "CATALOG": self._catalog, "FILE": self._file, "TRACK": self._track, "INDEX": self._index, "PREGAP": self._pregap,
            "POSTGAP": self._postgap, "FLAGS": self._flags, "ISRC": self._isrc, "REM": self._remark,
            "TITLE": lambda words: self._text(TITLE, words), "PERFORMER": lambda words: self._text(PERFORMER, words),
        }  # fmt: skip

    def line(self, text: str) -> None:
        words = _words(text)
        if not words:
            return
        name = words[0].upper()
        if name in _IGNORED:
            return
        if name not in self._commands:
            raise ValueError(f"{words[0]} is no command of a cue sheet")
        self._commands[name](words[1:])

    def _file(self, words: list[str]) -> None:
        name, kind = words
        if self.entries and self.entries[-1].file is self.files[-1] and not self.entries[-1].indexes:
            raise ValueError(f"track {self.entries[-1].number} has no INDEX")
        if name in ("", ".", "..") or "/" in name:
            raise ValueError(f"the file {name!r} does not lie beside the cue sheet")
        path = self._path.parent / name
        if kind.upper() == "WAVE":
            begin, size = _wave(path)
        elif kind.upper() in ("BINARY", "MOTOROLA"):
            begin, size = 0, os.stat(path).st_size
        else:
            raise ValueError(f"a file is BINARY or WAVE, not {kind}")
        self.files.append(_File(path, len(self.files), begin, size))

    def _track(self, words: list[str]) -> None:
        number, mode = int(words[0]), words[1].upper()
        if mode not in _MODES:
            raise ValueError(f"a track is {', '.join(_MODES)}, not {words[1]}")
        if number != len(self.entries) + 1 or number > _MOST_TRACKS:
            raise ValueError(f"track {number} is not the next one")
        if not self.files:
            raise ValueError(f"track {number} is in no FILE")
        self.entries.append(_Entry(number, *_MODES[mode], self._session, self.files[-1]))

    @property
    def _last(self) -> _Entry:
        if not self.entries:
            raise ValueError("there is no TRACK yet")
        return self.entries[-1]

    def _index(self, words: list[str]) -> None:
        entry, number, frames = self._last, int(words[0]), _frames(words[1])
        if entry.file is not self.files[-1]:
            if entry.indexes:
                raise ValueError(f"track {entry.number} is in two files, which is not read: put it into one")
            entry.file = self.files[-1]
        if any(number <= other or frames < at for other, at in entry.indexes.items()):
            raise ValueError(f"the indexes of track {entry.number} are not in order")
        entry.indexes[number] = frames

    def _pregap(self, words: list[str]) -> None:
        self._last.pregap = _frames(words[0])

    def _postgap(self, words: list[str]) -> None:
        self._last.postgap = _frames(words[0])

    def _flags(self, words: list[str]) -> None:
        for word in words:
            self._last.flags |= _FLAGS.get(word.upper(), 0)

    def _isrc(self, words: list[str]) -> None:
        self._last.isrc = words[0][:12]

    def _catalog(self, words: list[str]) -> None:
        self.catalog = words[0][:13]

    def _remark(self, words: list[str]) -> None:
        if len(words) == 2 and words[0].upper() == "SESSION":
            self._session = int(words[1])

    def _text(self, kind: int, words: list[str]) -> None:
        self.titles[kind][len(self.entries)] = " ".join(words)  # before the first track it is of the disc


def _words(text: str) -> list[str]:
    lexer = shlex.shlex(text, posix=True)
    lexer.whitespace_split, lexer.commenters, lexer.escape, lexer.quotes = True, "", "", '"'
    return list(lexer)


def _frames(text: str) -> int:
    minutes, seconds, frames = map(int, text.split(":"))
    if not (0 <= minutes <= 99 and 0 <= seconds < SECONDS and 0 <= frames < FRAMES):
        raise ValueError(f"{text} is no time")
    return (minutes * SECONDS + seconds) * FRAMES + frames


def _wave(path: Path) -> tuple[int, int]:
    """Where the samples of a WAVE file are, and how many bytes."""
    with path.open("rb") as file:
        riff, _, wave = struct.unpack("<4sI4s", file.read(12).ljust(12, b"\0"))
        if (riff, wave) != (b"RIFF", b"WAVE"):
            raise ValueError(f"{path.name} is no WAVE file")
        form = b""
        while len(head := file.read(8)) == 8:
            name, size = struct.unpack("<4sI", head)
            if name == b"data":
                if form != struct.pack("<HHIIHH", 1, 2, 44_100, 176_400, 4, 16):
                    raise ValueError(f"{path.name} does not have samples as CDs have: 44.1 kHz, stereo, 16 bits")
                return file.tell(), min(size, os.fstat(file.fileno()).st_size - file.tell())
            if name == b"fmt ":
                form = file.read(size)[:16]
                file.seek(size & 1, os.SEEK_CUR)
            else:
                file.seek(size + (size & 1), os.SEEK_CUR)
    raise ValueError(f"{path.name} has no samples")


def read(path: Path) -> Sheet:
    """Raises OSError, and ValueError with the line that is wrong."""
    with path.open("rb") as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise ValueError("it is too large for a cue sheet")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    reader = _Reader(path)
    for number, line in enumerate(text.splitlines(), 1):
        try:
            reader.line(line)
        except (ValueError, IndexError) as error:
            raise ValueError(f"line {number}: {error}") from None
    if not reader.entries:
        raise ValueError("it has no track")
    sessions = _sessions(reader.entries)
    return Sheet(
        [file.path for file in reader.files], sessions, Text(reader.catalog, packs(reader.titles, len(reader.entries)))
    )


def _sessions(entries: list[_Entry]) -> list[Session]:
    """The tracks with their addresses: one behind the other, from 0 on."""
    sessions: list[Session] = []
    at, session = 0, entries[0].session
    positions = _positions(entries)
    for position, entry in enumerate(entries):
        following = entries[position + 1] if position + 1 < len(entries) else None
        if not sessions or entry.session != session:
            at += CD_R.gaps[min(len(sessions) - 1, 1)] if sessions else 0
            session = entry.session
            sessions.append(Session())
        end = entry.file.begin + entry.file.size
        if following is not None and following.file is entry.file:
            end = min(end, positions[position + 1])
        track = _placed(entry, positions[position], end, at + (entry.pregap if position else 0))
        sessions[-1].tracks.append(track)
        at = track.end + entry.postgap
    return sessions


def _positions(entries: list[_Entry]) -> list[int]:
    """Where each track begins in its file: sectors of tracks before it may have another size. Raises ValueError."""
    found: list[int] = []
    before: _Entry | None = None
    for entry in entries:
        if 1 not in entry.indexes:
            raise ValueError(f"track {entry.number} has no INDEX 01")
        frames = min(entry.indexes.values())
        if before is None or before.file is not entry.file:
            found.append(entry.file.begin + frames * entry.stride)
        else:
            passed = frames - min(before.indexes.values())
            if passed <= 0:
                raise ValueError(f"track {entry.number} does not come after the one before")
            found.append(found[-1] + passed * before.stride)
        before = entry
    return found


def _placed(entry: _Entry, position: int, end: int, at: int) -> Track:
    """A track whose first sector is at `position` of its file, and whose address is `at`."""
    begin = min(entry.indexes.values())
    count = (end - position) // entry.stride
    if count <= max(entry.indexes.values()) - begin:
        raise ValueError(f"{entry.file.path.name} ends before track {entry.number} does")
    control = (DATA if entry.form.is_data else AUDIO_CONTROL) | entry.flags
    return Track(
        entry.number, at + entry.indexes[1] - begin, at + count, entry.form, control, entry.file.number, entry.stride,
        position, at, tuple(at + frames - begin for number, frames in sorted(entry.indexes.items()) if number > 1),
        entry.isrc,
    )  # fmt: skip
