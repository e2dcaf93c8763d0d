"""QEMU's tools: its block layer over libiscsi, as a virtual machine uses it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import TargetFactory, need, run

_PACKAGE = "qemu-utils qemu-block-extra"


def _img(*words: str | Path, check: bool = True) -> str:
    return run([need("qemu-img", _PACKAGE), *words], check=check).stdout


def _io(url: str, *commands: str) -> str:
    words = [word for command in commands for word in ("-c", command)]
    output = run([need("qemu-io", _PACKAGE), "-f", "raw", *words, url]).stdout
    assert "Pattern verification failed" not in output, output
    return output


@pytest.mark.parametrize("block_size", [512, 4096])
def test_an_image_converted_onto_the_disk_and_back_is_the_same(
    block_size: int, target: TargetFactory, random_file: Callable[[str, int], Path], tmp_path: Path
) -> None:
    image = random_file("random.raw", 24 << 20)
    with image.open("r+b") as file:  # some of it zeros, so that WRITE SAME and UNMAP are used too
        file.seek(4 << 20)
        file.write(bytes(8 << 20))
    serving = target("disk.img", size="24M", options=["--block-size", str(block_size)])
    _img("convert", "-n", "-f", "raw", "-O", "raw", image, serving.url())
    _img("convert", "-f", "raw", "-O", "raw", serving.url(), tmp_path / "back.raw")
    assert _img("compare", "-f", "raw", "-F", "raw", image, tmp_path / "back.raw").strip() == "Images are identical."
    assert (tmp_path / "disk.img").read_bytes() == image.read_bytes()


def test_an_image_with_a_format_of_its_own_lives_on_the_disk(target: TargetFactory) -> None:
    url = target("disk.img", size="64M").url()
    _img("create", "-f", "qcow2", url, "32M")
    qemu_io = need("qemu-io", _PACKAGE)
    run([qemu_io, "-f", "qcow2", "-c", "write -P 0x5a 1M 3M", "-c", "read -P 0x5a 1M 3M", url])
    assert "No errors were found" in _img("check", "-f", "qcow2", url)


def test_patterns_are_read_as_they_were_written(target: TargetFactory, tmp_path: Path) -> None:
    url = target("disk.img").url()
    _io(
        url,
        "write -P 0xa1 0 64k",
        "write -P 0xb2 1M 3M",
        "write -P 0xc3 67100672 8192",  # to the very end
        "aio_write -P 0xd4 8M 256k",
        "aio_write -P 0xe5 9M 512",
        "aio_flush",
        "flush",
        "read -P 0xa1 0 64k",
        "read -P 0xb2 1M 3M",
        "read -P 0xc3 67100672 8192",
        "read -P 0xd4 8M 256k",
        "read -P 0xe5 9M 512",
        "read -P 0 64k 64k",
    )
    content = (tmp_path / "disk.img").read_bytes()
    assert content[: 64 << 10] == b"\xa1" * (64 << 10)
    assert content[1 << 20 : 4 << 20] == b"\xb2" * (3 << 20)
    assert content[-8192:] == b"\xc3" * 8192


def test_zeroed_and_discarded_ranges_read_as_zeros_and_give_their_space_back(
    target: TargetFactory, tmp_path: Path
) -> None:
    url = target("disk.img").url()
    disk = tmp_path / "disk.img"
    _io(url, "write -P 0x11 0 16M", "flush")
    assert disk.stat().st_blocks * 512 >= 16 << 20
    _io(url, "write -z -u 0 4M", "read -P 0 0 4M", "read -P 0x11 4M 12M")
    _io(url, "discard 4M 8M", "read -P 0 4M 8M", "read -P 0x11 12M 4M")
    assert disk.stat().st_blocks * 512 <= 5 << 20
    _io(url, "write -z 12M 4M", "read -P 0 12M 4M")
    assert disk.stat().st_size == 64 << 20


@pytest.mark.parametrize("block_size", [512, 4096])
def test_accesses_that_are_not_aligned_change_nothing_beside_them(block_size: int, target: TargetFactory) -> None:
    # QEMU reads, changes and writes whole blocks for what is smaller.
    url = target("disk.img", options=["--block-size", str(block_size)]).url()
    _io(
        url,
        "write -P 0x77 0 64k",
        "write -P 0x88 512 512",
        "write -P 0x99 4000 200",
        "read -P 0x77 0 512",
        "read -P 0x88 512 512",
        "read -P 0x77 1024 2976",
        "read -P 0x99 4000 200",
        "read -P 0x77 4200 61336",
    )


def test_logical_units_are_separate_disks(target: TargetFactory, tmp_path: Path) -> None:
    serving = target("a.img", "b.img", "c.img", size="16M")
    for lun in range(3):
        _io(serving.url(lun), f"write -P {0x20 + lun} 0 16M", "flush")
    for lun, name in enumerate("abc"):
        _io(serving.url(lun), f"read -P {0x20 + lun} 0 16M")
        assert set((tmp_path / f"{name}.img").read_bytes()) == {0x20 + lun}
    missing = _img("info", serving.url(3), check=False)
    assert "Could not open" in missing
    assert "LOGICAL_UNIT_NOT_SUPPORTED" in missing or "0x2500" in missing or "iSCSI" in missing


def test_a_read_only_disk_is_read_and_says_so_when_written(
    target: TargetFactory, random_file: Callable[[str, int], Path]
) -> None:
    image = random_file("disk.img", 1 << 20)
    before = image.read_bytes()
    url = target("disk.img", size=None, options=["--read-only"]).url()
    assert "Images are identical." in _img("compare", "-f", "raw", "-F", "raw", image, url)
    refused = run([need("qemu-io", _PACKAGE), "-f", "raw", "-c", "write 0 4k", url], check=False)
    assert re.search(r"read.?only|write.?protected", refused.stdout, re.IGNORECASE), refused.stdout
    assert image.read_bytes() == before


@pytest.mark.parametrize(
    ("switches", "size", "depth"),
    [
        pytest.param([], 4096, 32, id="read-4k"),
        pytest.param(["-w"], 4096, 32, id="write-4k"),
        pytest.param([], 1 << 20, 8, id="read-1M"),
        pytest.param(["-w"], 1 << 20, 8, id="write-1M"),
        pytest.param(["-w", "--flush-interval", "64"], 512, 64, id="write-512-flush"),
    ],
)
def test_many_commands_at_once(switches: list[str], size: int, depth: int, target: TargetFactory) -> None:
    count = 20000 if size <= 4096 else 500
    output = _img(
        "bench", "-f", "raw", "-t", "none", "-n", *switches, "-c", str(count), "-d", str(depth),
        "-s", str(size), target().url(),
    )  # fmt: skip
    assert re.search(r"Run completed in [\d.]+ seconds", output), output
