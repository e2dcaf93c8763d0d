"""What a pool keeps in LMDB: the tables, and how keys and values are laid out in them.

All numbers are big endian, so that LMDB's order of keys is theirs. Nothing here decides anything: engine.py knows what belongs
into one commit.

    pool        "head"                   → JSON: "uuid", "members", "sequence" of the last commit … (engine.read_head)
    trees       tree                     → JSON (tree.Tree.describe)
    volumes     name                     → JSON of catalog.Volume
    snapshots   tree, generation         → JSON of catalog.Snapshot, and the name of its volume
    maps        tree, page               → places and births of 256 chunks (livemap.Page)
    lost        tree, chunk, generation  → place, birth, checksum: what the chunk was up to that generation
    deltas      tree, generation, chunk  → nothing: the same in the other order
    slabs       member, slab             → shift, bitmap
    journals    volume                   → JSON of cdp.Journal
    segments    tree, generation         → JSON of segment.Segment
    notes       tree, generation, number → some notes of a segment, from that number on

LMDB has no checksums: what a disk or a memory cell has falsified it hands out as it is. So each value is followed by a CRC32C
over table, key and value, which is compared whenever one is read. Entries that are missing are found by pool/check.py.
"""

from __future__ import annotations

import errno
import json
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import lmdb
from fastcrc.crc32 import iscsi as crc32c

from blockyard.pool import datafile
from blockyard.pool.datafile import Damaged
from blockyard.pool.space import Slab, Stored

_TABLES = ("pool", "trees", "volumes", "snapshots", "maps", "lost", "deltas", "slabs", "journals", "segments", "notes")
_LIMIT = 1 << 40  # bytes of address space, not of disk: the most that the metadata of a pool can come to
TWO = struct.Struct(">QQ")
THREE = struct.Struct(">QQQ")
LOST = struct.Struct(">QQI")
SLAB_KEY = struct.Struct(">IQ")
_CRC = struct.Struct("<I")
_PAGES_A_CHANGE = (
    8  # of the store that an entry may touch: a map page has two of its own, a lost chunk is in two tables
)
_PAGES_A_COMMIT = 2048  # beyond that: what is deleted, the list of free pages
_AHEAD = 4 << 20  # bytes: so that it need not be done for every commit
_SEEDS = {name: crc32c(name.encode()) for name in _TABLES}  # so that no entry passes for one of another table


class StoreError(OSError):
    """LMDB could not do what it was told: nothing is known of what it has stored since its last commit."""


class Lost(NamedTuple):
    """What a chunk of a tree was until generation `last`: snapshots of generations from `birth` to `last` have it."""

    tree: int
    chunk: int
    last: int
    place: int
    birth: int
    sum: int = 0  # checksum of what is there, 32 bits, if the volume has such


