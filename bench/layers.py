"""Caches and encrypted disks beside a raw file: `python -m bench.layers`.

All is in memory: what is read from a cache hits, and what is written to one that writes back has room there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.beside import Compared, Served, measure, parser, places
from bench.clients import WORKS
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


class Stack(Served):
    """A raw file, or a stack on files."""

    def __init__(self, name: str, backing: Path, directory: Path) -> None:
        self.name = name
        super().__init__(backing / f"{name}.img", directory)

    def start(self) -> int:
        disk, fast, key = self.file, self.file.with_suffix(".fast"), self.file.with_suffix(".key")
        create_file(disk, _SIZE + _HEADER * (self.name == "luks"))
        if self.name == "ssd-cache":
            create_file(
                fast, 6 * _SIZE
            )  # so that all of the disk is less than a quarter of what may be dirty: nothing is written back yet
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
        return self.serve([volume])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a table. Returns 0 however fast it was."""
    described = parser("layers", __doc__)
    described.add_argument("--only", metavar="STACK,…", default="cache,ssd-cache,luks", help="(default: %(default)s)")
    options = described.parse_args(arguments)
    with places(options) as (backing, directory), ExitStack() as running:
        targets: dict[str, Served] = {}
        for name in ("raw", *options.only.split(",")):
            targets[name] = running.enter_context(Stack(name, backing, directory))
            targets[name].fill(_SIZE)
        for row in _ROWS:
            if row.stack in targets:
                works = dict.fromkeys((targets["raw"], targets[row.stack]), WORKS[row.work])
                found = Compared.of(*measure(works, list(targets.values()), options))
                print(found.told(f"{row.stack}, {row.title}", row.least), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
