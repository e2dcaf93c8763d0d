"""Measure blockyard and its peers side by side: `make bench`, or `python -m bench.run --help`.

Every round takes each work with each target, one target directly after the other, while the others are stopped;
the order turns by one with each round. What counts are the medians over the rounds.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from bench import weigh
from bench.beside import MEMORY, directories
from bench.clients import WORKS, Client, ClientFailed, Work, drive
from bench.processes import Pins, alone, cpu_seconds, cpus_for, machine_seconds, pinned
from bench.report import Sample, Settings, Weight, save
from bench.targets import KINDS, MissingTool, Target

_RESULTS = Path(__file__).with_name("results")
_DISK = Path("/var/tmp")  # noqa: S108
_RETAKES = 3
_FILE_BYTES = 1 << 29
_TARGETS = ("blockyard", "blockyard-poll", "tgt", "tgt-tuned", "istgt", "null", "null-poll")
_WITH_DIGESTS = ("blockyard", "tgt-digest", "istgt")
# Variants are only measured where they differ from what they are variants of.
_ONLY_FOR = {
    "blockyard-poll": {"r4k-d1"},
    "null-poll": {"r4k-d1"},
    "tgt-tuned": {"w256k-d16"},
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what was asked for. Returns 0 when everything was measured, however fast."""
    options = _parser().parse_args(arguments)
    if options.quick:
        options.rounds, options.seconds, options.retake = min(options.rounds, 2), 1, 0.0
    samples: list[Sample] = []
    weights: list[Weight] = []
    failures: list[str] = []
    began = datetime.datetime.now(datetime.UTC)
    try:
        for storage in options.storage.split(","):
            with directories(_parent(storage, options)) as (backing, directory):
                bench = _Bench(options, storage, directory, backing)
                try:
                    bench.run()
                    if options.memory and storage == options.storage.split(",")[0]:
                        weights, failed = _weigh(options, backing, directory)
                        failures += failed
                except KeyboardInterrupt:
                    failures.append("interrupted: not everything was measured")
                    break
                finally:
                    bench.close()
                    samples += bench.samples
                    failures += bench.failures
    except MissingTool as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    settings = Settings(
        began=began.isoformat(timespec="seconds"),
        machine=f"{os.cpu_count()} CPUs, Linux {platform.release()}, Python {platform.python_version()}",
        command=" ".join(sys.argv[1:] if arguments is None else arguments),
        rounds=options.rounds,
        seconds=options.seconds,
        pins=options.pin,
    )
    directory = save(_RESULTS / began.strftime("%Y%m%dT%H%M%SZ"), settings, samples, weights, failures)
    print()
    print((directory / "report.md").read_text(encoding="utf-8"))
    print(f"Saved in {directory}")
    return 1 if failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="(default: 5)")
    parser.add_argument("--seconds", type=int, default=2, help="of load in each measurement (default: 2)")
    parser.add_argument("--quick", action="store_true", help="2 rounds of 1 second, nothing retaken: a first look")
    parser.add_argument("--only", metavar="WORK,…", default=",".join(WORKS), help=f"of {', '.join(WORKS)}")
    parser.add_argument("--sessions", metavar="N,…", default="1,4", help="sessions at a time (default: 1,4)")
    parser.add_argument("--storage", metavar="KIND,…", default="tmpfs,disk", help="tmpfs, disk or both (the default)")
    parser.add_argument("--directory", type=Path, default=_DISK, help=f"for disk (default: {_DISK})")
    parser.add_argument("--targets", metavar="NAME,…", default=",".join(_TARGETS), help=f"of {', '.join(KINDS)}")
    parser.add_argument("--no-digests", dest="digests", action="store_false", help="leave the digests out")
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="leave the memory out")
    parser.add_argument(
        "--pin", choices=get_args(Pins), default="apart",
        help="at depth 1, where wake-ups are everything: client on CPU 0 and target on CPU 1 (default), both on CPU 0, "
        "or left to the scheduler",
    )  # fmt: skip
    parser.add_argument(
        "--retake", metavar="PERCENT", type=float, default=20.0,
        help="take a measurement again, 3 times at most, while other processes used more of a core than this; the "
        "quietest counts (default: 20; 0: never)",
    )  # fmt: skip
    return parser


def _parent(kind: str, options: argparse.Namespace) -> Path:
    """Where the backing files of this kind of storage are."""
    parents: dict[str, Path] = {"tmpfs": MEMORY, "disk": options.directory}
    if kind not in parents:
        raise SystemExit(f"bench: --storage {kind}: it is tmpfs or disk")
    return parents[kind]


def backing_file(path: Path) -> Path:
    """A file with every block written and in the page cache, so that all targets have the same work."""
    block = os.urandom(1 << 20)
    with path.open("wb") as file:
        for _ in range(_FILE_BYTES >> 20):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return path


