"""A volume of a pool beside the same load on a raw sparse file: `python -m bench.pools`.

Both are written in full before. "First touch" writes to each chunk once after a snapshot.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace

from bench.beside import Compared, Served, measure, parser, places
from bench.clients import WORKS, Work
from bench.targets import IQN
from blockyard.block.file import create as create_file
from blockyard.block.size import format_size, parse_size
from blockyard.control.administration import ask
from blockyard.pool.pool import create as create_pool
from blockyard.pool.space import DEFAULT_SHIFT

_SIZE = 1 << 30  # bytes of either
_SNAPSHOTS = 100  # that are taken while something is read
_MOST_WRITES = 1 << 15  # of "first touch"


class Raw(Served):
    """A raw sparse file."""

    name = "raw"

    def start(self) -> int:
        create_file(self.file, _SIZE)
        return self.serve([self.file])


class Volume(Served):
    """Volumes of a pool: "v", and "c" with the small chunks that continuous data protection is best with."""

    name = "pool"
    chunk = 0  # bytes, of "v"
    volume = "v"  # the one that is used now

    def start(self) -> int:
        self.file.mkdir()
        create_file(self.file / "data", 8 * _SIZE)
        create_pool(self.file, [str(self.file / "data")])
        pid = self.serve([], ["--pool", str(self.file)])
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
    meanwhile: Callable[[Volume, float], AbstractContextManager[None]] = lambda pool, seconds: nullcontext()


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a table. Returns 0 however fast it was."""
    described = parser("pools", __doc__)
    described.add_argument(
        "--chunk",
        metavar="SIZE",
        type=parse_size,
        default=1 << DEFAULT_SHIFT,
        help="of the volume (default: the default)",
    )
    described.add_argument(
        "--only", metavar="ROW,…", default=",".join(rows(1 << 16)), help="(default: all: %(default)s)"
    )
    options = described.parse_args(arguments)
    Volume.chunk = options.chunk
    with (
        places(options) as (backing, directory),
        Raw(backing / "raw.img", directory) as raw,
        Volume(backing / "pool", directory) as pool,
    ):
        raw.fill(_SIZE)
        for pool.volume in ("c", "v"):
            pool.fill(_SIZE)
        print(f"{format_size(options.chunk)} chunks", flush=True)
        for name in options.only.split(","):
            row = rows(options.chunk)[name]

            def meanwhile(target: Served, row: Row = row) -> AbstractContextManager[None]:
                return row.meanwhile(pool, options.seconds) if target is pool else nullcontext()

            figures = measure(dict.fromkeys((raw, pool), row.work), [raw, pool], options, meanwhile=meanwhile)
            print(Compared.of(*figures).told(row.title, row.least), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
