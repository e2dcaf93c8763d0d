"""Concatenations and slices."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard.block.building import open_stack, written
from blockyard.block.device import Device, Run
from blockyard.block.layers import Opening
from blockyard.block.stack import StackError

SECTOR = 512


def _read(device: Device, offset: int, length: int) -> bytes:
    data = bytearray(length)
    cut = length // 3
    device.preadv([memoryview(data)[:cut], memoryview(data)[cut:]], offset)
    return bytes(data)


@st.composite
def _writes(draw: st.DrawFn) -> tuple[list[int], list[tuple[str, int, int]]]:
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    total = sum(sizes)
    ranges = st.integers(0, total - 1).flatmap(lambda start: st.tuples(st.just(start), st.integers(1, total - start)))
    acts = st.tuples(st.sampled_from(("write", "discard", "zero")), ranges)
    return sizes, [(act, start, length) for act, (start, length) in draw(st.lists(acts, max_size=8))]


@given(_writes())
def test_a_concatenation_is_one_device(case: tuple[list[int], list[tuple[str, int, int]]]) -> None:
    sizes, acts = case
    device = open_stack(f"concat({', '.join(f'memory({size * SECTOR})' for size in sizes)})")
    model = bytearray(sum(sizes) * SECTOR)
    for number, (act, start, length) in enumerate(acts):
        offset, size = start * SECTOR, length * SECTOR
        data = bytes([number + 1]) * size if act == "write" else bytes(size)
        model[offset : offset + size] = data
        if act == "write":
            device.pwritev([data[: size // 2], data[size // 2 :]], offset)
        elif act == "discard":
            device.discard(offset, size)
        else:
            device.write_zeroes(offset, size)
        assert _read(device, offset, size) == data
    assert _read(device, 0, device.size) == model
    assert sum(run.length for run in device.runs(0, device.size)) == device.size
    device.close()


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    paths = [tmp_path / "a.img", tmp_path / "b.img"]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number + 1]) * 16384)
    return list(map(str, paths))


def test_the_short_road(files: Sequence[str]) -> None:
    device = open_stack(f"concat({files[0]}, {files[1]}, memory(8K))")
    quick = device.quick
    assert quick is not None
    assert device.fd == -1
    data = bytearray(4096)
    assert quick.read([memoryview(data)], 16384 + 4096, 4096)
    assert data == b"\2" * 4096
    assert quick.write(memoryview(b"x" * 4096), 16384)
    assert _read(device, 16384, 8192) == b"x" * 4096 + b"\2" * 4096
    assert not quick.read([memoryview(data)], 16384 - 512, 4096)  # in two files
    assert not quick.write(memoryview(data), 16384 - 512)
    assert not quick.read([memoryview(data)], 32768, 4096)  # memory has no descriptor
    assert not quick.write(memoryview(data), 32768)
    found = device.resolve(16384 - 512, 1024)
    assert found is not None
    assert [extent.position for extent in found] == [16384 - 512, 0]
    assert device.resolve(32768 - 512, 1024) is None
    os.close(found[0].fd)  # what goes wrong is left to the long road
    assert not quick.read([memoryview(data)], 0, 4096)
    assert not quick.write(memoryview(data), 0)


def test_the_first_part_of_a_file_is_as_quick_as_the_file(files: Sequence[str]) -> None:
    device = open_stack(f"slice(length=8K, {files[0]})")
    assert device.fd == device.children[0].fd >= 0
    assert device.quick is None
    device.close()


def test_slices_share_what_they_stand_on(files: Sequence[str]) -> None:
    opening = Opening()
    array = f"concat({files[0]}, {files[1]})"
    first, second = (open_stack(f"slice(offset={at}, length=16K, {array})", opening) for at in ("8K", "0"))
    assert first.children[0] is second.children[0]
    second.pwritev([b"x" * 8192], 8192)
    assert _read(first, 0, 16384) == b"x" * 8192 + b"\2" * 8192
    assert written(first) == f'slice(offset=8K, length=16K, concat(file("{files[0]}"), file("{files[1]}")))'
    first.close()
    assert _read(second, 0, 512) == b"\1" * 512
    second.close()
    open_stack(files[0]).close()  # nobody has it any more


def test_failing_slices_leave_nothing_open(files: Sequence[str]) -> None:
    opening = Opening()
    for text in ("slice(offset=16K, {})", "slice(length=17K, {})", "slice(offset=1M, length=1K, {})"):
        with pytest.raises(StackError, match="ends at 16384"):
            open_stack(text.format(files[0]), opening)
    with pytest.raises(FileNotFoundError):
        open_stack(f"slice({files[0]}.not)", opening)
    open_stack(files[0], opening).close()


def test_the_end_grows(files: Sequence[str]) -> None:
    concat, pinned = (
        open_stack(f"concat({', '.join(files)})"),
        open_stack("concat(sizes=[4K, 1K], memory(4K), memory(4K))"),
    )
    for path in files:
        os.truncate(path, 32768)
    concat.refresh()
    assert concat.size == 16384 + 32768
    assert _read(concat, 16384, 512) == b"\2" * 512
    concat.close()
    pinned.refresh()
    assert pinned.size == 5120
    with pytest.raises(StackError, match="has 4096 bytes, not 8192"):
        open_stack("concat(sizes=[8K], memory(4K))")
    with pytest.raises(StackError, match="2 sizes for 1 layers"):
        open_stack("concat(sizes=[4K, 4K], memory(4K))")


def test_what_is_said_of_space(files: Sequence[str]) -> None:
    thin = open_stack("concat(memory(64K), memory(64K))")
    thin.pwritev([b"x" * 4096], 61440)
    assert list(thin.runs(4096, thin.size - 4096)) == [
        Run(4096, 57344, False), Run(61440, 4096, True), Run(65536, 65536, False)
    ]  # fmt: skip
    space = thin.space()
    assert space is not None
    assert space.used == 4096
    assert thin.granularity == 4096


def test_only_for_reading(files: Sequence[str]) -> None:
    os.chmod(files[0], 0o400)
    device = open_stack(f"readonly(concat({', '.join(files)}))")
    assert device.read_only
    assert _read(device, 16384, 512) == b"\2" * 512
    quick = device.quick
    assert quick is not None
    with pytest.raises(OSError, match="reading only"):
        device.pwritev([bytes(512)], 0)
    open_stack(files[0], Opening(read_only=True)).close()  # it has been locked as readers do
    device.refresh()
    assert list(device.runs(0, 512)) == [Run(0, 512, True)]
    device.prefetch(0, 512)
    assert device.resolve(0, 512)
    device.close()
