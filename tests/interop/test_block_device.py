"""A block device as a disk: a loop device, which takes root to set up."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import TargetFactory, need, run
from tests.serving import ServeFailed

SIZE = 16 << 20


@pytest.fixture
def loop_device(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0 and "CI" not in os.environ:
        pytest.skip("setting up a loop device takes root")
    image = tmp_path / "loop.img"
    with image.open("wb") as file:
        file.truncate(SIZE)
    device = run([need("losetup", "mount"), "--find", "--show", image]).stdout.strip()
    yield Path(device)
    run(["losetup", "--detach", device])


def test_what_is_written_is_on_the_device(target: TargetFactory, loop_device: Path) -> None:
    serving = target(loop_device, size=None)
    commands = [word for text in ("write -P 7 0 1M", "discard 0 512k", "read -P 0 0 512k") for word in ("-c", text)]
    run([need("qemu-io", "qemu-utils"), "-f", "raw", *commands, serving.url()])
    serving.stop()
    with loop_device.open("rb") as file:
        assert file.read(1 << 20) == bytes(512 << 10) + b"\7" * (512 << 10)


def test_a_mounted_device_is_refused(target: TargetFactory, loop_device: Path, tmp_path: Path) -> None:
    run([need("mkfs.ext4", "e2fsprogs"), "-q", loop_device])
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    run(["mount", loop_device, mounted])
    try:
        with pytest.raises(ServeFailed, match="is mounted"):
            target(loop_device, size=None)
    finally:
        run(["umount", mounted])
