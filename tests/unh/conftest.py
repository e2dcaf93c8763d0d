"""A rig with one unit in memory, and stations that log in to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from blockyard.iscsi.negotiation import Preferences
from tests.unh.station import HeldDevice, Line, Prepared, Station
from tests.wire import Rig


@pytest.fixture
def device() -> Iterator[HeldDevice]:
    device = HeldDevice(8 << 20)
    yield device
    device.release()


@pytest.fixture
def rig(device: HeldDevice) -> Iterator[Rig]:
    rig = Rig(device, preferences=Preferences(error_recovery_level=2, default_time2wait=0, default_time2retain=20))
    yield rig
    device.release()
    rig.close()


@pytest.fixture
def prepared(rig: Rig) -> Prepared:
    """A line in full feature phase after INQUIRY, TEST UNIT READY and READ CAPACITY: `prepared(InitialR2T="Yes")`."""

    def make(**keys: str) -> Line:
        line = Station(rig, keys).connect()
        line.prepare()
        return line

    return make
