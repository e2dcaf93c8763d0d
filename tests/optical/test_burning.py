"""Discs that are written in order: tracks, sessions, and what cannot be taken back."""

from __future__ import annotations

import binascii
import random
import struct
from pathlib import Path

import pytest

from blockyard.optical.disc import Disc
from blockyard.optical.events import MediaEvent
from blockyard.optical.keeping import rename
from blockyard.optical.kinds import msf
from blockyard.scsi.sense import Asc, SenseKey
from tests.optical.burners import (
    FURTHER,
    SESSION_AT_ONCE,
    SYNCHRONIZE,
    blank,
    burner,
    close,
    cue_sheet,
    format_unit,
    next_writable,
    parameters,
    read,
    reserve,
    write,
)
from tests.optical.drives import (
    EJECT,
    LOAD,
    DriveHost,
    drive,
    get_configuration,
    host,
    read_cd,
    read_disc_information,
    read_toc,
    read_track_information,
)

_ILLEGAL = SenseKey.ILLEGAL_REQUEST
_DATA = random.Random(3).randbytes(2048 * 400)


def _information(one: DriveHost) -> tuple[int, int, int, int, int]:
    """Disc status, state of the last session, number of sessions, first and last track of the last one."""
    data = one.ok(read_disc_information())
    return data[2] & 3, data[2] >> 2 & 3, data[4], data[5], data[6]


def _capacity(one: DriveHost) -> int:
    return int(struct.unpack(">II", one.ok(struct.pack(">B9x", 0x25)))[0])


def test_a_cd_r_is_written_track_at_once(tmp_path: Path) -> None:
    one = burner(tmp_path / "x.iso", "cd-r")
    assert one.ok(get_configuration(1))[6:8] == b"\x00\x09"
    assert _information(one) == (0, 0, 1, 1, 1)
    assert next_writable(one) == (0, 359_849)
    assert one.ok(read_toc(4))[12:15] == msf(359_849) == bytes([79, 59, 74])
    one.invalid(read_toc(0), 2, 3)
    one.fail(read(0, 1), _ILLEGAL, Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE)
    parameters(one)
    one.ok(write(0, 30), _DATA[: 30 * 2048])
    one.fail(write(31, 1), _ILLEGAL, Asc.INVALID_ADDRESS_FOR_WRITE, bytes(2048))
    one.fail(write(0, 1), _ILLEGAL, Asc.INVALID_ADDRESS_FOR_WRITE, bytes(2048))  # once
    one.ok(write(30, 370), _DATA[30 * 2048 :])
    assert _information(one) == (1, 1, 1, 1, 1)
    assert next_writable(one) == (400, 359_449)
    one.ok(SYNCHRONIZE)
    one.ok(close(1, 0xFF))
    assert _information(one) == (1, 1, 1, 1, 2)
    assert next_writable(one)[0] == 550  # behind the pregap of the next track
    one.ok(close(2))
    assert _information(one) == (2, 3, 1, 1, 1)
    assert one.ok(read_toc(0)).hex() == "001201010014010000000000" + "0014aa0000000190"
    assert one.ok(read(0, 400)) == _DATA
    assert _capacity(one) == 399
    one.fail(read(399, 2), _ILLEGAL, Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE)
    one.fail(write(400, 1), SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED, bytes(2048))
    one.fail(blank(1), _ILLEGAL, Asc.CANNOT_WRITE_MEDIUM_INCOMPATIBLE_FORMAT)
    assert (tmp_path / "x.iso").read_bytes() == _DATA


def test_a_burned_disc_is_read_in_two_other_drives_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x.iso"
    one = burner(path, "cd-r")
    parameters(one)
    one.ok(write(0, 400), _DATA)
    one.ok(close(2))
    one.ok(EJECT)
    for other in (host(drive(path)), host(drive(path))):
        assert other.ok(read(0, 400)) == _DATA
        assert other.ok(get_configuration(1))[6:8] == b"\x00\x09"
    as_dvd = host(drive(path, "dvd"))
    assert as_dvd.ok(get_configuration(1))[6:8] == b"\x00\x10"
    assert as_dvd.ok(read(0, 400)) == _DATA


