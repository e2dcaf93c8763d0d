"""Files and block devices as devices."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockyard.block import file
from blockyard.block.device import Extent, Run
from blockyard.block.file import FileDevice, create
from tests.waiting import eventually

_SIZE = 1 << 20
_MEMORY = Path("/dev/shm")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    create(tmp_path / "disk.img", _SIZE)
    return tmp_path / "disk.img"


@pytest.fixture
def device(path: Path) -> Iterator[FileDevice]:
    opened = FileDevice(path)
    yield opened
    opened.close()


def read(device: FileDevice, offset: int, length: int) -> bytes:
    data = bytearray(length)
    device.preadv([memoryview(data)], offset)
    return bytes(data)


# ---- creating and opening


def test_create(path: Path) -> None:
    status = path.stat()
    assert status.st_size == _SIZE
    assert status.st_blocks == 0
    assert stat.S_IMODE(status.st_mode) == 0o600
    with pytest.raises(FileExistsError):
        create(path, 10)
    assert path.stat().st_size == _SIZE


def test_create_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"too large|Invalid"):
        create(tmp_path / "huge.img", (1 << 63) - 1)
    assert not (tmp_path / "huge.img").exists()


def test_open(device: FileDevice, path: Path) -> None:
    assert device.size == _SIZE
    assert device.granularity == path.stat().st_blksize
    assert device.fd >= 0
    assert not device.read_only
    assert not os.get_inheritable(device.fd)
    assert device.resolve(512, 1024) == (Extent(device.fd, 512, 1024),)
    assert repr(device) == f"FileDevice('{path}', {_SIZE} bytes)"


def test_size_is_cut_to_sectors(tmp_path: Path) -> None:
    (tmp_path / "odd").write_bytes(bytes(1300))
    device = FileDevice(tmp_path / "odd")
    assert device.size == 1024
    device.close()


@pytest.mark.parametrize("size", [0, 1, 511])
def test_too_small(tmp_path: Path, size: int) -> None:
    (tmp_path / "small").write_bytes(bytes(size))
    with pytest.raises(OSError, match="smaller than one sector") as caught:
        FileDevice(tmp_path / "small")
    assert caught.value.errno == errno.EINVAL


def test_what_is_no_disk(tmp_path: Path) -> None:
    for wrong in (tmp_path, Path("/dev/null")):
        with pytest.raises(OSError, match="neither a regular file nor a block device"):
            FileDevice(wrong)
    with pytest.raises(FileNotFoundError):
        FileDevice(tmp_path / "missing")


def test_refresh(device: FileDevice, path: Path) -> None:
    os.truncate(path, 2 * _SIZE)
    assert device.size == _SIZE
    device.refresh()
    assert device.size == 2 * _SIZE


# ---- locks


def test_only_one_writer(device: FileDevice, path: Path) -> None:
    for read_only in (False, True):
        with pytest.raises(OSError, match=f"in use by process {os.getpid()}") as caught:
            FileDevice(path, read_only=read_only)
        assert caught.value.errno == errno.EBUSY
        assert str(path) in str(caught.value)


def test_many_readers(path: Path) -> None:
    readers = [FileDevice(path, read_only=True) for _ in range(3)]
    with pytest.raises(OSError, match="in use by"):
        FileDevice(path)
    for reader in readers:
        reader.close()
    FileDevice(path).close()


def test_a_failed_open_keeps_nothing(path: Path) -> None:
    def opened() -> int:
        """How often it is, by this process."""
        links = []
        for fd in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):  # others come and go
                links.append(os.readlink(f"/proc/self/fd/{fd}"))
        return links.count(str(path))

    first = FileDevice(path)
    before = opened()
    with pytest.raises(OSError, match="in use"):
        FileDevice(path)
    assert opened() == before > 0
    first.close()


def test_the_lock_holds_between_processes(device: FileDevice, path: Path) -> None:
    script = f"from blockyard.block.file import FileDevice; FileDevice({str(path)!r})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 1
    assert f"in use by process {os.getpid()}" in done.stderr


# ---- reading and writing


def test_vectors(device: FileDevice) -> None:
    device.pwritev([b"a" * 512, bytearray(b"b" * 1024), memoryview(b"c" * 512)], 512)
    first, second = bytearray(1024), bytearray(2048)
    device.preadv([memoryview(first), memoryview(second)], 0)
    assert first + second == bytes(512) + b"a" * 512 + b"b" * 1024 + b"c" * 512 + bytes(512)


def test_more_buffers_than_one_call_takes(device: FileDevice) -> None:
    pieces = [bytes([number & 0xFF]) * 512 for number in range(2000)]
    device.pwritev(pieces, 0)
    buffers = [bytearray(512) for _ in pieces]
    device.preadv([memoryview(buffer) for buffer in buffers], 0)
    assert buffers == pieces


def test_nothing(device: FileDevice) -> None:
    device.pwritev([], 0)
    device.pwritev([b""], 0)
    assert read(device, 0, 0) == b""


@pytest.mark.parametrize("limit", [1, 511, 700])
def test_short_transfers_are_completed(device: FileDevice, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel may move less than it was asked to; here it moves `limit` bytes at a time."""

    def shortened(call: Callable[..., int]) -> Callable[..., int]:
        def short(fd: int, buffers: list[memoryview], offset: int) -> int:
            left, taken = limit, []
            for buffer in buffers:
                taken.append(memoryview(buffer)[:left])
                left -= len(taken[-1])
            return call(fd, taken, offset)

        return short

    monkeypatch.setattr(os, "preadv", shortened(os.preadv))
    monkeypatch.setattr(os, "pwritev", shortened(os.pwritev))
    data = os.urandom(2048)
    device.pwritev([data[:100], data[100:1500], data[1500:]], 512)
    buffers = [bytearray(600), bytearray(1448)]
    device.preadv([memoryview(buffer) for buffer in buffers], 512)
    assert b"".join(buffers) == data


