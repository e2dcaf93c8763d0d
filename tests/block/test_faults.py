"""The layer that makes faults."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from blockyard.block.device import Run
from blockyard.block.faults import Fault, FaultDevice, Operation
from blockyard.block.file import FileDevice, create
from blockyard.block.memory import MemoryDevice

Act = Callable[[FaultDevice, int], None]

ACTS: dict[str, tuple[Operation, Act]] = {
    "preadv": (Operation.READ, lambda device, at: device.preadv([memoryview(bytearray(512))], at)),
    "pwritev": (Operation.WRITE, lambda device, at: device.pwritev([bytes(512)], at)),
    "flush": (Operation.FLUSH, lambda device, at: device.flush()),
    "discard": (Operation.DISCARD, lambda device, at: device.discard(at, 512)),
    "write_zeroes": (Operation.DISCARD, lambda device, at: device.write_zeroes(at, 512)),
}


@pytest.fixture
def device() -> FaultDevice:
    return FaultDevice(MemoryDevice(1 << 16))


@pytest.mark.parametrize("name", ACTS)
def test_errors(device: FaultDevice, name: str) -> None:
    operation, act = ACTS[name]
    act(device, 0)
    fault = device.inject(Fault(operation, errno=errno.EIO))
    with pytest.raises(OSError, match="Input/output") as caught:
        act(device, 0)
    assert caught.value.errno == errno.EIO
    for other, (different, other_act) in ACTS.items():
        if different is not operation:
            other_act(device, 0)
            assert other != name
    device.heal(fault)
    act(device, 0)
    assert fault.hits == 1


@pytest.mark.parametrize(("offset", "struck"), [(0, False), (512, False), (1024, True), (1536, True), (2048, False)])
def test_ranges(device: FaultDevice, offset: int, struck: bool) -> None:
    fault = device.inject(Fault(Operation.WRITE, offset=1024, length=1024, errno=errno.ENOSPC))
    if struck:
        with pytest.raises(OSError, match="No space"):
            device.pwritev([bytes(512)], offset)
    else:
        device.pwritev([bytes(512)], offset)
    assert fault.hits == struck


def test_counts(device: FaultDevice) -> None:
    fault = device.inject(Fault(Operation.FLUSH, errno=errno.EIO, skip=2, count=1))
    outcomes = []
    for _ in range(5):
        try:
            device.flush()
            outcomes.append(True)
        except OSError:
            outcomes.append(False)
    assert outcomes == [True, True, False, True, True]
    assert fault.hits == 3


def test_delays(device: FaultDevice) -> None:
    device.inject(Fault(Operation.READ, delay=0.05))
    start = time.monotonic()
    device.preadv([memoryview(bytearray(512))], 0)
    assert time.monotonic() - start >= 0.05
    device.heal()
    start = time.monotonic()
    device.preadv([memoryview(bytearray(512))], 0)
    assert time.monotonic() - start < 0.05


def test_nothing_passes_it_by(tmp_path: Path) -> None:
    create(tmp_path / "disk.img", 1 << 16)
    below = FileDevice(tmp_path / "disk.img")
    device = FaultDevice(below)
    assert (device.fd, device.nowait, device.resolve(0, 512)) == (-1, False, None)
    assert (device.size, device.granularity, device.read_only) == (below.size, below.granularity, False)
    device.pwritev([b"x" * 4096], 0)
    assert list(device.runs(0, 8192)) == [Run(0, 4096, True), Run(4096, 4096, False)]
    device.close()
    assert below.fd == -1
