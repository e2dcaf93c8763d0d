"""Every response of a drive, taken apart byte by byte as MMC-6 lays it out."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from blockyard.optical.commands import OPTICAL_COMMANDS
from blockyard.optical.features import FEATURES
from blockyard.optical.kinds import msf
from blockyard.optical.sectors import SYNC, error_codes, header
from blockyard.scsi.sense import Asc, SenseKey
from tests.optical.drives import (
    DriveHost,
    blank,
    drive,
    get_configuration,
    get_performance,
    host,
    read_cd,
    read_disc_information,
    read_disc_structure,
    read_toc,
    read_track_information,
)
from tests.scsi.host import inquiry, mode_sense_6, mode_sense_10


@pytest.fixture
def empty() -> DriveHost:
    return host(drive())


@pytest.fixture(params=["cd", "dvd", "bd"])  # those that are read only
def any_disc(request: pytest.FixtureRequest, tmp_path: Path) -> DriveHost:
    return host(drive(blank(tmp_path / "x.iso", 1000), request.param))


@pytest.fixture
def cd(tmp_path: Path) -> DriveHost:
    return host(drive(blank(tmp_path / "x.iso", 1000)))


def _two_sessions(directory: Path) -> Path:
    """An image whose volume descriptors say that there is one at 0 and one at 300."""
    path = blank(directory / "two.iso", 500)
    with path.open("r+b") as file:
        for start, size in ((0, 200), (300, 200)):
            file.seek((start + 16) * 2048)
            file.write(b"\x01CD001\x01" + bytes(73) + size.to_bytes(4, "little"))
    return path


# ---- who it is


def test_inquiry_says_a_cd_dvd_device_with_a_removable_medium(empty: DriveHost) -> None:
    data = empty.ok(inquiry())
    assert data[0] == 0x05
    assert data[1] == 0x80
    assert data[5] == 0  # no target port groups: A3h is another command here
    assert data[8:32] == b"BLOCKYRDVirtual BD-RE   "
    assert data[58:66] == bytes.fromhex("00A0 0960 0460 04E0")


def test_vpd_pages(empty: DriveHost) -> None:
    pages = empty.ok(inquiry(0))[4:]
    assert list(pages) == [0x00, 0x80, 0x83, 0x87, 0x88]
    for page in pages:
        data = empty.ok(inquiry(page, 4096))
        assert (data[0], data[1], int.from_bytes(data[2:4], "big")) == (0x05, page, len(data) - 4)
    assert empty.ok(inquiry(0x80))[4:] == b"0badcafe111142228333444455556666"


# ---- GET CONFIGURATION


def _features(data: bytes) -> dict[int, tuple[int, bytes]]:
    """By code: the byte with VERSION, PERSISTENT and CURRENT, and the content."""
    assert int.from_bytes(data[:4], "big") == len(data) - 4
    found, at = {}, 8
    while at < len(data):
        code, flags, length = struct.unpack_from(">HBB", data, at)
        assert length % 4 == 0
        found[code] = flags, data[at + 4 : at + 4 + length]
        at += 4 + length
    assert at == len(data)
    return found


_CURRENT_FEATURES = {
    "cd": {0x10, 0x1D, 0x1E, 0x107},
    "dvd": {0x10, 0x1F, 0x107},
    "bd": {0x10, 0x40, 0x107},
}
_PERSISTENT = {0x00, 0x01, 0x02, 0x03, 0x100, 0x105, 0x108}


def test_all_features_are_told_in_order_and_current_ones_marked(any_disc: DriveHost) -> None:
    disc = any_disc.drive.disc
    assert disc is not None
    data = any_disc.ok(get_configuration())
    assert data[4:6] == b"\0\0"
    assert int.from_bytes(data[6:8], "big") == disc.kind.profile
    found = _features(data)
    assert list(found) == sorted(feature.code for feature in FEATURES)
    current = {code for code, (flags, _) in found.items() if flags & 1}
    assert current == _PERSISTENT | _CURRENT_FEATURES[disc.kind.name]
    assert {code for code, (flags, _) in found.items() if flags & 2} == _PERSISTENT
    assert set(_features(any_disc.ok(get_configuration(1)))) == current


def test_the_profile_list_has_every_profile_and_marks_the_current_one(any_disc: DriveHost) -> None:
    disc = any_disc.drive.disc
    assert disc is not None
    _, profiles = _features(any_disc.ok(get_configuration(2, 0)))[0]
    assert profiles == b"".join(
        struct.pack(">HBB", profile, profile == disc.kind.profile, 0)
        for profile in (
            0x43, 0x41, 0x40, 0x2B, 0x2A, 0x1B, 0x1A, 0x15, 0x14, 0x13, 0x12, 0x11, 0x10, 0x0A, 0x09, 0x08,
        )
    )  # fmt: skip


def test_content_of_features(cd: DriveHost) -> None:
    found = {code: content.hex() for code, (_, content) in _features(cd.ok(get_configuration())).items()}
    assert found[0x01] == "0000000103000000"  # SCSI; DBE and INQ2
    assert found[0x03] == "39000000"  # tray, LOAD, EJECT, LOCK
    assert found[0x10] == "0000080000010100"  # 2048 bytes, 1 block, PP
    assert found[0x40][40:44] == "0002"  # BD-ROM, class 0, version 1
    assert bytes.fromhex(found[0x108]) == b"0badcafe111142228333444455556666"


def test_get_configuration_begins_where_it_is_told(empty: DriveHost) -> None:
    assert list(_features(empty.ok(get_configuration(0, 0x40)))) == [0x40, 0x41, 0x100, 0x105, 0x107, 0x108]
    assert _features(empty.ok(get_configuration(2, 0x0022))) == {}  # there is no such feature
    assert empty.ok(get_configuration())[6:8] == b"\0\0"  # no disc, no profile
    empty.invalid(get_configuration(3), 1, 1)
    assert len(empty.ok(get_configuration(length=8))) == 8


# ---- READ TOC/PMA/ATIP


def test_the_table_of_contents_has_one_track_and_the_lead_out(any_disc: DriveHost) -> None:
    assert any_disc.ok(read_toc(0)).hex() == "0012010100140100000000000014aa00000003e8"
    assert any_disc.ok(read_toc(0, 1, msf=True)).hex() == "0012010100140100000002000014aa0000000f19"
    assert any_disc.ok(read_toc(0, 0xAA)).hex() == "000a01010014aa00000003e8"
    assert any_disc.ok(read_toc(1)).hex() == "000a01010014010000000000"
    any_disc.invalid(read_toc(0, 2), 6)
    any_disc.invalid(read_toc(4), 2, 3)  # ATIP
    any_disc.invalid(read_toc(5), 2, 3)  # CD-TEXT
    assert any_disc.ok(read_toc(0, control=0x40)) == any_disc.ok(read_toc(1))  # the format in the CONTROL byte


def test_the_full_table_and_the_pma_are_of_cds(cd: DriveHost, tmp_path: Path) -> None:
    assert cd.ok(read_toc(2)).hex() == (
        "002e" "0101" "011400a000000000010000" "011400a100000000010000" "011400a200000000000f19" "0114000100000000000200"
    )  # fmt: skip
    assert cd.ok(read_toc(3)) == b"\x00\x02\x00\x00"
    dvd = host(drive(blank(tmp_path / "y.iso", 1000), "dvd"))
    dvd.invalid(read_toc(2), 2, 3)
    dvd.invalid(read_toc(3), 2, 3)


def test_tables_of_two_sessions(tmp_path: Path) -> None:
    two = host(drive(_two_sessions(tmp_path)))
    table = two.ok(read_toc(0))
    assert table[2:4] == b"\x01\x02"
    places = [struct.unpack_from(">xBBxI", table, at) for at in range(4, len(table), 8)]
    assert places == [(0x14, 1, 0), (0x14, 2, 300), (0x14, 0xAA, 500)]
    assert two.ok(read_toc(1)).hex() == "000a0102001402000000012c"  # the last session begins at 300
    full = two.ok(read_toc(2))
    entries = [full[at : at + 11] for at in range(4, len(full), 11)]
    assert [(entry[0], entry[3]) for entry in entries] == [
        (1, 0xA0), (1, 0xA1), (1, 0xA2), (1, 1), (1, 0xB0), (2, 0xA0), (2, 0xA1), (2, 0xA2), (2, 2),
    ]  # fmt: skip
    assert entries[2][8:] == msf(200)
    assert entries[4][4:7] == msf(300)
    assert len(two.ok(read_toc(2, 2))) == 4 + 4 * 11
    assert two.ok(read_disc_information())[4:7] == b"\x02\x02\x02"
    for kind, address in ((0, 350), (1, 2), (2, 2)):
        data = two.ok(read_track_information(kind, address))
        assert data[2:4] == b"\x02\x02"
        assert struct.unpack_from(">I", data, 8) + struct.unpack_from(">II", data, 24) == (300, 200, 499)
    assert two.ok(read_track_information(0, 250))[2] == 1  # between them


# ---- READ DISC INFORMATION, READ TRACK INFORMATION


def test_disc_information(any_disc: DriveHost) -> None:
    data = any_disc.ok(read_disc_information())
    assert data.hex() == "00200e01010101200000000000000000ffffffffffffffff00000000000000000000"
    any_disc.invalid(read_disc_information(1), 1, 2)


def test_track_information(any_disc: DriveHost) -> None:
    data = any_disc.ok(read_track_information(1, 1))
    assert data.hex() == (
        "002e" "01" "01" "00" "04" "01" "02" "00000000" "00000000" "00000000" "00000000" "000003e8" "000003e7"
        "0000" "0000" "00000000" "00000000" "00000000"
    )  # fmt: skip
    for kind, number in ((1, 0), (1, 2), (1, 0xFF), (2, 2)):
        any_disc.invalid(read_track_information(kind, number), 2)
    any_disc.invalid(read_track_information(3, 1), 1, 1)
    any_disc.fail(read_track_information(0, 1000), SenseKey.ILLEGAL_REQUEST, Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE)


# ---- READ DISC STRUCTURE


def test_physical_format_of_a_dvd_with_one_layer(tmp_path: Path) -> None:
    dvd = host(drive(blank(tmp_path / "x.iso", 1000), "dvd"))
    data = dvd.ok(read_disc_structure(0, 0))
    assert (len(data), data[:4]) == (2052, b"\x08\x02\0\0")
    assert data[4:21].hex() == "010f010000030000000303e70000000000"
    assert dvd.ok(read_disc_structure(0, 1)) == b"\x00\x06\0\0" + bytes(4)
    assert dvd.ok(read_disc_structure(0, 0xFF)).hex() == "000e0000004008040140000804400804"
    dvd.invalid(read_disc_structure(0, 2), 7)
    dvd.invalid(read_disc_structure(0, 0, layer=1), 6)
    dvd.fail(read_disc_structure(1, 0), SenseKey.ILLEGAL_REQUEST, Asc.CANNOT_READ_MEDIUM_INCOMPATIBLE_FORMAT)


def test_the_two_layers_of_a_dvd_hold_all_its_blocks(tmp_path: Path) -> None:
    blocks = 3_000_001
    dvd = host(drive(blank(tmp_path / "x.iso", blocks)))
    data = dvd.ok(read_disc_structure(0, 0, layer=1))
    assert data[6] == 0x31  # two layers, opposite track paths
    start, end, middle = struct.unpack_from(">III", data, 8)
    first = middle - start + 1
    assert first % 16 == 0
    assert first + end - (~middle & 0xFFFFFF) + 1 == blocks


def test_disc_information_of_a_bd(tmp_path: Path) -> None:
    bd = host(drive(blank(tmp_path / "x.iso", 20_000_000)))
    data = bd.ok(read_disc_structure(1, 0))
    assert len(data) == 4100
    assert data[4:12].hex() == "4449011000006242"
    assert data[12:15] == b"DO\0"


def test_a_cd_has_no_structures(cd: DriveHost) -> None:
    for kind in (0, 1):
        cd.fail(read_disc_structure(kind, 0), SenseKey.ILLEGAL_REQUEST, Asc.CANNOT_READ_MEDIUM_INCOMPATIBLE_FORMAT)


# ---- READ


def test_read_commands(tmp_path: Path) -> None:
    content = bytes(range(256)) * 8 * 20
    (tmp_path / "x.iso").write_bytes(content)
    cd = host(drive(tmp_path / "x.iso"))
    assert cd.ok(struct.pack(">BBIxHx", 0x28, 0, 2, 3)) == content[2 * 2048 : 5 * 2048]
    assert cd.ok(struct.pack(">BBIIxx", 0xA8, 0, 2, 3)) == content[2 * 2048 : 5 * 2048]
    assert cd.ok(struct.pack(">BBQIxx", 0x88, 0, 2, 3)) == content[2 * 2048 : 5 * 2048]
    assert cd.ok(struct.pack(">BBIIBx", 0xA8, 0, 19, 1, 0x80)) == content[19 * 2048 :]  # STREAMING
    assert cd.ok(struct.pack(">BBIxHx", 0x28, 0, 20 - 1, 0)) == b""
    for lba, count in ((20, 0), (19, 2), (0xFFFFFFFF, 1)):
        cd.fail(
            struct.pack(">BBIxHx", 0x28, 0, lba, count),
            SenseKey.ILLEGAL_REQUEST,
            Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE,
        )
    assert cd.ok(struct.pack(">B9x", 0x25)).hex() == "0000001300000800"
    cd.invalid(struct.pack(">BBIIxx", 0xA8, 0, 0, 1 << 24), 6, 7)
    assert cd.drive.counters.read_bytes == 3 * 3 * 2048 + 2048


def test_read_cd_selects_the_parts_of_a_sector(tmp_path: Path) -> None:
    content = bytes(range(256)) * 8 * 4
    (tmp_path / "x.iso").write_bytes(content)
    cd = host(drive(tmp_path / "x.iso"))
    data = content[2048:4096]
    whole = SYNC + header(1) + data + error_codes(1, data)
    assert cd.ok(read_cd(1, 1, 0xF8)) == whole
    assert cd.ok(read_cd(1, 1, 0x10, sector_type=2)) == data
    assert cd.ok(read_cd(1, 1, 0xB0)) == SYNC + header(1) + data
    assert cd.ok(read_cd(1, 1, 0x20)) == header(1)
    assert cd.ok(read_cd(1, 1, 0x00)) == b""
    assert cd.ok(read_cd(0, 4, 0x10)) == content
    assert cd.ok(bytes([0xB9, 0, 0, 0, 2, 1, 0, 2, 2, 0xF8, 0, 0])) == whole
    cd.invalid(bytes([0xB9, 0, 0, 0, 1, 74, 0, 2, 2, 0x10, 0, 0]), 3)
    cd.invalid(bytes([0xB9, 0, 0, 0, 2, 75, 0, 2, 2, 0x10, 0, 0]), 3)
    cd.invalid(bytes([0xB9, 0, 0, 0, 2, 3, 0, 2, 2, 0x10, 0, 0]), 6)
    cd.fail(read_cd(4, 1), SenseKey.ILLEGAL_REQUEST, Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE)
    cd.fail(read_cd(0, 1, sector_type=1), SenseKey.ILLEGAL_REQUEST, Asc.ILLEGAL_MODE_FOR_THIS_TRACK)
    cd.invalid(read_cd(0, 1, 0x12), 9, 2)
    cd.invalid(read_cd(0, 1, sub_channel=3), 10, 2)
    cd.invalid(read_cd(0, 1, sector_type=6), 1, 4)


def test_read_cd_of_other_discs_gives_user_data_alone(tmp_path: Path) -> None:
    dvd = host(drive(blank(tmp_path / "x.iso", 10), "dvd"))
    assert dvd.ok(read_cd(1, 2)) == bytes(4096)
    dvd.fail(read_cd(1, 2, 0xF8), SenseKey.ILLEGAL_REQUEST, Asc.ILLEGAL_MODE_FOR_THIS_TRACK)


# ---- the rest


def test_mechanism_status_and_capacities(any_disc: DriveHost) -> None:
    assert any_disc.ok(struct.pack(">B7xHxx", 0xBD, 8)) == bytes(8)
    assert any_disc.ok(struct.pack(">B6xHx", 0x23, 255)).hex() == "00000008000003e802000800"
    assert any_disc.ok(struct.pack(">B6xHx", 0x5C, 255)).hex() == "000a00000020000000200000"
    assert any_disc.ok(struct.pack(">BB5xHx", 0x5C, 1, 255)).hex() == "000a00010000040000000400"


def test_performance_and_what_is_said_of_speed(any_disc: DriveHost) -> None:
    disc = any_disc.drive.disc
    assert disc is not None

    def told() -> int:
        header, flags, start, speed, end, end_speed = struct.unpack(">IB3xIIII", any_disc.ok(get_performance()))
        assert (header, flags, start, end, end_speed) == (20, 0, 0, 999, speed)
        page = any_disc.ok(mode_sense_6(0x2A))[4:]
        assert struct.unpack_from(">H", page, 14)[0] == speed
        return int(speed)

    assert told() == disc.kind.speed
    any_disc.ok(struct.pack(">BBHHxxxxxx", 0xBB, 0, 706, 0xFFFF))
    assert told() == 706
    streaming = struct.pack(">B3xIIIIII", 0, 0, 999, 1412, 1000, 1412, 1000)
    any_disc.ok(struct.pack(">B8xHx", 0xB6, 28), streaming)
    assert told() == 1412
    any_disc.ok(struct.pack(">B8xHx", 0xB6, 28), b"\x04" + bytes(27))  # RDD
    assert told() == disc.kind.speed
    any_disc.ok(struct.pack(">BBHHxxxxxx", 0xBB, 0, 0xFFFF, 0xFFFF))
    assert any_disc.ok(get_performance(3)) == b"\0\0\0\x04\0\0\0\0"
    assert any_disc.ok(get_performance(0, 0x14)) == b"\0\0\0\x04\x02\0\0\0"
    any_disc.invalid(get_performance(1), 10)
    any_disc.fail(struct.pack(">B8xHx", 0xB6, 27), SenseKey.ILLEGAL_REQUEST, Asc.PARAMETER_LIST_LENGTH_ERROR, bytes(27))


def test_mode_pages(any_disc: DriveHost) -> None:
    disc = any_disc.drive.disc
    assert disc is not None
    data = any_disc.ok(mode_sense_10(0x3F))
    assert int.from_bytes(data[:2], "big") == len(data) - 2
    assert data[2:8] == bytes(6)  # no block descriptor
    found, at = {}, 8
    while at < len(data):
        long = data[at] & 0x40
        length = 4 + int.from_bytes(data[at + 2 : at + 4], "big") if long else 2 + data[at + 1]
        found[data[at] & 0x3F] = data[at : at + length]
        at += length
    assert list(found) == [0x01, 0x02, 0x05, 0x0A, 0x0D, 0x0E, 0x1A, 0x1D, 0x2A]
    assert found[0x0D][2:].hex() == "000d003c004b"
    assert found[0x2A][:8].hex() == "2a223f37f0672900"
    assert struct.unpack_from(">H", found[0x2A], 8) == (disc.kind.speed,)


def test_the_logical_unit_number_of_scsi_2_is_ignored(cd: DriveHost) -> None:
    """wodim has it in byte 1 of every CDB."""
    cd.ok(bytes([0, 0x20, 0, 0, 0, 0]))
    assert cd.ok(struct.pack(">BBIxHx", 0x28, 0x60, 0, 1)) == bytes(2048)
    cd.invalid(bytes([0, 0x10, 0, 0, 0, 0]), 1, 4)


def test_no_command_takes_a_medium_for_granted(empty: DriveHost) -> None:
    for command in OPTICAL_COMMANDS:
        if command.medium:
            cdb = bytearray(16)
            cdb[0] = command.opcode
            empty.fail(bytes(cdb), SenseKey.NOT_READY, Asc.MEDIUM_NOT_PRESENT_TRAY_CLOSED)
    assert empty.ok(struct.pack(">B6xHx", 0x23, 255)).hex() == "000000080000000003000800"
