"""Bacula backs up to a tape library, with the configuration that docs/tape.md advises."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.conftest import TargetFactory, run
from tests.guest.conftest import Guest
from tests.guest.network import HOST, Network
from tests.serving import IQN

_CONFIGURATION = f"""
[libraries.vault]
directory = "vault"
drives = 2
slots = 8

[targets."{IQN}"]
library = "vault"
"""
_DOCUMENT = Path(__file__).parents[2] / "docs" / "tape.md"


def _advised(file: str) -> str:
    """A piece of configuration in the document, with the names of this target."""
    (text,) = re.findall(rf"`{file}`:\n\n((?:    .*\n|\n)+)", _DOCUMENT.read_text())
    return str(text).replace("192.0.2.10", HOST[0]).replace("iqn.2024-01.com.example:vault", IQN)


@pytest.mark.parametrize(
    ("script", "cartridges", "size"),
    [
        ("bacula.sh", 3, "12M"),
        # What btape wants: 10,000 records of 32 KiB on the first cartridge
        pytest.param("btape.sh", 2, "400M", marks=pytest.mark.soak),
    ],
    ids=["backup", "btape"],
)
def test_bacula(
    script: str, cartridges: int, size: str, target: TargetFactory, guest: Guest, network: Network, tmp_path: Path
) -> None:
    serving = target(config=_CONFIGURATION, prefix=network.prefix, portals=[f"{HOST[0]}:3260"])
    create = [sys.executable, "-m", "blockyard", "tape", "cartridge", "create", "--state", str(tmp_path / "state-0")]
    for number in range(1, cartridges + 1):
        run([*create, "vault", f"B0000{number}L8", "--size", size])
    advised = {"STORAGE": _advised("bacula-sd.conf"), "DIRECTOR": _advised("bacula-dir.conf")}
    guest(script, variables=advised, marks={"restart": serving.restart})
