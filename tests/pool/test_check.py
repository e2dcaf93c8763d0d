"""Metadata that does not fit together: each kind of damage is named, and mended where that loses nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from blockyard.block.file import FileDevice, create
from blockyard.pool.livemap import decode
from blockyard.pool.pool import Pool
from blockyard.pool.pool import create as create_pool
from blockyard.pool.report import Severity
from blockyard.pool.space import SLAB, Slab, Stored, place_of
from blockyard.pool.store import LOST, THREE, TWO, Lost, Store, Transaction
from blockyard.pool.volume import SnapshotDevice, VolumeDevice

SHIFT = 13
CHUNKS = 600  # more than two pages of a map
SIZE = CHUNKS << SHIFT


def make(directory: Path) -> None:
    """A pool with a volume that has a snapshot and a clone of it."""
    create(directory / "member", 32 << 20)
    create_pool(directory, [str(directory / "member")])
    with Pool(directory, FileDevice) as pool:
        pool.create_volume("a", SIZE, SHIFT)
        for chunk in (*range(8), 300, 599):
            write(pool, "a", chunk, chunk % 250 + 1)
        pool.snapshot(["a"], "s", 1.0)
        for chunk in (1, 2, 300):
            write(pool, "a", chunk, 255)
        pool.clone("a", "s", "b")
        write(pool, "b", 3, 254)


def write(pool: Pool, name: str, chunk: int, byte: int) -> None:
    VolumeDevice(pool, name).pwritev([bytes([byte]) * (1 << SHIFT)], chunk << SHIFT)


def contents(pool: Pool) -> list[bytes]:
    """All that can be read."""
    found = []
    for device in (VolumeDevice(pool, "a"), VolumeDevice(pool, "b"), SnapshotDevice(pool, pool.snapshots("a")[0])):
        data = bytearray(SIZE)
        device.preadv([memoryview(data)], 0)
        found.append(bytes(data))
    return found


def _slab(transaction: Transaction) -> Stored:
    return next(iter(transaction.slabs()))


def _leak(transaction: Transaction) -> None:
    slab = _slab(transaction)
    transaction.put_slab(slab._replace(bitmap=slab.bitmap | 0xF << 300))


def _leak_a_slab(transaction: Transaction) -> None:
    transaction.put_slab(Stored(Slab(0, 5), 16, 0b101))


def _unmark(transaction: Transaction) -> None:
    slab = _slab(transaction)
    transaction.put_slab(slab._replace(bitmap=slab.bitmap & ~0b100))


def _a_delta_is_missing(transaction: Transaction) -> None:
    lost = next(iter(transaction.losses(1)))
    transaction.delete("deltas", THREE.pack(lost.tree, lost.last, lost.chunk))


def _a_delta_leads_nowhere(transaction: Transaction) -> None:
    transaction.put("deltas", THREE.pack(1, 1, 77), b"")


def _history_of_nobody(transaction: Transaction) -> None:
    """As if it had been forgotten that a snapshot is deleted: what only that had is nobody's."""
    _head(transaction, next_tree=3)
    tree = json.loads(transaction.get("trees", (1).to_bytes(8, "big")) or b"")
    tree["generation"] += 3
    tree["held"] += 1
    transaction.put("trees", (1).to_bytes(8, "big"), json.dumps(tree).encode())
    slab = _slab(transaction)
    transaction.put_slab(slab._replace(bitmap=slab.bitmap | 1 << 100))
    transaction.put_lost(Lost(1, 9, 3, place_of(0, SLAB) + 200, 3))


def _a_wrong_count(transaction: Transaction) -> None:
    transaction.change("trees", (1).to_bytes(8, "big"), held=3, mapped=-2)


def _a_map_of_nobody(transaction: Transaction) -> None:
    transaction.put_page(7, 0, transaction.page(1, 0))


def _a_snapshot_that_is_not_there(transaction: Transaction) -> None:
    fields = {"volume": "a", "name": "x", "tree": 1, "generation": 9, "size": SIZE, "time": 1.0}
    transaction.put("snapshots", TWO.pack(1, 9), json.dumps(fields).encode())


MENDED: dict[str, tuple[Callable[[Transaction], None], Severity]] = {
    "4 chunks|32768 bytes are nobody's": (_leak, Severity.LEAK),
    "slab 5 of member 0: 131072 bytes are nobody's": (_leak_a_slab, Severity.LEAK),
    "1 chunks in use are not marked so": (_unmark, Severity.ERROR),
    "missing in the index of deltas": (_a_delta_is_missing, Severity.WARNING),
    "an index of history that is not there": (_a_delta_leads_nowhere, Severity.WARNING),
    "volume a: history up to generation 3, which no snapshot has": (_history_of_nobody, Severity.LEAK),
    "volume a is said to have 8 chunks and 16 places: it has 10 and 13": (_a_wrong_count, Severity.WARNING),
    "a map page of tree 7, which is not there": (_a_map_of_nobody, Severity.LEAK),
    "snapshot a@x is none of its tree": (_a_snapshot_that_is_not_there, Severity.ERROR),
}