def test_a_file_that_was_cut_short(device: FileDevice, path: Path) -> None:
    os.truncate(path, 1024)
    with pytest.raises(OSError, match="cut short") as caught:
        read(device, 512, 1024)
    assert caught.value.errno == errno.EIO


def test_read_only(path: Path) -> None:
    path.write_bytes(b"x" * 4096)
    device = FileDevice(path, read_only=True)
    assert read(device, 0, 4096) == b"x" * 4096
    assert device.granularity == 4096  # nothing can be freed, but holes are told from data
    device.flush()
    writers: list[Callable[[], None]] = [
        lambda: device.pwritev([b"y" * 512], 0),
        lambda: device.discard(0, 512),
        lambda: device.write_zeroes(0, 512),
    ]
    for write in writers:
        with pytest.raises(OSError, match="reading only") as caught:
            write()
        assert caught.value.errno == errno.EROFS
    device.close()
    assert path.read_bytes() == b"x" * 4096


def test_disk_full(path: Path) -> None:
    """A process may be forbidden to make files larger; that ends like a file system without room."""
    script = (
        "import resource, signal\n"
        "from blockyard.block.file import FileDevice\n"
        f"device = FileDevice({str(path)!r})\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n"
        "    device.pwritev([bytes(8192)], 0)\n"
        "except OSError as error:\n"
        "    print(error.errno)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=180, check=True)
    assert int(done.stdout) == errno.EFBIG


# ---- flush


def test_flush_and_close(path: Path) -> None:
    device = FileDevice(path)
    device.pwritev([b"x" * 512], 0)
    device.flush()
    device.close()
    device.close()
    assert (device.fd, device.resolve(0, 512)) == (-1, None)
    assert path.read_bytes()[:512] == b"x" * 512


def test_a_failed_flush_fails_for_ever(device: FileDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", fail)
        with pytest.raises(OSError, match="Write-back has failed"):
            device.flush()
    with pytest.raises(OSError, match="Write-back has failed") as caught:
        device.flush()
    assert caught.value.errno == errno.EIO


# ---- holes


def fill(device: FileDevice) -> None:
    device.pwritev([b"x" * _SIZE], 0)


def test_discard_gives_space_back(device: FileDevice, path: Path) -> None:
    fill(device)
    device.flush()
    before = path.stat().st_blocks
    device.discard(64 << 10, 512 << 10)
    assert path.stat().st_blocks == before - 1024
    assert path.stat().st_size == _SIZE
    assert os.lseek(device.fd, 64 << 10, os.SEEK_DATA) == 576 << 10
    assert os.lseek(device.fd, 0, os.SEEK_HOLE) == 64 << 10


def _unsupported(fd: int, mode: int, offset: int, length: int) -> None:
    raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))


