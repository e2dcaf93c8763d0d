"""What /proc says of a target: CPU time, memory; and stopping, continuing and pinning all its processes."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.serving import descendants

Pins = Literal["apart", "together", "no"]
_TICK = 1 / os.sysconf("SC_CLK_TCK")


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of all threads of these processes so far (proc(5): utime, stime)."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            # The second field is the command in parentheses and may hold anything, so count from its end.
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total * _TICK


def run_seconds(pids: Iterable[int]) -> float:
    """The same without ticks, for what takes little: what the scheduler has counted of each thread (proc(5): schedstat)."""
    total = 0
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                total += int((thread / "schedstat").read_text(encoding="ascii").split()[0])
    return total * 1e-9


def machine_seconds() -> float:
    """CPU time used since boot by all processes and by interrupts, whose work the processes' own times contain."""
    user, nice, system, _, _, irq, softirq = map(int, Path("/proc/stat").read_text(encoding="ascii").split()[1:8])
    return (user + nice + system + irq + softirq) * _TICK


@dataclass(frozen=True)
class Memory:
    """Of one process or summed over several, in KiB (proc(5): smaps_rollup, status)."""

    rss: int  # resident set: every page mapped, shared ones too
    pss: int  # shared pages divided by the number of processes that map them
    anonymous: int  # pages that are nobody else's and no file's: what the process really costs

    def __add__(self, other: Memory) -> Memory:
        return Memory(self.rss + other.rss, self.pss + other.pss, self.anonymous + other.anonymous)


def memory(pids: Iterable[int]) -> Memory:
    """Memory of these processes, summed."""
    total = Memory(0, 0, 0)
    for pid in pids:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
        table = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
        total += Memory(table["Rss"], table["Pss"], table["Anonymous"])
    return total


def send(root: int, number: signal.Signals) -> None:
    """Send a signal to a process and everything below it."""
    for pid in descendants(root):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


@contextlib.contextmanager
def alone(root: int, others: Iterable[int]) -> Iterator[None]:
    """While this lasts the other targets are stopped (SIGSTOP): one that spins would take a core."""
    others = [pid for pid in others if pid != root]
    for pid in others:
        send(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in others:
            send(pid, signal.SIGCONT)


def cpus_for(pins: Pins) -> tuple[int | None, int | None]:
    """CPUs for the client and the target: one each, one for both, or None, the scheduler's choice."""
    cpus = sorted(os.sched_getaffinity(0))
    if pins == "no" or len(cpus) < 2:
        return None, None
    return cpus[0], cpus[0] if pins == "together" else cpus[1]


@contextlib.contextmanager
def pinned(root: int, cpu: int | None) -> Iterator[None]:
    """Keep every thread of a target on one CPU for as long as this lasts; None: leave it to the scheduler."""
    if cpu is not None:
        _pin(root, {cpu})
    try:
        yield
    finally:
        if cpu is not None:
            _pin(root, os.sched_getaffinity(0))


def _pin(root: int, cpus: set[int]) -> None:
    for pid in descendants(root):
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{pid}/task"):
                with contextlib.suppress(ProcessLookupError):
                    os.sched_setaffinity(int(thread), cpus)
