"""What can be done with a cache on a persistent device while it is in use."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from blockyard.block.actions import Action, NoOptions, Progress
from blockyard.block.cache.layout import DETACHED, MARK_SIZE, WANTS_CACHE, write_mark, write_superblock
from blockyard.block.cache.ssd_options import BACK, THROUGH, Resizing, SsdOptions, Switching, Tuning
from blockyard.block.cache.ssd_resizing import prepare, resize
from blockyard.block.size import format_size

if TYPE_CHECKING:
    from blockyard.block.cache.ssd import SsdCache


def ssd_actions(cache: SsdCache) -> Mapping[str, Action]:
    return {
        "flush": Action("Write back what waits for it now", Flush(cache).run, long=True),
        "mode": Action("Switch to write-back, or to write-through once all is written back", Switch(cache).run, Switching,
                       long=True),
        "tune": Action("Change how much may wait to be written back, how fast, and how long", Tune(cache).run, Tuning),
        "resize": Action("Have more or less of the device, after everything is written back", Resize(cache).run, Resizing,
                         long=True),
        "detach": Action("Write everything back, and go on without the cache", Detach(cache).run, long=True),
    }  # fmt: skip


class Flush:
    def __init__(self, cache: SsdCache) -> None:
        self._cache = cache

    def run(self, options: NoOptions, progress: Progress) -> str:
        cache = self._cache
        cache.flush()
        cache.write_back.sweep(progress)
        left = cache.slots.dirty_count * cache.block
        return f"written back; {format_size(left)} came meanwhile" if left else "everything is written back"


class Switch:
    def __init__(self, cache: SsdCache) -> None:
        self._cache = cache

    def run(self, options: Switching, progress: Progress) -> str:
        cache = self._cache
        if options.mode == BACK:
            write_mark(cache.origin, cache.superblock.size, replace(cache.closing_mark(), state=WANTS_CACHE))
            cache.mode = BACK
            return "writes go to the cache from now on"
        write_through(cache, progress)
        return "everything is written back, and writes go through from now on"


class Tune:
    def __init__(self, cache: SsdCache) -> None:
        self._cache = cache

    def run(self, options: Tuning, progress: Progress) -> str:
        cache, now = self._cache, self._cache.options
        given = {name: value for name, value in vars(options).items() if value is not None}
        cache.options = SsdOptions(**{**vars(now), **given})
        with cache.room:
            cache.set_limit()
            cache.room.notify_all()
        new = cache.options
        return f"up to {new.dirty} % may wait for {new.delay:g} s, and are written back at {new.rate}"


class Resize:
    def __init__(self, cache: SsdCache) -> None:
        self._cache = cache

    def run(self, options: Resizing, progress: Progress) -> str:
        """The cache is empty afterwards, and in the same mode as before."""
        cache = self._cache
        wanted = prepare(cache, options.size)
        before, cache.mode = cache.mode, THROUGH
        try:
            cache.write_back.sweep(progress)  # so that little is left to do while writers wait
            resize(cache, wanted)
        finally:
            cache.mode = before
        if options.size is not None:
            with suppress(OSError):  # only files get shorter
                cache.device.truncate(options.size)
        return f"it has {format_size(cache.slots.count * cache.block)} now, and is empty"


class Detach:
    def __init__(self, cache: SsdCache) -> None:
        self._cache = cache

    def run(self, options: NoOptions, progress: Progress) -> str:
        """Everything goes to the origin; then both devices forget each other."""
        cache = self._cache
        write_through(cache, progress)
        cache.write_back.stop()
        cache.go_without()
        cache.superblock = write_superblock(cache.device, replace(cache.superblock, state=DETACHED))
        cache.device.flush()
        remove_mark(cache)
        return "the origin has everything: take the cache out of the configuration before the next start"


def remove_mark(cache: SsdCache) -> None:
    """A file has the size again that it had."""
    cache.origin.write_zeroes(cache.superblock.size, MARK_SIZE)
    cache.origin.flush()
    try:
        cache.origin.truncate(cache.superblock.size)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise


def write_through(cache: SsdCache, progress: Progress) -> None:
    """Switch to write-through; returns when the origin has everything."""
    before, cache.mode = cache.mode, THROUGH
    try:
        while True:
            cache.write_back.sweep(progress)
            cache.flush()
            cache.flush()
            with cache.slots.lock:
                if not cache.slots.dirty_count and cache.slots.is_settled:
                    return
    except BaseException:
        cache.mode = before
        raise
