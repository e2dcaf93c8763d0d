"""A volume of a pool beside the same load on a raw sparse file: `python -m bench.pools`.

The two are served by a process each and measured directly after one another, the other being stopped; the order turns with each
round. What counts are the medians of the rounds' ratios: of I/Os a second, and of the CPU time that the target needs for one.
Both are written in full before. "First touch" writes to each chunk once after a snapshot.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from tests.serving import Serving

from bench.clients import WORKS, Work, drive
from bench.processes import alone, cpu_seconds
from bench.targets import IQN, Target
from blockyard.block.file import create as create_file
from blockyard.block.size import format_size, parse_size
from blockyard.control.administration import ask
from blockyard.pool.pool import create as create_pool
from blockyard.pool.space import DEFAULT_SHIFT

_SIZE = 1 << 30  # bytes of either
_SNAPSHOTS = 100  # that are taken while something is read
_MOST_WRITES = 1 << 15  # of "first touch"


class Raw(Target):
    """A raw sparse file."""

    name = "raw"

    def start(self) -> int:
        create_file(self.file, _SIZE)
        return self._serve([self.file], [])

    def _serve(self, volumes: Sequence[Path], options: Sequence[str]) -> int:
        self.state = self.directory / f"{self.name}-state"
        self._serving = Serving(
            volumes, state=self.state, log=self.log, options=["--workers", "1", *options],
            portals=[f"127.0.0.1:{self.port}"], target=IQN,
        )  # fmt: skip
        return self._serving.pid

    def stop(self) -> None:
        self._serving.kill()

    def fill(self) -> None:
        """Write every block."""
        drive(
            self, replace(WORKS["w256k-d16"], count=_SIZE >> 18), seconds=0, sessions=1, directory=self.directory,
            client="qemu-img",
        )  # fmt: skip


class Volume(Raw):
    """Volumes of a pool: "v", and "c" with the small chunks that continuous data protection is best with."""

    name = "pool"
    chunk = 0  # bytes, of "v"
    volume = "v"  # the one that is used now

    def start(self) -> int:
        self.file.mkdir()
        create_file(self.file / "data", 8 * _SIZE)
        create_pool(self.file, [str(self.file / "data")])
        pid = self._serve([], ["--pool", str(self.file)])
        for name, chunk in (("v", self.chunk), ("c", 4096)):
            self.ask("create volume", volume=name, size=_SIZE, chunk=chunk)
        return pid

    @property
    def url(self) -> str:
        return f"iscsi://127.0.0.1:{self.port}/{IQN}:{self.volume}/0"

    def ask(self, request: str, **arguments: object) -> None:
        ask(self.state, "pool", pool=self.file.name, request=request, **arguments)

    def snapshot(self, name: str) -> None:
        self.ask("create snapshot", volumes=["v"], snapshot=name)

    def forget(self, names: Sequence[str]) -> None:
        """Delete snapshots."""
        self.ask("delete snapshots", volume="v", snapshots=list(names))
        self.settle()

    def settle(self) -> None:
        """Wait until what was deleted is free, so that the next measurement does not pay for it."""
        while ask(self.state, "pool", pool=self.file.name, request="show")["freeing"]:
            time.sleep(0.05)


@contextmanager
def _with_snapshots(pool: Volume, seconds: float) -> Iterator[None]:
    """Snapshots are taken at even distances meanwhile."""
    names = [f"during-{number}" for number in range(_SNAPSHOTS)]

    def take() -> None:
        began = time.monotonic()
        for number, name in enumerate(names):
            time.sleep(max(0.0, began + number * seconds / _SNAPSHOTS - time.monotonic()))
            pool.snapshot(name)

    thread = threading.Thread(target=take)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        pool.forget(names)


@contextmanager
def _after_snapshot(pool: Volume, seconds: float) -> Iterator[None]:
    pool.snapshot("before")
    try:
        yield
    finally:
        pool.forget(["before"])


@contextmanager
def _protected(pool: Volume, seconds: float) -> Iterator[None]:
    """Continuous data protection is on."""
    pool.volume = "c"
    pool.ask("cdp on", volume="c", time=3600 * 10**9, size=0)
    try:
        yield
    finally:
        pool.ask("cdp off", volume="c")
        pool.settle()
        pool.volume = "v"


@dataclass(frozen=True)
class Row:
    """A load, what the pool does meanwhile, and the ratio that it has to reach."""

    title: str
    work: Work
    least: float
    meanwhile: Callable[[Volume, float], object] = lambda pool, seconds: nullcontext()


def rows(chunk: int) -> dict[str, Row]:
    read, write = WORKS["r4k-d32"], WORKS["w4k-d32"]
    odd = max(1, (1 << 20) // chunk) | 1  # chunks from one write to the next, so that each has its turn
    touch = replace(write, step=odd * chunk, count=min(_MOST_WRITES, _SIZE // chunk))
    return {
        "read": Row("4 KiB random reads", read, 0.9),
        "write": Row("4 KiB random overwrites", write, 0.9),
        "seqread": Row("256 KiB reads", WORKS["r256k-d16"], 0.9),
        "seqwrite": Row("256 KiB writes", WORKS["w256k-d16"], 0.9),
        "snapshots": Row(f"4 KiB random reads, {_SNAPSHOTS} snapshots meanwhile", read, 0.85, _with_snapshots),
        "touch": Row("4 KiB writes, first touch after a snapshot", touch, 0.4, _after_snapshot),
        "cdp": Row("4 KiB writes, CDP on, 4 KiB chunks", write, 0.5, _protected),
    }


@dataclass(frozen=True)
class Figure:
    """Of one measurement: I/Os a second, and µs of the target's CPU for each."""

    rate: float
    cost: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a table. Returns 0 however fast it was."""
    parser = argparse.ArgumentParser(prog="python -m bench.pools", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="(default: 5)")
    parser.add_argument("--seconds", type=int, default=2, help="of each measurement (default: 2)")
    parser.add_argument(
        "--chunk", metavar="SIZE", type=parse_size, default=0, help="of the volume (default: the default)"
    )
    parser.add_argument("--only", metavar="ROW,…", default=",".join(rows(1 << 16)), help="(default: all: %(default)s)")
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm"), help="for the data (default: /dev/shm)")  # noqa: S108
    options = parser.parse_args(arguments)
    chunk = options.chunk or 1 << DEFAULT_SHIFT
    backing = Path(tempfile.mkdtemp(prefix="blockyard-bench-", dir=options.directory))
    directory = Path(tempfile.mkdtemp(prefix="blockyard-bench-"))
    targets: list[Raw] = []
    try:
        Volume.chunk = chunk
        targets.append(Raw(backing / "raw.img", directory))
        pool = Volume(backing / "pool", directory)
        targets.append(pool)
        for target in (*targets, pool):  # both volumes of the pool
            target.fill()
            pool.volume = "c" if target is pool else "v"
        pool.volume = "v"
        print(
            f"{format_size(chunk)} chunks, {options.rounds} rounds of {options.seconds} s, in {options.directory}",
            flush=True,
        )
        for name in options.only.split(","):
            _print(rows(chunk)[name], _measure(rows(chunk)[name], targets, pool, options))
    finally:
        for target in targets:
            target.stop()
        shutil.rmtree(backing, ignore_errors=True)
        shutil.rmtree(directory, ignore_errors=True)
    return 0


def _measure(row: Row, targets: list[Raw], pool: Volume, options: argparse.Namespace) -> dict[str, list[Figure]]:
    found: dict[str, list[Figure]] = {target.name: [] for target in targets}
    for number in range(options.rounds):
        for target in targets if number % 2 else targets[::-1]:
            meanwhile = row.meanwhile(pool, options.seconds) if target is pool else nullcontext()
            with alone(target.root, [other.root for other in targets]), meanwhile:  # type: ignore[attr-defined]
                before = cpu_seconds(target.pids)
                outcome = drive(
                    target, row.work, seconds=options.seconds, sessions=1, directory=options.directory,
                    client=row.work.client,
                )  # fmt: skip
                used = cpu_seconds(target.pids) - before
            operations = max(1.0, outcome.operations)
            found[target.name].append(Figure(operations / outcome.seconds, used / operations * 1e6))
    return found


def _print(row: Row, found: dict[str, list[Figure]]) -> None:
    pairs = list(zip(found["raw"], found["pool"], strict=True))
    rate = statistics.median(pool.rate / raw.rate for raw, pool in pairs)
    cost = statistics.median(raw.cost / pool.cost for raw, pool in pairs)
    both = "  ".join(
        f"{name} {statistics.median(each.rate for each in figures):8.0f} IOPS"
        f" {statistics.median(each.cost for each in figures):6.1f} us"
        for name, figures in found.items()
    )
    print(f"{row.title:44} {both}  ratio {rate:.2f} (at least {row.least:.2f}), of CPU {cost:.2f}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