def _head(transaction: Transaction, **fields: object) -> None:
    head = json.loads(transaction.get("pool", b"head") or b"")
    transaction.put("pool", b"head", json.dumps(head | fields).encode())


def _damage(directory: Path, change: Callable[[Transaction], None]) -> None:
    store = Store(directory)
    with store.write() as transaction:
        change(transaction)
    store.close()


@pytest.mark.parametrize("what", MENDED)
def test_what_is_mended(tmp_path: Path, what: str) -> None:
    make(tmp_path)
    with Pool(tmp_path, FileDevice) as pool:
        before = contents(pool)
        assert pool.check().is_clean
    change, severity = MENDED[what]
    _damage(tmp_path, change)
    with Pool(tmp_path, FileDevice) as pool:
        report = pool.check()
        (finding, *others) = report.findings
        assert finding.severity is severity
        assert any(words in finding.what for words in what.split("|"))
        assert finding.repair
        assert not others
        assert contents(pool) == before
        assert pool.check().findings == report.findings, "a check changes nothing"
        pool.repair(report)
        while pool.work_off():
            pass
        pool.flush()
        assert pool.check().findings == []
        assert contents(pool) == before
    with Pool(tmp_path, FileDevice) as pool:
        assert pool.check().is_clean
        assert contents(pool) == before


def _two_have_a_place(transaction: Transaction) -> None:
    page = decode(transaction.page(1, 0) or b"")
    page.places[40], page.births[40] = page.places[5], page.births[5]
    transaction.put_page(1, 0, page.image().encode())


def _beyond_the_member(transaction: Transaction) -> None:
    page = decode(transaction.page(1, 0) or b"")
    page.places[40], page.births[40] = 1 + (900 << 10), 1
    transaction.put_page(1, 0, page.image().encode())


def _two_volumes_of_a_tree(transaction: Transaction) -> None:
    transaction.put("volumes", b"c", transaction.get("volumes", b"a") or b"")


def _born_in_the_future(transaction: Transaction) -> None:
    lost = next(iter(transaction.losses(1)))
    transaction.put("lost", THREE.pack(*lost[:3]), LOST.pack(lost.place, 99, 0))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (_two_have_a_place, "volume a, chunk 5 and volume a, chunk 40 have the same place"),
        (_beyond_the_member, "volume a, chunk 40 leads to 0xe1001, which is no place of a chunk in this pool"),
        (_two_volumes_of_a_tree, "volume c has the tree of volume a"),
        (_born_in_the_future, "it was born in generation 99, which cannot be"),
    ],
)
def test_what_nobody_can_decide_is_told_and_left(
    tmp_path: Path, change: Callable[[Transaction], None], what: str
) -> None:
    make(tmp_path)
    _damage(tmp_path, change)
    with Pool(tmp_path, FileDevice) as pool:
        report = pool.check()
        (finding,) = [each for each in report.findings if each.severity is Severity.ERROR]
        assert what in finding.what
        assert finding.repair == ""
        pool.repair(report)
        assert pool.check().findings == [finding]


def test_what_cannot_be_read_keeps_its_space(tmp_path: Path) -> None:
    """A map page is falsified: only its chunks are unreadable, and what it leads to is not freed, as somebody may know better."""
    make(tmp_path)
    store = Store(tmp_path)
    with store.write() as transaction:
        raw = bytearray(transaction._inner.get(TWO.pack(1, 0), db=transaction._tables["maps"]))
        raw[20] ^= 1
        transaction._inner.put(TWO.pack(1, 0), bytes(raw), db=transaction._tables["maps"])
    store.close()
    with Pool(tmp_path, FileDevice) as pool:
        with pytest.raises(OSError, match="damaged: entry 00000000000000010000000000000000 of table maps"):
            VolumeDevice(pool, "a").preadv([memoryview(bytearray(512))], 0)
        data = bytearray(512)
        VolumeDevice(pool, "a").preadv([memoryview(data)], 300 << SHIFT)
        assert data == bytes([255]) * 512
        report = pool.check()
        assert any("volume a: the map of chunks 0 to 255 cannot be read" in each.what for each in report.findings)
        assert not report.mending.free
        used = pool.used
        pool.repair(report)
        assert pool.used == used


def test_progress_ends_where_it_should(tmp_path: Path) -> None:
    make(tmp_path)
    told: list[tuple[int, int]] = []
    with Pool(tmp_path, FileDevice) as pool:
        report = pool.check(lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert told[-1] == (report.entries, report.entries)
