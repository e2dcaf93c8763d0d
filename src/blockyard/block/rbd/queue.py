"""Accesses to an image that go on beside each other, for the event loop: begun by a call, ended when `reap` finds them done.

librbd writes to an eventfd when something is done, and hands out by `rbd_poll_io_events` what that is: no thread of its comes
into the interpreter. What is under way stands in a table by the address of librbd's completion.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from ctypes import byref, c_void_p
from typing import Any

from blockyard.block.rbd.connection import Image, address
from blockyard.block.rbd.library import EVENTFD, call, functions, held

_BATCH = 64  # completions that are fetched at a time

Ended = Callable[[int], None]  # gets what librbd has returned: a negative errno for what has failed


class Queue:
    """What is under way with one image. For one thread, but `__len__`."""

    def __init__(self, image: Image, eventfd: int) -> None:
        call("rbd_set_image_notification", image.handle, eventfd, EVENTFD, what=str(image.spec))
        self._image = image.handle
        self._completion = c_void_p()
        self._reference = byref(self._completion)
        self._found = (c_void_p * _BATCH)()
        self._under_way: dict[int, tuple[Ended, Any]] = {}
        self._create = held().rbd_aio_create_completion
        self._result = held().rbd_aio_get_return_value
        self._release = held().rbd_aio_release
        self._poll = functions().rbd_poll_io_events
        self._read, self._write = functions().rbd_aio_read, functions().rbd_aio_write

    def __len__(self) -> int:
        return len(self._under_way)

    def read(self, buffer: bytearray, offset: int, ended: Ended) -> None:
        where, kept = address(buffer)
        self._begin(ended, kept)
        self._started(self._read(self._image, offset, len(buffer), where, self._completion))

    def write(self, data: memoryview | bytes | bytearray, offset: int, ended: Ended) -> None:
        where, kept = address(data)
        self._begin(ended, kept)
        self._started(self._write(self._image, offset, len(data), where, self._completion))

    def flush(self, ended: Ended) -> None:
        self._begin(ended, None)
        self._started(functions().rbd_aio_flush(self._image, self._completion))

    def write_zeroes(self, offset: int, length: int, ended: Ended) -> None:
        self._begin(ended, None)
        self._started(functions().rbd_aio_write_zeroes(self._image, offset, length, self._completion, 0, 0))

    def write_same(self, block: bytes, offset: int, length: int, ended: Ended) -> None:
        where, kept = address(block)
        self._begin(ended, kept)
        self._started(
            functions().rbd_aio_writesame(self._image, offset, length, where, len(block), self._completion, 0)
        )

    def _begin(self, ended: Ended, kept: object) -> None:
        self._create(None, None, self._reference)
        self._under_way[self._completion.value or 0] = ended, kept

    def _started(self, result: int) -> None:
        """What was refused at once ends like all else: by way of the loop."""
        if result < 0:
            self._release(self._completion)
            ended, _ = self._under_way.pop(self._completion.value or 0)
            ended(result)

    def reap(self) -> None:
        """Tell those whose accesses are done."""
        found, result, release = self._found, self._result, self._release
        while self._under_way:
            count = self._poll(self._image, found, _BATCH)
            for at in range(count):
                completion = found[at] or 0
                outcome = result(completion)
                ended, _ = self._under_way.pop(completion)
                release(completion)  # from now on another one may have its address
                ended(outcome)
            if count < _BATCH:
                return

    def drain(self, seconds: float) -> bool:
        """Wait until nothing is under way; in the end False when something still is."""
        end = time.monotonic() + seconds
        while self._under_way and time.monotonic() < end:
            self.reap()
            time.sleep(0.001)
        return not self._under_way
