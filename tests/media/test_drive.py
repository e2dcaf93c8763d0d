"""The tape drive as hosts see it (SSC-5)."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from blockyard.media.cartridge import create, describe
from blockyard.media.generations import GENERATIONS
from blockyard.scsi.device_server import AbsentUnit
from blockyard.scsi.durable import Durable
from blockyard.scsi.sense import END_OF_MEDIUM, FILEMARK, INCORRECT_LENGTH, Asc, SenseKey
from blockyard.scsi.task import Result, Status
from blockyard.scsi.taskset import TaskSet
from blockyard.scsi.virtual import VirtualLunMap
from blockyard.worker.executor import ThreadExecutor
from tests.media.drives import (
    ERASE,
    LOAD,
    REWIND,
    UNLOAD,
    TapeHost,
    drive,
    filemarks,
    host,
    loaded,
    locate_16,
    read,
    space,
    told,
    write,
)
from tests.scsi.host import inquiry, mode_select_6, mode_sense_6

_FULL = (SenseKey.VOLUME_OVERFLOW, Asc.END_OF_PARTITION_MEDIUM_DETECTED, END_OF_MEDIUM)
_WARNING = (SenseKey.NO_SENSE, Asc.END_OF_PARTITION_MEDIUM_DETECTED, END_OF_MEDIUM)


def set_block_length(tape: TapeHost, length: int) -> None:
    tape.good(mode_select_6(12), bytes([0, 0, 0x10, 8, 0, 0, 0, 0, 0]) + length.to_bytes(3, "big"))


def test_blocks_of_any_length_come_back(tmp_path: Path) -> None:
    tape = loaded(tmp_path)
    blocks = [b"a", b"b" * 1000, b"c" * (1 << 20)]
    for block in blocks:
        tape.put(block)
    tape.good(filemarks(1))
    tape.good(REWIND)
    for block in blocks:
        assert tape.good(read(len(block))) == block
    assert tape.fails(read(7)) == (SenseKey.NO_SENSE, Asc.FILEMARK_DETECTED, FILEMARK, 7)
    assert tape.fails(read(7)) == (SenseKey.BLANK_CHECK, Asc.END_OF_DATA_DETECTED, 0, 7)
    assert tape.position() == (0, 4, 1)


def test_a_block_of_another_length_is_told_unless_the_host_does_not_care(tmp_path: Path) -> None:
    tape = loaded(tmp_path)
    tape.put(b"x" * 100)
    for length, information in ((150, 50), (30, -70)):
        tape.good(REWIND)
        result = tape.send(read(length))
        assert told(result) == (SenseKey.NO_SENSE, Asc.NO_ADDITIONAL_SENSE_INFORMATION, INCORRECT_LENGTH, information)
        assert bytes(result.data) == b"x" * min(length, 100)
        assert tape.position()[1] == 1
    for length in (150, 30):
        tape.good(REWIND)
        assert tape.good(read(length, sili=True)) == b"x" * min(length, 100)
    set_block_length(tape, 512)  # then a block that is too long counts, whatever SILI says
    tape.good(REWIND)
    assert tape.fails(read(30, sili=True)).information == -70


def test_fixed_blocks(tmp_path: Path) -> None:
    tape = loaded(tmp_path)
    assert tape.fails(read(1, fixed=True)).asc == Asc.INVALID_FIELD_IN_CDB
    set_block_length(tape, 512)
    data = bytes(range(256)) * 2 * 3
    tape.good(write(3, fixed=True), data)
    tape.good(filemarks(1))
    tape.put(b"odd")
    tape.good(REWIND)
    assert tape.good(read(2, fixed=True)) == data[:1024]
    result = tape.send(read(5, fixed=True))
    assert told(result) == (SenseKey.NO_SENSE, Asc.FILEMARK_DETECTED, FILEMARK, 4)
    assert bytes(result.data) == data[1024:]
    assert tape.fails(read(2, fixed=True)) == (0, 0, INCORRECT_LENGTH, 2)
    assert tape.position()[1] == 5
    assert tape.fails(read(2, fixed=True, sili=True)).asc == Asc.INVALID_FIELD_IN_CDB
    assert tape.fails(read(1, fixed=True)) == (SenseKey.BLANK_CHECK, Asc.END_OF_DATA_DETECTED, 0, 1)


def test_spacing_stops_where_something_stands_in_the_way(tmp_path: Path) -> None:
    tape = loaded(tmp_path)
    for _ in range(3):  # 0 1 | 3 4 | 6 7 |
        tape.put(b"1")
        tape.put(b"2")
        tape.good(filemarks(1))
    tape.good(REWIND)
    tape.good(space(0, 2))
    assert tape.fails(space(0, 2)) == (SenseKey.NO_SENSE, Asc.FILEMARK_DETECTED, FILEMARK, 2)
    assert tape.position() == (0, 3, 1)
    assert tape.fails(space(0, -1)) == (SenseKey.NO_SENSE, Asc.FILEMARK_DETECTED, FILEMARK, 1)
    assert tape.position()[1] == 2
    tape.good(space(1, 2))
    assert tape.position() == (0, 6, 2)
    assert tape.fails(space(1, 2)) == (SenseKey.BLANK_CHECK, Asc.END_OF_DATA_DETECTED, 0, 1)
    tape.good(space(1, -2))
    assert tape.position()[1] == 5
    assert tape.fails(space(1, -3)) == (0, Asc.BEGINNING_OF_PARTITION_MEDIUM_DETECTED, END_OF_MEDIUM, 2)
    assert tape.fails(space(0, -1)) == (0, Asc.BEGINNING_OF_PARTITION_MEDIUM_DETECTED, END_OF_MEDIUM, 1)
    tape.good(space(3))
    assert tape.position() == (0, 9, 3)
    tape.good(struct.pack(">BBxxq4x", 0x91, 1, -3))
    assert tape.position()[1] == 2
    assert tape.fails(space(2, 1)).asc == Asc.INVALID_FIELD_IN_CDB


def test_locating_by_object_file_and_end(tmp_path: Path) -> None:
    tape = loaded(tmp_path)
    for _ in range(3):
        tape.put(b"1")
        tape.good(filemarks(1))
    tape.good(locate_16(3))
    assert tape.position()[1] == 3
    tape.good(locate_16(2, kind=1))
    assert tape.position() == (0, 4, 2)
    tape.good(locate_16(0, kind=3))
    assert tape.position()[1] == 6
    assert tape.fails(locate_16(99)) == (SenseKey.BLANK_CHECK, Asc.END_OF_DATA_DETECTED, 0, None)
    assert tape.position()[1] == 6
    tape.good(struct.pack(">BBxIxxx", 0x2B, 0, 1))
    short = tape.good(bytes([0x34, 0]) + bytes(8))
    assert len(short) == 20
    assert struct.unpack_from(">II", short, 4) == (1, 1)
    assert tape.good(bytes([0x34, 1]) + bytes(8)) == short
    assert tape.fails(locate_16(0, partition=1)).asc == Asc.INVALID_FIELD_IN_CDB


def test_writing_in_the_midst_takes_away_what_is_behind(tmp_path: Path) -> None:
    tape = loaded(tmp_path)
    for content in (b"one", b"two", b"three"):
        tape.put(content)
    tape.good(locate_16(1))
    tape.put(b"new")
    assert tape.fails(read(5)).key == SenseKey.BLANK_CHECK
    tape.good(REWIND)
    assert [tape.good(read(3)), tape.good(read(3))] == [b"one", b"new"]
    tape.good(locate_16(1))
    tape.good(ERASE)
    assert tape.fails(read(5)).key == SenseKey.BLANK_CHECK


def test_the_end_is_told_in_time_and_nothing_goes_beyond_it(tmp_path: Path) -> None:
    tape = loaded(tmp_path, capacity=1 << 20)
    block = b"z" * 10000
    written = 0
    while (result := tape.send(write(len(block)), block)).status == Status.GOOD:
        written += 1
    assert told(result)[:3] == _WARNING
    written += 1
    while (found := told(tape.send(write(len(block)), block)))[:3] == _WARNING:
        written += 1
    assert found == (*_FULL, 10000)
    assert told(tape.send(filemarks(1)))[:3] == _WARNING  # a filemark always has room
    assert 0.98 * (1 << 20) < written * 10040 + 8192 <= 1 << 20
    assert tape.position()[1] == written + 1
    tape.good(REWIND)
    assert tape.good(bytes([0x34, 0]) + bytes(8))[0] == 0x80
    tape.good(space(0, written))
    assert tape.good(bytes([0x34, 0]) + bytes(8))[0] == 0x40


def test_worm_cartridges_take_only_what_comes_behind(tmp_path: Path) -> None:
    tape = loaded(tmp_path, worm=True)
    tape.put(b"for ever")
    tape.good(filemarks(2))
    tape.good(space(1, -1))
    tape.put(b"over the second filemark")
    tape.good(REWIND)
    for command in (write(1), ERASE, filemarks(1), bytes([0x04, 0, 0, 0, 0, 0])):
        assert tape.fails(command, b"x")[:2] == (SenseKey.DATA_PROTECT, Asc.WORM_MEDIUM_OVERWRITE_ATTEMPTED)
    assert tape.good(read(8)) == b"for ever"
    assert tape.good(mode_sense_6(0x1D))[4 + 8 + 2] == 1


def test_append_only_mode_asks_before_it_writes_over(tmp_path: Path) -> None:
    tape = loaded(tmp_path)
    tape.put(b"one")
    page = bytes([0x50, 0x01, 0, 0x1C, 0, 0x10]).ljust(32, b"\0")
    tape.good(mode_select_6(36), bytes(4) + page)
    tape.put(b"two")
    tape.good(REWIND)
    assert tape.fails(write(1), b"x")[:2] == (SenseKey.DATA_PROTECT, Asc.WRITE_APPEND_ERROR)
    allow = struct.pack(">BxBBQxxxx", 0x82, 1, 0, 0)
    tape.good(allow)
    tape.put(b"x")
    tape.good(REWIND)
    assert tape.fails(write(1), b"x").key == SenseKey.DATA_PROTECT


def test_what_is_written_outlives_unloading(tmp_path: Path) -> None:
    tape = loaded(tmp_path)
    tape.put(b"kept")
    tape.good(UNLOAD)
    assert tape.fails(read(1))[:2] == (SenseKey.NOT_READY, Asc.MEDIUM_NOT_PRESENT)
    other = host(tape.drive)
    assert other.send(LOAD).status == Status.GOOD
    assert tape.fails(bytes(6))[:2] == (SenseKey.UNIT_ATTENTION, Asc.NOT_READY_TO_READY_CHANGE_MEDIUM_MAY_HAVE_CHANGED)
    assert tape.good(read(4)) == b"kept"
    tape.good(bytes([0x1E, 0, 0, 0, 1, 0]))
    assert tape.fails(UNLOAD)[:2] == (SenseKey.ILLEGAL_REQUEST, Asc.MEDIUM_REMOVAL_PREVENTED)
    tape.good(bytes([0x1E, 0, 0, 0, 0, 0]))
    tape.drive.take_out()
    assert describe(tmp_path / "A00001L8").loads == 2
    assert tape.fails(LOAD).key == SenseKey.NOT_READY


def test_what_a_drive_of_a_generation_can_do_with_cartridges(tmp_path: Path) -> None:
    for number in range(5, 10):
        create(tmp_path, f"A0000{number}L{number}", GENERATIONS[f"LTO-{number}"], capacity=1 << 22)
    create(tmp_path, "CLN001L1", GENERATIONS["LTO-5"], capacity=1 << 22)
    unit = drive(model="ibm-lto7")
    tape = host(unit)
    told_of = {}
    for path in sorted(tmp_path.iterdir()):
        unit.insert(path)
        tape.ready()
        result = tape.send(write(1), b"x")
        told_of[path.name] = "writes" if result.status == Status.GOOD else Asc(told(result).asc).text
        unit.take_out()
    assert told_of == {
        "A00005L5": Asc.CANNOT_WRITE_MEDIUM_INCOMPATIBLE_FORMAT.text,
        "A00006L6": "writes",
        "A00007L7": "writes",
        "A00008L8": Asc.INCOMPATIBLE_MEDIUM_INSTALLED.text,
        "A00009L9": Asc.INCOMPATIBLE_MEDIUM_INSTALLED.text,
        "CLN001L1": Asc.CLEANING_CARTRIDGE_INSTALLED.text,
    }


def test_partitions_are_made_by_mode_page_and_format(tmp_path: Path) -> None:
    tape = loaded(tmp_path)
    page = bytes([0x11, 14, 3, 1, 0x20 | 2 << 3 | 4, 3, 0, 0]) + struct.pack(">4H", 0xFFFF, 10, 0, 0)
    tape.good(mode_select_6(20), bytes(4) + page)
    tape.good(bytes([0x04, 0, 1, 0, 0, 0]))
    assert describe(tmp_path / "A00001L8").capacities == ((64 << 20) - 10 * 10**6, 10 * 10**6)
    tape.put(b"first")
    tape.good(locate_16(0, partition=1))
    tape.put(b"second")
    assert tape.position() == (1, 1, 0)
    assert tape.good(mode_sense_6(0x10))[4 + 8 + 3] == 1
    tape.good(locate_16(0, partition=0))
    assert tape.good(read(5)) == b"first"
    tape.good(UNLOAD)
    tape.good(LOAD)
    tape.good(locate_16(0, partition=1))
    assert tape.good(read(6)) == b"second"
    assert tape.good(mode_sense_6(0x11))[4 + 8 + 3] == 1
    assert tape.fails(bytes([0x04, 0, 0, 0, 0, 0])).asc == Asc.COMMAND_SEQUENCE_ERROR
    tape.good(locate_16(0, partition=0))
    tape.good(bytes([0x04, 0, 0, 0, 0, 0]))
    assert describe(tmp_path / "A00001L8").capacities == (64 << 20,)
    assert tape.fails(read(5)).key == SenseKey.BLANK_CHECK


def test_partitions_as_linux_makes_them(tmp_path: Path) -> None:
    tape = loaded(tmp_path)
    page = bytes([0x11, 10, 3, 1, 0x20 | 2 << 3 | 4, 3, 0, 0]) + struct.pack(">2H", 0xFFFF, 20)  # two sizes of four
    tape.good(mode_select_6(16), bytes(4) + page)
    tape.good(bytes([0x04, 0, 1, 0, 0, 0]))
    assert describe(tmp_path / "A00001L8").capacities == ((64 << 20) - 20 * 10**6, 20 * 10**6)


def test_set_capacity_takes_from_the_capacity_that_there_was(tmp_path: Path) -> None:
    tape = loaded(tmp_path)
    tape.good(struct.pack(">BxxHx", 0x0B, 0x4000))
    assert describe(tmp_path / "A00001L8").capacity == (64 << 20) * 0x4000 // 0xFFFF
    tape.good(struct.pack(">BxxHx", 0x0B, 0xFFFF))
    assert describe(tmp_path / "A00001L8").capacity == 64 << 20


def test_attributes_are_kept_with_the_cartridge(tmp_path: Path) -> None:
    tape = loaded(tmp_path)

    def attribute(number: int) -> bytes:
        data = tape.good(struct.pack(">BB6xHIxx", 0x8C, 0, number, 4096))
        assert int.from_bytes(data[4:6], "big") == number
        return data[9 : 9 + int.from_bytes(data[7:9], "big")]

    assert attribute(0x0806) == b"A00001L8".ljust(32)
    assert int.from_bytes(attribute(0x0001), "big") == 64
    label = b"monday".ljust(160)
    written = struct.pack(">IHBH", 5 + len(label), 0x0803, 2, len(label)) + label
    tape.good(struct.pack(">BB8xIxx", 0x8D, 1, len(written)), written)
    tape.good(UNLOAD)
    tape.good(LOAD)
    assert attribute(0x0803) == label
    wrong = struct.pack(">IHBH", 13, 0x0400, 1, 8) + b"somebody"
    assert tape.fails(struct.pack(">BB8xIxx", 0x8D, 1, len(wrong)), wrong).asc == Asc.INVALID_FIELD_IN_PARAMETER_LIST
    supported = tape.good(struct.pack(">BB8xIxx", 0x8C, 5, 4096))
    assert int.from_bytes(supported[:4], "big") == len(supported) - 4
    assert bytes([0x08, 0x03]) in supported
    assert tape.good(struct.pack(">BB8xIxx", 0x8C, 3, 4096)) == bytes([0, 2, 0, 1])


def test_who_may_only_read_can_wind_and_read(tmp_path: Path) -> None:
    tape = loaded(tmp_path)
    tape.put(b"to be read")
    reader = TapeHost(tape.target, initiator="iqn.test:reader", read_only=True)
    reader.ready()
    reader.good(REWIND)
    assert reader.good(read(10)) == b"to be read"
    reader.good(space(0, -1))
    for command in (write(1), filemarks(1), ERASE):
        assert reader.fails(command, b"x")[:2] == (SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED)
    assert reader.good(mode_sense_6(0x10))[2] & 0x80


def test_a_reserved_drive_is_its_holders_alone(tmp_path: Path) -> None:
    tape = loaded(tmp_path)
    other = TapeHost(tape.target, initiator="iqn.test:other")
    other.ready()
    tape.good(bytes([0x16, 0, 0, 0, 0, 0]))
    tape.put(b"mine")
    for command in (write(4), REWIND, UNLOAD):
        assert other.send(command, b"your").status == Status.RESERVATION_CONFLICT
    tape.good(bytes([0x17, 0, 0, 0, 0, 0]))
    other.put(b"ours")


def test_a_session_that_may_write_virtually_sees_no_tapes(tmp_path: Path) -> None:
    tape = loaded(tmp_path)
    executor = ThreadExecutor()
    seen = VirtualLunMap(tape.target.luns, lambda device: device, executor)
    assert seen.inventory() == []
    assert isinstance(seen.unit(0), AbsentUnit)
    executor.close()


def test_compressed_blocks_take_less_room_and_come_back(tmp_path: Path) -> None:
    tape = loaded(tmp_path, capacity=1 << 20)
    tape.good(mode_select_6(20), bytes(4) + bytes([0x0F, 14, 0xC0, 0x80, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0]))
    assert tape.good(mode_sense_6(0x10))[4 + 8 + 14] == 1
    block, noise = b"the same again " * 10000, Random(5).randbytes(5000)
    for _ in range(20):  # three times what there is room for
        tape.put(block)
    tape.put(noise)
    page = tape.good(struct.pack(">BBBxxHHx", 0x4D, 0, 0x5B, 0, 4096))
    assert int.from_bytes(page[4 + 6 + 4 : 4 + 6 + 6], "big") > 1000
    tape.good(UNLOAD)
    tape.good(LOAD)
    assert all(tape.good(read(len(block))) == block for _ in range(20))
    assert tape.good(read(5000)) == noise
    path = tmp_path / "A00001L8" / "1-0.data"
    assert path.stat().st_size < 100000
    configuration = bytearray(tape.good(mode_sense_6(0x10))[4 + 8 :])
    configuration[14] = 0  # the same can be said by another page
    tape.good(mode_select_6(20), bytes(4) + bytes(configuration))
    assert not tape.drive.compression


def test_identities(tmp_path: Path) -> None:
    tape = loaded(tmp_path)
    data = tape.good(inquiry())
    assert (data[0], data[1]) == (0x01, 0x80)
    assert data[8:32] == b"BLOCKYRDVirtual Tape    "
    ibm = host(drive(model="ibm-lto8"))
    assert ibm.good(inquiry())[8:32] == b"IBM     ULT3580-TD8     "
    assert ibm.good(inquiry(0x80))[4:] == b"0BADCAFE01"
    assert b"IBM     ULT3580-TD8     0BADCAFE01" in ibm.good(inquiry(0x83))
    for page in ibm.good(inquiry(0x00))[4:]:
        assert ibm.good(inquiry(page))[1] == page


@pytest.mark.parametrize("page", [0x02, 0x03, 0x06, 0x0C, 0x17, 0x1B, 0x2E, 0x31])
def test_log_pages(tmp_path: Path, page: int) -> None:
    tape = loaded(tmp_path)
    tape.put(b"x" * 5000)
    data = tape.good(struct.pack(">BBBxxHHx", 0x4D, 0, 0x40 | page, 0, 4096))
    assert data[0] & 0x3F == page
    assert int.from_bytes(data[2:4], "big") == len(data) - 4
    tape.good(UNLOAD)
    tape.good(struct.pack(">BBBxxHHx", 0x4D, 0, 0x40 | page, 0, 4096))


def test_a_damaged_block_is_a_medium_error_that_spacing_passes(tmp_path: Path) -> None:
    tape = loaded(tmp_path)
    for content in (b"before", b"BROKEN", b"behind"):
        tape.put(content)
    tape.good(filemarks(1))
    path = tmp_path / "A00001L8" / "1-0.data"
    data = path.read_bytes()
    path.write_bytes(data.replace(b"BROKEN", b"BROKEd"))
    tape.good(REWIND)
    assert tape.good(read(6)) == b"before"
    assert tape.fails(read(6)) == (SenseKey.MEDIUM_ERROR, Asc.UNRECOVERED_READ_ERROR, 0, 6)
    assert tape.good(read(6)) == b"behind"
    alerts = tape.good(struct.pack(">BBBxxHHx", 0x4D, 0, 0x6E, 0, 4096))
    assert alerts[4 + 5 * 4 + 4] == 1  # flag 5: read failure


def test_the_drive_answers_while_it_is_empty() -> None:
    tape = host(drive())
    assert tape.fails(bytes(6))[:2] == (SenseKey.NOT_READY, Asc.MEDIUM_NOT_PRESENT)
    tape.good(inquiry())
    tape.good(mode_sense_6(0x3F))
    assert tape.good(bytes([0x05, 0, 0, 0, 0, 0])) == bytes([0, 0x80, 0, 0, 0, 1])
    assert len(tape.good(bytes([0x44, 0, 0, 0, 0, 0, 0, 16, 0, 0]))) > 200
    assert tape.good(bytes([0x03, 0, 0, 0, 18, 0]))[2] == SenseKey.NOT_READY


class Threads:
    """An executor whose jobs run when somebody says so."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Callable[[], Any], Callable[[Any], None]]] = []

    def submit(self, job: Callable[[], Any], done: Callable[[Any], None]) -> None:
        self.jobs.append((job, done))

    def run(self) -> None:
        job, done = self.jobs.pop(0)
        done(job())


