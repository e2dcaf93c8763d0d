"""A regular file or a block device as a block device: the bottom of most stacks.

Regular files are thin where their file system can punch holes: what is discarded is given back to it.
Block devices are thin where they can discard and zero by themselves.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Condition

from blockyard.block.device import Device, Extent, Run, Space

KEEP_SIZE, _PUNCH_HOLE, _ZERO_RANGE = 0x01, 0x02, 0x10  # linux/falloc.h
_BLKSSZGET = 0x1268  # linux/fs.h: logical block size of a block device
IOV_MAX = os.sysconf("SC_IOV_MAX")
_ZEROS = bytes(1 << 20)
# copy_file_range(2): not between these file systems or kinds of files (block devices); and after EIO a copy through
# a buffer shows whether it was the source or the destination
_NO_COPY_FILE_RANGE = frozenset({errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.EIO})
_MEMORY_FILE_SYSTEMS = frozenset({"tmpfs", "ramfs", "hugetlbfs"})

_libc = ctypes.CDLL(None, use_errno=True)
_fallocate = getattr(_libc, "fallocate64", None) or _libc.fallocate
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2), which the os module has in its posix form only. Lets other threads run meanwhile."""
    while _fallocate(fd, mode, offset, length):
        number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))


def create(path: str | os.PathLike[str], size: int) -> None:
    """Make a sparse file of `size` bytes that nobody else can read. Raises FileExistsError where one is already."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, size)
        os.fsync(fd)
    except OSError:
        os.unlink(path)
        raise
    finally:
        os.close(fd)
    sync_directory(os.path.dirname(os.path.abspath(path)))


def sync_directory(path: str | os.PathLike[str]) -> None:
    """The names in a directory are on stable storage when this returns. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class FileDevice(Device):
    """The whole of a regular file or a block device.

    It is locked against other programs that do the same (flock; a block device against mounting too), shared
    among readers only; without `lock` it is looked at whoever has it. `size` is cut to whole sectors of 512 bytes. Raises
    OSError: EBUSY when another has it, EINVAL when it is something else or has less than `least` bytes.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, read_only: bool = False, lock: bool = True, least: int = 512
    ) -> None:
        self.path = os.fspath(path)
        self.read_only = read_only
        self._data = 0, 0  # a run of data that `runs` has found
        self._punched = 0
        self._lost: OSError | None = None  # why a flush failed: what it should have made stable may be gone
        self._flushing = Condition()
        self._flushes_begun = self._flushes_ended = 0
        self._fd = _open(self.path, read_only=read_only)
        try:
            if lock:
                lock_file(self._fd, self.path, shared=read_only)
            status = os.fstat(self._fd)
            self._is_block_device = stat.S_ISBLK(status.st_mode)
            self.size = self._find_size()
            if self.size < least and status.st_size < least:
                raise OSError(errno.EINVAL, "It is smaller than one sector of 512 bytes", self.path)
            number = status.st_rdev if self._is_block_device else status.st_dev
            queue = _queue(number)
            self.rotational = _number(queue / "rotational") == 1
            self.alignment = self._logical_block_size()
            self.granularity = self._find_granularity(status, queue)
            self.nowait = self._probe_nowait()
        except BaseException:
            os.close(self._fd)
            raise
        # Without RWF_NOWAIT nobody can tell whether a read would wait for a disk, so that no one may read by
        # the descriptor directly, unless there is no disk.
        direct = self.nowait or (not self._is_block_device and _file_system(number) in _MEMORY_FILE_SYSTEMS)
        self.fd = self._fd if direct else -1

    def __repr__(self) -> str:
        return f"FileDevice({self.path!r}, {self.size} bytes{', read only' if self.read_only else ''})"

    # ---- what it is

    def _find_size(self) -> int:
        return os.lseek(self._fd, 0, os.SEEK_END) & ~511

    def refresh(self) -> None:
        """Look at the size again: the file may have grown."""
        self.size = self._find_size()

    def truncate(self, size: int) -> None:
        """Let the file end after `size` bytes, or reach that far."""
        self._forget_data()
        os.ftruncate(self._fd, size)
        self._forget_data()
        self.refresh()

    def reopen(self, *, read_only: bool) -> None:
        """Open it for reading and writing, or for reading only, in place: what is under way ends as it began.

        Raises OSError; then it stays as it was.
        """
        fd = _open(self.path, read_only=read_only)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            try:
                lock_file(fd, self.path, shared=read_only)
            except OSError:
                fcntl.flock(self._fd, fcntl.LOCK_SH if self.read_only else fcntl.LOCK_EX)
                raise
            os.dup2(fd, self._fd, inheritable=False)
        finally:
            os.close(fd)
        self.read_only = read_only

    def _logical_block_size(self) -> int:
        if not self._is_block_device:
            return 1
        answer = fcntl.ioctl(self._fd, _BLKSSZGET, bytes(4))
        return int.from_bytes(answer, sys.byteorder)

    def _find_granularity(self, status: os.stat_result, queue: Path) -> int:
        if self._is_block_device:
            able = _number(queue / "discard_max_bytes") and _number(queue / "write_zeroes_max_bytes")
            return _number(queue / "discard_granularity") if able else 0
        block = status.st_blksize
        if block < 512 or block & (block - 1):
            block = 4096
        if self.read_only:  # cannot be tried, and nothing will be freed: but holes are told from data
            return block
        try:  # beyond the end of the file, where there is nothing to free
            fallocate(self._fd, _PUNCH_HOLE | KEEP_SIZE, (status.st_size + block) & -block, block)
        except OSError:
            return 0
        return block

    def _probe_nowait(self) -> bool:
        try:
            os.preadv(self._fd, [bytearray(1)], 0, os.RWF_NOWAIT)
        except BlockingIOError:
            return True
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                return False
            raise
        return True

    # ---- input and output

    def resolve(self, offset: int, length: int) -> Sequence[Extent] | None:
        return (Extent(self.fd, offset, length),) if self.fd >= 0 else None

    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        rest: Sequence[memoryview | bytes | bytearray] = buffers
        while rest:
            count = os.preadv(self._fd, rest[:IOV_MAX], offset)
            rest = _after(rest, count)
            offset += count
            if not count and rest:
                raise OSError(errno.EIO, "The file ends before the device does: it was cut short", self.path)

    def pwritev(self, buffers: Sequence[memoryview | bytes | bytearray], offset: int) -> None:
        if self.read_only:
            raise self._read_only_error()
        rest = buffers
        while rest:
            count = os.pwritev(self._fd, rest[:IOV_MAX], offset)
            rest = _after(rest, count)
            offset += count
            if not count and rest:
                raise OSError(errno.EIO, "Nothing can be written", self.path)

    def flush(self) -> None:
        """fdatasync(2), one for all who ask while another is under way. Once it has failed it goes on failing.

        The kernel reports a failed write-back once and then takes the lost pages for clean: a second
        fdatasync would return success for data that is not there.
        """
        if self.read_only:
            return
        with self._flushing:
            needed = self._flushes_begun + 1  # one that has begun already may not cover the caller's writes
            while self._flushes_ended < needed and self._flushes_ended < self._flushes_begun:
                self._flushing.wait()
            mine = self._flushes_ended < needed and self._lost is None
            if mine:
                self._flushes_begun += 1
        if mine:
            self._fdatasync()
        if self._lost is not None:
            raise OSError(self._lost.errno, f"Write-back has failed: {self._lost.strerror}", self.path)

    def _fdatasync(self) -> None:
        lost = None
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            lost = error
        with self._flushing:
            self._lost = self._lost or lost
            self._flushes_ended += 1
            self._flushing.notify_all()

    def prefetch(self, offset: int, length: int) -> None:
        os.posix_fadvise(self._fd, offset, length, os.POSIX_FADV_WILLNEED)

    def discard(self, offset: int, length: int) -> None:
        self._fallocate(_PUNCH_HOLE | KEEP_SIZE, offset, length)

    def write_zeroes(self, offset: int, length: int) -> None:
        self._fallocate(_ZERO_RANGE | KEEP_SIZE, offset, length)

    def _fallocate(self, mode: int, offset: int, length: int) -> None:
        """Make a range read as zeros; by writing them where the file system or the alignment leaves no other way."""
        if self.read_only:
            raise self._read_only_error()
        start, end = offset + -offset % self.alignment, (offset + length) - (offset + length) % self.alignment
        if start >= end:
            self._write_zeros(offset, offset + length)
            return
        self._forget_data()
        try:
            fallocate(self._fd, mode, start, end - start)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            if mode & _PUNCH_HOLE:
                self.write_zeroes(offset, length)
            else:
                self._write_zeros(offset, offset + length)
            return
        finally:
            self._forget_data()
        self._write_zeros(offset, start)
        self._write_zeros(end, offset + length)

    def _write_zeros(self, start: int, end: int) -> None:
        for at in range(start, end, len(_ZEROS)):
            self.pwritev([memoryview(_ZEROS)[: end - at]], at)

    def _read_only_error(self) -> OSError:
        return OSError(errno.EROFS, "It is open for reading only", self.path)

    def space(self) -> Space | None:
        """Of its file system; a block device does not tell."""
        if self._is_block_device:
            return None
        whole = os.fstatvfs(self._fd)
        return Space(whole.f_bavail * whole.f_frsize, os.fstat(self._fd).st_blocks * 512)  # stat(2): of 512 bytes

    def _copy_mapped(self, source: Device, source_offset: int, offset: int, length: int) -> None:
        """By copy_file_range(2), which shares blocks where the file system can, and through a buffer what that leaves."""
        if isinstance(source, FileDevice) and not self.read_only:
            copied = self._copy_file_range(source, source_offset, offset, length)
            source_offset, offset, length = source_offset + copied, offset + copied, length - copied
        if length:
            super()._copy_mapped(source, source_offset, offset, length)

    def _copy_file_range(self, source: FileDevice, source_offset: int, offset: int, length: int) -> int:
        """How many bytes the kernel has copied: not all where files are of kinds that it cannot copy between."""
        copied = 0
        while copied < length:
            try:
                count = os.copy_file_range(
                    source._fd, self._fd, length - copied, source_offset + copied, offset + copied
                )
            except OSError as error:
                if error.errno in _NO_COPY_FILE_RANGE:
                    break
                raise
            if not count:
                break
            copied += count
        return copied

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        """By SEEK_DATA and SEEK_HOLE.

        They move the position of the descriptor, which nothing else uses, and answer with it in one call,
        so that several threads may ask at once. Space that is reserved but was never written counts as a hole.
        """
        at, end = offset, offset + length
        while at < end:
            start, stop = self._data
            if not start <= at < stop:
                data = min(self._seek(at, os.SEEK_DATA, end), end)
                if data > at:
                    yield Run(at, data - at, False)
                if data == end:
                    return
                at, stop = data, self._find_hole(data)
            stop = min(stop, end)
            yield Run(at, stop - at, True)
            at = stop

    def _find_hole(self, at: int) -> int:
        """Where the data from `at` on ends. It is remembered until holes are made: some file systems walk over every page."""
        punched = self._punched
        hole = self._seek(at, os.SEEK_HOLE, self.size)
        if punched == self._punched:
            self._data = at, hole
        return hole

    def _forget_data(self) -> None:
        """Holes are made: before, so that nobody remembers what he finds meanwhile, and after."""
        self._punched += 1
        self._data = 0, 0

    def _seek(self, at: int, whence: int, end: int) -> int:
        try:
            return os.lseek(self._fd, at, whence)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data any more: the last hole reaches to the end
                return end
            if error.errno == errno.EINVAL:  # a block device: all of it is data
                return at if whence == os.SEEK_DATA else end
            raise

    def close(self) -> None:
        if self._fd < 0:
            return
        fd, self._fd, self.fd = self._fd, -1, -1
        try:
            if not self.read_only:
                os.fdatasync(fd)
        finally:
            os.close(fd)


def _open(path: str, *, read_only: bool) -> int:
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise OSError(errno.EINVAL, "It is neither a regular file nor a block device", path)
    flags = os.O_CLOEXEC | (os.O_RDONLY if read_only else os.O_RDWR)
    if stat.S_ISBLK(mode) and not read_only:
        flags |= os.O_EXCL  # Linux: fails when it is mounted or otherwise claimed, and keeps others from doing so
    try:
        return os.open(path, flags)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise OSError(errno.EBUSY, "It is mounted, or another program has claimed it", path) from None
        raise


def lock_file(fd: int, path: str, *, shared: bool) -> None:
    """Lock a file against all who do the same, at once. Raises OSError: EBUSY."""
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _lock_holder(fd)
        by = f"process {holder}" if holder else "another process"
        raise OSError(errno.EBUSY, f"It is in use by {by}, which has locked it", path) from None


def _lock_holder(fd: int) -> int:
    """The process that holds a flock on the file, as far as /proc/locks tells; else 0."""
    status = os.fstat(fd)
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return 0
    for line in lines:  # 1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF
        words = line.split()
        if words[1] == "FLOCK" and words[5] == device:
            return max(0, int(words[4]))
    return 0


def _after(buffers: Sequence[memoryview | bytes | bytearray], count: int) -> Sequence[memoryview | bytes | bytearray]:
    """What is left of `buffers` after their first `count` bytes."""
    for index, buffer in enumerate(buffers):
        if count < len(buffer):
            return [memoryview(buffer)[count:], *buffers[index + 1 :]]
        count -= len(buffer)
    return ()


def _queue(device: int) -> Path:
    """Where sysfs tells of the disk behind a device number; a partition is described by its disk."""
    block = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve()
    return (
        block / "queue" if os.path.isdir(block / "queue") else block.parent / "queue"
    )  # in a container it may be hidden


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def _file_system(device: int) -> str:
    """The type of the mounted file system with this device number; "" when that cannot be found out."""
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        words = line.split()
        if words[2] == number:
            return words[words.index("-") + 1]
    return ""
