"""Linux and sg3_utils: commands on the medium as a whole, and media that can be taken out."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests.conftest import TargetFactory
from tests.guest.conftest import Guest
from tests.guest.network import HOST, Network


@pytest.fixture
def serve(target: TargetFactory, network: Network) -> TargetFactory:
    return partial(target, prefix=network.prefix, portals=[f"{HOST[0]}:3260"])


def test_sanitize_format_and_removable_media(serve: TargetFactory, guest: Guest, tmp_path: Path) -> None:
    serve("disk.img", size="16M", options=["--removable", "--background-rate", "4M"])
    guest("whole_medium.sh", seconds=240)
    assert (tmp_path / "disk.img").read_bytes() == bytes(16 << 20)


def test_protection_information(serve: TargetFactory, guest: Guest, tmp_path: Path) -> None:
    serve("disk.img", size="64M", options=["--protection", "1"])
    guest("protection.sh", seconds=240)
    (information,) = (tmp_path / "state-0" / "units").glob("*.protection")
    assert information.stat().st_size < 2 << 20
