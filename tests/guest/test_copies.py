"""Linux and its tools ask for copies within the target, and see what becomes of thin disks."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import TargetFactory
from tests.guest.conftest import Guest
from tests.guest.network import HOST, Network


def test_copies_and_provisioning(target: TargetFactory, network: Network, guest: Guest) -> None:
    portals = [f"{address}:3260" for address in HOST]
    target("a.img", "b.img", size="32M", prefix=network.prefix, portals=portals)
    guest("copies.sh", variables={"PORTAL_2": HOST[1]})


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB, of which 12 are taken by a file."""
    path = tmp_path / "small"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(path)], check=True, timeout=180)
    try:
        (path / "filler").write_bytes(bytes(12 << 20))
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True, timeout=180)


def test_writers_go_on_when_space_has_come_back(
    target: TargetFactory, network: Network, guest: Guest, small: Path
) -> None:
    serve = partial(target, prefix=network.prefix, portals=[f"{address}:3260" for address in HOST])
    serve("small/disk.img", size="64M")
    guest("out_of_space.sh", marks={"full": (small / "filler").unlink})
