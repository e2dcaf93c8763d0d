"""Tape libraries as hosts see them (SMC-3), and what outlives a restart."""

from __future__ import annotations

import errno
import os
import shutil
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from blockyard.media import keeping
from blockyard.media.elements import Element, Kind, element
from blockyard.media.generations import GENERATIONS
from blockyard.media.library import Library
from blockyard.media.models import DRIVES, LIBRARIES
from blockyard.scsi.sense import Asc, SenseKey
from blockyard.scsi.target import Target
from blockyard.scsi.task import Status
from blockyard.worker.later import Later
from blockyard.worker.measuring import look
from blockyard.worker.tape_requests import carry_out
from blockyard.worker.tape_requests import status as status_of
from tests.media.drives import LOAD, REWIND, UNLOAD, TapeHost, filemarks, read, space, told, write
from tests.media.scratch import scratch
from tests.scsi.host import NAME, inquiry, mode_sense_6

SLOT, DRIVE, IO = 0x0400, 0x0100, 0x0010  # the first addresses


def library(directory: Path, *, drives: int = 2, slots: int = 5, io: int = 1, model: str = "blockyard") -> Library:
    return Library(
        "vault",
        directory,
        model=LIBRARIES[model],
        drive_model=DRIVES["blockyard"],
        drives=drives,
        slots=slots,
        import_export=io,
    )


def filled(directory: Path, *barcodes: str) -> Library:
    made = library(directory)
    for barcode in barcodes:
        made.create(barcode, GENERATIONS["LTO-8"], capacity=16 << 20)
    return made


def hosts(of: Library) -> list[TapeHost]:
    """The initiator of the changer, and of each drive."""
    target = Target(NAME, dict(enumerate(of.units)))
    found = [TapeHost(target, lun) for lun in range(len(of.units))]
    for host in found:
        host.ready()
    return found


def move(source: int, destination: int) -> bytes:
    return struct.pack(">BxHHHxxxx", 0xA5, 0, source, destination)


def exchange(source: int, first: int, second: int) -> bytes:
    return struct.pack(">BxHHHHxx", 0xA6, 0, source, first, second)


def status(
    host: TapeHost, *, kind: int = 0, start: int = 0, number: int = 0xFFFF, dvcid: bool = False
) -> dict[int, str]:
    """The barcode of each element by its address, taken from READ ELEMENT STATUS with volume tags."""
    data = host.good(struct.pack(">BBHHBBHxx", 0xB8, 0x10 | kind, start, number, dvcid, 0, 0xFFFF))
    assert int.from_bytes(data[5:8], "big") == len(data) - 8
    found: dict[int, str] = {}
    at = 8
    while at < len(data):
        length, total = int.from_bytes(data[at + 2 : at + 4], "big"), int.from_bytes(data[at + 5 : at + 8], "big")
        at += 8
        for one in range(at, at + total, length):
            full = bool(data[one + 2] & 1)
            tag = data[one + 12 : one + 44].decode().strip("\0 ")
            assert full == bool(tag)
            found[int.from_bytes(data[one : one + 2], "big")] = tag
        at += total
    assert int.from_bytes(data[2:4], "big") == len(found)
    return found


def test_cartridges_move_and_hosts_see_where_they_are(tmp_path: Path) -> None:
    vault = filled(tmp_path, "A00001L8", "A00002L8")
    changer, first, second = hosts(vault)
    assert {address: tag for address, tag in status(changer).items() if tag} == {SLOT: "A00001L8", SLOT + 1: "A00002L8"}
    assert len(status(changer)) == 1 + 5 + 1 + 2
    changer.good(move(SLOT, DRIVE))
    assert first.fails(bytes(6))[:2] == (SenseKey.UNIT_ATTENTION, Asc.NOT_READY_TO_READY_CHANGE_MEDIUM_MAY_HAVE_CHANGED)
    first.put(b"to be moved")
    assert changer.fails(move(SLOT, SLOT + 2))[:2] == (SenseKey.ILLEGAL_REQUEST, Asc.MEDIUM_SOURCE_ELEMENT_EMPTY)
    assert changer.fails(move(SLOT + 1, DRIVE))[:2] == (SenseKey.ILLEGAL_REQUEST, Asc.MEDIUM_DESTINATION_ELEMENT_FULL)
    assert changer.fails(move(SLOT + 1, 0x7777))[:2] == (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_ELEMENT_ADDRESS)
    changer.good(move(DRIVE, DRIVE + 1))
    assert first.fails(bytes(6)).asc == Asc.MEDIUM_NOT_PRESENT
    second.ready()
    assert second.good(read(11)) == b"to be moved"
    assert status(changer, kind=4) == {DRIVE: "", DRIVE + 1: "A00001L8"}
    changer.good(exchange(SLOT + 1, DRIVE + 1, SLOT + 3))
    assert status(changer, kind=4)[DRIVE + 1] == "A00002L8"
    assert status(changer, kind=2, start=SLOT + 3, number=1) == {SLOT + 3: "A00001L8"}
    changer.good(exchange(SLOT + 3, DRIVE + 1, SLOT + 3))
    assert status(changer)[SLOT + 3] == "A00002L8"
    vault.close()