def test_sessions_follow_each_other_as_long_as_nobody_finalizes(tmp_path: Path) -> None:
    one = burner(tmp_path / "x.iso", "cd-r")
    parameters(one, multi_session=FURTHER)
    one.ok(write(0, 400), _DATA)
    one.ok(close(2))
    assert _information(one) == (1, 0, 2, 2, 2)
    assert next_writable(one)[0] == 400 + 11_400
    assert one.ok(read_toc(1)).hex() == "000a010100140100" + "00000000"
    one.ok(EJECT)
    one.ok(LOAD)
    parameters(one)
    one.ok(write(11_800, 300), _DATA[: 300 * 2048])
    one.ok(close(2))
    assert _information(one) == (2, 3, 2, 2, 2)
    assert one.ok(read_toc(1)).hex() == "000a01020014020000002e18"
    assert one.ok(read(11_800, 300)) == _DATA[: 300 * 2048]
    assert one.ok(read(0, 400)) == _DATA
    assert one.ok(read(399, 3))[2048:] == bytes(4096)  # between sessions
    assert one.drive.fast_read
    points = one.ok(read_toc(2))
    entries = [points[at : at + 11] for at in range(4, len(points), 11)]
    assert [(entry[0], entry[3]) for entry in entries] == [
        (1, 0xA0), (1, 0xA1), (1, 0xA2), (1, 1), (1, 0xB0), (1, 0xC0), (2, 0xA0), (2, 0xA1), (2, 0xA2), (2, 2),
    ]  # fmt: skip
    assert entries[4][4:7] == msf(11_800)


def test_a_test_write_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.iso"
    one = burner(path, "cd-rw")
    parameters(one, test=1)
    one.ok(write(0, 200), _DATA[: 200 * 2048])
    one.fail(write(0, 1), _ILLEGAL, Asc.INVALID_ADDRESS_FOR_WRITE, bytes(2048))
    one.ok(write(200, 200), _DATA[200 * 2048 :])
    assert next_writable(one)[0] == 400
    one.ok(SYNCHRONIZE)
    one.ok(close(1, 0xFF))
    one.ok(close(2))
    assert _information(one) == (0, 0, 1, 1, 1)
    assert next_writable(one)[0] == 0
    assert path.stat().st_size == 0


def test_a_short_track_of_a_cd_gets_its_four_seconds(tmp_path: Path) -> None:
    one = burner(tmp_path / "x.iso", "cd-r")
    parameters(one)
    one.ok(write(0, 16), _DATA[: 16 * 2048])
    one.ok(close(2))
    assert _capacity(one) == 299
    assert one.ok(read(0, 300)) == _DATA[: 16 * 2048].ljust(300 * 2048, b"\0")


def test_audio_tracks_are_written_and_read_with_their_sub_channel(tmp_path: Path) -> None:
    path = tmp_path / "x.iso"
    one = burner(path, "cd-r")
    sound = random.Random(4).randbytes(2352 * 300)
    parameters(one, block_type=0, track_mode=0)
    one.ok(write(0, 300), sound)
    one.ok(close(1, 0xFF))
    parameters(one, block_type=8)
    start = next_writable(one)[0]
    assert start == 450
    one.ok(write(start, 300), _DATA[: 300 * 2048])
    one.ok(close(2))
    assert one.ok(read_toc(0))[4:].hex() == "0010010000000000" + "00140200000001c2" + "0014aa00000002ee"
    one.fail(read(0, 1), _ILLEGAL, Asc.ILLEGAL_MODE_FOR_THIS_TRACK)
    assert one.ok(read_cd(0, 300, 0xF8, sector_type=1)) == sound
    assert one.ok(read_cd(10, 1, 0x10)) == sound[23_520:][:2352]
    one.fail(read_cd(0, 1, sector_type=2), _ILLEGAL, Asc.ILLEGAL_MODE_FOR_THIS_TRACK)
    q = one.ok(read_cd(80, 1, 0, sub_channel=2))
    assert q[:10].hex() == "01010100" + "010500" + "000305"[0:6]
    raw = one.ok(read_cd(80, 1, 0, sub_channel=1))
    assert bytes(int("".join(str(byte >> 6 & 1) for byte in raw[at : at + 8]), 2) for at in range(0, 96, 8)) == q[:12]
    assert one.ok(read_cd(450, 2, 0x10)) == _DATA[:4096]
    assert path.with_name("x.iso.audio").read_bytes() == sound
    one.ok(EJECT)
    path.with_name("x.iso.audio").rename(tmp_path / "y.iso.audio")  # a crash, when it was to become y
    with pytest.raises(FileNotFoundError, match="give it the name that it was to have"):
        rename(path, "z")
    assert rename(path, "y") == tmp_path / "y.iso"
    assert host(drive(rename(tmp_path / "y.iso", "z"))).ok(read_cd(0, 300, 0xF8)) == sound


