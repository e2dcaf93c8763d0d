"""What sessions cost in memory."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from bench.clients import WORKS, ClientFailed, drive
from bench.processes import memory
from bench.report import Weight
from bench.targets import KINDS, Target, compile_c

_IDLE = 50
_LIMIT_SECONDS = 90.0  # istgt takes a second for each login


def weigh(name: str, backing: Path, directory: Path) -> Weight:
    """Start the target afresh and weigh it with 1 session, then with 50 more idle ones, and after heavy load.

    Raises ClientFailed.
    """
    file = backing / f"weigh-{name}.img"
    with file.open("wb") as handle:
        handle.truncate(1 << 28)
    own = directory / f"weigh-{name}"  # the one that is measured has its state and log beside it
    own.mkdir()
    with KINDS[name](file, own) as target:
        with _idle(target, 1, directory):
            one = memory(target.data_pids)
            with _idle(target, _IDLE, directory):
                many = memory(target.data_pids)
        for work in WORKS.values():
            drive(target, work, seconds=1, sessions=1, directory=directory, client=work.client)
        loaded = memory(target.data_pids)
    file.unlink()
    return Weight(
        target=name, rss_one=one.rss, pss_one=one.pss, anonymous_one=one.anonymous,
        rss_each=(many.rss - one.rss) / _IDLE, pss_each=(many.pss - one.pss) / _IDLE,
        anonymous_each=(many.anonymous - one.anonymous) / _IDLE, rss_loaded=loaded.rss,
    )  # fmt: skip


@contextlib.contextmanager
def _idle(target: Target, sessions: int, directory: Path) -> Iterator[None]:
    """So many sessions that have logged in, asked for the capacity, and do nothing more."""
    program = compile_c(Path(__file__).with_name("load.c"), directory)
    process = subprocess.Popen([program, "-i", str(sessions), target.url], stdout=subprocess.PIPE)
    try:
        if process.stdout is None or not select.select([process.stdout], [], [], _LIMIT_SECONDS)[0]:
            raise ClientFailed(f"{sessions} idle sessions with {target.name} did not come up")
        said = os.read(process.stdout.fileno(), 4096)
        if said != f"{sessions} sessions\n".encode():
            raise ClientFailed(f"{sessions} idle sessions with {target.name}: {said!r}")
        time.sleep(0.2)  # what the target does after its last answer
        yield
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
