"""`blockyard image`, as a person uses it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from blockyard.block import formats
from blockyard.cli.main import main

MIB = 1 << 20


def image(*words: str | Path) -> int:
    return main(["image", *map(str, words)])


def test_an_images_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert image("create", "a.vhdx", "1G", "--block-size", "2M") == 0
    assert image("info", "a.vhdx") == 0
    told = capsys.readouterr().out
    assert "a.vhdx: dynamic VHDX" in told
    assert "1 GiB (1073741824 bytes)" in told
    assert image("create", "b.vhdx", "--parent", "a.vhdx") == 0
    assert image("info", "b.vhdx", "--json") == 0
    assert json.loads(capsys.readouterr().out)["parents"] == [str(tmp_path / "a.vhdx")]
    device = formats.open_image("b.vhdx")
    device.pwritev([b"\x42" * MIB], 700 * MIB)
    device.close()
    assert image("convert", "b.vhdx", "c.vhd") == 0
    assert image("merge", "b.vhdx") == 0
    assert not Path("b.vhdx").exists()
    assert image("resize", "a.vhdx", "2G") == 0
    assert image("compact", "a.vhdx") == 0
    assert image("check", "a.vhdx") == 0
    assert image("convert", "a.vhdx", "a.img") == 0
    device = formats.open_image("c.vhd")
    data = bytearray(MIB)
    device.preadv([memoryview(data)], 700 * MIB)
    device.close()
    assert data == b"\x42" * MIB
    assert Path("a.img").stat().st_size == 2 << 30
    assert Path("a.img").stat().st_blocks * 512 < 2 * MIB


def test_what_was_not_closed_is_told_and_repaired(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, died = tmp_path / "a.vhdx", tmp_path / "died.vhdx"
    assert image("create", path, "64M") == 0
    device = formats.open_image(path)
    device.pwritev([bytes(range(256)) * 16], 0)
    died.write_bytes(path.read_bytes())
    assert image("info", path) == 0  # whoever has it open
    assert image("check", path) == 1  # it would have to be still for that
    assert "in use" in capsys.readouterr().err
    device.close()
    assert image("check", died) == 1
    told = capsys.readouterr().out
    assert "not closed cleanly" in told
    assert "--repair" in told
    assert image("check", "--repair", died) == 0
    assert image("check", died) == 0


@pytest.mark.parametrize(
    ("words", "status", "why"),
    [
        (["create", "x.vhdx"], 2, "give the size"),
        (["create", "x.img", "--parent", "a.vhd"], 2, "a raw image has no parent"),
        (["create", "x.vhd", "3T"], 1, "2040 GiB"),
        (["create", "x.vhdx", "65T"], 1, "64 TiB"),
        (["create", "x.vhdx", "1000"], 1, "whole sectors"),
        (["create", "x.vhdx", "1G", "--block-size", "3M"], 2, "power of two"),
        (["create", "x.vhdx", "1G", "--block-size", "512K"], 1, "block size"),
        (["create", "x.vhd", "1G", "--block-size", "512M"], 1, "block size"),
        (["create", "a.vhd", "1G"], 1, "File exists"),
        (["create", "x.vhdx", "--parent", "a.vhd"], 1, "vhdxfile"),
        (["info", "missing"], 1, "No such file"),
        (["resize", "a.vhd", "1M"], 1, "cannot shrink"),
        (["resize", "a.vhd", "3T"], 1, "2040 GiB"),
        (["resize", "raw", "1K"], 1, "cannot shrink"),
        (["compact", "raw"], 1, "not dynamic"),
        (["merge", "a.vhd"], 1, "no parent"),
        (["convert", "raw", "a.vhd"], 1, "File exists"),
        (["convert", "--from", "vhd", "raw", "b.vhd"], 1, "no VHD footer"),
        (["resize", "a.vhd", "much"], 2, "not a size"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(
    words: list[str],
    status: int,
    why: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    formats.create_image("a.vhd", "vhd", 4 * MIB)
    Path("raw").write_bytes(bytes(MIB))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert image(*words) == status
    told = capsys.readouterr().err
    assert why in told
    assert told.count("\n") == 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_progress_is_shown_on_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "raw").write_bytes(bytes(range(256)) * (MIB // 64))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert image("convert", tmp_path / "raw", tmp_path / "a.vhd") == 0
    assert "converting: [" in capsys.readouterr().err


def test_images_of_qemus_formats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert image("create", "a.qcow2", "64M", "--block-size", "128K") == 0
    device = formats.open_image("a.qcow2")
    device.pwritev([b"\x42" * MIB], 32 * MIB)
    device.close()
    assert image("info", "a.qcow2", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["format"], told["size"], told["block_size"]) == ("qcow2", 64 * MIB, 128 << 10)
    for source, target in (("a.qcow2", "b.vmdk"), ("b.vmdk", "c.vhdx"), ("c.vhdx", "d.vdi"), ("d.vdi", "e.img")):
        assert image("convert", source, target) == 0
    with open("e.img", "rb") as file:
        file.seek(32 * MIB - 1)
        assert file.read(MIB + 2) == b"\0" + b"\x42" * MIB + b"\0"
    assert image("resize", "a.qcow2", "128M") == 0
    assert formats.describe("a.qcow2").size == 128 * MIB
    assert image("resize", "a.qcow2", "64M") == 1
    assert image("check", "a.qcow2") == 0
    assert image("check", "a.qcow2", "--repair") == 0
    assert "a.qcow2: sound" in capsys.readouterr().out
    assert image("compact", "a.qcow2") == 1
    assert image("merge", "a.qcow2") == 1
    assert image("create", "f.qcow2", "64M", "--kind", "fixed") == 1
    assert not Path("f.qcow2").exists()
