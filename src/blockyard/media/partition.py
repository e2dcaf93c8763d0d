"""A partition of a cartridge: blocks and filemarks in a file that only grows, and an index beside it.

What is written goes behind the last record. Writing in the midst first says on stable storage that everything from there on
is gone, with a new epoch: records of older epochs behind that point count for nothing. Their room is written over, which takes
no new one of the host, and what is left of it goes back when the partition is closed or `trim`med.

`sync` makes the records stable, which takes one fdatasync. Superblock and index follow at a checkpoint, from time to
time. Opening reads the superblock and goes on from there from record to record as long as they are whole, so that it takes no
longer than reading what was written since the last checkpoint. The first record that is not whole, and all that is behind it,
is cut off. docs/tape-format.md has the layout.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from fastcrc.crc32 import iscsi as crc32c

from blockyard.block import codec
from blockyard.media.files import read_all, write_all
from blockyard.media.index import Index, IndexDamaged
from blockyard.media.record import (
    BLOCK,
    FILEMARK,
    FIRST,
    HEADER_LENGTH,
    OPEN,
    SEALED,
    SLOT,
    VERSION,
    Record,
    Sealed,
    Superblock,
    checksum_of_plain,
    header,
)
from blockyard.scsi.sense import ReadFailure

log = logging.getLogger(__name__)

_TRY = bytearray(1)
_NOT_KNOWN = (-1, 0, 0)
_INDEX = ".index"
# encrypts: codec, what it has made of the block, length of the block and its number → what to store
Seal = Callable[[int, bytes | bytearray | memoryview, int, int], bytes]
_CHECKPOINT = 256 << 20  # bytes of records after which opening shall not have to read them


def create(path: Path, cartridge: UUID, number: int) -> None:
    """Make an empty partition, on stable storage but for its name in the directory. Raises OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        write_all(fd, [Superblock(cartridge, number, 1, 1, 0, FIRST, 0).encode(), bytes(SLOT)], 0)
        os.fsync(fd)
    finally:
        os.close(fd)


