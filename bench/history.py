"""What the history costs with 1,000 volumes that are all busy: `python -m bench.history`.

A server has them as LUNs of one target, and somebody reads from each of them all the time, slowly. What counts is the
processor time of control, which has nothing else to do then, and how large the file gets in 60 days.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from pathlib import Path

from tests.serving import Serving

from bench.beside import directories
from bench.processes import cpu_seconds
from blockyard.control.history.sampling import Point, Sampler, look
from blockyard.control.history.series import RESOLUTIONS
from blockyard.control.history.store import NAME, Store
from blockyard.initiator import Lun, connect
from blockyard.scsi.traffic import Traffic

VOLUMES = 1000


def _served(directory: Path, seconds: float) -> float:
    """Processor time of control, of a second."""
    names = [f"v{number}" for number in range(VOLUMES)]
    for name in names:
        with (directory / f"{name}.img").open("wb") as file:
            file.truncate(1 << 20)
    text = "".join(f"[volumes.{name}]\npath = '{name}.img'\n" for name in names)
    luns = "".join(f"{lun} = '{name}'\n" for lun, name in enumerate(names))
    text += f"[targets.'iqn.2026-11.bench:many'.luns]\n{luns}"
    (directory / "many.toml").write_text(text)
    serving = Serving([], state=directory / "state", log=directory / "log", config=directory / "many.toml")
    try:
        with connect(f"iscsi://{serving.portals[0]}/iqn.2026-11.bench:many/0", timeout=60) as first:
            disks = [Lun(first.session, number) for number in range(VOLUMES)]
            before, began = cpu_seconds([serving.pid]), time.monotonic()
            while time.monotonic() < began + seconds:
                for disk in disks:
                    disk.read(random.randrange(1024), 8)
                time.sleep(1)
            return (cpu_seconds([serving.pid]) - before) / (time.monotonic() - began)
    finally:
        serving.kill()


def _kept(directory: Path) -> tuple[float, int, float]:
    """Milliseconds of a look, bytes of the file when it is full, milliseconds of reading the longest graph."""
    traffic = [(Traffic(), Traffic()) for _ in range(VOLUMES)]
    store, sampler = Store(directory, print), Sampler()
    now, spent, looks = 1_700_000_100.0, 0.0, 60
    points: list[Point] = []
    for number in range(looks):
        for pair in traffic:
            for kind in pair:
                kind.buckets = list(kind.buckets)
                kind.add(random.lognormvariate(-8, 1), random.randrange(1, 900), random.randrange(1 << 20))
        reply = _reply(traffic)
        began = time.process_time()
        points += (found := sampler.take(look([reply]), now + 10 * number, 10 * number))
        store.write(found, now + 10 * number)
        spent += time.process_time() - began
    for each in RESOLUTIONS:
        whole = max((point for point in points if point.resolution <= each), key=lambda point: point.resolution)
        for number in range(each.span // each.step):
            time_of_it = int(now) // each.step * each.step + number * each.step
            store.write([Point(each, time_of_it, whole.values)], time_of_it)
    began = time.process_time()
    count = len(store.read(store.series()[1].name, RESOLUTIONS[-1], 0, 1e12))
    reading = time.process_time() - began
    assert count == RESOLUTIONS[-1].span // RESOLUTIONS[-1].step
    store.close()
    return spent / looks * 1e3, (directory / NAME).stat().st_size, reading * 1e3


def _reply(traffic: list[tuple[Traffic, Traffic]]) -> dict[str, object]:
    """As a worker tells it."""
    return {
        "volumes": {
            f"v{number}": {"read_ops": sum(reads.buckets), "write_ops": sum(writes.buckets),
                           "read_bytes": reads.bytes, "write_bytes": writes.bytes}
            for number, (reads, writes) in enumerate(traffic)
        },
        "traffic": {
            f"v{number}": {"iqn.x": {"reads": reads.as_dict(), "writes": writes.as_dict()}}
            for number, (reads, writes) in enumerate(traffic)
        },
        "depths": {f"v{number}": number % 5 for number in range(VOLUMES)},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120)
    options = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f}")
    with directories(Path(tempfile.gettempdir())) as (directory, _):
        ms, size, reading = _kept(directory)
    print(f"a look at {VOLUMES} volumes: {ms:.1f} ms of processor time, {ms / 1e4:.2%} of a core")
    print(f"the file, when it is full: {size / 1e6:.0f} MB; reading 60 days of a volume: {reading:.0f} ms")
    with directories(Path(tempfile.gettempdir())) as (directory, _):
        share = _served(directory, options.seconds)
    print(f"control of a server with {VOLUMES} volumes, all of them busy: {share:.2%} of a core")


if __name__ == "__main__":
    main()
