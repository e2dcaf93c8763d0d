"""Cue sheets: the tracks of a CD in files, read in whole sectors and as other programs read them."""

from __future__ import annotations

import contextlib
import random
import struct
import wave
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockyard.optical import cuesheet
from blockyard.optical.disc import Disc
from blockyard.optical.export import check, export
from blockyard.optical.kinds import msf
from blockyard.optical.sectors import SYNC, SectorType, edc, q_channel, sector
from blockyard.scsi.sense import Asc, SenseKey
from tests.conftest import need, run
from tests.media.scratch import scratch
from tests.optical.drives import directory, drive, host, iso, read_cd, read_toc

_CHANCE = random.Random(11)
_DATA = _CHANCE.randbytes(2048 * 300)
_SOUND = _CHANCE.randbytes(2352 * 400)
_MIXED = """\
CATALOG 1234567890123
TITLE "All of it"
PERFORMER "Them"
FILE "x.bin" BINARY
  TRACK 01 MODE1/2048
    INDEX 01 00:00:00
  TRACK 02 AUDIO
    TITLE "A song"
    FLAGS DCP
    ISRC ABCDE1234567
    PREGAP 00:02:00
    INDEX 00 00:04:00
    INDEX 01 00:04:25
    INDEX 02 00:06:00
"""


def _sheet(folder: Path, text: str, **files: bytes) -> Path:
    for name, data in files.items():
        (folder / f"{name}.bin").write_bytes(data)
    path = folder / "x.cue"
    path.write_text(text)
    return path


def test_a_disc_of_data_and_sound(tmp_path: Path) -> None:
    one = host(drive(_sheet(tmp_path, _MIXED, x=_DATA + _SOUND)))
    # 300 blocks, two seconds that are in no file, a pause of 25 frames, sound
    places = [struct.unpack_from(">xBBxI", one.ok(read_toc(0)), at) for at in range(4, 28, 8)]
    assert places == [(0x14, 1, 0), (0x12, 2, 475), (0x12, 0xAA, 850)]
    assert one.ok(struct.pack(">BxIxHx", 0x28, 0, 300)) == _DATA
    one.fail(struct.pack(">BxIxHx", 0x28, 475, 1), SenseKey.ILLEGAL_REQUEST, Asc.ILLEGAL_MODE_FOR_THIS_TRACK)
    assert one.ok(read_cd(450, 400, 0x10, sector_type=1)) == _SOUND
    indexes = [one.ok(read_cd(lba, 1, 0, sub_channel=2))[2] for lba in (450, 474, 475, 599, 600)]
    assert indexes == [0, 0, 1, 1, 2]
    assert one.ok(struct.pack(">BBBB3xHx", 0x42, 0, 0x40, 2, 24))[8:22] == b"\x801234567890123"
    assert one.ok(struct.pack(">BBBBxxBHx", 0x42, 0, 0x40, 3, 2, 24))[8:21] == b"\x80ABCDE1234567"
    assert b"All of it\0\0A" in one.ok(read_toc(5))  # the disc, the first track, the second one


def test_other_programs_see_the_same_tracks(tmp_path: Path) -> None:
    """cd-info reads the cue sheet itself. (Its lead-out is wrong where sectors have several sizes.)"""
    need("cd-info", "libcdio-utils")
    data = iso(tmp_path / "d.iso", directory(tmp_path / "d", ["a"], 1_000_000)).read_bytes()
    text = _MIXED.replace("PREGAP 00:02:00\n    ", "").replace("00:04:", "00:09:").replace("00:06:", "00:10:")
    path = _sheet(tmp_path, text, x=data.ljust(2048 * 675, b"\0") + _SOUND)
    output = run(["cd-info", "--no-cddb", "--no-device-info", "-c", path]).stdout
    disc = Disc(path)
    for track in disc.tracks:
        assert f"{track.number}: {_time(track.start)}  {track.start:06}" in output
    assert "TITLE: A song" in output
    assert disc.read(0, 16) == bytes(32768)
    disc.close()


