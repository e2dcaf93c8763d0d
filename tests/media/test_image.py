"""Cartridges as plain files, in the format of SIMH."""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard.media import image
from blockyard.media.cartridge import Cartridge, create, draft
from blockyard.media.generations import GENERATIONS
from blockyard.media.sealing import Key
from tests.media.scratch import scratch

LTO = GENERATIONS["LTO-8"]


def made(directory: Path, objects: list[bytes | None]) -> Path:
    create(directory, "A00001L8", LTO, capacity=64 << 20)
    cartridge = Cartridge(directory / "A00001L8")
    for block in objects:
        if block is None:
            cartridge.partitions[0].append_filemark()
        else:
            cartridge.partitions[0].append(block, compress=True)
    cartridge.close()
    return directory / "A00001L8"


def restored(directory: Path, source: Path, *, capacity: int = 64 << 20) -> list[object]:
    image.restore(source, directory, "B00001L8", LTO, capacity=capacity, worm=False, progress=lambda done, total: None)
    cartridge = Cartridge(directory / "B00001L8")
    found: list[object] = [cartridge.partitions[0].read(number) for number in range(cartridge.partitions[0].objects)]
    cartridge.close()
    return found


def export(cartridge: Path, target: Path) -> int:
    return image.export(cartridge, 0, target, lambda done, total: None)


def test_the_file_is_what_simh_says(tmp_path: Path) -> None:
    cartridge = made(tmp_path, [b"abc", b"four", None, None])
    assert export(cartridge, tmp_path / "a.tap") == 4
    assert (tmp_path / "a.tap").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "a.tap").read_bytes() == (
        b"\x03\0\0\0abc\0\x03\0\0\0" + b"\x04\0\0\0four\x04\0\0\0" + bytes(8) + b"\xff\xff\xff\xff"
    )


@given(st.lists(st.none() | st.binary(min_size=1, max_size=2000), max_size=20))
def test_what_was_exported_comes_back(objects: list[bytes | None]) -> None:
    directory = scratch()
    export(made(directory, objects), directory / "a.tap")
    assert restored(directory, directory / "a.tap") == objects


def test_a_file_without_an_end_mark_is_a_tape_too(tmp_path: Path) -> None:
    (tmp_path / "a.tap").write_bytes(b"\x04\0\0\0four\x04\0\0\0" + bytes(4))
    assert restored(tmp_path, tmp_path / "a.tap") == [b"four", None]


@pytest.mark.parametrize("data", [b"\x04\0\0\0fou", b"\x04\0\0\0four\x05\0\0\0", b"\0\0\0\x80", b"\0\0"])
def test_another_kind_of_file_makes_no_cartridge(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.tap").write_bytes(data)
    with pytest.raises(OSError, match="no block of a SIMH tape image"):
        restored(tmp_path, tmp_path / "a.tap")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tap"]


def test_two_do_not_make_a_cartridge_of_one_barcode_at_a_time(tmp_path: Path) -> None:
    left = tmp_path / ".A00001L8.new"  # by a crash
    left.mkdir()
    (left / "1-0.data").write_bytes(b"half")
    with draft(tmp_path, "A00001L8", LTO, capacity=0, worm=False) as made:
        cartridge = Cartridge(made)
        with pytest.raises(OSError, match="just being made"):
            create(tmp_path, "A00001L8", LTO)
        cartridge.partitions[0].append(b"kept")
        cartridge.close()
    with pytest.raises(FileExistsError):
        create(tmp_path, "A00001L8", LTO)
    with contextlib.closing(Cartridge(tmp_path / "A00001L8")) as whole:
        assert whole.partitions[0].read(0) == b"kept"
    assert [each.name for each in tmp_path.iterdir()] == ["A00001L8"]


def test_what_does_not_fit_makes_no_cartridge(tmp_path: Path) -> None:
    export(made(tmp_path, [bytes(100_000)]), tmp_path / "a.tap")
    with pytest.raises(OSError, match="More is in it"):
        restored(tmp_path, tmp_path / "a.tap", capacity=50_000)
    assert not (tmp_path / "B00001L8").exists()


def test_encrypted_blocks_and_files_that_are_there_are_refused(tmp_path: Path) -> None:
    cartridge = made(tmp_path, [b"plain"])
    opened = Cartridge(cartridge)
    opened.partitions[0].append(b"secret", seal=Key(bytes(32)).seal)
    opened.close()
    with pytest.raises(OSError, match="is encrypted") as refusal:
        export(cartridge, tmp_path / "a.tap")
    assert refusal.value.errno == errno.ENOKEY
    assert not (tmp_path / "a.tap").exists()
    (tmp_path / "a.tap").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        export(cartridge, tmp_path / "a.tap")
    assert (tmp_path / "a.tap").read_bytes() == b"mine"


def test_what_a_drive_writes_over_meanwhile_is_no_copy(tmp_path: Path) -> None:
    directory = made(tmp_path, [b"old 1", b"old 2", b"old 3"])

    def write_over(done: int, total: int) -> None:
        cartridge = Cartridge(directory)
        cartridge.partitions[0].truncate(0)
        for block in (b"new 1", b"new 2", b"new 3"):
            cartridge.partitions[0].append(block, compress=True)
        cartridge.close()

    with pytest.raises(OSError, match="written over") as failure:
        image.export(directory, 0, tmp_path / "a.tap", write_over)
    assert failure.value.errno == errno.EBUSY
    assert not (tmp_path / "a.tap").exists()
