"""Whatever fields a command has, a drive answers or says what is wrong with them; it is never at fault itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blockyard.optical.commands import OPTICAL_COMMANDS
from blockyard.scsi.sense import Asc, SenseKey
from blockyard.scsi.task import Status
from tests.optical.drives import blank, drive, host
from tests.scsi.host import cdb_of, parse_sense

_COMMANDS = list(OPTICAL_COMMANDS)
_SMALL = 0xFF  # up to this most fields make sense


@pytest.mark.parametrize("blocks", [0, 300, 2_000_000])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_cdb_confounds_a_drive(tmp_path: Path, blocks: int, data: st.DataObject) -> None:
    one = host(drive(blank(tmp_path / "x.iso", blocks) if blocks else None))
    command = data.draw(st.sampled_from(_COMMANDS), label="command")
    number = int.from_bytes(cdb_of(command)[: command.length], "big")
    for field in command.fields[1:]:
        if field.name != "service_action":
            most = (1 << field.width) - 1
            value = data.draw(st.integers(0, min(most, _SMALL)) | st.integers(0, most), label=field.name)
            number |= value << field.shift(command.length)
    cdb = number.to_bytes(command.length, "big")
    result = one.send(cdb, data.draw(st.binary(max_size=64), label="Data-Out"))
    if result.status == Status.CHECK_CONDITION:
        sense = parse_sense(result.sense)
        assert sense.key in (
            SenseKey.ILLEGAL_REQUEST,
            SenseKey.NOT_READY,
            SenseKey.UNIT_ATTENTION,
            SenseKey.DATA_PROTECT,
        )
        assert sense.asc != Asc.INTERNAL_TARGET_FAILURE
    one.drive.close()
