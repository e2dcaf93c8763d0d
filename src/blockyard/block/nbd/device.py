"""An export of an NBD server as a block device."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from blockyard.block.device import Run, merged
from blockyard.block.elsewhere import Elsewhere, pieces
from blockyard.block.gate import Gate
from blockyard.block.keeper import Connector
from blockyard.block.layers import Notify, unheard
from blockyard.block.nbd.handshake import Export
from blockyard.block.nbd.protocol import HOLE, NO_HOLE, ZERO, Command, Flag
from blockyard.block.nbd.transfer import Links, Request, request_of
from blockyard.block.unflushed import Change

_ZEROS = bytes(1 << 20)
_PIECE = 64 << 20  # bytes that the server zeroes, frees or looks at in one request: it must not seem to be silent


class NbdDevice(Elsewhere):
    """What is behind `connector`. Several threads ask at once, and on several connections where the server allows it.

    `timeout`: seconds that the server may be silent while it owes an answer. Raises OSError when it cannot be reached
    within `opening` seconds. What it says when it cannot be reached later: see keeper.py.
    """

    def __init__(
        self,
        connector: Connector[Links],
        *,
        read_only: bool = False,
        timeout: float = 30.0,
        opening: float = 5.0,
        notify: Notify = unheard,
    ) -> None:
        super().__init__(connector, timeout=timeout, notify=notify)
        try:
            export: Export = self._keeper.wait_connected(opening).export
            self._flags, self._minimum, self._maximum = export.flags, export.minimum, export.maximum
            self._extents = export.allocation is not None
            self.size = export.size // max(512, export.minimum) * max(512, export.minimum)
            if not self.size:
                raise OSError(errno.EINVAL, "The export has no sector", self.name)
        except BaseException:
            self._keeper.close()
            raise
        self.read_only = read_only or Flag.READ_ONLY in export.flags
        self.cached = Flag.SEND_FLUSH in export.flags
        self.rotational = Flag.ROTATIONAL in export.flags
        self.granularity = max(export.preferred, 512) if self._frees else 0
        self._gate = Gate() if self._minimum > 512 else None  # writes of parts of a block go one after the other

    @property
    def _frees(self) -> bool:
        """Whether there is a way to free space that leaves zeros for sure."""
        return Flag.SEND_WRITE_ZEROES in self._flags or (Flag.SEND_TRIM in self._flags and self._extents)

    def __repr__(self) -> str:
        return f"NbdDevice({self.name!r}, {self.size} bytes)"

    def _redo(self, change: Change) -> Request:
        return request_of(change)

    def _flush_request(self) -> Request:
        return Request(Command.FLUSH)

    # ---- reading

    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        length = sum(map(len, buffers))
        if self._minimum > 512 and (offset | length) & (self._minimum - 1):
            self._read_parts(buffers, offset, length)
        elif length <= self._maximum:
            self._keeper.run([Request(Command.READ, offset, length, views=buffers)])
        else:
            requests = []
            for buffer in buffers:
                for at in range(0, len(buffer), self._maximum):
                    piece = buffer[at : at + self._maximum]
                    requests.append(Request(Command.READ, offset + at, len(piece), views=[piece]))
                offset += len(buffer)
            self._keeper.run(requests)

    def _read_parts(self, buffers: Sequence[memoryview], offset: int, length: int) -> None:
        """What is not in whole blocks of the server's: the blocks, and of them what is wanted."""
        first, last = self._around(offset, length)
        data = memoryview(bytearray(last - first))
        self.preadv([data], first)
        at = offset - first
        for buffer in buffers:
            buffer[:] = data[at : at + len(buffer)]
            at += len(buffer)

    def _around(self, offset: int, length: int) -> tuple[int, int]:
        """The blocks of the server's around a range."""
        return offset // self._minimum * self._minimum, -(-(offset + length) // self._minimum) * self._minimum

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        return merged(self._runs(offset, length)) if self._extents else super().runs(offset, length)

    def _runs(self, offset: int, length: int) -> Iterator[Run]:
        end = offset + length
        while offset < end:
            first, last = self._around(offset, min(end - offset, _PIECE))
            request = Request(Command.BLOCK_STATUS, first, last - first)
            self._keeper.run([request])
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
        if Flag.SEND_CACHE in self._flags and not self._minimum > 512:
            self._keeper.run([Request(Command.CACHE, at, size) for at, size in pieces(offset, length, self._maximum)])

    # ---- writing

    def _shared(self) -> AbstractContextManager[None]:
        return self._gate.shared() if self._gate is not None else nullcontext()

    def pwritev(self, buffers: Sequence[memoryview | bytes | bytearray], offset: int) -> None:
        self._check_writable()
        length = sum(map(len, buffers))
        if self._gate is not None and (offset | length) & (self._minimum - 1):
            with self._flushing, self._gate.alone():
                first, last = self._around(offset, length)
                data = bytearray(last - first)
                self.preadv([memoryview(data)], first)
                data[offset - first : offset - first + length] = b"".join(buffers)
                self._write([data], first, last - first)
        else:
            with self._shared():
                self._write(buffers, offset, length)
        self._make_room()

    def _write(self, buffers: Sequence[memoryview | bytes | bytearray], offset: int, length: int) -> None:
        if length <= self._maximum:
            requests = [Request(Command.WRITE, offset, length, data=buffers)]
        else:
            data = memoryview(b"".join(buffers))
            parts = pieces(0, length, self._maximum)
            requests = [Request(Command.WRITE, offset + at, size, data=[data[at : at + size]]) for at, size in parts]
        self._change(requests, lambda: self._unflushed.wrote(buffers, offset))

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
                self._keeper.run([Request(Command.TRIM, at, size) for at, size in parts])
            self.flush()  # what was written there before must not come back
        for run in self.runs(offset, length):
            if run.mapped:
                self._zero(run.offset, run.length, free=False)

    def write_zeroes(self, offset: int, length: int) -> None:
        self._check_writable()
        self._zero(offset, length, free=False)

    def _zero(self, offset: int, length: int, *, free: bool) -> None:
        if Flag.SEND_WRITE_ZEROES not in self._flags or (offset | length) & (self._minimum - 1):
            for at, size in pieces(offset, length, len(_ZEROS)):
                self.pwritev([memoryview(_ZEROS)[:size]], at)
            return
        with self._shared():
            flags = 0 if free else NO_HOLE
            for at, size in pieces(offset, length, _PIECE):
                request = Request(Command.WRITE_ZEROES, at, size, flags=flags)
                self._change([request], partial(self._unflushed.zeroed, at, size, free=free))
        self._make_room()