def test_what_waits_for_a_disk_when_its_turn_comes_goes_to_a_thread(tmp_path: Path) -> None:
    tape, threads = loaded(tmp_path), Threads()
    tape.put(b"first")
    tape.drive.tasks = TaskSet(tape.drive, threads)
    results: list[Result] = []

    def send(cdb: bytes, data: bytes = b"") -> None:
        task, refused = tape.begin(cdb, len(data))
        assert refused is None
        task.data_out = data
        assert tape.drive.tasks is not None
        tape.drive.tasks.submit(task, lambda _, result: results.append(result))

    send(write(4), b"more")
    assert [result.status for result in results] == [Status.GOOD]  # it came behind what there was: no thread
    send(REWIND)
    send(write(4), b"over")  # cuts the tape, which waits for the disk; when it came there was nothing to be cut
    assert len(threads.jobs) == 1
    threads.run()
    assert len(threads.jobs) == 1
    threads.run()
    assert [result.status for result in results] == [Status.GOOD] * 3


def test_blocks_that_became_longer_while_a_read_waited_are_not_all_read(tmp_path: Path) -> None:
    tape = loaded(tmp_path)
    for _ in range(5):
        tape.put(bytes(4 << 20))
    tape.good(REWIND)
    set_block_length(tape, 1)
    task, refused = tape.begin(read(5000, fixed=True))
    assert refused is None
    set_block_length(tape, 4 << 20)
    assert told(tape.drive.run(task)).asc == Asc.INVALID_FIELD_IN_CDB


