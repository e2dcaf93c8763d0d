"""A volume on its way to another stack, while it is written."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard.block import moving
from blockyard.block.faults import Fault, FaultDevice, Operation
from blockyard.block.memory import MemoryDevice
from blockyard.block.moving import MovingDevice
from tests.waiting import LIMIT, eventually

SIZE = 64 << 10
ACTS = st.lists(
    st.tuples(st.sampled_from(("write", "discard", "zero", "piece")), st.integers(0, 120), st.integers(1, 8)),
    max_size=30,
)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "PIECE", 4096)


def _pair() -> tuple[MovingDevice, MemoryDevice, MemoryDevice]:
    old, new = MemoryDevice(SIZE), MemoryDevice(SIZE + 4096)
    old.pwritev([b"o" * SIZE], 0)
    return MovingDevice(old, new), old, new


@given(ACTS)
def test_whatever_is_written_meanwhile_is_on_both_in_the_end(acts: list[tuple[str, int, int]]) -> None:
    device, old, new = _pair()
    for number, (act, start, length) in enumerate(acts):
        offset, size = start * 512, length * 512
        if act == "write":
            device.pwritev([bytes([number + 1]) * size], offset)
        elif act == "discard":
            device.discard(offset, size)
        elif act == "zero":
            device.write_zeroes(offset, size)
        elif device.copied < SIZE:
            device._copy_piece(4096)
    assert not device.in_step or device.copied == SIZE
    device.copy(lambda done, total: None)
    assert device.in_step
    device.pwritev([b"after" * 1024], 512)
    assert new.data[:SIZE] == old.data
    device.detach()


def test_writers_at_the_same_time() -> None:
    device, old, new = _pair()
    stop = threading.Event()

    def write(number: int) -> None:
        count = 0
        while not stop.is_set():
            device.pwritev([bytes([number, count & 255]) * 512], (count * 7 + number) % 60 * 1024)
            count += 1

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    device.copy(lambda done, total: None)
    stop.set()
    for thread in threads:
        thread.join()
    assert new.data[:SIZE] == old.data


def test_what_is_written_to_one_place_has_one_order_on_both() -> None:
    go_on, there = threading.Event(), threading.Event()

    class Slow(MemoryDevice):
        def pwritev(self, buffers: Sequence[memoryview | bytes | bytearray], offset: int) -> None:
            if not there.is_set():
                there.set()
                assert go_on.wait(LIMIT)
            super().pwritev(buffers, offset)

    old, new = MemoryDevice(SIZE), Slow(SIZE)
    device = MovingDevice(old, new)
    device.copied = SIZE
    first, second = (threading.Thread(target=device.pwritev, args=([byte * 1024], 512)) for byte in (b"1", b"2"))
    first.start()
    assert there.wait(LIMIT)
    second.start()
    eventually(lambda: device._condition._waiters or not second.is_alive())  # type: ignore[attr-defined]  # only it knows who waits
    go_on.set()
    for thread in (first, second):
        thread.join()
    assert new.data == old.data
    assert old.data[512:1536] == b"2" * 1024


def test_the_new_stack_fails() -> None:
    old, faulty = MemoryDevice(SIZE), FaultDevice(MemoryDevice(SIZE), [Fault(Operation.WRITE, offset=8192, errno=5)])
    old.pwritev([b"o" * SIZE], 0)
    device = MovingDevice(old, faulty)
    with pytest.raises(OSError, match="Input/output"):
        device.copy(lambda done, total: None)
    assert device.given_up
    device.pwritev([b"x" * 512], 0)
    assert old.data[:512] == b"x" * 512
    device.detach()
    late = MovingDevice(old, faulty)
    faulty.heal()
    late.copy(lambda done, total: None)
    faulty.inject(Fault(Operation.WRITE, errno=5))
    late.pwritev([b"y" * 512], 0)  # that is the new stack's own affair
    assert (late.in_step, late.report()["health"]) == (False, "degraded")
    assert old.data[:512] == b"y" * 512


def test_it_is_cancelled() -> None:
    device, _, new = _pair()

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        device.copy(stop)
    device.pwritev([b"x" * 512], 0)
    assert new.data[:512] == b"o" * 512
    device.detach()


def test_what_cannot_be() -> None:
    with pytest.raises(OSError, match="there are 512 to be written"):
        MovingDevice(MemoryDevice(1024), MemoryDevice(512))
    device, _, _ = _pair()
    with pytest.raises(OSError, match="being moved"):
        device.detach()
    with pytest.raises(OSError, match="being moved"):
        device.truncate(0)
