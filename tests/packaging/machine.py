"""A Debian that has been booted: systemd is its first process, in namespaces of its own, so that services run as on a machine."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import need, run
from tests.serving import children

_BOOT = Path(__file__).with_name("boot.sh")
_PATIENCE = 120.0  # seconds


class Machine:
    """One that runs."""

    def __init__(self, root: Path, init: int) -> None:
        self.root = root
        self._enter: list[str | Path] = [
            need("nsenter", "util-linux"),
            "--all",
            "--root",
            "--wd",
            "--target",
            str(init),
        ]

    def run(self, *command: str, seconds: float = 120, check: bool = True) -> str:
        """What a command prints there."""
        return run([*self._enter, *command], seconds=seconds, check=check).stdout


def make(root: Path, *packages: str) -> None:
    """A Debian in a directory, from its own servers; half a minute."""
    run(
        [need("mmdebstrap", "mmdebstrap"), "--mode=root", "--variant=minbase", f"--include={','.join(packages)}",
         "bookworm", root, "http://deb.debian.org/debian"],
        seconds=600,
    )  # fmt: skip


@contextlib.contextmanager
def booted(root: Path) -> Iterator[Machine]:
    """It runs inside."""
    group = f"blockyard-test-{os.getpid()}"
    process = subprocess.Popen([_BOOT, root], env=os.environ | {"BOOT_GROUP": group}, start_new_session=True)
    try:
        began = time.monotonic()
        while not _is_booted(process, root):
            assert process.poll() is None, "it has not booted"
            assert time.monotonic() < began + _PATIENCE, "it has not booted"
            time.sleep(0.2)
        yield Machine(root, children(process.pid)[0])
    finally:
        process.kill()  # and with it all that runs there
        process.wait()
        _remove(group)


def _is_booted(process: subprocess.Popen[bytes], root: Path) -> bool:
    found = children(process.pid)
    if not found or Path(f"/proc/{found[0]}/comm").read_text() != "systemd\n":
        return False
    return Machine(root, found[0]).run("systemctl", "is-system-running", check=False).strip() in ("running", "degraded")


def _remove(group: str) -> None:
    """The control groups of a machine; the last of its processes may still be ending."""
    places = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if line.split()[2] == "cgroup2"]
    top, end = Path(places[0]) / group, time.monotonic() + _PATIENCE
    while top.exists():
        for directory, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(directory)
        assert time.monotonic() < end, f"{top} stays busy"
        time.sleep(0.05)