def _time(lba: int) -> str:
    return ":".join(f"{part:02}" for part in msf(lba))


def test_sectors_of_every_form(tmp_path: Path) -> None:
    """What is computed of a sector of one form is what a file of whole sectors has of it."""
    whole = {}
    for mode, size in (("MODE1/2048", 2048), ("MODE2/2048", 2048), ("MODE2/2336", 2336), ("AUDIO", 2352)):
        folder = tmp_path / mode.replace("/", "-")
        folder.mkdir()
        head = b"\0\0\x28\0" * 2 if size == 2336 else b""  # sub-header of form 2
        content = (head + _CHANCE.randbytes(size - len(head))) * 4
        text = f'FILE "x.bin" BINARY\n TRACK 01 {mode}\n  INDEX 01 00:00:00\n'
        disc = Disc(_sheet(folder, text, x=content))
        found = [sector(track, lba, stored) for track, lba, stored in disc.sectors(0, 4)]
        whole[mode] = b"".join(b"".join(each[1:]) for each in found)
        assert len(whole[mode]) == 4 * 2352
        assert found[3].kind == {
            "MODE1/2048": SectorType.MODE_1, "MODE2/2048": SectorType.FORM_1, "MODE2/2336": SectorType.FORM_2,
            "AUDIO": SectorType.AUDIO,
        }[mode]  # fmt: skip
        disc.close()
        if mode != "AUDIO":
            assert whole[mode][2352:].startswith(SYNC + bytes([0, 2, 1, 1 if mode.startswith("MODE1") else 2]))
            raw = f'FILE "x.bin" BINARY\n TRACK 01 {mode[:5]}/2352\n  INDEX 01 00:00:00\n'
            again = Disc(_sheet(folder, raw, x=whole[mode]))
            assert b"".join(b"".join(sector(*each)[1:]) for each in again.sectors(0, 4)) == whole[mode]
            if size == 2048:
                assert again.read(0, 4) == content
            again.close()
    assert edc(whole["MODE2/2048"][16:2076]) == 0  # the CRC of sub-header and data, with itself


def test_samples_of_a_wave_file(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "x.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(44_100)
        file.writeframes(_SOUND)
    path = _sheet(tmp_path, 'FILE "x.wav" WAVE\n TRACK 01 AUDIO\n  INDEX 01 00:00:00\n')
    disc = Disc(path)
    assert disc.blocks == 400
    assert b"".join(stored for _, _, stored in disc.sectors(0, 400)) == _SOUND
    disc.close()


def test_sessions_of_a_cue_sheet(tmp_path: Path) -> None:
    text = 'FILE "a.bin" BINARY\nREM SESSION 01\n TRACK 01 AUDIO\n  INDEX 01 00:00:00\n'
    text += 'REM SESSION 02\nFILE "b.bin" BINARY\n TRACK 02 MODE1/2048\n  INDEX 01 00:00:00\n'
    disc = Disc(_sheet(tmp_path, text, a=_SOUND, b=_DATA))
    assert [(session.start, session.end) for session in disc.sessions] == [(0, 400), (11_800, 12_100)]
    assert disc.read(11_800, 300) == _DATA
    disc.close()


def test_what_is_exported_is_the_same_disc(tmp_path: Path) -> None:
    disc, seen = Disc(_sheet(tmp_path, _MIXED, x=_DATA + _SOUND)), list[int]()
    with pytest.raises(ValueError, match=r"ends in \.cue"):
        export(disc, tmp_path / "y.iso", seen.append)
    (tmp_path / "mine").write_bytes(b"not the server's")
    (tmp_path / ".y.bin.part").symlink_to(tmp_path / "mine")
    export(disc, tmp_path / "y.cue", seen.append)
    assert (tmp_path / "mine").read_bytes() == b"not the server's"
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in ("y.cue", "y.bin")} == {0o600}
    with pytest.raises(FileExistsError):
        export(disc, tmp_path / "y.cue", seen.append)
    assert (tmp_path / "y.bin").stat().st_size == 700 * 2352 == check(disc, tmp_path / "z.cue")
    assert seen == sorted(seen)
    assert not list(tmp_path.glob(".*"))
    again = Disc(tmp_path / "y.cue")
    assert again.read(0, 300) == _DATA
    for lba in (0, 450, 475, 600, 849):
        [(track, _, stored)], [(one, _, other)] = again.sectors(lba, 1), disc.sectors(lba, 1)
        assert sector(track, lba, stored) == sector(one, lba, other)
        assert q_channel(track, lba) == q_channel(one, lba)
    assert again.text.catalog == "1234567890123"
    disc.close()
    again.close()


