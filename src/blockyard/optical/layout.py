"""What is on a disc: sessions of tracks, and where the bytes of these are.

Discs of every kind have a layout, be it found in an image (sessions.py), written down in a cue sheet (cuesheet.py), or made by
a burner (recorder.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from blockyard.optical.kinds import BLOCK

DATA, AUDIO_CONTROL = 0x4, 0x0  # CONTROL of the Q sub-channel: bit 2 says a data track
WHOLE = 2352  # bytes of a sector on a CD, sub-channels aside


class Form(Enum):
    """What the sectors of a track are. CDs have all of these, other discs mode 1 alone, as their data tracks are called."""

    AUDIO = "audio"
    MODE_1 = "mode1"
    MODE_2 = "mode2"  # formless
    XA = "xa"  # mode 2 with sub-headers: form 1 or 2 (CD-ROM XA)

    @property
    def is_data(self) -> bool:
        return self is not Form.AUDIO

    @property
    def has_blocks(self) -> bool:
        """Whether READ gives blocks of 2048 bytes of it."""
        return self in (Form.MODE_1, Form.XA)


@dataclass
class Track:
    """A track: the blocks from `start` up to `end`. What comes before it, its pregap, is in its file from `first` on."""

    number: int
    start: int
    end: int  # of what is recorded in it, as long as it is open
    form: Form = Form.MODE_1
    control: int = DATA
    file: int = 0  # which of the disc's files
    stride: int = BLOCK  # bytes of a sector in the file
    position: int = 0  # where the sector `first` is in the file
    first: int = 0
    indexes: tuple[int, ...] = ()  # where index 2 and those after it begin
    isrc: str = ""
    # of what a burner writes (recorder.py)
    complete: bool = True
    reserved: int | None = None  # the blocks that it was reserved for
    planned: int | None = (
        None  # where it is to end, as a cue sheet said: what is not recorded up to there cannot be read
    )
    fixed_packet: int = 0  # blocks of a packet
    packet: bool = False

    @property
    def limit(self) -> int:
        """Where the blocks end that belong to it."""
        if self.planned is not None:
            return self.planned
        return max(self.end, self.start + (self.reserved or 0))

    @property
    def size(self) -> int:
        return self.limit - self.start


@dataclass
class Session:
    """A session: it is closed, and can be read by all, or goes on to be written."""

    tracks: list[Track] = field(default_factory=list)
    closed: bool = True

    @property
    def start(self) -> int:
        return self.tracks[0].start

    @property
    def end(self) -> int:
        """Where its lead-out begins."""
        return self.tracks[-1].limit


@dataclass
class Text:
    """What the lead-in of a CD says besides: media catalog number, and the packs of CD-TEXT of each session."""

    catalog: str = ""
    packs: bytes = b""  # of 18 bytes
