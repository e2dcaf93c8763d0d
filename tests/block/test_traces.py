"""What programs of others, and ours, leave on disks is known again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from blockyard.block.building import create_layer
from blockyard.block.file import FileDevice
from blockyard.block.traces import LOOKED_AT, holds
from blockyard.pool.members import prepare
from blockyard.pool.pool import create
from tests.conftest import need, run

SIZE = 320 << 20  # bytes: less is too little for XFS


def _ext4(disk: Path) -> None:
    run([need("mkfs.ext4", "e2fsprogs"), "-q", "-F", "-E", "nodiscard", disk, "64M"])


def _xfs(disk: Path) -> None:
    run([need("mkfs.xfs", "xfsprogs"), "-q", "-f", disk])


def _swap(disk: Path) -> None:
    run([need("mkswap", "util-linux"), disk])


def _luks(disk: Path) -> None:
    run(
        [
            need("cryptsetup", "cryptsetup-bin"),
            "luksFormat",
            "-q",
            "--type",
            "luks1",
            "--pbkdf-force-iterations",
            "1000",
            disk,
            "-",
        ],
        stdin=b"secret",
    )


def _udf(disk: Path) -> None:
    run([need("mkudffs", "udftools"), "-b", "2048", disk])


def _iso(disk: Path) -> None:
    disk.unlink()
    run([need("genisoimage", "genisoimage"), "-quiet", "-o", disk, Path(__file__)])


def _member(disk: Path) -> None:
    directory = disk.parent / "pool"
    directory.mkdir()
    create(directory, [prepare(str(disk), 0, number=0, force=False)])


def _array(disk: Path) -> None:
    other = disk.parent / "other"
    with other.open("wb") as file:
        file.truncate(SIZE)
    create_layer(f"raid1({disk}, {other})")


def _partitions(disk: Path) -> None:
    """A protective MBR (UEFI 2.10, 5.2.3)."""
    with disk.open("r+b") as file:
        file.seek(446)
        file.write(b"\0\0\2\0\xee\xff\xff\xff\1\0\0\0\xff\xff\xff\xff".ljust(64, b"\0") + b"\x55\xaa")


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (_ext4, "ext"), (_xfs, "xfs"), (_swap, "swap space"), (_luks, "an encrypted disk"), (_udf, "udf"), (_iso, "iso9660"),
        (_member, "part of a pool"), (_array, "part of an array"), (_partitions, "partitions"), (lambda disk: None, ""),
    ],
)  # fmt: skip
def test_what_is_on_a_disk(tmp_path: Path, make: Callable[[Path], None], found: str) -> None:
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(SIZE)
    make(disk)
    device = FileDevice(disk, read_only=True, lock=False)
    beginning = bytearray(LOOKED_AT)
    device.preadv([memoryview(beginning)], 0)
    device.close()
    assert holds(bytes(beginning)) == found
