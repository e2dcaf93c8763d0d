"""Images as discs: their kinds, their sessions, and what surrounds their data in a sector."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from blockyard.optical import kinds, record
from blockyard.optical.disc import Disc
from blockyard.optical.jukebox import find, images
from blockyard.optical.kinds import BD, CD, DVD, kind_of, lba_of, msf
from blockyard.optical.layout import Form, Session, Track
from blockyard.optical.sectors import SYNC, edc, error_codes, header
from tests.conftest import run
from tests.optical.drives import blank, directory, iso


@pytest.mark.parametrize(
    ("blocks", "kind", "layers"),
    [
        (1, CD, 1),
        (360_000, CD, 1),
        (360_001, DVD, 1),
        (2_298_496, DVD, 1),
        (2_298_497, DVD, 2),
        (4_173_824, DVD, 2),
        (4_173_825, BD, 1),
        (12_219_393, BD, 2),
        (62_500_864, BD, 4),
    ],
)
def test_the_size_of_an_image_makes_it_a_cd_dvd_or_bd(
    tmp_path: Path, blocks: int, kind: kinds.Kind, layers: int
) -> None:
    disc = Disc(blank(tmp_path / "x.iso", blocks))
    assert (disc.kind, disc.layers, disc.blocks) == (kind, layers, blocks)
    disc.close()


def test_the_kind_can_be_chosen_where_the_image_fits() -> None:
    assert kind_of(100, "bd") is BD
    assert kind_of(445_000, "cd") is CD  # 99 minutes: more than discs usually have
    with pytest.raises(ValueError, match=r"a CD has 449850 at most"):
        kind_of(449_851, "cd")
    with pytest.raises(ValueError, match="serve it as a disk"):
        kind_of(62_500_865)


def test_what_is_no_disc_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no disc"):
        Disc(blank(tmp_path / "big.iso", 449_851), "cd")
    with pytest.raises(OSError, match="smaller than one sector"):
        Disc(blank(tmp_path / "none.iso", 0))
    with pytest.raises(FileNotFoundError):
        Disc(tmp_path / "missing.iso")


def test_an_image_may_end_within_a_block(tmp_path: Path) -> None:
    (tmp_path / "x.iso").write_bytes(b"x" * (2048 + 1001))
    disc = Disc(tmp_path / "x.iso")
    assert disc.blocks == 2
    assert disc.read(1, 1) == b"x" * 1001 + bytes(1047)
    disc.close()


def test_a_disc_that_is_closed_cannot_be_read(tmp_path: Path) -> None:
    disc = Disc(blank(tmp_path / "x.iso", 1))
    disc.close()
    with pytest.raises(OSError, match="taken out"):
        disc.read(0, 1)


def test_addresses_in_minutes_seconds_and_frames() -> None:
    assert msf(0) == bytes([0, 2, 0])
    assert msf(449_849) == bytes([99, 59, 74])
    assert msf(BD.most) == bytes([255, 59, 74])  # larger discs have addresses that MSF cannot say
    for lba in (0, 74, 75, 4_499, 4_500, 300_000):
        assert lba_of(*msf(lba)) == lba


# ---- sessions


def _spans(disc: Disc) -> list[tuple[int, int]]:
    return [(session.start, session.end) for session in disc.sessions]


def test_each_session_of_a_multi_session_image_is_found(tmp_path: Path) -> None:
    first = iso(tmp_path / "1.iso", directory(tmp_path / "one", ["a"]))
    disc = Disc(first)
    assert _spans(disc) == [(0, disc.blocks)]
    disc.close()
    blocks = first.stat().st_size // 2048
    start = blocks + 11_400  # the lead-out of the first session and the lead-in of the second
    add = iso(tmp_path / "2.iso", directory(tmp_path / "two", ["b"]), "-C", f"0,{start}", "-M", str(first))
    with (tmp_path / "both.iso").open("wb") as both:
        both.write(first.read_bytes())
        both.seek(start * 2048)
        both.write(add.read_bytes())
    disc = Disc(tmp_path / "both.iso")
    assert len(disc.sessions) == 2
    assert _spans(disc)[1] == (start, disc.blocks)
    assert blocks - 150 <= disc.sessions[0].end <= blocks  # genisoimage pads by 150 blocks
    disc.close()


def test_an_image_that_was_padded_has_one_session(tmp_path: Path) -> None:
    path = iso(tmp_path / "x.iso", directory(tmp_path / "d", ["a"]))
    with path.open("ab") as file:
        file.truncate(path.stat().st_size + (40 << 20))
    disc = Disc(path)
    assert _spans(disc) == [(0, disc.blocks)]
    disc.close()


def test_an_image_in_an_image_is_no_session(tmp_path: Path) -> None:
    inner = directory(tmp_path / "inner", ["a"])
    outer = directory(tmp_path / "outer", ["b"])
    iso(outer / "inner.iso", inner)
    disc = Disc(iso(tmp_path / "x.iso", outer))
    assert len(disc.sessions) == 1
    disc.close()


# ---- sectors


def _multiply(a: int, b: int) -> int:
    product = 0
    while b:
        product ^= a if b & 1 else 0
        a = a << 1 ^ (0x11D if a & 0x80 else 0)
        b >>= 1
    return product


def _syndromes(word: list[int]) -> tuple[int, int]:
    """Of a Reed-Solomon code word with the roots 1 and 2; both are 0 where there is no error (ECMA-130 annex A)."""
    first = second = 0
    for symbol in word:
        first ^= symbol
        second = _multiply(second, 2) ^ symbol
    return first, second


def test_error_codes_are_those_of_the_standard() -> None:
    data = random.Random(7).randbytes(2048)
    lba = 12_345
    codes = error_codes(lba, data)
    sector = SYNC + header(lba) + data + codes
    assert len(sector) == 2352
    assert header(lba) == bytes([0x02, 0x46, 0x45, 0x01])
    assert edc(sector[:2068]) == 0  # the CRC of what has its CRC at the end
    assert codes[4:12] == bytes(8)
    body = sector[12:]
    for plane in range(2):
        words = body[plane::2]  # 24 rows of 43 symbols of data, 2 of P, 52 of Q
        for column in range(43):
            assert _syndromes([words[column + 43 * row] for row in range(26)]) == (0, 0)
        for diagonal in range(26):
            places = [(44 * step + 43 * diagonal) % 1118 for step in range(43)]
            parity = [words[1118 + diagonal], words[1118 + 26 + diagonal]]
            assert _syndromes([words[at] for at in places] + parity) == (0, 0)


# ---- the jukebox


def test_images_of_a_jukebox_are_known_by_name(tmp_path: Path) -> None:
    for name, blocks in (("b.iso", 2), ("a.ISO", 1), ("notes.txt", 1)):
        blank(tmp_path / name, blocks)
    (tmp_path / "sub.iso").mkdir()
    assert [image[:2] for image in images(tmp_path)] == [("a.ISO", 2048), ("b.iso", 4096)]
    assert find(str(tmp_path), "b") == find(str(tmp_path), "b.iso") == tmp_path / "b.iso"
    assert find("", "/srv/x.iso") == Path("/srv/x.iso")
    for wrong in ("c", "..", "", "sub"):
        with pytest.raises(LookupError, match="there is no image"):
            find(str(tmp_path), wrong)
    with pytest.raises(LookupError, match="no jukebox"):
        find("", "b")


def test_other_programs_agree_on_the_sessions(tmp_path: Path) -> None:
    """isoinfo finds the second volume where we say that it begins."""
    first = iso(tmp_path / "1.iso", directory(tmp_path / "one", ["a"]))
    start = first.stat().st_size // 2048 + 100
    add = iso(tmp_path / "2.iso", directory(tmp_path / "two", ["b"]), "-C", f"0,{start}", "-M", str(first))
    path = tmp_path / "both.iso"
    path.write_bytes(first.read_bytes() + bytes(100 * 2048) + add.read_bytes())
    disc = Disc(path)
    found = disc.sessions[-1].start
    disc.close()
    listing = run(["isoinfo", "-l", "-R", "-T", str(found), "-i", str(path)]).stdout
    assert "b" in listing.split()
    assert "a" in listing.split()


@pytest.mark.parametrize(
    ("part", "damaged"),
    [
        ("capacity", 1e400),
        ("indexes", [1e400]),
        ("indexes", [200.5]),
        ("indexes", [None]),
        ("indexes", [400] * 99),
        ("indexes", 7),
        ("isrc", 5),
        ("control", 16),
        ("file", 1e400),
    ],
)
def test_a_damaged_record_of_a_disc_is_refused(tmp_path: Path, part: str, damaged: object) -> None:
    image = tmp_path / "a.bin"
    track = Track(1, 150, 1000, Form.AUDIO, 0, record.AUDIO, 2352, record.place(record.AUDIO, 0), 0, (400,))
    record.save(image, record.Record("cd-r", 360_000, "0123abcd", [Session([track], False)]))
    found = record.load(image)
    assert found is not None
    assert found.sessions[0].tracks[0].indexes == (400,)
    document = record._durable(image).load("disc")
    (document if part in document else document["sessions"][0]["tracks"][0])[part] = damaged
    record._durable(image).save("disc", json.loads(json.dumps(document)))
    with pytest.raises(OSError, match="is damaged"):
        record.load(image)
