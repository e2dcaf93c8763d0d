"""Persistent reservations with APTPL outlive the target, however it dies: what was acknowledged is there again."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from blockyard.initiator import Lun
from blockyard.initiator.errors import InitiatorError, ScsiError
from blockyard.scsi.task import Status
from tests.crash import again
from tests.crash.test_durability import a_worker, everything, order_of_calls, traced
from tests.scsi.cluster import APTPL, PREEMPT, REGISTER, RELEASE, RESERVE, WERO, parameters, pr_in, pr_out
from tests.serving import Serving
from tests.waiting import eventually

ISIDS = {"a": b"\x80\0\0\0\0\1", "b": b"\x80\0\0\0\0\2", "outsider": b"\x80\0\0\0\0\3"}
ROUNDS = 3


def log_in(serving: Serving, name: str) -> Lun:
    return again.log_in(serving.url(), isid=ISIDS[name])


def do(lun: Lun, action: int, key: int, other: int = 0, flags: int = APTPL) -> None:
    lun.execute(pr_out(action, WERO), parameters(key, other, flags))


def keys(lun: Lun) -> set[int]:
    data = lun.execute(pr_in(0), read_length=8192)
    return {int.from_bytes(data[at : at + 8], "big") for at in range(8, len(data), 8)}


def holder(lun: Lun) -> int | None:
    data = lun.execute(pr_in(1), read_length=8192)
    return int.from_bytes(data[8:16], "big") if len(data) > 8 else None


def served(serving: Serving, victims: list[int]) -> None:
    """Serving again after a death."""
    if serving.pid in victims:
        serving.process.wait()
        serving.restart()


def killed(victim: Callable[[Serving], list[int]]) -> Callable[[Serving], None]:
    def kill(serving: Serving) -> None:
        victims = victim(serving)
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        served(serving, victims)

    return kill


@pytest.mark.parametrize("end", [Serving.restart, killed(everything), killed(a_worker)], ids=["stop", "kill", "worker"])
def test_a_reservation_outlives_the_target(end: Callable[[Serving], None], tmp_path: Path) -> None:
    with Serving(
        [tmp_path / "disk.img"], state=tmp_path / "state", log=tmp_path / "log", options=["--size", "8M"]
    ) as serving:
        with log_in(serving, "a") as a, log_in(serving, "b") as b:
            do(a, REGISTER, 0, 1)
            do(b, REGISTER, 0, 2)
            do(a, RESERVE, 1)
        end(serving)
        with log_in(serving, "a") as a, log_in(serving, "b") as b, log_in(serving, "outsider") as outsider:
            assert (keys(outsider), holder(outsider)) == ({1, 2}, 1)
            with pytest.raises(ScsiError) as refused:
                outsider.write(0, bytes(4096))
            assert refused.value.status == Status.RESERVATION_CONFLICT
            a.write(0, bytes(4096))
            b.write(0, bytes(4096))
            do(b, PREEMPT, 2, 1)  # fence a off
            assert (keys(outsider), holder(outsider)) == ({2}, 2)
        serving.stop()


class Changer(threading.Thread):
    """Changes keys and the reservation as fast as it goes, and knows what has been acknowledged."""

    def __init__(self, serving: Serving, key: int, held: bool) -> None:
        super().__init__(daemon=True)
        self.possible = [
            (key, held)
        ]  # states that may be found: what was acknowledged last, and what was sent after it
        self.changes = 0
        self._serving = serving

    def run(self) -> None:
        with contextlib.suppress(InitiatorError, OSError), log_in(self._serving, "a") as lun:
            while True:
                key, held = self.possible[-1]
                step = self.changes % 3
                if step == 0:
                    self.possible.append((key + 1, held))
                    do(lun, REGISTER, key, key + 1)
                elif step == 1:
                    self.possible.append((key, True))
                    do(lun, RESERVE, key)
                else:
                    self.possible.append((key, False))
                    do(lun, RELEASE, key)
                self.possible.pop(0)
                self.changes += 1


@pytest.mark.parametrize("victim", [everything, a_worker])
def test_every_acknowledged_change_survives_kill_9(victim: Callable[[Serving], list[int]], tmp_path: Path) -> None:
    with Serving(
        [tmp_path / "disk.img"], state=tmp_path / "state", log=tmp_path / "log", options=["--size", "8M"]
    ) as serving:
        with log_in(serving, "a") as lun:
            do(lun, REGISTER, 0, 1)
        key, held = 1, False
        for number in range(ROUNDS):
            changer = Changer(serving, key, held)
            changer.start()
            eventually(lambda changer=changer: changer.changes >= 10, serving.tail)  # type: ignore[misc]
            time.sleep(random.Random(number).random() / 50)
            victims = victim(serving)
            for pid in victims:
                os.kill(pid, signal.SIGKILL)
            changer.join(120)
            assert not changer.is_alive()
            assert changer.changes >= 10, serving.tail()
            served(serving, victims)
            with log_in(serving, "outsider") as lun:
                (key,) = keys(lun)
                held = holder(lun) is not None
            assert (key, held) in changer.possible
        serving.stop()


def test_it_is_on_stable_storage_before_the_status_is_sent(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    with Serving(
        [tmp_path / "disk.img"], state=tmp_path / "state", log=tmp_path / "log", options=["--size", "8M"]
    ) as serving:
        with log_in(serving, "a") as lun:
            do(lun, REGISTER, 0, 1)
            (worker,) = serving.workers
            with traced(worker, trace):
                do(lun, RESERVE, 1)
        serving.stop()
    assert "".join(order_of_calls(trace)) == "SSA"  # the file; then the directory, which has its new name
