"""A logical unit as an initiator uses it: the everyday commands of SPC-5 and SBC-4, with errors as exceptions."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from blockyard.initiator.errors import ScsiError
from blockyard.initiator.exchange import Exchange, Response
from blockyard.initiator.sense import Sense, decode_sense
from blockyard.initiator.session import Session
from blockyard.iscsi.pdu import Buffer
from blockyard.scsi.sense import SenseKey
from blockyard.scsi.task import Status

TRANSFER = 256 << 10  # bytes of one READ or WRITE: what any target takes, and fast enough
DEPTH = 8  # how many of them are outstanding
_REPEATS = 8  # times that a command is sent before it is given up
_DAMAGED = ((0x0C, 0x0D), (0x47, 0x05))  # not enough unsolicited data; protocol service CRC error
_LBA_10 = 1 << 32  # first block that the 10-byte commands cannot reach


@dataclass(frozen=True, slots=True)
class Capacity:
    """READ CAPACITY: `blocks` of `block_size` bytes; the rest comes from READ CAPACITY(16) only (SBC-4 §5.21)."""

    blocks: int
    block_size: int
    physical_block_size: int
    thin: bool = False  # LBPME
    reads_zeros: bool = False  # LBPRZ

    @property
    def size(self) -> int:
        """In bytes."""
        return self.blocks * self.block_size


class Lun:
    """A logical unit of the target that `session` is logged in to.

    All methods but `command` raise ScsiError when a command ends otherwise than GOOD. A command that met a unit
    attention, or whose data was damaged on its way, is repeated, as every host does.
    """

    def __init__(self, session: Session, lun: int = 0) -> None:
        self.session = session
        self.lun = lun
        self._capacity: Capacity | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the whole session."""
        self.session.close()

    def command(self, cdb: bytes, data_out: Buffer = b"", read_length: int = 0) -> Response:
        """Any command, with whatever status it ends."""
        return self.session.command(self.lun, cdb, data_out, read_length)

    def execute(self, cdb: bytes, data_out: Buffer = b"", read_length: int = 0) -> bytes:
        """Any command; the data that it reads. Raises ScsiError unless it ends GOOD."""
        return self._finish(cdb, data_out, read_length, self._submit(cdb, data_out, read_length))

    def _submit(self, cdb: bytes, data_out: Buffer, read_length: int) -> Exchange:
        return self.session.submit(self.lun, cdb, data_out, read_length)

    def _finish(self, cdb: bytes, data_out: Buffer, read_length: int, exchange: Exchange) -> bytes:
        for _ in range(_REPEATS):
            response: Response = self.session.wait(exchange)
            sense = decode_sense(response.sense)
            if response.status == Status.GOOD:
                return response.data
            if sense is None or not _passes(sense):
                break
            exchange = self._submit(cdb, data_out, read_length)
        raise ScsiError(cdb, response.status, sense)

    # ---- what every device has

    def test_unit_ready(self) -> None:
        self.execute(bytes(6))

    def inquiry(self, page: int | None = None, length: int = 4096) -> bytes:
        """Standard INQUIRY data, or a vital product data page (SPC-5 §6.7)."""
        if page is None:
            return self.execute(bytes((0x12, 0, 0)) + min(length, 255).to_bytes(2, "big") + b"\0", read_length=255)
        cdb = bytes((0x12, 1, page)) + length.to_bytes(2, "big") + b"\0"
        return self.execute(cdb, read_length=length)

    def luns(self) -> list[int]:
        """REPORT LUNS (SPC-5 §6.33): the numbers of the target's logical units, well-known ones apart."""
        data = self._report_luns(0x10000)
        needed = 8 + int.from_bytes(data[:4], "big")
        if needed > 0x10000:
            data = self._report_luns(needed)
        fields = (data[at : at + 2] for at in range(8, 8 + min(int.from_bytes(data[:4], "big"), len(data) - 8), 8))
        return [int.from_bytes(field, "big") & 0x3FFF for field in fields if field[0] >> 6 in (0, 1)]

    def _report_luns(self, length: int) -> bytes:
        return self.execute(b"\xa0" + bytes(5) + length.to_bytes(4, "big") + bytes(2), read_length=length)

    # ---- disks

    def capacity(self) -> Capacity:
        """READ CAPACITY(16), or (10) where there is no other (SBC-4 §5.20, §5.21)."""
        try:
            data = self.execute(b"\x9e\x10" + bytes(8) + (32).to_bytes(4, "big") + bytes(2), read_length=32)
        except ScsiError as error:
            if error.sense is None or error.sense.key != SenseKey.ILLEGAL_REQUEST:
                raise
            data = self.execute(b"\x25" + bytes(9), read_length=8)
            size = int.from_bytes(data[4:8], "big")
            return Capacity(int.from_bytes(data[:4], "big") + 1, size, size)
        size = int.from_bytes(data[8:12], "big")
        flags = data.ljust(32, b"\0")
        return Capacity(
            blocks=int.from_bytes(data[:8], "big") + 1,
            block_size=size,
            physical_block_size=size << (flags[13] & 0xF),
            thin=bool(flags[14] & 0x80),
            reads_zeros=bool(flags[14] & 0x40),
        )

    @property
    def block_size(self) -> int:
        """In bytes; asked of the device once."""
        if self._capacity is None:
            self._capacity = self.capacity()
        return self._capacity.block_size

    def read(self, lba: int, blocks: int = 1) -> bytes:
        """The contents of `blocks` blocks from `lba` on."""
        return b"".join(self.read_chunks(lba, blocks))

    def read_chunks(self, lba: int, blocks: int) -> Iterator[bytes]:
        """The same in pieces, in order, so that it need not fit in memory."""
        size = self.block_size
        step = max(1, TRANSFER // size)
        outstanding: deque[tuple[bytes, int, Exchange]] = deque()
        for at in range(lba, lba + blocks, step):
            count = min(step, lba + blocks - at)
            cdb = transfer_cdb(0x28, 0x88, at, count)
            outstanding.append((cdb, count * size, self._submit(cdb, b"", count * size)))
            if len(outstanding) == DEPTH:
                yield self._read_result(*outstanding.popleft())
        while outstanding:
            yield self._read_result(*outstanding.popleft())

    def _read_result(self, cdb: bytes, length: int, exchange: Exchange) -> bytes:
        return self._finish(cdb, b"", length, exchange)

    def write(self, lba: int, data: Buffer, *, fua: bool = False) -> None:
        """Write `data`, a whole number of blocks, from `lba` on; with `fua` to stable storage (SBC-4 §5.40)."""
        size = self.block_size
        view = memoryview(data).cast("B")
        if len(view) % size:
            raise ValueError(f"{len(view)} bytes are not a whole number of blocks of {size} bytes")
        step = max(1, TRANSFER // size) * size
        outstanding: deque[tuple[bytes, Buffer, Exchange]] = deque()
        for at in range(0, len(view), step):
            part = view[at : at + step]
            cdb = transfer_cdb(0x2A, 0x8A, lba + at // size, len(part) // size, flags=8 if fua else 0)
            outstanding.append((cdb, part, self._submit(cdb, part, 0)))
            if len(outstanding) == DEPTH:
                self._write_result(*outstanding.popleft())
        while outstanding:
            self._write_result(*outstanding.popleft())

    def _write_result(self, cdb: bytes, part: Buffer, exchange: Exchange) -> None:
        self._finish(cdb, part, 0, exchange)

    def flush(self) -> None:
        """SYNCHRONIZE CACHE(10) of the whole unit (SBC-4 §5.31): what has been written is on stable storage."""
        self.execute(b"\x35" + bytes(9))


def _passes(sense: Sense) -> bool:
    """Whether a command may be repeated: for a unit attention, and when its data did not arrive whole (§11.4.7.2)."""
    damaged = sense.key == SenseKey.ABORTED_COMMAND and (sense.asc, sense.ascq) in _DAMAGED
    return sense.key == SenseKey.UNIT_ATTENTION or damaged


def transfer_cdb(short: int, long: int, lba: int, blocks: int, flags: int = 0) -> bytes:
    """READ or WRITE with 10 bytes where that reaches, which every disk knows, else with 16."""
    if lba + blocks <= _LBA_10 and blocks < 1 << 16:
        return bytes((short, flags)) + lba.to_bytes(4, "big") + b"\0" + blocks.to_bytes(2, "big") + b"\0"
    return bytes((long, flags)) + lba.to_bytes(8, "big") + blocks.to_bytes(4, "big") + bytes(2)
