"""The block devices of this machine, for whoever looks for what to make something of (sysfs(5), the by-id links of udev)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_SECTOR = 512  # what sysfs counts sizes in, whatever the device has
_NOT_DISKS = ("ram", "zram", "loop", "nbd", "sr", "fd")  # loop devices are shown when something is behind them


@dataclass(frozen=True)
class BlockDevice:
    """A disk or partition."""

    path: str  # that lasts, by-id where there is one
    name: str  # sda
    size: int  # bytes
    model: str
    rotational: bool
    read_only: bool
    used: str  # what by; "": nobody that the kernel knows of


def block_devices(
    sysfs: Path = Path("/sys"), dev: Path = Path("/dev"), proc: Path = Path("/proc")
) -> list[BlockDevice]:
    """All that have a medium, by name."""
    lasting = dict(_lasting(dev / "disk" / "by-id"))
    busy: dict[str, str] = {}
    for name, how in _busy(proc, dev):
        busy.setdefault(name, how)
    found = []
    for directory in sorted((sysfs / "class" / "block").iterdir(), key=lambda each: (len(each.name), each.name)):
        size = int(_text(directory / "size") or 0) * _SECTOR
        if not size or (directory.name.startswith(_NOT_DISKS) and not (directory / "loop").exists()):
            continue
        disk = directory.resolve().parent if (directory / "partition").exists() else directory
        found.append(
            BlockDevice(
                lasting.get(directory.name, str(dev / directory.name)),
                directory.name,
                size,
                _text(disk / "device" / "model"),
                _text(disk / "queue" / "rotational") == "1",
                _text(directory / "ro") == "1",
                busy.get(directory.name, "") or _held(directory),
            )
        )
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _held(directory: Path) -> str:
    """By other devices, such as md and dm, or by its own partitions."""
    holders = directory / "holders"
    names = sorted(each.name for each in holders.iterdir()) if holders.is_dir() else []
    if names:
        return f"part of {', '.join(names)}"
    return "has partitions" if any((each / "partition").exists() for each in directory.iterdir()) else ""


def _lasting(directory: Path) -> Iterator[tuple[str, str]]:
    """The name of a device, and the path that stays whatever else is plugged in; of several, the shortest."""
    with contextlib.suppress(OSError):
        for link in sorted(directory.iterdir(), key=lambda each: -len(each.name)):
            yield os.path.basename(os.path.realpath(link)), str(link)


def _busy(proc: Path, dev: Path) -> Iterator[tuple[str, str]]:
    """What is mounted or swapped to (proc_pid_mountinfo(5), proc(5))."""
    for line in _lines(proc / "self" / "mountinfo"):
        fields = line.split()
        if "-" in fields and len(fields) > fields.index("-") + 2:
            source = fields[fields.index("-") + 2]
            if source.startswith(f"{dev}/"):
                yield os.path.basename(os.path.realpath(source)), f"mounted on {fields[4]}"
    for line in list(_lines(proc / "swaps"))[1:]:
        yield os.path.basename(os.path.realpath(line.split()[0])), "used for swapping"


def _lines(path: Path) -> Iterable[str]:
    return filter(None, _text(path).splitlines())
