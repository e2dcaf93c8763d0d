"""SCSI commands to a logical unit elsewhere, and what their ends mean to the layers above."""

from __future__ import annotations

import errno
import time
from collections.abc import Sequence

from blockyard.block import keeper
from blockyard.initiator.exchange import Response
from blockyard.initiator.lun import transfer_cdb
from blockyard.initiator.sense import Sense, decode_sense
from blockyard.scsi.sense import SenseKey
from blockyard.scsi.task import Status

Buffer = memoryview | bytes | bytearray
_REPEATS = 8  # times that a command is sent anew because of unit attentions
_FULL_PAUSE = 0.02  # seconds before a command is sent anew that the target had no room for
CAPACITY_CHANGED = (0x2A, 0x09)
_DAMAGED = ((0x0C, 0x0D), (0x47, 0x05))  # data that did not arrive whole (RFC 7143 §11.4.7.2)

# what sense data means: sense key, additional sense code and qualifier (or None for all) to an errno
_MEANINGS: tuple[tuple[int, int | None, int | None, int], ...] = (
    (SenseKey.NOT_READY, None, None, errno.ENOTCONN),
    (SenseKey.DATA_PROTECT, 0x27, 0x07, errno.ENOSPC),
    (SenseKey.DATA_PROTECT, None, None, errno.EROFS),
    (SenseKey.ILLEGAL_REQUEST, 0x20, 0x00, errno.EOPNOTSUPP),  # INVALID COMMAND OPERATION CODE
    (SenseKey.ILLEGAL_REQUEST, 0x24, 0x00, errno.EOPNOTSUPP),  # INVALID FIELD IN CDB: it does not know that form
)


class Command(keeper.Request):
    """A command, and where its data is and goes to."""

    def __init__(
        self, cdb: bytes, *, data: Sequence[Buffer] = (), views: Sequence[memoryview] = (), length: int = 0
    ) -> None:
        self.cdb = cdb
        self.data = data[0] if len(data) == 1 else b"".join(data)
        self.views = views  # of what is read, if it is not wanted as `answer`
        self.length = length  # bytes that can be read
        super().__init__()

    def begin(self) -> None:
        super().begin()
        self.answer = b""
        self.attempts = 0
        self.sent = time.monotonic()

    def take(self, response: Response) -> float | None:
        """How it has ended: None, or after how many seconds to send it anew."""
        if response.status == Status.GOOD:
            self._good(response)
            return None
        if response.status in (Status.BUSY, Status.TASK_SET_FULL):
            return _FULL_PAUSE
        sense = decode_sense(response.sense)
        passes = sense is not None and (
            sense.key == SenseKey.UNIT_ATTENTION
            or (sense.key == SenseKey.ABORTED_COMMAND and (sense.asc, sense.ascq) in _DAMAGED)
        )
        if passes and self.attempts < _REPEATS:
            self.attempts += 1
            return 0.0
        self.error = failure(response.status, sense)
        return None

    def _good(self, response: Response) -> None:
        if not self.views:
            self.answer = response.data
        elif len(response.data) != self.length:
            self.error = OSError(errno.EIO, f"The target has read {len(response.data)} bytes of {self.length}")
        else:
            data, at = memoryview(response.data), 0
            for view in self.views:
                view[:] = data[at : at + len(view)]
                at += len(view)


def failure(status: int, sense: Sense | None) -> OSError:
    """What the end of a command means here."""
    if sense is None:
        name = Status(status).name.replace("_", " ") if status in tuple(Status) else f"status {status:#04x}"
        return OSError(errno.EIO, f"The target ends a command with {name}")
    for key, asc, ascq, number in _MEANINGS:
        if sense.key == key and asc in (None, sense.asc) and ascq in (None, sense.ascq):
            return OSError(number, f"The target says: {sense}")
    return OSError(errno.EIO, f"The target says: {sense}")


def read(lba: int, blocks: int) -> bytes:
    return transfer_cdb(0x28, 0x88, lba, blocks)


def write(lba: int, blocks: int) -> bytes:
    return transfer_cdb(0x2A, 0x8A, lba, blocks)


def synchronize_cache() -> bytes:
    """SYNCHRONIZE CACHE(10) of all there is (SBC-4 §5.31)."""
    return b"\x35" + bytes(9)


def write_same(lba: int, blocks: int, *, unmap: bool) -> bytes:
    """WRITE SAME(16) (SBC-4 §5.45)."""
    return bytes((0x93, 8 if unmap else 0)) + lba.to_bytes(8, "big") + blocks.to_bytes(4, "big") + bytes(2)


def unmap() -> bytes:
    """UNMAP of one descriptor (SBC-4 §5.33)."""
    return b"\x42" + bytes(6) + (24).to_bytes(2, "big") + b"\0"


def unmap_list(lba: int, blocks: int) -> bytes:
    return b"\0\x16\0\x10" + bytes(4) + lba.to_bytes(8, "big") + blocks.to_bytes(4, "big") + bytes(4)


def get_lba_status(lba: int, length: int) -> bytes:
    """GET LBA STATUS(16) (SBC-4 §5.6)."""
    return b"\x9e\x12" + lba.to_bytes(8, "big") + length.to_bytes(4, "big") + bytes(2)


def read_capacity() -> bytes:
    return b"\x9e\x10" + bytes(8) + (32).to_bytes(4, "big") + bytes(2)
