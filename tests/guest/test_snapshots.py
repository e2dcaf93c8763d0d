"""Linux mounts a snapshot and a clone of a pool's volume while it writes to the volume."""

from __future__ import annotations

from pathlib import Path

from blockyard.cli.main import main
from tests.conftest import TargetFactory
from tests.guest.conftest import Guest
from tests.guest.network import HOST, Network
from tests.serving import IQN

_VOLUMES = {"vm": "", "monday": "volume = 'vm'\nsnapshot = 'monday'", "copy": ""}


def _configuration(*names: str) -> str:
    """These volumes as LUN 0, 1, …"""
    volumes = "".join(f"[volumes.{name}]\npool = 'fast'\n{_VOLUMES[name]}\n" for name in names)
    luns = ", ".join(f"{lun} = '{name}'" for lun, name in enumerate(names))
    return f"""
portal_groups.1.portals = ["{HOST[0]}:3260"]
[pools.fast]
directory = "fast"
{volumes}
[targets."{IQN}"]
luns = {{{luns}}}
"""


def test_a_snapshot_is_mounted_while_its_volume_is_written(
    target: TargetFactory, network: Network, guest: Guest, tmp_path: Path
) -> None:
    def run(*words: str) -> None:
        assert main([*words, "--state", str(tmp_path / "state-0")]) == 0

    def show(*luns: str) -> None:
        (tmp_path / "serve-0.toml").write_text(_configuration(*luns))
        run("reload")

    def snapshot() -> None:
        run("snapshot", "create", "fast/vm@monday")
        show("vm", "monday")

    def clone() -> None:
        run("clone", "create", "fast/vm@monday", "fast/copy")
        show("vm", "monday", "copy")

    run("pool", "create", str(tmp_path / "fast"), "--size", "1G")
    target(config=_configuration(), portals=[], prefix=network.prefix)
    run("volume", "create", "fast/vm", "128M")
    show("vm")
    guest("snapshot.sh", marks={"snapshot": snapshot, "clone": clone})
