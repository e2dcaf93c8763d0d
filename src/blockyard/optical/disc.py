"""A disc: an image in a drive, or what becomes one."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from blockyard.block.file import FileDevice
from blockyard.optical import cuesheet, record
from blockyard.optical.kinds import (
    AUTO,
    BD_R_POW,
    BLOCK,
    CD,
    CD_RW_FORMATTED,
    DVD_RW_RESTRICTED,
    FORMATTED,
    IMAGES,
    KINDS,
    Kind,
    kind_of,
)
from blockyard.optical.layout import Session, Text, Track
from blockyard.optical.record import IMAGE, Record
from blockyard.optical.recorder import Recorder
from blockyard.optical.sectors import user_data
from blockyard.optical.sessions import find
from blockyard.scsi.sense import Asc, CheckCondition, SenseKey
from blockyard.scsi.task import Buffer

log = logging.getLogger(__name__)
_PACKETS = {DVD_RW_RESTRICTED: 16, CD_RW_FORMATTED: 32}  # blocks of the packets that formatting has made


class Run(NamedTuple):
    """Blocks that follow one another in one track; those that are not `stored` are zeros."""

    track: Track
    lba: int
    length: int
    stored: bool


class Disc:
    """An image that is open for reading, as a disc of some kind; for writing too, and for nobody else, if that can be written.

    A cue sheet (.cue) is a CD with its tracks; an image with a record beside it (record.py) is the disc that was made as
    blank, unless another kind is asked for. Images may end within a block: its rest reads as zeros. Reads go on when the
    disc is closed meanwhile; the files are closed after the last of them. Raises OSError; EINVAL for what makes no disc.
    """

    def __init__(self, path: Path, kind: str = AUTO) -> None:
        self.path = path
        self.wanted = kind
        self._sessions: list[Session] = []
        self._text = Text()
        self.record: Record | None = None
        self.recorder: Recorder | None = None
        self.files: list[FileDevice] = []
        self._lock = Lock()
        self._recording = Lock()  # held while files are written and flushed
        self._reading = 0
        self._closed = False
        try:
            self._open(kind)
        except ValueError as error:
            self._close_files()
            raise OSError(errno.EINVAL, f"This is no disc: {error}", os.fspath(path)) from None
        except BaseException:
            self._close_files()
            raise

    # ---- opening

    def _open(self, kind: str) -> None:
        found = record.load(self.path)
        if self.path.suffix.lower() == ".cue":
            self._open_cue_sheet(kind)
        elif found is not None and kind in (AUTO, found.kind):
            self._open_record(found)
        elif found is not None and KINDS[kind].writable:
            raise ValueError(f"it was made as a {found.kind.upper()}, and is written as that alone")
        elif kind != AUTO and kind not in IMAGES:
            raise ValueError(f"{kind.upper()} is made as a blank disc: `blockyard optical create` does that")
        else:
            self._open_image(kind)

    def _open_image(self, kind: str) -> None:
        writable = kind != AUTO and KINDS[kind].writable
        device = FileDevice(self.path, read_only=not writable)
        self.files.append(device)
        # a device has whole sectors of 512 bytes; a file that is a disc may end anywhere
        self._size = max(device.size, os.stat(self.path).st_size)
        self._blocks = -(-self._size // BLOCK)
        self._kind = kind_of(self._blocks, kind)
        if writable and self._size % BLOCK:
            raise ValueError(f"a disc that is written has whole blocks of {BLOCK} bytes, not {self._size} bytes")
        if writable:
            self._open_anywhere()
        else:
            self._sessions = [
                Session([Track(number, start, end, first=start, position=start * BLOCK)])
                for number, (start, end) in enumerate(find(self._bytes, self._blocks), 1)
            ]

    def _open_anywhere(self) -> None:
        """All of it is one track."""
        packet = _PACKETS.get(self._kind, 0)
        self._sessions = [Session([Track(1, 0, self._blocks, packet=packet > 0, fixed_packet=packet)])]

    def _open_cue_sheet(self, kind: str) -> None:
        if kind not in (AUTO, CD.name):
            raise ValueError(f"a cue sheet is of a CD, not of a {kind.upper()}")
        sheet = cuesheet.read(self.path)
        for path in sheet.files:
            self.files.append(FileDevice(path, read_only=True, least=1))
        self._sessions, self._text = sheet.sessions, sheet.text
        self._size = 0
        self._blocks = sheet.sessions[-1].end
        self._kind = CD
        if self._blocks > CD.most:
            raise ValueError(f"it has {self._blocks} sectors, and a CD has {CD.most} at most")

    def _open_record(self, found: Record) -> None:
        for path in found.files(self.path):
            self.files.append(FileDevice(path, read_only=found.final, least=0))
        self.record = found
        self._arrange(found)

    def _arrange(self, found: Record) -> None:
        """It is what its record says."""
        self._kind = FORMATTED.get(found.kind, KINDS[found.kind]) if found.formatted else KINDS[found.kind]
        if found.pseudo_overwrite:
            self._kind = BD_R_POW
        self._size = self._blocks = 0
        if found.formatted:
            self._size, self._blocks = found.capacity * BLOCK, found.capacity
            if os.stat(self.path).st_size < self._size:  # the power failed when it was formatted
                self.device.truncate(self._size)
            self._open_anywhere()
        else:
            self.recorder = Recorder(found, self.path, self.files)

    def formatted(self) -> None:
        """It has become one of which any block can be written. Blocks."""
        found = self.record
        assert found is not None
        self.reopen()
        found.formatted, found.final, found.sessions = True, False, []
        record.save(self.path, found)
        self.recorder = None
        self._arrange(found)

    def formatted_in_order(self, *, pseudo_overwrite: bool) -> None:
        """A blank BD-R has been formatted: it is written in order, and perhaps what is there can be replaced. Blocks."""
        found = self.record
        assert found is not None
        found.pseudo_overwrite = pseudo_overwrite
        record.save(self.path, found)
        self._arrange(found)

    def blanked(self) -> None:
        """It is written in order from now on, and nothing is on it. Blocks."""
        found = self.record
        assert found is not None
        self.reopen()
        found.formatted, found.final = False, False
        found.sessions, found.text = [], Text()
        record.save(self.path, found)
        self._arrange(found)

    def reopen(self) -> None:
        """A rewritable disc that was closed, and may be in other drives too, becomes this drive's own. Raises OSError, EBUSY."""
        for device in self.files:
            if device.read_only:
                device.reopen(read_only=False)

    # ---- what it is

    @property
    def device(self) -> FileDevice:
        return self.files[0]

    @property
    def kind(self) -> Kind:
        return self._kind

    @property
    def sessions(self) -> list[Session]:
        return self._sessions if self.recorder is None else self.recorder.sessions

    @property
    def text(self) -> Text:
        return self._text if self.recorder is None else self.recorder.record.text

    @property
    def capacity(self) -> int:
        """The blocks that it has room for."""
        return self._blocks if self.record is None else self.record.capacity

    @property
    def blocks(self) -> int:
        """Those that sessions have which can be read by all."""
        if self.recorder is None:
            return self._blocks
        if self.kind.pseudo_overwrite:  # sessions are not what matters there: all that is recorded is one volume
            return max((track.end for track in self.tracks), default=0)
        return max((session.end for session in self.sessions if session.closed), default=0)

    @property
    def layers(self) -> int:
        return self.kind.layers_of(self.capacity)

    @property
    def blank(self) -> bool:
        """Whether nothing was ever recorded on it."""
        return self.recorder is not None and not self.sessions

    @property
    def unformatted(self) -> bool:
        """Whether it has to be formatted before it can be written."""
        return self.record is not None and self.kind.writable and not self.record.formatted

    @property
    def plain(self) -> bool:
        """Whether block after block is in its file, as in an image."""
        return self.recorder is None and self.path.suffix.lower() != ".cue"

    @property
    def in_place(self) -> bool:
        """Whether its file has each of its `blocks` at its address, so that they can be read there without more."""
        if self.recorder is None:
            return self.plain
        tracks = [track for session in self.sessions if session.closed for track in session.tracks]
        return all(track.file == IMAGE and track.form.has_blocks and track.end == track.limit for track in tracks)

    @property
    def open_for_writing(self) -> bool:
        """Whether any block can be written now."""
        return self.plain and self.kind.writable and not self.device.read_only

    @property
    def tracks(self) -> list[Track]:
        return [track for session in self.sessions for track in session.tracks]

    def track_at(self, lba: int) -> Track | None:
        """The track that a block belongs to, with its pregap and what follows up to the next one."""
        tracks = self.tracks
        at = bisect_right([track.first for track in tracks], lba) - 1
        return tracks[max(at, 0)] if tracks else None

    # ---- reading

    def read(self, lba: int, count: int) -> bytearray:
        """User data of blocks. Raises CheckCondition where there are none.

        Raises OSError; ENOMEDIUM when it is not in the drive any more, as the others do.
        """
        with self._used():
            if self.plain:
                return self._bytes(lba * BLOCK, count * BLOCK)
            data = bytearray()
            for run in self._runs(lba, count):
                if not run.track.form.has_blocks:
                    raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.ILLEGAL_MODE_FOR_THIS_TRACK)
                data += user_data(run.track, self._stored(run)) if run.stored else bytes(run.length * BLOCK)
            return data

    def sectors(self, lba: int, count: int) -> Iterator[tuple[Track, int, bytes]]:
        """Track, address and bytes of each sector, as they are in its file; b"" for what is zeros."""
        with self._used():
            for run in self._runs(lba, count):
                data = self._stored(run) if run.stored else b""
                for at in range(run.length):
                    yield run.track, run.lba + at, bytes(data[at * run.track.stride : (at + 1) * run.track.stride])

    def _runs(self, lba: int, count: int) -> Iterator[Run]:
        """A range cut where another track begins, or where it ends. Raises CheckCondition for what is not recorded."""
        end = lba + count
        tracks = self.tracks
        firsts = [track.first for track in tracks]
        while lba < end:
            at = bisect_right(firsts, lba) - 1
            if at < 0:
                raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE)
            track = tracks[at]
            bound = firsts[at + 1] if at + 1 < len(tracks) else max(self.blocks, track.limit)
            stored = lba < track.end
            stop = min(end, track.end if stored else bound)
            if not stored:
                self._check_zeros(lba, track, last=at + 1 == len(tracks))
            yield Run(track, lba, stop - lba, stored)
            lba = stop

    def _check_zeros(self, lba: int, track: Track, *, last: bool) -> None:
        """Nothing is there; that reads as zeros between two tracks, as an image has it there."""
        if track.planned is not None and lba < track.planned:  # burning was cut short
            raise OSError(errno.EIO, "It was never recorded", os.fspath(self.path))
        if last:
            raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE)

    def _stored(self, run: Run) -> bytearray:
        track = run.track
        data = bytearray(run.length * track.stride)
        device = self.files[track.file]
        position = track.position + (run.lba - track.first) * track.stride
        device.preadv([memoryview(data)], position)
        return data

    def _bytes(self, offset: int, length: int) -> bytearray:
        data = bytearray(length)
        there = min(length, self._size - offset)
        if there > 0:
            self.device.preadv([memoryview(data)[:there]], offset)
        return data

    # ---- writing

    def write(self, offset: int, data: Buffer) -> None:
        """Write whole blocks of a disc that takes them anywhere."""
        with self._used():
            self.device.pwritev([data], offset)

    def flush(self) -> None:
        """What was written is on stable storage after this."""
        with self.recording():
            if self.recorder is not None:
                self.recorder.synchronize()
            elif self.kind.writable:
                self.device.flush()

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Nobody else changes what is recorded while this lasts, and the files stay open.

        Commands that do run alone, so that only administrators wait here, who take the disc out in the midst of burning.
        Raises OSError; ENOMEDIUM when it is not in the drive any more.
        """
        with self._used(), self._recording:
            yield

    @contextlib.contextmanager
    def _used(self) -> Iterator[None]:
        """The file stays open while this lasts."""
        with self._lock:
            if self._closed:
                raise OSError(errno.ENOMEDIUM, "The disc was taken out", os.fspath(self.path))
            self._reading += 1
        try:
            yield
        finally:
            with self._lock:
                self._reading -= 1
                last = self._closed and not self._reading
            if last:
                self._close_files()

    def close(self) -> None:
        with self._lock:
            last = not self._closed and not self._reading
            self._closed = True
        if last:
            self._close_files()

    def _close_files(self) -> None:
        if self.recorder is not None:
            try:
                self.recorder.synchronize()
            except OSError as error:
                log.error("%s: what was written last may be lost: %s", self.path, error)
        for device in self.files:
            device.close()
        self.files = []