def test_a_cartridge_is_read_when_its_loading_cannot_be_counted(tmp_path: Path) -> None:
    tape = loaded(tmp_path)
    tape.put(b"content")
    tape.good(UNLOAD)
    (tmp_path / "A00001L8" / "cartridge.description.new").mkdir()  # where the next description would be written first
    tape.good(LOAD)
    assert tape.good(read(7)) == b"content"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("capacities", []), ("capacities", [float("inf")]), ("capacities", [-1]), ("loads", "many"), ("generation", []),
        ("attributes", [1]), ("attributes", {"0/ffff": "00"}), ("attributes", {"0/0800": "00" * 9}), ("last_drives", 5),
        ("version", 2), ("uuid", 7),
    ],
)  # fmt: skip
def test_a_description_that_cannot_be_is_told(tmp_path: Path, name: str, value: object) -> None:
    create(tmp_path, "A00001L8", GENERATIONS["LTO-8"])
    kept = Durable(tmp_path / "A00001L8", "cartridge")
    kept.save("description", {**kept.load("description"), name: value})
    with pytest.raises(OSError, match="damaged") as caught:
        describe(tmp_path / "A00001L8")
    assert caught.value.errno == errno.EUCLEAN


def test_a_damaged_index_is_told_by_an_alert_and_does_no_harm(tmp_path: Path) -> None:
    tape = loaded(tmp_path)
    for text in (b"one", b"two"):
        tape.put(text)
        tape.good(filemarks(1))
    tape.good(UNLOAD)
    index = next((tmp_path / "A00001L8").glob("*.index"))
    index.write_bytes(index.read_bytes()[:-10] + bytes(10))
    tape.good(LOAD)
    assert _alerts(tape) == set()
    tape.good(space(1, 2))
    assert tape.position() == (0, 4, 2)
    assert _alerts(tape) == {18}
    tape.good(REWIND)
    assert tape.good(read(3)) == b"one"


