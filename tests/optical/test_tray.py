"""Discs that come and go while hosts are there: events, unit attentions, prevention, and what outlives the process."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from blockyard.optical.disc import Disc
from blockyard.optical.drive import Image, OpticalDrive, Wish
from blockyard.optical.events import MediaEvent
from blockyard.scsi.sense import Asc, SenseKey
from tests.optical.drives import (
    EJECT,
    LOAD,
    MEDIA,
    blank,
    drive,
    event_status,
    get_configuration,
    host,
    insert,
    prevent,
)
from tests.scsi.host import TEST_UNIT_READY, request_sense

_CHANGED = Asc.NOT_READY_TO_READY_CHANGE_MEDIUM_MAY_HAVE_CHANGED
_CLOSED, _OPEN = Asc.MEDIUM_NOT_PRESENT_TRAY_CLOSED, Asc.MEDIUM_NOT_PRESENT_TRAY_OPEN
_NO_EVENT = MediaEvent.NO_CHANGE


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return blank(tmp_path / "x.iso", 100)


def test_a_disc_that_is_put_in_is_told_to_everybody(image: Path) -> None:
    unit = drive()
    hosts = [host(unit), host(unit, "iqn.test:other")]
    for each in hosts:
        each.fail(TEST_UNIT_READY, SenseKey.NOT_READY, _CLOSED)
        assert each.event() == (_NO_EVENT, 0)
    insert(unit, image)
    for each in hosts:
        assert each.event() == (MediaEvent.NEW_MEDIA, 2)  # neither of these clears the unit attention
        assert each.ok(get_configuration(2, 0))[6:8] == b"\0\x08"
        each.fail(TEST_UNIT_READY, SenseKey.UNIT_ATTENTION, _CHANGED)
        each.ok(TEST_UNIT_READY)
        assert each.event() == (_NO_EVENT, 2)


def test_a_swap_shows_the_other_disc_to_those_who_had_the_first(image: Path, tmp_path: Path) -> None:
    other = tmp_path / "y.iso"
    other.write_bytes(b"y" * 4096)
    one = host(drive(image))
    insert(one.drive, other)
    one.fail(struct.pack(">BBIxHx", 0x28, 0, 0, 1), SenseKey.UNIT_ATTENTION, _CHANGED)
    assert one.ok(struct.pack(">BBIxHx", 0x28, 0, 1, 1)) == b"y" * 2048
    assert one.event() == (MediaEvent.NEW_MEDIA, 2)


def test_hosts_eject_and_load(image: Path) -> None:
    unit = drive(image)
    one, two = host(unit), host(unit, "iqn.test:other")
    one.ok(EJECT)
    assert one.event() == two.event() == (MediaEvent.MEDIA_REMOVAL, 1)
    one.fail(TEST_UNIT_READY, SenseKey.NOT_READY, _OPEN)
    assert one.ok(request_sense())[12:14] == b"\x3a\x02"
    assert one.ok(struct.pack(">B7xHxx", 0xBD, 8))[1] == 0x10  # DOOR OPEN
    one.ok(EJECT)
    one.ok(LOAD)
    one.ok(TEST_UNIT_READY)  # it has loaded the disc itself
    two.fail(TEST_UNIT_READY, SenseKey.UNIT_ATTENTION, _CHANGED)
    assert one.event() == two.event() == (MediaEvent.NEW_MEDIA, 2)
    one.ok(LOAD)  # it is loaded
    assert one.event() == (_NO_EVENT, 2)


def test_an_empty_drive_opens_and_closes(image: Path) -> None:
    one = host(drive())
    one.ok(prevent(1))
    one.ok(EJECT)  # there is nothing that could be kept in it
    one.fail(TEST_UNIT_READY, SenseKey.NOT_READY, _OPEN)
    one.fail(bytes([0x1B, 0, 0, 0, 1, 0]), SenseKey.NOT_READY, _OPEN)  # START without LOEJ
    one.ok(LOAD)
    one.fail(TEST_UNIT_READY, SenseKey.NOT_READY, _CLOSED)


@pytest.mark.parametrize(("on", "off"), [(1, 0), (3, 2)])
def test_any_nexus_can_prevent_that_the_disc_is_taken_out(image: Path, on: int, off: int) -> None:
    unit = drive(image)
    one, two = host(unit), host(unit, "iqn.test:other")
    two.ok(prevent(on))
    one.fail(EJECT, SenseKey.ILLEGAL_REQUEST, Asc.MEDIUM_REMOVAL_PREVENTED)
    assert unit.preventing == ["iqn.test:other"]
    one.ok(prevent(off))  # of its own there is none
    one.fail(EJECT, SenseKey.ILLEGAL_REQUEST, Asc.MEDIUM_REMOVAL_PREVENTED)
    two.ok(prevent(off))
    one.ok(EJECT)


def test_the_two_kinds_of_prevention_are_apart(image: Path) -> None:
    one = host(drive(image))
    one.ok(prevent(1))
    one.ok(prevent(3))
    assert one.ok(event_status(1 << 3))[4:] == bytes([0, 0x80, 0, 0])  # PERSISTENT PREVENTED
    one.ok(prevent(0))
    one.fail(EJECT, SenseKey.ILLEGAL_REQUEST, Asc.MEDIUM_REMOVAL_PREVENTED)
    one.ok(prevent(2))
    assert one.ok(event_status(1 << 3))[4:] == bytes(4)
    one.ok(EJECT)


@pytest.mark.parametrize("code", [1, 3])
def test_prevention_ends_with_the_nexus_and_with_a_reset(image: Path, code: int) -> None:
    unit = drive(image)
    one, two = host(unit), host(unit, "iqn.test:other")
    two.ok(prevent(code))
    unit.detach(two.nexus)
    one.ok(EJECT)
    one.ok(LOAD)
    one.ok(prevent(code))
    unit.reset()
    one.ready()
    one.ok(EJECT)


def test_who_presses_the_button_of_a_locked_drive_asks_the_hosts(image: Path) -> None:
    one = host(drive(image))
    one.ok(prevent(3))
    assert one.drive.locked
    one.drive.request_eject(Wish(None, None))
    assert one.event() == (MediaEvent.EJECT_REQUEST, 2)
    one.ok(prevent(2))
    one.ok(EJECT)
    assert one.drive.image is None  # it was wanted, and is taken out of the open tray


def test_a_disc_that_waits_for_its_turn_is_there_when_a_host_ejects(image: Path, tmp_path: Path) -> None:
    other = blank(tmp_path / "y.iso", 7)
    one = host(drive(image))
    one.ok(prevent(1))
    one.drive.request_eject(Wish(Disc(other), Image(str(other))))
    assert one.event() == (MediaEvent.EJECT_REQUEST, 2)
    one.fail(EJECT, SenseKey.ILLEGAL_REQUEST, Asc.MEDIUM_REMOVAL_PREVENTED)
    one.ok(prevent(0))
    one.ok(EJECT)
    assert one.event() == (MediaEvent.NEW_MEDIA, 2)
    one.fail(TEST_UNIT_READY, SenseKey.UNIT_ATTENTION, _CHANGED)
    assert one.drive.loaded().blocks == 7
    one.drive.request_eject(Wish(Disc(image), Image(str(image))))
    one.drive.withdraw()
    one.ok(EJECT)
    one.fail(TEST_UNIT_READY, SenseKey.NOT_READY, _OPEN)
    assert one.drive.image == Image(str(other))


def test_events_wait_until_they_are_reported_and_have_an_order(image: Path) -> None:
    one = host(drive(image))
    insert(one.drive, image)
    assert len(one.ok(event_status(MEDIA, 4))) == 4
    assert one.event() == (MediaEvent.NEW_MEDIA, 2)  # the header alone has not told it
    data = one.ok(event_status(0xFE))
    assert data.hex() == "0006015e02000001"  # operational change comes first: another profile, other features
    assert one.ok(event_status(0xFE)).hex() == "0006015e00000000"
    assert one.ok(event_status(1 << 2)).hex() == "0006025e00010000"  # power: active
    assert one.ok(event_status(1 << 6)).hex() == "0006065e00000000"  # not busy
    assert one.ok(event_status(1 << 5)).hex() == "0002805e"  # multi-host: there is no such class
    assert one.ok(event_status(0)).hex() == "0002805e"
    one.invalid(event_status(MEDIA, polled=False), 1, 0)


def test_what_cannot_be_read_is_no_medium(tmp_path: Path) -> None:
    one = host(drive(tmp_path / "missing.iso"))
    one.fail(TEST_UNIT_READY, SenseKey.NOT_READY, Asc.INCOMPATIBLE_MEDIUM_INSTALLED)
    blank(tmp_path / "missing.iso", 10)
    one.ok(EJECT)
    one.ok(LOAD)
    one.ok(TEST_UNIT_READY)


def test_a_file_that_was_cut_short_is_a_medium_error_with_its_block(image: Path) -> None:
    one = host(drive(image))
    with image.open("r+b") as file:
        file.truncate(50 * 2048)
    sense = one.fail(struct.pack(">BBIxHx", 0x28, 0, 40, 20), SenseKey.MEDIUM_ERROR, Asc.UNRECOVERED_READ_ERROR)
    assert sense.information == 50


# ---- what outlives the process


def test_the_tray_is_after_a_restart_as_it_was(image: Path, tmp_path: Path) -> None:
    other = blank(tmp_path / "y.iso", 7)
    unit = drive(image, state=tmp_path / "state")
    insert(unit, other, "dvd")
    unit.close()
    unit = drive(image, state=tmp_path / "state")
    assert unit.disc is not None
    assert (unit.disc.path, unit.disc.kind.name) == (other, "dvd")
    host(unit).ok(EJECT)
    unit.close()
    unit = drive(image, state=tmp_path / "state")
    one = host(unit)
    one.fail(TEST_UNIT_READY, SenseKey.NOT_READY, _OPEN)
    one.ok(LOAD)
    assert unit.disc is not None
    assert unit.disc.blocks == 7
    unit.remove()
    unit.close()
    assert drive(image, state=tmp_path / "state").image is None
    changed = drive(other, state=tmp_path / "state")  # the configuration names another image now: that one goes in
    assert changed.disc is not None
    assert changed.disc.blocks == 7


# ---- model


class Tray(RuleBasedStateMachine):
    """Everything that people and two hosts can do, beside the few variables that it comes to."""

    @initialize()
    def begin(self) -> None:
        self.unit: OpticalDrive = drive()
        self.all = [host(self.unit), host(self.unit, "iqn.test:other")]
        self.held: list[set[int]] = [set(), set()]
        self.inside = self.opened = False

    def _image(self) -> Path:
        return Path(__file__)  # any file makes a disc

    @rule()
    def put_in(self) -> None:
        insert(self.unit, self._image())
        self.inside, self.opened = True, False
        for each in self.all:
            assert each.event() == (MediaEvent.NEW_MEDIA, 2)
            each.fail(TEST_UNIT_READY, SenseKey.UNIT_ATTENTION, _CHANGED)

    @rule()
    def take_out(self) -> None:
        self.unit.remove()
        self.inside = self.opened = False

    @rule(number=st.integers(0, 1), code=st.integers(0, 3))
    def prevent(self, number: int, code: int) -> None:
        self.all[number].ok(prevent(code))
        (self.held[number].add if code & 1 else self.held[number].discard)(code >> 1)

    @rule(number=st.integers(0, 1))
    def eject(self, number: int) -> None:
        if self.inside and not self.opened and any(self.held):
            self.all[number].fail(EJECT, SenseKey.ILLEGAL_REQUEST, Asc.MEDIUM_REMOVAL_PREVENTED)
        else:
            self.all[number].ok(EJECT)
            self.opened = True

    @rule(number=st.integers(0, 1))
    def load(self, number: int) -> None:
        changes = self.inside and self.opened
        self.all[number].ok(LOAD)
        self.opened = False
        if changes:
            self.all[1 - number].fail(TEST_UNIT_READY, SenseKey.UNIT_ATTENTION, _CHANGED)

    @invariant()
    def everybody_sees_the_same(self) -> None:
        for each in self.all:
            if self.inside and not self.opened:
                each.ok(TEST_UNIT_READY)
            else:
                each.fail(TEST_UNIT_READY, SenseKey.NOT_READY, _OPEN if self.opened else _CLOSED)
            assert each.event()[1] == (2 if self.inside and not self.opened else 0) | self.opened
        assert self.unit.fast_read == (self.unit.fd >= 0)


TestTray = Tray.TestCase
TestTray.settings = settings(max_examples=40, stateful_step_count=20)
