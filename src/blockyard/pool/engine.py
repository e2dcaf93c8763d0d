"""The engine of a pool: members that hold data, a store that holds maps, and trees.

Theory of operation. Three things keep a crash from doing harm:

* A chunk that something else still needs (a snapshot, or the map of the last commit) is never written over: what is written
  goes to a new place, and freed places are used again only when a commit that does without them is durable.
* A change of a map is written to the intent journal before it is acknowledged (pool/intent.py), so that it survives the death
  of the process.
* A commit first makes the data stable and then, in one transaction of the store, everything that leads to it.

Locks. `_committing` is held through a commit, so that there is one at a time. `lock` guards maps, space and journal; it is held
for microseconds, and taken after the other. Data is read and written outside of it, between `enter` and `leave`: a place that
was looked up stays what it was until `leave`, even if it is freed meanwhile.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import Any, Self
from uuid import UUID

from blockyard.block.device import Device
from blockyard.block.file import FileDevice
from blockyard.block.gate import Gate
from blockyard.pool.allocator import Allocator
from blockyard.pool.check import Progress, check
from blockyard.pool.checksum import Verifier
from blockyard.pool.clock import Clock
from blockyard.pool.intent import Journal, Record
from blockyard.pool.livemap import CHUNKS, HOLE, PAGE_SHIFT, Budget
from blockyard.pool.members import Member, Members, Opener, erase
from blockyard.pool.reclaim import Reclaimer
from blockyard.pool.recorder import Recorder
from blockyard.pool.report import Report, mend_tables
from blockyard.pool.space import NOWHERE, Freed, Space, member_of, offset_of
from blockyard.pool.store import Store, StoreError, Transaction
from blockyard.pool.tree import Found, Tree
from blockyard.pool.usage import Ledger

Gates = Callable[[], Iterable[Gate]]

_ID = 8  # bytes of a number in a key
_ENOUGH_PAGES = 2048  # of maps, for a commit before its time
_TOO_MANY_PAGES = 4096  # who changes a map waits for a commit first
_ENOUGH_RECORDS = 1 << 20  # bytes in the journal, likewise
_TOO_MANY_RECORDS = 1 << 23


class Engine:
    """What is below the names of a pool (pool.py). `open_member` opens what is a member, by its path.

    Raises OSError when it cannot be opened, ValueError when what is stored of it makes no sense.
    """

    def __init__(
        self,
        directory: Path,
        open_member: Opener = FileDevice,
        *,
        boot: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.directory = directory
        self.lock = threading.RLock()
        self._committing = threading.Lock()
        self._own, self._store, self._journal = _take(directory, boot)
        self._space = Space()
        self.ledger = Ledger(self._space)
        self.verifier = Verifier()
        self._budget = Budget()  # of the pages of all maps
        self.stirred = threading.Event()  # there is something to be committed, or too much of it
        self.allocator = Allocator(self._space, self.ledger, self.lock, self.stirred)
        self.admits, self.give_back = self.allocator.admits, self.allocator.give_back
        self.reclaimer = Reclaimer(self._space, self.lock)
        self.enter, self.leave = self.reclaimer.enter, self.reclaimer.leave
        self._trees: dict[int, Tree] = {}
        self._doomed: list[tuple[int, int]] = []  # tree and generation of snapshots that are deleted and not worked off
        self._graves: list[int] = []  # trees that are no volume's any more; some have snapshots still
        self._sequence = 0  # of the last commit that is durable
        self._sealed = 0  # of the last that has begun
        self._next_tree = 1
        self.failed: OSError | None = None
        self._recorder = Recorder(clock or Clock())
        self._members = Members(directory, open_member, self._space)
        self.devices = self._members.devices
        try:
            self._open()
        except BaseException:
            self.abandon()
            raise

    # ---- opening

    def _open(self) -> None:
        with self._store.read() as transaction:
            head = read_head(transaction)
            if not head["uuid"]:
                raise transaction.damaged("it has no head")
            self._members.load(UUID(head["uuid"]), head["members"])
            self.ledger.load(head["settings"])
            self._sequence = self._sealed = head["sequence"]
            self._next_tree = head["next_tree"]
            self._doomed = [(tree, generation) for tree, generation in head["doomed"]]
            self._graves = head["graves"]
            for stored in transaction.slabs():
                self._space.load(stored)
            self._load_trees(transaction)
            self._recorder.load(transaction, self._trees)
        last, records = self._journal.replay(self._sequence, head["boot"])
        for record in records:
            self._redo(record)
        if records:
            self._make_durable(last)
        self._journal.prepare(self._sequence + 1)
        self._journal.begin(self._sequence + 1)

    def _load_trees(self, transaction: Transaction) -> None:
        described = {int.from_bytes(key, "big"): json.loads(value) for key, value in transaction.items("trees")}
        for number in sorted(described):  # an origin is older than what has been cloned from it
            fields = described[number]
            origin = self._trees[fields["origin"]] if fields["origin"] else None
            tree = Tree(
                number, self._store, self._budget, fields["shift"], generation=fields["generation"],
                snapshots=fields["snapshots"], origin=origin, origin_generation=fields["origin_generation"],
                checksums=fields["checksums"],
            )  # fmt: skip
            tree.moment, tree.held, tree.mapped = fields["moment"], fields["held"], fields["mapped"]
            tree.buried = fields["buried"]
            tree.changed = False
            self._trees[number] = tree

    def _redo(self, record: Record) -> None:
        """Do again what had been acknowledged and not been committed when the process died."""
        tree = self._trees[record.volume]
        if record.place not in (NOWHERE, tree.unmapped()):
            self._space.claim(record.place, tree.shift)
        self._recorder.clock.reached(record.time)
        tree.remap(record.chunk, record.place, self._space.free, record.time, record.sum)

    # ---- members

    @property
    def uuid(self) -> UUID:
        return self._members.pool

    @property
    def members(self) -> dict[int, Member]:
        """By their numbers."""
        return self._members.present

    def add_member(self, path: str) -> None:
        """Take in another member; what it holds is lost. Durable when this returns. Raises OSError."""
        self._change_members(lambda: self._members.add(path))

    def grow_member(self, number: int, size: int = 0) -> None:
        """Use what a member has become larger by; a file is made larger before, to `size`. Raises KeyError, OSError."""
        self._change_members(lambda: self._members.grow(number, size))

    def remove_member(self, number: int) -> None:
        """Take a member out that holds nothing. Raises KeyError, OSError (EBUSY)."""
        removed: list[Device] = []
        self._change_members(lambda: removed.append(self._members.remove(number)))
        for device in removed:
            try:
                erase(device)
            finally:
                device.close()

    def _change_members(self, work: Callable[[], None]) -> None:
        def change(transaction: Transaction) -> None:
            work()
            change_head(transaction, lambda head: head.update(members=self._members.records))

        self.commit(change)

    # ---- data

    def find(self, tree: Tree, chunk: int) -> Found:
        """Where a chunk is; the short road (quick.py) will know it as well."""
        with self.lock:
            return tree.find(chunk)

    def next_page(self, tree: Tree, number: int, generation: int | None) -> int | None:
        """The first page from `number` on in which the tree, or its snapshot of `generation`, may have anything."""
        with self.lock:
            return tree.next_page(number, history=generation is not None)

    def mapped(self, tree: Tree, number: int, generation: int | None) -> list[bool]:
        """Of each chunk of a page, whether it has a place."""
        first = number << PAGE_SHIFT
        if generation is not None:
            return [self.find_at(tree, chunk, generation).place != NOWHERE for chunk in range(first, first + CHUNKS)]
        if tree.origin is not None:
            return [self.find(tree, chunk).place != NOWHERE for chunk in range(first, first + CHUNKS)]
        with self.lock:
            return [place not in (NOWHERE, HOLE) for place in tree.map.page(number).places]

    def find_at(self, tree: Tree, chunk: int, generation: int) -> Found:
        with self.lock:
            return tree.find_at(chunk, generation)

    def place_to_overwrite(self, tree: Tree, chunk: int) -> int:
        with self.lock:
            self._check()
            return tree.in_place(chunk)

    def allocate(self, tree: Tree) -> tuple[int, bool]:
        """A new place for a chunk, which belongs to nobody until `remap`; whether it reads as zeros. Raises PoolFull."""
        self._check()
        return self.allocator.allocate(tree)

    def take(self, tree: Tree) -> tuple[int, bool] | None:
        """As `allocate`, but None when that would take waiting, for a disk or for a commit."""
        return None if self.crowded else self.allocator.take(tree)

    def free(self, tree: Tree, place: int) -> None:
        """A place is a tree's no more, and nobody's."""
        with self.lock:
            tree.release(place, self._space.free)

    def remap(self, tree: Tree, moves: Sequence[tuple[int, int]], sum: int = 0) -> None:
        """Chunks are at new places from now on, also if the process dies: pairs of both. A single one may have a checksum."""
        with self.lock:
            if self.failed is not None:
                self._check()
            is_first = not self._journal.length
            time = self._recorder.clock.now() if tree.segment is not None else 0
            self._journal.append([(tree.number, chunk, place, time, sum) for chunk, place in moves])
            for chunk, place in moves:
                self._space.settle(place)
                tree.remap(chunk, place, self._space.free, time, sum)
            if (is_first or self.pressed) and not self.stirred.is_set():  # now that there is something to be found
                self.stirred.set()

    def unmap(self, tree: Tree, chunks: Iterable[int]) -> None:
        """Chunks read as zeros from now on, and take no space."""
        with self.lock:
            moves = [(chunk, tree.unmapped()) for chunk in chunks if tree.map.get(chunk)[0] != tree.unmapped()]
            if moves:
                self.remap(tree, moves)

    def read(self, place: int, buffers: Sequence[memoryview], inside: int) -> None:
        """Read from byte `inside` of a place on."""
        self.devices[member_of(place)].preadv(buffers, offset_of(place) + inside)

    def write(self, place: int, buffers: Sequence[memoryview | bytes], inside: int) -> None:
        self.devices[member_of(place)].pwritev(buffers, offset_of(place) + inside)

    def reading(self) -> AbstractContextManager[Transaction]:
        """A view of what the last commit has stored."""
        return self._store.read()

    def check(self, progress: Progress = lambda done, total: None) -> Report:
        """Look whether all metadata of the last commit fits together; the pool may be used meanwhile."""
        with self.lock:
            slabs = self._space.slabs
        with self._store.read() as transaction:
            return check(transaction, slabs, progress)

    def repair(self, report: Report) -> None:
        """Mend what a check of this pool has found, as far as that loses nothing. Durable when this returns."""
        mending = report.mending

        def change(transaction: Transaction) -> None:
            mend_tables(transaction, mending)
            for place, shift in mending.free:
                with suppress(ValueError):  # it has been freed meanwhile
                    self._space.free(place, shift)
            for place, shift in mending.claim:
                with suppress(ValueError):  # it has been taken meanwhile: two have it now, which the next check tells
                    self._space.claim(place, shift)
            self._doomed += [(number, generation) for number, generation in mending.doom if number in self._trees]
            for number, (held, mapped) in mending.counts.items():
                if tree := self._trees.get(number):  # else it has been freed meanwhile
                    tree.held, tree.mapped = tree.held + held, tree.mapped + mapped
                    tree.changed = True

        self.commit(change)

    # ---- commits

    def _check(self) -> None:
        if self.failed is not None:
            raise OSError(
                self.failed.errno, f"The pool has failed to commit: {self.failed.strerror}", str(self.directory)
            )

    @property
    def used(self) -> int:
        """Bytes of data that the pool holds."""
        return self._space.used

    @property
    def dirty(self) -> int:
        """How much a commit would have to store, in map pages and the like."""
        with self.lock:
            return sum(tree.dirty for tree in self._trees.values()) + self._recorder.dirty

    @property
    def pressed(self) -> bool:
        """Whether so much waits for a commit that it should not wait longer."""
        return self._budget.waiting >= _ENOUGH_PAGES or self._journal.length >= _ENOUGH_RECORDS

    @property
    def crowded(self) -> bool:
        """Whether so much waits for a commit that no map may change before there has been one."""
        return self._budget.waiting >= _TOO_MANY_PAGES or self._journal.length >= _TOO_MANY_RECORDS

    def make_way(self) -> None:
        """For who is going to change maps: wait until there is room for that."""
        if self.crowded:
            self.flush()

    def flush(self) -> None:
        """All that was written is on stable storage when this returns.

        One commit serves all who ask while another is under way.
        """
        with self.lock:
            needed = self._sealed + bool(self.dirty)  # the commit that has what is in the maps now
        if self._sequence < needed:
            with self._committing:
                if (
                    self._sealed < needed
                ):  # else somebody has been quicker, and that commit has begun after all was written
                    self._commit()
                    return
        self._check()
        self._members.flush()

    def commit(self, change: Callable[[Transaction], None] | None = None, gates: Gates = tuple) -> None:
        """Make data and maps stable, and with them what `change` does to the pool and the store, under the lock.

        Nobody is inside of the gates that `gates` tells when `change` is made: it is asked when no other commit can change which
        they are. What may fail for lack of space is done first; then, and for an exception of `change`, which must not have
        changed anything, all is as it was. Once a commit has failed in another way, none is tried again and nothing can be
        written until the pool is opened anew: what the page cache has lost nobody can tell.
        """
        with self._committing:
            self._commit(change, gates)

    def reserve(self, changes: int) -> None:
        """Have room for a commit that changes so many entries more than have been written. Raises OSError (ENOSPC)."""
        trees = self._trees.values()
        pages, losts = sum(tree.map.dirty for tree in trees), sum(tree.losts for tree in trees)
        self._store.reserve(pages + self._recorder.dirty + changes, losts)

    def _commit(self, change: Callable[[Transaction], None] | None = None, gates: Gates = tuple) -> None:
        self._check()
        self.reserve(0)
        self._journal.prepare(self._sequence + 2)
        self._make_durable(self._sequence + 1, change, gates)

    def _make_durable(
        self, sequence: int, change: Callable[[Transaction], None] | None = None, gates: Gates = tuple
    ) -> None:
        """Commit number `sequence`, which has all that was written before it began."""
        try:
            with self._store.write() as transaction:
                with ExitStack() as stack:
                    for gate in gates():
                        stack.enter_context(gate.alone())
                    stack.enter_context(self.lock)
                    if change is not None:
                        change(transaction)
                    store, freed = self._seal(sequence)
                self._members.flush()
                store(transaction)
        except OSError as error:
            if self._sealed == sequence or isinstance(error, StoreError):
                self.failed = error
            raise
        with self.lock:
            self._sequence = sequence
            for tree in self._trees.values():
                tree.settle()
            self._recorder.settle()
            self.reclaimer.committed(freed)
        self.reclaimer.reclaim()

    def _seal(self, sequence: int) -> tuple[Callable[[Transaction], None], list[Freed]]:
        """Close the list of what a commit has to store, and begin the next: how to store it, and what is free after it."""
        self._sealed = sequence
        self._journal.begin(sequence + 1)
        trees = [
            (tree.number, *tree.seal(), tree.describe()) for tree in self._trees.values() if tree.dirty or tree.changed
        ]
        slabs, freed = self._space.seal()
        store_segments = self._recorder.seal()
        head = {
            "sequence": sequence,
            "next_tree": self._next_tree,
            "doomed": list(self._doomed),
            "graves": list(self._graves),
            "boot": self._journal.boot,
        }

        def store(transaction: Transaction) -> None:
            for number, pages, lost, description in trees:
                for page, image in pages:
                    transaction.put_page(number, page, image.encode())
                transaction.put_losts(lost)
                transaction.put("trees", number.to_bytes(_ID, "big"), json.dumps(description).encode())
            for slab in slabs:
                transaction.put_slab(slab)
            store_segments(transaction)
            change_head(transaction, lambda found: found.update(head))

        return store, freed

    # ---- end

    def close(self) -> None:
        """Commit, if that can be done, and let go of everything."""
        try:
            if self.failed is None:
                self.commit()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Let go of everything as it is, as the death of the process would."""
        with ExitStack() as stack:  # whatever fails to close, the rest is closed
            stack.callback(os.close, self._own)
            stack.callback(self._members.close)
            stack.callback(self._store.close)
            stack.callback(self._journal.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _take(directory: Path, boot: str | None) -> tuple[int, Store, Journal]:
    """Have a pool's directory for oneself: the lock, the store, the journal."""
    with ExitStack() as stack:
        own = lock_directory(directory)
        stack.callback(os.close, own)
        store = Store(directory)
        stack.callback(store.close)
        journal = Journal(directory, boot)
        stack.pop_all()
        return own, store, journal


def lock_directory(directory: Path) -> int:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise OSError(errno.EBUSY, "Another process has this pool open", str(directory)) from None
    return fd


def read_head(transaction: Transaction) -> dict[str, Any]:
    value = transaction.get("pool", b"head")
    fields: dict[str, Any] = {
        "uuid": "",
        "settings": {},
        "members": [],
        "sequence": 0,
        "next_tree": 1,
        "doomed": [],
        "graves": [],
        "boot": "",
    }
    return fields | (json.loads(value) if value else {})


def change_head(transaction: Transaction, change: Callable[[dict[str, Any]], object]) -> None:
    head = read_head(transaction)
    change(head)
    transaction.put("pool", b"head", json.dumps(head).encode())
