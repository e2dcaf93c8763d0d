"""Caches and encrypted disks beside a raw file: `python -m bench.layers`.

A raw file and stacks of layers on files are each served by a process of their own and measured directly after one another,
the others being stopped; the order turns with each round. What counts are the medians of the rounds' ratios. All is cached:
what is read from a cache hits, and what is written to one that writes back has room there.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.serving import Serving

from bench.clients import WORKS, Work, drive
from bench.images import Figure
from bench.processes import alone, cpu_seconds
from bench.targets import IQN, Target
from blockyard.block.building import create_layer
from blockyard.block.file import create as create_file
from blockyard.block.layers import Opening

_SIZE = 192 << 20  # bytes of each disk
_HEADER = 16 << 20  # of an encrypted one


@dataclass(frozen=True)
class Row:
    """A stack, what is done with it, and what it has to reach (0: nothing)."""

    stack: str
    work: str
    title: str
    least: float = 0


_ROWS = (
    Row("cache", "r4k-d32", "4 KiB random reads that hit", 0.8),
    Row("cache", "r256k-d16", "256 KiB reads that hit"),
    Row("ssd-cache", "r4k-d32", "4 KiB random reads that hit"),
    Row("ssd-cache", "w4k-d32", "4 KiB writes, write-back"),
    Row("luks", "r4k-d32", "4 KiB random reads"),
    Row("luks", "w4k-d32", "4 KiB writes"),
    Row("luks", "r256k-d16", "256 KiB reads"),
    Row("luks", "w256k-d16", "256 KiB writes"),
)


class Served(Target):
    """A raw file, or a stack on files."""

    def __init__(self, name: str, backing: Path, directory: Path) -> None:
        self.name = name
        super().__init__(backing / f"{name}.img", directory)

    def start(self) -> int:
        disk, fast, key = self.file, self.file.with_suffix(".fast"), self.file.with_suffix(".key")
        create_file(disk, _SIZE + _HEADER * (self.name == "luks"))
        if self.name == "ssd-cache":
            create_file(fast, 3 * _SIZE)
            create_layer(f"ssd-cache({disk}, {fast})", Opening())
        elif self.name == "luks":
            key.write_bytes(os.urandom(32))
            create_layer(f"luks(key_file={key}, kdf=pbkdf2, time=1000, {disk})", Opening())
        volume = {
            "raw": str(disk),
            "cache": f"stack:cache(ram={2 * _SIZE}, delay({disk}))",  # the layer between has no short road
            "ssd-cache": f"stack:ssd-cache(mode=back, dirty=90, delay=3600, {disk}, {fast})",
            "luks": f"stack:luks(key_file={key}, {disk})",
        }[self.name]
        self._serving = Serving(
            [volume], state=self.directory / f"{self.name}-state", log=self.log, options=["--workers", "1"],
            portals=[f"127.0.0.1:{self.port}"], target=IQN,
        )  # fmt: skip
        return self._serving.pid

    def stop(self) -> None:
        self._serving.kill()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a table. Returns 0 however fast it was."""
    parser = argparse.ArgumentParser(prog="python -m bench.layers", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="(default: 5)")
    parser.add_argument("--seconds", type=int, default=2, help="of each measurement (default: 2)")
    parser.add_argument("--only", metavar="STACK,…", default="cache,ssd-cache,luks", help="(default: %(default)s)")
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm"), help="for the data (default: /dev/shm)")  # noqa: S108
    options = parser.parse_args(arguments)
    stacks = options.only.split(",")
    backing = Path(tempfile.mkdtemp(prefix="blockyard-bench-", dir=options.directory))
    directory = Path(tempfile.mkdtemp(prefix="blockyard-bench-"))
    targets: dict[str, Served] = {}
    print(f"load {os.getloadavg()[0]:.1f}", flush=True)
    try:
        for name in ("raw", *stacks):
            targets[name] = Served(name, backing, directory)
            fill = Work("fill", "filling", 256 << 10, 16, write=True, count=_SIZE >> 18)
            drive(targets[name], fill, seconds=0, sessions=1, directory=directory, client="qemu-img")
        for row in _ROWS:
            if row.stack in stacks:
                _measure(row, [targets["raw"], targets[row.stack]], list(targets.values()), options)
    finally:
        for target in targets.values():
            target.stop()
        shutil.rmtree(backing, ignore_errors=True)
        shutil.rmtree(directory, ignore_errors=True)
    return 0


def _measure(row: Row, pair: list[Served], every: list[Served], options: argparse.Namespace) -> None:
    work, found = WORKS[row.work], [list[Figure](), list[Figure]()]
    for number in range(options.rounds):
        order = list(enumerate(pair))
        for at, target in order if number % 2 else order[::-1]:
            with alone(target.root, [other.root for other in every if other is not target]):
                before = cpu_seconds(target.pids)
                outcome = drive(
                    target, work, seconds=options.seconds, sessions=1, directory=options.directory, client=work.client
                )
                used = cpu_seconds(target.pids) - before
            operations = max(1.0, outcome.operations)
            found[at].append(Figure(operations / outcome.seconds, used / operations * 1e6))
    raw, ours = ([statistics.median(getattr(e, f) for e in each) for f in ("rate", "cost")] for each in found)
    ratio = statistics.median(mine.rate / theirs.rate for theirs, mine in zip(*found, strict=True))
    least = f" (at least {row.least})" if row.least else ""
    print(f"{row.stack}, {row.title}: {ratio:.2f} of raw{least}; {ours[0]:.0f} and {raw[0]:.0f} IOPS, "
          f"{ours[1]:.1f} and {raw[1]:.1f} us", flush=True)  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