def _weigh(options: argparse.Namespace, backing: Path, directory: Path) -> tuple[list[Weight], list[str]]:
    weights: list[Weight] = []
    failures: list[str] = []
    for name in options.targets.split(","):
        if name in {"blockyard", "tgt"} or (name == "istgt" and not options.quick):  # istgt: a second a login
            try:
                weights.append(weigh.weigh(name, backing, directory))
            except ClientFailed as error:
                failures.append(f"memory of {name}: {error}")
    return weights, failures


@dataclass(frozen=True)
class _Case:
    """One thing to measure with each of the targets called `names`."""

    work: Work
    sessions: int
    client: Client
    digests: bool
    names: list[str]


class _Bench:
    """The measurements on one kind of storage."""

    def __init__(self, options: argparse.Namespace, storage: str, directory: Path, backing: Path) -> None:
        self.options = options
        self.storage = storage
        self.directory = directory
        self.samples: list[Sample] = []
        self.failures: list[str] = []
        self.targets: dict[str, Target] = {}
        self.works = [_work(name) for name in options.only.split(",")]
        try:
            for name in self._wanted():
                if name not in KINDS:
                    raise SystemExit(f"bench: there is no target {name}: there are {', '.join(KINDS)}")
                if name in {"null", "null-poll"} and shutil.which("cc") is None:
                    self.failures.append(f"{name} not measured: no C compiler (apt-get install gcc libc6-dev)")
                    continue
                self.targets[name] = KINDS[name](backing_file(backing / f"{name}.img"), directory)
        except BaseException:
            self.close()
            raise

    def _wanted(self) -> list[str]:
        wanted: list[str] = self.options.targets.split(",")
        if self.options.digests and "tgt" in wanted:
            wanted.append("tgt-digest")
        names = {work.name for work in self.works}
        return [name for name in wanted if _ONLY_FOR.get(name, names) & names]

    def close(self) -> None:
        """End all targets."""
        for target in self.targets.values():
            target.stop()

    def run(self) -> None:
        """All rounds."""
        cases = [case for work in self.works for case in self._cases(work)]
        for number in range(1, self.options.rounds + 1):
            for case in cases:
                self._turn(number, case)

    def _cases(self, work: Work) -> Iterator[_Case]:
        ordinary = [name for name in self.targets if name != "tgt-digest"]
        for sessions in map(int, self.options.sessions.split(",")):
            yield _Case(work, sessions, work.client if sessions == 1 else "load", False, ordinary)
        if self.options.digests:
            names = [name for name in _WITH_DIGESTS if name in self.targets]
            yield _Case(work, 1, "load", False, names)
            yield _Case(work, 1, "load", True, names)

    def _turn(self, number: int, case: _Case) -> None:
        names = [name for name in case.names if case.work.name in _ONLY_FOR.get(name, {case.work.name})]
        first = number % max(1, len(names))
        for name in names[first:] + names[:first]:
            try:
                sample = self._quiet(number, case, self.targets[name])
            except (ClientFailed, subprocess.SubprocessError) as error:
                self.failures.append(f"{self.storage} {case.work.name} {name}, round {number}: {error}")
                print(f"FAILED {self.failures[-1]}", flush=True)
                continue
            self.samples.append(sample)
            print(sample.line(), flush=True)

    def _quiet(self, number: int, case: _Case, target: Target) -> Sample:
        best = self._measure(number, case, target)
        for _ in range(_RETAKES if self.options.retake else 0):
            if best.other_percent <= self.options.retake:
                break
            best = min(best, self._measure(number, case, target), key=lambda sample: sample.other_percent)
        return best

    def _measure(self, number: int, case: _Case, target: Target) -> Sample:
        client_cpu, target_cpu = self._cpus(case)
        others = [other.root for other in self.targets.values()]
        with alone(target.root, others), pinned(target.root, target_cpu):
            began, machine, before = time.monotonic(), machine_seconds(), cpu_seconds(target.pids)
            outcome = drive(
                target, case.work, seconds=self.options.seconds, sessions=case.sessions,
                directory=self.directory, client=case.client, digests=case.digests, cpu=client_cpu,
            )  # fmt: skip
            used = cpu_seconds(target.pids) - before
            other = (machine_seconds() - machine - used - outcome.client_cpu) / (time.monotonic() - began)
        operations = max(1.0, outcome.operations)
        rate = outcome.operations / outcome.seconds
        return Sample(
            storage=self.storage, round=number, work=case.work.name, sessions=case.sessions, client=case.client,
            digests=case.digests, target=target.name, iops=rate, mb_per_second=rate * case.work.size / 1e6,
            target_us=used / operations * 1e6, client_us=outcome.client_cpu / operations * 1e6,
            seconds=outcome.seconds, other_percent=max(0.0, 100 * other),
        )  # fmt: skip

    def _cpus(self, case: _Case) -> tuple[int | None, int | None]:
        """CPUs for the client and the target; None: the scheduler's choice."""
        return cpus_for("no" if case.work.depth > 1 or case.sessions > 1 else self.options.pin)


def _work(name: str) -> Work:
    if name not in WORKS:
        raise SystemExit(f"bench: --only {name}: there are {', '.join(WORKS)}")
    return WORKS[name]


if __name__ == "__main__":
    raise SystemExit(main())