def test_session_at_once_goes_by_its_cue_sheet(tmp_path: Path) -> None:
    one = burner(tmp_path / "x.iso", "cd-r")
    sound = random.Random(4).randbytes(2352 * 450)
    parameters(one, write_type=SESSION_AT_ONCE)
    sheet = cue_sheet(
        (0x41, 0, 0, 0x10, msf(-150)), (0x41, 1, 0, 0x10, msf(-150)), (0x41, 1, 1, 0x10, msf(0)),
        (0x01, 2, 0, 0x00, msf(400)), (0x01, 2, 1, 0x00, msf(550)), (0x01, 0xAA, 1, 0x00, msf(850)),
    )  # fmt: skip
    one.ok(*sheet)
    one.fail(write(0, 1), _ILLEGAL, Asc.INVALID_ADDRESS_FOR_WRITE, bytes(2048))
    one.ok(write(-150, 150), bytes(150 * 2048))
    one.ok(write(0, 400), _DATA)
    one.fail(close(2), _ILLEGAL, Asc.COMMAND_SEQUENCE_ERROR)
    one.ok(write(400, 450), sound)
    one.ok(SYNCHRONIZE)
    assert _information(one) == (2, 3, 1, 1, 2)
    assert one.ok(read_toc(0))[4:].hex() == "0014010000000000" + "0010020000000226" + "0010aa0000000352"
    assert one.ok(read(0, 400)) == _DATA
    assert one.ok(read_cd(400, 450, 0xF8)) == sound
    assert one.ok(read_cd(400, 1, 0, sub_channel=2))[1:3] == b"\x02\x00"  # its pregap is index 0


def _q_of(raw: bytes) -> bytes:
    """The Q sub-channel of 96 bytes with all of them."""
    return int("".join(str(byte >> 6 & 1) for byte in raw), 2).to_bytes(12, "big")


