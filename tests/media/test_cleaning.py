"""Cleaning cartridges: how often they can be used, and what hosts are told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from blockyard.media import tape_pages as pages
from blockyard.media.cartridge import CLEANINGS, create, describe, save
from blockyard.media.generations import GENERATIONS
from blockyard.scsi.sense import Asc, SenseKey
from tests.media.drives import drive, host


def test_each_use_is_counted_and_a_used_up_one_is_refused(tmp_path: Path) -> None:
    create(tmp_path, "CLN001L8", GENERATIONS["LTO-8"])
    cartridge = tmp_path / "CLN001L8"
    save(cartridge, replace(describe(cartridge), loads=CLEANINGS - 1))
    unit = drive()
    unit.insert(cartridge)
    tape = host(unit)
    assert tape.fails(bytes(6))[:2] == (SenseKey.NOT_READY, Asc.CLEANING_CARTRIDGE_INSTALLED)
    assert unit.alerts == {pages.CLEANING_MEDIUM}
    assert describe(cartridge).loads == CLEANINGS
    unit.take_out()
    unit.insert(cartridge)
    assert tape.fails(bytes(6))[:2] == (SenseKey.NOT_READY, Asc.CLEANING_FAILURE)
    assert unit.alerts == {pages.CLEANING_MEDIUM, pages.EXPIRED_CLEANING}
    assert describe(cartridge).loads == CLEANINGS
