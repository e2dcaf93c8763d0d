"""What a process takes, as /proc tells it (proc_pid_stat(5))."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import NamedTuple

_UTIME, _STIME, _STARTTIME, _RSS = 11, 12, 19, 21  # fields after the name, which may have spaces and brackets in it


class Taken(NamedTuple):
    cpu: float  # seconds, in user and in kernel mode
    resident: int  # bytes
    started: float  # seconds since 1970


def look(pid: int) -> Taken | None:
    """What a process takes; None when it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    ticks = os.sysconf("SC_CLK_TCK")
    return Taken(
        (int(fields[_UTIME]) + int(fields[_STIME])) / ticks,
        int(fields[_RSS]) * os.sysconf("SC_PAGE_SIZE"),
        _booted() + int(fields[_STARTTIME]) / ticks,
    )


@functools.cache
def _booted() -> int:
    """Seconds since 1970."""
    with Path("/proc/stat").open() as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("btime "))
