"""What logical units keep over restarts."""

from __future__ import annotations

import errno
import stat
from pathlib import Path

import pytest

from blockyard.scsi.durable import Durable
from tests.scsi.host import UUID_1

DOCUMENT = {"pages": ["0812"], "generation": 1 << 40}


def test_it_is_there_the_next_time(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "units"
    assert Durable(directory, UUID_1).load("mode-pages") is None
    Durable(directory, UUID_1).save("mode-pages", DOCUMENT)
    again = Durable(directory, UUID_1)
    assert again.persistent
    assert again.load("mode-pages") == DOCUMENT
    assert again.load("reservations") is None
    (path,) = directory.iterdir()  # nothing temporary is left
    assert path.name == f"{UUID_1}.mode-pages.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_it_is_replaced_and_taken_away(tmp_path: Path) -> None:
    durable = Durable(tmp_path, UUID_1)
    durable.save("x", DOCUMENT)
    durable.save("x", [1])
    assert durable.load("x") == [1]
    durable.save("x", None)
    durable.save("x", None)
    assert durable.load("x") is None
    assert not list(tmp_path.iterdir())


def test_what_a_crash_left_half_written_does_no_harm(tmp_path: Path) -> None:
    durable = Durable(tmp_path, UUID_1)
    durable.save("x", DOCUMENT)
    (tmp_path / f"{UUID_1}.x.new").write_text('{"half')
    assert durable.load("x") == DOCUMENT
    durable.save("x", [2])
    assert durable.load("x") == [2]


@pytest.mark.parametrize(
    "damage",
    [b"", b'{"a": \xff', b"{}", b"[]", b"7", b'{"sha256":"00","document":{}}', b'{"sha256":null,"document":[1]}'],
)
def test_a_damaged_file_is_named(damage: bytes, tmp_path: Path) -> None:
    durable = Durable(tmp_path, UUID_1)
    path = tmp_path / f"{UUID_1}.x.json"
    path.write_bytes(damage)
    with pytest.raises(OSError, match="damaged") as caught:
        durable.load("x")
    assert (caught.value.errno, caught.value.filename) == (errno.EUCLEAN, str(path))


def test_without_a_directory_it_lasts_as_long_as_the_object() -> None:
    durable = Durable(None, UUID_1)
    assert not durable.persistent
    assert durable.load("x") is None
    durable.save("x", DOCUMENT)
    assert durable.load("x") == DOCUMENT
    assert Durable(None, UUID_1).load("x") is None
