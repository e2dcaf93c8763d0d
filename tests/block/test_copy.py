"""Copies between devices."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockyard.block.device import COPY_LIMIT, Device, Run, SourceError
from blockyard.block.faults import Fault, FaultDevice, Operation
from blockyard.block.file import FileDevice, create
from blockyard.block.memory import MemoryDevice

_SIZE = 256 << 10
_MEMORY_FILES = Path("/dev/shm")

Make = Callable[[str], Device]


def read(device: Device, offset: int = 0, length: int = _SIZE) -> bytes:
    data = bytearray(length)
    device.preadv([memoryview(data)], offset)
    return bytes(data)


def runs(device: Device) -> list[Run]:
    return list(device.runs(0, device.size))


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def make(name: str) -> Device:
        if name == "memory":
            return MemoryDevice(_SIZE)
        if name == "thick":
            return MemoryDevice(_SIZE, granularity=0)
        number = len(list(tmp_path.iterdir()))
        create(tmp_path / f"{number}.img", _SIZE)
        return FileDevice(tmp_path / f"{number}.img")

    return make


@pytest.mark.parametrize("source", ["memory", "thick", "file"])
@pytest.mark.parametrize("destination", ["memory", "thick", "file"])
def test_bytes_arrive_wherever_they_lie(make: Make, source: str, destination: str) -> None:
    a, b = make(source), make(destination)
    data = os.urandom(100_000)
    a.pwritev([data], 12_345)
    b.pwritev([b"x" * _SIZE], 0)
    b.copy_from(a, 12_000, 777, 100_500)
    assert read(b) == b"x" * 777 + bytes(345) + data + bytes(155) + b"x" * (_SIZE - 777 - 100_500)


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_holes_stay_holes_and_make_them(make: Make, kind: str) -> None:
    a, b = make(kind), make(kind)
    a.pwritev([b"a" * 8192], 65536)
    b.pwritev([b"b" * _SIZE], 0)
    b.copy_from(a, 0, 0, _SIZE)
    assert runs(b) == [Run(0, 65536, False), Run(65536, 8192, True), Run(73728, _SIZE - 73728, False)]
    assert read(b) == read(a)


@pytest.mark.parametrize("kind", ["memory", "file"])
@pytest.mark.parametrize("distance", [-5000, 5000])
def test_ranges_that_overlap(make: Make, kind: str, distance: int) -> None:
    device = make(kind)
    data = os.urandom(50_000)
    device.pwritev([data], 20_000)
    device.copy_from(device, 20_000, 20_000 + distance, 50_000)
    assert read(device, 20_000 + distance, 50_000) == data


def test_a_file_copies_within_itself(make: Make) -> None:
    device = make("file")
    data = os.urandom(50_000)
    device.pwritev([data], 0)
    device.copy_from(device, 0, 100_000, 50_000)
    assert read(device, 100_000, 50_000) == data


def test_between_file_systems(tmp_path: Path) -> None:
    other = _MEMORY_FILES / f"blockyard-{os.getpid()}.img"
    size = COPY_LIMIT + 123_392
    create(other, size)
    create(tmp_path / "disk.img", size)
    a, b = FileDevice(other), FileDevice(tmp_path / "disk.img")
    try:
        data = os.urandom(size)
        a.pwritev([data], 0)
        b.copy_from(a, 0, 0, size)
        assert read(b, 0, size) == data
    finally:
        a.close()
        b.close()
        other.unlink()


def test_where_copy_file_range_is_not_to_be_had(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> int:
        raise OSError(errno.EXDEV, "no")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    a, b = make("file"), make("file")
    a.pwritev([b"a" * 8192], 4096)
    b.copy_from(a, 0, 0, _SIZE)
    assert read(b) == read(a)


def test_failures_of_either_end(make: Make) -> None:
    for operation in (Operation.READ, Operation.WRITE):
        a = FaultDevice(MemoryDevice(_SIZE))
        b = FaultDevice(MemoryDevice(_SIZE))
        a.pwritev([b"a" * 4096], 0)
        (a if operation is Operation.READ else b).inject(Fault(operation, errno=errno.EIO))
        with pytest.raises(OSError, match="Input/output") as caught:
            b.copy_from(a, 0, 0, 4096)
        assert isinstance(caught.value, SourceError) == (operation is Operation.READ)


def test_nothing_is_copied_to_a_device_for_reading(tmp_path: Path) -> None:
    create(tmp_path / "a.img", _SIZE)
    create(tmp_path / "b.img", _SIZE)
    a, b = FileDevice(tmp_path / "a.img"), FileDevice(tmp_path / "b.img", read_only=True)
    a.pwritev([b"a" * 4096], 0)
    with pytest.raises(OSError, match="reading only") as caught:
        b.copy_from(a, 0, 0, 4096)
    assert caught.value.errno == errno.EROFS


ranges = st.integers(0, 60_000)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(ranges, ranges, ranges, st.booleans()), max_size=12))
def test_model(steps: list[tuple[int, int, int, bool]]) -> None:
    size = 128 << 10
    devices = [MemoryDevice(size), MemoryDevice(size, granularity=512)]
    models = [bytearray(os.urandom(size)) for _ in devices]
    for device, model in zip(devices, models, strict=True):
        device.pwritev([model], 0)
        device.discard(32768, 32768)
        model[32768:65536] = bytes(32768)
    for source, to, length, same in steps:
        a, b = (0, 0) if same else (0, 1)
        devices[b].copy_from(devices[a], source, to, length)
        models[b][to : to + length] = models[a][source : source + length]
    assert [read(device, 0, size) for device in devices] == models