def test_codes_and_indexes_of_a_cue_sheet_are_in_the_sub_channel(tmp_path: Path) -> None:
    path = tmp_path / "x.iso"
    one = burner(path, "cd-r")
    parameters(one, write_type=SESSION_AT_ONCE)

    def code(adr: int, track: int, text: bytes) -> bytes:
        return b"".join(bytes([adr, track]) + text[at : at + 6].ljust(6, b"\0") for at in (0, 6))

    codes = b"\x021234567" + b"\x02890123\0" + code(0x03, 1, b"DEABC2600001") + code(0x03, 2, b"DEZ092600002")
    cdb, sheet = cue_sheet(
        (0x01, 0, 0, 0x00, msf(-150)), (0x01, 1, 0, 0x00, msf(-150)), (0x01, 1, 1, 0x00, msf(0)),
        (0x01, 2, 0, 0x00, msf(300)), (0x01, 2, 1, 0x00, msf(450)), (0x01, 2, 2, 0x00, msf(500)),
        (0x01, 0xAA, 1, 0x00, msf(600)),
    )  # fmt: skip
    sheet = codes + sheet
    one.ok(cdb[:6] + len(sheet).to_bytes(3, "big") + cdb[9:], sheet)
    for lba in range(-150, 600, 150):
        one.ok(write(lba, 150), bytes(150 * 2352))
    one.ok(SYNCHRONIZE)
    one.ok(EJECT)
    reader = host(drive(path))
    raw = reader.ok(read_cd(0, 600, 0, sub_channel=1))
    seen = [_q_of(raw[at : at + 96]) for at in range(0, len(raw), 96)]
    position = reader.ok(read_cd(0, 600, 0, sub_channel=2))
    for lba, q in enumerate(seen):
        assert int.from_bytes(q[10:], "big") == ~binascii.crc_hqx(q[:10], 0) & 0xFFFF
        assert q[9] == position[16 * lba + 9], "the frame stands in all of them"
        if q[0] == 1:
            assert q == position[16 * lba :][:12]
        else:
            isrc = "5154524c26000010" if lba < 300 else "515a802426000020"
            assert q[1:9].hex() == {2: "1234567890123000", 3: isrc}[q[0]]
    for adr in (2, 3):
        assert all(any(q[0] == adr for q in seen[at : at + 100]) for at in range(501))
    starts = [0, *(lba for lba in range(1, 600) if position[16 * lba + 1 :][:2] != position[16 * lba - 15 :][:2])]
    assert starts == [0, 300, 450, 500]
    assert all(seen[lba][0] == 1 for lba in starts)
    told = reader.ok(struct.pack(">BBBBxxBHx", 0x42, 0, 0x40, 3, 2, 24))
    assert (told[5], told[8:21]) == (0x30, b"\x80DEZ092600002")


def test_a_cue_sheet_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    one = burner(tmp_path / "x.iso", "cd-r")
    parameters(one, write_type=SESSION_AT_ONCE)
    head, tail = (0x41, 0, 0, 0x10, msf(-150)), (0x41, 0xAA, 1, 0x10, msf(500))
    good = (0x41, 1, 0, 0x10, msf(-150)), (0x41, 1, 1, 0x10, msf(0))
    for lines in (
        (head, tail), (*good, tail), (head, good[0], tail), (head, *good, (0x41, 3, 1, 0x10, msf(400)), tail),
        (head, *good, (0x41, 0xAA, 1, 0x10, msf(-20))), (head, good[0], (0x41, 1, 1, 0x77, msf(0)), tail),
        (head, (0x41, 1, 0, 0x10, msf(0)), (0x41, 1, 1, 0x10, msf(150)), tail),
    ):  # fmt: skip
        one.fail(*_swapped(cue_sheet(*lines), Asc.INVALID_FIELD_IN_PARAMETER_LIST))
    one.fail(
        *_swapped(
            cue_sheet(head, *good, (0x41, 0xAA, 1, 0x10, msf(359_850))), Asc.END_OF_USER_AREA_ENCOUNTERED_ON_THIS_TRACK
        )
    )
    assert _information(one) == (0, 0, 1, 1, 1)


def _swapped(command: tuple[bytes, bytes], asc: Asc) -> tuple[bytes, SenseKey, Asc, bytes]:
    return command[0], _ILLEGAL, asc, command[1]


