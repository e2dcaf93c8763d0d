"""The loads: what each client is told to do, and how its answer is read."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.targets import Target, compile_c, require

_LIMIT_SECONDS = 90.0
# bench/load.c does what libiscsi (iscsi-perf, and QEMU too) cannot: data digests, and several that begin together.
Client = Literal["iscsi-perf", "qemu-img", "load"]


@dataclass(frozen=True)
class Work:
    """One kind of load. `size` in bytes; `depth` commands outstanding in each session.

    Of qemu-img: how many bytes lie from one place to the next. Of qemu-img and load: how many I/Os it does, where that is not
    as usual.
    """

    name: str
    title: str
    size: int
    depth: int
    write: bool = False
    step: int = 0
    count: int = 0
    tape: bool = False  # only load can, and
    empty: bool = False  # it before

    @property
    def random(self) -> bool:
        """Small I/O goes to random places, large I/O is in sequence."""
        return self.size < 65536

    @property
    def client(self) -> Client:
        """The client for one session without digests."""
        return "qemu-img" if self.write else "iscsi-perf"


WORKS = {
    work.name: work
    for work in (
        Work("r4k-d1", "4 KiB random reads, depth 1", 4096, 1),
        Work("r4k-d32", "4 KiB random reads, depth 32", 4096, 32),
        Work("r256k-d16", "256 KiB reads, depth 16", 262144, 16),
        Work("w4k-d32", "4 KiB writes, depth 32", 4096, 32, write=True),
        Work("w256k-d16", "256 KiB writes, depth 16", 262144, 16, write=True),
    )
}
_QEMU_RATE = {4096: 40000, 262144: 4000}  # I/Os a second asked for: qemu-img bench is given a count, not a time


@dataclass(frozen=True)
class Outcome:
    """What the clients of one measurement did, summed. `client_cpu` in seconds."""

    operations: float
    seconds: float
    client_cpu: float


class ClientFailed(Exception):
    """A client ended badly, was killed at its time limit, or printed no result."""


def drive(
    target: Target,
    work: Work,
    *,
    seconds: int,
    sessions: int,
    directory: Path,
    client: Client,
    digests: bool = False,
    cpu: int | None = None,
) -> Outcome:
    """Load `target` with so many clients of one kind at the same time, each with a session of its own.

    Raises ClientFailed, MissingTool.
    """
    if client == "load":
        command = _load(target, work, seconds, directory, digests)
    elif client == "qemu-img":
        command = _qemu_img(target, work, seconds)
    else:
        command = _iscsi_perf(target, work, seconds)
    before = _children_cpu()
    outputs = run_all([command] * sessions, limit=_LIMIT_SECONDS, cpu=cpu, gate=client == "load")
    used = _children_cpu() - before
    results = [_parse(output) for output in outputs]
    return Outcome(sum(done for done, _ in results), max(elapsed for _, elapsed in results), used)


def _iscsi_perf(target: Target, work: Work, seconds: int) -> list[str]:
    command = [require("iscsi-perf", "libiscsi-bin"), "-m", str(work.depth), "-b", str(work.size // 512)]
    return [*command, *(["-r"] if work.random else []), "-t", str(seconds), target.url]


def _qemu_img(target: Target, work: Work, seconds: int) -> list[str]:
    require("qemu-img", "qemu-utils qemu-block-extra")
    step = work.step or (work.size if not work.random else (1 << 20) + work.size)  # every place once before any twice
    count = work.count or _QEMU_RATE[work.size] * seconds
    return [
        "qemu-img", "bench", "-f", "raw", "-t", "none", "-n", "-w", "-c", str(count),
        "-d", str(work.depth), "-s", str(work.size), "-S", str(step), target.url,
    ]  # fmt: skip


def _load(target: Target, work: Work, seconds: int, directory: Path, digests: bool) -> list[str]:
    program = compile_c(Path(__file__).with_name("load.c"), directory)
    switches = ["-g"] + (["-w"] if work.write else []) + (["-r"] if work.random else []) + (["-D"] if digests else [])
    switches += (["-T"] if work.tape else []) + (["-e"] if work.empty else [])
    switches += ["-n", str(work.count)] if work.count else []
    return [str(program), *switches, "-d", str(work.depth), "-s", str(work.size), "-t", str(seconds), target.url]


def _parse(output: str) -> tuple[float, float]:
    """Operations done and the seconds they took."""
    if found := re.search(r"Run completed in ([\d.]+) seconds", output):  # qemu-img
        count = re.search(r"Sending (\d+) ", output)
        if count:
            return float(count[1]), float(found[1])
    if found := re.search(r"(\d+) operations in ([\d.]+) seconds", output):  # load.c
        return float(found[1]), float(found[2])
    if found := re.search(r"iops average (\d+)", output):  # iscsi-perf, which rewrites its line with \r
        duration = re.search(r"will run for (\d+) seconds", output)
        if duration:
            return float(found[1]) * float(duration[1]), float(duration[1])
    raise ClientFailed(f"no result in: {output[-2000:]}")


def run_all(
    commands: Sequence[Sequence[str]], *, limit: float, cpu: int | None = None, gate: bool = False
) -> list[str]:
    """Run commands at the same time and return what each printed. Raises ClientFailed.

    Each is killed (some ignore SIGTERM) when `limit` seconds are over. `cpu` pins them. With `gate` they are told
    to begin when all have said that they are ready: a target may take a second for each login (istgt does).
    """
    end = time.monotonic() + limit
    with contextlib.ExitStack() as stack:
        processes = []
        for command in commands:
            process = subprocess.Popen(
                ["taskset", "-c", str(cpu), *command] if cpu is not None else list(command),
                stdin=subprocess.PIPE if gate else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            stack.callback(_kill_group, process)
            processes.append(process)
        if gate:
            _together(processes, end)
        return [_result(process, end) for process in processes]


def _together(processes: Sequence[subprocess.Popen[bytes]], end: float) -> None:
    for process in processes:
        assert process.stdout is not None
        if not select.select([process.stdout], [], [], max(0.0, end - time.monotonic()))[0]:
            raise ClientFailed(f"did not get ready: {process.args!r}")
        said = os.read(process.stdout.fileno(), 4096)
        if said != b"ready\n":
            raise ClientFailed(f"{process.args!r} said {said.decode(errors='replace')}")
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"!")
        process.stdin.flush()


def _result(process: subprocess.Popen[bytes], end: float) -> str:
    try:
        output = process.communicate(timeout=max(0.0, end - time.monotonic()))[0].decode(errors="replace")
    except subprocess.TimeoutExpired:
        raise ClientFailed(f"killed at its time limit: {process.args!r}") from None
    if process.returncode:
        raise ClientFailed(f"status {process.returncode}: {process.args!r}\n{output[-2000:]}")
    return output


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
