"""The layer that makes faults."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from blockyard.block.actions import Action, unwatched
from blockyard.block.building import open_stack, options_from
from blockyard.block.device import Run
from blockyard.block.faults import Fault, FaultDevice, FaultOptions, Operation
from blockyard.block.file import FileDevice, create
from blockyard.block.memory import MemoryDevice
from blockyard.block.records import RecordError
from blockyard.block.stack import Word

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
    slow = device.inject(Fault(Operation.READ, delay=0.05))
    start = time.monotonic()
    device.preadv([memoryview(bytearray(512))], 0)
    assert time.monotonic() - start >= 0.05
    device.heal()
    device.preadv([memoryview(bytearray(512))], 0)
    assert slow.hits == 1


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


def test_as_layers_of_a_stack() -> None:
    device = open_stack("faults(memory(64K))")
    inject, heal = (device.actions()[name] for name in ("inject", "heal"))

    def do(action: Action, **options: str) -> str:
        given = options_from(action.options, {name: Word(text) for name, text in options.items()})
        return action.run(given, unwatched)

    assert device.report() == {"text": "no faults", "counters": {"struck": 0}}
    said = do(inject, operation="write", errno="ENOSPC", offset="4K", length="4K", count="1")
    assert said == "write from 4K on for 4K bytes: No space left on device, 1 more, struck 0"
    device.pwritev([bytes(512)], 0)
    with pytest.raises(OSError, match="No space"):
        device.pwritev([bytes(512)], 4096)
    device.pwritev([bytes(512)], 4096)
    assert device.report()["counters"] == {"struck": 1}
    assert do(heal) == "no faults"
    assert "Input/output error, 1 in 2" in do(inject, operation="read", probability="0.5")
    struck = 0
    for _ in range(200):  # all or none of so many: once in 2^199 runs
        try:
            device.preadv([memoryview(bytearray(512))], 0)
        except OSError:
            struck += 1
    assert 0 < struck < 200
    assert do(inject, operation="flush", errno="", delay="1us").startswith("flush: 1us slower")
    device.flush()


@pytest.mark.parametrize("options", ["operation=reed", "errno=EWHAT", "probability=0", "skip=-1"])
def test_what_is_no_fault(options: str) -> None:
    name, _, value = options.partition("=")
    with pytest.raises(RecordError):
        options_from(FaultOptions, {"operation": Word("read"), name: Word(value)})


def test_delay() -> None:
    device = open_stack("delay(write=1us, flush=1us, memory(64K))")
    assert device.report() == {"text": "write 1us, flush 1us"}
    device.pwritev([bytes(512)], 0)
    change = device.actions()["delay"]
    assert change.run(change.options(), unwatched) == "no delay"
    device.flush()
