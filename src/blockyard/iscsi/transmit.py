"""The buffer that a connection's output is built in: headers and payloads of a whole batch, back to back.

One contiguous region leaves in one send. A read command's data is read from the file straight to
its place behind its header, so no payload is copied and there is no list of buffers to gather.
"""

from __future__ import annotations

import mmap

# Bytes: a batch is sent when it has grown so far. With three reads of 256 KiB it just stays in a second-level cache of
# 1 MiB; with four, or with one, 256 KiB reads are a third slower.
SEND_THRESHOLD = 640 << 10
MAX_INLINE_READ = 1 << 20  # bytes: the largest read whose reply is built in one go
# A batch just below the threshold must hold one more reply: data, and a header (with both digests) for every 512 bytes,
# the least that MaxRecvDataSegmentLength can be (RFC 7143 §13.12).
CAPACITY = SEND_THRESHOLD + MAX_INLINE_READ + (MAX_INLINE_READ // 512) * 56 + 4096


class TransmitBuffer:
    """`memory[start:end]` is what has not been sent; both are 0 when there is nothing."""

    __slots__ = ("end", "memory", "start", "view")

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, CAPACITY)
        self.view = memoryview(self.memory)
        self.start = 0
        self.end = 0

    @property
    def full(self) -> bool:
        return self.end >= SEND_THRESHOLD

    @property
    def pending(self) -> memoryview:
        return self.view[self.start : self.end]

    def sent(self, count: int) -> bool:
        """Account for `count` bytes that have left. True when nothing is pending."""
        self.start += count
        if self.start < self.end:
            return False
        self.start = self.end = 0
        return True

    def clear(self) -> None:
        """Forget what is pending."""
        self.start = self.end = 0

    def append(self, data: bytes | bytearray | memoryview) -> None:
        end = self.end + len(data)
        self.view[self.end : end] = data
        self.end = end
