"""The intent journal: what has changed in the maps since the last commit, so that it survives the death of the process.

A commit to LMDB with its flush costs a quarter of a millisecond and more, far too much for every write that needs a new
place. So each such change is first appended here, with one small write that ends in the page cache, and the maps are
committed when a flush is asked for, or enough has come together.

Two files take turns. Those changes that commit n is to make durable are in file n mod 2; as soon as that commit begins,
changes go to the other. Whoever opens a pool whose last commit is n replays what is there of n + 1 and then of n + 2.

The page cache survives a process and not the machine: after a loss of power records may be there whose data never reached
its place. Nobody was promised any of it, so records of another boot are ignored.

A file is a header and records, little endian; each has a CRC32C, and the first without a right one ends the file. Those of
records go on from that of the header, so that none is taken for one of this boot and commit that an earlier use of the file left.

That a file was cut short, overwritten or falsified shows: its length is always a multiple of 1 MiB, each commit says of which
boot the file is that follows it, and no record without a right checksum is followed by one that has it, or would have it but
for one bit.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from fastcrc.crc32 import iscsi as crc32c

from blockyard.pool.datafile import Damaged

_MAGIC = b"BYINTENT"
_HEADER = struct.Struct("<8sIQ36s")  # magic, version, sequence, boot id; then CRC32C
_RECORD = struct.Struct("<QQQQQI")  # sequence, then the fields of Record; then CRC32C
_CRC = struct.Struct("<I")
_pack_record, _pack_crc = _RECORD.pack, _CRC.pack
_START = 4096  # bytes: where records begin
_STEP = _RECORD.size + _CRC.size
_VERSION = 2
_STRETCH = 1 << 20  # bytes that a file grows by


class Record(NamedTuple):
    """From now on a chunk of a volume is at `place` (see space.NOWHERE and livemap.HOLE for those that are nowhere)."""

    volume: int
    chunk: int
    place: int
    time: int = 0  # when, in nanoseconds since 1970
    sum: int = 0  # checksum of what is there, 32 bits, if the volume has such


def boot_id() -> str:
    """Another one after each boot of this machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