@pytest.mark.parametrize(("kind", "gap"), [("dvd-r", 12_288), ("dvd+r", 2_048), ("bd-r", 0), ("dvd-r-dl", 12_288)])
def test_other_discs_are_written_in_increments(tmp_path: Path, kind: str, gap: int) -> None:
    one = burner(tmp_path / "x.iso", kind)
    parameters(one, write_type=0, multi_session=FURTHER)
    assert _information(one) == (0, 0, 1, 1, 1)
    one.ok(write(0, 400), _DATA)
    one.ok(SYNCHRONIZE)
    one.ok(close(1, 1))
    one.ok(close(2))
    assert _information(one) == (1, 0, 2, 2, 2)
    blocking = one.drive.disc.kind.blocking if one.drive.disc is not None else 1
    second = -(-(400 + gap) // blocking) * blocking
    assert next_writable(one)[0] == second
    one.ok(write(second, 10), _DATA[:20480])
    assert one.ok(read(second, 10)) == _DATA[:20480]
    one.ok(close(6))
    assert _information(one)[0] == 2
    assert one.ok(read(0, 400)) == _DATA


def test_a_reserved_track_keeps_its_place(tmp_path: Path) -> None:
    one = burner(tmp_path / "x.iso", "dvd-r", 1600)
    parameters(one, write_type=0)
    one.ok(reserve(100))
    assert one.ok(read_track_information(1, 1))[6] & 0xC0 == 0xC0  # reserved, blank
    assert next_writable(one) == (112, 1488)
    one.ok(write(112, 5), bytes(10240))
    one.ok(write(0, 10), _DATA[:20480])
    one.fail(write(10, 103), _ILLEGAL, Asc.END_OF_USER_AREA_ENCOUNTERED_ON_THIS_TRACK, bytes(103 * 2048))
    one.ok(close(1, 1))
    data = one.ok(read_track_information(1, 1))
    assert struct.unpack_from(">I", data, 24)[0] == 112
    one.fail(reserve(16), _ILLEGAL, Asc.COMMAND_SEQUENCE_ERROR)
    one.ok(close(2))
    assert one.ok(read(0, 117)) == _DATA[:20480].ljust(117 * 2048, b"\0")


def test_a_dvd_r_is_written_at_once(tmp_path: Path) -> None:
    one = burner(tmp_path / "x.iso", "dvd-r")
    parameters(one, write_type=SESSION_AT_ONCE)
    one.ok(reserve(400))
    one.ok(write(0, 400), _DATA)
    one.ok(SYNCHRONIZE)
    assert _information(one) == (2, 3, 1, 1, 1)
    one.ok(close(2))
    assert one.ok(read(0, 400)) == _DATA


def test_what_another_disc_was_written_by_does_not_close_this_one(tmp_path: Path) -> None:
    """The write parameters are those of the drive: they stay when discs change."""
    for kind in ("bd-r", "dvd+r", "dvd-r"):
        one = burner(tmp_path / f"{kind}.iso", kind)
        parameters(one, write_type=SESSION_AT_ONCE)
        for lba in (0, 16, 32):
            one.ok(write(lba, 16), _DATA[: 16 * 2048])
        assert _information(one)[:2] == (1, 1)


def test_a_rewritable_disc_is_blanked(tmp_path: Path) -> None:
    path = tmp_path / "x.iso"
    one = burner(path, "cd-rw")
    for kind in (0, 1):
        parameters(one)
        one.ok(write(0, 400), _DATA)
        one.ok(close(2))
        assert _information(one)[0] == 2
        one.ok(EJECT)
        one.ok(LOAD)  # it is there for reading, and can be blanked
        one.ok(blank(kind))
        assert _information(one) == (0, 0, 1, 1, 1)
        assert path.stat().st_size == 0
        one.fail(read(0, 1), _ILLEGAL, Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE)
    one.invalid(blank(7), 1, 2)


def test_a_closed_disc_is_blanked_and_formatted_where_it_is_in_one_drive_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.iso"
    one = burner(path, "dvd-rw", 1000)
    for command in (blank(1), blank(6), blank(5), format_unit(0x15)):
        parameters(one, write_type=0)
        one.ok(write(0, 400), _DATA)
        one.ok(close(2))
        one.ok(EJECT)
        one.ok(LOAD)
        other = host(drive(path))
        cdb, data = command if isinstance(command, tuple) else (command, b"")
        one.fail(cdb, SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED, data)
        assert other.ok(read(0, 400)) == _DATA
        other.ok(EJECT)
        one.ok(cdb, data)
        if command == blank(5):
            one.ok(blank(1))
    assert _information(one) == (2, 3, 1, 1, 1)
    one.ok(write(999, 1), b"x" * 2048)
    assert one.ok(read(998, 2)) == bytes(2048) + b"x" * 2048


def test_a_disc_is_written_as_what_it_was_made_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.iso"
    one = burner(path, "cd-r")
    parameters(one)
    one.ok(write(0, 400), _DATA)
    one.ok(close(2))
    one.drive.close()
    with pytest.raises(OSError, match="made as a CD-R"):
        Disc(path, "bd-re")
    Disc(path, "bd").close()


def test_what_came_last_is_taken_back(tmp_path: Path) -> None:
    one = burner(tmp_path / "x.iso", "cd-rw")
    parameters(one, multi_session=FURTHER)
    for start in (0, 11_700):
        one.ok(write(start, 300), _DATA[: 300 * 2048])
        one.ok(close(2))
    one.ok(blank(6))  # the last session
    assert _information(one) == (1, 0, 2, 2, 2)
    assert next_writable(one)[0] == 11_700
    one.ok(blank(5))  # its end
    assert _information(one) == (1, 1, 1, 1, 2)
    one.ok(blank(4, 100))  # the tail of its track
    assert next_writable(one)[0] == 100
    one.ok(write(100, 300), _DATA[: 300 * 2048])
    one.ok(close(2))
    assert one.ok(read(0, 400)) == _DATA[: 100 * 2048] + _DATA[: 300 * 2048]
    one.fail(blank(4, 100), _ILLEGAL, Asc.INVALID_FIELD_IN_CDB)


@pytest.mark.parametrize(
    ("kind", "form", "profile"),
    [("dvd-ram", 0x00, 0x12), ("dvd+rw", 0x26, 0x1A), ("bd-re", 0x00, 0x43), ("dvd-rw", 0x15, 0x13), ("cd-rw", 0x10, 0x0A),
     ("dvd+rw-dl", 0x26, 0x2A)],
)  # fmt: skip
def test_formatting_makes_any_block_writable(tmp_path: Path, kind: str, form: int, profile: int) -> None:
    one = burner(tmp_path / "x.iso", kind, 2000)
    if kind.startswith("dvd+rw"):
        one.fail(write(0, 1), _ILLEGAL, Asc.MEDIUM_NOT_FORMATTED, bytes(2048))
    assert _information(one)[0] == (2 if kind in ("dvd-ram", "bd-re") else 0)  # these come formatted
    one.ok(*format_unit(form))
    assert int.from_bytes(one.ok(get_configuration(1))[6:8], "big") == profile
    assert _information(one) == (2, 3, 1, 1, 1)
    assert _capacity(one) == 1999
    one.ok(write(1000, 400), _DATA)
    one.ok(write(1000, 1), b"x" * 2048)
    one.ready()
    one.ok(SYNCHRONIZE)
    one.ok(close(0))
    assert one.event() == (MediaEvent.NO_CHANGE, 2)
    one.ok(close(2))  # which says that it is burned: now it is time to look at it again
    assert one.event() == (MediaEvent.NEW_MEDIA, 2)
    one.ok(EJECT)
    one.ok(LOAD)
    assert one.ok(read(999, 402)) == bytes(2048) + b"x" * 2048 + _DATA[2048:] + bytes(2048)
    assert one.drive.fast_write
    if kind in ("dvd-rw", "cd-rw"):
        one.ok(blank(1))
        assert _information(one)[0] == 0
        assert not one.drive.fast_write
        assert next_writable(one)[0] == 0


def test_a_bd_r_that_is_formatted_for_it_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "x.iso"
    one = burner(path, "bd-r", 4096)
    assert _feature(one, 0x38) == 0
    _refused(one, _with_subtype(2), Asc.INVALID_FIELD_IN_PARAMETER_LIST)
    one.ok(*_with_subtype(0))
    assert _feature(one, 0x38) == 1
    assert one.ok(read_disc_information(2))[:4] == bytes([0, 14, 0x40, 0])
    one.ok(write(0, 400), _DATA)
    one.ok(write(16, 16), b"x" * 32768)
    one.ok(write(390, 20), b"y" * 40960)  # ten of them are there, and ten are not
    one.fail(write(500, 1), _ILLEGAL, Asc.INVALID_ADDRESS_FOR_WRITE, bytes(2048))
    assert _capacity(one) == 409
    one.ok(SYNCHRONIZE)
    one.ok(EJECT)
    one.ok(LOAD)
    expected = _DATA[: 16 * 2048] + b"x" * 32768 + _DATA[32 * 2048 : 390 * 2048] + b"y" * 40960
    assert one.ok(read(0, 410)) == expected == path.read_bytes()
    assert next_writable(one)[0] == 410
    one.ready()
    one.ok(write(16, 16), b"x" * 32768)
    one.ok(close(1, 1))
    assert one.event() == (MediaEvent.NEW_MEDIA, 2), "what is in its place is looked at again"
    one.ok(close(6))
    one.fail(write(0, 1), SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED, bytes(2048))


def test_a_bd_r_is_not_overwritten_otherwise(tmp_path: Path) -> None:
    one = burner(tmp_path / "x.iso", "bd-r", 4096)
    one.ok(*_with_subtype(1))
    assert _feature(one, 0x38) == 0
    one.fail(read_disc_information(2), _ILLEGAL, Asc.INVALID_FIELD_IN_CDB)
    one.ok(write(0, 400), _DATA)
    one.fail(write(0, 1), _ILLEGAL, Asc.INVALID_ADDRESS_FOR_WRITE, bytes(2048))
    _refused(one, _with_subtype(0), Asc.COMMAND_SEQUENCE_ERROR)


def _refused(one: DriveHost, request: tuple[bytes, bytes], asc: Asc) -> None:
    command, data = request
    one.fail(command, _ILLEGAL, asc, data)


def _feature(one: DriveHost, code: int) -> int:
    """CURRENT of a feature."""
    return int(one.ok(get_configuration(2, code))[10] & 1)


def _with_subtype(subtype: int) -> tuple[bytes, bytes]:
    """FORMAT UNIT of a BD-R: in order with POW or without, or at random."""
    command, data = format_unit(0x32)
    return command, data[:8] + bytes([data[8] | subtype]) + data[9:]


def test_what_is_synchronised_is_there_after_the_process_has_died(tmp_path: Path) -> None:
    path = tmp_path / "x.iso"
    one = burner(path, "dvd+r")
    one.ok(write(0, 100), _DATA[: 100 * 2048])
    one.ok(SYNCHRONIZE)
    one.ok(write(100, 100), _DATA[100 * 2048 : 200 * 2048])
    disc = one.drive.disc
    assert disc is not None
    for device in disc.files:  # it dies
        device.close()
    again = host(drive(path))
    assert again.ok(read(0, 100)) == _DATA[: 100 * 2048]
    again.fail(read(100, 1), _ILLEGAL, Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE)
    assert path.stat().st_size == 100 * 2048
    assert next_writable(again)[0] == 100


def test_a_burn_at_once_that_is_cut_short_leaves_a_disc_that_ends_in_errors(tmp_path: Path) -> None:
    path = tmp_path / "x.iso"
    one = burner(path, "cd-r")
    parameters(one, write_type=SESSION_AT_ONCE)
    one.ok(
        *cue_sheet(
            (0x41, 0, 0, 0x10, msf(-150)), (0x41, 1, 0, 0x10, msf(-150)), (0x41, 1, 1, 0x10, msf(0)),
            (0x41, 0xAA, 1, 0x10, msf(400)),
        )
    )  # fmt: skip
    one.ok(write(-150, 150), bytes(150 * 2048))
    one.ok(write(0, 100), _DATA[: 100 * 2048])
    one.ok(EJECT)
    one.ok(LOAD)
    assert _information(one) == (2, 3, 1, 1, 1)
    assert _capacity(one) == 399
    assert one.ok(read(0, 100)) == _DATA[: 100 * 2048]
    assert one.fail(read(98, 10), SenseKey.MEDIUM_ERROR, Asc.UNRECOVERED_READ_ERROR).information == 100
    assert one.ok(read_track_information(1, 1))[5] & 0x20  # damaged
    disc = Disc(path)
    assert disc.device.read_only
    disc.close()
