"""The short cut for READ and WRITE of tapes gives the same answers, and leaves the same cartridge, as the long way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockyard.iscsi.node import TargetNode
from blockyard.media.cartridge import create, describe, save
from blockyard.media.drive import TapeDrive
from blockyard.media.generations import GENERATIONS
from blockyard.media.record import FIRST
from blockyard.media.streaming import Stream
from blockyard.media.streaming import stream as take_stream
from blockyard.scsi.target import Target
from blockyard.scsi.taskset import TaskSet
from tests.media import drives
from tests.media.scratch import scratch
from tests.scsi.host import mode_select_6, mode_sense_6
from tests.wire import TARGET, Rig
from tests.worker.test_fastpath import FIRST_BURST, play_on

_CAPACITY = 1 << 20  # bytes: with 64 KiB for early warning
_SIZES = (4, 512, 512, 512, 4096, 30000, 65536, 65537)
_READY = (bytes(16), False, 0)
Move = Callable[..., bool | int | None]
Script = list[tuple[bytes, bool, int]]


class TapeRig(Rig):
    """A drive as LUN 0, with an empty cartridge in it."""

    def __init__(self, directory: Path, *, worm: bool = False) -> None:
        super().__init__()
        create(directory, "A00001L8", GENERATIONS["LTO-8"], capacity=_CAPACITY, worm=worm)
        self.drive: TapeDrive = drives.drive()
        self.drive.insert(directory / "A00001L8")
        self.drive.tasks = TaskSet(self.drive, self.executor)
        self.node = TargetNode(TARGET, Target(TARGET, {0: self.drive}))

    def close(self) -> None:
        super().close()
        self.drive.close()


def _command(cdb: bytes, length: int = 0, *, write: bool = False) -> tuple[bytes, bool, int]:
    return cdb.ljust(16, b"\0"), write, length


@st.composite
def commands(draw: st.DrawFn) -> tuple[bytes, bool, int]:
    """What moves a tape, mostly READ and WRITE of one block: CDB, whether it writes, expected length."""
    size = draw(st.sampled_from(_SIZES))
    kind = draw(
        st.sampled_from(["write"] * 6 + ["read"] * 6 + ["rewind", "rewind", "mark", "back", "forward", "fixed", "end"])
    )
    off_by = draw(st.sampled_from([0] * 7 + [4, -4]))
    sili = draw(st.booleans())
    return {
        "write": _command(drives.write(size), max(0, size + off_by), write=True),
        "read": _command(drives.read(size, sili=sili), max(0, size + off_by)),
        "rewind": _command(drives.REWIND),
        "mark": _command(drives.filemarks(1)),
        "back": _command(drives.space(0, -1)),
        "forward": _command(drives.space(0, 1)),
        "fixed": _command(drives.read(1, fixed=True), 512),
        "end": _command(drives.space(3)),
    }[kind]


def _play(script: Script, keys: dict[str, str], *, fast: bool, worm: bool) -> tuple[object, ...]:
    directory = scratch()
    rig = TapeRig(directory, worm=worm)
    drive = rig.drive
    partition = drive.tape.partition if drive.tape else None
    answers = play_on(rig, [_READY] * 3 + script, keys, fast=fast)
    counters = drive.counters
    found = (counters.other_ops, counters.read_bytes, counters.write_bytes, counters.errors)
    assert partition is not None
    cartridge = directory / "A00001L8"
    records = (cartridge / "1-0.data").read_bytes()[FIRST:]  # before that is the UUID
    return answers, found, partition.objects, partition.filemarks, records, (cartridge / "1-0.index").read_bytes()


@pytest.mark.parametrize("digest", ["None", "CRC32C"])
@pytest.mark.parametrize("worm", [False, True])
@settings(max_examples=25, deadline=None)
@given(script=st.lists(commands(), min_size=1, max_size=25))
def test_both_ways_are_one(worm: bool, digest: str, script: Script) -> None:
    keys = {
        "MaxRecvDataSegmentLength": "262144", "FirstBurstLength": str(FIRST_BURST), "HeaderDigest": digest,
        "DataDigest": digest,
    }  # fmt: skip
    fast, slow = (_play(script, keys, fast=way, worm=worm) for way in (True, False))
    assert fast == slow


def test_the_short_cut_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    done = {"write": 0, "read": 0}
    for name in done:
        monkeypatch.setattr(Stream, name, _counting(getattr(Stream, name), done, name))
    block = 65536
    blocks = (_CAPACITY - (_CAPACITY >> 4)) // (block + 40)
    script = [_command(drives.write(block), block, write=True)] * 20 + [_command(drives.REWIND)]
    script += [_command(drives.read(block), block)] * 16
    _play(script, {"MaxRecvDataSegmentLength": "262144", "FirstBurstLength": str(FIRST_BURST)}, fast=True, worm=False)
    assert done == {"write": blocks, "read": blocks + 1}  # the last was written the long way


def _counting(real: Move, done: dict[str, int], name: str) -> Move:
    def counted(self: Stream, *data: object) -> bool | int | None:
        found = real(self, *data)
        done[name] += found is not None and found is not False
        return found

    return counted


def _written(tape: drives.TapeHost) -> bool:
    found = take_stream(tape.drive, tape.nexus)
    assert found is not None
    try:
        return found.write(memoryview(bytes(1000)), None)
    finally:
        found.close()


def test_what_has_to_be_told_or_done_goes_the_long_way(tmp_path: Path) -> None:
    tape = drives.loaded(tmp_path)
    assert _written(tape)
    assert tape.position() == (0, 1, 0)
    tape.good(drives.REWIND)
    assert not _written(tape)  # something would be written over
    tape.good(drives.space(3))
    compression = bytes([0x0F, 14, 0xC0, 0x80, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0])
    for unusual, usual in (
        (bytes(4), bytes([0, 0, 0x10, 0])),  # BUFFERED MODE
        (bytes([0, 0, 0x10, 0]) + compression, bytes([0, 0, 0x10, 0, 0x0F, 14, 0x40]) + compression[3:]),
    ):
        assert _written(tape)
        tape.good(mode_select_6(len(unusual)), unusual)
        assert not _written(tape)
        tape.good(mode_select_6(len(usual)), usual)
        assert _written(tape)
    tape.nexus.read_only = True
    assert not _written(tape)
    tape.nexus.read_only = False
    tape.good(drives.space(3))
    assert _written(tape)
    tape.good(drives.UNLOAD)
    assert take_stream(tape.drive, tape.nexus) is None


def test_another_cartridge_is_another_stream(tmp_path: Path) -> None:
    """Without a command in between: the library moves it."""
    tape = drives.loaded(tmp_path)
    assert _written(tape)
    tape.drive.take_out()
    assert take_stream(tape.drive, tape.nexus) is None
    create(tmp_path, "A00002L8", GENERATIONS["LTO-8"], capacity=_CAPACITY)
    tape.drive.insert(tmp_path / "A00002L8")
    assert _written(tape)
    loaded = tape.drive.tape
    assert loaded is not None
    assert (loaded.directory.name, loaded.partition.objects) == ("A00002L8", 1)
    create(tmp_path, "A00003L8", GENERATIONS["LTO-8"], capacity=_CAPACITY)
    save(tmp_path / "A00003L8", replace(describe(tmp_path / "A00003L8"), write_protected=True))
    tape.drive.take_out()
    tape.drive.insert(tmp_path / "A00003L8")
    assert not _written(tape)


def test_a_reset_ends_a_stream(tmp_path: Path) -> None:
    tape = drives.loaded(tmp_path)
    page = bytearray(tape.good(mode_sense_6(0x10))[12:])
    protected = bytes(page[:10]) + bytes([page[10] | 0x04]) + bytes(page[11:])  # SWP
    for flags, each in ((0x11, protected), (0x10, bytes(page))):  # the one is saved, the other not
        tape.good(mode_select_6(4 + len(page), flags), bytes([0, 0, 0x10, 0]) + each)
    assert _written(tape)
    tape.drive.reset()
    assert not _written(tape)
