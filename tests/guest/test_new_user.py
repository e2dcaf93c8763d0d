"""As a new user: a fresh clone, `make run`, and the lines that it prints, pasted on a Linux host, which mounts the disk."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Timer

import pytest

from tests.conftest import run
from tests.guest.conftest import Guest
from tests.guest.network import HOST, Network

ROOT = Path(__file__).parents[2]
_FILES = ("Makefile", "pyproject.toml", "README.md", "LICENSE", "src", "tools")  # those that `make run` looks at
_SET_UP_SECONDS = 300.0


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What a clone has, and nothing of what was set up here."""
    clone = tmp_path / "blockyard"
    clone.mkdir()
    for name in _FILES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(ROOT / name, clone / name)
    return clone


@pytest.fixture
def printed(clone: Path, network: Network, tmp_path: Path) -> Iterator[str]:
    """What `make run` prints until it is ready; it serves meanwhile. Only its downloads are outside of the network."""
    here = {"XDG_STATE_HOME": str(tmp_path / "state")}
    run(["make", "-C", clone, ".venv/.installed"], environment=here, seconds=_SET_UP_SECONDS)
    command = [*network.prefix, "make", "run", f"ARGS=--portal {HOST[0]}"]
    with subprocess.Popen(
        command, cwd=clone, env=os.environ | here, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        deadline = Timer(_SET_UP_SECONDS, os.killpg, (process.pid, signal.SIGKILL))
        deadline.start()
        try:
            assert process.stdout is not None
            lines: list[str] = []
            for line in process.stdout:
                lines.append(line)
                if line.startswith("Ready"):
                    break
            yield "".join(lines)
        finally:
            deadline.cancel()
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(120)


def _linux(printed: str) -> str:
    """The lines under "Linux"."""
    _, _, after = printed.partition("Linux (open-iscsi, as root)\n")
    return "\n".join(line.strip() for line in after.partition("\n\n")[0].splitlines())


def test_from_a_clone_to_a_mounted_file_system(printed: str, guest: Guest) -> None:
    began = time.monotonic()
    assert printed.rstrip().endswith("Ready.")
    pasted = _linux(printed)
    assert pasted.count("iscsiadm") == 2
    mounted: list[float] = []
    guest(
        "pasted.sh", variables={"PASTED": pasted}, marks={"mounted": lambda: mounted.append(time.monotonic() - began)}
    )
    print(f"mounted {mounted[0]:.1f} s after it was ready")  # noqa: T201  (pytest shows it)
