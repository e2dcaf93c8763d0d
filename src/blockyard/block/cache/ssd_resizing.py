"""A cache on a persistent device gets larger or smaller while the disk is in use.

The table and the blocks have other places then, so everything is written back first, and what was only read is forgotten:
without an entry in the table either geometry is right, whichever superblock a loss of power leaves. From the moment at which
the table is empty until both superblocks have the new geometry nobody writes: writers wait, readers go to the origin.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from blockyard.block.cache.layout import TABLE_AT, CacheError, slots_of, write_superblock
from blockyard.block.cache.slots import Slots
from blockyard.block.size import format_size

if TYPE_CHECKING:
    from blockyard.block.cache.ssd import SsdCache

LEAST = 16  # blocks of a cache
_STEP = 4096  # of them that are forgotten at a time


def prepare(cache: SsdCache, size: int | None) -> int:
    """Have a device of `size` bytes at least; how many blocks it then has room for. Raises OSError for what cannot be."""
    device = cache.device
    if size is not None and size > device.size:
        try:
            device.truncate(size)
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                raise CacheError(f"The cache device has {format_size(device.size)}, and not more") from error
            raise
    wanted = slots_of(device.size if size is None else size, cache.block)
    if wanted < LEAST:
        raise CacheError(f"That is too small for a cache: it has to have {LEAST} blocks of {format_size(cache.block)}")
    return wanted


def resize(cache: SsdCache, count: int) -> None:
    """Have `count` blocks from now on. Hardly anything is dirty any more."""
    lines = cache.lines
    with ExitStack() as alone:
        alone.enter_context(cache.writers.taken(0, lines))
        alone.enter_context(_no_fills(cache))
        _settle(cache)
        alone.enter_context(cache.write_back.paused())
        alone.enter_context(cache.no_barrier())
        alone.enter_context(cache.publishing)
        _move(cache, count)


@contextmanager
def _no_fills(cache: SsdCache) -> Iterator[None]:
    """What is read from the origin is not put into the cache."""
    with cache.room:
        cache.resizing = True
        while cache.filling:
            cache.room.wait()
    try:
        yield
    finally:
        with cache.room:
            cache.resizing = False


def _settle(cache: SsdCache) -> None:
    """Nothing is dirty, and nothing in the table, stably. Nobody writes."""
    while cache.slots.dirty_count or not cache.slots.is_settled:
        cache.write_back.sweep()
        cache.barrier()


def _forget(slots: Slots) -> None:
    """Nothing is cached any more, and nothing comes. Who reads a block notices that it is another one's place."""
    lines = list(slots.index)
    for at in range(0, len(lines), _STEP):
        with slots.lock:
            slots.forget_clean(lines[at : at + _STEP])


def _move(cache: SsdCache, count: int) -> None:
    device, old = cache.device, cache.slots
    cache.publish_locked()
    device.flush()
    _forget(old)
    wanted = replace(cache.superblock, slots=count, stable=old.sequence)
    slots = Slots(wanted, old.lock)
    slots.sequence = old.sequence
    device.write_zeroes(TABLE_AT, wanted.data_at - TABLE_AT)
    device.flush()
    for _ in range(2):  # so that neither copy has the old geometry when the first entry is written
        wanted = write_superblock(device, wanted)
        device.flush()
    with cache.room:
        cache.superblock, cache.slots = wanted, slots
        cache.set_limit()
        cache.room.notify_all()
