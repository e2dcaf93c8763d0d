"""Volumes that are images: what control makes of them before they are served."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockyard.block import formats
from blockyard.block.size import Size
from blockyard.control.errors import VolumeError
from blockyard.control.images import looks_like, prepare_image
from blockyard.control.volumes import FILE
from blockyard.worker.configuration import Volume

MIB = 1 << 20


def prepared(path: Path, **options: object) -> tuple[str, int, bool]:
    volume = Volume("v", str(path), **{"format": "auto", **options})  # type: ignore[arg-type]
    backing = prepare_image(volume, served=False, wording=FILE)
    return backing.format, backing.size, backing.created


@pytest.mark.parametrize("format", ["vhd", "vhdx"])
def test_the_size_is_that_of_the_disk(format: str, tmp_path: Path) -> None:
    path = tmp_path / "disk"
    formats.create_image(path, format, 10 * MIB)
    assert prepared(path) == (format, 10 * MIB, False)
    assert prepared(path, format=format, size=Size(10 * MIB)) == (format, 10 * MIB, False)
    with pytest.raises(VolumeError, match="blockyard image resize"):
        prepared(path, size=Size(20 * MIB))


@pytest.mark.parametrize("format", ["vhd", "vhdx"])
def test_one_that_is_missing_is_made(format: str, tmp_path: Path) -> None:
    assert prepared(tmp_path / f"disk.{format}", size=Size(MIB)) == (format, MIB, True)
    assert prepared(tmp_path / "disk", format=format, size=Size(MIB)) == (format, MIB, True)
    assert formats.describe(tmp_path / "disk").kind == "dynamic"


def test_what_cannot_be_served_is_told(tmp_path: Path) -> None:
    raw, vhdx, child = tmp_path / "raw", tmp_path / "a.vhdx", tmp_path / "b.vhdx"
    raw.write_bytes(bytes(MIB))
    formats.create_image(vhdx, "vhdx", 8 * MIB, sector_size=4096)
    with pytest.raises(VolumeError, match=r'no image of a format that is known: .* "raw"'):
        prepared(raw)
    with pytest.raises(VolumeError, match="vhdxfile"):
        prepared(raw, format="vhdx")
    with pytest.raises(VolumeError, match="sectors of 4096 bytes"):
        prepared(vhdx)
    assert prepared(vhdx, block_size=4096)[1] == 8 * MIB
    formats.create_image(child, "vhdx", parent=str(vhdx))
    vhdx.unlink()
    with pytest.raises(VolumeError, match="parent cannot be found"):
        prepared(child, block_size=4096)
    with pytest.raises(VolumeError, match="give its size"):
        prepared(tmp_path / "none.vhdx")
    with pytest.raises(VolumeError, match="say what its format is"):
        prepared(tmp_path / "none", size=Size(MIB))
    with pytest.raises(VolumeError, match="cannot be `read_only"):
        prepared(tmp_path / "none.vhd", size=Size(MIB), read_only=True)
    assert not list(tmp_path.glob("none*"))


def test_an_image_that_is_served_already_is_only_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "disk.vhdx"
    formats.create_image(path, "vhdx", 8 * MIB)
    image = formats.open_image(path)
    image.pwritev([b"\x11" * 512], 0)
    volume = Volume("v", str(path), format="vhdx")
    assert prepare_image(volume, served=True, wording=FILE).size == 8 * MIB
    image.close()


def test_what_a_raw_file_looks_like(tmp_path: Path) -> None:
    assert looks_like(tmp_path / "missing") == "raw"
    (tmp_path / "raw").write_bytes(bytes(4096))
    assert looks_like(tmp_path / "raw") == "raw"
    for format in ("vhd", "vhdx"):
        for kind in ("fixed", "dynamic"):
            formats.create_image(tmp_path / f"{kind}-{format}", format, MIB, kind=kind)
            assert looks_like(tmp_path / f"{kind}-{format}") == format
