"""Linux as initiator: file systems, SCSI tools, digests; and what happens to them when the target dies or restarts."""

from __future__ import annotations

import os
import re
import signal
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import TargetFactory
from tests.guest.conftest import Guest
from tests.guest.network import HOST, Network
from tests.waiting import eventually


@pytest.fixture
def serve(target: TargetFactory, network: Network) -> TargetFactory:
    """`target` in the namespace, on both of its addresses."""

    return partial(target, prefix=network.prefix, portals=[f"{address}:3260" for address in HOST])


def _allocated(path: Path) -> int:
    return path.stat().st_blocks * 512  # stat(2)


@pytest.mark.parametrize("block_size", [512, 4096])
def test_file_systems_live_on_the_disk_and_fstrim_makes_holes(
    block_size: int, serve: TargetFactory, guest: Guest, tmp_path: Path
) -> None:
    serve("disk.img", size="512M", options=["--block-size", str(block_size)])
    disk = tmp_path / "disk.img"
    sizes: dict[str, int] = {}

    def weigh(name: str) -> None:
        sizes[name] = _allocated(disk)

    names = [f"{what}-{kind}" for kind in ("ext4", "xfs") for what in ("filled", "trimmed")]
    guest(
        "file_systems.sh",
        variables={"BLOCK_SIZE": str(block_size)},
        marks={name: lambda name=name: weigh(name) for name in names},  # type: ignore[misc]
    )
    for kind in ("ext4", "xfs"):
        assert sizes[f"filled-{kind}"] >= 40 << 20
        assert sizes[f"filled-{kind}"] - sizes[f"trimmed-{kind}"] >= 30 << 20, sizes


def test_scsi_tools_find_everything_in_order(serve: TargetFactory, guest: Guest) -> None:
    serve("a.img", "b.img", "c.img", size="64M")
    output = guest("scsi_tools.sh")
    for page in ("0x0", "0x80", "0x83", "0x86", "0xb0", "0xb1", "0xb2"):
        assert f"-- page {page}" in output
    assert not re.search(r"(?i)invalid field|malformed|response length too short|too short", output)


def test_digests_and_bursts_in_every_combination(serve: TargetFactory, guest: Guest) -> None:
    serve("disk.img", size="64M")
    guest("digests.sh")


def test_a_killed_worker_is_replaced_and_the_file_system_stays_intact(serve: TargetFactory, guest: Guest) -> None:
    serving = serve("disk.img", size="128M")
    killed: list[int] = []

    def kill() -> None:
        (worker,) = serving.workers
        os.kill(worker, signal.SIGKILL)
        killed.append(worker)
        eventually(lambda: set(serving.workers) - set(killed), "a new worker")

    guest(
        "outage.sh",
        variables={"OUTAGES": "1 2"},
        marks={"outage-1": kill, "outage-2": kill},
    )
    assert len(set(killed)) == 2
    assert serving.process.poll() is None


def test_a_target_that_is_restarted_goes_on_where_it_was(serve: TargetFactory, guest: Guest) -> None:
    serving = serve("disk.img", size="128M")
    guest(
        "outage.sh",
        variables={"OUTAGES": "1"},
        marks={"outage-1": serving.restart},
    )
