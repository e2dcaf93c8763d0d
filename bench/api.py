"""What the API costs the data path: `python -m bench.api`.

A disk is read and written at depth 32 while nobody asks the API anything, and while it is asked 200 times a second and has a
stream open as a console has, in turns; the order turns with each round. What counts are the medians of the rounds' ratios.

What is counted: all that control does for the requests and the stream, what workers do when control asks them, and the
processor's caches that the data path loses to either. Who asks is bench/ask.c, on the same machine and the same cores: its
time is in the ratio as well, and is told, as somebody else's machine would have it. A browser's own work is not in it: it
draws where the administrator sits. Latency is from when a request was due to its whole answer, while the disk's load wants
all of the processor.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.serving import free_port

from bench import beside
from bench.clients import WORKS, drive
from bench.processes import cpu_seconds
from bench.run import backing_file
from bench.targets import compile_c

_WORKS = {"r4k-d32": "4 KiB random reads, depth 32", "w4k-d32": "4 KiB random writes, depth 32"}
_PATHS = ("/status", "/volumes", "/targets", "/sessions", "/me", "/events?last=20", "/jobs", "/pools")
_API = "/api/v1"
_LEAST = 0.95


class Served(beside.Served):
    """A disk, with the API beside it."""

    name = "blockyard-api"

    def start(self) -> int:
        self.console = free_port()
        return self.serve([self.file], ["--console", f"127.0.0.1:{self.console}"])

    @property
    def data_pids(self) -> list[int]:
        return self._serving.workers


@dataclass
class Asked:
    """What somebody who asks has seen: microseconds of his own CPU for a request, milliseconds until the answer was there."""

    answered: int
    cpu: float
    p50: float
    p99: float
    max: float


@contextlib.contextmanager
def _asked(target: Served, rate: int) -> Iterator[list[Asked]]:
    """Requests are made at this rate, and a stream is open, while this lasts; what came of it. 0: none."""
    found: list[Asked] = []
    if not rate:
        yield found
        return
    program = compile_c(Path(__file__).with_name("ask.c"), target.directory)
    paths = [_API + path for path in ("/stream", *_PATHS)]
    asking = subprocess.Popen(
        [program, target.state / "api.sock", str(rate), *paths],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        yield found
        told = asking.communicate(timeout=10)[0]
        found.append(Asked(**json.loads(told)))
    finally:
        asking.kill()
        asking.wait()


@dataclass
class Turns:
    """Figures of all rounds, of when the API was asked and when not: I/Os a second, µs of CPU of workers for each I/O."""

    rates: dict[bool, list[float]] = field(default_factory=lambda: {False: [], True: []})
    worker: dict[bool, list[float]] = field(default_factory=lambda: {False: [], True: []})
    control: list[float] = field(
        default_factory=list
    )  # µs of CPU for a request: the stream included, what is done anyhow not
    asked: list[Asked] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a table. Returns 0 however fast it was."""
    parser = beside.parser("api", __doc__)
    parser.set_defaults(rounds=7, seconds=3)
    parser.add_argument("--rate", type=int, default=200, help="requests a second (default: %(default)s)")
    options = parser.parse_args(arguments)
    with (
        beside.places(options) as (backing, directory),
        Served(backing_file(backing / "disk.img"), directory) as target,
    ):
        print(f"{options.rate} requests a second and a stream", flush=True)
        for work, title in _WORKS.items():
            print(_told(title, _measure(work, target, options)), flush=True)
    return 0


def _measure(name: str, target: Served, options: argparse.Namespace) -> Turns:
    work, turns = WORKS[name], Turns()
    for number in range(options.rounds):
        busy: dict[bool, float] = {}
        for asked in (False, True) if number % 2 else (True, False):
            with _asked(target, options.rate if asked else 0) as found:
                before = cpu_seconds([target.root]), cpu_seconds(target.data_pids)
                outcome = drive(
                    target, work, seconds=options.seconds, sessions=1, directory=target.directory, client=work.client
                )
                control, workers = cpu_seconds([target.root]) - before[0], cpu_seconds(target.data_pids) - before[1]
            turns.rates[asked].append(outcome.operations / outcome.seconds)
            turns.worker[asked].append(workers / outcome.operations * 1e6)
            busy[asked] = control / outcome.seconds
            turns.asked += found
        turns.control.append((busy[True] - busy[False]) / options.rate * 1e6)
    return turns


def _told(title: str, turns: Turns) -> str:
    ratios = [asked / alone for alone, asked in zip(turns.rates[False], turns.rates[True], strict=True)]
    ratio, middle = statistics.median(ratios), statistics.median
    return (
        f"{title}: {ratio:.3f} of what it is alone ({min(ratios):.3f} to {max(ratios):.3f}); "
        f"least {_LEAST}: {'reached' if ratio >= _LEAST else 'MISSED'}.\n"
        f"  CPU of control for a request: {middle(turns.control):.0f} µs; of who asks: "
        f"{middle(each.cpu for each in turns.asked):.0f} µs; of the worker for an I/O: {middle(turns.worker[False]):.2f} µs "
        f"alone, {middle(turns.worker[True]):.2f} asked.\n"
        f"  Answers: p50 {middle(each.p50 for each in turns.asked):.2f} ms, "
        f"p99 {middle(each.p99 for each in turns.asked):.1f} ms, "
        f"the slowest {max(each.max for each in turns.asked):.0f} ms."
    )


if __name__ == "__main__":
    raise SystemExit(main())