def test_a_host_that_holds_a_cartridge_keeps_it(tmp_path: Path) -> None:
    vault = filled(tmp_path, "A00001L8")
    changer, drive, _ = hosts(vault)
    changer.good(move(SLOT, DRIVE))
    drive.ready()
    drive.good(bytes([0x1E, 0, 0, 0, 1, 0]))
    assert changer.fails(move(DRIVE, SLOT))[:2] == (SenseKey.ILLEGAL_REQUEST, Asc.MEDIUM_REMOVAL_PREVENTED)
    drive.good(bytes([0x1E, 0, 0, 0, 0, 0]))
    drive.good(UNLOAD)
    changer.good(move(DRIVE, SLOT))
    assert drive.send(LOAD).status == Status.CHECK_CONDITION
    vault.close()


def test_an_exchange_that_fails_half_way_leaves_all_as_it_was(tmp_path: Path) -> None:
    robot = filled(tmp_path, "A00001L8", "A00002L8")
    changer, one, _ = hosts(robot)
    changer.good(move(SLOT, DRIVE))
    changer.good(move(SLOT + 1, DRIVE + 1))
    where = dict(robot.contents)
    (
        tmp_path / "cartridges" / "A00002L8" / "cartridge.description.new"
    ).mkdir()  # the drive cannot leave it as it should
    assert changer.send(exchange(DRIVE, DRIVE + 1, SLOT)).status == Status.CHECK_CONDITION
    assert robot.contents == where
    assert [unit.inserted is not None for unit in robot.drives] == [True, True]
    one.ready()
    one.good(LOAD)
    robot.close()


def test_what_was_to_be_written_to_one_cartridge_does_not_hit_another(tmp_path: Path) -> None:
    robot = filled(tmp_path, "A00001L8", "A00002L8")
    _, one, _ = hosts(robot)
    robot.move(Element(Kind.SLOT, 1), Element(Kind.DRIVE, 0))
    one.ready()
    one.put(b"precious")
    robot.move(Element(Kind.DRIVE, 0), Element(Kind.SLOT, 1))
    robot.move(Element(Kind.SLOT, 0), Element(Kind.DRIVE, 0))
    one.ready()
    task, refused = one.begin(write(5), 5)  # its data is still to come when somebody changes cartridges
    assert refused is None
    robot.move(Element(Kind.DRIVE, 0), Element(Kind.SLOT, 0))
    robot.move(Element(Kind.SLOT, 1), Element(Kind.DRIVE, 0))
    task.data_out = b"other"
    assert told(one.drive.run(task)).key == SenseKey.UNIT_ATTENTION
    assert one.good(read(8)) == b"precious"
    robot.close()


def test_who_looks_does_not_wait_for_a_move_that_waits_for_a_drive(tmp_path: Path) -> None:
    robot = filled(tmp_path, "A00001L8")
    with ThreadPoolExecutor(1) as threads, robot.lock:
        looking = threads.submit(lambda: (status_of(robot, {}), look([], {"vault": robot}, {})))
        found, measured = looking.result(timeout=120)
    assert found["elements"] == {"slot-1": "A00001L8"}
    assert measured["libraries"]["vault"]["cartridges"] == 1
    robot.close()


def test_everything_is_where_it_was_after_a_restart(tmp_path: Path) -> None:
    vault = filled(tmp_path, "A00001L8", "A00002L8")
    changer, drive, _ = hosts(vault)
    changer.good(move(SLOT, DRIVE))
    drive.ready()
    drive.put(b"kept")
    drive.good(bytes([0x10, 0, 0, 0, 1, 0]))
    names = [host.good(inquiry(0x83)) for host in (changer, drive)]
    with pytest.raises(OSError, match="Somebody else") as caught:
        library(tmp_path)
    assert caught.value.errno == errno.EBUSY
    vault.close()
    again = library(tmp_path, slots=1)
    changer, drive, _ = hosts(again)
    assert [host.good(inquiry(0x83)) for host in (changer, drive)] == names
    assert status(changer)[DRIVE] == "A00001L8"
    drive.good(REWIND)
    assert drive.good(read(4)) == b"kept"
    assert again.find("A00002L8") is None  # there is no slot 2 any more
    again.close()


