"""What benches have in common that measure something of ours beside a raw file.

Each is served by a process of its own, and they are measured directly after one another, the others being stopped; the order
turns with each round. What counts are the medians of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from tests.serving import Serving

from bench.clients import WORKS, Client, Work, drive
from bench.processes import Pins, alone, cpus_for, pinned, run_seconds
from bench.targets import IQN, Target

MEMORY = Path("/dev/shm")  # noqa: S108  (data get a directory of their own)


class Served(Target):
    """A target of ours with one worker; what it serves is said in `start`."""

    def serve(self, volumes: Sequence[str | Path], options: Sequence[str] = (), *, config: Path | None = None) -> int:
        """Serve; return the root process's id."""
        self.state = self.directory / f"{self.name}-state"
        self._serving = Serving(
            volumes, state=self.state, log=self.log, options=["--workers", "1", *options], config=config,
            portals=[f"127.0.0.1:{self.port}"], target=IQN,
        )  # fmt: skip
        self._ends.enter_context(self._serving)
        return self._serving.pid

    def fill(self, size: int) -> None:
        """Write so many bytes, every block."""
        work = replace(WORKS["w256k-d16"], count=size >> 18)
        drive(self, work, seconds=0, sessions=1, directory=self.directory, client="qemu-img")


@dataclass(frozen=True)
class Figure:
    """Of one measurement: I/Os a second, and µs of the target's CPU for each."""

    rate: float
    cost: float


@dataclass(frozen=True)
class Compared:
    """The medians of one of ours and of a raw file, and of their ratio in each round."""

    ours: Figure
    raw: Figure
    rate: float  # that ours has of raw's
    cost: float

    @classmethod
    def of(cls, raw: Sequence[Figure], ours: Sequence[Figure]) -> Compared:
        pairs = list(zip(ours, raw, strict=True))
        return cls(
            _median(ours), _median(raw),
            statistics.median(mine.rate / theirs.rate for mine, theirs in pairs),
            statistics.median(mine.cost / theirs.cost for mine, theirs in pairs),
        )  # fmt: skip

    def told(self, title: str, least: float, other: str = "raw") -> str:
        """One line. `least`: what it has to reach (0: nothing)."""
        ours, raw = self.ours, self.raw
        wanted = f" (at least {least})" if least else ""
        return (
            f"{title}: {self.rate:.2f} of {other}{wanted}; {ours.rate:.0f} and {raw.rate:.0f} IOPS, "
            f"{ours.cost:.1f} and {raw.cost:.1f} us, {self.cost:.2f} of its CPU"
        )


def _median(figures: Sequence[Figure]) -> Figure:
    return Figure(statistics.median(each.rate for each in figures), statistics.median(each.cost for each in figures))


def parser(name: str, doc: str) -> argparse.ArgumentParser:
    """With what can be said to all of them: rounds, seconds of each measurement, where the data is."""
    made = argparse.ArgumentParser(prog=f"python -m bench.{name}", description=doc.partition("\n")[0])
    made.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    made.add_argument("--seconds", type=int, default=2, help="of each measurement (default: %(default)s)")
    made.add_argument("--directory", type=Path, default=MEMORY, help="for the data (default: %(default)s)")
    return made


def add_pins(made: argparse.ArgumentParser) -> None:
    """Have it be said where client and target run."""
    made.add_argument(
        "--pin", choices=get_args(Pins), default="no",
        help="client on CPU 0 and target on CPU 1, both on CPU 0, or left to the scheduler (default), which has them share a "
        "CPU in one round and not in the next: that may halve or double a figure",
    )  # fmt: skip


@contextmanager
def places(options: argparse.Namespace) -> Iterator[tuple[Path, Path]]:
    """As `directories`; the load is printed."""
    print(
        f"load {os.getloadavg()[0]:.1f}, {options.rounds} rounds of {options.seconds} s, in {options.directory}",
        flush=True,
    )
    with directories(options.directory) as found:
        yield found


@contextmanager
def directories(where: Path) -> Iterator[tuple[Path, Path]]:
    """One in `where` for the data, and one for programs, states and logs; removed afterwards, after SIGTERM too.

    SIGTERM raises KeyboardInterrupt, as Ctrl-C does, so that whatever was begun in the meantime ends.
    """

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # timeout(1) sends it twice: the second must not end the cleaning
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    backing = Path(tempfile.mkdtemp(prefix="blockyard-bench-", dir=where))
    directory = Path(tempfile.mkdtemp(prefix="blockyard-bench-"))
    try:
        yield backing, directory
    finally:
        shutil.rmtree(backing, ignore_errors=True)
        shutil.rmtree(directory, ignore_errors=True)
        signal.signal(signal.SIGTERM, before)


def measure(
    works: Mapping[Served, Work],
    every: Sequence[Served],
    options: argparse.Namespace,
    *,
    client: Client | None = None,
    meanwhile: Callable[[Served], AbstractContextManager[None]] = lambda target: nullcontext(),
    pins: Pins = "no",
) -> list[list[Figure]]:
    """Have each do its work in turns, all others of `every` being stopped; their figures, in order.

    `meanwhile` is what goes on while one works; `pins` is as `add_pins` says. Raises ClientFailed.
    """
    client_cpu, target_cpu = cpus_for(pins)
    found = [list[Figure]() for _ in works]
    turns = list(enumerate(works.items()))
    for number in range(options.rounds):
        for at, (target, work) in turns if number % 2 else turns[::-1]:
            others = [other.root for other in every]
            with alone(target.root, others), pinned(target.root, target_cpu), meanwhile(target):
                before = run_seconds(target.pids)
                outcome = drive(
                    target, work, seconds=options.seconds, sessions=1, directory=target.directory,
                    client=client or work.client, cpu=client_cpu,
                )  # fmt: skip
                used = run_seconds(target.pids) - before
            operations = max(1.0, outcome.operations)
            found[at].append(Figure(operations / outcome.seconds, used / operations * 1e6))
    return found
