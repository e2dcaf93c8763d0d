"""A disk that loses power, looked at sector by sector: what each may hold then, beside a plain model of what was written."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Iterable

from hypothesis.stateful import RuleBasedStateMachine, rule

from blockyard.block.device import Device
from tests.block.disks import SECTOR


class Sectors(RuleBasedStateMachine):
    """Each write has a byte of its own, and each sector in `cells` is followed."""

    size: int  # bytes of the disk

    def follow(self, cells: Iterable[int]) -> None:
        """From here on, with zeros in all of them."""
        self.cells = [cell for cell in cells if cell * SECTOR < self.size]
        self.bytes = itertools.cycle(range(1, 256))
        self.now = dict.fromkeys(self.cells, 0)  # what each byte of a sector is
        self.settled()

    @property
    @abstractmethod
    def disk_now(self) -> Device:
        """The disk as it is open now."""

    def settled(self) -> None:
        """All that was written survives."""
        self.possible = {cell: {byte} for cell, byte in self.now.items()}

    def changed(self, start: int, end: int, byte: int) -> None:
        """Sectors have been written, or zeroed, and may or may not survive."""
        for cell in self.cells:
            if start <= cell < end:
                self.now[cell] = byte
                self.possible[cell].add(byte)

    def check_survivors(self) -> None:
        """After a loss of power: each sector is one that it may be, and is that from now on."""
        for cell in self.cells:
            found = self.read(cell)
            assert found in self.possible[cell], f"sector {cell} is {found}, and may be {self.possible[cell]}"
            self.now[cell] = found

    @rule()
    def reads_as_written(self) -> None:
        for cell in self.cells:
            assert self.read(cell) == self.now[cell], cell

    @rule()
    def what_is_unmapped_is_zero(self) -> None:
        at = 0
        for run in self.disk_now.runs(0, self.size):
            assert run.offset == at
            at += run.length
            assert run.mapped or not any(
                self.now[cell] for cell in self.cells if run.offset <= cell * SECTOR < run.offset + run.length
            )
        assert at == self.size

    def read(self, cell: int) -> int:
        data = bytearray(SECTOR)
        self.disk_now.preadv([memoryview(data)], cell * SECTOR)
        assert data.count(data[0]) == SECTOR, "a sector has bytes of more than one write"
        return data[0]
