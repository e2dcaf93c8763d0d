"""Members: what is taken, what is refused and why, and how a pool grows while it is used."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest

from blockyard.block.file import FileDevice
from blockyard.block.file import create as create_file
from blockyard.pool.members import LEAST, MOST, prepare, stamp
from blockyard.pool.pool import Pool
from blockyard.pool.pool import create as create_pool
from blockyard.pool.space import SLAB
from blockyard.pool.volume import VolumeDevice

SHIFT = 16
CHUNK = 1 << SHIFT


def make(directory: Path, *slabs: int) -> Path:
    """A pool with members of so many slabs for data."""
    directory.mkdir(exist_ok=True)
    names = [prepare(str(directory), (1 + count) * SLAB, number=number) for number, count in enumerate(slabs)]
    create_pool(directory, names)
    return directory


def fill(device: VolumeDevice, start: int, count: int, byte: int = 1) -> None:
    for chunk in range(start, start + count):
        device.pwritev([bytes([byte]) * CHUNK], chunk * CHUNK)


def test_what_can_become_a_member(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    inside = prepare(str(tmp_path / "directory"), 64 << 20, number=3)
    assert inside == str(tmp_path / "directory" / "blockyard-3.data")
    assert os.stat(inside).st_size == 64 << 20
    assert os.stat(inside).st_blocks == 0, "it takes no space before it is used"
    assert prepare(inside, number=3) == inside, "an empty file is taken as it is"
    named = prepare(str(tmp_path / "new"), LEAST, number=0)
    assert os.stat(named).st_size == LEAST
    for path, size, problem in (
        (tmp_path / "directory", 64 << 20, "in the way"),
        (tmp_path / "other", 0, "size of at least 8 MiB is needed"),
        (tmp_path / "other", LEAST - 1, "size of at least 8 MiB is needed"),
        (tmp_path / "new", LEAST, "is there already"),
    ):
        with pytest.raises(OSError, match=problem):
            prepare(str(path), size, number=3)


def test_what_holds_something_is_taken_by_force_only(tmp_path: Path) -> None:
    image = tmp_path / "image"
    create_file(image, 16 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    with pytest.raises(OSError, match="There is something on it; it is overwritten only when that is forced"):
        prepare(str(image), number=0)
    prepare(str(image), number=0, force=True)
    (tmp_path / "pool").mkdir()
    create_pool(tmp_path / "pool", [str(image)])
    with pytest.raises(OSError, match="It is member 0 of the pool"):
        prepare(str(image), number=0)


def test_a_pool_is_not_made_over_another(tmp_path: Path) -> None:
    directory = make(tmp_path / "pool", 1)
    create_file(tmp_path / "more", LEAST)
    with pytest.raises(FileExistsError, match="There is a pool already"):
        create_pool(directory, [str(tmp_path / "more")])
    assert prepare(str(tmp_path / "more"), number=0), "nothing has been written there"
    Pool(directory).close()


def test_too_small_for_a_member(tmp_path: Path) -> None:
    create_file(tmp_path / "small", LEAST - 512)
    with pytest.raises(OSError, match="at least 8 MiB"):
        create_pool(tmp_path, [str(tmp_path / "small")])


def test_too_large_for_a_member(tmp_path: Path) -> None:
    """A place could not tell its end from the beginning of the next member."""
    create_file(tmp_path / "large", LEAST)
    with closing(FileDevice(tmp_path / "large")) as device:
        assert stamp(device, uuid4(), 0) == LEAST
        device.size = MOST + SLAB
        with pytest.raises(OSError, match="at most 4 PiB"):
            stamp(device, uuid4(), 0)


def test_a_pool_can_be_moved_with_the_members_in_its_directory(tmp_path: Path) -> None:
    make(tmp_path / "a", 2)
    (tmp_path / "a").rename(tmp_path / "b")
    with Pool(tmp_path / "b") as pool:
        assert [member.path for member in pool.members.values()] == ["blockyard-0.data"]


def _header(path: Path, change: bytes, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(change)


def test_members_that_are_not_what_they_should_be(tmp_path: Path) -> None:
    directory = make(tmp_path / "pool", 2, 2)
    other = make(tmp_path / "other", 2)
    first, second = directory / "blockyard-0.data", directory / "blockyard-1.data"
    kept = first.read_bytes()

    def refusal() -> str:
        with pytest.raises((OSError, ValueError)) as caught:
            Pool(directory)
        return str(caught.value)

    first.rename(tmp_path / "spare")
    second.rename(first)
    (tmp_path / "spare").rename(second)
    assert "member 0 of the pool (blockyard-0.data): it is member 1: members were swapped" in refusal()
    shutil.copy(other / "blockyard-0.data", first)
    assert "it belongs to another pool" in refusal()
    first.write_bytes(kept[: 2 * SLAB])
    assert f"it has become shorter: {2 * SLAB} bytes, where it had {3 * SLAB}" in refusal()
    first.write_bytes(bytes(3 * SLAB))
    assert "it is no member of any pool" in refusal()
    first.write_bytes(kept)
    _header(first, b"\xff", 20)
    assert "its header is damaged" in refusal()
    first.unlink()
    assert "blockyard-0.data" in refusal()
    first.write_bytes(kept)
    second.write_bytes(bytes([*kept[:12], 1, *kept[13:]]))
    assert "member 1 of the pool (blockyard-1.data): its header is damaged" in refusal()


def test_a_pool_that_is_refused_lets_go_of_everything(tmp_path: Path) -> None:
    directory = make(tmp_path / "pool", 2, 2)
    _header(directory / "blockyard-1.data", b"x", 0)
    for _ in range(2):
        with pytest.raises(ValueError, match="no member of any pool"):
            Pool(directory)
    _header(directory / "blockyard-1.data", b"B", 0)
    Pool(directory).close()


def test_the_pool_grows_while_it_is_written_to(tmp_path: Path) -> None:
    """A writer goes on while members come, and while one grows; all is there after the pool was opened anew."""
    directory = make(tmp_path / "pool", 1)
    with Pool(directory) as pool:
        pool.create_volume("v", 8 * SLAB, SHIFT)
        device = VolumeDevice(pool, "v")
        full = threading.Semaphore(0)
        refusals = 0

        def write() -> None:
            nonlocal refusals
            for chunk in range(3 * SLAB // CHUNK):
                while True:
                    try:
                        fill(device, chunk, 1, chunk % 251 + 1)
                        break
                    except OSError:
                        refusals += 1
                        full.release()

        writer = threading.Thread(target=write)
        writer.start()
        full.acquire()
        pool.add_member(prepare(str(tmp_path), 2 * SLAB, number=1))
        pool.grow_member(0, 3 * SLAB)
        writer.join()
        assert refusals
        assert {number: member.size for number, member in pool.members.items()} == {0: 3 * SLAB, 1: 2 * SLAB}
        with pytest.raises(OSError, match="full"):
            fill(device, 4 * SLAB // CHUNK, 1)
    with Pool(directory) as pool:
        device = VolumeDevice(pool, "v")
        for chunk in range(3 * SLAB // CHUNK):
            data = bytearray(CHUNK)
            device.preadv([memoryview(data)], chunk * CHUNK)
            assert data == bytes([chunk % 251 + 1]) * CHUNK


def test_growing_needs_something_to_grow_by(tmp_path: Path) -> None:
    with Pool(make(tmp_path / "pool", 1)) as pool:
        for size in (0, SLAB, 2 * SLAB):
            with pytest.raises(OSError, match="has not become larger"):
                pool.grow_member(0, size)
        with pytest.raises(KeyError):
            pool.grow_member(1, 4 * SLAB)
        pool.create_volume("v", SLAB, SHIFT)  # nothing of that has harmed it


def test_members_that_hold_nothing_can_be_taken_out(tmp_path: Path) -> None:
    directory = make(tmp_path / "pool", 1, 1)
    with Pool(directory) as pool:
        pool.create_volume("v", 2 * SLAB, SHIFT)
        device = VolumeDevice(pool, "v")
        fill(device, 0, 2 * SLAB // CHUNK)
        with pytest.raises(OSError, match="holds data") as caught:
            pool.remove_member(0)
        assert caught.value.errno == errno.EBUSY
        device.discard(0, SLAB)
        pool.flush()
        pool.remove_member(0)
        with pytest.raises(OSError, match="the only member"):
            pool.remove_member(1)
        with pytest.raises(OSError, match="full"):
            fill(device, 0, 1)
    assert prepare(str(directory / "blockyard-0.data"), number=0), "it can be used for something else"
    with Pool(directory) as pool:
        assert list(pool.members) == [1]
        pool.add_member(prepare(str(tmp_path), 2 * SLAB, number=2))
        assert list(pool.members) == [1, 2], "numbers are not used again"
        fill(VolumeDevice(pool, "v"), 0, 1)


def test_what_is_freed_returns_to_the_file_system(tmp_path: Path) -> None:
    directory = make(tmp_path / "pool", 4)
    data = directory / "blockyard-0.data"
    with Pool(directory) as pool:
        pool.create_volume("v", 2 * SLAB, SHIFT)
        device = VolumeDevice(pool, "v")
        fill(device, 0, 2 * SLAB // CHUNK)
        pool.flush()
        assert os.stat(data).st_blocks * 512 >= 2 * SLAB
        device.discard(0, SLAB)
        device.write_zeroes(SLAB, SLAB - CHUNK)
        pool.flush()
        assert os.stat(data).st_blocks * 512 < 2 * CHUNK + 65536


# ---- block devices


@pytest.fixture
def loops(tmp_path: Path) -> Iterator[list[str]]:
    """Two real block devices."""
    names = []
    for number in range(2):
        create_file(tmp_path / f"disk-{number}", 4 * SLAB)
        done = subprocess.run(
            ["losetup", "--find", "--show", tmp_path / f"disk-{number}"], capture_output=True, text=True, check=True
        )
        names.append(done.stdout.strip())
    yield names
    for name in names:
        subprocess.run(["losetup", "--detach", name], check=True)


def test_block_devices_as_members(loops: list[str], tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    create_pool(tmp_path / "pool", [prepare(loops[0], number=0)])
    with Pool(tmp_path / "pool") as pool:
        pool.create_volume("v", 8 * SLAB, SHIFT)
        device = VolumeDevice(pool, "v")
        fill(device, 0, 2 * SLAB // CHUNK)
        pool.add_member(prepare(loops[1], number=1))
        fill(device, 2 * SLAB // CHUNK, 2 * SLAB // CHUNK)
        for loop in loops:  # claimed: it can be neither mounted nor taken by others
            with pytest.raises(OSError, match=r"in use|mounted"):
                FileDevice(loop)
        pool.flush()
        taken = (tmp_path / "disk-0").stat().st_blocks * 512
        assert taken >= 2 * SLAB
        device.discard(0, 2 * SLAB)
        pool.flush()
        assert (tmp_path / "disk-0").stat().st_blocks * 512 <= taken - SLAB, "freed chunks are discarded"
        os.truncate(tmp_path / "disk-1", 6 * SLAB)
        subprocess.run(["losetup", "--set-capacity", loops[1]], check=True)
        pool.grow_member(1)
        assert pool.members[1].size == 6 * SLAB
    with pytest.raises(OSError, match="member 0 of the pool"):
        prepare(loops[0], number=0)
