"""A disk that is kept compressed, with checksums: for cold data, where space counts more than time.

It is kept by chunks (64 KiB unless asked otherwise). Each is compressed for itself by zstd, or stored as it is where that
gains nothing; chunks of zeros take no room. What is read is checked: damage is an error (EBADMSG), never other bytes. A write
of a part of a chunk reads the rest of it first and appends the whole anew (log.py), so that small writes at random are slow
and fill the log with what is dead; a thread compacts when that is as much as what is alive.
"""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from threading import Event, Thread

from blockyard.block import codec
from blockyard.block.actions import Action, NoOptions, Progress, unwatched
from blockyard.block.compressed.layout import (
    CHUNKS,
    HOLE,
    PAGE,
    SEGMENT,
    TABLE,
    CompressedError,
    Superblock,
    read_superblock,
    write_superblock,
)
from blockyard.block.compressed.log import Log
from blockyard.block.device import Device, Run, Space, merged
from blockyard.block.layers import Kind, Opening
from blockyard.block.ranges import Ranges
from blockyard.block.size import Size, format_size

_WORTH = 0.75  # of a segment is alive at most for it to be emptied when somebody asks for that
_IDLE = 2  # segments that are dead are not worth a thought
_CHUNK = Size(64 << 10)
Bytes = memoryview | bytes | bytearray
Notify = Callable[[str, str, str], None]