def _alerts(tape: TapeHost) -> set[int]:
    page = tape.good(bytes([0x4D, 0, 0x6E, 0, 0, 0, 0, 0x10, 0, 0]))
    return {page[at + 1] for at in range(4, len(page), 5) if page[at + 4]}


def _set(tape: TapeHost, page: bytes) -> None:
    data = bytes([0, 0, 0x10, 0]) + page
    tape.good(mode_select_6(len(data)), data)


def _extension(pews: int) -> bytes:
    return bytes([0x50, 0x01, 0, 28, 0, 0]) + pews.to_bytes(2, "big") + bytes(24)


def _configuration(tape: TapeHost, **bits: tuple[int, int]) -> None:
    """The Device Configuration page with bytes or-ed into it, or taken out."""
    page = bytearray(tape.good(mode_sense_6(0x10))[-16:])
    for at, value in bits.values():
        page[at] = page[at] | value if value > 0 else page[at] & ~-value
    _set(tape, bytes(page))


def test_programmable_early_warning_is_told_once_where_the_host_wants_it(tmp_path: Path) -> None:
    tape = loaded(tmp_path, capacity=4 << 20)
    _set(tape, _extension(1))
    assert tape.good(mode_sense_6(0x10, 0x01))[-26:-24] == b"\0\1"
    block, told_at, position = 1 << 16, [], bytes([0x34]) + bytes(9)
    for number in range(64):
        before = tape.good(position)[0] & 0x41
        result = tape.send(write(block), bytes(block))
        left = (4 << 20) - 8192 - (number + 1) * (block + 40)
        beyond, near = left < (1 << 18) + 10**6, left < 1 << 18
        assert tape.good(position)[0] & 0x41 == beyond | near << 6
        if result.status == Status.GOOD:
            assert not near
            assert beyond == before & 1
            continue
        found = told(result)
        told_at.append(found.asc)
        assert (found.key, found.stream, found.information) == (SenseKey.NO_SENSE, END_OF_MEDIUM, 0)
        if near:
            break
    assert told_at == [Asc.PROGRAMMABLE_EARLY_WARNING_DETECTED, Asc.END_OF_PARTITION_MEDIUM_DETECTED]
    assert tape.drive.tape is not None
    assert not tape.drive.tape.partition._dirty  # SEW: at early warning it is all on the medium
    tape.good(locate_16(40))
    told_again = [tape.send(write(block), bytes(block)).status for _ in range(6)]
    assert told_again.count(Status.CHECK_CONDITION) == 1  # from before the zone into it again