def test_a_tape_stands_where_it_stood_before_a_restart(tmp_path: Path) -> None:
    vault = filled(tmp_path, "A00001L8")
    changer, drive, _ = hosts(vault)
    changer.good(move(SLOT, DRIVE))
    drive.ready()
    for block in (b"label", b"first", b"second"):
        drive.put(block)
    drive.good(space(0, -1))
    vault.close()
    again = library(tmp_path)
    drive = hosts(again)[1]
    assert drive.position() == (0, 2, 0)
    drive.put(b"written by a host that did not mind the unit attention")
    drive.good(REWIND)
    assert drive.good(read(5)) == b"label"
    again.close()


def test_after_the_death_of_the_server_a_tape_stands_at_the_end_of_data(tmp_path: Path) -> None:
    vault = filled(tmp_path, "A00001L8")
    changer, drive, _ = hosts(vault)
    changer.good(move(SLOT, DRIVE))
    drive.ready()
    for block in (b"label", b"first"):
        drive.put(block)
    vault.close()
    vault = library(tmp_path)  # a restart in order: what it had written down does not hold for the next
    drive = hosts(vault)[1]
    drive.put(b"second")
    drive.good(filemarks(1))
    drive.good(REWIND)
    shutil.copytree(tmp_path, tmp_path.parent / "dead")
    vault.close()
    again = library(tmp_path.parent / "dead")
    assert hosts(again)[1].position() == (0, 4, 1)
    again.close()


@pytest.mark.parametrize("kept", [["A00002L8", 0, 1], ["A00001L8", 7, 1], ["A00001L8", 0], {"position": 1}, "damaged"])
def test_a_position_that_does_not_fit_is_not_taken(kept: object, tmp_path: Path) -> None:
    vault = filled(tmp_path, "A00001L8")
    changer, drive, _ = hosts(vault)
    changer.good(move(SLOT, DRIVE))
    drive.ready()
    for block in (b"label", b"first"):
        drive.put(block)
    drive.good(REWIND)
    durable = drive.drive.durable
    vault.close()
    if kept == "damaged":
        path = durable.file("position.json")
        assert path is not None
        assert path.exists()
        path.write_text(kept)
    else:
        durable.save("position", kept)
    again = library(tmp_path)
    assert hosts(again)[1].position() == (0, 2, 0)
    again.close()


def test_people_bring_cartridges_and_take_them_away(tmp_path: Path) -> None:
    vault = filled(tmp_path, "A00001L8")
    changer, drive, _ = hosts(vault)
    assert vault.take_away("A00001L8") == Element(Kind.SLOT, 0)
    changer.ready()
    assert vault.bring("A00001L8") == element("io-1")
    assert changer.fails(bytes(6))[:2] == (SenseKey.UNIT_ATTENTION, Asc.IMPORT_OR_EXPORT_ELEMENT_ACCESSED)
    assert status(changer, kind=3) == {IO: "A00001L8"}
    with pytest.raises(ValueError, match="io-1 already"):
        vault.bring("A00001L8")
    changer.good(move(IO, DRIVE))
    with pytest.raises(ValueError, match="drive-1: move it to a slot first"):
        vault.take_away("A00001L8")
    changer.good(bytes([0x1E, 0, 0, 0, 1, 0]))
    with pytest.raises(ValueError, match="locked"):
        vault.create("A00002L8", GENERATIONS["LTO-8"])
    changer.good(bytes([0x1E, 0, 0, 0, 0, 0]))
    with pytest.raises(OSError, match="no barcode"):
        vault.create("a b", GENERATIONS["LTO-8"])
    assert vault.create("A00003L8", GENERATIONS["LTO-8"], place=element("slot-4")) == element("slot-4")
    drive.ready()
    vault.close()


