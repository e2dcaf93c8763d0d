"""Any sequence of commands leaves the medium as a plain array of bytes would be left."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockyard.block.device import Device
from blockyard.block.memory import MemoryDevice
from blockyard.scsi.sense import Asc, SenseKey
from tests.scsi.host import (
    compare_and_write,
    disk,
    file_device,
    get_lba_status,
    unmap,
    unmap_list,
    write_same_16,
)

_BLOCKS = 64

lbas = st.integers(0, _BLOCKS - 1)
counts = st.integers(0, 20)
bytes_ = st.integers(0, 3)
writes = st.tuples(st.just("write"), lbas, counts, bytes_)
unmaps = st.tuples(st.just("unmap"), st.lists(st.tuples(lbas, counts), max_size=4))
sames = st.tuples(st.just("same"), lbas, counts, bytes_, st.booleans(), st.booleans())
compares = st.tuples(st.just("compare"), lbas, counts, bytes_, bytes_)
reads = st.tuples(st.just("read"), lbas, counts)
steps = st.lists(st.one_of(writes, unmaps, sames, compares, reads), max_size=30)


def _memory(directory: Path, size: int) -> Device:
    return MemoryDevice(size)


def _file(directory: Path, size: int) -> Device:
    return file_device(directory, size)


@pytest.mark.parametrize("make", [_memory, _file])
@pytest.mark.parametrize("block_size", [512, 4096])
@settings(max_examples=60, deadline=None)
@given(steps=steps)
def test_model(make: Callable[[Path, int], Device], block_size: int, steps: list[tuple]) -> None:  # type: ignore[type-arg]
    with tempfile.TemporaryDirectory() as directory:
        device = make(Path(directory), _BLOCKS * block_size)
        try:
            _play(device, block_size, steps)
        finally:
            device.close()


def _play(device: Device, block_size: int, steps: list[tuple]) -> None:  # type: ignore[type-arg]
    host = disk(device, block_size=block_size)
    model = bytearray(_BLOCKS * block_size)
    for kind, *arguments in steps:
        if kind == "unmap":
            descriptors = [(lba, min(count, _BLOCKS - lba)) for lba, count in arguments[0]]
            data = unmap_list(*descriptors)
            host.ok(unmap(len(data)), data)
            for lba, count in descriptors:
                model[lba * block_size : (lba + count) * block_size] = bytes(count * block_size)
            continue
        lba, count = arguments[0], min(arguments[1], _BLOCKS - arguments[0])
        count = max(count, kind == "same")  # WRITE SAME has no use for 0 blocks
        where = slice(lba * block_size, (lba + count) * block_size)
        if kind == "write":
            data = bytes([arguments[2]]) * (count * block_size)
            host.write(lba, data)
            model[where] = data
        elif kind == "same":
            _, _, value, unmapped, no_data = arguments
            block = b"" if no_data else bytes([value]) * block_size
            host.ok(write_same_16(lba, count, unmap=unmapped, ndob=no_data), block)
            model[where] = (block or bytes(block_size)) * count
        elif kind == "compare":
            old, new = (bytes([value]) * (count * block_size) for value in arguments[2:])
            if model[where] == old:
                host.ok(compare_and_write(lba, count), old + new)
                model[where] = new
            else:
                sense = host.fail(
                    compare_and_write(lba, count),
                    SenseKey.MISCOMPARE,
                    Asc.MISCOMPARE_DURING_VERIFY_OPERATION,
                    old + new,
                )
                assert sense.information == next(
                    i for i, (a, b) in enumerate(zip(model[where], old, strict=True)) if a != b
                )
        else:
            assert host.read(lba, count) == model[where]
    assert host.read(0, _BLOCKS) == model
    _check_status(host.ok(get_lba_status(0)), model, block_size)


def _check_status(data: bytes, model: bytearray, block_size: int) -> None:
    """The runs follow each other to the end, and what is not mapped reads as zeros."""
    at = 0
    for offset in range(8, len(data), 16):
        lba, count = (
            int.from_bytes(data[offset : offset + 8], "big"),
            int.from_bytes(data[offset + 8 : offset + 12], "big"),
        )
        assert lba == at
        if data[offset + 12]:
            assert not any(model[lba * block_size : (lba + count) * block_size])
        at += count
    assert at == _BLOCKS
