"""Changes while Linux is logged in: redirections, LUNs, sizes, rights and portals, and what the kernel makes of them."""

from __future__ import annotations

import os
from pathlib import Path

from blockyard.cli.main import main
from tests.conftest import TargetFactory
from tests.guest.conftest import Guest
from tests.guest.network import HOST, Network
from tests.serving import IQN

MOVED = f"{IQN}-moved"
FIRST, ELSEWHERE, SECOND = f"{HOST[0]}:3260", f"{HOST[1]}:3260", f"{HOST[1]}:3261"


def configuration(luns: str, *, portals: list[str], read_only: str = "false") -> str:
    """IQN with these LUNs by these portals; MOVED sends logins from one portal to another. `read_only` is for volume c."""
    return f"""
    portal_groups = {{1 = {{portals = {portals}}}, 2 = {{portals = ["{ELSEWHERE}"]}}}}
    [volumes.disk]
    path = "disk.img"
    [volumes.b]
    path = "b.img"
    size = "16M"
    [volumes.c]
    path = "c.img"
    size = "8M"
    read_only = {read_only}
    [targets."{IQN}"]
    luns = {{{luns}}}
    [targets."{MOVED}"]
    portal_groups = [1, 2]
    luns = {{0 = "disk"}}
    redirect = {{to = "{ELSEWHERE}", portals = ["{FIRST}"]}}
    """


def test_live_changes(target: TargetFactory, network: Network, guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "disk.img").touch()
    os.truncate(tmp_path / "disk.img", 32 << 20)
    serving = target(config=configuration("0 = 'disk'", portals=[FIRST]), prefix=network.prefix, portals=[])
    workers = serving.workers

    def run(*words: str) -> None:
        assert main([*words, "--state", str(tmp_path / "state-0")]) == 0

    def change(luns: str, *, portals: list[str], read_only: str = "false") -> None:
        (tmp_path / "serve-0.toml").write_text(configuration(luns, portals=portals, read_only=read_only))
        run("reload")

    all_luns, left = "0 = 'disk', 1 = 'b', 300 = 'c'", "0 = 'disk', 300 = 'c'"
    guest(
        "live.sh",
        variables={"MOVED": MOVED, "ELSEWHERE": HOST[1], "SECOND": SECOND},
        marks={
            "luns-come": lambda: change(all_luns, portals=[FIRST]),
            "grow": lambda: run("volume", "resize", "disk", "64M"),
            "protect": lambda: change(all_luns, portals=[FIRST], read_only="true"),
            "unprotect": lambda: change(all_luns, portals=[FIRST]),
            "lun-goes": lambda: change(left, portals=[FIRST]),
            "portal-comes": lambda: change(left, portals=[FIRST, SECOND]),
            "portal-goes": lambda: change(left, portals=[FIRST]),
        },
    )
    assert serving.workers == workers, "nothing of this takes another process"
