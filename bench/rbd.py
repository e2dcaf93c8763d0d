"""An image of RBD beside `rbd bench` on the same cluster, and behind a cache beside a raw file: `python -m bench.rbd`.

A throw-away cluster (tests/ceph.py) in memory, with one OSD, on this machine. Each round takes each work with each of the two,
one directly after the other, and turns their order; what counts are the medians of the rounds' ratios. `rbd bench` runs with
Ceph's defaults, as anybody would run it (its cache, off for writes, keeps nothing that is read); it has no protocol of a
network disk in its way: where all processors are busy, what the initiator, the target and the OSD need for one
I/O adds up. The load of the machine is printed with the figures.
"""

from __future__ import annotations

import os
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from tests.ceph import Ceph
from tests.serving import free_port

from bench import beside
from bench.clients import WORKS, Work, drive
from bench.targets import IQN, require

_SIZE = 256  # MiB of the image, which is written in full before
_WRITES = 20000
_RATE = re.compile(r"ops/sec: ([0-9.]+)")
_READ, _WRITE = WORKS["r4k-d32"], WORKS["w4k-d32"]


class Served(beside.Served):
    """A volume by what is in its configuration."""

    name = "blockyard"

    def __init__(self, directory: Path, volume: str) -> None:
        self._volume = volume
        super().__init__(directory / "disk", directory)

    def start(self) -> int:
        config = self.directory / "serve.toml"
        config.write_text(f"[volumes.disk]\n{self._volume}\n[targets.'{IQN}']\nluns = {{0 = 'disk'}}\n")
        pid = self.serve([], config=config)
        self._ends.callback(self._serving.stop)  # whoever is killed leaves his lock on the image
        return pid


def _rate(target: Served, work: Work, seconds: int, directory: Path) -> float:
    outcome = drive(target, work, seconds=seconds, sessions=1, directory=directory, client=work.client)
    return outcome.operations / outcome.seconds


def _rbd_bench(ceph: Ceph, image: str, kind: str, seconds: int, *options: str) -> float:
    total = f"{_WRITES * 4096 if kind == 'write' else 25000 * seconds * 4096}"
    printed = ceph.run(
        "rbd", "bench", image, "--io-type", kind, "--io-size", "4096", "--io-threads", "32", "--io-total", total,
        "--io-pattern", "rand", *options,
    )  # fmt: skip
    return float(_RATE.findall(printed)[-1])


def _compare(name: str, rounds: int, ours: Callable[[], float], theirs: Callable[[], float], what: str) -> None:
    pairs: list[tuple[float, float]] = []
    for number in range(rounds):
        if number % 2:
            second = theirs()
            pairs.append((ours(), second))
        else:
            pairs.append((ours(), theirs()))
    ratio = statistics.median(one / other for one, other in pairs)
    one, other = (statistics.median(column) for column in zip(*pairs, strict=True))
    load = os.getloadavg()[0]
    each = " ".join(f"{one / other:.2f}" for one, other in pairs)
    print(
        f"{name:34} {one:9,.0f} {other:9,.0f} ({what})   ratio {ratio:.2f}   of the rounds: {each}   load {load:.1f}",
        flush=True,
    )


def _measure(directory: Path, rounds: int, seconds: int) -> None:
    require("rbd", "ceph-common")
    with Ceph(directory / "ceph", free_port()) as ceph:
        image, other = (
            ceph.image(name, f"{_SIZE}M") for name in ("served", "benched")
        )  # whoever writes to one has its lock
        for each in (image, other):
            whole = ("--io-type", "write", "--io-size", "1M", "--io-total", f"{_SIZE}M", "--io-pattern", "seq")
            ceph.run("rbd", "bench", each, *whole)
        places = {name: directory / name for name in ("plain", "cached", "raw")}
        for place in places.values():
            place.mkdir()
        stack = f"rbd({image}, conf={ceph.conf})"
        writes = replace(_WRITE, count=_WRITES)
        with Served(places["plain"], f'stack = "{stack}"') as plain:
            _compare("4 KiB random reads, depth 32", rounds, lambda: _rate(plain, _READ, seconds, directory),
                     lambda: _rbd_bench(ceph, other, "read", seconds), "rbd bench")  # fmt: skip
            _compare("4 KiB random writes, depth 32", rounds, lambda: _rate(plain, writes, seconds, directory),
                     lambda: _rbd_bench(ceph, other, "write", seconds, "--rbd-cache=false"), "rbd bench, no cache")  # fmt: skip
        with (
            Served(places["cached"], f'stack = "cache(ram=512M, {stack})"') as cached,
            Served(places["raw"], f"path = '{places['raw']}/raw.img'\nsize = '{_SIZE}M'") as raw,
        ):
            for target in (raw, cached):  # both in memory
                drive(target, WORKS["r256k-d16"], seconds=4, sessions=1, directory=directory, client="iscsi-perf")
            _compare("the same from a cache in memory", rounds, lambda: _rate(cached, _READ, seconds, directory),
                     lambda: _rate(raw, _READ, seconds, directory), "raw file")  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure. Returns 0, however fast."""
    parser = beside.parser("rbd", __doc__)
    parser.set_defaults(seconds=3)
    options = parser.parse_args(arguments)
    with beside.places(options) as (directory, _):
        _measure(directory, options.rounds, options.seconds)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
