"""The short cut for READ and WRITE gives the same answers, and leaves the same disk, as the long way."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blockyard.block.device import Device
from blockyard.block.file import create
from blockyard.iscsi.pdu import R2T, DataIn, Opcode, Pdu, ScsiCommand
from blockyard.pool.pool import Pool
from blockyard.pool.pool import create as create_pool
from blockyard.pool.volume import SnapshotDevice, VolumeDevice
from tests.block.late import LateDevice
from tests.wire import Rig, Wire, pieces

SIZE = 1 << 20
BLOCKS = SIZE // 512
FIRST_BURST = 65536


_CONTENT = bytes(range(256)) * (SIZE // 256)


@st.composite
def commands(draw: st.DrawFn) -> tuple[bytes, bool, int]:
    """A READ or WRITE, mostly inside the disk: CDB, whether it writes, expected length."""
    operation = draw(st.sampled_from([0x28, 0x2A, 0x88, 0x8A, 0x28, 0x2A, 0x88, 0x8A, 0x08, 0xA8]))
    count = draw(st.sampled_from([0, 1, 8, 8, 8, 16, 64, 512]))
    lba = draw(st.one_of(st.integers(0, 2 * BLOCKS).map(lambda n: n // 8 * 8), st.integers(BLOCKS - 9, BLOCKS + 1)))
    flags = draw(st.sampled_from([0, 0, 0, 0, 0, 0x08, 0x10, 0x20]))
    if operation == 0x08:
        cdb = bytes([operation, lba >> 16 & 0x1F, lba >> 8 & 0xFF, lba & 0xFF, count & 0xFF, 0])
    elif operation == 0xA8:
        cdb = bytes([operation, flags]) + lba.to_bytes(4, "big") + count.to_bytes(4, "big") + b"\0\0"
    elif operation & 0x80:
        cdb = bytes([operation, flags]) + lba.to_bytes(8, "big") + count.to_bytes(4, "big") + b"\0\0"
    else:
        cdb = bytes([operation, flags]) + lba.to_bytes(4, "big") + b"\0" + count.to_bytes(2, "big") + b"\0"
    off_by = draw(st.sampled_from([0, 0, 0, 0, 0, 0, 512, -512]))
    return cdb.ljust(16, b"\0"), operation in (0x2A, 0x8A), max(0, count * 512 + off_by)


def gather(pdus: list[Pdu]) -> dict[int, tuple[object, ...]]:
    """What each task was answered, without the numbers that depend on the order of completion."""
    answers: dict[int, tuple[object, ...]] = {}
    data: dict[int, bytes] = {}
    for pdu in pdus:
        if isinstance(pdu, DataIn):
            assert pdu.buffer_offset == len(data.get(pdu.itt, b""))
            data[pdu.itt] = data.get(pdu.itt, b"") + bytes(pdu.data)
            if not pdu.has_status:
                continue
        header = bytes(pdu.bhs[:8]) + bytes(pdu.bhs[16:24]) + bytes(pdu.bhs[36:48])
        answers[pdu.itt] = (header, data.pop(pdu.itt, b""), bytes(pdu.data) if pdu.opcode != Opcode.DATA_IN else b"")
    assert not data
    return answers


def play(
    path: Path, script: list[tuple[bytes, bool, int]], keys: dict[str, str], *, fast: bool
) -> tuple[list[dict[int, tuple[object, ...]]], bytes]:
    with path.open("wb") as file:
        file.write(_CONTENT)
    found = play_on(Rig.on_existing(path), script, keys, fast=fast)
    return found, path.read_bytes()


def play_on(
    rig: Rig, script: list[tuple[bytes, bool, int]], keys: dict[str, str], *, fast: bool
) -> list[dict[int, tuple[object, ...]]]:
    wire = Wire(rig, fast=fast)
    assert wire.log_in(**keys).status == 0
    rounds = []
    stat_sns: list[int] = []
    for number, (cdb, write, length) in enumerate(script):
        data = bytes([number & 0xFF]) * length if write else b""
        wire.send(
            ScsiCommand(
                data[:FIRST_BURST], final=True, read=not write, write=write, attribute=1, itt=wire.itt, edtl=length,
                cmd_sn=wire.cmd_sn, cdb=cdb,
            )
        )  # fmt: skip
        pdus = wire.receive()  # one at a time: side by side, overlapping commands have no defined outcome
        while r2ts := [pdu for pdu in pdus if isinstance(pdu, R2T)]:
            for r2t in r2ts:
                end = r2t.buffer_offset + r2t.desired_length
                wire.send(*pieces(r2t.itt, r2t.ttt, data, r2t.buffer_offset, end, FIRST_BURST))
            pdus = wire.receive()
        stat_sns += [pdu.stat_sn for pdu in pdus if not isinstance(pdu, DataIn) or pdu.has_status]  # type: ignore[attr-defined]
        rounds.append(gather(pdus))
    assert stat_sns == list(range(stat_sns[0], stat_sns[0] + len(stat_sns))) if stat_sns else True
    wire.close()
    rig.close()
    return rounds


@pytest.mark.parametrize("digest", ["None", "CRC32C"])
@pytest.mark.parametrize("segment", ["512", "8192", "262144"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=st.lists(commands(), min_size=1, max_size=12))
def test_both_ways_are_one(tmp_path: Path, segment: str, digest: str, script: list[tuple[bytes, bool, int]]) -> None:
    keys = {
        "MaxRecvDataSegmentLength": segment, "MaxBurstLength": str(FIRST_BURST), "FirstBurstLength": str(FIRST_BURST),
        "HeaderDigest": digest, "DataDigest": digest,
    }  # fmt: skip
    fast = play(tmp_path / "fast", script, keys, fast=True)
    slow = play(tmp_path / "slow", script, keys, fast=False)
    assert fast[0] == slow[0]
    assert fast[1] == slow[1]


@pytest.mark.parametrize("digest", ["None", "CRC32C"])
@pytest.mark.parametrize("segment", ["8192", "262144"])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=st.lists(commands(), min_size=1, max_size=12))
def test_a_device_that_answers_later_is_as_a_file(
    tmp_path: Path, segment: str, digest: str, script: list[tuple[bytes, bool, int]]
) -> None:
    keys = {
        "MaxRecvDataSegmentLength": segment, "MaxBurstLength": str(FIRST_BURST), "FirstBurstLength": str(FIRST_BURST),
        "HeaderDigest": digest, "DataDigest": digest,
    }  # fmt: skip
    expected = play(tmp_path / "file", script, keys, fast=False)
    for fast in (True, False):
        device = LateDevice(SIZE, _CONTENT)
        assert play_on(Rig(device), script, keys, fast=fast) == expected[0]
        assert device.data == expected[1]


@pytest.mark.parametrize("segment", ["8192", "262144"])
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=st.lists(commands(), min_size=1, max_size=12))
def test_a_volume_of_a_pool_is_as_a_file(tmp_path: Path, segment: str, script: list[tuple[bytes, bool, int]]) -> None:
    """By both ways, and its snapshot stays what it was; half of the volume needs new places."""
    keys = {
        "MaxRecvDataSegmentLength": segment,
        "MaxBurstLength": str(FIRST_BURST),
        "FirstBurstLength": str(FIRST_BURST),
    }
    expected = play(tmp_path / "file", script, keys, fast=False)
    for fast in (True, False):
        with tempfile.TemporaryDirectory(dir=tmp_path) as name:
            create(Path(name) / "member", 16 << 20)
            create_pool(Path(name), [f"{name}/member"])
            with Pool(Path(name)) as pool:
                pool.create_volume("v", SIZE, 14)
                device = VolumeDevice(pool, "v")
                device.pwritev([_CONTENT], 0)
                pool.snapshot(["v"], "s", 0.0)
                device.pwritev([_CONTENT[: SIZE // 2]], 0)
                assert play_on(Rig(device), script, keys, fast=fast) == expected[0]
                assert _whole(VolumeDevice(pool, "v")) == expected[1]
                assert _whole(SnapshotDevice(pool, pool.find_snapshot("v", "s"))) == _CONTENT


def _whole(device: Device) -> bytes:
    data = bytearray(SIZE)
    device.preadv([memoryview(data)], 0)
    return bytes(data)


def test_a_batch_is_answered_in_one_go(tmp_path: Path) -> None:
    """Many commands in one receive: every one answered, in order, with consecutive numbers."""
    path = tmp_path / "disk"
    path.write_bytes(b"".join(block.to_bytes(4, "big") * 128 for block in range(BLOCKS)))
    rig = Rig.on_existing(path)
    wire = Wire(rig)
    wire.log_in()
    wire.ask(ScsiCommand(final=True, itt=wire.itt, cmd_sn=wire.cmd_sn, cdb=bytes(16)), Pdu)  # takes the unit attention
    batch = [
        ScsiCommand(
            final=True, read=True, attribute=1, itt=wire.itt, edtl=4096, cmd_sn=wire.cmd_sn,
            cdb=bytes([0x28, 0, 0, 0]) + (lba * 8).to_bytes(2, "big") + b"\0\0\x08" + bytes(7),
        )
        for lba in range(100)
    ]  # fmt: skip
    wire.send(*batch)
    answers = wire.receive()
    assert [answer.itt for answer in answers] == [command.itt for command in batch]
    for number, answer in enumerate(answers):
        assert isinstance(answer, DataIn)
        assert answer.has_status
        assert bytes(answer.data[:4]) == (number * 8).to_bytes(4, "big")
        assert answer.exp_cmd_sn == batch[number].cmd_sn + 1
        assert answer.max_cmd_sn == batch[number].cmd_sn + 128
    assert rig.units[0].counters.read_ops >= 100
    wire.close()
    rig.close()
