"""What benches have in common that measure something of ours beside a raw file.

Each is served by a process of its own, and they are measured directly after one another, the others being stopped; the order
turns with each round. What counts are the medians of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.serving import Serving

from bench.clients import Client, Work, drive
from bench.processes import alone, cpu_seconds
from bench.targets import IQN, Target


class Served(Target):
    """A target of ours with one worker; what it serves is said in `start`."""

    def serve(self, volumes: Sequence[str | Path], options: Sequence[str] = (), *, config: Path | None = None) -> int:
        """Serve; return the root process's id."""
        self.state = self.directory / f"{self.name}-state"
        self._serving = Serving(
            volumes, state=self.state, log=self.log, options=["--workers", "1", *options], config=config,
            portals=[f"127.0.0.1:{self.port}"], target=IQN,
        )  # fmt: skip
        return self._serving.pid

    def stop(self) -> None:
        self._serving.kill()


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


def _median(figures: Sequence[Figure]) -> Figure:
    return Figure(statistics.median(each.rate for each in figures), statistics.median(each.cost for each in figures))


def parser(name: str, doc: str) -> argparse.ArgumentParser:
    """With what can be said to all of them: rounds, seconds of each measurement, where the data is."""
    made = argparse.ArgumentParser(prog=f"python -m bench.{name}", description=doc.partition("\n")[0])
    made.add_argument("--rounds", type=int, default=5, help="(default: 5)")
    made.add_argument("--seconds", type=int, default=2, help="of each measurement (default: 2)")
    made.add_argument("--directory", type=Path, default=Path("/dev/shm"), help="for the data (default: /dev/shm)")  # noqa: S108
    return made


@contextmanager
def places(options: argparse.Namespace) -> Iterator[tuple[Path, Path]]:
    """A directory for the data, and one for programs, states and logs; removed afterwards. The load is printed."""
    backing = Path(tempfile.mkdtemp(prefix="blockyard-bench-", dir=options.directory))
    directory = Path(tempfile.mkdtemp(prefix="blockyard-bench-"))
    print(f"load {os.getloadavg()[0]:.1f}, {options.rounds} rounds, in {options.directory}", flush=True)
    try:
        yield backing, directory
    finally:
        shutil.rmtree(backing, ignore_errors=True)
        shutil.rmtree(directory, ignore_errors=True)


def measure(
    works: Mapping[Served, Work], every: Sequence[Served], options: argparse.Namespace, *, client: Client | None = None
) -> list[list[Figure]]:
    """Have each do its work in turns, all others of `every` being stopped; their figures, in order. Raises ClientFailed."""
    found = [list[Figure]() for _ in works]
    turns = list(enumerate(works.items()))
    for number in range(options.rounds):
        for at, (target, work) in turns if number % 2 else turns[::-1]:
            with alone(target.root, [other.root for other in every]):
                before = cpu_seconds(target.pids)
                outcome = drive(
                    target, work, seconds=options.seconds, sessions=1, directory=target.directory,
                    client=client or work.client,
                )  # fmt: skip
                used = cpu_seconds(target.pids) - before
            operations = max(1.0, outcome.operations)
            found[at].append(Figure(operations / outcome.seconds, used / operations * 1e6))
    return found
