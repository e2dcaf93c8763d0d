"""The log of a VHDX as a ring: whatever part of it reaches the disk, the pages are as they were flushed, or newer."""

from __future__ import annotations

import uuid

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from blockyard.block.vhdx_layout import PAGE, Header
from blockyard.block.vhdx_log import LogReader, LogWriter
from tests.block.disks import Disk

RING, PAGES = 16 * PAGE, 6


class Ring(RuleBasedStateMachine):
    """A log of 16 sectors, which is full all the time."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = Disk(data=bytes(RING + PAGES * PAGE))
        self.counter = 0
        self.now = [0] * PAGES
        self.possible = [{0} for _ in range(PAGES)]
        self.begin()

    def begin(self) -> None:
        guid = uuid.UUID(int=self.counter + 1)
        self.header = Header(1, guid, guid, guid, 0, 1, RING, 0)
        self.log = LogWriter(self.disk, self.header, guid)
        self.append([0])
        self.flush()

    def append(self, pages: list[int]) -> None:
        self.log.append(
            {self.place(page): self.content(page) for page in pages}, flushed_size=0, size=len(self.disk.seen)
        )

    def place(self, page: int) -> int:
        return RING + page * PAGE

    def content(self, page: int) -> bytes:
        return self.now[page].to_bytes(4, "little") * (PAGE // 4)

    @rule(pages=st.lists(st.integers(0, PAGES - 1), min_size=1, max_size=4, unique=True))
    def change(self, pages: list[int]) -> None:
        if not self.log.has_room(len(pages)):
            self.flush()
            self.flush()
            self.append([0])
            self.flush()
        for page in pages:
            self.counter += 1
            self.now[page] = self.counter
            self.possible[page].add(self.counter)
        self.append(pages)

    @rule()
    def flush(self) -> None:
        logged, applied = self.log.sequence, self.log.applied
        self.disk.flush()
        for position, page in self.log.settle(logged, applied):
            self.disk.pwritev([page], position)
        self.possible = [{number} for number in self.now]

    @rule(count=st.integers(1, 5), seed=st.integers(0, 1 << 32), density=st.sampled_from((0.5, 0.9, 0.98)))
    def the_power_fails_in_a_burst(self, count: int, seed: int, density: float) -> None:
        """After all has come to its place, which the log itself does not say yet."""
        self.flush()
        self.flush()
        for page in range(count):
            self.change([page % PAGES, (page + 1) % PAGES, (page + 2) % PAGES])
        self.the_power_fails(seed, density)

    @rule(seed=st.integers(0, 1 << 32), density=st.sampled_from((0.0, 0.5, 0.9, 1.0)))
    def the_power_fails(self, seed: int, density: float) -> None:
        self.disk.lose_power(seed, density)
        for entry in LogReader(self.disk, self.header, "log").active():
            for change in entry.changes:
                assert change.data is not None
                self.disk.pwritev([change.data], change.position)
        for page in range(PAGES):
            found = bytes(self.disk.seen[self.place(page) :][:PAGE])
            self.now[page] = int.from_bytes(found[:4], "little")
            assert found == self.content(page), "a page has parts of two"
            assert self.now[page] in self.possible[page]
        self.disk.flush()
        self.counter += 1
        self.begin()


Ring.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
TestRing = Ring.TestCase
