"""What of a volume is mapped, as initiators are told it: exactly, and without going through what is not."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from blockyard.block.device import Device, Run
from blockyard.block.file import FileDevice, create
from blockyard.pool.livemap import CHUNKS
from blockyard.pool.pool import Pool
from blockyard.pool.pool import create as create_pool
from blockyard.pool.volume import SnapshotDevice, VolumeDevice

SHIFT = 12
CHUNK = 1 << SHIFT


@contextmanager
def pool_of(directory: Path) -> Iterator[Pool]:
    create(directory / "member", 64 << 20)
    create_pool(directory, [str(directory / "member")])
    with Pool(directory, FileDevice) as pool:
        yield pool


def mapped(device: Device, *, start: int = 0) -> list[tuple[int, int]]:
    """The runs that are mapped, in chunks: where each begins and ends. They have to come in turn, and without gaps."""
    runs = list(device.runs(start * CHUNK, device.size - start * CHUNK))
    at = start * CHUNK
    for number, run in enumerate(runs):
        assert run.offset == at
        assert run.mapped == (runs[0].mapped ^ bool(number % 2))
        at += run.length
    assert at == device.size
    return [(run.offset // CHUNK, (run.offset + run.length) // CHUNK) for run in runs if run.mapped]


def test_the_largest_volume_is_gone_through_at_once(tmp_path: Path) -> None:
    with pool_of(tmp_path) as pool:
        pool.create_volume("v", 1 << 63, SHIFT)
        device = VolumeDevice(pool, "v")
        last = (1 << 63) // CHUNK - 1
        assert list(device.runs(0, device.size)) == [Run(0, device.size, False)]
        for chunk in (5, 1 << 40, last):
            device.pwritev([b"x" * CHUNK], chunk * CHUNK)
        assert mapped(device) == [(5, 6), (1 << 40, (1 << 40) + 1), (last, last + 1)]
        pool.snapshot(["v"], "s", 1.0)
        device.pwritev([b"y" * CHUNK], 7 * CHUNK)
        device.discard(0, device.size - CHUNK)
        assert mapped(device) == [(last, last + 1)]
        snapshot = SnapshotDevice(pool, pool.find_snapshot("v", "s"))
        assert mapped(snapshot) == [(5, 6), (1 << 40, (1 << 40) + 1), (last, last + 1)]
        pool.clone("v", "s", "c")
        clone = VolumeDevice(pool, "c")
        clone.pwritev([b"z" * CHUNK], 9 * CHUNK)
        clone.discard(5 * CHUNK, CHUNK)
        assert mapped(clone) == [(9, 10), (1 << 40, (1 << 40) + 1), (last, last + 1)]
        assert mapped(clone, start=10) == [(1 << 40, (1 << 40) + 1), (last, last + 1)]
        clone.discard(0, clone.size)
        assert mapped(clone) == []
        buffer = bytearray(CHUNK)
        clone.preadv([memoryview(buffer)], last * CHUNK)
        assert buffer == bytes(CHUNK), "what the origin has is not seen any more"


CHUNK_NUMBERS = st.integers(0, 3 * CHUNKS - 1)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), CHUNK_NUMBERS),
        st.tuples(st.just("discard"), CHUNK_NUMBERS),
        st.tuples(st.sampled_from(["snapshot", "flush"]), st.just(0)),
    ),
    max_size=20,
)


@settings(max_examples=40)
@given(STEPS, STEPS)
def test_runs_are_what_chunks_say(first: list[tuple[str, int]], second: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory, pool_of(Path(directory)) as pool:
        pool.create_volume("v", 3 * CHUNKS * CHUNK, SHIFT)
        devices: dict[str, Device] = {"v": VolumeDevice(pool, "v")}
        held: dict[str, set[int]] = {"v": set()}
        carry_out(pool, "v", first, devices, held)
        pool.snapshot(["v"], "last", 99.0)
        pool.clone("v", "last", "c")
        devices["c"], held["c"] = VolumeDevice(pool, "c"), set(held["v"])
        carry_out(pool, "c", second, devices, held)
        for name, device in devices.items():
            assert {chunk for run in mapped(device) for chunk in range(*run)} == held[name], name


def carry_out(
    pool: Pool, name: str, steps: list[tuple[str, int]], devices: dict[str, Device], held: dict[str, set[int]]
) -> None:
    device, chunks = devices[name], held[name]
    for number, (what, chunk) in enumerate(steps):
        if what == "write":
            device.pwritev([b"w" * CHUNK], chunk * CHUNK)
            chunks.add(chunk)
        elif what == "discard":
            length = min(300, 3 * CHUNKS - chunk)
            device.discard(chunk * CHUNK, length * CHUNK)
            chunks -= set(range(chunk, chunk + length))
        elif what == "flush":
            device.flush()
        else:
            pool.snapshot([name], str(number), float(number))
            devices[f"{name}@{number}"] = SnapshotDevice(pool, pool.find_snapshot(name, str(number)))
            held[f"{name}@{number}"] = set(chunks)
