"""Session at once: what SEND CUE SHEET says will be written, from the first pregap to the lead-out (MMC-6, SEND CUE SHEET)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from blockyard.optical.kinds import BLOCK, PREGAP, lba_of
from blockyard.optical.layout import WHOLE, Form, Track
from blockyard.optical.record import AUDIO, IMAGE, place
from blockyard.scsi.sense import Asc, CheckCondition, SenseKey, invalid_parameter

_LINE = 8
_LEAD_OUT = 0xAA
_POSITION, _CATALOG, _ISRC = 1, 2, 3  # ADR
_PACKED = 96  # bytes of R to W sub-channels that a block of the lead-in has: four packs of CD-TEXT
_PACK = 18
_TEXT = 0x41  # DATA FORM of a lead-in whose sub-channels come from the host
# DATA FORM → form, and bytes that come from the host: none where the drive makes the sectors
_FORMS: dict[int, tuple[Form, int]] = {
    0x00: (Form.AUDIO, WHOLE), 0x01: (Form.AUDIO, 0),
    0x10: (Form.MODE_1, BLOCK), 0x11: (Form.MODE_1, WHOLE), 0x14: (Form.MODE_1, 0),
    0x20: (Form.XA, 2336), 0x21: (Form.XA, WHOLE), 0x24: (Form.XA, 0),
    0x30: (Form.MODE_2, 2336), 0x31: (Form.MODE_2, WHOLE), 0x34: (Form.MODE_2, 0),
}  # fmt: skip
_FILES = {BLOCK: IMAGE, 2336: AUDIO, WHOLE: AUDIO}


class _Line(NamedTuple):
    """A line of a cue sheet that says where something begins."""

    at: int  # of the parameter list
    control: int
    track: int
    point: int
    form: int
    lba: int


class _Part(NamedTuple):
    """Blocks of one form that follow one another; of no track where they are not kept."""

    start: int
    end: int
    stride: int
    track: Track | None


@dataclass
class Plan:
    """What will be written, and how far that is."""

    tracks: list[Track]
    parts: list[_Part]
    catalog: str = ""
    with_text: bool = False
    further: bool = False  # the next session is allowed
    test: bool = False
    at: int | None = None  # the next address; None: nothing has come
    packs: bytes = b""
    _seen: set[bytes] = field(default_factory=set)
    _symbols: bytearray = field(default_factory=bytearray)

    @property
    def start(self) -> int:
        return self.parts[0].start

    @property
    def end(self) -> int:
        return self.parts[-1].end

    def stride_at(self, lba: int) -> int:
        """The bytes that a block has which comes from the host."""
        if lba < self.start:
            return _PACKED
        return next((part.stride for part in self.parts if part.start <= lba < part.end), BLOCK)

    def take(self, lba: int, count: int, data: memoryview) -> Iterator[tuple[Track | None, int, memoryview]]:
        """What is kept of blocks that have come: a track, an address in it, and data; of the lead-in, its data."""
        begins = lba == self._after_made(self.start) or (self.with_text and lba < self.start)
        if not (begins if self.at is None else lba == self.at):
            raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.INVALID_ADDRESS_FOR_WRITE)
        if lba + count > self.end:
            raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.END_OF_USER_AREA_ENCOUNTERED_ON_THIS_TRACK)
        stride = self.stride_at(lba)
        pieces = self._cut(lba, lba + count, stride)
        self.at = self._after_made(lba + count)
        for track, start, end in pieces:
            yield track, start, data[(start - lba) * stride : (end - lba) * stride]

    def _after_made(self, lba: int) -> int:
        """The next address that the host writes: the drive makes some parts itself."""
        for part in self.parts:
            if not part.stride and part.start <= lba < part.end:
                lba = part.end
        return lba

    def _cut(self, lba: int, end: int, stride: int) -> list[tuple[Track | None, int, int]]:
        if lba < self.start:
            if end > self.start:
                raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.ILLEGAL_MODE_FOR_THIS_TRACK)
            return [(None, lba, end)]
        pieces: list[tuple[Track | None, int, int]] = []
        for part in self.parts:
            first, last = max(lba, part.start), min(end, part.end)
            if first >= last:
                continue
            if part.stride != stride:
                raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.ILLEGAL_MODE_FOR_THIS_TRACK)
            if part.track is not None:
                pieces.append((part.track, first, last))
        return pieces

    def texts(self, data: memoryview) -> None:
        """Sub-channels of the lead-in: six bits in each byte, which are packs of CD-TEXT, again and again."""
        for at in range(0, len(data) - 3, 4):
            a, b, c, d = (value & 0x3F for value in data[at : at + 4])
            self._symbols += bytes([a << 2 | b >> 4, (b & 0xF) << 4 | c >> 2, (c & 0x3) << 6 | d])
        while len(self._symbols) >= _PACK:
            pack = bytes(self._symbols[:_PACK])
            del self._symbols[:_PACK]
            if pack[0] & 0x80 and pack not in self._seen:
                self._seen.add(pack)
                self.packs += pack


def parse(data: bytes, *, further: bool, test: bool) -> Plan:
    """Raises CheckCondition."""
    lines: list[_Line] = []
    catalog, codes = "", dict[int, str]()
    for at in range(0, len(data), _LINE):
        line = data[at : at + _LINE]
        control, adr = line[0] >> 4, line[0] & 0xF
        if adr == _CATALOG:
            catalog += line[1:8].decode("latin-1")
        elif adr == _ISRC:
            codes[line[1]] = codes.get(line[1], "") + line[2:8].decode("latin-1")
        elif adr == _POSITION:
            if line[6] > 59 or line[7] > 74:
                raise invalid_parameter(at + 5)
            lines.append(_Line(at, control, line[1], line[2], line[3], lba_of(*line[5:8])))
        else:
            raise invalid_parameter(at, 3)
    if len(lines) < 3 or lines[0].track or lines[-1].track != _LEAD_OUT:
        raise invalid_parameter(0)
    tracks, parts = _tracks(lines[1:])
    for track in tracks:
        track.isrc = codes.get(track.number, "").strip("\0")[:12]
    return Plan(tracks, parts, catalog.strip("\0")[:13], bool(lines[0].form & 0xC0), further, test)


def _tracks(lines: list[_Line]) -> tuple[list[Track], list[_Part]]:
    tracks: list[Track] = []
    parts: list[_Part] = []
    starts = {line.track: line for line in lines if line.point == 1}
    for line, following in pairwise(lines):
        own = starts.get(line.track)
        if own is None or line.form not in _FORMS or not line.lba <= following.lba or line.track == _LEAD_OUT:
            raise invalid_parameter(line.at + 1)
        form, stride = _FORMS[line.form]
        if not tracks or tracks[-1].number != line.track:
            if tracks and tracks[-1].number + 1 != line.track:
                raise invalid_parameter(line.at + 1)
            tracks.append(_track(own))
        track = tracks[-1]
        if line.point > 1:
            track.indexes += (line.lba,)
        kept = (form, stride) == (track.form, track.stride) and (line.point > 0 or len(tracks) > 1)
        if line.point == 0 and kept:
            track.first = line.lba
            track.position = place(track.file, line.lba)
        parts.append(_Part(line.lba, following.lba, stride, track if kept else None))
        track.planned = following.lba
    if not parts or any(track.start >= track.limit for track in tracks):
        raise invalid_parameter(0)
    if parts[0].start == tracks[0].start:  # the drive makes the first pregap itself
        parts.insert(0, _Part(parts[0].start - PREGAP, parts[0].start, parts[0].stride, None))
    return tracks, parts


def _track(own: _Line) -> Track:
    form, stride = _FORMS.get(own.form, (Form.AUDIO, 0))
    if not stride:
        raise invalid_parameter(own.at + 3)
    file = _FILES[stride]
    return Track(
        own.track, own.lba, own.lba, form, own.control, file, stride, place(file, own.lba), own.lba, complete=False
    )
