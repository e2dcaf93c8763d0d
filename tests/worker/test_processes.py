"""Worker processes: one that dies takes its own sessions with it and is started again; the others never notice."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from blockyard.initiator import InitiatorError, LoginError, ScsiError, connect
from tests.serving import IQN, Serving

OTHER = "iqn.2024-01.test.blockyard:other"


class Load(threading.Thread):
    """Reads and writes all the time, on one session if it can."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.operations = 0
        self.sessions = 0
        self.stop = False
        self._url = url

    def run(self) -> None:
        while not self.stop:
            with contextlib.suppress(InitiatorError, OSError), connect(self._url, timeout=120) as lun:
                self.sessions += 1
                while not self.stop:
                    data = os.urandom(4096)
                    lun.write(8 * (self.operations % 100), data)
                    assert lun.read(8 * (self.operations % 100), 8) == data
                    self.operations += 1

    def runs_on(self, seconds: float = 120) -> bool:
        """Whether it gets on with its work."""
        before, deadline = self.operations, time.monotonic() + seconds
        while self.operations < before + 20 and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.operations >= before + 20


def test_a_killed_worker_is_started_again_and_the_other_never_notices(tmp_path: Path) -> None:
    disks: list[str | Path] = [tmp_path / "one.img", f"{OTHER}={tmp_path / 'two.img'}"]
    options = ["--size", "8M", "--workers", "2"]
    with Serving(disks, state=tmp_path / "state", log=tmp_path / "log", options=options) as serving:
        loads = [Load(serving.url()), Load(serving.url(target=OTHER))]
        for load in loads:
            load.start()
        assert all(load.runs_on() for load in loads), serving.tail()
        for kill in range(1, 4):
            before = serving.workers
            victim = owner_of(serving, tmp_path / "one.img")
            os.kill(victim, signal.SIGKILL)
            assert loads[1].runs_on(), "the other target stopped"
            assert loads[0].runs_on(), serving.tail()
            assert loads[0].sessions == kill + 1, "the killed worker's session should have been lost exactly once"
            assert len(set(serving.workers) & set(before)) == 1
        assert loads[1].sessions == 1, "the other target's session was lost"
        for load in loads:
            load.stop = True
            load.join(120)
        serving.stop()


def owner_of(serving: Serving, disk: Path) -> int:
    """The worker that has `disk` open."""
    for pid in serving.workers:
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if fd.readlink() == disk:
                    return pid
    raise AssertionError(f"no worker has {disk} open\n{serving.tail()}")


def test_initiators_are_asked_to_log_out_when_serving_ends(tmp_path: Path) -> None:
    with Serving(
        [tmp_path / "disk.img"], state=tmp_path / "s", log=tmp_path / "log", options=["--size", "8M"]
    ) as serving:
        lun = connect(serving.url(), timeout=120)
        lun.write(0, bytes(4096))
        stopping = threading.Thread(target=serving.stop)
        stopping.start()
        with contextlib.suppress(InitiatorError, OSError):  # the initiator logs out when it is asked to, or is cut off
            while True:
                lun.session.poll()
                time.sleep(0.02)
        stopping.join(120)
        assert not stopping.is_alive()
        assert serving.process.returncode == 0


def test_a_file_that_shrinks_beneath_gives_read_errors_and_the_session_lives(tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    with Serving([disk], state=tmp_path / "state", log=tmp_path / "log", options=["--size", "8M"]) as serving:
        with connect(serving.url(), timeout=120) as lun:
            os.truncate(disk, 4 << 20)
            with pytest.raises(ScsiError) as error:
                lun.read(8192 + 100, 8)
            assert error.value.sense is not None
            assert (error.value.sense.key, error.value.sense.asc) == (3, 0x11)
            assert lun.read(0, 8) == bytes(4096)
        serving.stop()


def test_no_space_below_gives_the_thin_provisioning_sense_and_the_session_lives(tmp_path: Path) -> None:
    """RLIMIT_FSIZE stands in for a full disk: the kernel refuses to let the file hold more."""
    disk = tmp_path / "disk.img"
    with disk.open("wb") as file:
        file.truncate(64 << 20)
    with Serving(
        [disk], state=tmp_path / "state", log=tmp_path / "log", prefix=["prlimit", f"--fsize={16 << 20}"]
    ) as serving:
        with connect(serving.url(), timeout=120) as lun:
            for _ in range(3):
                with pytest.raises(ScsiError) as error:
                    lun.write((32 << 20) // 512, bytes(4096))
                assert error.value.sense is not None
                assert (error.value.sense.key, error.value.sense.asc, error.value.sense.ascq) == (7, 0x27, 7)
            lun.write(0, b"x" * 4096)
            assert lun.read(0, 8) == b"x" * 4096
        serving.stop()


@pytest.mark.parametrize("name", ["iqn.2026-11.test:nowhere", "eui.02004567a425678d"])
def test_a_target_that_is_not_there(tmp_path: Path, name: str) -> None:
    with Serving(
        [tmp_path / "d.img"], state=tmp_path / "state", log=tmp_path / "log", options=["--size", "8M"]
    ) as serving:
        with pytest.raises(LoginError) as error:
            connect(serving.url(target=name), timeout=120)
        assert error.value.status == 0x0203
        with connect(serving.url(target=IQN), timeout=120) as lun:
            assert lun.read(0, 1) == bytes(512)
        with connect(serving.url(7), timeout=120) as lun, pytest.raises(ScsiError) as missing:
            lun.test_unit_ready()
        assert missing.value.sense is not None
        assert missing.value.sense.asc == 0x25
        serving.stop()
