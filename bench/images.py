"""Dynamic images beside a raw file, and beside qemu-nbd serving the same image through us: `python -m bench.images`.

All are served by a process of their own and measured directly after one another, the others being stopped; the order turns with
each round. What counts are the medians of the rounds' ratios. All blocks are allocated before. The CPU time is that of the
target's processes; for qemu-nbd its own comes on top.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.serving import Serving

from bench.clients import WORKS, drive
from bench.processes import alone, cpu_seconds
from bench.targets import IQN, Target
from blockyard.block.file import create as create_file
from blockyard.block.formats import RAW, create_image

_SIZE = 512 << 20  # bytes of each disk
_WORKS = {"r4k-d32": "4 KiB random reads", "w4k-d32": "4 KiB random writes"}
_QEMU_NAMES = {"vhd": "vpc", "vhdx": "vhdx"}
_LEAST_TO_RAW, _LEAST_TO_QEMU = 0.85, 2.0


class Image(Target):
    """A raw file, or an image that we read and write by ourselves."""

    def __init__(self, name: str, backing: Path, directory: Path) -> None:
        self.name = name
        super().__init__(backing / f"{name}.img", directory)

    def start(self) -> int:
        self._make()
        return self._serve(str(self.file), ["--format", self.name])

    def _make(self) -> None:
        if self.name == RAW:
            create_file(self.file, _SIZE)
        else:
            create_image(self.file, self.name.partition("-")[0], _SIZE)

    def _serve(self, volume: str, options: Sequence[str]) -> int:
        self._serving = Serving(
            [volume], state=self.directory / f"{self.name}-state", log=self.log, options=["--workers", "1", *options],
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


class ByQemu(Image):
    """The same kind of image, behind a qemu-nbd and our NBD client."""

    def start(self) -> int:
        self._make()
        socket = self.directory / f"{self.name}.sock"
        format = _QEMU_NAMES[self.name.partition("-")[0]]
        command = ("qemu-nbd", "-f", format, "-t", "-e", "8", "--cache=writeback", "-k", str(socket), str(self.file))
        self._qemu = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        while not socket.exists():
            time.sleep(0.01)
        return self._serve(f"stack:nbd(nbd+unix:///?socket={socket})", [])

    def stop(self) -> None:
        super().stop()
        self._qemu.kill()
        self._qemu.wait()


@dataclass(frozen=True)
class Figure:
    """Of one measurement: I/Os a second, and µs of the target's CPU for each."""

    rate: float
    cost: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a table. Returns 0 however fast it was."""
    parser = argparse.ArgumentParser(prog="python -m bench.images", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="(default: 5)")
    parser.add_argument("--seconds", type=int, default=2, help="of each measurement (default: 2)")
    parser.add_argument("--only", metavar="FORMAT,…", default="vhd,vhdx", help="(default: %(default)s)")
    parser.add_argument("--no-qemu", action="store_true", help="do not measure beside qemu-nbd")
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm"), help="for the data (default: /dev/shm)")  # noqa: S108
    options = parser.parse_args(arguments)
    backing = Path(tempfile.mkdtemp(prefix="blockyard-bench-", dir=options.directory))
    directory = Path(tempfile.mkdtemp(prefix="blockyard-bench-"))
    targets: list[Image] = []
    formats = options.only.split(",")
    try:
        targets.append(Image(RAW, backing, directory))
        for format in formats:
            targets.append(Image(format, backing, directory))
            if not options.no_qemu:
                targets.append(ByQemu(f"{format}-qemu", backing, directory))
        for target in targets:
            target.fill()
        print(f"{options.rounds} rounds of {options.seconds} s, in {options.directory}", flush=True)
        for work, title in _WORKS.items():
            _print(title, formats, _measure(work, targets, options))
    finally:
        for target in targets:
            target.stop()
        shutil.rmtree(backing, ignore_errors=True)
        shutil.rmtree(directory, ignore_errors=True)
    return 0


def _measure(name: str, targets: list[Image], options: argparse.Namespace) -> dict[str, list[Figure]]:
    found: dict[str, list[Figure]] = {target.name: [] for target in targets}
    work = WORKS[name]
    for number in range(options.rounds):
        for target in targets if number % 2 else targets[::-1]:
            with alone(target.root, [other.root for other in targets]):
                before = cpu_seconds(target.pids)
                outcome = drive(
                    target, work, seconds=options.seconds, sessions=1, directory=options.directory, client=work.client
                )
                used = cpu_seconds(target.pids) - before
            operations = max(1.0, outcome.operations)
            found[target.name].append(Figure(operations / outcome.seconds, used / operations * 1e6))
    return found


def _print(title: str, formats: list[str], found: dict[str, list[Figure]]) -> None:
    print(title)
    for name, figures in found.items():
        rate, cost = (statistics.median(getattr(each, field) for each in figures) for field in ("rate", "cost"))
        print(f"  {name:12} {rate:9.0f} IOPS {cost:7.1f} us")
    for format in formats:
        for other, least in ((RAW, _LEAST_TO_RAW), (f"{format}-qemu", _LEAST_TO_QEMU)):
            if other in found:
                pairs = list(zip(found[format], found[other], strict=True))
                rate = statistics.median(ours.rate / theirs.rate for ours, theirs in pairs)
                cost = statistics.median(theirs.cost / ours.cost for ours, theirs in pairs)
                print(f"  {format} to {other}: {rate:.2f} (at least {least:.2f}), of CPU {cost:.2f}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
