"""A pool: volumes and snapshots by name, on an engine that keeps trees (pool/engine.py)."""

from __future__ import annotations

import errno
import json
import logging
import threading
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from uuid import uuid4

from blockyard.block.device import Space as DeviceSpace
from blockyard.block.file import FileDevice
from blockyard.pool import catalog, datafile
from blockyard.pool.catalog import Snapshot, Volume
from blockyard.pool.cdp import Cdp
from blockyard.pool.clock import Clock
from blockyard.pool.engine import Engine, change_head
from blockyard.pool.members import Members, Opener
from blockyard.pool.space import PoolFull, Space
from blockyard.pool.store import Lost, Store, Transaction
from blockyard.pool.tree import Tree, forget
from blockyard.pool.usage import Threshold, Usage, VolumeUsage, trees_of

log = logging.getLogger(__name__)

_STEP = 1024  # entries of deleted snapshots that one commit works off
_STEP_SNAPSHOTS = 64
_ATTEMPTS = 1000  # of a write while others take what becomes free,
_ATTEMPTS_BENEATH = 3  # and while a file system beneath is full
_STEP_PAGES = 16  # of the map of a deleted volume, likewise
_ID = 8  # bytes of a number in a key


class Pool(Engine):
    """An open pool. `open_member` opens what is a member, by its path.

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
        super().__init__(directory, open_member, boot=boot, clock=clock)
        self.cdp = Cdp(self, self._recorder)
        try:
            with self._store.read() as transaction:
                found = catalog.load(transaction)
                self.cdp.load(transaction)
        except BaseException:
            self.abandon()
            raise
        self._volumes, self._snapshots = found.volumes, found.snapshots
        self._recount()
        self._making_room = threading.Lock()

    # ---- trees and volumes

    def create_volume(self, name: str, size: int, shift: int, *, checksums: bool = False) -> None:
        """A new, empty volume of `size` bytes, in chunks of 1 << `shift`. Durable when this returns. Raises FileExistsError.

        With `checksums` each chunk has one, which is verified when it is read, and none is ever written where it is.
        """

        def change(transaction: Transaction) -> None:
            self.check_new(name)
            self.bind(
                transaction, name, Volume(self.plant(shift, None, 0, checksums=checksums).number, size, str(uuid4()))
            )

        self.commit(change)

    def clone(self, source: str, snapshot: str, name: str) -> None:
        """A new volume that begins as a snapshot of another. Raises KeyError where there is none, FileExistsError."""

        def change(transaction: Transaction) -> None:
            taken = self._snapshots[source][snapshot]
            self.check_new(name)
            self.bind(transaction, name, Volume(self._plant_on(taken), taken.size, str(uuid4())))

        self.commit(change)

    def roll_back(self, name: str, snapshot: str) -> None:
        """Make a volume what it was at a snapshot; its snapshots stay, later ones too. Nobody may be using it."""

        def change(transaction: Transaction) -> None:
            taken = self._snapshots[name][snapshot]
            volume = replace(self._volumes[name], tree=self._plant_on(taken), size=taken.size)
            self.replace_tree(transaction, name, volume)

        self.commit(change)

    def delete_volume(self, name: str) -> None:
        """Delete a volume. It is gone when this returns; its space comes back by `work_off`. Nobody may be using it.

        Raises KeyError where there is none, OSError (EBUSY) while it has snapshots.
        """

        def change(transaction: Transaction) -> None:
            volume = self._volumes[name]
            if self._snapshots.get(name):
                raise OSError(errno.EBUSY, "It has snapshots", name)
            del self._volumes[name]
            self._recount()
            self._graves.append(volume.tree)
            self.cdp.forget(transaction, name, self._trees[volume.tree])
            transaction.delete("volumes", name.encode())

        self.commit(change)

    def resize(self, name: str, size: int) -> None:
        """Give a volume another size. What lies beyond a smaller one is discarded by whoever calls this."""

        def change(transaction: Transaction) -> None:
            volume = self._volumes[name]
            self.bind(transaction, name, replace(volume, size=size))
            self.cdp.cut(self._trees[volume.tree], size)

        self.commit(change)

    # ---- space

    def look_beneath(self) -> None:
        """Find out how much of what is free the file systems beneath have no room for."""
        try:
            lacking = self._members.lacking()
        except OSError as error:
            log.warning("%s: the space beneath cannot be told: %s", self.directory, error)
            return
        with self.lock:
            self.ledger.lacking = min(lacking, self._space.size - self._space.used)

    @property
    def usage(self) -> Usage:
        """Of the pool as a whole."""
        self.look_beneath()
        with self.lock:
            space = self._space
            provisioned = sum(volume.size for volume in self._volumes.values())
            reserved, metadata = self.ledger.reserved, self._store.size
            return Usage(
                space.size, space.used, space.waiting, metadata, self.ledger.lacking, reserved, provisioned
            )  # fmt: skip

    def usage_of(self, name: str) -> VolumeUsage:
        """Of a volume. Raises KeyError."""
        with self.lock:
            volume = self._volumes[name]
            tree = self._trees[volume.tree]
            trees = trees_of(volume, self._snapshots.get(name, {}), self._trees)
            used = sum(each.held << each.shift for each in trees)
            return VolumeUsage(volume.size, tree.mapped << tree.shift, used, volume.quota, volume.reservation)

    def space_of(self, tree: Tree) -> DeviceSpace:
        """What a tree has, and what it can still take."""
        with self.lock:
            return DeviceSpace(self.ledger.available(tree), tree.held << tree.shift)

    def set_thresholds(self, soft: str | None = None, hard: str | None = None) -> None:
        """Other thresholds, where they are not None, as `Threshold.read` takes them. Durable. Raises ValueError."""
        settings = self.ledger.settings | {
            name: str(Threshold.read(text)) for name, text in (("soft", soft), ("hard", hard)) if text is not None
        }

        def change(transaction: Transaction) -> None:
            change_head(transaction, lambda head: head.update(settings=settings))
            self.ledger.load(settings)

        self.commit(change)

    def set_options(self, name: str, **options: int) -> None:
        """Another quota, reservation or zero_detection of a volume. Durable when this returns.

        Raises KeyError, ValueError for a quota that is less than the reservation, OSError (ENOSPC) when there is no space to
        reserve.
        """

        def change(transaction: Transaction) -> None:
            old = self._volumes[name]
            new = replace(old, **options)  # type: ignore[arg-type]
            if 0 < new.quota < new.reservation:
                raise ValueError("a quota that is less than the reservation makes no sense")
            self._volumes[name] = new
            self._recount()
            if new.reservation > old.reservation and not self.ledger.can_keep():
                self._volumes[name] = old
                self._recount()
                raise PoolFull(errno.ENOSPC, "There is not so much space that could be reserved", name)
            self.bind(transaction, name, new)

        self.commit(change)

    def _recount(self) -> None:
        self.ledger.update(self._volumes, self._snapshots, self._trees)

    def volume(self, name: str) -> Volume:
        """Raises KeyError where there is none."""
        return self._volumes[name]

    def tree(self, number: int) -> Tree:
        return self._trees[number]

    @property
    def trees(self) -> list[Tree]:
        return list(self._trees.values())

    @property
    def volumes(self) -> list[str]:
        return sorted(self._volumes)

    def check_new(self, name: str) -> None:
        if name in self._volumes:
            raise FileExistsError(errno.EEXIST, "There is a volume of this name", name)

    def plant(self, shift: int, origin: Tree | None, generation: int, *, checksums: bool = False) -> Tree:
        """A new tree, empty or on a snapshot."""
        tree = Tree(
            self._next_tree, self._store, self._budget, shift, origin=origin, origin_generation=generation,
            checksums=checksums if origin is None else origin.checksums,
        )  # fmt: skip
        self._next_tree += 1
        self._trees[tree.number] = tree
        return tree

    def replace_tree(self, transaction: Transaction, name: str, volume: Volume) -> None:
        """A volume is this from now on, with another tree; the one that it had is nobody's any more."""
        old = self._trees[self._volumes[name].tree]
        self._graves.append(old.number)
        self.bind(transaction, name, volume)
        self.cdp.move(name, old, self._trees[volume.tree], volume.size)

    def _plant_on(self, snapshot: Snapshot) -> int:
        origin = self._trees[snapshot.tree]
        return self.plant(origin.shift, origin, snapshot.generation).number

    def bind(self, transaction: Transaction, name: str, volume: Volume) -> None:
        """A volume is this from now on."""
        self._volumes[name] = volume
        self._recount()
        transaction.put("volumes", name.encode(), json.dumps(volume.__dict__).encode())

    # ---- snapshots

    def snapshot(self, names: Sequence[str], snapshot: str, time: float) -> None:
        """Take a snapshot of several volumes at one moment. Durable when this returns. Raises KeyError, FileExistsError.

        Who writes to them waits for that moment, and not for the disk.
        """
        names = list(dict.fromkeys(names))

        def change(transaction: Transaction) -> None:
            for name in names:
                if snapshot in self._snapshots.get(name, {}):
                    raise FileExistsError(errno.EEXIST, "There is a snapshot of this name", f"{name}@{snapshot}")
            for name in names:
                volume = self._volumes[name]
                tree = self._trees[volume.tree]
                taken = Snapshot(snapshot, tree.number, tree.take_snapshot(), volume.size, time)
                self._snapshots.setdefault(name, {})[snapshot] = taken
                self.cdp.turn(tree)
                fields = {"volume": name, **taken.__dict__}
                transaction.put("snapshots", _snapshot_key(taken), json.dumps(fields).encode())

        self.commit(change, lambda: [self._trees[self._volumes[name].tree].gate for name in names])

    def snapshots(self, name: str) -> list[Snapshot]:
        """The snapshots of a volume, the oldest first."""
        return sorted(self._snapshots.get(name, {}).values(), key=lambda found: (found.time, found.generation))

    def find_snapshot(self, name: str, snapshot: str) -> Snapshot:
        """Raises KeyError where there is none."""
        return self._snapshots.get(name, {})[snapshot]

    def delete_snapshot(self, name: str, snapshot: str) -> None:
        """Delete a snapshot: see `delete_snapshots`."""
        self.delete_snapshots(name, [snapshot])

    def delete_snapshots(self, name: str, snapshots: Sequence[str]) -> None:
        """Delete snapshots of a volume. They are gone when this returns; their space comes back by `work_off`.

        What clones have of them stays for as long as they do. Raises KeyError where there is none; then all stay.
        """

        def change(transaction: Transaction) -> None:
            found = [self._snapshots[name][snapshot] for snapshot in dict.fromkeys(snapshots)]
            for each in found:
                del self._snapshots[name][each.name]
                transaction.delete("snapshots", _snapshot_key(each))
            self._recount()
            self._doom_unless_needed([(self._trees[each.tree], each.generation) for each in found])

        self.commit(change)

    def work_off(self) -> bool:
        """Free some of what deleted snapshots and volumes held, and move on the windows of journals.

        Whether there is more to be done now. While a volume has a journal this is to be called at least once a second.
        """
        if self._to_clear():
            self.commit(self._free_some)
        more = self.cdp.work_off()
        return more or self._to_clear()

    def _to_clear(self) -> bool:
        """Whether deleted snapshots and volumes have left something to be freed."""
        with self.lock:
            return bool(self._doomed) or any(map(self._can_be_cleared, self._graves))

    def _free_some(self, transaction: Transaction) -> None:
        """What there is to be freed by now: others do so as well, and may have been quicker."""
        if self._doomed:
            self._work_off_snapshots(transaction)
        elif grave := next(filter(self._can_be_cleared, self._graves), None):
            self._clear(transaction, self._trees[grave])

    def doom_unless_needed(self, tree: Tree, generation: int) -> None:
        """A snapshot of a tree may be nobody's any more: no name's, no clone's, no journal's."""
        self._doom_unless_needed([(tree, generation)])

    def _doom_unless_needed(self, snapshots: Sequence[tuple[Tree, int]]) -> None:
        needed = {(each.tree, each.generation) for named in self._snapshots.values() for each in named.values()}
        needed |= {
            (each.origin.number, each.origin_generation) for each in self._trees.values() if each.origin is not None
        }
        for tree, generation in snapshots:
            if (
                generation in tree.snapshots
                and (tree.number, generation) not in needed
                and not self._recorder.needs(tree, generation)
            ):
                tree.delete_snapshot(generation)
                self._doomed.append((tree.number, generation))

    def named_snapshots(self, tree: int) -> list[Snapshot]:
        """The snapshots of a tree that have names."""
        return [each for named in self._snapshots.values() for each in named.values() if each.tree == tree]

    def make_room(self, tree: Tree, error: OSError, attempt: int) -> bool:
        """A write to `tree` has failed with `error`: free what nobody needs any more; whether to try it again.

        `attempt` says how often it has failed before: a file system beneath that is full stays so if all that is freed is what
        the write itself had taken.

        It waits for commits and for operations that are under way: not for those who are inside.
        """
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return False
        is_full = isinstance(error, PoolFull)  # else a member's file system is
        if attempt >= (_ATTEMPTS if is_full else _ATTEMPTS_BENEATH):
            return False
        with self._making_room:
            while not (is_full and self.admits(tree)):  # it does when somebody has been quicker
                released = self._space.released
                if error.errno == errno.ENOSPC and self._space.waiting:
                    self.commit()
                    self.reclaimer.drain()
                    if self._space.released == released:  # what waits may be as much as before: others free, too
                        return False
                    if not is_full:
                        break
                elif self._to_clear():
                    self.work_off()
                else:
                    return False
            return True

    def _work_off_snapshots(self, transaction: Transaction) -> None:
        """Of as many snapshots as come to a step together."""
        rest, over = _STEP, 0
        deltas: list[
            tuple[Tree, int, list[Lost]]
        ] = []  # all of them first: what cannot be read shows before anything changes
        for number, generation in self._doomed[:_STEP_SNAPSHOTS]:
            entries = transaction.delta(number, generation, rest)
            deltas.append((self._trees[number], generation, entries))
            rest -= len(entries)
            if not rest:  # there may be more of this one
                break
            over += 1
        for tree, generation, entries in deltas:
            forget(transaction, tree, generation, entries, self._space.free)
        del self._doomed[:over]

    def _can_be_cleared(self, number: int) -> bool:
        """Whether a tree that is no volume's has anything left that nobody can see."""
        tree = self._trees[number]
        return not tree.buried or not (tree.snapshots or any(other.origin is tree for other in self._trees.values()))

    def _clear(self, transaction: Transaction, tree: Tree) -> None:
        """Free some of a tree's live map, or when all of that is done and nothing stands on it any more, all of the tree."""
        if tree.buried:
            self._graves.remove(tree.number)
            del self._trees[tree.number]
            transaction.delete("trees", tree.number.to_bytes(_ID, "big"))
            if tree.origin is not None:
                self.doom_unless_needed(tree.origin, tree.origin_generation)
        elif not tree.bury(
            [number for number, _ in islice(transaction.pages(tree.number), _STEP_PAGES)], self._space.free
        ):
            tree.buried = tree.changed = True


def create(directory: Path, members: Sequence[str], open_member: Opener = FileDevice) -> None:
    """Make an empty pool in an existing, empty directory. What the members held is lost. Raises OSError."""
    if (directory / datafile.NAME).exists():
        raise FileExistsError(errno.EEXIST, "There is a pool already", str(directory))
    uuid = uuid4()
    made = Members(directory, open_member, Space())
    made.begin(uuid)
    try:
        for path in members:
            made.add(path)
    finally:
        made.close()
    store = Store(directory, create=True)
    with store.write() as transaction:
        change_head(transaction, lambda head: head.update(uuid=str(uuid), members=made.records))
    store.close()


def _snapshot_key(snapshot: Snapshot) -> bytes:
    return snapshot.tree.to_bytes(_ID, "big") + snapshot.generation.to_bytes(_ID, "big")
