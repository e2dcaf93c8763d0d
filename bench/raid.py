"""Arrays beside a raw file, and the arithmetic of RAID 6: `python -m bench.raid`.

A raw file and arrays of files are each served by a process of their own and measured directly after one another, the others being
stopped; the order turns with each round. What counts are the medians of the rounds' ratios. The arithmetic is measured in this
process, in bytes of data that go in: P and Q of rows of 8 data chunks of 64 KiB, and two of these restored.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.serving import Serving

from bench.clients import WORKS, Work, drive
from bench.images import Figure
from bench.processes import alone, cpu_seconds
from bench.targets import IQN, Target
from blockyard.block.file import FileDevice
from blockyard.block.file import create as create_file
from blockyard.block.raid import parity
from blockyard.block.raid.creation import Plan, create

_SIZE = 384 << 20  # bytes of each disk that is served, at least
_RESERVE = 16 << 20  # of a member, for what is before its data
_STRIPE = 192 << 10  # of data in a row of RAID 5 of 4


@dataclass(frozen=True)
class Row:
    """An array, what is done with it, and what it has to reach."""

    array: str
    work: str
    title: str
    least: float


_FULL = Work("w192k-d16", "full-stripe writes", _STRIPE, 16, write=True, count=16000)
_WORKS = {**WORKS, "w192k-d16": _FULL}
_ROWS = (
    Row("raid1", "r4k-d32", "4 KiB random reads", 0.9),
    Row("raid1", "r256k-d16", "256 KiB reads", 0.9),
    Row("raid1", "w4k-d32", "4 KiB writes", 0.5),
    Row("raid1", "w256k-d16", "256 KiB writes", 0.5),
    Row("raid5", "r256k-d16", "256 KiB sequential reads", 0.8),
    Row("raid5", "w192k-d16", "full-stripe writes (192 KiB)", 0.4),
)
_ARRAYS = {"raid1": (Plan(1), 2, 1), "raid5": (Plan(5), 4, 3)}  # plan, members, of which so many are data


class Served(Target):
    """A raw file, or an array of files."""

    def __init__(self, name: str, backing: Path, directory: Path) -> None:
        self.name = name
        self.backing = backing
        super().__init__(backing / f"{name}.img", directory)

    def start(self) -> int:
        volume = str(self.file)
        if self.name in _ARRAYS:
            plan, count, data = _ARRAYS[self.name]
            paths = [self.backing / f"{self.name}-{number}" for number in range(count)]
            for path in paths:
                create_file(path, _SIZE // data + _RESERVE)
            devices = [FileDevice(path) for path in paths]
            create(devices, plan)
            for device in devices:
                device.close()
            volume = f"stack:{self.name}({', '.join(map(str, paths))})"
        else:
            create_file(self.file, _SIZE)
        self._serving = Serving(
            [volume], state=self.directory / f"{self.name}-state", log=self.log, options=["--workers", "1"],
            portals=[f"127.0.0.1:{self.port}"], target=IQN,
        )  # fmt: skip
        return self._serving.pid

    def stop(self) -> None:
        self._serving.kill()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a table. Returns 0 however fast it was."""
    parser = argparse.ArgumentParser(prog="python -m bench.raid", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="(default: 5)")
    parser.add_argument("--seconds", type=int, default=2, help="of each measurement (default: 2)")
    parser.add_argument("--only", choices=("arithmetic", "served"), help="one half")
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm"), help="for the data (default: /dev/shm)")  # noqa: S108
    options = parser.parse_args(arguments)
    print(f"load {os.getloadavg()[0]:.1f}")
    if options.only != "served":
        _arithmetic(options.rounds)
    if options.only != "arithmetic":
        _served(options)
    return 0


# ---- arithmetic


def _arithmetic(rounds: int) -> None:
    chunk, count = 64 << 10, 8
    data = [parity.array(os.urandom(chunk)) for _ in range(count)]
    p, q = parity.sum_pq(data)
    lost: list[parity.Bytes | None] = [None, data[1], data[2], None, *data[4:]]
    works: dict[str, tuple[float, Callable[[], object]]] = {
        "P and Q": (2.0, lambda: parity.sum_pq(data)),
        "two of them restored": (1.0, lambda: parity.restore_two(lost, p, q, 0, 3)),
        "P alone (RAID 5)": (0.0, lambda: parity.sum_p(data)),
    }
    for title, (least, work) in works.items():
        found = []
        for _ in range(rounds):
            begun, done = time.process_time(), 0
            while time.process_time() < begun + 0.5:
                work()
                done += chunk * count
            found.append(done / (time.process_time() - begun) / 1e9)
        print(f"{title}: {statistics.median(found):.2f} GB/s of data a core (at least {least:.1f})", flush=True)


# ---- served


def _served(options: argparse.Namespace) -> None:
    backing = Path(tempfile.mkdtemp(prefix="blockyard-bench-", dir=options.directory))
    directory = Path(tempfile.mkdtemp(prefix="blockyard-bench-"))
    targets: dict[str, Served] = {}
    try:
        for name in ("raw", *_ARRAYS):
            targets[name] = Served(name, backing, directory)
            fill = Work("fill", "filling", 256 << 10, 16, write=True, count=_SIZE >> 18)
            drive(targets[name], fill, seconds=0, sessions=1, directory=directory, client="qemu-img")
        for row in _ROWS:
            _measure(row, [targets["raw"], targets[row.array]], list(targets.values()), options)
    finally:
        for target in targets.values():
            target.stop()
        shutil.rmtree(backing, ignore_errors=True)
        shutil.rmtree(directory, ignore_errors=True)


def _measure(row: Row, pair: list[Served], every: list[Served], options: argparse.Namespace) -> None:
    work, found = _WORKS[row.work], [list[Figure](), list[Figure]()]
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
    print(f"{row.array}, {row.title}: {ratio:.2f} of raw (at least {row.least}); {ours[0]:.0f} and {raw[0]:.0f} IOPS, "
          f"{ours[1]:.1f} and {raw[1]:.1f} us", flush=True)  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
