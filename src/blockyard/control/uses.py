"""Who has a file or device already: volumes, pools and libraries that are served here, or another program that has locked it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from blockyard.worker.configuration import Settled

_LOCKS = ("FLOCK", "OFDLCK")  # by which programs have whole images: we, QEMU


class Uses:
    """As it is now."""

    def __init__(self, settled: Settled, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._whole = {
            os.path.realpath(claim.what.removeprefix("file:")): f"volume {name}"
            for name, volume in settled.volumes.items()
            for claim in volume.claims
            if claim.what.startswith("file:")
        }
        self._directories = {os.path.realpath(pool.directory): f"pool {name}" for name, pool in settled.pools.items()}
        for name, library in settled.libraries.items():
            self._directories.setdefault(os.path.realpath(library.directory), f"library {name}")
        self._locks = dict(_locked(proc))

    def of(self, real: str, status: os.stat_result | None = None) -> str:
        """By whom what is at a canonical path is used; "": by nobody that is known of."""
        return self._whole.get(real) or self.of_directory(real) or self._locked(status)

    def of_device(self, path: str) -> str:
        """The same of a device by one of its names."""
        real = os.path.realpath(path)
        try:
            return self.of(real, os.stat(real))
        except OSError:
            return self.of(real)

    def of_directory(self, real: str) -> str:
        """To whom a directory belongs, with all that is in it."""
        return next((who for place, who in self._directories.items() if _within(real, place)), "")

    def _locked(self, status: os.stat_result | None) -> str:
        pid = None if status is None else self._locks.get((status.st_dev, status.st_ino))
        if pid is None:
            return ""
        try:
            return f"{(self._proc / str(pid) / 'comm').read_text(errors='replace').strip()}, process {pid}"
        except OSError:
            return "another program"


def _within(path: str, directory: str) -> bool:
    return path == directory or path.startswith(f"{directory.rstrip('/')}/")


def _locked(proc: Path) -> list[tuple[tuple[int, int], int]]:
    """Files by device and inode, and the process that has locked each (proc_locks(5))."""
    found = []
    with contextlib.suppress(OSError):
        for line in (proc / "locks").read_text().splitlines():
            words = line.split()
            if len(words) > 5 and words[1] in _LOCKS:
                major, minor, inode = words[5].split(":")
                found.append(((os.makedev(int(major, 16), int(minor, 16)), int(inode)), int(words[4])))
    return found