@pytest.mark.parametrize("name", ["discard", "write_zeroes"])
@pytest.mark.parametrize("able", [True, False])
@pytest.mark.parametrize("start", [0, 512, 3584, 4096])
@pytest.mark.parametrize("end", [4608, 8192, 12288, _SIZE - 512, _SIZE])
def test_all_of_the_range_reads_as_zeros(path: Path, name: str, able: bool, start: int, end: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        device = FileDevice(path)
        if not able:  # on a file system that can do neither
            patched.setattr(file, "fallocate", _unsupported)
        fill(device)
        getattr(device, name)(start, end - start)
        assert read(device, 0, _SIZE) == b"x" * start + bytes(end - start) + b"x" * (_SIZE - end)
        device.close()


def test_other_errors_of_fallocate_are_told(device: FileDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int, mode: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(file, "fallocate", fail)
    with pytest.raises(OSError, match="No space"):
        device.write_zeroes(0, 4096)


def test_fallocate_tells_its_errors() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.fallocate(-1, 0, 0, 512)


def test_unaligned_zeros_on_large_sectors(device: FileDevice) -> None:
    """As on a block device that zeroes whole sectors only."""
    device.alignment = 4096
    for offset, length in [(512, 512), (512, 8192), (4096, 4096), (3584, 1024)]:
        fill(device)
        device.discard(offset, length)
        assert read(device, 0, _SIZE) == b"x" * offset + bytes(length) + b"x" * (_SIZE - offset - length)


def test_runs(device: FileDevice) -> None:
    assert list(device.runs(0, _SIZE)) == [Run(0, _SIZE, False)]
    device.pwritev([b"x" * 8192], 16384)
    device.pwritev([b"x" * 4096], _SIZE - 4096)
    assert list(device.runs(0, _SIZE)) == [
        Run(0, 16384, False),
        Run(16384, 8192, True),
        Run(24576, _SIZE - 24576 - 4096, False),
        Run(_SIZE - 4096, 4096, True),
    ]
    assert list(device.runs(20480, 1024)) == [Run(20480, 1024, True)]
    assert list(device.runs(20480, 8192)) == [Run(20480, 4096, True), Run(24576, 4096, False)]
    assert list(device.runs(0, 0)) == []


@settings(max_examples=50, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["pwritev", "discard", "write_zeroes"]), st.integers(0, 63), st.integers(1, 16)),
        max_size=20,
    )
)
def test_model(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]) -> None:
    path = tmp_path_factory.mktemp("model") / "disk.img"
    create(path, 64 * 512)
    device = FileDevice(path)
    model = bytearray(64 * 512)
    for name, start, count in steps:
        offset, length = start * 512, min(count, 64 - start) * 512
        if name == "pwritev":
            device.pwritev([b"x" * length], offset)
            model[offset : offset + length] = b"x" * length
        else:
            getattr(device, name)(offset, length)
            model[offset : offset + length] = bytes(length)
    assert read(device, 0, len(model)) == model
    at = 0
    for run in device.runs(0, len(model)):
        assert run.offset == at
        assert run.mapped or not any(model[at : at + run.length])
        at += run.length
    assert at == len(model)
    device.close()


def test_threads(device: FileDevice) -> None:
    """Positions of the descriptor are of no account to anybody."""
    fill(device)
    device.discard(_SIZE // 2, _SIZE // 4)
    expected = list(device.runs(0, _SIZE))

    def work(number: int) -> bool:
        offset = number * 4096
        device.pwritev([bytes([number + 1]) * 4096], offset)
        return list(device.runs(0, _SIZE)) == expected and read(device, offset, 4096) == bytes([number + 1]) * 4096

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(100)))


# ---- what the file system can do


