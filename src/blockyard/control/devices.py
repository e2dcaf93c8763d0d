"""The block devices of this machine, for whoever looks for what to make something of (sysfs(5), the by-id links of udev)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from blockyard.block.traces import LOOKED_AT, holds

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
    holds: str = ""  # what somebody has left on it; "": nothing that is known
    number: tuple[int, int] = (0, 0)  # major and minor


def block_devices(
    sysfs: Path = Path("/sys"), dev: Path = Path("/dev"), proc: Path = Path("/proc"), run: Path = Path("/run")
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
        major, _, minor = _text(directory / "dev").partition(":")
        try:
            used = busy.get(directory.name, "") or _held(directory) or _by_partitions(directory, busy)
            partitioned = any(_partitions(directory))
        except FileNotFoundError:  # it has just been pulled out
            continue
        found.append(
            BlockDevice(
                lasting.get(directory.name, str(dev / directory.name)),
                directory.name,
                size,
                _text(disk / "device" / "model"),
                _text(disk / "queue" / "rotational") == "1",
                _text(directory / "ro") == "1",
                used,
                "partitions" if partitioned else _holds(directory.name, f"{major}:{minor}", dev, run),
                (int(major or 0), int(minor or 0)),
            )
        )
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _held(directory: Path) -> str:
    """By other devices, such as md and dm."""
    holders = directory / "holders"
    names = sorted(each.name for each in holders.iterdir()) if holders.is_dir() else []
    return f"part of {', '.join(names)}" if names else ""


def _partitions(disk: Path) -> Iterator[Path]:
    return (each for each in sorted(disk.iterdir()) if (each / "partition").exists())


def _by_partitions(disk: Path, busy: Mapping[str, str]) -> str:
    """Whoever has a part of a disk would lose it with the whole."""
    found = ((each.name, busy.get(each.name, "") or _held(each)) for each in _partitions(disk))
    return next((f"{name} is {how}" for name, how in found if how), "")


def _holds(name: str, number: str, dev: Path, run: Path) -> str:
    """As udev has seen it; where there is no udev, as it looks now."""
    known = _text(run / "udev" / "data" / f"b{number}").splitlines()
    if known:
        told = dict(line[2:].partition("=")[::2] for line in known if line.startswith("E:"))
        return told.get("ID_FS_TYPE", "") or ("partitions" if told.get("ID_PART_TABLE_TYPE") else "")
    try:
        fd = os.open(dev / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return holds(os.pread(fd, LOOKED_AT, 0))
    except OSError:
        return ""
    finally:
        os.close(fd)


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
