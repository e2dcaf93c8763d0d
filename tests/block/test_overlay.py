"""The overlay of a session that may write without changing anything."""

from __future__ import annotations

import errno
import itertools
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockyard.block import overlay
from blockyard.block.building import open_stack
from blockyard.block.device import Run
from blockyard.block.file import FileDevice
from blockyard.block.memory import MemoryDevice
from blockyard.block.overlay import GRANULE, Budget, OverlayDevice, RangeSet

SIZE = 12 * GRANULE + 1536  # the last granule is not a whole one
BASE = bytes(n % 251 + 1 for n in range(SIZE))


def base(*, granularity: int = 4096) -> MemoryDevice:
    device = MemoryDevice(SIZE, granularity=granularity)
    device.pwritev([BASE], 0)
    device.read_only = True  # a write that came through would be seen below
    return device


def read(device: OverlayDevice, offset: int = 0, length: int = SIZE) -> bytes:
    data = bytearray(length)
    device.preadv([memoryview(data)[: length // 2], memoryview(data)[length // 2 :]], offset)
    return bytes(data)


SECTORS = st.tuples(st.integers(0, SIZE // 512 - 1), st.integers(1, SIZE // 512)).map(
    lambda pair: (pair[0] * 512, min(pair[1] * 512, SIZE - pair[0] * 512))
)
ACTIONS = st.lists(
    st.tuples(st.sampled_from(["write", "discard", "write_zeroes"]), SECTORS, st.integers(1, 255)), max_size=20
)


@settings(max_examples=150, deadline=None)  # a machine under load is no failure
@given(ACTIONS)
def test_it_is_what_was_written_over_what_is_below(actions: list[tuple[str, tuple[int, int], int]]) -> None:
    below = base()
    device = OverlayDevice(below, budget=Budget(1 << 20))
    model = bytearray(BASE)
    for action, (offset, length), value in actions:
        if action == "write":
            data = bytes([value]) * length
            device.pwritev([data[: length // 2], data[length // 2 :]], offset)
            model[offset : offset + length] = data
        else:
            getattr(device, action)(offset, length)
            model[offset : offset + length] = bytes(length)
    assert read(device) == model
    for _, (offset, length), _ in actions:
        assert read(device, offset, length) == model[offset : offset + length]
    runs = list(device.runs(0, SIZE))
    assert [run.offset for run in runs] == [sum(r.length for r in runs[:number]) for number in range(len(runs))]
    assert sum(run.length for run in runs) == SIZE
    assert all(one.mapped != other.mapped for one, other in itertools.pairwise(runs))
    for run in runs:
        assert run.mapped or not any(model[run.offset : run.offset + run.length])
    assert below.data == BASE
    device.close()


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=30))
def test_range_sets(ranges: list[tuple[int, int]]) -> None:
    kept = RangeSet()
    model: set[int] = set()
    for start, length in ranges:
        kept.add(start, start + length)
        model.update(range(start, start + length))
    assert {number for number in range(100) if number in kept} == model
    edges = {n for n in range(1, 100) if (n in model) != (n - 1 in model)}
    assert sorted(kept.cuts(0, 100)) == sorted(edges)
    assert len(kept) == len([n for n in model if n - 1 not in model])


def test_it_takes_no_more_than_its_limit_and_gives_back_what_is_discarded() -> None:
    device = OverlayDevice(base(), budget=Budget(2 * GRANULE))
    device.pwritev([b"x" * 2 * GRANULE], 0)
    with pytest.raises(OSError, match="All that may be written") as raised:
        device.pwritev([b"y" * GRANULE], 4 * GRANULE)
    assert raised.value.errno == errno.ENOSPC
    device.pwritev([b"z" * GRANULE], GRANULE)  # what it has already can be written anew
    device.discard(0, GRANULE)
    assert device.written == GRANULE
    device.pwritev([b"y" * GRANULE], 4 * GRANULE)
    assert read(device, 0, 6 * GRANULE) == (
        bytes(GRANULE)
        + b"z" * GRANULE
        + BASE[2 * GRANULE : 4 * GRANULE]
        + b"y" * GRANULE
        + BASE[5 * GRANULE : 6 * GRANULE]
    )


def test_several_share_one_budget() -> None:
    budget = Budget(2 * GRANULE)
    one, other = OverlayDevice(base(), budget=budget), OverlayDevice(base(), budget=budget)
    one.pwritev([b"x" * GRANULE], 0)
    other.pwritev([b"x" * GRANULE], 0)
    with pytest.raises(OSError, match="All that may be written"):
        other.pwritev([b"x" * GRANULE], GRANULE)
    one.close()
    other.pwritev([b"x" * GRANULE], GRANULE)


def test_a_disk_of_an_exbibyte_is_discarded_as_fast_as_a_small_one() -> None:
    below = MemoryDevice(0, granularity=4096)
    below.size = 1 << 60
    device = OverlayDevice(below, budget=Budget(1 << 20))
    device.discard(0, 1 << 60)
    device.pwritev([b"x" * 512], 1 << 59)
    assert list(device.runs(0, 1 << 60)) == [
        Run(0, 1 << 59, False), Run(1 << 59, GRANULE, True), Run((1 << 59) + GRANULE, (1 << 59) - GRANULE, False),
    ]  # fmt: skip
    assert read(device, (1 << 60) - 4096, 4096) == bytes(4096)


def test_the_map_of_what_is_discarded_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlay, "_MAX_RANGES", 2)
    device = OverlayDevice(base(), budget=Budget(1 << 20))
    for granule in (0, 2, 4, 6):
        device.discard(granule * GRANULE, GRANULE)
    assert device.written == 2 * GRANULE  # what did not fit the map was written out
    assert all(read(device, granule * GRANULE, GRANULE) == bytes(GRANULE) for granule in (0, 2, 4, 6))


def test_its_file_has_no_name_and_ends_with_it(tmp_path: Path) -> None:
    device = OverlayDevice(base(), directory=tmp_path, budget=Budget(1 << 20))
    device.pwritev([b"x" * GRANULE], 0)
    assert list(tmp_path.iterdir()) == []
    fd = device._fd
    assert os.fstat(fd).st_nlink == 0
    device.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_a_device_that_frees_nothing_stays_one() -> None:
    assert OverlayDevice(base(granularity=0), budget=Budget(1)).granularity == 0
    assert OverlayDevice(base(), budget=Budget(1 << 20)).granularity == GRANULE


def test_a_write_that_fails_below_leaves_the_granule_as_it_was() -> None:
    below = base()
    device = OverlayDevice(below, budget=Budget(1 << 20))
    whole, below.preadv = below.preadv, _failing  # type: ignore[method-assign, assignment]
    with pytest.raises(OSError, match="broken"):
        device.pwritev([b"x" * 512], 0)
    below.preadv = whole  # type: ignore[method-assign]
    assert read(device) == BASE
    assert device.written == 0


def _failing(*_: object) -> None:
    raise OSError(errno.EIO, "broken")


def test_several_threads_write_side_by_side() -> None:
    device = OverlayDevice(base(), budget=Budget(1 << 20))

    def fill(number: int) -> None:
        for sector in range(number, SIZE // 512, 4):
            device.pwritev([bytes([number + 1]) * 512], sector * 512)

    threads = [threading.Thread(target=fill, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read(device) == b"".join(bytes([sector % 4 + 1]) * 512 for sector in range(SIZE // 512))


def test_as_a_layer_of_a_stack(tmp_path: Path) -> None:
    golden = tmp_path / "golden.img"
    golden.write_bytes(b"g" * 65536)
    device = open_stack(f"overlay(limit=8K, directory={tmp_path}, {golden})")
    device.pwritev([b"x" * 8192], 4096)
    assert device.report() == {"text": "8 KiB of 8 KiB written"}
    with pytest.raises(OSError, match="All that may be written"):
        device.pwritev([b"x" * 4096], 0)
    device.close()
    assert golden.read_bytes() == b"g" * 65536
    FileDevice(golden).close()  # nobody has it any more