class CompressedDevice(Device):
    """The disk in the log on `below`, which it owns."""

    rotational = False

    def __init__(self, below: Device, superblock: Superblock, *, read_only: bool, notify: Notify) -> None:
        self.below = below
        self.children = (below,)
        self.size = superblock.size
        self.chunk = superblock.chunk
        self.granularity = superblock.chunk
        self.read_only = read_only
        self.log = Log(below, superblock)
        lost = self.log.load()
        if not read_only:
            self.log.forget(lost)
        self._level = superblock.level
        self._notify = notify
        self._writers = Ranges()
        self._wanted, self._stopped = Event(), Event()
        self._thread: Thread | None = None

    def start(self) -> None:
        """Compact when it is time to, in a thread."""
        self._thread = Thread(target=self._run, name="compaction", daemon=True)
        self._thread.start()

    # ---- reading

    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        last: tuple[int, bytes | None] = -1, None  # buffers may end in the midst of a chunk
        for buffer in buffers:
            view, at = memoryview(buffer).cast("B"), 0
            while at < len(view):
                chunk, inside = divmod(offset, self.chunk)
                length = min(self.chunk - inside, len(view) - at)
                if chunk != last[0]:
                    last = chunk, self._chunk(chunk)
                data = last[1]
                view[at : at + length] = bytes(length) if data is None else data[inside : inside + length]
                at += length
                offset += length

    def _length(self, chunk: int) -> int:
        """Bytes of a chunk that there are of the disk."""
        return min(self.chunk, self.size - chunk * self.chunk)

    def _chunk(self, chunk: int) -> bytes | None:
        found = self.log.read(chunk)
        return None if found is None else codec.decompress(found[0].codec, found[1], self._length(chunk))

    # ---- writing

    def pwritev(self, buffers: Sequence[Bytes], offset: int) -> None:
        view = memoryview(buffers[0] if len(buffers) == 1 else b"".join(buffers)).cast("B")
        with self._writing(offset, len(view)):
            at = 0
            while at < len(view):
                chunk, inside = divmod(offset + at, self.chunk)
                part = view[at : at + self.chunk - inside]
                self._write(chunk, inside, part)
                at += len(part)
        self._look_at_dead()

    def _writing(self, offset: int, length: int) -> AbstractContextManager[None]:
        if self.read_only:
            raise OSError(errno.EROFS, "It is open for reading only")
        return self._writers.taken(offset // self.chunk, -(-(offset + length) // self.chunk))

    def _write(self, chunk: int, inside: int, part: memoryview) -> None:
        """A part of a chunk, or all of it. The chunk is one's own."""
        data: Bytes = part
        if len(part) < self._length(chunk):
            data = bytearray(self._chunk(chunk) or bytes(self._length(chunk)))
            data[inside : inside + len(part)] = part
        self._append(chunk, data)

    def _append(self, chunk: int, data: Bytes) -> None:
        if bytes(data[:64]).count(0) == len(data[:64]) and bytes(data).count(0) == len(data):
            self._free(chunk)
            return
        how, payload = codec.compress(data, self._level)
        if len(payload) > len(data) * 15 // 16:  # not worth the time it takes to bring it back
            how, payload = codec.PLAIN, data
        self._with_room(lambda: self.log.append(chunk, how, payload))

    def _free(self, chunk: int) -> None:
        """The chunk is zeros, and takes no room."""
        with self.log.lock:
            mapped = self.log.is_mapped(chunk)
        if mapped:
            self._with_room(lambda: self.log.append(chunk, HOLE, b""))

    def _with_room(self, append: Callable[[], bool]) -> None:
        """Append; where the device below is full, after having compacted."""
        try:
            append()
        except OSError as error:
            if error.errno != errno.ENOSPC or not self.compact(unwatched):
                raise
            append()

    def flush(self) -> None:
        if not self.read_only:
            self.log.flush()

    def discard(self, offset: int, length: int) -> None:
        self.write_zeroes(offset, length)

    def write_zeroes(self, offset: int, length: int) -> None:
        """Space cannot be kept for what may become any size."""
        end = offset + length
        with self._writing(offset, length):
            for chunk in range(offset // self.chunk, -(-end // self.chunk)):
                start = chunk * self.chunk
                first, last = max(offset, start) - start, min(end - start, self._length(chunk))
                if last - first == self._length(chunk):
                    self._free(chunk)
                else:
                    with self.log.lock:
                        mapped = self.log.is_mapped(chunk)
                    if mapped:
                        self._write(chunk, first, memoryview(bytes(last - first)))
        self._look_at_dead()

    # ---- compaction

    @property
    def dead(self) -> int:
        """Bytes of segments in use that hold nothing."""
        return self.log.used - self.log.live_bytes

    def _look_at_dead(self) -> None:
        if self.dead > self.log.live_bytes + _IDLE * SEGMENT and not self._wanted.is_set():
            self._wanted.set()

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()  # before the work: what comes meanwhile, and the end, must not be lost
            if self._stopped.is_set():
                return
            try:
                self.compact(unwatched)
            except OSError as error:
                self._notify("error", "compaction-failed", f"A compressed disk cannot be compacted: {error}")
                self._stopped.wait(60)

    def compact(self, progress: Progress) -> int:
        """Give back segments that are dead for a good part; how many. Raises OSError."""
        emptied, before = 0, self.dead
        while not self._stopped.is_set():
            number = self.log.emptiest(_WORTH)
            if number is None or self.dead < SEGMENT:
                break
            self.log.empty(number)
            emptied += 1
            progress(max(0, before - self.dead), before)
        return emptied

    # ---- what it is

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        yield from merged(self._runs(offset, offset + length))

    def _runs(self, offset: int, end: int) -> Iterator[Run]:
        while offset < end:
            chunk = offset // self.chunk
            stop = min((chunk + 1) * self.chunk, end)
            with self.log.lock:
                mapped = self.log.is_mapped(chunk)
            yield Run(offset, stop - offset, mapped)
            offset = stop

    def space(self) -> Space | None:
        """What is free below, as for data that does not compress; what is in use, dead or alive."""
        below = self.below.space()
        return None if below is None else Space(below.available, below.used)

    def report(self) -> dict[str, object]:
        mapped, live = self.log.mapped * self.chunk, self.log.live_bytes
        ratio = f", {mapped / live:.2f} : 1" if live else ""
        damage: dict[str, object] = {}
        if self.log.damaged:
            damage = {"health": "degraded"}
            ratio += (
                f"; {self.log.damaged} entries of its tables are damaged, and their chunks read as they were before"
            )
        return damage | {
            "text": f"{format_size(mapped)} in {format_size(live)}{ratio}; {format_size(self.dead)} could be compacted",
            "gauges": {
                "mapped_bytes": mapped,
                "stored_bytes": live,
                "dead_bytes": self.dead,
                "segments": len(self.log.segments),
            },
        }

    def actions(self) -> Mapping[str, Action]:
        if self.read_only:
            return {}
        return {
            "compact": Action("Give back the space of what was written over or discarded", self._compact, long=True)
        }

    def _compact(self, options: NoOptions, progress: Progress) -> str:
        before = self.log.used
        self.compact(progress)
        return (
            f"{format_size(before - self.log.used)} are free again"
            if before > self.log.used
            else "there was nothing to free"
        )

    def close(self) -> None:
        self._stopped.set()
        self._wanted.set()
        if self._thread is not None:
            self._thread.join()
        try:
            self.flush()
        finally:
            self.below.close()


@dataclass(frozen=True)
class Compressing:
    """How a compressed disk is made."""

    size: Size  # of the disk; it may be larger than what it is in
    chunk: Size = _CHUNK  # bytes that are compressed as one
    level: int = 3  # of zstd, 1 to 19
    force: bool = False  # whatever is there already

    def __post_init__(self) -> None:
        if self.chunk not in CHUNKS:
            raise ValueError("chunk is a power of two from 16K to 1M")
        if not 1 <= self.level <= 19:
            raise ValueError("level is from 1 to 19")
        if not self.size or self.size % 512:
            raise ValueError("size is a multiple of 512")


def create_compressed(
    children: Sequence[Device], options: Compressing, opening: Opening, progress: Progress = unwatched
) -> str:
    (below,) = children
    _want_zstd()
    data = bytearray(min(1 << 20, below.size))
    below.preadv([memoryview(data)], 0)
    if any(data) and not options.force:
        raise CompressedError("The file holds something: say force=true to write over it")
    if below.size < SEGMENT:
        below.truncate(SEGMENT)
    superblock = Superblock(uuid.UUID(bytes=os.urandom(16), version=4), options.size, options.chunk, options.level)
    below.write_zeroes(0, 2 * PAGE)
    below.flush()  # what was there before is none any more, before it is harmed
    for at in range(SEGMENT, below.size, SEGMENT):
        progress(at, below.size)
        below.write_zeroes(at, min(TABLE, below.size - at))
    below.flush()
    for _ in range(2):
        superblock = write_superblock(below, superblock)
    below.flush()
    return f"a compressed disk of {format_size(options.size)}, in chunks of {format_size(options.chunk)}"


def open_compressed(children: Sequence[Device], options: NoOptions, opening: Opening) -> CompressedDevice:
    (below,) = children
    _want_zstd()
    superblock = read_superblock(below)
    if superblock is None:
        raise CompressedError(f"{below.label} is no compressed disk, or is damaged; `blockyard layer create` makes one")
    read_only = opening.read_only or below.read_only
    device = CompressedDevice(below, superblock, read_only=read_only, notify=opening.notify)
    if device.log.damaged:
        opening.notify("error", "compressed-disk-damaged", f"{below.label}: {device.report()['text']}")
    if not read_only:
        device.start()
    return device


def _want_zstd() -> None:
    if not codec.AVAILABLE:
        raise OSError(
            errno.EOPNOTSUPP, "Compressed disks need the package backports.zstd: pip install 'blockyard[compression]'"
        )


KINDS = (
    Kind(
        "compressed",
        "Data is kept compressed and with checksums, in a file that grows as needed: for what is seldom written.",
        open_compressed,
        create=create_compressed,
        creation=Compressing,
        example="compressed(/srv/archive.bin)",
    ),
)
