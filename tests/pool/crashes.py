"""What a loss of power may leave of a pool: members, journal and LMDB's file together, from a recording of all that was written.

A process in which all file I/O is written down (interpose.c) runs operations on a pool. At each point where something becomes
stable, and at the end of each operation, the power fails: every sector of 4 KiB that was written since its file was last flushed
is what it was then, or anything that was written there since. Each such state is opened, on another boot, and must show

* what a flush was acknowledged for, and what was written since as it was or as it was to be;
* snapshots as they were taken;
* metadata in which nothing is wrong.
"""

from __future__ import annotations

import itertools
import json
import math
import random
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from blockyard.block.device import Device
from blockyard.block.file import create
from blockyard.pool.pool import Pool
from blockyard.pool.pool import create as create_pool
from blockyard.pool.volume import SnapshotDevice, VolumeDevice
from tests.pool.interposed import Interposed, Step

SECTOR = 4096
SHIFT = 13
SECTORS = 8
SIZE = SECTORS * SECTOR
NAMES = "ab"
_SHORT = ("write", "flush", "write", "snapshot")
_BOOTS = ["one".ljust(36), "two".ljust(36)]


# ---- what is recorded


def record(directory: Path, log: Path, seed: int, count: int) -> None:
    """Make a pool in `directory`, keep a copy of it beside, and write down what `count` random operations do to it."""
    directory.mkdir()
    create(directory / "member", 8 << 20)
    create_pool(directory, [str(directory / "member")])
    with Pool(directory, boot=_BOOTS[0]) as pool:
        for name in NAMES:
            pool.create_volume(name, SIZE, SHIFT, checksums=name == "b")
    shutil.copytree(directory, directory.with_name("base"))
    interposed = Interposed(directory)
    with interposed.recording(log), Pool(directory, boot=_BOOTS[0]) as pool:
        _Run(pool, interposed, random.Random(seed)).run(count)


class _Run:
    def __init__(self, pool: Pool, interposed: Interposed, chance: random.Random) -> None:
        self.pool = pool
        self.interposed = interposed
        self.chance = chance
        self.devices = {name: VolumeDevice(pool, name) for name in NAMES}
        self.now = {name: [0] * SECTORS for name in NAMES}
        self.possible = {name: [[0] for _ in range(SECTORS)] for name in NAMES}
        self.snapshots: dict[str, list[int]] = {}
        self.bytes = itertools.cycle(range(1, 256))

    def run(self, count: int) -> None:
        self.mark()
        for number in range(count):
            operation = _SHORT[number] if count == len(_SHORT) else self.chance.choice(_SHORT)
            getattr(self, f"_{operation}")()
            self.mark()

    def mark(self) -> None:
        self.interposed.mark(json.dumps({"possible": self.possible, "snapshots": self.snapshots}))

    def _write(self) -> None:
        name, start = self.chance.choice(NAMES), self.chance.randrange(SECTORS - 1)
        byte = 0 if self.chance.random() < 0.1 else next(self.bytes)
        count = self.chance.randint(1, 2)
        if byte:
            self.devices[name].pwritev([bytes([byte]) * SECTOR * count], start * SECTOR)
        else:
            self.devices[name].discard(start * SECTOR, count * SECTOR)
        for sector in range(start, start + count):
            self.now[name][sector] = byte
            self.possible[name][sector].append(byte)

    def _flush(self) -> None:
        self.pool.flush()
        self.possible = {name: [[byte] for byte in self.now[name]] for name in NAMES}

    def _snapshot(self) -> None:
        name, label = self.chance.choice(NAMES), f"s{len(self.snapshots)}"
        self.pool.snapshot([name], label, 1.0)
        self.snapshots[f"{name}@{label}"] = list(self.now[name])
        self.possible = {name: [[byte] for byte in self.now[name]] for name in NAMES}


# ---- what the power leaves