def test_a_copy_that_is_stopped_leaves_nothing(tmp_path: Path) -> None:
    disc = Disc(_sheet(tmp_path, _MIXED, x=_DATA + _SOUND))
    before = sorted(tmp_path.iterdir())

    def stop(done: int) -> None:
        if done > 300 * 2352:
            assert (tmp_path / "y.bin").stat().st_size == 0, "nobody takes a part for the whole"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(disc, tmp_path / "y.cue", stop)
    disc.close()
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no track"),
        ("NONSENSE 1", "line 1: NONSENSE"),
        ('FILE "x.bin" MP3', "BINARY or WAVE"),
        ('FILE "/etc/passwd" BINARY', "does not lie beside"),
        ('FILE "../x.bin" BINARY', "does not lie beside"),
        (" TRACK 01 AUDIO", "in no FILE"),
        ('FILE "x.bin" BINARY\n TRACK 02 AUDIO', "not the next one"),
        ('FILE "x.bin" BINARY\n TRACK 01 AUDIO\n', "no INDEX 01"),
        ('FILE "x.bin" BINARY\n TRACK 01 MODE9/2048\n', "a track is"),
        ('FILE "x.bin" BINARY\n TRACK 01 AUDIO\n INDEX 01 00:60:00\n', "is no time"),
        ('FILE "x.bin" BINARY\n TRACK 01 AUDIO\n INDEX 01 00:50:00\n', "ends before track 1"),
        ('FILE "x.bin" BINARY\n TRACK 01 AUDIO\n INDEX 01 00:01:00\n INDEX 00 00:02:00\n', "not in order"),
        ('FILE "x.bin" BINARY\n TRACK 01 AUDIO\n INDEX 01 00:01:00\n TRACK 02 AUDIO\n INDEX 01 00:01:00\n', "does not come"),
    ],
)  # fmt: skip
def test_what_is_no_cue_sheet_is_told_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(OSError, match=message):
        Disc(_sheet(tmp_path, text, x=_SOUND))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"y\.bin"):
        Disc(_sheet(tmp_path, 'FILE "y.bin" BINARY\n TRACK 01 AUDIO\n INDEX 01 00:00:00\n'))


_WORDS = st.sampled_from(
    ["FILE", '"x.bin"', "BINARY", "WAVE", "TRACK", "01", "02", "AUDIO", "MODE1/2048", "INDEX", "00:00:00", "00:03:10", "PREGAP",
     "99:59:74", "REM", "SESSION", "\n", '"', "FLAGS", "ISRC", "CATALOG", "-1", "x"]
)  # fmt: skip


@given(words=st.lists(_WORDS, max_size=40))
@settings(max_examples=150, deadline=None)
def test_no_cue_sheet_confounds_its_reader(words: list[str]) -> None:
    path = _sheet(scratch(), " ".join(words), x=bytes(2352 * 10))
    with contextlib.suppress(ValueError, FileNotFoundError, IsADirectoryError):
        cuesheet.read(path)
