"""Images for stacks of layers: each in a file that loses what was not flushed when the power goes, torn at sectors."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from blockyard.block.device import Device
from blockyard.block.parents import Wanted
from blockyard.block.vhd import open_vhd
from blockyard.block.vhd_creation import write_vhd
from blockyard.block.vhdx import open_vhdx
from blockyard.block.vhdx_creation import write_vhdx
from tests.block.disks import Disk

KINDS = tuple((format, kind) for format in ("vhd", "vhdx") for kind in ("fixed", "dynamic", "differencing"))
_BLOCK = {"vhd": 16 << 10, "vhdx": 1 << 20}  # bytes; the least that the formats have, and many of VHD


class File(Disk):
    """The file of an image; whoever wants to is told before it changes."""

    before_write: Callable[[], None] = staticmethod(lambda: None)
    before_flush: Callable[[], None] = staticmethod(lambda: None)

    def pwritev(self, buffers: Sequence[memoryview | bytes | bytearray], offset: int) -> None:
        self.before_write()
        super().pwritev(buffers, offset)

    def truncate(self, size: int) -> None:
        self.before_write()
        super().truncate(size)

    def flush(self) -> None:
        self.before_flush()
        super().flush()


class Image:
    """An image of `size` bytes; a differencing one on a parent that has noise in every other block of 4 KiB."""

    def __init__(self, chance: random.Random, size: int) -> None:
        self.format, self.kind = chance.choice(KINDS)
        self.file = File()
        self._parent: File | None = None
        parent = self._make_parent(chance, size) if self.kind == "differencing" else None
        self._write(self.file, size, self.kind, parent)
        self.file.flush()

    def _make_parent(self, chance: random.Random, size: int) -> Device:
        file = File()
        self._write(file, size, "dynamic", None)
        device = self._open(file)
        for at in range(0, min(size, 64 << 10), 8 << 10):
            device.pwritev([bytes([chance.randrange(1, 256)]) * 4096], at)
        device.close()
        file.read_only, self._parent = True, file
        return self._open(file)

    def _write(self, file: File, size: int, kind: str, parent: Device | None) -> None:
        if self.format == "vhd":
            write_vhd(file, "image", size, kind, block_size=_BLOCK["vhd"], parent=parent)
        else:
            write_vhdx(file, "image", size, kind, block_size=_BLOCK["vhdx"], sector_size=0, parent=parent)

    def _open(self, file: File) -> Device:
        return (open_vhd if self.format == "vhd" else open_vhdx)(file, "image", self._parent_of)

    def _parent_of(self, wanted: Wanted) -> Device:
        assert self._parent is not None
        device = self._open(self._parent)
        refusal = wanted.refusal(device)
        assert refusal is None, refusal
        return device

    def open(self, *, read_only: bool) -> Device:
        """As a server would, that has been started anew."""
        self.file.read_only = read_only
        return self._open(self.file)

    def lose_power(self, chance: random.Random) -> None:
        """Some of what was not flushed is there, some is not; whoever wrote is not there any more."""
        self.file.before_write = self.file.before_flush = lambda: None
        self.file.lose_power(chance.randrange(1 << 32), chance.choice((0.0, 0.2, 0.5, 0.8, 1.0)))