@dataclass
class _File:
    """A file: its sectors that are stable, and what was written to each since."""

    safe: bytearray
    cached: dict[int, list[bytes]] = field(default_factory=dict)

    def write(self, offset: int, data: bytes) -> None:
        at = offset
        while at < offset + len(data):
            sector = at // SECTOR
            end = min((sector + 1) * SECTOR, offset + len(data))
            content = bytearray(self._last(sector))
            content[at % SECTOR : at % SECTOR + end - at] = data[at - offset : end - offset]
            if bytes(content) not in (versions := self.cached.setdefault(sector, [])):
                versions.append(bytes(content))
            at = end

    def _last(self, sector: int) -> bytes:
        stable = bytes(self.safe[sector * SECTOR : (sector + 1) * SECTOR]).ljust(SECTOR, b"\0")
        return self.cached.get(sector, [stable])[-1]

    def punch(self, offset: int, length: int) -> None:
        for sector in range(offset // SECTOR, (offset + length) // SECTOR):
            if self._last(sector).count(0) < SECTOR:
                self.write(sector * SECTOR, bytes(SECTOR))

    def settle(self, sector: int) -> None:
        put(self.safe, sector, self._last(sector))
        self.cached.pop(sector, None)

    def sync(self) -> None:
        for sector in list(self.cached):
            self.settle(sector)


def put(data: bytearray, sector: int, content: bytes) -> None:
    if len(data) < sector * SECTOR:
        data += bytes(sector * SECTOR - len(data))
    data[sector * SECTOR : (sector + 1) * SECTOR] = content


class States:
    """All states that a recording may have left; at most `limit` of each moment, chosen by `chance`, where there are more."""

    def __init__(self, base: Path, steps: list[Step], limit: int, chance: random.Random) -> None:
        self.files = {
            path.name: _File(bytearray(path.read_bytes())) for path in base.iterdir() if path.name != "lock.mdb"
        }
        self.limit = limit
        self.chance = chance
        self.sampled = 0  # moments of which not all states were looked at
        marks = [(index, json.loads(step.name)) for index, step in enumerate(steps) if step.what == "mark"]
        self.steps = steps
        self.marks = marks

    def run(self) -> Iterator[tuple[dict[str, bytearray], list[dict]]]:  # type: ignore[type-arg]
        """Files, and what is known before and after the operation that was under way."""
        passed = 0
        for index, step in enumerate(self.steps):
            while passed < len(self.marks) and self.marks[passed][0] < index:
                passed += 1
            known = [mark for _, mark in self.marks[max(0, passed - 1) : passed + 1]]
            if step.what in ("sync", "mark") or step.stable:
                yield from ((state, known) for state in self._states())
            self._apply(step)

    def _apply(self, step: Step) -> None:
        if step.what == "mark" or step.name not in self.files:
            return
        file = self.files[step.name]
        if step.what == "write":
            file.write(step.offset, step.data)
            if step.stable:
                file.settle(step.offset // SECTOR)
        elif step.what == "punch":
            file.punch(step.offset, step.length)
        elif step.what == "sync":
            file.sync()

    def _states(self) -> Iterator[dict[str, bytearray]]:
        choices = [
            [(name, sector, content) for content in (None, *versions)]
            for name, file in self.files.items()
            for sector, versions in file.cached.items()
            if not name.startswith("intent")  # of another boot: whatever is in it is ignored
        ]
        count = math.prod(map(len, choices))
        if count <= self.limit:
            yield from map(self._state, itertools.product(*choices))
            return
        self.sampled += 1
        for _ in range(self.limit):
            yield self._state(self.chance.choice(choice) for choice in choices)

    def _state(self, chosen: object) -> dict[str, bytearray]:
        files = {name: bytearray(file.safe) for name, file in self.files.items()}
        for name, file in self.files.items():
            if name.startswith("intent"):
                for sector, versions in file.cached.items():
                    put(files[name], sector, self.chance.choice(versions))
        for name, sector, content in chosen:  # type: ignore[attr-defined]
            if content is not None:
                put(files[name], sector, content)
        return files


def verify(directory: Path, files: dict[str, bytearray], known: list[dict]) -> None:  # type: ignore[type-arg]
    """Open a state and compare it with what is known."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    for name, data in files.items():
        _write(directory / name, data)
    pool = Pool(directory, boot=_BOOTS[1])
    try:
        for name in NAMES:
            for number, found in enumerate(_read(VolumeDevice(pool, name))):
                possible = [byte for each in known for byte in each["possible"][name][number]]
                assert found in possible, f"sector {number} of {name} is {found}, and may be {possible}"
        taken = {f"{name}@{each.name}": each for name in NAMES for each in pool.snapshots(name)}
        assert known[0]["snapshots"].keys() <= taken.keys() <= known[-1]["snapshots"].keys()
        for label, snapshot in taken.items():
            assert _read(SnapshotDevice(pool, snapshot)) == known[-1]["snapshots"][label], label
        report = pool.check()
        assert report.is_clean, report.findings
    finally:
        pool.abandon()


def _write(path: Path, data: bytearray) -> None:
    """Without what is zeros."""
    with path.open("wb") as file:
        file.truncate(len(data))
        for at in range(0, len(data), 1 << 16):
            piece = data[at : at + (1 << 16)]
            if piece.count(0) < len(piece):
                file.seek(at)
                file.write(piece)


def _read(device: Device) -> list[int]:
    data = bytearray(SIZE)
    device.preadv([memoryview(data)], 0)
    sectors = [data[at : at + SECTOR] for at in range(0, SIZE, SECTOR)]
    assert all(sector == sector[:1] * SECTOR for sector in sectors), "a sector is torn"
    return [sector[0] for sector in sectors]


if __name__ == "__main__":
    record(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