class Transaction:
    """A view of everything, or with `write` a change of it."""

    def __init__(self, inner: Any, tables: dict[str, Any], directory: Path) -> None:
        self._inner = inner
        self._tables = tables
        self._directory = directory

    def get(self, table: str, key: bytes) -> bytes | None:
        """Raises Damaged for what is not as it was stored."""
        value: bytes | None = self._inner.get(key, db=self._tables[table])
        return None if value is None else self._checked(table, key, value)

    def put(self, table: str, key: bytes, value: bytes) -> None:
        self._inner.put(key, value + _CRC.pack(_sum(table, key, value)), db=self._tables[table])

    def put_all(self, table: str, entries: Iterable[tuple[bytes, bytes]]) -> None:
        """The same for many, which is quicker."""
        seed, pack = _SEEDS[table], _CRC.pack
        with self._inner.cursor(db=self._tables[table]) as cursor:
            cursor.putmulti([(key, value + pack(crc32c(key + value, seed))) for key, value in entries])

    def change(self, table: str, key: bytes, **fields: int) -> None:
        """Add to numbers in an entry that is JSON."""
        value = json.loads(self.get(table, key) or b"{}")
        self.put(table, key, json.dumps(value | {name: value[name] + by for name, by in fields.items()}).encode())

    def delete(self, table: str, key: bytes) -> None:
        self._inner.delete(key, db=self._tables[table])

    def items(self, table: str, prefix: bytes = b"", start: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Keys that begin with `prefix`, from `start` on, and their values, in order."""
        with self._inner.cursor(db=self._tables[table]) as cursor:
            if not cursor.set_range(start or prefix):
                return
            for key, value in cursor:
                if not key.startswith(prefix):
                    return
                yield key, self._checked(table, key, value)

    def has(self, table: str, key: bytes) -> bool:
        """Whether there is such an entry, damaged or not."""
        return self._inner.get(key, db=self._tables[table]) is not None

    def suspects(self, table: str, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes | None]]:
        """Keys that begin with `prefix`, and their values where these are as they were stored: for who looks for damage."""
        with self._inner.cursor(db=self._tables[table]) as cursor:
            if not cursor.set_range(prefix):
                return
            for key, value in cursor:
                if not key.startswith(prefix):
                    return
                yield key, value[:-4] if _is_sound(table, key, value) else None

    def count(self, table: str) -> int:
        """How many entries a table has, by LMDB's own count."""
        entries: int = self._inner.stat(self._tables[table])["entries"]
        return entries

    def damaged(self, what: str) -> Damaged:
        """An error that says what does not make sense."""
        return Damaged(self._directory, what)

    def _checked(self, table: str, key: bytes, value: bytes) -> bytes:
        if not _is_sound(table, key, value):
            raise self.damaged(f"entry {key.hex()} of table {table}")
        return value[:-4]

    # ---- maps

    def page(self, tree: int, page: int) -> bytes | None:
        return self.get("maps", TWO.pack(tree, page))

    def put_page(self, tree: int, page: int, data: bytes | None) -> None:
        if data is None:
            self.delete("maps", TWO.pack(tree, page))
        else:
            self.put("maps", TWO.pack(tree, page), data)

    def pages(self, tree: int) -> Iterator[tuple[int, bytes]]:
        for key, value in self.items("maps", tree.to_bytes(8, "big")):
            yield TWO.unpack(key)[1], value

    def next_page(self, tree: int, page: int) -> int | None:
        """The number of the first page of a tree from `page` on."""
        key = self._next_key("maps", tree, TWO.pack(tree, page))
        return None if key is None else int(TWO.unpack(key)[1])

    def next_lost(self, tree: int, chunk: int) -> int | None:
        """The first chunk of a tree from `chunk` on that has any history."""
        key = self._next_key("lost", tree, THREE.pack(tree, chunk, 0))
        return None if key is None else int(THREE.unpack(key)[1])

    def _next_key(self, table: str, tree: int, start: bytes) -> bytes | None:
        with self._inner.cursor(db=self._tables[table]) as cursor:
            if not cursor.set_range(start):
                return None
            key: bytes = cursor.key()
            return key if key.startswith(tree.to_bytes(8, "big")) else None

    # ---- history

    def lost_at(self, tree: int, chunk: int, generation: int) -> Lost | None:
        """The first entry of a chunk that reaches to `generation` or beyond."""
        prefix = TWO.pack(tree, chunk)
        for key, value in self.items("lost", prefix, THREE.pack(tree, chunk, generation)):
            return Lost(tree, chunk, THREE.unpack(key)[2], *LOST.unpack(value))
        return None

    def put_lost(self, lost: Lost) -> None:
        self.put_losts([lost])

    def put_losts(self, losts: Iterable[Lost]) -> None:
        """In LMDB's own order, which spares it the search for where each belongs."""
        ordered, key, value = sorted(losts), THREE.pack, LOST.pack
        self.put_all(
            "lost",
            [(key(tree, chunk, last), value(place, birth, sum)) for tree, chunk, last, place, birth, sum in ordered],
        )
        self.put_all("deltas", [(key(each[0], each[2], each[1]), b"") for each in ordered])

    def delete_lost(self, lost: Lost) -> None:
        self.delete("lost", THREE.pack(lost.tree, lost.chunk, lost.last))
        self.delete("deltas", THREE.pack(lost.tree, lost.last, lost.chunk))

    def delta(self, tree: int, generation: int, limit: int) -> list[Lost]:
        """At most `limit` of the entries that reach to exactly `generation`."""
        found = []
        for key, _ in self.items("deltas", TWO.pack(tree, generation)):
            chunk = THREE.unpack(key)[2]
            value = self.get("lost", THREE.pack(tree, chunk, generation))
            if value is None:
                raise self.damaged(f"entry {key.hex()} of table deltas leads nowhere")
            found.append(Lost(tree, chunk, generation, *LOST.unpack(value)))
            if len(found) == limit:
                break
        return found

    def losses(self, tree: int) -> Iterator[Lost]:
        for key, value in self.items("lost", tree.to_bytes(8, "big")):
            yield Lost(*THREE.unpack(key), *LOST.unpack(value))

    # ---- slabs

    def put_slab(self, stored: Stored) -> None:
        key = SLAB_KEY.pack(*stored.slab)
        if stored.bitmap:
            length = (stored.bitmap.bit_length() + 7) // 8
            self.put("slabs", key, bytes([stored.shift]) + stored.bitmap.to_bytes(length, "little"))
        else:
            self.delete("slabs", key)

    def slabs(self) -> Iterator[Stored]:
        for key, value in self.items("slabs"):
            yield slab_in(key, value)


def slab_in(key: bytes, value: bytes) -> Stored:
    """An entry of the table of slabs."""
    return Stored(Slab(*SLAB_KEY.unpack(key)), value[0], int.from_bytes(value[1:], "little"))


class Store:
    """The LMDB environment in `directory`. One process has it open at a time (engine.py sees to that).

    Raises FileNotFoundError where there is none and none is to be made, Damaged for one that cannot be.
    """

    def __init__(self, directory: Path, *, create: bool = False) -> None:
        self._directory = directory
        self._reserved = 0  # bytes of the file that have room on the disk
        if not create:
            datafile.examine(directory)
        with _translated(directory):
            self._environment = _open(directory, read_only=False)
            try:
                self._environment.reader_check()  # a reader that was killed would keep old pages from being used again
                self._tables = {name: self._environment.open_db(name.encode(), create=create) for name in _TABLES}
            except BaseException:
                self._environment.close()
                raise

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """A view of everything as it is now."""
        with _translated(self._directory), self._environment.begin() as inner:
            yield Transaction(inner, self._tables, self._directory)

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """A transaction that is on stable storage when this ends, or has left no trace when it ended with an exception.

        Raises StoreError when it could not be stored.
        """
        with _translated(self._directory), self._environment.begin(write=True) as inner:
            yield Transaction(inner, self._tables, self._directory)

    def reserve(self, changes: int, losts: int = 0) -> None:
        """Have room on the disk for a transaction that changes so many entries, and adds so many of lost chunks.

        Raises OSError (ENOSPC).

        LMDB would find out too late: in the middle of a commit. A file system that copies what it writes may break this
        promise; then that commit fails.
        """
        info = self._environment.info()
        pages = info["last_pgno"] + changes * _PAGES_A_CHANGE + self._pages_of(losts) + _PAGES_A_COMMIT
        needed = pages * self._environment.stat()["psize"]
        if needed > self._reserved:
            datafile.allocate(self._directory, needed + _AHEAD)
            self._reserved = needed + _AHEAD

    def _pages_of(self, losts: int) -> int:
        """The most pages that so many lost chunks may touch.

        There may be very many of them in a commit, and they are small. So they cannot touch more than all pages of their two
        tables, and split each of these; and what comes of that is half empty, and split again only after dozens more.
        """
        if not losts:
            return 0
        with _translated(self._directory), self._environment.begin() as inner:
            tables = [inner.stat(self._tables[name]) for name in ("lost", "deltas")]
        present: int = sum(table["leaf_pages"] + table["branch_pages"] for table in tables)
        return min(losts * _PAGES_A_CHANGE, 2 * present + losts)

    @property
    def size(self) -> int:
        """Bytes of the file that have been used so far."""
        used: int = (self._environment.info()["last_pgno"] + 1) * self._environment.stat()["psize"]
        return used

    def close(self) -> None:
        self._environment.close()


@contextmanager
def reading(directory: Path) -> Iterator[Transaction]:
    """A view of what is stored in `directory`, whoever else has it open in another process.

    Raises OSError. One at a time in a process, and not where the process has it open itself.
    """
    datafile.examine(directory)
    with _translated(directory):
        environment = _open(directory, read_only=True)
        try:
            with environment.begin() as inner:
                tables = {name: environment.open_db(name.encode(), inner, create=False) for name in _TABLES}
                yield Transaction(inner, tables, directory)
        finally:
            environment.close()


def _open(directory: Path, *, read_only: bool) -> Any:
    return lmdb.open(
        str(directory), map_size=_LIMIT, max_dbs=len(_TABLES), subdir=True, mode=0o600, max_readers=64,
        readahead=False, readonly=read_only, create=not read_only,
    )  # fmt: skip


@contextmanager
def _translated(directory: Path) -> Iterator[None]:
    """LMDB's exceptions as OSErrors."""
    try:
        yield
    except (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError, lmdb.NotFoundError) as error:
        raise Damaged(directory, f"{datafile.NAME}: {error}") from error
    except lmdb.Error as error:
        full = isinstance(error, (lmdb.DiskError, lmdb.MapFullError))
        raise StoreError(errno.ENOSPC if full else errno.EIO, f"{datafile.NAME}: {error}", str(directory)) from error


def _sum(table: str, key: bytes, value: bytes) -> int:
    total: int = crc32c(value, crc32c(key, _SEEDS[table]))
    return total


def _is_sound(table: str, key: bytes, value: bytes) -> bool:
    return len(value) >= _CRC.size and value[-4:] == _CRC.pack(_sum(table, key, value[:-4]))