def test_a_cartridge_gets_another_barcode(tmp_path: Path) -> None:
    vault = filled(tmp_path, "A00001L8", "A00002L8")
    changer, drive, _ = hosts(vault)
    changer.good(move(SLOT, DRIVE))
    drive.ready()
    drive.put(b"to be labelled")
    with pytest.raises(ValueError, match="drive-1: move it to a slot first"):
        vault.label("A00001L8", "B00001L8")
    changer.good(move(DRIVE, SLOT + 4))
    changer.good(move(SLOT + 1, IO))
    assert vault.label("A00001L8", "B00001L8") == element("slot-5")
    changed = (SenseKey.UNIT_ATTENTION, Asc.NOT_READY_TO_READY_CHANGE_MEDIUM_MAY_HAVE_CHANGED)
    assert changer.fails(bytes(6))[:2] == changed
    assert vault.label("A00002L8", "B00002L8") == element("io-1")
    assert changer.fails(bytes(6))[:2] == (SenseKey.UNIT_ATTENTION, Asc.IMPORT_OR_EXPORT_ELEMENT_ACCESSED)
    assert {address: tag for address, tag in status(changer).items() if tag} == {SLOT + 4: "B00001L8", IO: "B00002L8"}
    assert vault.sources["B00001L8"] == Element(Kind.DRIVE, 0), "where it came from is known as before"
    vault.take_away("B00002L8")
    changer.ready()
    assert vault.label("B00002L8", "C00002L8") is None
    assert changer.send(bytes(6)).status == Status.GOOD, "the shelf is nothing that hosts know of"
    changer.good(move(SLOT + 4, DRIVE + 1))
    second = hosts(vault)[2]
    assert second.good(read(14)) == b"to be labelled"
    barcode = second.good(struct.pack(">BBxxxxxxHIxx", 0x8C, 0, 0x0806, 255))  # READ ATTRIBUTE
    assert barcode[9:41].decode().rstrip() == "B00001L8"
    vault.close()
    again = library(tmp_path)
    assert again.barcodes() == ["B00001L8", "C00002L8"]
    assert again.contents == {Element(Kind.DRIVE, 1): "B00001L8"}
    again.close()


@pytest.mark.parametrize(
    ("barcode", "new", "problem"),
    [
        ("A00001L8", "b 1", "is no barcode"),
        ("A00001L8", "A" * 33, "is no barcode"),
        ("A00001L8", "A00002L8", "there is a cartridge A00002L8 in vault or on its shelf already"),
        ("A00001L8", "A00003L8", "there is a cartridge A00003L8"),
        ("A00001L8", "A00001L8", "already"),
        ("A00001L8", "A00001L7", "LTO-8 has barcodes with L8"),
        ("A00001L8", "A00001LY", "LTO-8 has barcodes with L8"),
        ("W00001LY", "W00001L8", "LTO-8 WORM has barcodes with LY"),
        ("A00001L8", "CLN001L8", "CLN are for cleaning cartridges alone"),
        ("CLN00001", "A00004L8", "these have no others"),
        ("Z00001L8", "Z00002L8", "there is no cartridge Z00001L8"),
    ],
)
def test_barcodes_that_a_cartridge_cannot_have(tmp_path: Path, barcode: str, new: str, problem: str) -> None:
    vault = filled(tmp_path, "A00001L8", "A00002L8", "A00003L8", "CLN00001")
    vault.create("W00001LY", GENERATIONS["LTO-8"], worm=True)
    vault.take_away("A00003L8")
    before = dict(vault.contents)
    with pytest.raises(ValueError, match=problem):
        vault.label(barcode, new)
    assert vault.contents == before
    assert vault.label("A00001L8", "WITHOUT1") == element("slot-1"), "a barcode need not say anything"
    vault.close()


def test_what_a_host_has_locked_keeps_its_barcode_and_stays(tmp_path: Path) -> None:
    vault = filled(tmp_path, "A00001L8", "A00002L8")
    changer, _, _ = hosts(vault)
    vault.take_away("A00002L8")
    changer.ready()
    changer.good(bytes([0x1E, 0, 0, 0, 1, 0]))
    with pytest.raises(ValueError, match="locked"):
        vault.label("A00001L8", "B00001L8")
    with pytest.raises(ValueError, match="locked"):
        vault.remove("A00001L8")
    assert vault.label("A00002L8", "B00002L8") is None
    vault.remove("B00002L8")
    assert vault.barcodes() == ["A00001L8"]
    vault.close()


