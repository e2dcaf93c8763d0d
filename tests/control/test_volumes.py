"""Volumes: files that are created or grow, and what cannot be exported."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from blockyard.control.errors import VolumeError
from blockyard.control.volumes import missing_space, prepare


def _prepare(path: Path, size: int | None = None, block_size: int = 512, *, read_only: bool = False) -> int:
    return prepare(path, size=size, block_size=block_size, read_only=read_only).size


def test_a_missing_file_is_created_sparse_and_private(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    volume = prepare(path, size=10 << 30, block_size=4096, read_only=False)
    info = path.stat()
    assert (volume.created, volume.size, info.st_size) == (True, 10 << 30, 10 << 30)
    assert info.st_blocks * 512 < 1 << 20
    assert info.st_mode & 0o777 == 0o600


def test_a_file_that_exists_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(b"x" * 8192)
    link = tmp_path / "link"
    link.symlink_to("disk.img")
    assert _prepare(path) == _prepare(path, 8192) == 8192
    volume = prepare(link, size=None, block_size=512, read_only=True)
    assert (volume.path, volume.key, volume.created) == (path, str(path), False)
    assert path.read_bytes() == b"x" * 8192


@pytest.mark.parametrize(
    ("content", "size", "block_size", "message"),
    [
        (8192, 4096, 512, "shrinking would cut off data"),
        (8192, 16384, 512, "truncate -s 16384"),
        (0, None, 512, "is empty"),
        (513, None, 512, "truncate -s %512"),
        (512, None, 4096, "truncate -s %4096"),
        (None, None, 512, "--size 10G"),
        (None, 1000, 512, "not a multiple of the block size 512"),
        (None, 512, 4096, "not a multiple of the block size 4096"),
        (None, 1 << 62, 512, "is more than a file there can have"),
    ],
)
def test_what_does_not_fit(
    tmp_path: Path, content: int | None, size: int | None, block_size: int, message: str
) -> None:
    path = tmp_path / "disk.img"
    if content is not None:
        path.write_bytes(bytes(content))
    with pytest.raises(VolumeError, match=message) as caught:
        _prepare(path, size, block_size)
    assert str(path) in str(caught.value)
    assert caught.value.exit_status == 4
    assert path.exists() == (content is not None)


def test_what_is_no_volume(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(VolumeError, match="neither a file nor a block device"):
        _prepare(fifo)
    with pytest.raises(VolumeError, match="neither a file nor a block device"):
        _prepare(Path("/dev/null"))
    with pytest.raises(VolumeError, match="is a directory"):
        _prepare(tmp_path)
    with pytest.raises(VolumeError, match=r"directory .* does not exist"):
        _prepare(tmp_path / "no" / "disk.img", 4096)
    with pytest.raises(VolumeError, match=r"Too many levels of symbolic links|Not a directory"):
        _prepare(fifo / "disk.img", 4096)
    with pytest.raises(VolumeError, match="cannot be --read-only"):
        _prepare(tmp_path / "disk.img", 4096, read_only=True)


def test_a_file_larger_than_its_file_system_is_told(tmp_path: Path) -> None:
    system = os.statvfs(tmp_path)
    whole = system.f_blocks * system.f_frsize  # what is free changes all the time
    small = prepare(tmp_path / "small.img", size=1 << 20, block_size=512, read_only=False)
    large = prepare(tmp_path / "large.img", size=(whole + (1 << 30)) & ~511, block_size=512, read_only=False)
    assert missing_space(small) is None
    assert missing_space(large) is not None
