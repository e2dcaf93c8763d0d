"""What a burner does to a disc that is written in order: tracks, sessions, and what is stable of them (MMC-6, write models).

There are two ways to write. In the one, tracks begin where the last one ends, and are closed by commands: track at once,
packets, incremental, DVD+R, BD-R. In the other a cue sheet says beforehand what will come, session at once (plan.py). A test
write (rehearsal) goes through the same checks, and leaves nothing.

Whoever calls sees to it that nobody else does (disc.py): there is no lock here. What the power leaves is what was synchronised
last: by the host, at the end of a track or session, and every 64 MiB.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from blockyard.block.file import FileDevice, create
from blockyard.optical import record as records
from blockyard.optical.kinds import BLANKS, BLOCK, PREGAP
from blockyard.optical.layout import AUDIO_CONTROL, DATA, WHOLE, Form, Session, Text, Track
from blockyard.optical.plan import Plan
from blockyard.optical.record import AUDIO, IMAGE, Record
from blockyard.scsi.sense import Asc, CheckCondition, SenseKey

_CHECKPOINT = 64 << 20  # bytes that are written between two synchronisations at most
_SHORTEST = 300  # blocks of a track of a CD: four seconds (ECMA-130)
_MOST_TRACKS = {"cd": 99}
PACKET, TRACK_AT_ONCE, SESSION_AT_ONCE = 0, 1, 2  # WRITE TYPE
FURTHER_SESSIONS = 3  # MULTI-SESSION: the next session is allowed
BLOCK_TYPES: dict[int, tuple[Form, int, int]] = {  # DATA BLOCK TYPE → form, bytes, file
    0: (Form.AUDIO, WHOLE, AUDIO),
    8: (Form.MODE_1, BLOCK, IMAGE),
    9: (Form.MODE_2, 2336, AUDIO),
    10: (Form.XA, BLOCK, IMAGE),
}


class Parameters(NamedTuple):
    """The write parameters mode page, as it is now."""

    write_type: int = TRACK_AT_ONCE
    test: bool = False
    multi_session: int = 0
    fixed_packet: int = 0  # blocks; 0: of any length
    block_type: int = 8
    copy_permitted: bool = False
    catalog: str = ""
    isrc: str = ""


class Space(NamedTuple):
    """Where a track that does not exist yet would begin, and the blocks from there on."""

    number: int
    session: int
    start: int
    free: int


def refused(asc: Asc, key: SenseKey = SenseKey.ILLEGAL_REQUEST) -> CheckCondition:
    return CheckCondition(key, asc)


class Recorder:
    """Writes a disc of which `record` says what is on it."""

    def __init__(self, record: Record, image: Path, files: list[FileDevice]) -> None:
        self.record = record
        self.kind = BLANKS[record.kind]
        self.plan: Plan | None = None
        self._image = image
        self._files = files
        self._changed = False  # the record is not what was saved
        self._unstable = 0  # bytes that were written since
        self._rehearsed: int | None = None  # the next address of a test write
        records.cut(record, files)

    # ---- what there is

    @property
    def sessions(self) -> list[Session]:
        return self.record.sessions

    @property
    def open_session(self) -> Session | None:
        return self.sessions[-1] if self.sessions and not self.sessions[-1].closed else None

    @property
    def last_track(self) -> Track | None:
        return self.sessions[-1].tracks[-1] if self.sessions else None

    @property
    def unfinished(self) -> Track | None:
        """The track that goes on as long as nobody closes it."""
        track = self.last_track
        return (
            track
            if track is not None and not track.complete and track.reserved is None and track.planned is None
            else None
        )

    @property
    def space(self) -> Space | None:
        """What a new track would have; None where there can be none now."""
        if self.record.final or self.unfinished is not None:
            return None
        last, number = self.last_track, sum(len(session.tracks) for session in self.sessions) + 1
        session = len(self.sessions) + (self.open_session is None)
        if last is None:
            start = 0
        elif self.open_session is not None:
            start = self._aligned(last.limit + self.kind.track_gap)
        else:
            start = self._aligned(last.limit + self.kind.gaps[min(len(self.sessions) - 1, 1)])
        free = self.record.capacity - start
        if free <= 0 or number > _MOST_TRACKS.get(self.kind.family, 0xFFFF):
            return None
        return Space(number, session, start, free)

    def _aligned(self, lba: int) -> int:
        return -(-lba // self.kind.blocking) * self.kind.blocking

    def limit_of(self, track: Track) -> int:
        """Where a track that is not complete has to end."""
        return self.record.capacity if track.reserved is None and track.planned is None else track.limit

    @property
    def rehearsed(self) -> int | None:
        """The next address of a test write that goes on."""
        return self._rehearsed

    def next_of(self, track: Track) -> int:
        """The next writable address of a track that is not complete."""
        return track.end if self._rehearsed is None or track.end > self._rehearsed else self._rehearsed

    def block_bytes(self, lba: int, parameters: Parameters) -> int:
        """What is to be sent of a block at an address."""
        if self.plan is not None:
            return self.plan.stride_at(lba)
        if self.kind.family != "cd":
            return BLOCK
        track = self._target(lba)
        return track.stride if track is not None and track.end > track.start else self._block_type(parameters)[1]

    # ---- writing

    def write(self, lba: int, count: int, data: memoryview, parameters: Parameters) -> None:
        """Blocks at the next writable address. Raises CheckCondition and OSError."""
        if self.plan is not None:
            self._write_planned(self.plan, lba, count, data)
            return
        if self.record.final:
            raise refused(Asc.WRITE_PROTECTED, SenseKey.DATA_PROTECT)
        if parameters.write_type not in (PACKET, TRACK_AT_ONCE) and self.kind.family == "cd":
            raise refused(Asc.COMMAND_SEQUENCE_ERROR)  # session at once begins with a cue sheet
        form, stride, file = self._block_type(parameters)
        if parameters.test:
            self._rehearse(lba, count)
            return
        if self.record.pseudo_overwrite and (replaced := self._replace(lba, data)):
            lba, count, data = lba + replaced, count - replaced, data[replaced * BLOCK :]
            if not count:
                return
        track = self._target(lba) or self._begun(lba)
        if track.end > track.start and (form, stride) != (track.form, track.stride):
            raise refused(Asc.ILLEGAL_MODE_FOR_THIS_TRACK)
        if lba + count > self.limit_of(track):
            raise refused(Asc.END_OF_USER_AREA_ENCOUNTERED_ON_THIS_TRACK)
        if track.end == track.start:
            track.form, track.stride, track.file, track.position = form, stride, file, records.place(file, track.first)
            track.control = DATA if form.is_data else AUDIO_CONTROL
            track.control |= 2 * parameters.copy_permitted
            track.packet = parameters.write_type == PACKET
            track.fixed_packet = parameters.fixed_packet if self.kind.family == "cd" else 0  # others have ECC blocks
            track.isrc = parameters.isrc
            if parameters.catalog:
                self.record.text.catalog = parameters.catalog
        self._store(track, lba, data)
        if self.open_session is None:
            self.sessions.append(Session([track], closed=False))
        elif track not in self.open_session.tracks:
            self.open_session.tracks.append(track)
        track.end = lba + count
        self._changed = True
        at_once = parameters.write_type == SESSION_AT_ONCE and self.kind.name.startswith("dvd-r")
        if at_once and track.reserved is not None and track.end == track.limit:  # disc at once (MMC-6, DVD-R)
            self.close_session(final=parameters.multi_session != FURTHER_SESSIONS)
        self._checkpoint(len(data))

    def _replace(self, lba: int, data: memoryview) -> int:
        """Put other data in the place of what is recorded (MMC-6, BD-R POW). Returns how many blocks of it were.

        A real drive writes it elsewhere, and shows what was there to nobody: in an image it is simply there.
        """
        tracks = (track for session in self.sessions for track in session.tracks)
        track = next((each for each in tracks if each.start <= lba < each.end), None)
        if track is None:
            return 0
        blocks = min(len(data) // BLOCK, track.end - lba)
        self._store(track, lba, data[: blocks * BLOCK])
        self._changed = True
        self._checkpoint(blocks * BLOCK)
        return blocks

    def _block_type(self, parameters: Parameters) -> tuple[Form, int, int]:
        if self.kind.family != "cd":
            return BLOCK_TYPES[8]
        if parameters.block_type not in BLOCK_TYPES:
            raise refused(Asc.ILLEGAL_MODE_FOR_THIS_TRACK)
        return BLOCK_TYPES[parameters.block_type]

    def _target(self, lba: int) -> Track | None:
        """The track that is not complete and goes on at this address."""
        session = self.open_session
        tracks = [] if session is None else session.tracks
        return next((track for track in tracks if not track.complete and track.end == lba), None)

    def _begun(self, lba: int) -> Track:
        """A new track at this address, which is not on the disc before something is written to it."""
        space = self.space
        if space is None or lba != space.start:
            raise refused(Asc.INVALID_ADDRESS_FOR_WRITE)
        return Track(space.number, lba, lba, first=lba, complete=False)

    def _rehearse(self, lba: int, count: int) -> None:
        track = self._target(lba)
        expected = self._rehearsed
        if expected is None:
            expected = track.end if track is not None else self._begun(lba).start
        if lba != expected:
            raise refused(Asc.INVALID_ADDRESS_FOR_WRITE)
        if lba + count > (self.record.capacity if track is None else self.limit_of(track)):
            raise refused(Asc.END_OF_USER_AREA_ENCOUNTERED_ON_THIS_TRACK)
        self._rehearsed = lba + count

    def _store(self, track: Track, lba: int, data: memoryview) -> None:
        if track.file == AUDIO and len(self._files) == 1:
            path = records.audio_file(self._image)
            if not path.exists():
                create(path, 0)
            self._files.append(FileDevice(path, least=0))
            self._files[AUDIO].truncate(0)
        self._files[track.file].pwritev([data], track.position + (lba - track.first) * track.stride)

    def _checkpoint(self, length: int) -> None:
        self._unstable += length
        if self._unstable >= _CHECKPOINT:
            self.synchronize()

    # ---- session at once

    def begin(self, plan: Plan) -> None:
        """A cue sheet has come: the next writes are what it says. Raises CheckCondition."""
        space = self.space
        if space is None or self.open_session is not None:
            raise refused(Asc.COMMAND_SEQUENCE_ERROR)
        if plan.start != space.start - PREGAP or plan.tracks[0].number != space.number:
            raise refused(Asc.INVALID_FIELD_IN_PARAMETER_LIST)
        if plan.end > self.record.capacity:
            raise refused(Asc.END_OF_USER_AREA_ENCOUNTERED_ON_THIS_TRACK)
        self.plan = plan

    def _write_planned(self, plan: Plan, lba: int, count: int, data: memoryview) -> None:
        """A lead-in with the whole table of contents comes first: so a burn that is cut short leaves a closed session."""
        first = plan.at is None
        for track, at, piece in plan.take(lba, count, data):
            if plan.test:
                continue
            if track is None:
                plan.texts(piece)
            else:
                self._store(track, at, piece)
                track.end = at + len(piece) // track.stride
        if first and not plan.test:
            self.sessions.append(Session(plan.tracks, closed=True))
            self.record.final = not plan.further
        if not plan.test:
            self.record.text = Text(plan.catalog or self.record.text.catalog, plan.packs or self.record.text.packs)
            self._changed = True
        if plan.at == plan.end:
            for track in plan.tracks:
                track.complete = True
            self.plan = None
            if not plan.test:
                self.synchronize()
        self._checkpoint(0 if plan.test else len(data))

    # ---- the ends of things

    def synchronize(self) -> None:
        """All that was written is on stable storage, and then what the record says of it. Raises OSError."""
        self._rehearsed = None
        if not self._changed:
            return
        for device in self._files:
            device.flush()
        self._unstable = 0
        records.save(self._image, self.record)
        self._changed = False

    def reserve(self, size: int) -> None:
        """RESERVE TRACK: a track of so many blocks. Raises CheckCondition."""
        space = self.space
        if space is None or self.plan is not None:
            raise refused(Asc.COMMAND_SEQUENCE_ERROR)
        size = self._aligned(size)
        if not 0 < size <= space.free:
            raise refused(Asc.END_OF_USER_AREA_ENCOUNTERED_ON_THIS_TRACK)
        track = Track(space.number, space.start, space.start, first=space.start, complete=False, reserved=size)
        track.position = records.place(IMAGE, space.start)
        if self.open_session is None:
            self.sessions.append(Session([], closed=False))
        self.sessions[-1].tracks.append(track)
        self._changed = True
        self.synchronize()

    def close_track(self, number: int) -> None:
        """Raises CheckCondition and OSError."""
        rehearsal, self._rehearsed = self._rehearsed, None
        session = self.open_session
        if rehearsal is not None or session is None:
            return
        track = next((each for each in session.tracks if each.number == number), None)
        if track is None or track.complete:  # the one that is not there yet, or one that was closed before
            return
        self._finish(track)
        self.synchronize()

    def _finish(self, track: Track) -> None:
        if track.end == track.start:
            raise refused(Asc.EMPTY_OR_PARTIALLY_WRITTEN_RESERVED_TRACK)
        end = track.limit
        if self.kind.family == "cd":
            end = min(max(end, track.start + _SHORTEST), self.limit_of(track))
        if end > track.end:  # zeros up to the end of a reservation, or of the shortest track there may be
            device = self._files[track.file]
            there = os.stat(device.path).st_size
            device.truncate(max(there, track.position + (end - track.first) * track.stride))
            track.end = end
        track.complete = True
        self._changed = True

    def close_session(self, *, final: bool) -> None:
        """The session can be read by all; when it is `final` nothing comes after. Raises CheckCondition and OSError."""
        rehearsal, self._rehearsed = self._rehearsed, None
        if rehearsal is not None:
            return
        if self.plan is not None:
            raise refused(Asc.COMMAND_SEQUENCE_ERROR)
        session = self.open_session
        if session is not None:
            for track in session.tracks:
                if not track.complete:
                    self._finish(track)
            session.closed = True
            self._changed = True
        if final and self.sessions and not self.record.final:
            self.record.final = self._changed = True
        self.synchronize()

    # ---- what can be taken back

    def keep(self, sessions: list[Session], *, final: bool = False) -> None:
        """Nothing but these sessions is on the disc any more: the record says so before the files are cut."""
        self.plan = self._rehearsed = None
        self.record.sessions, self.record.final = sessions, final
        if not sessions:
            self.record.text = Text()
        records.save(self._image, self.record)
        self._changed, self._unstable = False, 0
        records.cut(self.record, self._files)
