"""Differencing images: parents found, checked and left alone; merges, also interrupted ones."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from blockyard.block import formats
from blockyard.block.device import Device
from blockyard.block.image_states import ImageError
from tests.memory import FAST

MIB = 1 << 20
SIZE = 6 * MIB
FORMATS = pytest.mark.parametrize("format", ["vhd", "vhdx"])


@pytest.fixture
def directory() -> Iterator[Path]:
    """Where flushes cost nothing."""
    fast = Path(tempfile.mkdtemp(prefix="blockyard-vhd-", dir=FAST))
    yield fast
    shutil.rmtree(fast)


def chain(directory: Path, format: str, *names: str, block_size: int = 0) -> list[Path]:
    """Images that stand on each other, each with a megabyte of its own number in the megabyte of its number."""
    paths: list[Path] = []
    for number, name in enumerate(names):
        path = directory / f"{name}.{format}"
        path.parent.mkdir(exist_ok=True)
        parent = str(paths[-1]) if paths else None
        formats.create_image(path, format, 0 if parent else SIZE, parent=parent, block_size=block_size)
        write(path, number * MIB, bytes([number + 1]) * MIB)
        paths.append(path)
    return paths


def write(path: Path, offset: int, data: bytes) -> None:
    image = formats.open_image(path)
    image.pwritev([data], offset)
    image.close()


def content(path: Path) -> bytes:
    image = formats.open_image(path, read_only=True)
    data = bytearray(image.size)
    image.preadv([memoryview(data)], 0)
    image.close()
    return bytes(data)


def expected(count: int) -> bytes:
    return b"".join(bytes([number + 1]) * MIB for number in range(count)) + bytes(SIZE - count * MIB)


def parent_of(image: Device) -> Device:
    parent: Device = image.parent  # type: ignore[attr-defined]
    return parent


@FORMATS
def test_a_chain_reads_as_one(format: str, directory: Path) -> None:
    paths = chain(directory, format, "a", "b", "c", "d")
    assert content(paths[3]) == expected(4)
    assert content(paths[0]) == expected(1)
    assert formats.describe(paths[3]).parents == [str(path) for path in reversed(paths[:3])]
    image = formats.open_image(paths[3])
    assert parent_of(image).read_only
    with pytest.raises(OSError, match="in use"):  # nobody writes to a parent meanwhile
        formats.open_image(paths[1])
    image.close()


@FORMATS
def test_parents_are_found_relative_to_the_child_and_absolute(format: str, directory: Path) -> None:
    chain(directory, format, "one/a", "two/b")
    (directory / "elsewhere").mkdir()
    for name in ("one", "two"):
        (directory / name).rename(directory / "elsewhere" / name)
    child = directory / "elsewhere" / "two" / f"b.{format}"
    assert content(child) == expected(2)
    (directory / "one").mkdir()
    (directory / "elsewhere" / "one" / f"a.{format}").rename(directory / "one" / f"a.{format}")
    child.rename(directory / f"b.{format}")
    assert content(directory / f"b.{format}") == expected(2)


@FORMATS
def test_a_parent_that_is_missing_another_or_changed_is_refused(format: str, directory: Path) -> None:
    base, child = chain(directory, format, "base", "child")
    kept = base.read_bytes()
    base.unlink()
    with pytest.raises(ImageError, match="is not there"):
        formats.open_image(child)
    formats.create_image(base, format, SIZE)
    with pytest.raises(ImageError, match=r"parent cannot be found: .*the (parent|child)"):
        formats.open_image(child)
    base.write_bytes(kept)
    assert content(child) == expected(2)
    formats.open_image(base).close()
    assert content(child) == expected(2), "who has written nothing has changed nothing"
    write(base, 0, b"\xff" * 512)
    os.utime(base, (time.time() + 60, time.time() + 60))
    with pytest.raises(ImageError, match="changed since"):
        formats.open_image(child)


@FORMATS
def test_the_parent_of_an_image_has_its_format(format: str, directory: Path) -> None:
    (directory / "raw").write_bytes(bytes(SIZE))
    with pytest.raises(OSError, match=r"footer|vhdxfile"):
        formats.create_image(directory / "child", format, parent=str(directory / "raw"))
    assert not (directory / "child").exists()


@FORMATS
def test_cycles_are_refused(format: str, directory: Path) -> None:
    a, b, c = chain(directory, format, "a", "b", "c")
    a.write_bytes(c.read_bytes())
    for path in (a, b, c):
        with pytest.raises(ImageError, match=r"cycle|parent cannot be found"):
            formats.open_image(path, read_only=True)
    lonely = directory / f"lonely.{format}"
    lonely.write_bytes(c.read_bytes())
    b.unlink()
    b.symlink_to(lonely)
    with pytest.raises(ImageError, match="cycle"):
        formats.open_image(lonely, read_only=True)


@FORMATS
def test_a_child_may_be_larger(format: str, directory: Path) -> None:
    base, child = chain(directory, format, "base", "child")
    formats.resize(str(child), SIZE + 3 * MIB)
    write(child, SIZE + MIB, b"\x09" * MIB)
    grown = expected(2) + bytes(MIB) + b"\x09" * MIB + bytes(MIB)
    assert content(child) == grown
    assert formats.merge(str(child)) == str(base)
    assert content(base) == grown


@FORMATS
def test_merging_brings_writes_and_zeros_to_the_parent(format: str, directory: Path) -> None:
    base, middle, top = chain(directory, format, "base", "middle", "top")
    image = formats.open_image(top)
    image.discard(0, 2 * MIB)
    image.write_zeroes(2 * MIB + 4096, 4096)
    image.close()
    before = content(top)
    seen: list[tuple[int, int]] = []
    assert formats.merge(str(top), progress=lambda done, total: seen.append((done, total))) == str(middle)
    assert seen[-1][0] <= seen[-1][1] == SIZE
    assert content(middle) == before
    top.unlink()
    assert formats.merge(str(middle)) == str(base)
    assert content(base) == before
    with pytest.raises(ImageError, match="no parent"):
        formats.merge(str(base))


@FORMATS
def test_a_merge_that_was_interrupted_is_begun_again(format: str, directory: Path) -> None:
    base, child = chain(directory, format, "base", "child")
    write(child, 4 * MIB, b"\x07" * MIB)
    before = content(child)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        formats.merge(str(child), progress=stop)
    assert content(child) == before
    formats.merge(str(child))
    assert content(base) == before


@FORMATS
def test_compacting_a_child_keeps_what_is_not_its_parents(format: str, directory: Path) -> None:
    _, child = chain(directory, format, "base", "child", block_size=MIB)
    for number in range(6):
        write(child, number * MIB, bytes([number + 1]) * MIB)
    image = formats.open_image(child)
    image.write_zeroes(0, 4 * MIB)
    image.close()
    size = child.stat().st_size
    formats.compact(str(child))
    assert content(child) == bytes(4 * MIB) + b"\x05" * MIB + b"\x06" * MIB
    assert (child.stat().st_size < size) == (format == "vhdx")  # a VHD cannot say that a block is zeros
    formats.repair(str(child))
    assert content(child) == bytes(4 * MIB) + b"\x05" * MIB + b"\x06" * MIB
