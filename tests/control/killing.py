"""Processes that are killed at their n-th call that changes a file or tells another process something (killed.c)."""

from __future__ import annotations

import mmap
import os
import struct
import subprocess
from pathlib import Path

_SOURCE = Path(__file__).with_name("killed.c")
_COUNTER = struct.Struct("=3q")  # calls, the last one, process
NEVER = 1 << 60


class Killer:
    """The library that kills, and the counter by which it is told when. `environment` is for processes that are to have it."""

    def __init__(self, directory: Path) -> None:
        self.library = directory / "killed.so"
        subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", self.library, _SOURCE, "-ldl"], check=True)
        path = directory / "counter"
        path.write_bytes(bytes(mmap.PAGESIZE))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        # What Python compiles it does not keep: those calls would count, and be missing the next time.
        preload = {"LD_PRELOAD": os.fspath(self.library), "KILLED_COUNTER": os.fspath(path)}
        self.environment = {**preload, "PYTHONDONTWRITEBYTECODE": "1"}

    def arm(self, process: int, number: int = NEVER) -> None:
        """From now on a process counts, and dies at a call; it does the ones before."""
        _COUNTER.pack_into(self._map, 0, 0, number, process)

    def disarm(self) -> int:
        """No process counts any more; how many calls there have been."""
        calls: int = _COUNTER.unpack_from(self._map)[0]
        _COUNTER.pack_into(self._map, 0, 0, 0, 0)
        return calls
