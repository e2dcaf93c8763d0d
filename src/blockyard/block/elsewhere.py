"""What disks on servers elsewhere have in common: nothing that was acknowledged is lost with the server."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from threading import Lock
from typing import Any

from blockyard.block.device import Device
from blockyard.block.gate import Gate
from blockyard.block.keeper import Connector, Keeper, Request
from blockyard.block.layers import Opening
from blockyard.block.overlap import Overlap
from blockyard.block.unflushed import Change, Unflushed

log = logging.getLogger(__name__)

Buffer = memoryview | bytes | bytearray
Terms = dict[str, Any]  # what a disk is, as JSON has it
_ZEROS = bytes(1 << 20)


class Kept:
    """What is known of a disk from the last time that it was there, in a file."""

    def __init__(self, name: str, directory: Path | None) -> None:
        self._name = name
        number = hashlib.sha256(name.encode()).hexdigest()[:32]
        self._path = directory / f"elsewhere-{number}.json" if directory is not None else None

    def recall(self) -> Terms | None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            kept = json.loads(self._path.read_text(encoding="utf-8")) if self._path is not None else {}
            if kept["name"] == self._name:
                return dict(kept["terms"])
        return None

    def keep(self, terms: Terms) -> None:
        if self._path is None or self.recall() == terms:
            return
        new = self._path.with_suffix(".new")
        try:
            new.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            new.write_text(json.dumps({"name": self._name, "terms": terms}), encoding="utf-8")
            os.replace(new, self._path)
        except OSError as error:
            log.warning("%s: what the disk is cannot be kept: %s", self._name, error)


class Elsewhere(Device):
    """A device whose bytes a server has, behind the connections of `connector`.

    Who derives from it makes requests; what the disk is, its `_terms`, he takes from a connection, or from what is kept in
    `directory` of an earlier one. Then the server need not be there. Without it has to answer within `seconds`. Raises OSError.
    """

    cached = True  # the server may have a cache that it loses: a flush means something
    size = 0
    _latest_size = 0  # what the server said last: larger than `size` after the disk has grown
    stable = False  # who else uses the disk, the server alone knows

    def __init__(
        self, connector: Connector[Any], *, timeout: float, seconds: float, opening: Opening, brief: float = 0.5
    ) -> None:
        self.name = connector.name
        self.unflushed = Unflushed()
        self.flush_failed = False
        self._flushing = Lock()
        self._parts = Lock()
        self._kept = Kept(self.name, opening.directory)
        self._notify = opening.notify
        self._asked_read_only = opening.read_only
        terms = self._kept.recall()
        if terms is not None:
            self._take(terms)
        self.keeper: Keeper[Any, Any] = Keeper(
            connector, self.unflushed, self._meet, size=self.size if terms is not None else 0, timeout=timeout,
            notify=opening.notify,
        )  # fmt: skip
        try:
            self.keeper.wait_connected(brief if terms is not None else seconds)
            self.size = self._latest_size
        except OSError:  # one that was there before is shown, and not ready
            if terms is None:
                self.keeper.close()
                raise
        self._overlap = Overlap(self)
        self.overlapped = self._overlap if self._minimum == 512 else None

    def _meet(self, transport: Any) -> None:
        """A new connection is there. Raises OSError where it leads to what is not the disk."""
        terms = transport.terms()
        self._take(terms)
        self._kept.keep(terms)

    def refresh(self) -> None:
        self.size = self._latest_size

    @abstractmethod
    def _take(self, terms: Terms) -> None:
        """Be the disk that `terms` tell of. Raises OSError where that cannot be, or is not what it was."""

    def report(self) -> dict[str, object]:
        """How it is with the server."""
        failure = self.keeper.failure
        return {
            "health": "ok" if self.keeper.connected else "failed",
            "text": f"{self.name}{f': {failure.strerror or failure}' if failure is not None else ''}",
            "counters": {"connections_lost": self.keeper.generation},
        }

    # ---- requests

    @abstractmethod
    def redo(self, change: Change) -> Request:
        """What makes a change once more."""

    @abstractmethod
    def flush_request(self) -> Request:
        """What has the server flush its cache."""

    @abstractmethod
    def _read(self, views: Sequence[memoryview], offset: int, length: int) -> Request:
        """What reads whole blocks."""

    @abstractmethod
    def _write(self, data: Sequence[Buffer], offset: int, length: int) -> Request:
        """What writes whole blocks."""

    def reads(self, view: memoryview, offset: int) -> list[Request]:
        """What reads whole blocks, as many as one likes."""
        parts = pieces(0, len(view), self._maximum)
        return [self._read([view[at : at + size]], offset + at, size) for at, size in parts]

    def writes(self, buffers: Sequence[Buffer], offset: int, length: int) -> list[Request]:
        """What writes whole blocks, as many as one likes."""
        if length <= self._maximum:
            return [self._write(buffers, offset, length)]
        data = memoryview(b"".join(buffers))
        parts = pieces(0, length, self._maximum)
        return [self._write([data[at : at + size]], offset + at, size) for at, size in parts]

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
            self.keeper.run([self._read(buffers, offset, length)])
        elif len(buffers) == 1 and self._is_whole(offset, length):
            self.keeper.run(self.reads(buffers[0], offset))
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
        self._change(self.writes(buffers, offset, length), lambda: self.unflushed.wrote(buffers, offset))

    def _write_zeros(self, offset: int, length: int) -> None:
        """As data, where there is no other way."""
        for at, size in pieces(offset, length, len(_ZEROS)):
            self.pwritev([memoryview(_ZEROS)[:size]], at)

    def refusal(self) -> OSError | None:
        """Why nothing can be written."""
        return OSError(errno.EROFS, "It is for reading only", self.name) if self.read_only else None

    def _check_writable(self) -> None:
        refusal = self.refusal()
        if refusal is not None:
            raise refusal

    def is_lost(self, requests: Sequence[Request]) -> bool:
        """Whether what has been written was lost with the server, and nobody else writes it once more: it was not noted yet."""
        return any(request.generation != self.keeper.generation for request in requests)

    def _change(self, requests: Sequence[Request], note: Callable[[], None]) -> None:
        """Have something changed, and noted until it is stable."""
        self.keeper.run(requests)
        if self.cached:
            note()
            while self.is_lost(requests):
                self.keeper.run(requests)

    def _make_room(self) -> None:
        """Do not keep more of what is not stable than is sensible."""
        if self.unflushed.full:
            with self._flushing:
                if self.unflushed.full:
                    self._flush()

    def flush(self) -> None:
        self._raise_lost()
        if self.cached and not self.read_only:
            self._flush()
            self._raise_lost()

    @property
    def lost_write(self) -> OSError | None:
        return self.keeper.lost_write

    def _raise_lost(self) -> None:
        """Tell once that something acknowledged could not be written again after the server had been lost."""
        lost, self.keeper.lost_write = self.keeper.lost_write, None
        if lost is not None:
            raise lost

    def _flush(self) -> None:
        mark = self.unflushed.mark
        try:
            if (
                self.flush_failed
            ):  # the server may have dropped what it could not write, and call the next flush a success
                for change in self.unflushed.changes():
                    self.keeper.run([self.redo(change)])
            self.keeper.run([self.flush_request()])
        except OSError:
            self.flush_failed = True
            raise
        self.flush_failed = False
        self.unflushed.flushed(mark)

    def close(self) -> None:
        try:
            if self.keeper.connected:
                self.flush()
            elif self.unflushed.changes():
                text = f"{self.name} is away: the last that was written and not flushed may be lost"
                self._notify("error", "data-lost", text)
        finally:
            self.keeper.close()
            self._overlap.close()


def pieces(offset: int, length: int, step: int) -> Iterator[tuple[int, int]]:
    """A range in parts of at most `step` bytes: where each begins, and its length."""
    for at in range(offset, offset + length, step):
        yield at, min(step, offset + length - at)