def test_early_warning_is_told_to_who_reads_and_wants_it(tmp_path: Path) -> None:
    tape = loaded(tmp_path, capacity=4 << 20)
    block, count = 1 << 16, 0
    while tape.send(write(block), bytes([count]) * block).status == Status.GOOD:
        count += 1
    tape.good(locate_16(count - 1))
    assert tape.good(read(block)) + tape.good(read(block)) == bytes([count - 1]) * block + bytes([count]) * block
    _configuration(tape, rew=(8, 0x01))
    tape.good(locate_16(count - 1))
    assert tape.good(read(block)) == bytes([count - 1]) * block
    last = tape.send(read(block))
    assert told(last) == (SenseKey.NO_SENSE, Asc.END_OF_PARTITION_MEDIUM_DETECTED, END_OF_MEDIUM, 0)
    assert bytes(last.data) == bytes([count]) * block


def test_early_warning_waits_for_the_medium_unless_the_host_says_not_to(tmp_path: Path) -> None:
    tape = loaded(tmp_path, capacity=4 << 20)
    _configuration(tape, sew=(10, -0x08))
    while tape.send(write(1 << 16), bytes(1 << 16)).status == Status.GOOD:
        pass
    assert tape.drive.tape is not None
    assert tape.drive.tape.partition._dirty
