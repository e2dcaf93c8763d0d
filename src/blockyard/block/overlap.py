"""The accesses of the event loop to a disk elsewhere (block/device.py, Overlapped): no thread waits for any of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TYPE_CHECKING, Any

from blockyard.block.bell import Bell
from blockyard.block.keeper import Request

if TYPE_CHECKING:
    from blockyard.block.device import Done
    from blockyard.block.elsewhere import Elsewhere

_THREADS = 4  # for what is more than a request and its answer


class Overlap:
    """Of one device. What ends is told by `reap`, on the loop's thread."""

    def __init__(self, device: Elsewhere) -> None:
        self._device = device
        self._bell = Bell()
        self.fd = self._bell.fd
        self._ended: deque[tuple[Callable[[Any], None], object]] = deque()
        self._held: list[Done] = []  # writes that are done, and wait for a flush: too much is not stable
        self._lock = Lock()
        self._aside = ThreadPoolExecutor(_THREADS, "elsewhere")

    def reap(self) -> None:
        self._bell.heard()
        while self._ended:
            done, outcome = self._ended.popleft()
            done(outcome)

    def _tell(self, done: Callable[[Any], None], outcome: object) -> None:
        self._ended.append((done, outcome))
        self._bell.ring()

    def read(self, offset: int, length: int, done: Callable[[bytearray | OSError], None]) -> None:
        buffer = bytearray(length)
        requests = self._device.reads(memoryview(buffer), offset)
        self._device.keeper.begin(requests, lambda: self._tell(done, _error_of(requests) or buffer))

    def write(self, data: memoryview | bytes | bytearray, offset: int, done: Done) -> None:
        device = self._device
        refusal = device.refusal()
        if refusal is not None:
            done(refusal)
            return
        requests = device.writes([data], offset, len(data))
        noted = False

        def ended() -> None:
            nonlocal noted
            error = _error_of(requests)
            if error is None and device.cached:
                if not noted:
                    noted = True
                    device.unflushed.wrote([data], offset)
                if device.is_lost(requests):
                    device.keeper.begin(requests, ended)
                    return
                if device.unflushed.full:
                    self._hold(done)
                    return
            self._tell(done, error)

        device.keeper.begin(requests, ended)

    def _hold(self, done: Done) -> None:
        """Tell that a write is done when there is room again."""
        with self._lock:
            self._held.append(done)
            first = len(self._held) == 1
        if first:
            self.flush(lambda outcome: None, self._let_go)

    def _let_go(self) -> None:
        with self._lock:
            held, self._held = self._held, []
        for done in held:
            self._tell(done, None)

    def flush(self, done: Done, before: Callable[[], None] = lambda: None) -> None:
        """Also a way to have `before` called, in the thread that receives, as soon as it has ended."""
        device = self._device
        if device.lost_write is not None or device.flush_failed:
            self._run_aside(device.flush, done, before)
            return
        if not device.cached or device.read_only:
            before()
            done(None)
            return
        mark, requests = device.unflushed.mark, [device.flush_request()]

        def ended() -> None:
            error = _error_of(requests)
            device.flush_failed = error is not None
            if error is None:
                device.unflushed.flushed(mark)
            before()
            self._tell(done, error)

        device.keeper.begin(requests, ended)

    def discard(self, offset: int, length: int, done: Done) -> None:
        self._run_aside(lambda: self._device.discard(offset, length), done)

    def write_zeroes(self, offset: int, length: int, done: Done) -> None:
        self._run_aside(lambda: self._device.write_zeroes(offset, length), done)

    def write_same(self, block: bytes, offset: int, length: int, done: Done) -> None:
        self._run_aside(lambda: self._device.write_same(block, offset, length), done)

    def _run_aside(self, work: Callable[[], None], done: Done, before: Callable[[], None] = lambda: None) -> None:
        """In a thread of this device's own: others do not wait for it."""

        def run() -> None:
            error: OSError | None = None
            try:
                work()
            except OSError as failure:
                error = failure
            before()
            self._tell(done, error)

        self._aside.submit(run)

    def close(self) -> None:
        self._aside.shutdown()
        self._bell.close()


def _error_of(requests: Sequence[Request]) -> OSError | None:
    return next((request.error for request in requests if request.error is not None), None)
