"""Loss of power in the midst of burning: the disc that opens then is one that was synchronised, with each of its blocks and
nothing else; what a host has synchronised is never gone.

Writes, syncs and cuts of files are logged as they pass, and so is each record. The power fails at any of them; of what has not
been synced by then, any subset has reached the disk, torn at 4 KiB.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockyard.optical import record as records
from blockyard.optical.disc import Disc
from blockyard.optical.kinds import BLANKS
from blockyard.optical.record import Record, audio_file
from blockyard.scsi.task import Status
from tests.media.scratch import scratch
from tests.media.test_crash import Log
from tests.optical.burners import SYNCHRONIZE, blank, close, parameters, reserve, write
from tests.optical.drives import DriveHost, drive, host

_CAPACITY = 2_000
_PAGE = 4096
Contents = list[tuple[int, bytes]]  # of each track: where it begins, and what is in it


def _survives(entries: list[tuple[Any, ...]], name: str, rng: Random) -> bytes:
    """What is in a file when the power fails after these entries: all before its last sync, and some of what came since."""
    own = [entry[1:] for entry in entries if entry[0] == name]
    safe = max((at for at, entry in enumerate(own) if not entry), default=-1)
    file = bytearray()
    for at, entry in enumerate(own):
        if len(entry) == 1 and (at < safe or rng.random() < 0.5):  # the file gets this length
            del file[entry[0] :]
            file.extend(bytes(entry[0] - len(file)))
        elif len(entry) == 2:
            for page in range(0, len(entry[1]), _PAGE):
                if at < safe or rng.random() < 0.5:
                    _put(file, entry[0] + page, entry[1][page : page + _PAGE])
    return bytes(file)


def _put(file: bytearray, offset: int, data: bytes) -> None:
    file.extend(bytes(max(0, offset + len(data) - len(file))))
    file[offset : offset + len(data)] = data


class Burn:
    """A burner, and what its disc was each time that its record was saved."""

    def __init__(self, rng: Random, kind: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rng = rng
        self.image = directory / "x.iso"
        records.make(self.image, kind, _CAPACITY)
        self.one: DriveHost = host(drive(self.image))
        self.data: dict[int, bytes] = {}  # by address
        self.saved: list[tuple[int, Contents, bytes]] = []
        self.log = Log(monkeypatch)
        self._serial = itertools.count(1)
        real = records.save

        def save(image: Path, record: Record) -> None:
            real(image, record)
            document = image.with_name(image.name + ".disc.json").read_bytes()
            self.saved.append((len(self.log.entries), self.contents(record), document))

        monkeypatch.setattr(records, "save", save)
        save(self.image, self.record)

    @property
    def record(self) -> Record:
        disc = self.one.drive.disc
        assert disc is not None
        assert disc.record is not None
        return disc.record

    def die(self) -> None:
        """The process is gone, and has synchronised nothing."""
        disc, self.one.drive.disc = self.one.drive.disc, None
        assert disc is not None
        for device in disc.files:
            device.close()

    def contents(self, record: Record) -> Contents:
        tracks = [track for session in record.sessions for track in session.tracks]
        return [
            (track.start, b"".join(self.data.get(lba, bytes(track.stride)) for lba in range(track.start, track.end)))
            for track in tracks
        ]

    def step(self) -> None:
        what = self.rng.choice(("write", "write", "write", "synchronize", "track", "session", "reserve", "back"))
        getattr(self, f"_{what}")()

    def _next(self) -> tuple[int, int] | None:
        """An address that can be written, and how many blocks from there on."""
        disc = self.one.drive.disc
        assert disc is not None
        recorder = disc.recorder
        assert recorder is not None
        session = recorder.open_session
        places = [] if session is None else [
            (track.end, recorder.limit_of(track) - track.end) for track in session.tracks if not track.complete
        ]  # fmt: skip
        if recorder.space is not None:
            places.append((recorder.space.start, recorder.space.free))
        return self.rng.choice(places) if places else None

    def _write(self) -> None:
        place = self._next()
        if place is None or not place[1]:
            return
        lba, free = place
        count = min(self.rng.choice((1, 3, 16, 40)), free)
        sound = self.record.kind.startswith("cd") and self.rng.random() < 0.4
        parameters(self.one, block_type=0 if sound else 8, multi_session=3)
        task, failed = self.one.begin(write(lba, count), count * 2352)
        assert failed is None
        blocks = [next(self._serial).to_bytes(4, "big") * (task.expected // count // 4) for _ in range(count)]
        self.data.update(zip(range(lba, lba + count), blocks, strict=True))
        task.data_out = bytearray(b"".join(blocks))
        if self.one.unit.run(task).status != Status.GOOD:  # a track that has begun with sectors of another form
            self._forget()

    def _synchronize(self) -> None:
        self.one.ok(SYNCHRONIZE)
        assert self.saved[-1][1] == self.contents(self.record)

    def _track(self) -> None:
        self.one.send(close(1, self.rng.randint(1, 4)))

    def _session(self) -> None:
        self.one.send(close(2 if self.rng.random() < 0.8 else 6))

    def _reserve(self) -> None:
        self.one.send(reserve(self.rng.choice((16, 48))))

    def _back(self) -> None:
        if self.rng.random() < 0.3:
            self.one.send(blank(self.rng.choice((0, 1, 5, 6))))
            self._forget()

    def _forget(self) -> None:
        """What is in no track was not written, or is not there any more."""
        tracks = [track for session in self.record.sessions for track in session.tracks]
        self.data = {
            lba: data for lba, data in self.data.items() if any(track.start <= lba < track.end for track in tracks)
        }


@pytest.mark.parametrize("kind", ["cd-rw", "dvd-rw", "dvd+r"])
@given(rng=st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_a_disc_is_what_was_synchronised_last(kind: str, rng: Random) -> None:
    directory = scratch()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setitem(BLANKS, kind, BLANKS[kind]._replace(gaps=(64, 32)))  # files that fit into memory
        monkeypatch.setattr("blockyard.optical.recorder._CHECKPOINT", rng.choice((50_000, 1 << 30)))
        burn = Burn(rng, kind, directory, monkeypatch)
        for _ in range(rng.randrange(3, 20)):
            burn.step()
        entries, saved = list(burn.log.entries), list(burn.saved)
        burn.die()
    names = [burn.image.name, audio_file(burn.image).name]
    for _ in range(4):
        at = rng.randrange(len(entries) + 1)
        known = [(contents, document) for when, contents, document in saved if when <= at]
        contents, document = known[-1]
        for name in names:
            (directory / name).write_bytes(_survives(entries[:at], name, rng))
        (directory / f"{burn.image.name}.disc.json").write_bytes(document)
        for _ in range(2):  # opening it changes nothing of that
            disc = Disc(burn.image)
            for (start, data), track in zip(contents, disc.tracks, strict=True):
                found = b"".join(
                    stored or bytes(track.stride) for _, _, stored in disc.sectors(start, track.end - start)
                )
                assert found == data, f"track {track.number}"
            disc.close()
