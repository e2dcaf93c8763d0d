"""What disks on servers elsewhere have in common: nothing that was acknowledged is lost with the server."""

from __future__ import annotations

import errno
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from threading import Lock
from typing import Any

from blockyard.block.device import Device
from blockyard.block.gate import Gate
from blockyard.block.keeper import Connector, Keeper, Request
from blockyard.block.layers import Notify
from blockyard.block.unflushed import Change, Unflushed

Buffer = memoryview | bytes | bytearray
_ZEROS = bytes(1 << 20)


class Elsewhere(Device):
    """A device whose bytes a server has, behind the connections of `connector`.

    Who derives from it makes requests, and has them run by `_ask`, or by `_change` where they write.
    """

    cached = True  # the server may have a cache that it loses: a flush means something
    stable = False  # who else uses the disk, the server alone knows

    def __init__(self, connector: Connector[Any], *, timeout: float, notify: Notify) -> None:
        self.name = connector.name
        self._unflushed = Unflushed()
        self._flushing = Lock()
        self._parts = Lock()
        self._flush_failed = False
        self._keeper: Keeper[Any, Any] = Keeper(connector, self._unflushed, timeout=timeout, notify=notify)

    def report(self) -> dict[str, object]:
        """How it is with the server."""
        failure = self._keeper.failure
        return {
            "health": "ok" if self._keeper.connected else "failed",
            "text": f"{self.name}{f': {failure.strerror or failure}' if failure is not None else ''}",
            "counters": {"connections_lost": self._keeper.generation},
        }

    @abstractmethod
    def _redo(self, change: Change) -> Request:
        """What makes a change once more."""

    @abstractmethod
    def _flush_request(self) -> Request:
        """What has the server flush its cache."""

    @abstractmethod
    def _read(self, views: Sequence[memoryview], offset: int, length: int) -> Request:
        """What reads whole blocks."""

    @abstractmethod
    def _write(self, data: Sequence[Buffer], offset: int, length: int) -> Request:
        """What writes whole blocks."""

    def _accept(self, minimum: int, maximum: int) -> None:
        """The server's blocks have `minimum` bytes, a power of two and 512 at least; a request moves at most `maximum`."""
        self._minimum, self._maximum = minimum, maximum
        self._gate = Gate() if minimum > 512 else None  # writes of parts of a block go one after the other

    def _around(self, offset: int, length: int) -> tuple[int, int]:
        """The blocks of the server's around a range."""
        return offset // self._minimum * self._minimum, -(-(offset + length) // self._minimum) * self._minimum

    def _is_whole(self, offset: int, length: int) -> bool:
        return not (offset | length) & (self._minimum - 1)

    # ---- reading

    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        length = sum(map(len, buffers))
        if length <= self._maximum and self._is_whole(offset, length):
            self._keeper.run([self._read(buffers, offset, length)])
        elif len(buffers) == 1 and self._is_whole(offset, length):
            parts = pieces(0, length, self._maximum)
            self._keeper.run([self._read([buffers[0][at : at + size]], offset + at, size) for at, size in parts])
        else:
            self._read_around(buffers, offset, length)

    def _read_around(self, buffers: Sequence[memoryview], offset: int, length: int) -> None:
        """The whole blocks around, and of them what is wanted."""
        first, last = self._around(offset, length)
        data = memoryview(bytearray(last - first))
        self.preadv([data], first)
        at = offset - first
        for buffer in buffers:
            buffer[:] = data[at : at + len(buffer)]
            at += len(buffer)

    # ---- writing

    def _shared(self) -> AbstractContextManager[None]:
        return self._gate.shared() if self._gate is not None else nullcontext()

    def pwritev(self, buffers: Sequence[Buffer], offset: int) -> None:
        self._check_writable()
        length = sum(map(len, buffers))
        if self._gate is not None and not self._is_whole(offset, length):
            with self._parts, self._gate.alone():
                first, last = self._around(offset, length)
                data = bytearray(last - first)
                self.preadv([memoryview(data)], first)
                data[offset - first : offset - first + length] = b"".join(buffers)
                self._write_whole([data], first, last - first)
        else:
            with self._shared():
                self._write_whole(buffers, offset, length)
        self._make_room()

    def _write_whole(self, buffers: Sequence[Buffer], offset: int, length: int) -> None:
        if length <= self._maximum:
            requests = [self._write(buffers, offset, length)]
        else:
            data = memoryview(b"".join(buffers))
            parts = pieces(0, length, self._maximum)
            requests = [self._write([data[at : at + size]], offset + at, size) for at, size in parts]
        self._change(requests, lambda: self._unflushed.wrote(buffers, offset))

    def _write_zeros(self, offset: int, length: int) -> None:
        """As data, where there is no other way."""
        for at, size in pieces(offset, length, len(_ZEROS)):
            self.pwritev([memoryview(_ZEROS)[:size]], at)

    def _check_writable(self) -> None:
        if self.read_only:
            raise OSError(errno.EROFS, "It is for reading only", self.name)

    def _change(self, requests: Sequence[Request], note: Callable[[], None]) -> None:
        """Have something changed, and noted until it is stable."""
        self._keeper.run(requests)
        if not self.cached:
            return
        note()
        while any(request.generation != self._keeper.generation for request in requests):
            self._keeper.run(requests)  # the server was lost before it was noted: nobody else writes it once more

    def _make_room(self) -> None:
        """Do not keep more of what is not stable than is sensible."""
        if self._unflushed.full:
            with self._flushing:
                if self._unflushed.full:
                    self._flush()

    def flush(self) -> None:
        self._raise_lost()
        if self.cached and not self.read_only:
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
                    self._keeper.run([self._redo(change)])
            self._keeper.run([self._flush_request()])
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


def pieces(offset: int, length: int, step: int) -> Iterator[tuple[int, int]]:
    """A range in parts of at most `step` bytes: where each begins, and its length."""
    for at in range(offset, offset + length, step):
        yield at, min(step, offset + length - at)
