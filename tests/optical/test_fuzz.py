"""Whatever fields a command has, a drive answers or says what is wrong with them; it is never at fault itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blockyard.optical.commands import OPTICAL_COMMANDS
from blockyard.optical.disc import Disc
from blockyard.scsi.cdb import Command
from blockyard.scsi.sense import Asc, SenseKey
from blockyard.scsi.task import Status
from tests.media.scratch import scratch
from tests.optical import drives
from tests.optical.burners import SYNCHRONIZE, blank, burner, close, format_unit, read, reserve, write
from tests.optical.drives import (
    DriveHost,
    drive,
    host,
    read_disc_information,
    read_toc,
    read_track_information,
)
from tests.scsi.host import cdb_of, mode_select_10, mode_sense_10, parse_sense

_COMMANDS = list(OPTICAL_COMMANDS)
_PLAUSIBLE = [
    *(write(lba, 16) for lba in (0, 16, 20, 32, 36, 450, -150)), *(close(number, 1) for number in range(7)),
    *(blank(number) for number in range(7)), reserve(100), format_unit(0x26)[0], SYNCHRONIZE, mode_select_10(60),
    read_disc_information(), read_track_information(1, 0xFF), read_toc(0), read_toc(2), read_toc(4), read(0, 16),
]  # fmt: skip
_SMALL = 0xFF  # up to this most fields make sense


_RECORDED = [command for command in _COMMANDS if command.opcode not in (0x1B, 0xA0)]
_REFUSED = (
    SenseKey.ILLEGAL_REQUEST,
    SenseKey.NOT_READY,
    SenseKey.UNIT_ATTENTION,
    SenseKey.DATA_PROTECT,
)


def _drawn(data: st.DataObject, commands: list[Command]) -> bytes:
    """A CDB with whatever is in its fields, small numbers more often."""
    command = data.draw(st.sampled_from(commands), label="command")
    number = int.from_bytes(cdb_of(command)[: command.length], "big")
    for field in command.fields[1:]:
        if field.name != "service_action":
            most = (1 << field.width) - 1
            value = data.draw(st.integers(0, min(most, _SMALL)) | st.integers(0, most), label=field.name)
            number |= value << field.shift(command.length)
    return number.to_bytes(command.length, "big")


@pytest.mark.parametrize("blocks", [0, 300, 2_000_000])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_cdb_confounds_a_drive(tmp_path: Path, blocks: int, data: st.DataObject) -> None:
    one = host(drive(drives.blank(tmp_path / "x.iso", blocks) if blocks else None))
    cdb = _drawn(data, _COMMANDS)
    result = one.send(cdb, data.draw(st.binary(max_size=64), label="Data-Out"))
    if result.status == Status.CHECK_CONDITION:
        sense = parse_sense(result.sense)
        assert sense.key in _REFUSED
        assert sense.asc != Asc.INTERNAL_TARGET_FAILURE
    one.drive.close()


def _session_at_once(one: DriveHost) -> bytes:
    """Write parameters that ask for another way to write."""
    page = bytearray(one.ok(mode_sense_10(0x05)))
    page[0:2], page[8], page[10] = b"\0\0", 0x05, 0x42
    return bytes(page)


@pytest.mark.parametrize("kind", ["cd-r", "cd-rw", "dvd-r", "dvd-rw", "dvd+rw", "bd-r"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_no_sequence_of_commands_confounds_a_burner(kind: str, data: st.DataObject) -> None:
    """Whatever has been burned by it, the disc can be opened again, and is what it was."""
    path = scratch() / "x.iso"
    one = burner(path, kind, 3000)
    one.ok(write(0, 20), bytes(20 * 2048)) if kind != "dvd+rw" else None
    for _ in range(data.draw(st.integers(1, 12), label="commands")):
        result = one.send(
            data.draw(st.sampled_from(_PLAUSIBLE)) if data.draw(st.booleans()) else _drawn(data, _RECORDED),
            data.draw(st.sampled_from([b"", bytes(2048 * 16), bytes(range(64)), _session_at_once(one)])),
        )
        if result.status == Status.CHECK_CONDITION:
            sense = parse_sense(result.sense)
            assert sense.key in _REFUSED or sense.asc == Asc.UNRECOVERED_READ_ERROR
            assert sense.asc != Asc.INTERNAL_TARGET_FAILURE
    disc = one.drive.disc
    assert disc is not None
    before = [(track.start, track.end, track.complete) for track in disc.tracks]
    one.drive.close()
    again = Disc(path)
    assert [(track.start, track.end, track.complete) for track in again.tracks] == before
    again.close()
