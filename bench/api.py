"""What the API costs the data path: `python -m bench.api`.

A disk is read and written at depth 32 while nobody asks the API anything, and while it is asked 200 times a second and has a
stream open as a console has, in turns; the order turns with each round. What counts are the medians of the rounds' ratios.

What is counted: all that control does for the requests and the stream, what workers do when control asks them, and the
processor's caches that the data path loses to either. Who asks is bench/ask.c, on the same machine and the same cores: what it
takes is in the ratio as well, and somebody else's machine would have it. So there is another turn, in which it asks
bench/answer.c, which does nothing but answer: that is what remains if the API cost nothing. The aim is for the whole; what the
API keeps of the other is told beside it. A browser's own work is not in it: it draws where the administrator sits. Latency is
from when a request was due to its whole answer, while the disk's load wants all of the processor.

`--parts` takes more turns: requests without a stream, a stream without requests, and each path by itself.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.serving import free_port

from bench import beside
from bench.clients import WORKS, drive
from bench.processes import run_seconds
from bench.run import backing_file
from bench.targets import compile_c

_WORKS = {"r4k-d32": "4 KiB random reads, depth 32", "w4k-d32": "4 KiB random writes, depth 32"}
_PATHS = ("/status", "/volumes", "/targets", "/sessions", "/me", "/events?last=20", "/jobs", "/pools")
_API = "/api/v1"
_LEAST = 0.95
_BYTES = 700  # of an answer, on average


@dataclass(frozen=True)
class Asking:
    """Who asks what in a turn."""

    title: str
    paths: tuple[str, ...] = ()
    stream: bool = False
    bare: bool = False  # of bench/answer.c


_ALONE, _BARE = Asking("alone"), Asking("asked, bench/answer.c", _PATHS, bare=True)
_WHOLE = Asking("asked, and a stream", _PATHS, stream=True)
_PARTS = (
    Asking("requests only", _PATHS),
    Asking("a stream only", stream=True),
    *(Asking(path, (path,)) for path in _PATHS),
)


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
def _answering(directory: Path) -> Iterator[Path]:
    """bench/answer.c; its socket."""
    sock = directory / "answer.sock"
    program = compile_c(Path(__file__).with_name("answer.c"), directory)
    process = subprocess.Popen([program, sock, str(_BYTES)])
    try:
        while not sock.exists() and process.poll() is None:
            time.sleep(0.01)
        yield sock
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def _asked(target: Served, answering: Path, asking: Asking, rate: int) -> Iterator[list[Asked]]:
    """Requests are made at this rate while this lasts; what came of it."""
    found: list[Asked] = []
    if asking is _ALONE:
        yield found
        return
    program = compile_c(Path(__file__).with_name("ask.c"), target.directory)
    sock = answering if asking.bare else target.state / "api.sock"
    paths = [f"{_API}/stream" if asking.stream else "-", *(_API + path for path in asking.paths or _PATHS[:1])]
    process = subprocess.Popen(
        [program, sock, str(rate if asking.paths else 0.1), *paths], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        yield found
        told = process.communicate(timeout=10)[0]
        if asking.paths:
            found.append(Asked(**json.loads(told)))
    finally:
        process.kill()
        process.wait()


@dataclass
class Turns:
    """Figures of all rounds of one kind of turn: I/Os a second, µs of CPU of workers for each, and s of CPU of control a s."""

    rates: list[float] = field(default_factory=list)
    worker: list[float] = field(default_factory=list)
    control: list[float] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)

    def ratios(self, other: Turns) -> list[float]:
        return [mine / theirs for mine, theirs in zip(self.rates, other.rates, strict=True)]

    def of_control(self, alone: Turns, rate: int) -> float:
        """µs for a request: the stream included, what is done anyhow not."""
        pairs = zip(self.control, alone.control, strict=True)
        return statistics.median(mine - theirs for mine, theirs in pairs) / rate * 1e6


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a table. Returns 0 however fast it was."""
    parser = beside.parser("api", __doc__)
    parser.set_defaults(rounds=7, seconds=3)
    parser.add_argument("--rate", type=int, default=200, help="requests a second (default: %(default)s)")
    parser.add_argument("--parts", action="store_true", help="tell what each part of it costs, too: this takes long")
    options = parser.parse_args(arguments)
    with (
        beside.places(options) as (backing, directory),
        Served(backing_file(backing / "disk.img"), directory) as target,
        _answering(directory) as answering,
    ):
        print(f"{options.rate} requests a second and a stream", flush=True)
        for work, title in _WORKS.items():
            print(_told(title, _measure(work, target, answering, options), options), flush=True)
    return 0


def _measure(name: str, target: Served, answering: Path, options: argparse.Namespace) -> dict[Asking, Turns]:
    work = WORKS[name]
    turns = {asking: Turns() for asking in (_BARE, _ALONE, _WHOLE, *(_PARTS if options.parts else ()))}
    for number in range(options.rounds):
        for asking, turn in list(turns.items())[:: 1 if number % 2 else -1]:
            with _asked(target, answering, asking, options.rate) as found:
                began, before = time.monotonic(), (run_seconds([target.root]), run_seconds(target.data_pids))
                outcome = drive(
                    target, work, seconds=options.seconds, sessions=1, directory=target.directory, client=work.client
                )
                control, workers = run_seconds([target.root]) - before[0], run_seconds(target.data_pids) - before[1]
                turn.control.append(control / (time.monotonic() - began))
            turn.rates.append(outcome.operations / outcome.seconds)
            turn.worker.append(workers / outcome.operations * 1e6)
            turn.asked += found
    return turns


def _told(title: str, turns: dict[Asking, Turns], options: argparse.Namespace) -> str:
    middle, alone, bare, whole = statistics.median, turns[_ALONE], turns[_BARE], turns[_WHOLE]
    ratios = whole.ratios(alone)
    lines = [
        f"{title}: {middle(ratios):.3f} of what it is alone ({min(ratios):.3f} to {max(ratios):.3f}); "
        f"least {_LEAST}: {'reached' if middle(ratios) >= _LEAST else 'MISSED'}.",
        f"  Who asks takes that to {middle(bare.ratios(alone)):.3f} by himself (he asks bench/answer.c); "
        f"of that, {middle(whole.ratios(bare)):.3f} is left beside the API.",
        f"  CPU of control for a request: {whole.of_control(alone, options.rate):.0f} µs; of who asks: "
        f"{middle(each.cpu for each in whole.asked):.0f} µs; of the worker for an I/O: {middle(alone.worker):.2f} µs "
        f"alone, {middle(whole.worker):.2f} asked.",
        f"  Answers: p50 {middle(each.p50 for each in whole.asked):.2f} ms, "
        f"p99 {middle(each.p99 for each in whole.asked):.1f} ms, "
        f"the slowest {max(each.max for each in whole.asked):.0f} ms.",
    ]
    for asking in _PARTS if options.parts else ():
        turn = turns[asking]
        lines.append(
            f"  {asking.title}: {middle(turn.ratios(alone)):.3f}; "
            f"{turn.of_control(alone, options.rate):.0f} µs of control for a request"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