def test_a_cartridge_is_thrown_away(tmp_path: Path) -> None:
    vault = filled(tmp_path, "A00001L8", "A00002L8")
    changer, _, _ = hosts(vault)
    changer.good(move(SLOT, DRIVE))
    with pytest.raises(ValueError, match="drive-1: move it to a slot first"):
        vault.remove("A00001L8")
    (tmp_path / "cartridges" / "A00002L8" / "cartridge.description.json").write_bytes(b"damaged")
    vault.remove("A00002L8")
    assert changer.fails(bytes(6)).key == SenseKey.UNIT_ATTENTION
    assert set(status(changer).values()) == {"", "A00001L8"}
    assert [path.name for path in (tmp_path / "cartridges").iterdir()] == ["A00001L8"]
    assert vault.create("A00002L8", GENERATIONS["LTO-8"]) == element("slot-1")
    with pytest.raises(ValueError, match="there is no cartridge A00003L8"):
        vault.remove("A00003L8")
    vault.close()


class PowerLoss(BaseException):
    pass


def failing(monkeypatch: pytest.MonkeyPatch, number: int, failure: BaseException) -> None:
    """Have the rename of this number, counted from now on and from 0, fail: each is a step that a crash leaves done or undone."""
    real, calls = os.rename, iter(range(1000))

    def rename(*arguments: Path) -> None:
        if next(calls) == number:
            raise failure
        real(*arguments)

    monkeypatch.setattr(os, "rename", rename)


@pytest.mark.parametrize("shelf", [False, True])
@pytest.mark.parametrize("step", range(4))
def test_a_crash_while_a_cartridge_is_labelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, shelf: bool
) -> None:
    vault = filled(tmp_path, "A00001L8")
    if shelf:
        vault.take_away("A00001L8")
    with monkeypatch.context() as patched:
        failing(patched, step, PowerLoss())
        with pytest.raises(PowerLoss):
            vault.label("A00001L8", "B00001L8")
    vault.close()
    for _ in range(2):
        again = library(tmp_path)
        barcode = "B00001L8" if step else "A00001L8"
        assert again.barcodes() == [barcode]
        assert again.describe(barcode).barcode == barcode
        assert again.find(barcode) == (None if shelf else element("slot-1"))
        again.close()


