"""Linux takes a file back from a moment before it was deleted, with nobody administering anything."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from pathlib import Path

from blockyard.cli.main import main
from tests.conftest import TargetFactory
from tests.guest.conftest import Guest
from tests.guest.network import HOST, Network
from tests.serving import IQN


def next_second() -> str:
    return f"{datetime.fromtimestamp(math.ceil(time.time()), UTC):%Y-%m-%dT%H:%M:%SZ}"


def test_a_deleted_file_is_taken_back(target: TargetFactory, network: Network, guest: Guest, tmp_path: Path) -> None:
    def run(*words: str) -> None:
        assert main([*words, "--state", str(tmp_path / "state-0")]) == 0

    run("pool", "create", str(tmp_path / "fast"), "--size", "1G")
    pool = f'portal_groups.1.portals = ["{HOST[0]}:3260"]\n[pools.fast]\ndirectory = "fast"\n'
    target(config=pool, portals=[], prefix=network.prefix)
    run("volume", "create", "fast/vm", "64M", "--chunk", "4K")
    run("cdp", "on", "fast/vm", "--time", "1h")
    volume = f"[volumes.vm]\npool = 'fast'\n[targets.'{IQN}']\nluns = {{0 = 'vm'}}\n"
    (tmp_path / "serve-0.toml").write_text(pool + volume)
    run("reload")
    guest("time_travel.sh", marks={"there": next_second})
