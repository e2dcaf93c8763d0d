"""What is recorded can be done again, up to any point."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard.block.building import open_stack
from blockyard.block.device import Device
from blockyard.block.memory import MemoryDevice
from blockyard.block.record import Operation, RecordDevice, records, replay
from blockyard.cli.main import main

SIZE = 64 << 10

ACTS = st.lists(
    st.tuples(
        st.sampled_from(("write", "discard", "zero", "flush")),
        st.integers(0, SIZE // 512 - 8),
        st.integers(1, 8),
        st.integers(0, 255),
    ),
    max_size=12,
)


def _do(device: Device, act: tuple[str, int, int, int]) -> None:
    what, start, length, fill = act
    offset, size = start * 512, length * 512
    if what == "write":
        device.pwritev([bytes([fill]) * 512, bytes([fill]) * (size - 512)], offset)
    elif what == "discard":
        device.discard(offset, size)
    elif what == "zero":
        device.write_zeroes(offset, size)
    else:
        device.flush()


@given(acts=ACTS, until=st.integers(0, 12))
def test_every_prefix_can_be_replayed(
    tmp_path_factory: pytest.TempPathFactory, acts: list[tuple[str, int, int, int]], until: int
) -> None:
    path = str(tmp_path_factory.mktemp("record") / "log")
    device = RecordDevice(MemoryDevice(SIZE), path)
    for act in acts:
        _do(device, act)
    device.close()
    model, again = MemoryDevice(SIZE), MemoryDevice(SIZE)
    for act in acts[:until]:
        _do(model, act)
    assert replay(path, again, until=until) == len(acts[:until])
    assert again.data == model.data


def test_up_to_a_flush_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, disk, other = tmp_path / "a.log", tmp_path / "a.img", tmp_path / "b.img"
    for path in (disk, other):
        path.write_bytes(bytes(SIZE))
    device = open_stack(f"record(file={log}, {disk})")
    for number in range(3):
        device.pwritev([bytes([number + 1]) * 512], 512 * number)
        device.flush()
    device.close()
    again = open_stack(f"record(file={log}, {disk})")  # it goes on at the end
    again.pwritev([b"x" * 512], 0)
    again.close()
    assert main(["layer", "replay", str(log), str(other), "--flushes", "2"]) == 0
    assert "4 records are done again" in capsys.readouterr().out
    assert other.read_bytes()[:2048] == b"\1" * 512 + b"\2" * 512 + bytes(1024)
    assert main(["layer", "replay", str(log), str(other)]) == 0
    assert "7 records are done again" in capsys.readouterr().out
    assert other.read_bytes() == disk.read_bytes()


def test_many_at_once(tmp_path: Path) -> None:
    device = RecordDevice(MemoryDevice(SIZE), str(tmp_path / "log"))

    def write(number: int) -> None:
        for round_ in range(50):
            device.pwritev([bytes([number]) * 512] * 3, number * 2048)
            assert round_ >= 0

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert device.report() == {"counters": {"records": 400}}
    device.close()
    with (tmp_path / "log").open("rb") as file:
        found = list(records(file, "log"))
    assert len(found) == 400
    assert all(record.data == bytes([record.offset // 2048]) * 1536 for record in found)


def test_damage(tmp_path: Path) -> None:
    path = tmp_path / "log"
    device = RecordDevice(MemoryDevice(SIZE), str(path))
    for offset in (0, 512):
        device.pwritev([b"x" * 512], offset)
    device.close()
    good = path.read_bytes()
    path.write_bytes(good[:-1])  # torn when power was lost
    with path.open("rb") as file:
        assert [record.operation for record in records(file, str(path))] == [Operation.WRITE]
    for at in (0, 30, 70, 200):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(OSError, match=r"damaged|no record") as error:
            replay(str(path), MemoryDevice(SIZE))
        assert error.value.errno == errno.EINVAL
    with pytest.raises(OSError, match="not the record of a device of this size"):
        RecordDevice(MemoryDevice(SIZE * 2), str(path))
