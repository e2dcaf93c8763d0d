"""Checking a pool: whether all that its metadata says fits together.

It looks at one transaction of the store, which is all of one commit, so that a pool may be checked while it is used: no lock is
held, and what is written meanwhile is not looked at. Every entry is read once, those that lead to places that belong to
another entry (notes of journals, borrowed places) once more at the end.

What is found is told and, where that loses nothing, mended (pool/repair.py). Nothing is ever guessed about data: if two say
that a place is theirs both keep it, and what cannot be read stays as it is. And while there is anything that cannot be
read, no space is freed: it might be that entry's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from blockyard.pool.livemap import HOLE, PAGE_SHIFT, decode
from blockyard.pool.report import Finding, Report, Severity
from blockyard.pool.segment import Note, notes_in
from blockyard.pool.space import (
    HEADER_SLABS,
    NOWHERE,
    SLAB_SHIFT,
    UNIT_SHIFT,
    Slab,
    Stored,
    full,
    member_of,
    offset_of,
    place_of,
)
from blockyard.pool.store import LOST, THREE, TWO, Lost, Transaction, slab_in

Progress = Callable[[int, int], None]
_STEP = 1000  # entries between two reports of progress
_UNITS_SHIFT = SLAB_SHIFT - UNIT_SHIFT
_TABLES = ("trees", "volumes", "snapshots", "maps", "lost", "deltas", "segments", "notes", "slabs")


@dataclass
class _Tree:
    """A tree as it is stored."""

    shift: int
    generation: int
    snapshots: list[int]
    origin: int
    origin_generation: int
    buried: bool
    moment: int = 0
    checksums: bool = False
    held: int = 0
    mapped: int = 0
    found_held: int = 0  # as counted here
    found_mapped: int = 0


def check(transaction: Transaction, slabs: list[int], progress: Progress = lambda done, total: None) -> Report:
    """Look at all of a pool's metadata. `slabs` says how many slabs each member has. Raises Damaged where nothing can be read."""
    return _Check(transaction, slabs, progress).run()


