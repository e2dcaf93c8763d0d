"""Caches on persistent devices: made, and opened with the origin that they belong to.

Cache and origin name each other, and count how often they were opened together: first the cache says the new number, then the
origin's mark. So a cache that was left out for a while, or put back from a copy, is known to be behind; so is such an origin.
Neither is ever used: one has lost writes.
"""

from __future__ import annotations

import errno
import uuid
from collections.abc import Sequence
from dataclasses import replace

from fastcrc.crc32 import iscsi as crc32c

from blockyard.block.actions import Progress, unwatched
from blockyard.block.cache.layout import (
    CLEAN_ENTRY,
    CLOSED,
    DETACHED,
    DIRTY_ENTRY,
    ENTRY,
    IN_USE,
    MARK_SIZE,
    PAGE,
    TABLE_AT,
    WANTS_CACHE,
    WHOLE,
    CacheError,
    Mark,
    Superblock,
    disk_size,
    read_mark,
    read_superblock,
    slots_of,
    unpack_entry,
    write_mark,
    write_superblock,
)
from blockyard.block.cache.slots import Slots
from blockyard.block.cache.ssd import SsdCache
from blockyard.block.cache.ssd_options import BACK, SsdCreation, SsdOptions
from blockyard.block.cache.ssd_resizing import LEAST
from blockyard.block.device import Device
from blockyard.block.layers import Absent, Kind, Opening
from blockyard.block.size import format_size

_LOOK = 1 << 20  # bytes of a device that have to be zeros for it to be empty
_STEP = 16 << 20  # bytes of a table that are emptied at a time
_READ = 256  # pages of a table that are read at a time


def create_cache(
    children: Sequence[Device], options: SsdCreation, opening: Opening, progress: Progress = unwatched
) -> str:
    """Make the second device the cache of the first. What is on the first stays."""
    origin, device = children
    slots = slots_of(device.size, options.block)
    if slots < LEAST:
        raise CacheError(f"The cache device is too small: it has {format_size(device.size)}")
    if not options.force:
        _want_empty(device, read_superblock(device))
        if read_mark(origin, disk_size(origin.size)) is not None:
            raise CacheError(
                "The origin has a cache already: detach that, or say force=true to forget what is only in it"
            )
    before = origin.size
    size = _place_for_mark(origin, options)
    try:
        if size < options.block:
            raise CacheError(f"The origin is too small: it has {before} bytes, and {MARK_SIZE} more are for the mark")
        superblock = Superblock(uuid.uuid4(), uuid.uuid4(), options.block, slots, size)
        _empty(device, superblock.data_at, progress)
    except BaseException:
        if origin.size > before:
            origin.truncate(before)
        raise
    for _ in range(2):
        superblock = write_superblock(device, superblock)
    device.flush()
    write_mark(origin, size, Mark(superblock.origin, superblock.cache))
    return f"a cache of {format_size(slots * options.block)} in blocks of {options.block} bytes for {format_size(size)}"


def _empty(device: Device, length: int, progress: Progress) -> None:
    """No superblock first, then no table: of a large cache that is gigabytes."""
    for at in range(0, length, _STEP):
        progress(at, length)
        device.discard(at, min(_STEP, length - at))
        if not at:
            device.flush()
    progress(length, length)
    device.flush()


def _want_empty(device: Device, superblock: Superblock | None) -> None:
    if superblock is not None and superblock.state != DETACHED:
        raise CacheError("The device is a cache already: say force=true to forget what is in it")
    data = bytearray(min(_LOOK, device.size))
    device.preadv([memoryview(data)], 0)
    if superblock is None and any(data):
        raise CacheError("The cache device holds something: say force=true to write over it")


def _place_for_mark(origin: Device, options: SsdCreation) -> int:
    """Where the mark goes: behind the data of a file, which becomes larger; on other devices where there are zeros."""
    size = disk_size(origin.size)
    if options.force and read_mark(origin, size) is not None:
        return size
    try:
        whole = origin.size
        origin.truncate(whole + MARK_SIZE)
        return whole & -512
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
    if size < options.block:  # there is no place
        return size
    data = bytearray(MARK_SIZE)
    origin.preadv([memoryview(data)], size)
    if any(data) and not options.force:
        raise CacheError(f"The last {format_size(MARK_SIZE)} of the origin hold data, and the cache needs a mark there: make the "
                         "origin larger first")  # fmt: skip
    return size


def open_cache(children: Sequence[Device], options: SsdOptions, opening: Opening) -> SsdCache:
    cache = assemble(children, options, opening)
    if not cache.read_only:
        cache.write_back.start()
    return cache


