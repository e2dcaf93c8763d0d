"""Arrays beside a raw file, and the arithmetic of RAID 6: `python -m bench.raid`.

The arithmetic is measured in this process, in bytes of data that go in: P and Q of rows of 8 data chunks of 64 KiB, and two of
these restored.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.beside import Compared, Served, measure, parser, places
from bench.clients import WORKS, Work
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


class Array(Served):
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
        return self.serve([volume])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a table. Returns 0 however fast it was."""
    described = parser("raid", __doc__)
    described.add_argument("--only", choices=("arithmetic", "served"), help="one half")
    options = described.parse_args(arguments)
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
    with places(options) as (backing, directory), ExitStack() as running:
        targets: dict[str, Served] = {}
        for name in ("raw", *_ARRAYS):
            targets[name] = running.enter_context(Array(name, backing, directory))
            targets[name].fill(_SIZE)
        for row in _ROWS:
            works = dict.fromkeys((targets["raw"], targets[row.array]), _WORKS[row.work])
            found = Compared.of(*measure(works, list(targets.values()), options))
            print(found.told(f"{row.array}, {row.title}", row.least), flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
