"""Disks of NBD servers that initiators use through us, while the server comes and goes."""

from __future__ import annotations

import os
import random
import signal
from functools import partial
from pathlib import Path

import pytest

from blockyard import initiator
from blockyard.initiator import Lun, ScsiError, SenseKey
from tests.block.nbd.servers import SERVERS, serving
from tests.conftest import TargetFactory
from tests.interop.ready import when_ready

CONFIG = """\
[volumes.far]
stack = "nbd({uri}, timeout=2)"
[volumes.near]
path = "near.img"
size = "16M"
[targets."{target}"]
luns = {{ 0 = "far", 1 = "near" }}
"""
TARGET = "iqn.2024-01.test.blockyard:disk"


def test_a_server_that_comes_and_goes(target: TargetFactory, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("n")
    data = random.Random(1).randbytes(1 << 20)
    with serving(SERVERS["nbdkit"], directory) as server:
        served = target(config=CONFIG.format(uri=server.uri, target=TARGET))
        with initiator.connect(served.url(), recover=True) as far:
            near = Lun(far.session, 1)
            when_ready(lambda: far.write(0, data))
            reads = [far.session.submit(0, bytes((0x28, 0, 0, 0, 0, number * 8, 0, 0, 8, 0)), read_length=4096)
                     for number in range(32)]  # fmt: skip
            for number, read in enumerate(reads):  # more than there are threads
                part = far.session.wait(read)
                found = part.data if not part.status else when_ready(partial(far.read, number * 8, 8))
                assert found == data[number * 4096 : (number + 1) * 4096]
            server.kill()
            with pytest.raises(ScsiError) as refused:
                far.read(0)
            assert refused.value.sense is not None
            assert refused.value.sense.key == SenseKey.NOT_READY
            near.write(0, data)  # the other disk does not mind
            assert near.read(0, len(data) // 512) == data
            (worker,) = served.workers
            os.kill(worker, signal.SIGKILL)  # the disk is known, though nobody can be asked
            with pytest.raises(ScsiError) as refused:
                far.read(0)
            assert refused.value.sense is not None
            assert refused.value.sense.key == SenseKey.NOT_READY
            assert near.read(0, len(data) // 512) == data
            assert far.capacity().size == 64 << 20
            server.start()
            assert when_ready(lambda: far.read(0, len(data) // 512)) == data
        served.stop()
    assert Path(server.image).read_bytes()[: len(data)] == data