class Partition:
    """One that is open. Not safe to be used by two threads at a time.

    Raises OSError; EUCLEAN when neither superblock is whole. What cannot be written by this user is opened `read_only`.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self._path = path
        self.read_only = read_only or not os.access(path, os.W_OK)
        self._fd = os.open(path, (os.O_RDONLY if self.read_only else os.O_RDWR) | os.O_CLOEXEC)
        try:
            self._superblock = self._newest_superblock()
            self.objects = self._superblock.objects  # number of the end of data
            self.end = self._superblock.end  # where the next record goes
            self.filemarks = self._superblock.filemarks
            self._index = Index(path.with_suffix(_INDEX), writable=not self.read_only)
        except BaseException:
            os.close(self._fd)
            raise
        self._failure: OSError | None = None  # of a sync: what was written since then may be lost
        self._dirty = False  # there are records that are not stable
        self.index_damaged = False  # it had to be made anew: not all was as it had been written
        self._doubted = False  # it was made anew because of a record that was not where it said
        self._read_flags = os.RWF_NOWAIT  # of what must not wait for a disk
        self._next = (
            _NOT_KNOWN  # the object behind the one that was read last: its number, where it is, how long that was
        )
        try:
            self._recover()
        except BaseException:
            self._index.close()
            os.close(self._fd)
            raise

    # ---- reading

    def filemarks_before(self, number: int) -> int:
        """How many filemarks come before an object, or before the end of data. Raises OSError."""
        return self._entry(number)[1] if number < self.objects else self.filemarks

    def offset(self, number: int) -> int:
        """Where the record of an object is, which must be there. Raises OSError."""
        return self._entry(number)[0]

    def _entry(self, number: int) -> tuple[int, int]:
        try:
            return self._index[number]
        except IndexDamaged as error:
            self._rebuild_index(str(error))
            return self._index[number]

    def place(self, number: int) -> tuple[int, int] | None:
        """Where the record of an object begins and ends; None where the index is damaged, of which nothing is done here."""
        try:
            end = self._index[number + 1][0] if number + 1 < self.objects else self.end
            return self._index[number][0], end
        except (IndexDamaged, OSError):
            return None

    def filemark(self, ordinal: int) -> int:
        """The object that is the filemark with this number, counted from 0, which must be there. Raises OSError."""
        low, high = ordinal, self.objects - 1
        while low < high:  # the first object that has more than `ordinal` filemarks up to and with itself
            middle = (low + high) // 2
            if self.filemarks_before(middle + 1) > ordinal:
                high = middle
            else:
                low = middle + 1
        return low

    def read(self, number: int) -> bytes | Sealed | None:
        """The block with this number, as it is stored where it is encrypted, or None for a filemark.

        Raises ReadFailure; EBADMSG where its checksum is wrong.
        """
        try:
            record, offset = self._record(number)
            if record.kind == FILEMARK:
                return None
            data = read_all(self._fd, record.stored, offset + HEADER_LENGTH, self._path)
            if crc32c(data) != record.checksum:
                raise OSError(errno.EBADMSG, f"The checksum of object {number} is wrong", str(self._path))
            if record.cipher:
                return Sealed(record.codec, record.length, number, data)
            return codec.decompress(record.codec, data, record.length)
        except OSError as error:
            raise ReadFailure(error.errno, error.strerror, error.filename or str(self._path)) from error

    def _record(self, number: int) -> tuple[Record, int]:
        """The header of an object, and where it is."""
        offset = self.offset(number)
        record = self._header(number, offset)
        if record is None and not self._doubted:  # either of the two is wrong
            self._doubted = True
            with contextlib.suppress(OSError):
                self._make_index()
            if self.offset(number) != offset:
                self._tell(f"object {number} is not where it says")
                offset = self.offset(number)
                record = self._header(number, offset)
        if record is None:
            raise OSError(errno.EBADMSG, f"The header of object {number} is damaged", str(self._path))
        return record, offset

    def _header(self, number: int, offset: int) -> Record | None:
        if not FIRST <= offset < self.end:
            return None
        record = Record.decode(read_all(self._fd, HEADER_LENGTH, offset, self._path))
        return record if record is not None and record.number == number else None

    def read_at_once(self, number: int, buffer: memoryview) -> int | None:
        """Read a record that fills the buffer, of a block that is stored as it is, if that waits for no disk.

        Returns the checksum of the block; None for all else, for which there is `read`.
        """
        size = len(buffer)
        following, offset, length = self._next
        if (
            following != number or length != size
        ):  # blocks of one length stand one behind the other: no look at the index
            place = self.place(number)
            if place is None or place[1] - place[0] != size:
                return None
            offset = place[0]
        try:
            if os.preadv(self._fd, (buffer,), offset, self._read_flags) != size:
                return None
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP or not self._read_flags:
                return None
            self._read_flags = 0  # tmpfs has no cold data
            return self.read_at_once(number, buffer)
        checksum = checksum_of_plain(buffer, number, size - HEADER_LENGTH)
        if checksum is None or crc32c(buffer[HEADER_LENGTH:]) != checksum:
            return None
        self._next = number + 1, offset + size, size
        return checksum

    def at_hand(self, number: int) -> bool:
        """Whether the page cache has an object, as a look at its end shows, or stands for a disk that there is not."""
        place = self.place(number)
        try:
            return place is not None and os.preadv(self._fd, [_TRY], place[1] - 1, os.RWF_NOWAIT) == 1
        except (OSError, OverflowError) as error:
            return isinstance(error, OSError) and error.errno == errno.EOPNOTSUPP  # tmpfs has no cold data

    # ---- writing

    def append(self, data: bytes | bytearray | memoryview, *, compress: bool = False, seal: Seal | None = None) -> int:
        """Write a block behind all others; that waits for no disk. Returns how many bytes of data it takes.

        Raises OSError, and then there is no such block.
        """
        kind, stored = codec.compress(data) if compress else (codec.PLAIN, data)
        if seal is not None:
            stored = seal(kind, stored, len(data), self.objects)
        self._append(BLOCK, kind, OPEN if seal is None else SEALED, len(data), stored, crc32c(stored))
        return len(stored)

    def append_at_once(self, data: memoryview, checksum: int) -> None:
        """Likewise a block that is stored as it is, and whose checksum is known. Raises OSError."""
        self._append(BLOCK, codec.PLAIN, OPEN, len(data), data, checksum)

    def append_filemark(self) -> None:
        """Write a filemark behind all else. Raises OSError; then there is none."""
        self._append(FILEMARK, codec.PLAIN, OPEN, 0, b"", 0)
        self.filemarks += 1

    def _append(
        self, kind: int, codec: int, cipher: int, length: int, data: bytes | bytearray | memoryview, checksum: int
    ) -> None:
        if self._failure is not None:
            self._check_sound()
        index, end, stored = self._index, self.end, len(data)
        if index.full:
            index.write()
        head = header(kind, codec, cipher, length, stored, self._superblock.epoch, self.objects, checksum)
        size = HEADER_LENGTH + stored
        if os.pwritev(self._fd, (head, data), end) != size:
            write_all(self._fd, (head, data), end)
        index.append(end, self.filemarks)
        self._dirty = True
        self.end = end + size
        self.objects += 1

    def truncate(self, number: int) -> None:
        """Everything from this object on counts for nothing, on stable storage too. Raises OSError."""
        if number >= self.objects:
            return
        self._check_sound()
        self.sync()
        self._index.sync()
        end, filemarks = self._entry(number)
        self._save(number, end, filemarks, self._epoch + 1)
        self.objects, self.end, self.filemarks = number, end, filemarks
        self._next = _NOT_KNOWN
        self._index.truncate(number)

    def trim(self) -> None:
        """The host gets back the room of what was there before. Raises OSError."""
        if os.fstat(self._fd).st_size > self.end:
            os.ftruncate(self._fd, self.end)

    def sync(self) -> None:
        """All records are on stable storage when this returns. Raises OSError, and ever after one has failed."""
        self._check_sound()
        if not self._dirty:
            return
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            self._failure = error
            raise
        self._dirty = False

    @property
    def checkpoint_due(self) -> bool:
        """Whether so much was written that opening would have to read too much."""
        return self.before_checkpoint <= 0

    @property
    def before_checkpoint(self) -> int:
        """Bytes of records that can be written before one is due."""
        return _CHECKPOINT - (self.end - self._superblock.end)

    def checkpoint(self, *, anyway: bool = False) -> None:
        """`sync`, and nothing has to be looked through when the partition is opened next. Raises OSError."""
        if self.read_only or (self.objects == self._superblock.objects and not anyway):
            return
        self.sync()
        self._index.sync()
        self._save(self.objects, self.end, self.filemarks, self._epoch)

    def check_unchanged(self) -> None:
        """Raise OSError where somebody else has written over something since it was opened."""
        if self._newest_superblock().epoch != self._epoch:
            raise OSError(errno.EBUSY, "It has been written over meanwhile", str(self._path))

    def close(self) -> None:
        """Raises OSError when it cannot be left as it should; it is closed all the same."""
        try:
            if self._failure is None:
                self.checkpoint()
                if not self.read_only:
                    self.trim()
        finally:
            self._index.close()
            os.close(self._fd)

    @property
    def _epoch(self) -> int:
        return self._superblock.epoch

    def _check_sound(self) -> None:
        if self._failure is not None:
            why = f"What was written may be lost since a sync has failed: {self._failure.strerror}"
            raise OSError(self._failure.errno, why, str(self._path))

    # ---- superblocks

    def _newest_superblock(self) -> Superblock:
        head = os.pread(self._fd, FIRST, 0)
        try:
            found = [Superblock.decode(head[at : at + SLOT]) for at in (0, SLOT)]
        except ValueError as error:
            raise OSError(errno.EUCLEAN, str(error), str(self._path)) from error
        whole = [superblock for superblock in found if superblock is not None]
        if not whole:
            raise OSError(errno.EUCLEAN, "It is no partition of a cartridge, or damaged", str(self._path))
        return max(whole, key=lambda superblock: superblock.sequence)

    def _save(self, objects: int, end: int, filemarks: int, epoch: int) -> None:
        """Write a superblock in the place of the older one. What it speaks of must be stable."""
        old = self._superblock
        new = Superblock(old.cartridge, old.partition, old.sequence + 1, epoch, objects, end, filemarks)
        try:
            write_all(self._fd, [new.encode()], SLOT * ((new.sequence + 1) % 2))
            os.fdatasync(self._fd)
        except OSError as error:
            self._failure = error  # which of the two holds is not known any more
            raise
        self._superblock = new

    # ---- opening

    def _recover(self) -> None:
        """Bring back what was written since the last checkpoint, as far as it is whole; what is behind goes."""
        self._index.truncate(self.objects)
        older = self._superblock.version < VERSION
        if older:
            self._make_index()  # it had no checksums
        elif len(self._index) < self.objects:
            self._rebuild_index("it is missing or too short")
        while (record := self._whole_record(self.end, self.objects, self._epoch)) is not None:
            self._add(self._index, self.end, self.filemarks)
            self.filemarks += record.kind == FILEMARK
            self.objects += 1
            self.end += HEADER_LENGTH + record.stored
        if not self.read_only:
            self._dirty = self.objects > self._superblock.objects  # what was found may not be stable yet
            self.trim()
            self.checkpoint(anyway=older)

    def _whole_record(self, offset: int, number: int, epoch: int) -> Record | None:
        """The record at `offset` if it is the object `number`, and all there."""
        record = Record.decode(os.pread(self._fd, HEADER_LENGTH, offset))
        if record is None or (record.number, record.epoch) != (number, epoch):
            return None
        data = os.pread(self._fd, record.stored, offset + HEADER_LENGTH)
        return record if len(data) == record.stored and crc32c(data) == record.checksum else None

    def _add(self, index: Index, offset: int, filemarks: int) -> None:
        index.append(offset, filemarks)
        if index.full and not self.read_only:
            index.write()

    def _rebuild_index(self, why: str) -> None:
        """The index is not to be believed: make it anew. Raises OSError when that cannot be; then it stays as it is."""
        self._tell(why)
        self._make_index()

    def _tell(self, why: str) -> None:
        log.error("%s: the index is damaged: %s. It is made anew of the records", self._path, why)
        self.index_damaged = True

    def _make_index(self) -> None:
        """Make the index of the records. Raises OSError when one is damaged."""
        path = self._path.with_suffix(f"{_INDEX}.new")
        index = Index(path, writable=not self.read_only, new=True)
        try:
            self._fill(index)
            if not self.read_only:
                index.sync()
                index.rename(self._path.with_suffix(_INDEX))
        except OSError:
            index.close()
            if not self.read_only:
                path.unlink(missing_ok=True)
            raise
        self._index.close()
        self._index = index

    def _fill(self, index: Index) -> None:
        offset, filemarks = FIRST, 0
        for number in range(self.objects):
            record = Record.decode(os.pread(self._fd, HEADER_LENGTH, offset))
            if record is None or record.number != number:
                raise OSError(errno.EUCLEAN, f"The index is lost, and object {number} is damaged", str(self._path))
            self._add(index, offset, filemarks)
            filemarks += record.kind == FILEMARK
            offset += HEADER_LENGTH + record.stored
        if offset != self.end or filemarks != self.filemarks:
            raise OSError(errno.EUCLEAN, "The index is lost, and records do not fit the superblock", str(self._path))
