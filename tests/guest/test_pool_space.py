"""Linux on thin volumes of a pool: space comes back from it, and runs out, and nothing is lost."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from blockyard.cli.main import main
from tests.conftest import TargetFactory
from tests.guest.conftest import Guest
from tests.guest.network import HOST, Network
from tests.serving import IQN
from tests.waiting import eventually

MIB = 1 << 20


def test_space_comes_back_and_runs_out(
    target: TargetFactory, network: Network, guest: Guest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*words: str) -> str:
        capsys.readouterr()
        status = main([*words, "--state", str(tmp_path / "state-0")])
        printed = capsys.readouterr()
        assert not status, printed.out + printed.err
        return printed.out

    def taken() -> tuple[int, int]:
        """MiB in use in the pool, and in the file system beneath."""
        pool = json.loads(run("pool", "show", "fast", "--json"))["used"]
        return pool // MIB, os.stat(tmp_path / "fast" / "blockyard-0.data").st_blocks * 512 // MIB

    def more_space() -> None:
        eventually(lambda: "pool-full" in run("events"))  # the pool is looked at about once a second
        run("pool", "add", "fast", str(tmp_path / "more"), "--size", "128M")

    found: list[tuple[int, int]] = []
    marks = {
        "used": lambda: found.append(taken()),
        "trimmed": lambda: found.append(taken()),
        "reserve": lambda: run("volume", "set", "fast/vm", "--reservation", "36M"),
        "full": more_space,
    }
    run("pool", "create", str(tmp_path / "fast"), "--size", "68M")
    configuration = f"portal_groups.1.portals = ['{HOST[0]}:3260']\n[pools.fast]\ndirectory = 'fast'\n"
    target(config=configuration, portals=[], prefix=network.prefix)
    run("pool", "set", "fast", "--soft", "50%")
    for name in ("vm", "hog"):
        run("volume", "create", f"fast/{name}", "256M", "--chunk", "64K")
    volumes = "[volumes.vm]\npool = 'fast'\n[volumes.hog]\npool = 'fast'\n"
    (tmp_path / "serve-0.toml").write_text(
        f"{configuration}{volumes}[targets.'{IQN}']\nluns = {{0 = 'vm', 1 = 'hog'}}\n"
    )
    run("reload")
    guest("pool_space.sh", marks=marks)
    expected = {"pool-soft-threshold", "pool-full", "pool-space"}
    eventually(lambda: expected <= {json.loads(line)["what"] for line in run("events", "--json").splitlines()})
    (used, on_disk), (used_after, on_disk_after) = found
    assert used - used_after >= 22, "fstrim gives space back to the pool"
    assert on_disk - on_disk_after >= 22, "and that to the file system"
