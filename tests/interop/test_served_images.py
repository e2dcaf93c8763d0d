"""Images that are served: what initiators write over the wire is what other programs find in the file."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from blockyard import initiator
from blockyard.block import formats
from tests.conftest import TargetFactory, need, run
from tests.serving import children
from tests.waiting import eventually

MIB = 1 << 20


def qemu_img(*words: str | Path) -> str:
    return run([need("qemu-img", "qemu-utils qemu-block-extra"), *words]).stdout


def qemu_io(url: str, *commands: str) -> None:
    words = [word for command in commands for word in ("-c", command)]
    output = run([need("qemu-io", "qemu-utils qemu-block-extra"), "-f", "raw", *words, url]).stdout
    assert "Pattern verification failed" not in output, output


@pytest.mark.parametrize("format", ["vhd", "vhdx", "qcow2", "vmdk"])
def test_a_disk_that_is_copied_to_a_served_image_is_in_the_file(
    format: str, target: TargetFactory, tmp_path: Path
) -> None:
    source = tmp_path / "source.raw"
    with source.open("wb") as file:
        file.truncate(48 * MIB)
        for at in (0, 3 * MIB, 31 * MIB, 47 * MIB):
            file.seek(at)
            file.write(bytes(range(256)) * 4096)
    serving = target(f"disk.{format}", size="48M", options=["--format", format])
    qemu_img("convert", "-n", "-f", "raw", "-O", "raw", source, serving.url())
    assert "identical" in qemu_img("compare", "-f", "raw", "-F", "raw", source, serving.url())
    serving.stop()
    name = {"vhd": "vpc"}.get(format, format)
    image = tmp_path / f"disk.{format}"
    assert "identical" in qemu_img("compare", "-f", "raw", "-F", name, source, image)
    if format != "vhd":
        assert "No errors" in qemu_img("check", "-f", format, image)
    assert image.stat().st_blocks * 512 < 24 * MIB


def test_what_was_flushed_outlives_a_worker_that_is_killed(target: TargetFactory, tmp_path: Path) -> None:
    serving = target("disk.vhdx", size="256M", options=["--format", "auto"])
    qemu_io(
        serving.url(), "write -P 0x11 0 1M", "write -P 0x22 100M 64k", "discard 0 32M", "write -P 0x33 40M 4k", "flush"
    )
    serving.kill()
    image = tmp_path / "disk.vhdx"
    assert any("not closed cleanly" in note for note in formats.describe(image).notes)
    serving.restart()
    qemu_io(serving.url(), "read -P 0 0 1M", "read -P 0x22 100M 64k", "read -P 0x33 40M 4k", "read -P 0 41M 1M")
    serving.stop()
    assert not formats.describe(image).notes
    assert "No errors" in qemu_img("check", "-f", "vhdx", image)


def test_what_is_discarded_is_told_and_leaves_the_file(target: TargetFactory, tmp_path: Path) -> None:
    serving = target("disk.vhdx", size="64M", options=["--format", "auto"])
    qemu_io(serving.url(), "write -P 0x11 0 64M", "discard 32M 32M", "discard 1M 64k", "flush", "read -P 0 32M 32M")
    told = json.loads(qemu_img("map", "--output=json", "-f", "raw", serving.url()))  # by GET LBA STATUS
    holes = [(each["start"], each["length"]) for each in told if each["zero"]]
    assert holes == [(MIB, 64 << 10), (32 * MIB, 32 * MIB)]
    serving.stop()
    assert (tmp_path / "disk.vhdx").stat().st_blocks * 512 < 36 * MIB


def test_children_of_one_image_are_served_side_by_side(target: TargetFactory, tmp_path: Path) -> None:
    base = tmp_path / "base.vhdx"
    formats.create_image(base, "vhdx", 64 * MIB)
    image = formats.open_image(base)
    image.pwritev([b"\x77" * MIB], 5 * MIB)
    image.close()
    for name in ("a", "b"):
        formats.create_image(tmp_path / f"{name}.vhdx", "vhdx", parent=str(base))
    serving = target(
        config="""
            [volumes.a]
            path = "a.vhdx"
            format = "vhdx"
            [volumes.b]
            path = "b.vhdx"
            format = "auto"
            [targets."iqn.2024-01.test.blockyard:disk".luns]
            0 = "a"
            1 = "b"
            """
    )
    qemu_io(serving.url(0), "read -P 0x77 5M 1M", "write -P 0x01 5M 64k")
    qemu_io(serving.url(1), "read -P 0x77 5M 1M", "discard 4M 2M", "read -P 0 5M 1M")
    qemu_io(serving.url(0), "read -P 0x01 5M 64k", "read -P 0x77 5248k 64k")
    serving.process.send_signal(signal.SIGHUP)
    qemu_io(serving.url(0), "read -P 0x01 5M 64k")
    serving.stop()
    assert formats.describe(base).notes == []


def test_a_worker_and_its_engine_are_killed_under_a_qcow2(target: TargetFactory, tmp_path: Path) -> None:
    """None of what was acknowledged is lost, though nothing was flushed, and only one engine is there afterwards."""
    serving = target("disk.qcow2", size="64M", options=["--format", "qcow2"])
    with initiator.connect(serving.url(), recover=True) as lun:
        for number in range(4):
            (worker,) = serving.workers
            (engine,) = children(worker)
            lun.write(64 * number, bytes([number + 1]) * 32768)
            os.kill(worker if number % 2 else engine, signal.SIGKILL)
            lun.write(64 * number + 4096, bytes([number + 101]) * 32768)
        for number in range(4):
            assert lun.read(64 * number, 64) == bytes([number + 1]) * 32768
            assert lun.read(64 * number + 4096, 64) == bytes([number + 101]) * 32768
        (worker,) = serving.workers
        (engine,) = children(worker)
    serving.stop()
    eventually(lambda: not Path(f"/proc/{engine}").exists())
    assert "No errors" in qemu_img("check", "-f", "qcow2", tmp_path / "disk.qcow2")
