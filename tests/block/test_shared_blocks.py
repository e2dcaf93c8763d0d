"""Copies on a file system whose files can share blocks: XFS on a loop device, which takes root to set up."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from blockyard.block.file import FileDevice, create
from tests.conftest import need, run

_SIZE = 64 << 20


@pytest.fixture
def xfs(tmp_path: Path) -> Iterator[Path]:
    image, where = tmp_path / "xfs.img", tmp_path / "xfs"
    with image.open("wb") as file:
        file.truncate(512 << 20)
    run([need("mkfs.xfs", "xfsprogs"), "-q", "-m", "reflink=1", image])
    where.mkdir()
    run([need("mount", "mount"), "-o", "loop", image, where])
    yield where
    run(["umount", where])


def test_a_copy_takes_no_space(xfs: Path) -> None:
    create(xfs / "a.img", _SIZE)
    create(xfs / "b.img", _SIZE)
    a, b = FileDevice(xfs / "a.img"), FileDevice(xfs / "b.img")
    data = os.urandom(_SIZE // 2)
    a.pwritev([data], 0)
    a.flush()
    before = os.statvfs(xfs).f_bfree
    for at in range(0, _SIZE, 4 << 20):
        b.copy_from(a, at, at, 4 << 20)
    b.flush()
    assert (before - os.statvfs(xfs).f_bfree) * os.statvfs(xfs).f_frsize < 1 << 20
    copied = bytearray(_SIZE)
    b.preadv([memoryview(copied)], 0)
    assert copied == data + bytes(_SIZE // 2)
    b.pwritev([b"x" * 4096], 0)  # and what is written to one is not in the other
    original = bytearray(4096)
    a.preadv([memoryview(original)], 0)
    assert original == data[:4096]
    a.close()
    b.close()
