"""What collecting metrics costs: `python -m bench.scrape`.

A server has 100 volumes and 1,000 sessions of as many initiators, each of which has read and written, so that every series
there can be is there. Prometheus asks it every 15 seconds; here it is asked as often as it answers, and what counts is the CPU
time of a scrape, of control and of the worker, in 15 seconds of one core: a data path that is busy has at least that. The worker
does nothing else while it counts: how long is what a command has to wait at worst.

Counting itself is in the data path: once for all commands that are answered together. What that takes is told beside it, for
the commands that come together at depth 32.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import resource
import statistics
import time
import timeit
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.serving import Serving, free_port

from bench.beside import MEMORY, directories
from bench.processes import cpu_seconds
from blockyard.initiator import connect
from blockyard.scsi.traffic import Traffic

_NAME = "iqn.2026-11.org.blockyard.bench"
_EVERY = 15.0  # seconds: scrape_interval, as most have it
_MOST = 0.01
_BATCH, _COMMAND = 16, 4.5e-6  # commands that come together at depth 32, and seconds of CPU that one takes


def _configuration(volumes: int, port: int) -> str:
    lines = [f'[metrics]\nlisten = "127.0.0.1:{port}"']
    for number in range(volumes):
        lines.append(f'[volumes.v{number}]\npath = "v{number}.img"\nsize = "1M"')
        lines.append(f'[targets."{_NAME}:t{number}"]\nluns = {{ 0 = "v{number}" }}')
    return "\n".join(lines)


@contextlib.contextmanager
def _served(volumes: int, sessions: int, directory: Path, port: int) -> Iterator[Serving]:
    config = directory / "blockyard.toml"
    config.write_text(_configuration(volumes, port), encoding="utf-8")
    log = directory / "log"
    serving = Serving([], state=directory / "state", log=log, config=config, options=["--workers", "1"])
    with contextlib.ExitStack() as stack:
        stack.callback(serving.kill)
        for number in range(sessions):
            url = f"iscsi://{serving.portals[0]}/{_NAME}:t{number % volumes}/0"
            lun = stack.enter_context(connect(url, initiator_name=f"{_NAME}:host{number}"))
            lun.write(0, lun.read(0, 8))
        yield serving


def _scrape(port: int) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics")
        return connection.getresponse().read()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print it. Returns 0 however fast it was."""
    parser = argparse.ArgumentParser(prog="python -m bench.scrape", description=__doc__.partition("\n")[0])
    parser.add_argument("--volumes", type=int, default=100, help="(default: 100)")
    parser.add_argument("--sessions", type=int, default=1000, help="(default: 1000)")
    parser.add_argument("--scrapes", type=int, default=20, help="(default: 20)")
    options = parser.parse_args(arguments)
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files[1], files[1]))
    port = free_port()
    with (
        directories(MEMORY) as (directory, _),
        _served(options.volumes, options.sessions, directory, port) as serving,
    ):
        _measure(serving, port, options)
    return 0


def _measure(serving: Serving, port: int, options: argparse.Namespace) -> None:
    page = _scrape(port)
    control, worker, taken = [serving.pid], serving.workers, []
    before = cpu_seconds(control), cpu_seconds(worker)
    for _ in range(options.scrapes):
        began = time.monotonic()
        _scrape(port)
        taken.append(time.monotonic() - began)
    each = [
        (now - then) / options.scrapes for now, then in zip(map(cpu_seconds, (control, worker)), before, strict=True)
    ]
    share = sum(each) / _EVERY
    print(
        f"{options.volumes} volumes, {options.sessions} sessions: {len(page.splitlines()):,} lines, {len(page) / 1e6:.1f} MB. "
        f"A scrape takes {each[0] * 1e3:.0f} ms of CPU in control and {each[1] * 1e3:.1f} ms in the worker, "
        f"{statistics.median(taken) * 1e3:.0f} ms by the clock.\n"
        f"Every {_EVERY:.0f} s: {share:.2%} of a core; most {_MOST:.0%}: {'reached' if share <= _MOST else 'MISSED'}."
    )
    traffic, times = Traffic(), 100_000
    seconds = (
        min(timeit.repeat(lambda: traffic.add(time.monotonic() - 0.0, _BATCH, 4096 * _BATCH), number=times)) / times
    )
    print(
        f"Counting {_BATCH} commands that come together: {seconds * 1e6:.2f} µs, "
        f"{seconds / (_BATCH * _COMMAND):.2%} of the {_BATCH * _COMMAND * 1e6:.0f} µs that they take."
    )


if __name__ == "__main__":
    raise SystemExit(main())