class _Check:
    def __init__(self, transaction: Transaction, slabs: list[int], progress: Progress) -> None:
        self._transaction = transaction
        self._slabs = slabs
        self._progress = progress
        self._total = sum(transaction.count(table) for table in _TABLES) + transaction.count("notes")
        self._report = Report()
        self._mending = self._report.mending
        self._trees: dict[int, _Tree] = {}
        self._names: dict[int, str] = {}  # tree → what people call it
        self._taken: dict[int, int] = {}  # number of a slab → bits of the chunks that are somebody's
        self._shifts: dict[int, int] = {}  # number of a slab → shift of its chunks, as their owners have it
        self._twice: dict[int, list[str]] = {}  # place → whose it is
        self._unread = 0  # entries that cannot be read and may own something
        self._doomed: set[tuple[int, int]] = set()
        self._remade: set[int] = set()  # numbers of slabs whose entries could not be read

    def run(self) -> Report:
        self._head()
        self._read_trees()
        self._volumes()
        self._snapshots()
        self._maps()
        self._lost()
        self._deltas()
        self._segments()
        self._notes()
        self._space()
        self._borrowed()
        self._name_owners()
        self._counts()
        self._progress(self._total, self._total)
        self._report.entries = self._total
        return self._report

    def _tell(self, severity: Severity, what: str, repair: str = "") -> None:
        self._report.findings.append(Finding(severity, what, repair))

    def _entries(self, table: str) -> Iterator[tuple[bytes, bytes | None]]:
        """The entries of a table; None for a value that is damaged."""
        for number, entry in enumerate(self._transaction.suspects(table)):
            if not number % _STEP:
                self._progress(self._report.entries, self._total)
            self._report.entries += 1
            yield entry

    # ---- what there is

    def _head(self) -> None:
        value = self._transaction.get("pool", b"head")
        if value is None:
            raise self._transaction.damaged("it has no head")
        head = json.loads(value)
        self._next_tree = head["next_tree"]
        self._graves = set(head["graves"])
        self._doomed = {(tree, generation) for tree, generation in head["doomed"]}

    def _read_trees(self) -> None:
        for key, value in self._entries("trees"):
            number = int.from_bytes(key, "big")
            if value is None:
                self._unread += 1
                self._tell(Severity.ERROR, f"tree {number} cannot be read, and none of its data")
                continue
            tree = self._trees[number] = _Tree(
                **{k: v for k, v in json.loads(value).items() if k in _Tree.__annotations__}
            )
            if number >= self._next_tree:
                self._tell(Severity.ERROR, f"tree {number} has a number that has not been given to any")
            if tree.snapshots != sorted(set(tree.snapshots)) or (
                tree.snapshots and tree.snapshots[-1] >= tree.generation
            ):
                self._tell(Severity.ERROR, f"tree {number} has snapshots of impossible generations")
        for number, tree in self._trees.items():
            self._names[number] = f"tree {number}"
            origin = self._trees.get(tree.origin)
            if tree.origin and (tree.origin >= number or origin is None):
                self._tell(Severity.ERROR, f"tree {number} stands on tree {tree.origin}, which is not there")
            elif origin is not None and origin.shift != tree.shift:
                self._tell(
                    Severity.ERROR,
                    f"tree {number} has chunks of another size than its origin, tree {tree.origin}",
                )
            elif origin is not None and tree.origin_generation not in origin.snapshots:
                self._tell(
                    Severity.ERROR, f"tree {number} stands on a snapshot of tree {tree.origin} that is not there"
                )
        for number in self._graves - self._trees.keys():
            self._tell(Severity.WARNING, f"tree {number} is to be cleared, and is not there")

    def _volumes(self) -> None:
        for key, value in self._entries("volumes"):
            name = key.decode(errors="replace")
            if value is None:
                self._tell(Severity.ERROR, f"volume {name} cannot be read")
                continue
            number = json.loads(value)["tree"]
            if number not in self._trees:
                self._tell(Severity.ERROR, f"volume {name} has no tree")
            elif not self._names[number].startswith("tree "):
                self._tell(
                    Severity.ERROR, f"volume {name} has the tree of {self._names[number]}: both would write into it"
                )
            elif number in self._graves:
                self._tell(Severity.ERROR, f"volume {name} has a tree that is being cleared")
            else:
                self._names[number] = f"volume {name}"

    def _snapshots(self) -> None:
        for key, value in self._entries("snapshots"):
            number, generation = TWO.unpack(key)
            tree = self._trees.get(number)
            label = f"of generation {generation} of tree {number}"
            if value is None:
                self._tell(Severity.ERROR, f"the name of the snapshot {label} cannot be read")
                continue
            fields = json.loads(value)
            label = f"{fields['volume']}@{fields['name']}"
            if (number, generation) != (fields["tree"], fields["generation"]):
                self._tell(Severity.ERROR, f"snapshot {label} is not where it says it is")
            elif tree is None or generation not in tree.snapshots:
                self._tell(
                    Severity.ERROR, f"snapshot {label} is none of its tree", "its name is dropped" * (not self._unread)
                )
                if not self._unread:
                    self._mending.delete.append(("snapshots", key))

    # ---- who owns what

    def _own(self, tree: _Tree, place: int, owner: str) -> None:
        """A place is somebody's."""
        tree.found_held += 1
        slab, unit = (place - 1) >> _UNITS_SHIFT, (place - 1) & ((1 << _UNITS_SHIFT) - 1)
        per_chunk = tree.shift - UNIT_SHIFT
        member = member_of(place)
        if (
            member >= len(self._slabs)
            or not HEADER_SLABS <= offset_of(place) >> SLAB_SHIFT < self._slabs[member]
            or unit & ((1 << per_chunk) - 1)
        ):
            self._tell(Severity.ERROR, f"{owner} leads to {place:#x}, which is no place of a chunk in this pool")
            return
        if self._shifts.setdefault(slab, tree.shift) != tree.shift:
            self._tell(Severity.ERROR, f"{owner} leads to {place:#x}, among chunks of another size")
            return
        bit = 1 << (unit >> per_chunk)
        taken = self._taken.get(slab, 0)
        if taken & bit:
            self._twice[place] = []
        self._taken[slab] = taken | bit

    def _is_owned(self, place: int, shift: int) -> bool:
        bit = 1 << (((place - 1) & ((1 << _UNITS_SHIFT) - 1)) >> (shift - UNIT_SHIFT))
        return bool(self._taken.get((place - 1) >> _UNITS_SHIFT, 0) & bit)

    def _maps(self) -> None:
        for key, value in self._entries("maps"):
            number, page = TWO.unpack(key)
            tree = self._trees.get(number)
            if value is None:
                self._unread += 1
                first = page << PAGE_SHIFT
                self._tell(
                    Severity.ERROR, f"{self._name(number)}: the map of chunks {first} to {first + 255} cannot be read"
                )
            elif tree is None:
                self._dangling("maps", key, f"a map page of tree {number}, which is not there")
            else:
                self._map_page(tree, number, page, value)

    def _map_page(self, tree: _Tree, number: int, page: int, value: bytes) -> None:
        found = decode(value, tree.checksums)
        tree.found_mapped += sum(place not in (NOWHERE, HOLE) for place in found.places)
        for index, place in enumerate(found.places):
            if place not in (NOWHERE, HOLE) and found.births[index]:
                self._own(tree, place, f"{self._names[number]}, chunk {(page << PAGE_SHIFT) + index}")
        if max(found.births) > tree.generation:
            self._tell(Severity.ERROR, f"{self._names[number]}, page {page}: chunks that were born in the future")

    def _dangling(self, table: str, key: bytes, what: str) -> None:
        """An entry that nobody can reach."""
        if self._unread:
            self._tell(Severity.ERROR, what)
        else:
            self._tell(Severity.LEAK, what, "it is dropped, and its space freed")
            self._mending.delete.append((table, key))

    def _lost(self) -> None:
        stray: set[tuple[int, int]] = set()
        for key, value in self._entries("lost"):
            number, chunk, last = THREE.unpack(key)
            tree = self._trees.get(number)
            if value is None:
                self._unread += 1
                self._tell(Severity.ERROR, f"{self._name(number)}: the history of chunk {chunk} cannot be read")
                continue
            if tree is None:
                self._dangling("lost", key, f"history of tree {number}, which is not there")
                continue
            lost = Lost(number, chunk, last, *LOST.unpack(value))
            owner = f"{self._names[number]}, chunk {chunk} until generation {last}"
            if lost.place not in (NOWHERE, HOLE) and lost.birth:
                self._own(tree, lost.place, owner)
            first = 0 if tree.moment else 1  # what is borrowed has no birth
            if not first <= lost.birth <= last < tree.generation:
                self._tell(Severity.ERROR, f"{owner}: it was born in generation {lost.birth}, which cannot be")
            elif last not in tree.snapshots and (number, last) not in self._doomed:
                stray.add((number, last))
            if self._transaction.get("deltas", THREE.pack(number, last, chunk)) is None:
                self._tell(Severity.WARNING, f"{owner}: it is missing in the index of deltas", "it is put there")
                self._mending.put.append(("deltas", THREE.pack(number, last, chunk), b""))
        for number, last in sorted(stray):
            what = f"{self._names[number]}: history up to generation {last}, which no snapshot has"
            self._tell(Severity.LEAK, what, "it is worked off as that of a deleted snapshot")
            self._mending.doom.append((number, last))

    def _deltas(self) -> None:
        for key, value in self._entries("deltas"):
            number, last, chunk = THREE.unpack(key)
            there = self._transaction.has("lost", THREE.pack(number, chunk, last))
            if not there:
                self._tell(
                    Severity.WARNING, f"{self._name(number)}: an index of history that is not there", "it is dropped"
                )
                self._mending.delete.append(("deltas", key))
            elif value is None:
                self._tell(Severity.WARNING, f"{self._name(number)}: an index of history is damaged", "it is made anew")
                self._mending.put.append(("deltas", key, b""))

    # ---- journals of continuous data protection

    def _segments(self) -> None:
        self._segment_keys: set[bytes] = set()
        for key, value in self._entries("segments"):
            number, generation = TWO.unpack(key)
            self._segment_keys.add(key)
            if value is None:
                self._tell(
                    Severity.ERROR, f"{self._name(number)}: the head of journal segment {generation} cannot be read"
                )
            elif number not in self._trees:
                self._tell(Severity.ERROR, f"a journal segment of tree {number}, which is not there")

    def _each_note(self) -> Iterator[tuple[int, _Tree, Note]]:
        for key, value in self._entries("notes"):
            number, generation, _ = THREE.unpack(key)
            tree = self._trees.get(number)
            if value is None:
                self._unread += 1
                self._tell(
                    Severity.ERROR, f"{self._name(number)}: notes of journal segment {generation} cannot be read"
                )
            elif tree is None or key[:16] not in self._segment_keys:
                self._dangling("notes", key, f"notes of segment {generation} of tree {number}, which is not there")
            else:
                for note in notes_in(value):
                    yield number, tree, note

    def _notes(self) -> None:
        for number, tree, note in self._each_note():
            if note.owned not in (NOWHERE, HOLE):
                self._own(tree, note.owned, f"the journal of {self._names[number]}, chunk {note.chunk}")

    # ---- space

    def _space(self) -> None:
        stored: dict[int, Stored] = {}
        for key, value in self._entries("slabs"):
            slab = slab_in(key, value or bytes([UNIT_SHIFT]))
            label = f"slab {slab.slab.number} of member {slab.slab.member}"
            if value is None:
                self._remake(slab.slab, key)
                continue
            if (
                slab.slab.member >= len(self._slabs)
                or not HEADER_SLABS <= slab.slab.number < self._slabs[slab.slab.member]
            ):
                self._tell(Severity.ERROR, f"{label} lies outside of the pool", "it is dropped" * (not self._unread))
                if not self._unread:
                    self._mending.delete.append(("slabs", key))
                continue
            stored[_number(slab.slab)] = slab
        for number in sorted((stored.keys() | self._taken.keys()) - self._remade):
            self._compare(number, stored.get(number))

    def _remake(self, slab: Slab, key: bytes) -> None:
        """The entry of a slab cannot be read: what its owners say of it holds, and all of it where not all of them can speak."""
        number = _number(slab)
        self._remade.add(number)
        shift, taken = self._shifts.get(number, UNIT_SHIFT), self._taken.get(number, 0)
        if self._unread:
            taken = full(shift)
        what = f"slab {slab.number} of member {slab.member} cannot be read, and the pool not be opened"
        self._tell(Severity.ERROR, what, "all of it is marked as used" if self._unread else "it is made anew")
        self._mending.delete.append(("slabs", key))
        self._mending.slabs.append(Stored(slab, shift, taken))

    def _compare(self, number: int, stored: Stored | None) -> None:
        """What is stored of a slab, with what its owners say."""
        taken, shift = self._taken.get(number, 0), self._shifts.get(number, 0)
        first = (number << _UNITS_SHIFT) + 1
        slab = Slab(member_of(first), offset_of(first) >> SLAB_SHIFT)
        label = f"slab {slab.number} of member {slab.member}"
        was, was_shift = (stored.bitmap, stored.shift) if stored is not None else (0, 0)
        if taken and was and was_shift != shift:
            self._tell(Severity.ERROR, f"{label} is said to have chunks of another size than are in it")
            return
        missing, leaked, shift = taken & ~was, was & ~taken, shift or was_shift
        unit = shift - UNIT_SHIFT
        if missing:
            what = f"{label}: {missing.bit_count()} chunks in use are not marked so, and might be written over"
            self._tell(Severity.ERROR, what, "they are marked")
            self._mending.claim += [(first + (bit << unit), shift) for bit in _bits(missing)]
        if leaked and self._unread:
            self._tell(
                Severity.LEAK, f"{label}: {leaked.bit_count()} chunks are nobody's, unless of what cannot be read"
            )
            taken |= leaked
        elif leaked:
            self._tell(Severity.LEAK, f"{label}: {leaked.bit_count() << shift} bytes are nobody's", "they are freed")
            self._mending.free += [(first + (bit << unit), shift) for bit in _bits(leaked)]
        if taken != was:
            self._mending.slabs.append(Stored(slab, shift, taken))

    def _borrowed(self) -> None:
        """Those who lead to what is another's: it has to be somebody's."""
        for number, tree, note in self._each_note():
            if note.place not in (NOWHERE, HOLE) and not self._is_owned(note.place, tree.shift):
                self._tell(
                    Severity.ERROR, f"the journal of {self._names[number]}, chunk {note.chunk}: what it led to is gone"
                )
        for number, tree in self._trees.items():
            if tree.moment:
                for key, value in self._transaction.suspects("maps", number.to_bytes(8, "big")):
                    if value is None:
                        continue
                    page, found = TWO.unpack(key)[1], decode(value, tree.checksums)
                    for index, place in enumerate(found.places):
                        if (
                            place not in (NOWHERE, HOLE)
                            and not found.births[index]
                            and not self._is_owned(place, tree.shift)
                        ):
                            chunk = (page << PAGE_SHIFT) + index
                            self._tell(Severity.ERROR, f"{self._names[number]}, chunk {chunk}: what it led to is gone")

    def _name_owners(self) -> None:
        """Of places that are two's, say whose."""
        if not self._twice:
            return
        for key, value in self._transaction.suspects("maps"):
            number, page = TWO.unpack(key)
            tree = self._trees.get(number)
            if value is not None and tree is not None:
                found = decode(value, tree.checksums)
                for index, place in enumerate(found.places):
                    if place in self._twice and found.births[index]:
                        self._twice[place].append(f"{self._names[number]}, chunk {(page << PAGE_SHIFT) + index}")
        for key, value in self._transaction.suspects("lost"):
            number, chunk, last = THREE.unpack(key)
            if value is None:
                continue
            place, birth, _ = LOST.unpack(value)
            if birth and place in self._twice:
                self._twice[place].append(f"{self._name(number)}, chunk {chunk} until generation {last}")
        for place, owners in sorted(self._twice.items()):
            self._tell(
                Severity.ERROR, f"{' and '.join(owners) or 'journals'} have the same place {place:#x}: both keep it"
            )

    def _counts(self) -> None:
        """What trees say that they take, with what they take."""
        for number, tree in self._trees.items() if not self._unread else ():
            held, mapped = tree.found_held - tree.held, tree.found_mapped - tree.mapped
            if held or mapped:
                what = f"{self._names[number]} is said to have {tree.mapped} chunks and {tree.held} places"
                right = f"it has {tree.found_mapped} and {tree.found_held}"
                self._tell(Severity.WARNING, f"{what}: {right}", "it is put right")
                self._mending.counts[number] = held, mapped

    def _name(self, number: int) -> str:
        return self._names.get(number, f"tree {number}")


def _number(slab: Slab) -> int:
    """One number for member and slab."""
    return (place_of(slab.member, slab.number << SLAB_SHIFT) - 1) >> _UNITS_SHIFT


def _bits(bitmap: int) -> Iterator[int]:
    """The numbers of the bits that are set."""
    while bitmap:
        low = bitmap & -bitmap
        yield low.bit_length() - 1
        bitmap ^= low