def _nowait(path: Path) -> bool:
    with path.open("rb") as opened:
        try:
            os.preadv(opened.fileno(), [bytearray(1)], 0, os.RWF_NOWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
    return True


def test_nowait(device: FileDevice, path: Path) -> None:
    assert device.nowait is _nowait(path)


def test_a_file_in_memory_is_read_directly() -> None:
    path = _MEMORY / f"blockyard-test-{os.getpid()}"
    create(path, _SIZE)
    try:
        device = FileDevice(path)
        assert device.fd >= 0
        assert device.nowait is _nowait(path)
        fill(device)
        device.discard(0, _SIZE // 2)
        device.write_zeroes(_SIZE // 2, 4096)
        assert not any(read(device, 0, _SIZE // 2 + 4096))
        assert next(device.runs(0, _SIZE)) == Run(0, _SIZE // 2, False)
        assert not device.rotational
        device.close()
    finally:
        path.unlink()


@pytest.mark.parametrize("probe", [errno.EOPNOTSUPP, errno.EINVAL, errno.EAGAIN, errno.EIO])
def test_probe_for_nowait(path: Path, probe: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def preadv(fd: int, buffers: object, offset: int, flags: int) -> int:
        assert flags == os.RWF_NOWAIT
        raise OSError(probe, os.strerror(probe))

    monkeypatch.setattr(os, "preadv", preadv)
    monkeypatch.setattr(file, "_file_system", lambda device: "nfs")
    if probe == errno.EIO:
        with pytest.raises(OSError, match="Input/output"):
            FileDevice(path)
        return
    device = FileDevice(path)
    assert device.nowait is (probe == errno.EAGAIN)
    assert (device.fd >= 0) is device.nowait  # else nobody could tell whether a read would wait
    assert (device.resolve(0, 512) is None) is not device.nowait
    device.close()


def test_a_file_system_without_holes_is_not_thin(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "fallocate", _unsupported)
    device = FileDevice(path)
    assert device.granularity == 0
    device.close()


def test_file_system_names() -> None:
    assert file._file_system(os.stat("/dev/shm").st_dev) == "tmpfs"
    assert file._file_system(os.makedev(4095, 1)) == ""


# ---- block devices


@pytest.fixture
def loop(path: Path) -> Iterator[str]:
    done = subprocess.run(["losetup", "--find", "--show", str(path)], capture_output=True, text=True, check=True)
    name = done.stdout.strip()
    yield name
    subprocess.run(["losetup", "--detach", name], check=True)


if os.access("/dev/loop-control", os.R_OK | os.W_OK):  # who may not make one has no block device to try

    def test_block_device(loop: str, path: Path) -> None:
        device = FileDevice(loop)
        try:
            assert device.size == _SIZE
            assert device.alignment == 512
            with pytest.raises(OSError, match=r"in use|mounted") as caught:
                FileDevice(loop)
            assert caught.value.errno == errno.EBUSY
            fill(device)
            device.flush()
            assert path.read_bytes() == b"x" * _SIZE
            device.discard(65536, 512 << 10)
            device.write_zeroes(0, 512)
            expected = bytes(512) + b"x" * 65024 + bytes(512 << 10) + b"x" * (_SIZE - (576 << 10))
            assert read(device, 0, _SIZE) == expected
            device.flush()
            assert path.read_bytes() == expected
            assert list(device.runs(512, _SIZE - 512)) == [Run(512, _SIZE - 512, True)]
            if device.granularity:
                assert path.stat().st_blocks <= 2048 - 1024
        finally:
            device.close()

    def test_mounted_block_device(loop: str, tmp_path: Path) -> None:
        subprocess.run(["mkfs.ext4", "-q", loop], check=True)
        (tmp_path / "mount").mkdir()
        subprocess.run(["mount", loop, str(tmp_path / "mount")], check=True)
        try:
            with pytest.raises(OSError, match="It is mounted, or another program has claimed it"):
                FileDevice(loop)
        finally:
            subprocess.run(["umount", str(tmp_path / "mount")], check=True)
        FileDevice(loop).close()


def test_flushes_that_come_together_share_one(device: FileDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """Group commit: while one fdatasync runs, all who ask wait for the next, and only that one follows."""
    began, go_on = threading.Event(), threading.Event()
    calls: list[int] = []
    real = os.fdatasync

    def slow(fd: int) -> None:
        calls.append(fd)
        began.set()
        assert go_on.wait(120)
        real(fd)

    monkeypatch.setattr(os, "fdatasync", slow)
    first = threading.Thread(target=device.flush)
    first.start()
    assert began.wait(120)
    others = [threading.Thread(target=device.flush) for _ in range(8)]
    for thread in others:
        thread.start()
    eventually(lambda: len(device._flushing._waiters) == len(others))  # type: ignore[attr-defined]  # only it knows who waits
    go_on.set()
    for thread in (first, *others):
        thread.join(120)
        assert not thread.is_alive()
    assert len(calls) == 2
    device.flush()
    assert len(calls) == 3, "a flush after all others are over must sync anew"


def test_reading_only_and_writing_again_in_place(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"a" * 4096)
    device = FileDevice(path)
    fd = device.fd
    device.reopen(read_only=True)
    with pytest.raises(OSError, match="reading only"):
        device.pwritev([b"b"], 0)
    reader = FileDevice(path, read_only=True)  # readers may share it
    with pytest.raises(OSError, match="in use by process"):
        device.reopen(read_only=False)
    assert device.read_only
    reader.close()
    device.reopen(read_only=False)
    device.pwritev([b"b"], 0)
    with pytest.raises(OSError, match="in use by process"):
        FileDevice(path)
    assert device.fd == fd, "whoever holds the descriptor goes on with it"
    device.close()
    assert path.read_bytes()[:2] == b"ba"


def test_where_sysfs_may_not_be_looked_at(tmp_path: Path) -> None:
    """Containers have /sys/dev hidden from them."""
    (tmp_path / "disk.img").write_bytes(bytes(_SIZE))
    (tmp_path / "disk.img").chmod(0o666)
    tmp_path.chmod(0o755)
    hide = 'mount -t tmpfs -o mode=000 none /sys/dev && exec "$@"'
    script = (
        "import os; from blockyard.block.file import FileDevice; os.setuid(65534); print(FileDevice('disk.img').size)"
    )
    told = subprocess.run(
        ["unshare", "--mount", "sh", "-c", hide, "sh", sys.executable, "-c", script],
        cwd=tmp_path, stdout=subprocess.PIPE, text=True, timeout=180, check=True,
    )  # fmt: skip
    assert int(told.stdout) == _SIZE
