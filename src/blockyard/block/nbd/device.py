"""An export of an NBD server as a block device."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from functools import partial

from blockyard.block.device import Run, merged
from blockyard.block.elsewhere import Elsewhere, Terms, pieces
from blockyard.block.keeper import Connector
from blockyard.block.layers import Opening
from blockyard.block.nbd.handshake import Export
from blockyard.block.nbd.protocol import HOLE, NO_HOLE, ZERO, Command, Flag
from blockyard.block.nbd.stream import Buffer
from blockyard.block.nbd.transfer import Links, Request, request_of
from blockyard.block.unflushed import Change

_PIECE = 64 << 20  # bytes that the server zeroes, frees or looks at in one request: it must not seem to be silent


class NbdDevice(Elsewhere):
    """What is behind `connector`. Several threads ask at once, and on several connections where the server allows it.

    `timeout`: seconds that the server may be silent while it owes an answer. Raises OSError when it cannot be reached
    within `seconds` and nobody knows what the disk is. What it says when it cannot be reached later: see block/keeper.py.
    """

    def __init__(
        self, connector: Connector[Links], opening: Opening, *, timeout: float = 30.0, seconds: float = 5.0
    ) -> None:
        super().__init__(connector, timeout=timeout, seconds=seconds, opening=opening)

    def _take(self, terms: Terms) -> None:
        export = Export(**terms)
        self._flags = Flag(export.flags)
        self._accept(max(export.minimum, 512), export.maximum)
        self._extents = export.allocation is not None
        self._latest_size = export.size // self._minimum * self._minimum
        self.size = self.size or self._latest_size
        if not self.size:
            raise OSError(errno.EINVAL, "The export has no sector", self.name)
        self.read_only = self._asked_read_only or Flag.READ_ONLY in self._flags
        self.cached = Flag.SEND_FLUSH in self._flags
        self.rotational = Flag.ROTATIONAL in self._flags
        self.granularity = max(export.preferred, 512) if self._frees else 0

    @property
    def _frees(self) -> bool:
        """Whether there is a way to free space that leaves zeros for sure."""
        return Flag.SEND_WRITE_ZEROES in self._flags or (Flag.SEND_TRIM in self._flags and self._extents)

    def __repr__(self) -> str:
        return f"NbdDevice({self.name!r}, {self.size} bytes)"

    def redo(self, change: Change) -> Request:
        return request_of(change)

    def flush_request(self) -> Request:
        return Request(Command.FLUSH)

    def _read(self, views: Sequence[memoryview], offset: int, length: int) -> Request:
        return Request(Command.READ, offset, length, views=views)

    def _write(self, data: Sequence[Buffer], offset: int, length: int) -> Request:
        return Request(Command.WRITE, offset, length, data=data)

    # ---- where there is data

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        return merged(self._runs(offset, length)) if self._extents else super().runs(offset, length)

    def _runs(self, offset: int, length: int) -> Iterator[Run]:
        end = offset + length
        while offset < end:
            first, last = self._around(offset, min(end - offset, _PIECE))
            request = Request(Command.BLOCK_STATUS, first, last - first)
            self.keeper.run([request])
            if not request.extents:
                raise OSError(errno.EIO, "The NBD server does not say what is allocated", self.name)
            at = first
            for size, status in request.extents:
                start, at = max(at, offset), at + size
                stop = min(at, end)
                if stop > start:
                    yield Run(start, stop - start, status & (HOLE | ZERO) != HOLE | ZERO)
                    offset = stop

    def prefetch(self, offset: int, length: int) -> None:
        if Flag.SEND_CACHE in self._flags and self._minimum == 512:
            self.keeper.run([Request(Command.CACHE, at, size) for at, size in pieces(offset, length, self._maximum)])

    # ---- writing

    def discard(self, offset: int, length: int) -> None:
        """NBD_CMD_TRIM promises nothing of what is read then, so that it is asked for only where one can look.

        What is a hole already is let be: not every server sees by itself that there is nothing to do.
        """
        self._check_writable()
        if Flag.SEND_WRITE_ZEROES in self._flags or not self._frees:
            for run in self.runs(offset, length):
                if run.mapped:
                    self._zero(run.offset, run.length, free=True)
            return
        first, last = -(-offset // self._minimum) * self._minimum, (offset + length) // self._minimum * self._minimum
        if first < last:
            with self._shared():
                parts = pieces(first, last - first, _PIECE)
                self.keeper.run([Request(Command.TRIM, at, size) for at, size in parts])
            self.flush()  # what was written there before must not come back
        for run in self.runs(offset, length):
            if run.mapped:
                self._zero(run.offset, run.length, free=False)

    def write_zeroes(self, offset: int, length: int) -> None:
        self._check_writable()
        self._zero(offset, length, free=False)

    def _zero(self, offset: int, length: int, *, free: bool) -> None:
        if Flag.SEND_WRITE_ZEROES not in self._flags or (offset | length) & (self._minimum - 1):
            self._write_zeros(offset, length)
            return
        with self._shared():
            flags = 0 if free else NO_HOLE
            for at, size in pieces(offset, length, _PIECE):
                request = Request(Command.WRITE_ZEROES, at, size, flags=flags)
                self._change([request], partial(self.unflushed.zeroed, at, size, free=free))
        self._make_room()
