"""Linux with a tape library: its drivers st and ch, mt, mtx, tar, cpio and dd."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.conftest import TargetFactory, run
from tests.guest.conftest import Guest
from tests.guest.network import HOST, Network
from tests.serving import IQN

_CONFIGURATION = f"""
[libraries.vault]
directory = "vault"
drives = 2
slots = 6
import_export = 2

[targets."{IQN}"]
library = "vault"
"""


def test_linux_uses_a_tape_library(target: TargetFactory, guest: Guest, network: Network, tmp_path: Path) -> None:
    serving = target(config=_CONFIGURATION, prefix=network.prefix, portals=[f"{HOST[0]}:3260"])
    state = ["--state", str(tmp_path / "state-0")]
    blockyard = [sys.executable, "-m", "blockyard", "tape", "cartridge"]
    sizes = {"A00001L8": "100M", "A00002L8": "100M", "S00001L8": "4M", "S00002L8": "4M", "S00003L8": "4M"}
    for barcode, size in sizes.items():
        run([*blockyard, "create", "vault", barcode, "--size", size, *state])

    def label() -> None:
        run([*blockyard, "label", "vault", "A00002L8", "B00002L8", *state])
        run([*blockyard, "create", "vault", "S00004L8", "--size", "4M", *state])
        run([*blockyard, "delete", "vault", "S00004L8", "--yes", *state])

    def crash() -> None:
        serving.kill()
        serving.restart()

    guest("tape.sh", marks={"label": label, "restart": serving.restart, "crash": crash})