@pytest.mark.parametrize("step", range(4))
def test_a_cartridge_that_cannot_be_labelled_is_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    vault = filled(tmp_path, "A00001L8")
    barcode = "A00001L8"
    with monkeypatch.context() as patched:
        failing(patched, step, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        if step < 3:
            with pytest.raises(OSError, match="No space left"):
                vault.label("A00001L8", "B00001L8")
        else:  # only that it was done cannot be written down
            vault.label("A00001L8", "B00001L8")
            barcode = "B00001L8"
    for _ in range(2):
        assert vault.contents == {Element(Kind.SLOT, 0): barcode}
        assert vault.barcodes() == [vault.describe(barcode).barcode] == [barcode]
        vault.close()
        vault = library(tmp_path)
    vault.close()


def test_a_barcode_that_another_cartridge_gets_meanwhile_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = filled(tmp_path, "A00001L8", "B00001L8")
    vault.take_away("B00001L8")
    with monkeypatch.context() as patched:  # as a copy does that makes one of a file
        patched.setattr(vault, "barcodes", lambda: ["A00001L8"])
        with pytest.raises(OSError, match="not empty"):
            vault.label("A00001L8", "B00001L8")
    for _ in range(2):
        assert vault.contents == {Element(Kind.SLOT, 0): "A00001L8"}
        assert [vault.describe(barcode).barcode for barcode in vault.barcodes()] == ["A00001L8", "B00001L8"]
        vault.close()
        vault = library(tmp_path)
    vault.close()


@pytest.mark.parametrize("step", range(3))
def test_a_crash_while_a_cartridge_is_thrown_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    vault = filled(tmp_path, "A00001L8")
    with monkeypatch.context() as patched:
        failing(patched, step, PowerLoss())
        patched.setattr("blockyard.media.library.rmtree", lambda path: os.rename(path, path))
        with pytest.raises(PowerLoss):
            vault.remove("A00001L8")
    vault.close()
    again = library(tmp_path)
    assert (again.barcodes(), again.contents) == [
        (["A00001L8"], {Element(Kind.SLOT, 0): "A00001L8"}),
        (["A00001L8"], {}),
        ([], {}),
    ][step]
    assert len(list((tmp_path / "cartridges").iterdir())) == len(again.barcodes()), (
        "nothing takes space that nobody sees"
    )
    again.close()


def test_what_is_left_of_a_cartridge_and_cannot_be_removed_harms_nothing(tmp_path: Path) -> None:
    vault = filled(tmp_path, "A00001L8")
    gone = keeping.discard(tmp_path / "cartridges", "A00001L8")
    vault.close()
    shutil.rmtree(gone)
    gone.write_bytes(b"a file, which is no cartridge")
    again = library(tmp_path)
    assert (again.barcodes(), again.contents) == ([], {})
    again.close()


def test_a_directory_under_another_name_is_not_brought(tmp_path: Path) -> None:
    vault = filled(tmp_path, "A00001L8")
    vault.take_away("A00001L8")
    (tmp_path / "cartridges" / "A00001L8").rename(tmp_path / "cartridges" / "B00001L8")
    with pytest.raises(ValueError, match="holds the cartridge A00001L8"):
        vault.bring("B00001L8")
    vault.close()


def test_a_damaged_cartridge_shows_in_the_drive_and_harms_nothing_else(tmp_path: Path) -> None:
    vault = filled(tmp_path, "A00001L8", "A00002L8")
    changer, drive, _ = hosts(vault)
    (tmp_path / "cartridges" / "A00001L8" / "1-0.data").write_bytes(b"")
    changer.good(move(SLOT, DRIVE))
    assert drive.fails(bytes(6))[:2] == (SenseKey.NOT_READY, Asc.MEDIA_LOAD_OR_EJECT_FAILED)
    changer.good(exchange(SLOT + 1, DRIVE, SLOT))
    drive.ready()
    drive.put(b"x")
    vault.close()


@pytest.mark.parametrize("model", LIBRARIES)
def test_models(tmp_path: Path, model: str) -> None:
    vault = library(tmp_path, model=model, drives=100, slots=300, io=10)
    changer = hosts(vault)[0]
    row = LIBRARIES[model]
    assert changer.good(inquiry())[8:32] == f"{row.vendor:8}{row.product:16}".encode()
    assert changer.good(inquiry())[0] == 0x08
    page = changer.good(mode_sense_6(0x1D, dbd=True))[4:]
    assert struct.unpack(">8H", page[2:18]) == (
        row.transport, 1, row.slots, 300, row.import_export, 10, row.drives, 100,
    )  # fmt: skip
    assert len(status(changer)) == 411
    with_names = changer.good(struct.pack(">BBHHBBHxx", 0xB8, 0x04, 0, 1, 1, 0, 0xFFFF))
    assert vault.drives[0].serial.encode() in with_names
    for code in changer.good(inquiry(0x00))[4:]:
        changer.good(inquiry(code))
    changer.good(bytes([0x07, 0, 0, 0, 0, 0]))
    changer.good(mode_sense_6(0x3F))
    vault.close()


class Moves(RuleBasedStateMachine):
    """A library beside a dictionary of elements."""

    PLACES = (SLOT, SLOT + 1, SLOT + 2, IO, DRIVE, DRIVE + 1)

    @initialize()
    def begin(self) -> None:
        self.directory = scratch()
        self.vault = library(self.directory, slots=3)
        self.model: dict[int, str] = {}
        for number in range(3):
            barcode = f"A0000{number}L8"
            self.vault.create(barcode, GENERATIONS["LTO-8"], capacity=4 << 20)
            self.model[SLOT + number] = barcode
        self.changer = hosts(self.vault)[0]

    def teardown(self) -> None:
        if hasattr(self, "vault"):
            self.vault.close()

    @rule(source=st.sampled_from(PLACES), destination=st.sampled_from(PLACES))
    def move(self, source: int, destination: int) -> None:
        result = self.changer.send(move(source, destination))
        if source not in self.model:
            assert told(result).asc == Asc.MEDIUM_SOURCE_ELEMENT_EMPTY
        elif destination in self.model and source != destination:
            assert told(result).asc == Asc.MEDIUM_DESTINATION_ELEMENT_FULL
        else:
            assert result.status == Status.GOOD
            self.model[destination] = self.model.pop(source)

    @rule(source=st.sampled_from(PLACES), first=st.sampled_from(PLACES), second=st.sampled_from(PLACES))
    def exchange(self, source: int, first: int, second: int) -> None:
        after = dict(self.model)
        possible = source in after and first in after and source != first
        if possible:
            moved, displaced = after.pop(source), after.pop(first)
            after[first] = moved
            possible = second not in after
            after.setdefault(second, displaced)
        result = self.changer.send(exchange(source, first, second))
        assert (result.status == Status.GOOD) == possible
        if possible:
            self.model = after

    @rule()
    def restart(self) -> None:
        self.vault.close()
        self.vault = library(self.directory, slots=3)
        self.changer = hosts(self.vault)[0]

    @invariant()
    def all_is_where_it_should_be(self) -> None:
        if hasattr(self, "vault"):
            assert {address: tag for address, tag in status(self.changer).items() if tag} == self.model


TestMoves = Moves.TestCase
TestMoves.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)


