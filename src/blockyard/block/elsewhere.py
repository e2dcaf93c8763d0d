"""What disks on servers elsewhere have in common: nothing that was acknowledged is lost with the server."""

from __future__ import annotations

import errno
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from threading import Lock
from typing import Any

from blockyard.block.device import Device
from blockyard.block.keeper import Connector, Keeper, Request
from blockyard.block.layers import Notify
from blockyard.block.unflushed import Change, Unflushed


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

    # ---- writing

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
