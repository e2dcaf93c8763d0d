"""A target that goes away and comes back under our initiator: with `recover` nobody notices, without it is said clearly."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable

import pytest

from blockyard.initiator import Lun, SessionLost, connect
from tests.conftest import TargetFactory
from tests.serving import Serving

DATA = random.Random(2).randbytes(64 << 10)


def kill_worker(serving: Serving) -> None:
    (worker,) = serving.workers
    os.kill(worker, signal.SIGKILL)


def kill_and_restart(serving: Serving) -> None:
    serving.kill()
    serving.restart()


@pytest.mark.parametrize("outage", [kill_and_restart, kill_worker])
def test_commands_outlive_the_target(target: TargetFactory, outage: Callable[[Serving], None]) -> None:
    serving = target("disk.img")
    with connect(serving.url(), recover=True) as lun:
        lun.write(0, DATA)
        outage(serving)
        assert lun.read(0, len(DATA) // 512) == DATA
        lun.write(200, DATA)
        assert lun.read(200, len(DATA) // 512) == DATA


def test_without_recovery_the_session_is_lost(target: TargetFactory) -> None:
    serving = target("disk.img")
    lun: Lun = connect(serving.url())
    kill_worker(serving)
    with pytest.raises(SessionLost, match=r"closed the connection|broken"):
        lun.test_unit_ready()
    with pytest.raises(SessionLost):
        lun.test_unit_ready()
    lun.close()