def test_a_drive_that_is_busy_keeps_few_waiting_and_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blockyard.media.drive.PATIENCE", 0.01)
    robot = filled(tmp_path, "A00001L8")
    robot.move(Element(Kind.SLOT, 0), Element(Kind.DRIVE, 0))
    changer = hosts(robot)[0]
    back = {"request": "move", "source": "drive-1", "destination": "slot-1"}
    with ThreadPoolExecutor(1) as threads:
        with robot.drives[0].lock:  # a command is running
            busy = threads.submit(lambda: changer.fails(move(DRIVE, SLOT))).result(timeout=120)
            assert busy[:2] == (SenseKey.NOT_READY, Asc.LOGICAL_UNIT_NOT_READY_OPERATION_IN_PROGRESS)
            waiting = [carry_out(robot, back) for _ in range(2)]
            with pytest.raises(OSError, match="vault is busy") as caught:
                carry_out(robot, back)
            assert caught.value.errno == errno.EBUSY
            for one in waiting:
                assert isinstance(one, Later)
                with pytest.raises(ValueError, match="operation in progress"):
                    threads.submit(one.work).result(timeout=120)
        assert robot.find("A00001L8") == Element(Kind.DRIVE, 0)
        again = carry_out(robot, back)
        assert isinstance(again, Later)
        assert again.work() == {"from": "drive-1", "to": "slot-1"}
    robot.close()


def search(template: str, *, kind: int = 0, start: int = 0, action: int = 5, lowest: int = 0) -> tuple[bytes, bytes]:
    """SEND VOLUME TAG and its parameter list."""
    data = template.encode().ljust(32, b"\0") + struct.pack(">xxHxxH", lowest, 0xFFFF)
    return struct.pack(">BBHxBxxHxx", 0xB6, kind, start, action, len(data)), data


def found_by(host: TapeHost, *, start: int = 0, number: int = 0xFFFF, length: int = 0xFFFF) -> dict[int, str]:
    """What REQUEST VOLUME ELEMENT ADDRESS tells: barcodes by addresses."""
    data = host.good(struct.pack(">BBHHxBHxx", 0xB5, 0x10, start, number, length >> 16, length & 0xFFFF))
    tags: dict[int, str] = {}
    at = 8
    while at < len(data):
        size, total = int.from_bytes(data[at + 2 : at + 4], "big"), int.from_bytes(data[at + 5 : at + 8], "big")
        for one in range(at + 8, at + 8 + total, size):
            tags[int.from_bytes(data[one : one + 2], "big")] = data[one + 12 : one + 44].decode().strip("\0 ")
        at += 8 + total
    return tags


def test_hosts_find_cartridges_by_their_barcodes(tmp_path: Path) -> None:
    vault = filled(tmp_path, "A00001L8", "A00002L8", "B00001L8", "A00003L8")
    changer, _, _ = hosts(vault)
    changer.good(move(SLOT, DRIVE))
    cases: list[tuple[str, dict[str, int], dict[int, str]]] = [
        ("B00001L8", {}, {SLOT + 2: "B00001L8"}),
        ("B00001L8".ljust(32), {}, {SLOT + 2: "B00001L8"}),
        ("A*", {}, {DRIVE: "A00001L8", SLOT + 1: "A00002L8", SLOT + 3: "A00003L8"}),
        ("A0000?L8", {"kind": 2}, {SLOT + 1: "A00002L8", SLOT + 3: "A00003L8"}),
        ("?00001*nothing of this counts", {}, {DRIVE: "A00001L8", SLOT + 2: "B00001L8"}),
        ("*", {"start": SLOT + 2}, {SLOT + 2: "B00001L8", SLOT + 3: "A00003L8"}),
        ("*", {"action": 0, "kind": 4}, {DRIVE: "A00001L8"}),
        ("*", {"action": 1, "lowest": 1}, {}),  # all sequence numbers are 0
        ("*", {"action": 6}, {}),  # no tag is an alternate one
        ("A", {}, {}),
        ("A?", {}, {}),
        (".*", {}, {}),  # no pattern of another kind
        ("", {}, {}),
    ]
    for template, more, expected in cases:
        assert changer.good(*search(template, **more)) == b""
        assert found_by(changer) == expected, template
    vault.close()


