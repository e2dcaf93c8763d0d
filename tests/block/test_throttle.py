"""Limits on what goes through a layer. Time is told by the buckets: no test waits for a clock."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from blockyard.block import throttle
from blockyard.block.building import open_stack
from blockyard.block.stack import StackError
from blockyard.block.throttle import ThrottleChange, ThrottleDevice
from tests.waiting import eventually


class Clock:
    """A time that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(throttle, "time", clock)
    return clock


@pytest.fixture
def path(tmp_path: Path) -> str:
    file = tmp_path / "a.img"
    file.write_bytes(b"a" * (1 << 20))
    return str(file)


def _open(text: str) -> ThrottleDevice:
    device = open_stack(text)
    assert isinstance(device, ThrottleDevice)
    return device


def _reads(device: ThrottleDevice, length: int = 4096) -> int:
    """How many reads go at once, of a hundred."""
    data = memoryview(bytearray(length))
    return sum(device.read([data], 0, length) for _ in range(100))


def test_operations(path: str, clock: Clock) -> None:
    device = _open(f"throttle(iops=8, {path})")
    assert _reads(device) == 9  # a burst of one second, and the one that makes debts
    clock.now += 0.5
    assert _reads(device) == 4
    assert not device.write(memoryview(bytes(4096)), 0)  # what reads have used is gone for writes, too
    clock.now += 0.125
    assert device.write(memoryview(b"b" * 4096), 0)
    assert Path(path).read_bytes()[:4096] == b"b" * 4096
    clock.now += 100
    assert _reads(device) == 9  # no more than a burst comes together
    device.close()


def test_bytes(path: str, clock: Clock) -> None:
    device = _open(f"throttle(rate=1M, burst=0.25s, {path})")
    assert _reads(device, 65536) == 5
    clock.now += 0.0625
    assert _reads(device, 65536) == 1
    device.close()


def test_directions(path: str, clock: Clock) -> None:
    device = _open(f"throttle(read_iops=8, write_rate=64K, {path})")
    assert _reads(device) == 9
    assert sum(device.write(memoryview(bytes(4096)), 0) for _ in range(100)) == 17
    device.close()


def test_who_must_wait_waits_in_order(path: str, clock: Clock) -> None:
    device = _open(f"throttle(iops=1, burst=1ms, {path})")
    device.preadv([memoryview(bytearray(512))], 0)
    begun, ended = threading.Semaphore(0), []

    def write(number: int) -> None:
        begun.release()
        device.pwritev([bytes(512)], 0)
        ended.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for number, thread in enumerate(threads):
        thread.start()
        begun.acquire()
        eventually(lambda waiting=number + 1: device.report()["gauges"] == {"waiting": waiting})  # type: ignore[misc]
    assert not device.read([memoryview(bytearray(512))], 0, 512)  # the short road does not overtake them
    assert not ended
    said = device.actions()["throttle"].run(ThrottleChange(iops=0), lambda done, total: None)
    for thread in threads:
        thread.join()
    assert (said, sorted(ended)) == ("no limit", [0, 1, 2])
    assert device.label == "throttle(burst=1ms)"
    counters = device.report()["counters"]
    assert isinstance(counters, dict)
    assert counters["delayed"] == 4
    device.close()


def test_those_who_wait_are_let_go_when_it_goes(path: str, clock: Clock) -> None:
    device = _open(f"throttle(iops=1, burst=1ms, {path})")
    device.preadv([memoryview(bytearray(512))], 0)
    thread = threading.Thread(target=device.discard, args=(0, 4096))
    thread.start()
    eventually(lambda: device.report()["gauges"] == {"waiting": 1})
    device.detach()
    thread.join()
    device.write_zeroes(0, 4096)
    device.close()


def test_without_a_short_road(clock: Clock) -> None:
    device = _open("throttle(iops=8, memory(1M))")
    assert device.quick is None
    device.pwritev([b"x" * 512], 512)
    data = bytearray(512)
    device.preadv([memoryview(data)], 512)
    assert data == b"x" * 512


@pytest.mark.parametrize("options", ["iops=-1", "burst=0", "burst=2h", "rate=x", "burst=soon"])
def test_what_is_no_limit(options: str) -> None:
    with pytest.raises(StackError):
        open_stack(f"throttle({options}, memory(1M))")
