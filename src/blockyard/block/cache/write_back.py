"""What brings dirty blocks to the origin: one thread, in the order of addresses, a few megabytes at a time.

For each batch: its blocks are read from the cache device and checked, written to the origin, the origin is flushed; then their
entries go, and with the next barrier their slots can be used for others. What was written again meanwhile stays dirty.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import time
from collections.abc import Callable, Iterator
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING

from fastcrc.crc32 import iscsi as crc32c

if TYPE_CHECKING:
    from blockyard.block.cache.ssd import SsdCache

log = logging.getLogger(__name__)

_BATCH = 1024  # blocks between two flushes of the origin
_RUN = 256  # blocks that are written at once
_RETRY = 5.0  # seconds after the origin has failed
Entry = tuple[int, int, int]  # line, slot, number
Notify = Callable[[str, str, str], None]


class WriteBack:
    """Writes back what `cache` has. `sweep` may be called by others too: one at a time."""

    def __init__(self, cache: SsdCache, notify: Notify) -> None:
        self._cache = cache
        self._notify = notify
        self._sweeping = Lock()
        self._stopped = Event()
        self.wanted = Event()  # somebody waits for room, or there is much to do
        self._thread: Thread | None = None

    def start(self) -> None:
        self._thread = Thread(target=self._run, name="write-back", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self.wanted.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        cache, dirty_since = self._cache, None
        while not self._stopped.is_set():
            self.wanted.wait(min(1.0, max(0.05, cache.options.delay)))
            self.wanted.clear()
            if cache.slots.many_old:
                self._free_old()
            count, now = cache.slots.dirty_count, time.monotonic()
            dirty_since = (dirty_since or now) if count else None
            if dirty_since is None or (now - dirty_since < cache.options.delay and count < cache.much):
                continue
            dirty_since = None
            try:
                self.sweep()
            except OSError:
                self._stopped.wait(_RETRY)

    def _free_old(self) -> None:
        """Nobody has flushed for long, and what was written over takes room."""
        with contextlib.suppress(OSError):  # whoever flushes will hear of it
            self._cache.barrier()
            self._cache.barrier()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing is written back meanwhile."""
        with self._sweeping:
            yield

    def sweep(self, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Write back what is dirty now. Raises OSError, which those see too who wait for room."""
        with self._sweeping:
            try:
                self._sweep(progress)
            except OSError as error:
                self._failed(error)
                raise
            if self._cache.failure is not None:
                self._cache.failure = None
                self._notify("info", "cache-written-back", "What is in the cache gets to the origin again")

    def _failed(self, error: OSError) -> None:
        cache = self._cache
        first = cache.failure is None
        with cache.room:
            cache.failure = error
            cache.room.notify_all()
        if first:
            self._notify(
                "error", "cache-not-written-back", f"What is in the cache cannot be written to the origin: {error}"
            )
            log.error("writing back fails: %s", error)

    def _sweep(self, progress: Callable[[int, int], None]) -> None:
        cache = self._cache
        total, done = cache.slots.dirty_count, 0
        for batch in self._batches():
            if self._stopped.is_set():
                return
            began = time.monotonic()
            self._write(batch)
            done += len(batch)
            progress(min(done, total) * cache.block, total * cache.block)
            self._pause(len(batch) * cache.block, time.monotonic() - began)

    def _pause(self, written: int, spent: float) -> None:
        """Keep to the rate, unless there is too much to be written."""
        cache = self._cache
        if cache.options.rate and cache.slots.dirty_count < cache.limit // 2:
            self._stopped.wait(max(0.0, written / cache.options.rate - spent))

    def _batches(self) -> Iterator[list[Entry]]:
        slots = self._cache.slots
        with slots.lock:
            regions = slots.regions()
        batch: list[Entry] = []
        for region in regions:
            with slots.lock:
                batch += slots.dirty_lines(region)
            while len(batch) >= _BATCH:
                yield batch[:_BATCH]
                del batch[:_BATCH]
        if batch:
            yield batch

    def _write(self, batch: list[Entry]) -> None:
        cache, slots = self._cache, self._cache.slots
        at = 0
        while at < len(batch):
            end = at + 1
            while end < len(batch) and end - at < _RUN and batch[end][0] == batch[at][0] + end - at:
                end += 1
            self._write_run(batch[at:end])
            at = end
        cache.origin.flush()
        for _ in range(2):  # so that no older entry of these lines can be found any more
            with slots.lock:
                clear = not any(line in slots.older for line, _, _ in batch)
            if clear:
                break
            cache.barrier()
        with slots.lock:
            written = sum([slots.written_back(*entry) for entry in batch])
            cache.written_back += written * cache.block
        cache.publish()
        cache.barrier()

    def _write_run(self, run: list[Entry]) -> None:
        """Write blocks that follow one another to the origin, as far as they are still the newest."""
        cache, slots, size = self._cache, self._cache.slots, self._cache.block
        first, stop = run[0][0], run[-1][0] + 1
        with cache.below.taken(first, stop):
            data = memoryview(bytearray(min(stop * size, cache.size) - first * size))
            for line, slot, _ in run:
                cache.device.preadv([data[(line - first) * size : (line - first + 1) * size]], slots.position(slot))
            with slots.lock:
                newest = [slots.index.get(line) == slot and slots.numbers[slot] == number for line, slot, number in run]
                checksums = [slots.checksum(slot) for _, slot, _ in run]
            start = None
            for at, (line, slot, _) in enumerate(run):
                block = data[at * size : (at + 1) * size]
                if newest[at] and crc32c(block) != checksums[at]:
                    raise OSError(
                        errno.EIO, f"The cache device has damaged block {slot}, of byte {line * size} of the disk"
                    )
                if newest[at] and start is None:
                    start = at
                elif not newest[at] and start is not None:
                    cache.origin.pwritev([data[start * size : at * size]], (first + start) * size)
                    start = None
            if start is not None:
                cache.origin.pwritev([data[start * size :]], (first + start) * size)
