"""Any lists of segments and any tokens leave disks as plain arrays of bytes would be left."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockyard.block.device import Device
from blockyard.block.file import FileDevice, create
from blockyard.block.memory import MemoryDevice
from tests.scsi.copies import (
    cscd,
    hosts,
    lid1,
    lid4,
    make_token,
    segment,
    segment_with_offsets,
    send_copy,
    use_token,
)
from tests.scsi.host import Host

_SIZE = 64 * 4096
_BLOCK_SIZES = (512, 4096, 512)

disks = st.integers(0, 2)
places = st.integers(0, _SIZE // 4096 - 1)
counts = st.integers(0, 40)
blocks = st.tuples(st.just("blocks"), disks, disks, counts, places, places, st.booleans())
octets = st.tuples(st.just("bytes"), disks, disks, st.integers(0, 60000), places, places, st.integers(0, 511))
writes = st.tuples(st.just("write"), disks, places, st.integers(1, 255))
tokens = st.tuples(st.just("token"), disks, disks, counts, places, places)
steps = st.lists(st.one_of(writes, tokens, st.lists(st.one_of(blocks, octets), min_size=1, max_size=5)), max_size=12)


@pytest.mark.parametrize("kind", ["memory", "file"])
@settings(max_examples=120, deadline=None)
@given(steps=steps)
def test_model(kind: str, steps: list) -> None:  # type: ignore[type-arg]
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        devices: list[Device] = []
        for number in range(3):
            if kind == "file":
                create(directory / str(number), _SIZE)
                devices.append(FileDevice(directory / str(number)))
            else:
                devices.append(MemoryDevice(_SIZE))
            stack.callback(devices[-1].close)
        _play(hosts(*devices, block_sizes=_BLOCK_SIZES), devices, steps)


def _play(some: list[Host], devices: list[Device], steps: list) -> None:  # type: ignore[type-arg]
    models = [bytearray(_SIZE) for _ in devices]
    for step in steps:
        if isinstance(step, list):
            _copy(some, models, step)
        elif step[0] == "write":
            _, disk, place, value = step
            start = min(place * 4096, _SIZE - 6000)
            devices[disk].pwritev([bytes([value]) * 6000], start)
            models[disk][start : start + 6000] = bytes([value]) * 6000
        else:
            _token(some, models, step)
        for device, model in zip(devices, models, strict=True):
            data = bytearray(_SIZE)
            device.preadv([memoryview(data)], 0)
            assert data == model


def _copy(some: list[Host], models: list[bytearray], cuts: list) -> None:  # type: ignore[type-arg]
    """One EXTENDED COPY; its segments are made to fit, and of block to block ones counts to come out even."""
    segments = []
    for cut in cuts:
        kind, source, to = cut[:3]
        small, large = _BLOCK_SIZES[source], _BLOCK_SIZES[to]
        start, end = cut[4] * 4096, cut[5] * 4096
        if kind == "blocks":
            unit = max(small, large)
            length = min(cut[3] * unit, _SIZE - start, _SIZE - end)
            count = length // (large if cut[6] else small)
            segments.append(segment(source, to, count, start // small, end // large, dc=cut[6]))
        else:
            start, end = start + cut[6], end + (cut[6] * 3) % 512
            length = min(cut[3], _SIZE - start, _SIZE - end)
            segments.append(segment_with_offsets(source, to, length, divmod(start, small), divmod(end, large)))
        models[to][end : end + length] = models[source][start : start + length]
    names = [cscd(host.disk) for host in some]
    if len(segments) % 2:
        send_copy(some[0], lid1(names, segments))
    else:
        send_copy(some[1], lid4(names, segments), 1)


def _token(some: list[Host], models: list[bytearray], step: tuple) -> None:  # type: ignore[type-arg]
    _, source, to, count, place, goal = step
    small, large = _BLOCK_SIZES[source], _BLOCK_SIZES[to]
    start, end = place * 4096, goal * 4096
    length = min(count * 4096, _SIZE - start, _SIZE - end)
    if source == to and start < end + length and end < start + length:
        return  # such a token would be revoked by its own use
    token = make_token(some[source], (start // small, length // small))
    use_token(some[to], token, (end // large, length // large))
    models[to][end : end + length] = models[source][start : start + length]
