"""An image of RBD as a device.

Who uses it goes straight to the image that the keeper (keeper.py) has open; while there is none, all fails at once, and how it
fails says why: ENOTCONN where the cluster does not answer for now, ESHUTDOWN where another server has the image. Nothing waits
longer than the image's timeout.

The blocking methods are for layers above and for commands that are rare. What a logical unit does all day goes by `overlapped`
(queue.py), where as many accesses are under way at a time as initiators have asked for.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from blockyard.block.actions import Action
from blockyard.block.device import Device, Run, merged
from blockyard.block.layers import Kind, Opening
from blockyard.block.rbd.connection import BLOCKLISTED, SHARED, Image, RbdOptions, address
from blockyard.block.rbd.keeper import Keeper, State
from blockyard.block.rbd.library import call, failure, functions
from blockyard.block.rbd.queue import Queue

GRANULARITY = 64 << 10  # bytes: rbd_discard_granularity_bytes; less is zeroed, and frees what the OSDs can free of it
_DONE_SOON = 2.0  # seconds that closing waits for a cluster that is well

Buffer = memoryview | bytes | bytearray


class RbdDevice(Device):
    """An image or a snapshot. Raises OSError; `opening.directory` is where its size is kept, for when the cluster is away."""

    granularity = GRANULARITY
    compares = True

    def __init__(self, options: RbdOptions, opening: Opening) -> None:
        self.options = options
        self.read_only = opening.read_only or bool(options.spec.snapshot)
        self.stable = options.lock != SHARED
        self.counters = Counters()
        self._changing = threading.Condition()
        self._users = 0  # blocking calls that are inside
        self._image: Image | None = None
        self.overlap = self.overlapped = Overlap(self)
        self._keeper = Keeper(self, opening)
        try:
            self.size = self._keeper.start()
        except BaseException:
            self._keeper.stop(0)
            raise

    # ---- the image that is open, as the keeper has it

    def publish(self, image: Image, size: int) -> None:
        """It can be used from now on."""
        self.overlap.connect(image)
        self.size = size
        self._image = image

    def retire(self, seconds: float) -> bool:
        """It can be used no more. Whether nobody does after so many seconds: then it may be closed."""
        queue = self.overlap.disconnect()
        end = time.monotonic() + seconds
        with self._changing:
            self._image = None
            idle = self._changing.wait_for(lambda: not self._users, seconds)
        while queue is not None and len(queue) and time.monotonic() < end:
            time.sleep(0.01)  # whoever watches `overlapped` reaps
        return idle and not (queue is not None and len(queue))

    @contextmanager
    def _in_use(self) -> Iterator[Image]:
        """The image, which is not closed as long as this lasts."""
        with self._changing:
            image = self._image
            if image is None:
                raise self.absence()
            self._users += 1
        try:
            yield image
        except OSError as error:
            raise self.failed(error.errno or errno.EIO) from error
        finally:
            with self._changing:
                self._users -= 1
                self._changing.notify_all()

    def absence(self) -> OSError:
        """What an access fails with while no image is open."""
        state = self._keeper.state
        number = errno.ESHUTDOWN if state in (State.FENCED, State.WAITING) else errno.ENOTCONN
        return OSError(number, self._keeper.text, str(self.options.spec))

    def failed(self, number: int) -> OSError:
        """What an access fails with for which librbd has returned this errno; the keeper is told where that is its matter."""
        self.counters.errors += 1
        if number == errno.ETIMEDOUT:
            self.counters.timeouts += 1
        elif number not in (BLOCKLISTED, errno.ENOTCONN, errno.EROFS) or (number == errno.EROFS and self.read_only):
            return failure(number, str(self.options.spec))
        self._keeper.look_into(number)
        if number == BLOCKLISTED:
            return OSError(errno.ESHUTDOWN, "Another server has taken the image over", str(self.options.spec))
        return OSError(errno.ENOTCONN, "The cluster does not answer", str(self.options.spec))

    # ---- data

    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        began = time.monotonic()
        with self._in_use() as image:
            for buffer in buffers:
                where, _ = address(buffer)
                if call("rbd_read", image.handle, offset, len(buffer), where) != len(buffer):
                    raise OSError(errno.EIO, "The image ends here")
                offset += len(buffer)
        self.counters.read(sum(map(len, buffers)), began)

    def pwritev(self, buffers: Sequence[Buffer], offset: int) -> None:
        began = time.monotonic()
        self._check_writable()
        with self._in_use() as image:
            for buffer in buffers:
                where, kept = address(buffer)
                call("rbd_write", image.handle, offset, len(buffer), where)
                del kept
                offset += len(buffer)
        self.counters.written(sum(map(len, buffers)), began)

    def flush(self) -> None:
        if not self.read_only:
            with self._in_use() as image:
                call("rbd_flush", image.handle)

    def write_zeroes(self, offset: int, length: int) -> None:
        """Space cannot be reserved in a cluster, so that this frees what it can, as `discard` does."""
        self._check_writable()
        with self._in_use() as image:
            call("rbd_write_zeroes", image.handle, offset, length, 0, 0)

    def write_same(self, block: Buffer, offset: int, length: int) -> None:
        self._check_writable()
        with self._in_use() as image:
            where, kept = address(block)
            call("rbd_writesame", image.handle, offset, length, where, len(block), 0)
            del kept

    def compare_and_write(self, expected: Buffer, data: Buffer, offset: int) -> int | None:
        """One step for everybody in the cluster, of a sector of 512 bytes, or since Quincy of what lies in one object."""
        self._check_writable()
        if offset // self._keeper.stripe == (offset + len(data) - 1) // self._keeper.stripe:
            with self._in_use() as image:
                try:
                    return image.compare_and_write(expected, data, offset)
                except OSError as error:
                    if error.errno != errno.EINVAL:
                        raise
        return super().compare_and_write(expected, data, offset)

    def _check_writable(self) -> None:
        if self.read_only:
            raise OSError(errno.EROFS, "It is opened for reading only", str(self.options.spec))

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        """Which objects, or parts of them, there are."""
        with self._in_use() as image:
            found = image.differences("", offset, length)
        yield from merged(spread(found, offset, length))

    def changes(self, since: str, offset: int, length: int) -> Iterator[Run]:
        """The range in runs: `mapped` are those that may be other than they were in the snapshot `since`."""
        with self._in_use() as image:
            found = [(at, size, True) for at, size, _ in image.differences(since, offset, length)]
        yield from merged(spread(found, offset, length))

    # ---- the rest

    def refresh(self) -> None:
        if self._image is not None:  # else it is looked at when there is one again
            with self._in_use() as image:
                self.size = image.size()

    def report(self) -> dict[str, object]:
        keeper, counters = self._keeper, self.counters
        return {
            "health": "ok" if keeper.well else "failed",
            "text": keeper.text,
            "state": keeper.state.value,
            "lock": keeper.lock,
            "counters": counters.as_dict(),
            "gauges": {"in_flight": len(self.overlap) + self._users, "latency": round(counters.latency, 6)},
        }

    def actions(self) -> Mapping[str, Action]:
        if self.read_only or self.options.lock == SHARED:
            return {}
        return {"take": Action("Take the image over: the server that has it now is fenced off.", self._take)}

    def _take(self, options: object, progress: object) -> str:
        self._keeper.take()
        return f"{self.options.spec} is served here now"

    def close(self) -> None:
        self._keeper.stop(_DONE_SOON if self._keeper.well else 0)


class Counters:
    """What an image has done since it was opened."""

    __slots__ = ("errors", "latency", "read_bytes", "reads", "seconds", "timeouts", "writes", "written_bytes")

    def __init__(self) -> None:
        self.reads = self.read_bytes = self.writes = self.written_bytes = self.errors = self.timeouts = 0
        self.seconds = 0.0  # that all accesses have taken together
        self.latency = 0.0  # seconds that one has taken of late

    def read(self, length: int, began: float) -> None:
        self.reads += 1
        self.read_bytes += length
        self._took(time.monotonic() - began)

    def written(self, length: int, began: float) -> None:
        self.writes += 1
        self.written_bytes += length
        self._took(time.monotonic() - began)

    def _took(self, seconds: float) -> None:
        self.seconds += seconds
        self.latency += (seconds - self.latency) / 16

    def as_dict(self) -> dict[str, object]:
        names = ("reads", "read_bytes", "writes", "written_bytes", "errors", "timeouts")
        return {**{name: getattr(self, name) for name in names}, "seconds": round(self.seconds, 3)}


class Overlap:
    """The accesses of the event loop (device.Overlapped)."""

    def __init__(self, device: RbdDevice) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._device = device
        self._queue: Queue | None = None
        self._leaving: list[Queue] = []  # with accesses that have not ended

    def __len__(self) -> int:
        return sum(map(len, filter(None, (self._queue, *self._leaving))))

    def connect(self, image: Image) -> None:
        self._queue = Queue(image, self.fd)

    def disconnect(self) -> Queue | None:
        queue, self._queue = self._queue, None
        if queue is not None:
            self._leaving.append(queue)
        return queue

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def reap(self) -> None:
        """Call `done` of all that is done."""
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            return
        if self._queue is not None:
            self._queue.reap()
        for queue in self._leaving:
            queue.reap()
        if self._leaving:
            self._leaving = [queue for queue in self._leaving if len(queue)]

    def read(self, offset: int, length: int, done: Callable[[bytearray | OSError], None]) -> None:
        queue, device = self._queue, self._device
        if queue is None:
            done(device.absence())
            return
        buffer, began = bytearray(length), time.monotonic()

        def ended(result: int) -> None:
            if result == length:
                device.counters.read(length, began)
                done(buffer)
            else:
                done(device.failed(-result if result < 0 else errno.EIO))

        queue.read(buffer, offset, ended)

    def write(self, data: Buffer, offset: int, done: Callable[[OSError | None], None]) -> None:
        queue, device = self._queue, self._device
        if queue is None:
            done(device.absence())
            return
        length, began = len(data), time.monotonic()

        def ended(result: int) -> None:
            if result >= 0:
                device.counters.written(length, began)
                done(None)
            else:
                done(device.failed(-result))

        queue.write(data, offset, ended)

    def flush(self, done: Callable[[OSError | None], None]) -> None:
        self._begin(lambda queue, ended: queue.flush(ended), done)

    def write_zeroes(self, offset: int, length: int, done: Callable[[OSError | None], None]) -> None:
        self._begin(lambda queue, ended: queue.write_zeroes(offset, length, ended), done)

    discard = write_zeroes  # which frees whatever can be freed

    def write_same(self, block: bytes, offset: int, length: int, done: Callable[[OSError | None], None]) -> None:
        self._begin(lambda queue, ended: queue.write_same(block, offset, length, ended), done)

    def _begin(
        self, begin: Callable[[Queue, Callable[[int], None]], None], done: Callable[[OSError | None], None]
    ) -> None:
        queue, device = self._queue, self._device
        if queue is None:
            done(device.absence())
        else:
            begin(queue, lambda result: done(device.failed(-result) if result < 0 else None))


def spread(found: Sequence[tuple[int, int, bool]], offset: int, length: int) -> Iterator[Run]:
    """Runs that cover a range, of the pieces in it that are known, in order; what lies between is not mapped."""
    at, end = offset, offset + length
    for start, size, exists in found:
        first, last = max(start, at), min(start + size, end)
        if last <= first:
            continue
        if first > at:
            yield Run(at, first - at, False)
        yield Run(first, last - first, exists)
        at = last
    if at < end:
        yield Run(at, end - at, False)


def _open(children: Sequence[Device], options: RbdOptions, opening: Opening) -> Device:
    functions()  # what is not installed is told before anything else
    return RbdDevice(options, opening)


KINDS = (
    Kind(
        "rbd", "An image of Ceph's RADOS Block Device, or one of its snapshots.", _open, RbdOptions, (0, 0), "image",
        paths=("conf", "keyring"),
        claims=lambda options: [f"rbd:{options.image}"] if options.lock != SHARED else [],
        example="rbd(rbd/vm1, id=blockyard)",
    ),
)  # fmt: skip
