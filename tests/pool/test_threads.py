"""Readers, writers, snapshots and flushes at the same time."""

from __future__ import annotations

import itertools
import random
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from blockyard.block.file import FileDevice, create
from blockyard.pool.pool import Pool
from blockyard.pool.pool import create as create_pool
from blockyard.pool.store import Transaction
from blockyard.pool.tree import Tree
from blockyard.pool.volume import SnapshotDevice, VolumeDevice
from tests.memory import FAST
from tests.pool import roads
from tests.waiting import eventually

SHIFT = 14
CHUNKS = 32
SIZE = CHUNKS << SHIFT
PAGE = 4096


@pytest.fixture
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="blockyard-pool-", dir=FAST))
    yield path
    shutil.rmtree(path)


def test_snapshots_hold_still_and_volumes_keep_apart(directory: Path) -> None:
    """Every page says whose it is: what a snapshot showed once it must show for ever, and no page in it may be torn.

    A page that is read while somebody writes it in place may be: of a file, too, as most file systems (ext4) copy to and from
    the page cache without keeping readers and writers apart. So of these the test only asks whose they are.
    """
    create(directory / "member", 64 << 20)
    create_pool(directory, [str(directory / "member")])
    with Pool(directory, FileDevice) as pool:
        for name in ("a", "b"):
            pool.create_volume(name, SIZE, SHIFT)
        devices = {name: VolumeDevice(pool, name) for name in ("a", "b")}
        failures: list[BaseException] = []
        stop = threading.Event()

        def run(work: Callable[[], None]) -> None:
            try:
                work()
            except BaseException as error:
                failures.append(error)
                stop.set()

        short = 0

        def write(name: str, seed: int) -> None:
            """Seed 0 is the event loop's thread, which has the short road to itself."""
            nonlocal short
            device, chance = devices[name], random.Random(seed)
            for number in itertools.count():
                if stop.is_set():
                    return
                page = chance.randrange(seed % 2, SIZE // PAGE, 2)  # each writer has pages of its own, in shared chunks
                if chance.random() < 0.1:
                    device.discard(page // 8 * 8 * PAGE, 8 * PAGE)
                else:
                    data = (name.encode() + (number % (1 << 24)).to_bytes(3, "big")) * (PAGE // 4)
                    short += roads.write(device, data, page * PAGE, short=seed == 0)
                if seed == 0:
                    buffer = bytearray(SIZE)
                    if device.quick is not None and device.quick.read([memoryview(buffer)], 0, SIZE):
                        _check_owner(name, buffer)

        def read(name: str) -> None:
            buffer = bytearray(SIZE)
            while not stop.is_set():
                devices[name].preadv([memoryview(buffer)], 0)
                _check_owner(name, buffer)

        writers = [
            threading.Thread(target=run, args=(lambda n=name, s=seed: write(n, s),)) for seed, name in enumerate("aabb")
        ]
        readers = [threading.Thread(target=run, args=(lambda n=name: read(n),)) for name in "ab"]
        for thread in (*writers, *readers):
            thread.start()
        kept: dict[tuple[str, str], bytes] = {}
        for number in range(1, 21):
            label = f"s{number}"
            pool.snapshot(["a", "b"], label, float(number))
            for name in ("a", "b"):
                kept[name, label] = _snapshot(pool, name, label)
                _check(name, kept[name, label])
            if number % 3 == 0:
                pool.delete_snapshot("a", label)
                del kept["a", label]
            pool.work_off()
            pool.flush()
        eventually(lambda: short or failures, "a write by the short road")
        stop.set()
        for thread in (*writers, *readers):
            thread.join()
        assert not failures, failures
        for name, device in devices.items():
            data = bytearray(SIZE)
            device.preadv([memoryview(data)], 0)
            _check(name, data)
        for (name, label), expected in kept.items():
            assert _snapshot(pool, name, label) == expected, (name, label)


def _snapshot(pool: Pool, name: str, label: str) -> bytes:
    (found,) = [each for each in pool.snapshots(name) if each.name == label]
    data = bytearray(SIZE)
    SnapshotDevice(pool, found).preadv([memoryview(data)], 0)
    return bytes(data)


def _check(name: str, data: bytes | bytearray) -> None:
    """Each page is zeros, or all of one write to this very volume."""
    _check_owner(name, data)
    for at in range(0, SIZE, PAGE):
        word = bytes(data[at : at + 4])
        assert data[at : at + PAGE] == word * (PAGE // 4), f"page {at // PAGE} of {name} is torn"


def _check_owner(name: str, data: bytes | bytearray) -> None:
    """There is nothing but zeros and what was written to this very volume."""
    found = set(data[::4])
    assert found <= {0, ord(name)}, f"{name} shows {found}"


def test_a_snapshot_waits_for_writers_of_what_a_volume_has_just_become(directory: Path) -> None:
    """It is asked for while the volume is rolled back, which gives it another tree."""
    create(directory / "member", 64 << 20)
    create_pool(directory, [str(directory / "member")])
    with Pool(directory, FileDevice) as pool:
        pool.create_volume("a", SIZE, SHIFT)
        pool.snapshot(["a"], "before", 0.0)
        snapshot = threading.Thread(target=pool.snapshot, args=(["a"], "after", 1.0))
        trees: list[Tree] = []

        def roll_back(transaction: Transaction) -> None:
            snapshot.start()
            eventually(lambda: _is_committing(snapshot), "the snapshot waits for its turn")
            tree = pool.plant(SHIFT, pool.tree(pool.volume("a").tree), pool.find_snapshot("a", "before").generation)
            pool.replace_tree(transaction, "a", replace(pool.volume("a"), tree=tree.number))
            tree.gate.quick = True  # somebody writes to it as soon as it is there
            trees.append(tree)

        pool.commit(roll_back)
        eventually(lambda: trees[0].gate.shut or not snapshot.is_alive(), "the snapshot goes on")
        assert snapshot.is_alive(), "it has not waited for who is inside"
        trees[0].gate.leave()
        snapshot.join()
        assert [each.tree == trees[0].number for each in pool.snapshots("a")] == [False, True]


def _is_committing(thread: threading.Thread) -> bool:
    """Whether it waits for the commit that is under way."""
    frame = sys._current_frames().get(thread.ident or 0)
    return frame is not None and frame.f_code.co_name == "commit"
