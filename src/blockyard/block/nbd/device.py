"""An export of an NBD server as a block device."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from threading import Lock

from blockyard.block.device import Device, Run, merged
from blockyard.block.gate import Gate
from blockyard.block.layers import Notify
from blockyard.block.nbd.keeper import Connector, Keeper, request_of
from blockyard.block.nbd.protocol import HOLE, NO_HOLE, ZERO, Command, Flag
from blockyard.block.nbd.transfer import Request
from blockyard.block.unflushed import Unflushed

_ZEROS = bytes(1 << 20)
_PIECE = 64 << 20  # bytes that the server zeroes, frees or looks at in one request: it must not seem to be silent


def _quiet(severity: str, what: str, text: str) -> None:
    """Nobody wants to know."""


class NbdDevice(Device):
    """What is behind `connector`. Several threads ask at once, and on several connections where the server allows it.

    `timeout`: seconds that the server may be silent while it owes an answer. Raises OSError when it cannot be reached
    within `opening` seconds. What it says when it cannot be reached later: see keeper.py.
    """

    def __init__(
        self,
        connector: Connector,
        *,
        read_only: bool = False,
        timeout: float = 30.0,
        opening: float = 5.0,
        notify: Notify = _quiet,
    ) -> None:
        self.name = connector.name
        self._unflushed = Unflushed()
        self._flushing = Lock()
        self._flush_failed = False
        self._keeper = Keeper(connector, self._unflushed, timeout=timeout, notify=notify)
        try:
            export = self._keeper.wait_connected(opening)
            if not read_only and Flag.READ_ONLY in export.flags:
                read_only = True
            self._flags, self._minimum, self._maximum = export.flags, export.minimum, export.maximum
            self._extents = export.allocation is not None
            self.size = export.size // max(512, export.minimum) * max(512, export.minimum)
            if not self.size:
                raise OSError(errno.EINVAL, "The export has no sector", self.name)
        except BaseException:
            self._keeper.close()
            raise
        self.read_only = read_only
        self.rotational = Flag.ROTATIONAL in export.flags
        self.granularity = max(export.preferred, 512) if self._frees else 0
        self.stable = False  # who else has it open, the server alone knows
        self._gate = Gate() if self._minimum > 512 else None  # writes of parts of a block go one after the other

    @property
    def _frees(self) -> bool:
        """Whether there is a way to free space that leaves zeros for sure."""
        return Flag.SEND_WRITE_ZEROES in self._flags or (Flag.SEND_TRIM in self._flags and self._extents)

    def __repr__(self) -> str:
        return f"NbdDevice({self.name!r}, {self.size} bytes)"

    def report(self) -> dict[str, object]:
        """How it is with the server."""
        keeper = self._keeper
        failure = keeper.failure
        return {
            "health": "ok" if keeper.connected else "failed",
            "text": f"{self.name}{f': {failure.strerror or failure}' if failure is not None else ''}",
            "counters": {"connections_lost": keeper.generation},
        }

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
            self._keeper.run([Request(Command.CACHE, at, size) for at, size in _pieces(offset, length, self._maximum)])

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
            pieces = _pieces(0, length, self._maximum)
            requests = [Request(Command.WRITE, offset + at, size, data=[data[at : at + size]]) for at, size in pieces]
        self._change(requests, lambda: self._unflushed.wrote(buffers, offset))

    def _change(self, requests: Sequence[Request], note: Callable[[], None]) -> None:
        """Have something changed, and noted until it is stable."""
        self._keeper.run(requests)
        if Flag.SEND_FLUSH not in self._flags:
            return
        note()
        while any(request.generation != self._keeper.generation for request in requests):
            self._keeper.run(requests)  # the server was lost before it was noted: nobody else writes it once more

    def _check_writable(self) -> None:
        if self.read_only:
            raise OSError(errno.EROFS, "The export is for reading only", self.name)

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
                pieces = _pieces(first, last - first, _PIECE)
                self._keeper.run([Request(Command.TRIM, at, size) for at, size in pieces])
            self.flush()  # what was written there before must not come back
        for run in self.runs(offset, length):
            if run.mapped:
                self._zero(run.offset, run.length, free=False)

    def write_zeroes(self, offset: int, length: int) -> None:
        self._check_writable()
        self._zero(offset, length, free=False)

    def _zero(self, offset: int, length: int, *, free: bool) -> None:
        if Flag.SEND_WRITE_ZEROES not in self._flags or (offset | length) & (self._minimum - 1):
            for at, size in _pieces(offset, length, len(_ZEROS)):
                self.pwritev([memoryview(_ZEROS)[:size]], at)
            return
        with self._shared():
            flags = 0 if free else NO_HOLE
            for at, size in _pieces(offset, length, _PIECE):
                request = Request(Command.WRITE_ZEROES, at, size, flags=flags)
                self._change([request], partial(self._unflushed.zeroed, at, size, free=free))
        self._make_room()

    def _make_room(self) -> None:
        """Do not keep more of what is not stable than is sensible."""
        if self._unflushed.full:
            with self._flushing:
                if self._unflushed.full:
                    self._flush()

    def flush(self) -> None:
        self._raise_lost()
        if Flag.SEND_FLUSH in self._flags and not self.read_only:
            self._flush()
            self._raise_lost()

    def _raise_lost(self) -> None:
        """Tell once that something acknowledged could not be written again after the server had been lost."""
        lost, self._keeper.lost_write = self._keeper.lost_write, None
        if lost is not None:
            raise lost

    def _flush(self) -> None:
        mark = self._unflushed.mark
        try:
            if (
                self._flush_failed
            ):  # the server may have dropped what it could not write, and call the next flush a success
                for change in self._unflushed.changes():
                    self._keeper.run([request_of(change)])
            self._keeper.run([Request(Command.FLUSH)])
        except OSError:
            self._flush_failed = True
            raise
        self._flush_failed = False
        self._unflushed.flushed(mark)

    def close(self) -> None:
        try:
            if self._keeper.connected:
                self.flush()
        finally:
            self._keeper.close()


def _pieces(offset: int, length: int, step: int) -> Iterator[tuple[int, int]]:
    for at in range(offset, offset + length, step):
        yield at, min(step, offset + length - at)
