"""Linux and sg3_utils: commands on the medium as a whole, and media that can be taken out."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from blockyard.cli.main import main
from tests.conftest import TargetFactory
from tests.guest.conftest import Guest
from tests.guest.network import HOST, Network
from tests.serving import IQN


@pytest.fixture
def serve(target: TargetFactory, network: Network) -> TargetFactory:
    return partial(target, prefix=network.prefix, portals=[f"{HOST[0]}:3260"])


def removable(background_rate: str) -> str:
    return f"""
    portal_groups.1.portals = ["{HOST[0]}:3260"]
    [volumes.disk]
    path = "disk.img"
    size = "16M"
    removable = true
    background_rate = "{background_rate}"
    [targets."{IQN}"]
    luns = {{0 = "disk"}}
    """


def test_sanitize_format_and_removable_media(
    target: TargetFactory, network: Network, guest: Guest, tmp_path: Path
) -> None:
    def hold(rate: str) -> None:
        (tmp_path / "serve-0.toml").write_text(removable(rate))
        assert main(["reload", "--state", str(tmp_path / "state-0")]) == 0

    target(config=removable("1G"), portals=[], prefix=network.prefix)
    guest("whole_medium.sh", marks={"slow": lambda: hold("64K"), "fast": lambda: hold("1G")})
    assert (tmp_path / "disk.img").read_bytes() == bytes(16 << 20)


def test_protection_information(serve: TargetFactory, guest: Guest, tmp_path: Path) -> None:
    serve("disk.img", size="64M", options=["--protection", "1"])
    guest("protection.sh")
    (information,) = (tmp_path / "state-0" / "units").glob("*.protection")
    assert information.stat().st_size < 2 << 20