class Journal:
    """The two files of a pool's intent journal, in `directory`.

    `append` is for one thread at a time; so are `prepare`, `begin` and `replay`.
    """

    def __init__(self, directory: Path, boot: str | None = None) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._directory = directory
        self._files = [os.open(directory / f"intent-{number}", flags, 0o600) for number in range(2)]
        self._sizes = [os.fstat(fd).st_size for fd in self._files]
        self._boot = (boot or boot_id()).encode("ascii")
        self._prepared = 0
        self._sequence = 0
        self._end = _START
        self._seed = 0  # where the checksums of records begin

    @property
    def length(self) -> int:
        """Bytes of records since `begin`."""
        return self._end - _START

    def prepare(self, sequence: int) -> None:
        """Make the file ready for commit `sequence`; what it held was of commit `sequence` - 2 at the latest.

        Raises OSError; then changes go where they went.
        """
        self._write(sequence % 2, self._header(sequence), 0)
        self._prepared = sequence

    def begin(self, sequence: int) -> None:
        """Changes belong to commit `sequence` from now on, for which the file has been prepared."""
        self._sequence, self._end = sequence, _START
        self._seed = self._seed_of(sequence)

    @property
    def boot(self) -> str:
        """Of which boot the file is that changes go to; "" when it says nothing of that yet."""
        return self._boot.decode() if self._prepared == self._sequence else ""

    def _header(self, sequence: int) -> bytes:
        header = _HEADER.pack(_MAGIC, _VERSION, sequence, self._boot)
        return header + _CRC.pack(crc32c(header))

    def _seed_of(self, sequence: int) -> int:
        """Where the checksums of records begin. (That of a header with its own is the same for all of them.)"""
        seed: int = crc32c(self._header(sequence)[: -_CRC.size])
        return seed

    def append(self, records: Sequence[tuple[int, int, int, int, int]]) -> None:
        """Write changes down, which are Records or like them. Raises OSError; then none of them will be replayed."""
        sequence, seed, data = self._sequence, self._seed, b""
        for record in records:  # most often there is one
            packed = _pack_record(sequence, *record)
            data += packed + _pack_crc(crc32c(packed, seed))
        self._write(sequence % 2, data, self._end)
        self._end += len(data)

    def _write(self, number: int, data: bytes | bytearray, offset: int) -> None:
        """Write all of it to a file, or nothing that a reader would see."""
        fd, size = self._files[number], self._sizes[number]
        if offset + len(data) > size or size % _STRETCH:
            size = -(-max(size, offset + len(data)) // _STRETCH) * _STRETCH
            os.ftruncate(fd, size)
            self._sizes[number] = size
        try:
            written = os.pwrite(fd, data, offset)
            if written < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            self._cut(number, offset)
            raise

    def _cut(self, number: int, offset: int) -> None:
        """Have zeros from `offset` on."""
        fd, size = self._files[number], self._sizes[number]
        if size > offset:
            os.ftruncate(fd, offset)
            self._sizes[number] = offset
            os.ftruncate(fd, size)
            self._sizes[number] = size

    def replay(self, after: int, boot: str = "") -> tuple[int, list[Record]]:
        """The changes that commit `after` does not have, in order, and the last commit that any of them was for.

        They stay where they are until that commit is durable: opening a pool may be cut short as well. That commit was made
        in `boot`. Raises Damaged where there must have been more.
        """
        number = (after + 1) % 2
        if boot == self._boot.decode() and not self._is_of(self._files[number], after + 1):
            raise self._damaged(number)
        last, found = after, []
        for sequence in (after + 1, after + 2):
            fd = self._files[sequence % 2]
            if not self._is_of(fd, sequence):
                break
            if self._sizes[sequence % 2] % _STRETCH:
                raise self._damaged(sequence % 2)
            records = list(self._records(fd, sequence))
            if records:
                last = sequence
                found += records
        return last, found

    def _damaged(self, number: int) -> Damaged:
        lost = (
            "acknowledged changes since the last commit are lost; `blockyard pool check --repair` goes on without them"
        )
        return Damaged(self._directory, f"intent-{number} was cut short or overwritten: {lost}")

    def forget(self) -> None:
        """As a new one: nothing is to be replayed, whatever is said elsewhere."""
        for fd in self._files:
            os.ftruncate(fd, 0)

    def _is_of(self, fd: int, sequence: int) -> bool:
        return os.pread(fd, _HEADER.size + _CRC.size, 0) == self._header(sequence)

    def _records(self, fd: int, sequence: int) -> Iterator[Record]:
        at, seed, ended = _START, self._seed_of(sequence), False
        while True:
            block = os.pread(fd, _STEP * 4096, at)
            for start in range(0, len(block) - _STEP + 1, _STEP):
                packed = block[start : start + _RECORD.size]
                of, *fields = _RECORD.unpack(packed)
                if of != sequence or _CRC.unpack_from(block, start + _RECORD.size)[0] != crc32c(packed, seed):
                    if not ended and self._is_falsified(block[start : start + _STEP], sequence, seed):
                        raise self._damaged(sequence % 2)
                    ended = True
                elif ended:
                    raise self._damaged(sequence % 2)
                else:
                    yield Record._make(fields)
            if len(block) < _STEP * 4096:
                return
            at += len(block)

    @staticmethod
    def _is_falsified(record: bytes, sequence: int, seed: int) -> bool:
        """Whether what ends a file would be a record of this commit but for one bit."""
        number = int.from_bytes(record, "little")
        for bit in range(8 * _STEP):
            meant = (number ^ 1 << bit).to_bytes(_STEP, "little")
            packed = meant[: _RECORD.size]
            if meant[_RECORD.size :] == _CRC.pack(crc32c(packed, seed)) and _RECORD.unpack(packed)[0] == sequence:
                return True
        return False

    def close(self) -> None:
        for fd in self._files:
            os.close(fd)
        self._files.clear()
