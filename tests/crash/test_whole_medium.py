"""What goes on with a whole medium, and protection information, through kill -9."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from blockyard.cli.main import main
from blockyard.initiator import Lun, connect
from blockyard.initiator.errors import InitiatorError
from tests.crash.again import log_in
from tests.scsi.test_sanitize import OVERWRITE, pattern_list, sanitize
from tests.serving import IQN, Serving
from tests.waiting import eventually

SIZE = 16 << 20
TEST_UNIT_READY = bytes(6)
SANITIZE_IN_PROGRESS = bytes([0x04, 0x1B])


def kill_worker(serving: Serving) -> None:
    """Returns once there is another one."""
    (worker,) = serving.workers
    os.kill(worker, signal.SIGKILL)
    eventually(lambda: set(serving.workers) - {worker}, "a new worker")


def kill_all(serving: Serving) -> None:
    serving.kill()
    serving.restart()


def _condition(lun: Lun) -> bytes:
    """ASC and ASCQ that TEST UNIT READY ends with after any unit attention; b"" when the unit is ready."""
    while True:
        response = lun.command(TEST_UNIT_READY)
        if response.status == 0:
            return b""
        if response.sense[2] & 0x0F != 0x06:
            return bytes(response.sense[12:14])


def _held_back(rate: str) -> str:
    return f"""
    [volumes.disk]
    path = "disk.img"
    size = "{SIZE}"
    background_rate = "{rate}"
    [targets."{IQN}"]
    luns = {{0 = "disk"}}
    """


@pytest.mark.parametrize("kill", [kill_worker, kill_all])
def test_a_sanitize_operation_goes_on_after_kill_9(kill: Callable[[Serving], None], tmp_path: Path) -> None:
    disk, config = tmp_path / "disk.img", tmp_path / "blockyard.toml"
    config.write_text(_held_back("32K"))
    with Serving([], state=tmp_path / "state", log=tmp_path / "log", config=config) as serving:
        with connect(serving.url(), timeout=120) as lun:
            lun.write(0, b"secret".ljust(SIZE // 4, b"!"))
            lun.execute(sanitize(OVERWRITE, 8, immed=True), pattern_list(b"gone"))
            assert _condition(lun) == SANITIZE_IN_PROGRESS
        kill(serving)
        with log_in(serving.url()) as lun:
            assert _condition(lun) == SANITIZE_IN_PROGRESS
            config.write_text(_held_back("1G"))
            assert main(["reload", "--state", str(tmp_path / "state")]) == 0
            eventually(lambda: not _condition(lun), "the end of the operation")
            assert lun.read(0, 2) == b"gone" * 256
        serving.stop()
    assert disk.read_bytes() == b"gone" * (SIZE // 4)


@pytest.mark.parametrize("kind", [1, 3])
def test_every_block_of_a_protected_disk_can_be_read_after_kill_9(kind: int, tmp_path: Path) -> None:
    """Each round kills the worker in the middle of writes of all sizes. Reads check every guard (RDPROTECT 001b)."""
    options = ["--size", str(SIZE), "--protection", str(kind)]
    chance = random.Random(kind)
    with Serving([tmp_path / "disk.img"], state=tmp_path / "state", log=tmp_path / "log", options=options) as serving:
        for _ in range(4):
            with contextlib.suppress(InitiatorError, OSError), connect(serving.url(), timeout=120) as lun:
                for number in range(60):
                    if number == 40:
                        os.kill(serving.workers[0], signal.SIGKILL)
                    blocks = chance.randrange(1, 600)
                    lun.write(chance.randrange(SIZE // 512 - blocks), chance.randbytes(512 * blocks))
            with log_in(serving.url()) as lun:
                for lba in range(0, SIZE // 512, 1024):
                    data = lun.execute(struct.pack(">BBQIxx", 0x88, 0x20, lba, 1024), read_length=520 * 1024)
                    assert len(data) == 520 * 1024
        serving.stop()
