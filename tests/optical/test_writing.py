"""Discs that are written: BD-RE, any block again and again."""

from __future__ import annotations

import errno
import random
import struct
from pathlib import Path

import pytest

from blockyard.optical.disc import Disc
from blockyard.optical.drive import Image
from blockyard.scsi.sense import Asc, SenseKey
from tests.optical.drives import (
    EJECT,
    LOAD,
    blank,
    drive,
    get_configuration,
    get_performance,
    host,
    read_disc_information,
    read_disc_structure,
)
from tests.scsi.host import parse_sense

_SYNCHRONIZE = bytes([0x35]) + bytes(9)


def _write(lba: int, count: int, *, fua: bool = False) -> bytes:
    return struct.pack(">BBIxHx", 0x2A, fua << 3, lba, count)


def _read(lba: int, count: int) -> bytes:
    return struct.pack(">BBIxHx", 0x28, 0, lba, count)


def test_blocks_are_written_and_read_again_beside_a_plain_buffer(tmp_path: Path) -> None:
    path = blank(tmp_path / "x.iso", 200)
    one = host(drive(path, "bd-re"))
    content = bytearray(200 * 2048)
    chance = random.Random(5)
    for number in range(60):
        lba = chance.randrange(200)
        count = chance.randint(0, 200 - lba)
        data = chance.randbytes(count * 2048)
        if number % 2:
            one.ok(_write(lba, count, fua=number % 3 == 0), data)
        else:
            one.ok(struct.pack(">BBIIBx", 0xAA, 0, lba, count, 0x80), data)
        content[lba * 2048 : (lba + count) * 2048] = data
        lba = chance.randrange(200)
        assert one.ok(_read(lba, 200 - lba)) == content[lba * 2048 :]
    one.ok(_SYNCHRONIZE)
    one.ok(struct.pack(">BBIxHx", 0x2F, 0, 0, 200))  # VERIFY
    assert path.read_bytes() == content
    assert one.drive.fast_write
    for lba, count in ((200, 1), (199, 2)):
        one.fail(
            _write(lba, count), SenseKey.ILLEGAL_REQUEST, Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE, bytes(count * 2048)
        )


def test_a_host_may_load_what_is_loaded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = host(drive(blank(tmp_path / "x.iso", 10), "bd-re"))
    one.ok(LOAD)
    one.ok(_write(0, 1), b"x" * 2048)
    one.ok(EJECT)
    one.ok(LOAD)
    assert one.ok(_read(0, 1)) == b"x" * 2048
    assert not caplog.records


def test_others_are_not_written(tmp_path: Path) -> None:
    path = blank(tmp_path / "x.iso", 20)
    for kind in ("cd", "dvd", "bd"):
        one = host(drive(path, kind))
        one.fail(_write(0, 1), SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED, bytes(2048))
        one.fail(bytes([0x04, 0, 0, 0, 0, 0]), SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED)
        one.ok(_SYNCHRONIZE)
        assert not one.drive.fast_write


def test_what_was_to_be_written_to_one_disc_does_not_hit_another(tmp_path: Path) -> None:
    one = host(drive(blank(tmp_path / "x.iso", 20), "bd-re"))
    task, refused = one.begin(_write(0, 1), 2048)  # its data is still to come when somebody changes discs
    assert refused is None
    other = blank(tmp_path / "y.iso", 20)
    one.drive.insert(Disc(other, "bd-re"), Image(str(other), "bd-re"))
    task.data_out = b"x" * 2048
    assert parse_sense(one.drive.run(task).sense).key == SenseKey.UNIT_ATTENTION
    assert not any(other.read_bytes())


def test_what_is_told_of_a_disc_that_can_be_written(tmp_path: Path) -> None:
    one = host(drive(blank(tmp_path / "x.iso", 1000), "bd-re"))
    data = one.ok(get_configuration(1))
    assert data[6:8] == b"\x00\x43"
    found, at = {}, 8
    while at < len(data):
        code, flags, length = struct.unpack_from(">HBB", data, at)
        found[code] = flags, data[at + 4 : at + 4 + length].hex()
        at += 4 + length
    assert found[0x20] == (0x05, "000003e70000080000200100")
    assert found[0x23] == (0x05, bytes(8).hex())
    assert found[0x41] == (0x01, "010000000002" + bytes(6).hex() + "0002" + bytes(6).hex())
    assert found[0x40][1][8:12] == "0002"
    assert one.ok(read_disc_information())[2] == 0x1E  # erasable, the session complete, the disc complete
    assert one.ok(struct.pack(">B6xHx", 0x23, 255)).hex() == "".join(
        ("00000020", "000003e802000800", "000003e800000000", "000003e8c0000000", "000003e8c4000000")
    )
    assert one.ok(read_disc_structure(1, 0))[11:15] == b"BDW\0"
    speeds = "".join(f"00000000000003e70000d2ba{53946 >> halved:08x}" for halved in range(3))
    assert one.ok(get_performance(3, number=9)).hex() == f"0000003400000000{speeds}"
    assert one.ok(get_performance(0, 0x14))[4] == 0x02


def test_it_comes_formatted(tmp_path: Path) -> None:
    one = host(drive(blank(tmp_path / "x.iso", 1000), "bd-re"))
    one.ok(_write(5, 1), b"x" * 2048)
    one.ok(bytes([0x04, 0x11, 0, 0, 0, 0]), struct.pack(">BBHIBxxx", 0, 0x02, 8, 1000, 0))
    assert one.ok(_read(5, 1)) == b"x" * 2048
    for wrong in (struct.pack(">BBHIBxxx", 0, 0, 8, 999, 0), struct.pack(">BBHIBxxx", 0, 0, 8, 1000, 0x26 << 2)):
        one.fail(bytes([0x04, 0x11, 0, 0, 0, 0]), SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_PARAMETER_LIST, wrong)
    one.fail(bytes([0x04, 0x11, 0, 0, 0, 0]), SenseKey.ILLEGAL_REQUEST, Asc.PARAMETER_LIST_LENGTH_ERROR, bytes(8))


def test_it_is_in_one_drive_only_and_has_whole_blocks(tmp_path: Path) -> None:
    path = blank(tmp_path / "x.iso", 10)
    one = Disc(path, "bd-re")
    for kind in ("bd-re", "auto"):
        with pytest.raises(OSError, match=r"in use") as raised:
            Disc(path, kind)
        assert raised.value.errno == errno.EBUSY
    one.close()
    (tmp_path / "odd.iso").write_bytes(bytes(512 * 5))
    with pytest.raises(OSError, match="whole blocks"):
        Disc(tmp_path / "odd.iso", "bd-re")
