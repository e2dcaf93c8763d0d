"""Every call of an operation that touches a file fails in its turn: what is run, in a process of its own, by test_faults.py.

An operation is run on a fresh copy of the same pool with its first call failing, then with its second, and so on until it has
none left to fail. Each time

* it either succeeds or raises an OSError of the errno that was injected;
* all that was acknowledged reads as it should, in the pool that stays open and in that which is opened anew after the
  process has died; what failed is, block by block, as before or as it was to be;
* snapshots, and everything else, are what they were;
* the pool that was opened anew takes writes, and commits them.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from blockyard.block.device import Device
from blockyard.block.file import FileDevice, create
from blockyard.pool import store
from blockyard.pool.pool import Pool
from blockyard.pool.pool import create as create_pool
from blockyard.pool.store import StoreError
from blockyard.pool.volume import SnapshotDevice, VolumeDevice
from tests.pool.interposed import Interposed, Mode

SECTOR = 4096
BLOCK = 512  # what a write that fails half way leaves whole
SHIFT = 13  # a chunk of two sectors, so that a write of one has to copy the other
SECTORS = 8
SIZE = SECTORS * SECTOR
MODES = (Mode(errno.EIO), Mode(errno.ENOSPC, lasting=True, short=True), Mode(0, short=True))


class World:
    """A pool and what is known of it: of each sector of each volume all that it may be."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.volumes: dict[str, list[set[bytes]]] = {}
        self.snapshots: dict[tuple[str, str], list[set[bytes]]] = {}
        self.gone: set[str] = set()  # volumes and snapshots of which nobody knows whether they are there

    def member(self, name: str) -> Device:
        return FileDevice(self.directory / name)

    def open(self) -> None:
        self.pool = Pool(self.directory, self.member)
        self.attach()

    def attach(self) -> None:
        self.devices = {name: VolumeDevice(self.pool, name) for name in self.pool.volumes}

    def write(self, name: str, start: int, byte: int, count: int = 1) -> None:
        self._change(name, start, count, bytes([byte]) * SECTOR, lambda device, data, at: device.pwritev([data], at))

    def discard(self, name: str, start: int, count: int) -> None:
        self._change(name, start, count, bytes(SECTOR), lambda device, data, at: device.discard(at, len(data)))

    def _change(
        self, name: str, start: int, count: int, sector: bytes, change: Callable[[VolumeDevice, bytes, int], None]
    ) -> None:
        for number in range(start, start + count):
            self.volumes[name][number] |= {sector}
        change(self.devices[name], sector * count, start * SECTOR)
        for number in range(start, start + count):  # nothing is left of what was there: it was acknowledged
            self.volumes[name][number] = {sector}

    def create(self, name: str) -> None:
        self.gone.add(name)
        self.pool.create_volume(name, SIZE, SHIFT)
        self._there(name, [{bytes(SECTOR)} for _ in range(SECTORS)])

    def snapshot(self, name: str, label: str) -> None:
        self.gone.add(f"{name}@{label}")
        self.pool.snapshot([name], label, 1.0)
        self.gone.discard(f"{name}@{label}")
        self.snapshots[name, label] = list(self.volumes[name])

    def clone(self, name: str, label: str, new: str) -> None:
        self.gone.add(new)
        self.pool.clone(name, label, new)
        self._there(new, list(self.snapshots[name, label]))

    def roll_back(self, name: str, label: str) -> None:
        before = self.volumes[name]
        self.volumes[name] = [old | new for old, new in zip(before, self.snapshots[name, label], strict=True)]
        self.pool.roll_back(name, label)
        self.volumes[name] = list(self.snapshots[name, label])
        self.devices[name] = VolumeDevice(self.pool, name)

    def delete_volume(self, name: str) -> None:
        self.gone.add(name)
        del self.volumes[name]
        self.pool.delete_volume(name)
        self.gone.discard(name)

    def delete_snapshot(self, name: str, label: str) -> None:
        self.gone.add(f"{name}@{label}")
        del self.snapshots[name, label]
        self.pool.delete_snapshot(name, label)
        self.gone.discard(f"{name}@{label}")

    def free(self, name: str, label: str) -> None:
        self.delete_snapshot(name, label)
        while self.pool.work_off():
            pass
        self.pool.flush()

    def _there(self, name: str, sectors: list[set[bytes]]) -> None:
        self.gone.discard(name)
        self.volumes[name] = sectors
        self.devices[name] = VolumeDevice(self.pool, name)

    def compare(self) -> None:
        """All reads as it should."""
        assert {name for name in self.pool.volumes if name not in self.gone} == set(self.volumes)
        for name, sectors in self.volumes.items():
            _compare(name, VolumeDevice(self.pool, name), sectors)
        found = {(name, each.name): each for name in self.pool.volumes for each in self.pool.snapshots(name)}
        assert {key for key in found if "@".join(key) not in self.gone} == set(self.snapshots)
        for key, sectors in self.snapshots.items():
            _compare("@".join(key), SnapshotDevice(self.pool, found[key]), sectors)


def _compare(name: str, device: Device, sectors: list[set[bytes]]) -> None:
    data = bytearray(SIZE)
    device.preadv([memoryview(data)], 0)
    for number, possible in enumerate(sectors):
        for at in range(number * SECTOR, (number + 1) * SECTOR, BLOCK):
            found = bytes(data[at : at + BLOCK])
            assert any(found == each[:BLOCK] for each in possible), f"sector {number} of {name} is {found[:1].hex()}"


