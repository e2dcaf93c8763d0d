"""A partition beside a plain list: what is written can be found and read, and what is written over is gone."""

from __future__ import annotations

import errno
import os
import random
import tracemalloc
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
from fastcrc.crc32 import iscsi as crc32c
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from blockyard.block import codec
from blockyard.media.partition import Partition, create
from blockyard.media.record import BLOCK, FIRST, HEADER_LENGTH, SLOT, Record, Sealed, Superblock
from tests.media.scratch import scratch

CARTRIDGE = UUID("c0ffee00-1111-4222-8333-444455556666")


def made(directory: Path) -> Partition:
    create(directory / "0.data", CARTRIDGE, 0)
    return Partition(directory / "0.data")


def contents(partition: Partition) -> list[bytes | Sealed | None]:
    return [partition.read(number) for number in range(partition.objects)]


class Model(RuleBasedStateMachine):
    """A list of blocks, and None for filemarks."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = scratch()
        self.partition = made(self.directory)
        self.model: list[bytes | None] = []

    def teardown(self) -> None:
        self.partition.close()

    @rule(data=st.binary(min_size=1, max_size=2000))
    def write(self, data: bytes) -> None:
        self.partition.append(data)
        self.model.append(data)

    @rule(count=st.integers(1, 3))
    def write_filemarks(self, count: int) -> None:
        for _ in range(count):
            self.partition.append_filemark()
            self.model.append(None)

    @rule(data=st.data())
    def write_over(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, len(self.model)))
        self.partition.truncate(number)
        del self.model[number:]

    @rule()
    def sync(self) -> None:
        self.partition.sync()

    @rule(lost=st.booleans())
    def open_again(self, lost: bool) -> None:
        self.partition.close()
        if lost:  # the index can be made anew
            (self.directory / "0.index").unlink()
        self.partition = Partition(self.directory / "0.data")

    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        if self.model:
            number = data.draw(st.integers(0, len(self.model) - 1))
            assert self.partition.read(number) == self.model[number]

    @invariant()
    def counts(self) -> None:
        marks = [number for number, content in enumerate(self.model) if content is None]
        assert (self.partition.objects, self.partition.filemarks) == (len(self.model), len(marks))
        assert [self.partition.filemark(ordinal) for ordinal in range(len(marks))] == marks
        assert all(self.partition.read(number) is None for number in marks)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_what_is_there_after_a_crash_of_the_process(tmp_path: Path) -> None:
    partition = made(tmp_path)
    written: list[bytes | None] = [b"a" * 1000, None, b"b" * 70000]
    for content in written:
        partition.append_filemark() if content is None else partition.append(content)
    again = Partition(tmp_path / "0.data")  # nothing was closed, and no checkpoint made
    assert contents(again) == written
    again.close()


def test_a_damaged_block_is_told_and_its_neighbours_can_be_read(tmp_path: Path) -> None:
    partition = made(tmp_path)
    for content in (b"one", b"two", b"three"):
        partition.append(content)
    partition.close()
    at = FIRST + 2 * HEADER_LENGTH + len(b"one")
    with (tmp_path / "0.data").open("r+b") as file:
        file.seek(at)
        file.write(b"TWO")
    partition = Partition(tmp_path / "0.data")
    assert (partition.read(0), partition.read(2)) == (b"one", b"three")
    with pytest.raises(OSError, match="checksum of object 1") as caught:
        partition.read(1)
    assert caught.value.errno == errno.EBADMSG
    partition.close()


def test_one_superblock_may_be_damaged_and_two_may_not(tmp_path: Path) -> None:
    partition = made(tmp_path)
    partition.append(b"x" * 100)
    partition.close()
    with (tmp_path / "0.data").open("r+b") as file:
        file.seek(SLOT)  # the newer of the two
        file.write(bytes(SLOT))
    partition = Partition(tmp_path / "0.data")
    assert contents(partition) == [b"x" * 100]
    partition.close()
    with (tmp_path / "0.data").open("r+b") as file:
        file.write(bytes(FIRST))
    with pytest.raises(OSError, match="damaged") as caught:
        Partition(tmp_path / "0.data")
    assert caught.value.errno == errno.EUCLEAN


def test_what_only_can_be_read_is_not_changed_by_opening_it(tmp_path: Path) -> None:
    partition = made(tmp_path)
    partition.append(b"kept")
    partition.close()
    with (tmp_path / "0.data").open("ab") as file:
        file.write(b"rubbish behind the end")
    before = (tmp_path / "0.data").read_bytes()
    partition = Partition(tmp_path / "0.data", read_only=True)
    assert contents(partition) == [b"kept"]
    partition.close()
    assert (tmp_path / "0.data").read_bytes() == before


def test_a_filemark_is_found_among_many_blocks_by_few_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    partition = made(tmp_path)
    rng = random.Random(7)
    marks = sorted(rng.sample(range(20000), 300))
    chosen = set(marks)
    for number in range(20000):
        partition.append_filemark() if number in chosen else partition.append(b"x")
    partition.close()
    partition = Partition(tmp_path / "0.data")
    reads = 0
    pread = os.pread

    def counted(fd: int, length: int, offset: int) -> bytes:
        nonlocal reads
        reads += 1
        return pread(fd, length, offset)

    monkeypatch.setattr(os, "pread", counted)
    assert partition.filemark(150) == marks[150]
    assert reads <= 20
    partition.close()


_WRITTEN = [b"one", None, b"two", b"three" * 100, None]


def _closed(directory: Path) -> bytes:
    """A partition with these, closed; what its index is."""
    partition = made(directory)
    for content in _WRITTEN:
        partition.append_filemark() if content is None else partition.append(content)
    partition.close()
    return (directory / "0.index").read_bytes()


@pytest.mark.parametrize("number", range(5))
def test_a_damaged_index_is_made_anew_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture, number: int) -> None:
    sound = _closed(tmp_path)
    size = len(sound) // 5
    other = (number + 1) % 5
    swapped = sound[other * size : (other + 1) * size]  # whole, but another's
    for entry in (bytes(size), sound[number * size : (number + 1) * size - 5] + b"\xff" * 5, swapped):
        (tmp_path / "0.index").write_bytes(sound[: number * size] + entry + sound[(number + 1) * size :])
        partition = Partition(tmp_path / "0.data")
        assert not partition.index_damaged
        assert partition.place(number) is None
        assert not partition.at_hand(number)
        assert partition.filemark(1) == 4
        assert contents(partition) == _WRITTEN
        assert partition.index_damaged
        assert "the entry of object" in caplog.text
        partition.close()
        assert (tmp_path / "0.index").read_bytes() == sound
        caplog.clear()


def test_where_the_next_block_was_is_forgotten_when_it_is_written_over(tmp_path: Path) -> None:
    partition = made(tmp_path)
    for number in range(3):
        partition.append(bytes([number]) * 100)
    room = memoryview(bytearray(HEADER_LENGTH + 100))
    assert partition.read_at_once(0, room) == crc32c(bytes(100))
    assert room[HEADER_LENGTH:] == bytes(100)
    partition.truncate(0)
    partition.append(b"a")
    partition.append(b"b")  # the record of the block before stands where it was, behind these
    assert partition.read_at_once(1, room) is None
    assert partition.read(1) == b"b"
    partition.close()


def test_what_only_can_be_read_needs_no_index(tmp_path: Path) -> None:
    _closed(tmp_path)
    (tmp_path / "0.index").unlink()
    partition = Partition(tmp_path / "0.data", read_only=True)
    assert contents(partition) == _WRITTEN
    partition.close()
    assert not (tmp_path / "0.index").exists()


def test_an_index_of_other_records_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = made(tmp_path / "other")
    for length in range(5):
        other.append(bytes(7 + length))
    other.close()
    sound = _closed(tmp_path)
    (tmp_path / "0.index").write_bytes((tmp_path / "other" / "0.index").read_bytes())
    partition = Partition(tmp_path / "0.data")
    assert contents(partition) == _WRITTEN
    assert partition.index_damaged
    partition.close()
    assert (tmp_path / "0.index").read_bytes() == sound


def test_where_index_and_record_are_damaged_all_else_can_be_read(tmp_path: Path) -> None:
    sound = bytearray(_closed(tmp_path))
    sound[2 * len(sound) // 5] ^= 1
    (tmp_path / "0.index").write_bytes(sound)
    with (tmp_path / "0.data").open("r+b") as file:
        file.seek(FIRST)
        file.write(b"X")  # the header of object 0
    partition = Partition(tmp_path / "0.data")
    assert [partition.read(number) for number in (1, 3, 4)] == [_WRITTEN[number] for number in (1, 3, 4)]
    with pytest.raises(OSError, match="The index is lost, and object 0 is damaged"):
        partition.read(2)
    with pytest.raises(OSError, match="header of object 0") as caught:
        partition.read(0)
    assert caught.value.errno == errno.EBADMSG
    assert partition.read(3) == _WRITTEN[3]
    partition.close()


def test_a_cartridge_of_version_1_is_read_and_becomes_one_of_2(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sound = _closed(tmp_path)
    old = b"".join(sound[at : at + 16] for at in range(0, len(sound), 20))  # offset and filemarks
    (tmp_path / "0.index").write_bytes(old)
    with (tmp_path / "0.data").open("r+b") as file:
        for at in (0, SLOT):
            file.seek(at)
            head = bytearray(file.read(76))
            head[8] = 1
            file.seek(at)
            file.write(head[:72] + crc32c(bytes(head[:72])).to_bytes(4, "little"))
    reading = Partition(tmp_path / "0.data", read_only=True)
    assert contents(reading) == _WRITTEN
    reading.close()
    assert (tmp_path / "0.index").read_bytes() == old
    partition = Partition(tmp_path / "0.data")
    assert contents(partition) == _WRITTEN
    assert not partition.index_damaged
    partition.close()
    assert (tmp_path / "0.index").read_bytes() == sound
    assert not caplog.text
    begin = (tmp_path / "0.data").read_bytes()[:FIRST]
    assert {begin[8], begin[SLOT + 8]} == {1, 2}  # the older of the two is left as it was


def test_a_cartridge_of_a_later_version_is_refused(tmp_path: Path) -> None:
    _closed(tmp_path)
    with (tmp_path / "0.data").open("r+b") as file:
        later = bytearray(file.read(76))
        later[8] = 3
        file.seek(0)
        file.write(later[:72] + crc32c(bytes(later[:72])).to_bytes(4, "little"))
    with pytest.raises(OSError, match="version 3, and this program knows 1 to 2"):
        Partition(tmp_path / "0.data")


def test_what_cannot_be_is_no_superblock_and_no_record() -> None:
    sound = Superblock(CARTRIDGE, 0, 1, 1, 1, FIRST + HEADER_LENGTH, 1)
    assert Superblock.decode(sound.encode()) == sound
    for wrong in (
        replace(sound, objects=2), replace(sound, filemarks=2), replace(sound, end=1 << 63), replace(sound, end=0),
    ):  # fmt: skip
        assert Superblock.decode(wrong.encode()) is None
    block = Record(BLOCK, 0, 0, 100, 100, 1, 0, 0)
    assert Record.decode(block.encode()) == block
    for record in (block._replace(stored=101), block._replace(length=1 << 30, stored=1 << 30)):
        assert Record.decode(record.encode()) is None  # it would take memory that no block takes


def test_a_compressed_block_takes_no_more_memory_than_it_has_bytes() -> None:
    kind, stored = codec.compress(bytes(64 << 20))
    assert codec.decompress(kind, bytes(stored), 64 << 20) == bytes(64 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(OSError, match="1000 bytes") as caught:
            codec.decompress(kind, bytes(stored), 1000)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert caught.value.errno == errno.EBADMSG
