"""Linux as initiator: file systems, SCSI tools, digests; and what happens to them when the target dies or restarts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import TargetFactory
from tests.guest.conftest import Guest
from tests.guest.network import HOST, Network
from tests.serving import Serving


@pytest.fixture
def serve(target: TargetFactory, network: Network) -> TargetFactory:
    """`target` in the namespace, on both of its addresses."""

    def start(*volumes: str | Path, **options: object) -> Serving:
        portals = [f"{address}:3260" for address in HOST]
        return target(*volumes, prefix=network.prefix, portals=portals, **options)  # type: ignore[arg-type]

    return start  # type: ignore[return-value]


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
        seconds=120,
    )
    for kind in ("ext4", "xfs"):
        assert sizes[f"filled-{kind}"] >= 40 << 20
        assert sizes[f"filled-{kind}"] - sizes[f"trimmed-{kind}"] >= 30 << 20, sizes