def _first(world: World) -> None:
    """The pool that every operation begins with: something of everything, some of it not committed yet."""
    world.open()
    for name in ("a", "b", "c"):
        world.create(name)
        world.write(name, 0, ord(name), SECTORS - 2)
    world.snapshot("a", "s")
    world.write("a", 2, 1, 2)
    world.snapshot("a", "t")
    world.delete_volume("c")
    world.clone("a", "s", "d")
    world.pool.flush()


def _second(world: World) -> None:
    world.write("a", 4, 2)
    world.write("b", 1, 3)
    world.write("d", 5, 4)


OPERATIONS: dict[str, Callable[[World], None]] = {
    "a first write": lambda world: world.write("b", 6, 9, 2),
    "a first write of half a chunk": lambda world: world.write("b", 7, 9),
    "a write that copies": lambda world: world.write("a", 0, 9),
    "a write that copies from an origin": lambda world: world.write("d", 0, 9),
    "a write that replaces": lambda world: world.write("a", 0, 9, 2),
    "a write in place": lambda world: world.write("b", 0, 9),
    "a write over several chunks": lambda world: world.write("a", 1, 9, 6),
    "a discard": lambda world: world.discard("b", 0, 4),
    "a discard of half a chunk": lambda world: world.discard("a", 1, 2),
    "a flush": lambda world: world.pool.flush(),
    "a new volume": lambda world: world.create("e"),
    "a snapshot": lambda world: world.snapshot("b", "u"),
    "a clone": lambda world: world.clone("a", "t", "e"),
    "a roll back": lambda world: world.roll_back("a", "t"),
    "a deleted volume": lambda world: world.delete_volume("b"),
    "a deleted snapshot": lambda world: world.delete_snapshot("a", "t"),
    "freeing": lambda world: world.free("a", "t"),
    "a larger volume": lambda world: world.pool.resize("b", 2 * SIZE),
    "a new member": lambda world: world.pool.add_member("other"),
    "closing": lambda world: world.pool.close(),
}


def strike(operation: str, number: int, mode: Mode, base: Path, known: World, faults: Interposed) -> bool:
    """Run an operation with its `number`-th call failing; whether it had that many."""
    directory = base.with_name("pool")
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(base, directory, copy_function=_copy)
    world = World(directory)
    world.volumes = {name: list(sectors) for name, sectors in known.volumes.items()}
    world.snapshots = {key: list(sectors) for key, sectors in known.snapshots.items()}
    if operation == "opening":
        _open_that_fails(world, number, mode, faults)
    else:
        world.open()
        _second(world)
        with faults.failing(number, mode):
            _expect(mode, lambda: OPERATIONS[operation](world))
        if operation != "closing":
            with suppress(StoreError):  # once LMDB could not write its head it answers nothing until it is opened anew
                world.compare()
            world.pool.abandon()
    struck = bool(faults.struck)
    world.open()
    world.compare()
    for name in list(world.volumes):
        world.write(name, 3, 7, 2)
    world.pool.flush()
    while world.pool.work_off():
        pass
    world.compare()
    world.pool.close()
    return struck


def _copy(source: str, target: str) -> None:
    """Copy a file without its holes."""
    with open(source, "rb") as old, open(target, "wb") as new:
        size = os.fstat(old.fileno()).st_size
        end = 0
        with suppress(OSError):  # ENXIO: no data beyond
            while end < size:
                start = os.lseek(old.fileno(), end, os.SEEK_DATA)
                end = os.lseek(old.fileno(), start, os.SEEK_HOLE)
                os.pwrite(new.fileno(), os.pread(old.fileno(), end - start, start), start)
        os.ftruncate(new.fileno(), size)


def _open_that_fails(world: World, number: int, mode: Mode, faults: Interposed) -> None:
    world.open()
    _second(world)
    world.pool.abandon()
    with faults.failing(number, mode):
        _expect(mode, lambda: Pool(world.directory, world.member).abandon())


def _expect(mode: Mode, operation: Callable[[], object]) -> None:
    try:
        operation()
    except OSError as error:
        expected = (errno.EIO, errno.ENOSPC) if mode.short else (mode.errno,)  # LMDB calls a short write EIO
        if error.errno not in expected:
            raise


def main() -> None:
    room = Path(tempfile.mkdtemp(prefix="blockyard-faults-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    try:
        base = room / "base"
        base.mkdir()
        for name in ("member", "other"):
            create(base / name, 16 << 20)
        create_pool(base, ["member"])
        known = World(base)
        _first(known)
        known.pool.close()
        faults = Interposed(room / "pool")
        store._AHEAD = store._PAGES_A_COMMIT = 0  # hundreds of pools are opened: 8 MiB less for each
        for operation in ("opening", *OPERATIONS):
            for mode in MODES:
                number = 1
                with suppress(StopIteration):
                    while _strike(operation, number, mode, base, known, faults):
                        number += 1
                sys.stdout.write(f"{operation}, {mode}: {number - 1} calls\n")
    finally:
        shutil.rmtree(room)


def _strike(operation: str, number: int, mode: Mode, base: Path, known: World, faults: Interposed) -> bool:
    try:
        return strike(operation, number, mode, base, known, faults)
    except BaseException as error:
        error.add_note(f"while call {number} of {operation} failed ({mode})")
        raise


if __name__ == "__main__":
    main()