def test_what_a_search_has_found_is_told_once_and_to_who_has_asked(tmp_path: Path) -> None:
    vault = filled(tmp_path, "A00001L8", "A00002L8", "A00003L8", "A00004L8")
    target = Target(NAME, dict(enumerate(vault.units)))
    one, other = TapeHost(target, 0), TapeHost(target, 0)
    for host in (one, other):
        host.ready()
    one.good(*search("*"))
    assert other.fails(struct.pack(">BBHHxBHxx", 0xB5, 0, 0, 1, 0, 100)).asc == Asc.COMMAND_SEQUENCE_ERROR
    head = one.good(struct.pack(">BBHHxBHxx", 0xB5, 0x10, 0, 0xFFFF, 0, 8))  # how much room it takes
    assert head == struct.pack(">HHBxH", SLOT, 4, 5, 8 + 4 * 52)
    assert list(found_by(one, number=1)) == [SLOT]
    assert list(found_by(one, length=8 + 8 + 2 * 52 - 1)) == [SLOT + 1]  # of the next not all would fit
    vault.move(Element(Kind.SLOT, 3), Element(Kind.SLOT, 4))
    assert found_by(one, start=SLOT + 3) == {SLOT + 3: ""}  # that is what is in it now
    assert found_by(one) == {}
    one.good(*search("*"))
    one.good(struct.pack(">BBHxBxxHxx", 0xB6, 0, 0, 5, 0))  # no list: nothing is done
    assert len(found_by(one)) == 4
    vault.close()


@pytest.mark.parametrize("action", [3, 7, 8, 9, 10, 11, 12, 13, 31])
def test_barcodes_are_not_written_over_by_hosts(tmp_path: Path, action: int) -> None:
    vault = filled(tmp_path, "A00001L8")
    changer, _, _ = hosts(vault)
    refused = changer.fails(*search("B00001L8", start=SLOT, action=action))
    assert refused[:2] == (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)
    assert status(changer)[SLOT] == "A00001L8"
    cdb, data = search("*")
    assert changer.fails(cdb[:9] + b"\x20" + cdb[10:], data[:32]).asc == Asc.PARAMETER_LIST_LENGTH_ERROR
    assert changer.fails(*search("*", kind=5)).asc == Asc.INVALID_FIELD_IN_CDB
    vault.close()


def test_a_library_that_is_not_served_any_more_moves_nothing(tmp_path: Path) -> None:
    """Somebody may still wait for a move, or a copy end, when another has the library already."""
    vault = filled(tmp_path, "A00001L8", "A00002L8")
    vault.take_away("A00002L8")
    vault.close()
    there = (tmp_path / "library.elements.json").read_bytes()
    late: tuple[Callable[[], object], ...] = (
        lambda: vault.move(Element(Kind.SLOT, 0), Element(Kind.DRIVE, 0)),
        lambda: vault.take_away("A00001L8"),
        lambda: vault.bring("A00002L8"),
        lambda: vault.create("A00003L8", GENERATIONS["LTO-8"], capacity=16 << 20),
        lambda: vault.protect("A00001L8", protected=True),
        lambda: vault.label("A00001L8", "B00001L8"),
        lambda: vault.remove("A00002L8"),
    )
    for each in late:
        with pytest.raises(OSError, match="not served here any more") as failure:
            each()
        assert failure.value.errno == errno.ESHUTDOWN
    assert (tmp_path / "library.elements.json").read_bytes() == there
    assert vault.drives[0].tape is None
    again = library(tmp_path)
    assert again.barcodes() == ["A00001L8", "A00002L8"]
    assert not again.describe("A00001L8").write_protected
    again.close()


def test_a_move_that_waited_while_the_library_was_closed_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vault = filled(tmp_path, "A00001L8")
    vault.move(Element(Kind.SLOT, 0), Element(Kind.DRIVE, 0))
    drive, there = vault.drives[0], (tmp_path / "library.elements.json").read_bytes()
    take_out = drive.take_out

    def late() -> None:
        vault.close()
        take_out()

    monkeypatch.setattr(drive, "take_out", late)
    with pytest.raises(OSError, match="not served here any more"):
        vault.move(Element(Kind.DRIVE, 0), Element(Kind.SLOT, 3))
    assert (tmp_path / "library.elements.json").read_bytes() == there
    assert drive.tape is None, "another has it"