def assemble(children: Sequence[Device], options: SsdOptions, opening: Opening) -> SsdCache:
    """The cache, with nobody yet who writes back. Raises OSError for what does not belong together."""
    origin, device = children
    if isinstance(device, Absent):
        raise OSError(errno.ENODEV, f"The cache {device.label} is not there: {_what_it_means(origin)}")
    if isinstance(origin, Absent):
        raise OSError(errno.ENODEV, f"The origin {origin.label} is not there: {origin.error.strerror or origin.error}")
    read_only = opening.read_only or origin.read_only or device.read_only
    superblock = read_superblock(device)
    if superblock is None:
        raise CacheError(f"The device {device.label} is no cache, or is damaged; `blockyard layer create` makes one")
    mark = _checked(superblock, read_mark(origin, superblock.size), origin, device)
    slots = Slots(superblock)
    _load(device, superblock, slots)
    cache = SsdCache(origin, device, superblock, slots, options, opening.notify, read_only=read_only)
    if not read_only:
        _begin(cache, mark.generation + 1)
    return cache


def _what_it_means(origin: Device) -> str:
    mark = None if isinstance(origin, Absent) else read_mark(origin, disk_size(origin.size))
    if mark is None or mark.state == WHOLE:
        return "everything that was written is on the origin, which can be used without it"
    return "what was written last is only there, and the origin alone is not what it should be"


def _checked(superblock: Superblock, mark: Mark | None, origin: Device, device: Device) -> Mark:
    """The mark, if the two belong together and neither has missed anything."""
    if superblock.state == DETACHED:
        raise CacheError(f"The cache {device.label} has been detached: take it out of the stack")
    if superblock.data_at + superblock.slots * superblock.block > device.size:
        raise CacheError(f"The cache {device.label} was cut short: it has {device.size} bytes")
    if origin.size < superblock.size + MARK_SIZE:
        raise CacheError(
            f"The origin {origin.label} was cut short, or is another one: the cache is for {superblock.size} bytes"
        )
    if mark is None or mark.origin != superblock.origin:
        raise CacheError(f"The cache {device.label} belongs to another origin than {origin.label}")
    if mark.cache != superblock.cache:
        raise CacheError(f"The origin {origin.label} has another cache than {device.label} by now")
    if mark.generation > superblock.generation:
        raise CacheError(f"The cache {device.label} is stale: it was used {superblock.generation} times, the origin "
                         f"{mark.generation} times with it; look for the newer one")  # fmt: skip
    if mark.generation + 1 < superblock.generation:
        raise CacheError(f"The origin {origin.label} is stale: it was used {mark.generation} times, its cache "
                         f"{superblock.generation} times; look for the newer one")  # fmt: skip
    return mark


def _load(device: Device, superblock: Superblock, slots: Slots) -> None:
    """The map, of the table: all of it after it was closed, what was written and is sound after a crash."""
    dirty: dict[int, list[tuple[int, int, int]]] = {}  # line → number, slot, checksum
    clean: list[tuple[int, int, int]] = []
    highest = superblock.stable
    _read_table(device, slots)
    lines = -(-superblock.size // superblock.block)
    for slot in range(slots.count):
        entry = unpack_entry(bytes(slots.table[slot * ENTRY.size : (slot + 1) * ENTRY.size]), slots.seed)
        if entry is None or entry[0] >= lines:
            continue
        line, number, checksum, flags = entry
        highest = max(highest, number)
        if flags == DIRTY_ENTRY:
            dirty.setdefault(line, []).append((number, slot, checksum))
        elif flags == CLEAN_ENTRY and superblock.state == CLOSED:
            clean.append((line, slot, number))
    for line, found in dirty.items():
        for number, slot, checksum in sorted(found, reverse=True):
            if number <= superblock.stable or _block_checksum(device, superblock, slots, line, slot) == checksum:
                slots.restore(line, slot, number, dirty=True)
                break
    for line, slot, number in clean:
        if line not in slots.index:
            slots.restore(line, slot, number, dirty=False)
    slots.restored(highest)


def _read_table(device: Device, slots: Slots) -> None:
    table = memoryview(slots.table)
    for at in range(0, len(table), _READ * PAGE):
        device.preadv([table[at : at + _READ * PAGE]], TABLE_AT + at)
    table.release()


def _block_checksum(device: Device, superblock: Superblock, slots: Slots, line: int, slot: int) -> int:
    data = bytearray(min(superblock.block, superblock.size - line * superblock.block))
    device.preadv([memoryview(data)], slots.position(slot))
    checksum: int = crc32c(data)
    return checksum


def _begin(cache: SsdCache, generation: int) -> None:
    """Say on both that they are in use from now on, and have no entry in the table that must not be there."""
    cache.publish()
    cache.device.flush()
    cache.superblock = write_superblock(cache.device, replace(
        cache.superblock, generation=generation, state=IN_USE, stable=cache.slots.sequence,
    ))  # fmt: skip
    cache.device.flush()
    mark = cache.closing_mark()
    if cache.options.mode == BACK:
        mark = replace(mark, state=WANTS_CACHE)
    write_mark(cache.origin, cache.superblock.size, mark)


KINDS = (
    Kind(
        "ssd-cache",
        "A fast device holds what is used often of a slow one, and what was written until it gets there.",
        open_cache,
        SsdOptions,
        children=(2, 2),
        absent=True,
        create=create_cache,
        creation=SsdCreation,
        example="ssd-cache(mode=back, /srv/slow.img, /dev/nvme0n1)",
    ),
)
