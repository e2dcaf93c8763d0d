"""Logins to a moment: the name of a target with a time behind an @."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from blockyard.initiator import InvalidName, LoginError, ScsiError, connect, discover
from blockyard.iscsi.pdu import LoginStatus
from blockyard.pool.instant import show
from blockyard.pool.pool import Pool
from blockyard.pool.volume import VolumeDevice
from tests.conftest import TargetFactory, need, run
from tests.control.test_pools import make_pool
from tests.serving import Serving
from tests.waiting import eventually

IQN = "iqn.2026-11.test:vol1"
BLOCK = 512
_FREE = 64  # a block that tests may write
CONFIG = f"""
[pools.fast]
directory = "fast"
[volumes.vm]
pool = "fast"
[volumes.log]
pool = "fast"
[volumes.plain]
path = "plain.img"
size = "1M"
[targets."{IQN}"]
luns = {{0 = "vm", 1 = "plain", 2 = "log"}}
"""


class Protected:
    """A target with a protected volume vm that has been 1, then 2, and is 3; `times` are those of 1 and 2."""

    def __init__(self, target: Callable[[str], Serving], tmp_path: Path, more: str = "", *, log: bool = False) -> None:
        self.times: list[int] = []
        self.between = 0  # when vm was 3, and log still 2
        make_pool(tmp_path / "fast", lambda pool: self.prepare(pool, log=log))
        self.serving = target(CONFIG + more)

    def prepare(self, pool: Pool, *, log: bool) -> None:
        for name in ("vm", "log"):
            pool.create_volume(name, 1 << 20, 12)
        pool.cdp.turn_on("vm")
        if log:
            pool.cdp.turn_on("log")
        for byte in (1, 2, 3):
            VolumeDevice(pool, "vm").pwritev([bytes([byte]) * 4096], 0)
            self.between = pool.cdp.clock.now()
            VolumeDevice(pool, "log").pwritev([bytes([byte]) * 4096], 0)
            self.times.append(pool.cdp.clock.now())
        pool.cdp.set_bookmark("vm", "Before.Upgrade", self.times[0])

    def url(self, moment: str, lun: int = 0) -> str:
        return self.serving.url(lun, target=f"{IQN}@{moment}")


@pytest.fixture(scope="module")
def protected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Protected]:
    """For those tests that leave the first block of the volume as it is."""
    folder = tmp_path_factory.mktemp("travel")

    def start(config: str) -> Serving:
        (folder / "serve.toml").write_text(config)
        return Serving([], state=folder / "state", log=folder / "log", config=folder / "serve.toml")

    protected = Protected(start, folder)
    yield protected
    protected.serving.stop()


def first_byte(url: str, **options: Any) -> int:
    with connect(url, **options) as lun:
        return lun.read(0, 1)[0]


def own(target: TargetFactory) -> Callable[[str], Serving]:
    return lambda config: target(config=config)


def test_any_moment_can_be_logged_in_to(protected: Protected) -> None:
    one, two, three = protected.times
    assert first_byte(protected.url(show(one))) == 1
    assert first_byte(protected.url(show(two).lower())) == 2
    assert first_byte(protected.url(show(three))) == 3
    assert first_byte(protected.url("before.upgrade")) == 1
    assert first_byte(protected.url("-0s")) == 3
    assert first_byte(protected.serving.url(0, target=IQN)) == 3


def test_it_can_be_read_only_and_is_a_disk_of_its_own(protected: Protected) -> None:
    moment = show(protected.times[0])
    with connect(protected.url(moment)) as then, connect(protected.serving.url(0, target=IQN)) as now:
        assert then.capacity() == now.capacity()
        with pytest.raises(ScsiError, match="write protected"):
            then.write(0, bytes(BLOCK))
        now.write(_FREE, bytes([9]) * BLOCK)
        assert (then.read(_FREE, 1)[0], now.read(_FREE, 1)[0]) == (0, 9)
        assert then.inquiry(0x83) != now.inquiry(0x83)
        assert then.luns() == [0], "what is not protected is not there"
    with connect(protected.url(moment)) as again:
        assert again.read(0, 1)[0] == 1


def test_logical_units_show_one_moment(target: TargetFactory, tmp_path: Path) -> None:
    protected = Protected(own(target), tmp_path, log=True)
    with connect(protected.url(show(protected.between))) as lun:
        assert lun.luns() == [0, 2]
        assert lun.read(0, 1)[0] == 3
    assert first_byte(protected.url(show(protected.between), 2)) == 2, "it was written after vm"
    assert first_byte(protected.url("before.upgrade")) == 1
    assert first_byte(protected.url("now", 2)) == 3


def test_no_such_moment(protected: Protected) -> None:
    for moment, why in {
        "-99d": "does not reach",
        "2099-01-01t00:00z": "not come yet",
        "2020-01-01t00:00": "write 2020-01-01t00:00Z",
        "tuesday": "no bookmark 'tuesday'",
    }.items():
        with pytest.raises(LoginError) as error:
            connect(protected.url(moment))
        assert error.value.status == LoginStatus.NOT_FOUND
        eventually(partial(_logged, protected.serving, f"{IQN}@{moment}", why))


def _logged(serving: Serving, *words: str) -> bool:
    return any(all(word in line for word in words) for line in serving.tail().splitlines())


def test_no_such_target(protected: Protected) -> None:
    with pytest.raises(LoginError) as error:
        connect(protected.serving.url(0, target="iqn.2026-11.test:other@-5m"))
    assert error.value.status == LoginStatus.NOT_FOUND
    with pytest.raises(InvalidName):
        connect(protected.url(""))
    with pytest.raises(InvalidName):
        connect(protected.url("a@b"))


def test_discovery_knows_no_moments(protected: Protected) -> None:
    with connect(protected.url("now")):
        (found,) = discover(protected.serving.portals[0])
    assert found.name == IQN


def test_the_rules_of_the_target_hold(target: TargetFactory, tmp_path: Path) -> None:
    friend, stranger = "iqn.2026-11.test:friend", "iqn.2026-11.test:stranger"
    protected = Protected(own(target), tmp_path, f'access = [{{initiators = ["{friend}"]}}, {{right = "refuse"}}]')
    assert first_byte(protected.url("now"), initiator_name=friend) == 3
    with pytest.raises(LoginError) as error:
        connect(protected.url("now"), initiator_name=stranger)
    assert error.value.status == LoginStatus.AUTHORIZATION_FAILURE
    with pytest.raises(LoginError) as error:
        connect(protected.url("-99d"), initiator_name=stranger)
    assert error.value.status == LoginStatus.AUTHORIZATION_FAILURE, "who may not log in learns nothing"


def test_who_comes_back_sees_the_same(protected: Protected) -> None:
    """Under a file system that is mounted no other moment may appear, though `now` is another by then."""
    with connect(protected.serving.url(0, target=IQN)) as live:
        live.write(_FREE, bytes([3]) * BLOCK)
        then = connect(protected.url("now"), isid=bytes(5) + b"\1")
        live.write(_FREE, bytes([9]) * BLOCK)
        then.session.drop()
        with connect(protected.url("now"), isid=bytes(5) + b"\1") as back:
            assert back.read(_FREE, 1)[0] == 3, "the connection was lost"
            live.write(_FREE, bytes([10]) * BLOCK)
            with connect(protected.url("now"), isid=bytes(5) + b"\1") as replaced:
                assert replaced.read(_FREE, 1)[0] == 3, "the session was reinstated"
            with connect(protected.url("now"), isid=bytes(5) + b"\2") as other:
                assert other.read(_FREE, 1)[0] == 10
        with connect(protected.url("now"), isid=bytes(5) + b"\1") as anew:
            assert anew.read(_FREE, 1)[0] == 10, "it was logged out"


def test_moments_survive_the_death_of_the_worker(target: TargetFactory, tmp_path: Path) -> None:
    """Killed in the midst of writes: each moment after one that was acknowledged shows that one."""
    protected = Protected(own(target), tmp_path)
    moments: list[tuple[str, int]] = []
    with connect(protected.serving.url(0, target=IQN), recover=True) as live:
        for number in range(10, 60):
            live.write(0, bytes([number]) * BLOCK)
            moments.append((show(time.time_ns()), number))
            if number == 40:
                os.kill(protected.serving.workers[0], signal.SIGKILL)
    for moment, number in moments[::7] + moments[29:33]:
        assert first_byte(protected.url(moment)) == number
    assert first_byte(protected.url(show(protected.times[1]))) == 2


def test_foreign_initiators(protected: Protected, tmp_path: Path) -> None:
    """qemu-img (libiscsi) reads a moment by the name of the target with its options, and by its URL."""
    need("qemu-img", "qemu-utils")
    need("iscsi-inq", "libiscsi-bin")
    one, portal = show(protected.times[0]).lower(), protected.serving.portals[0]
    target = f"driver=raw,file.driver=iscsi,file.transport=tcp,file.portal={portal},file.target={IQN}@{one},file.lun=0"
    image = bytes([1]) * 4096 + bytes((1 << 20) - 4096)
    for source in (
        ["--image-opts", target],
        [protected.url(one).replace("@", "%40")],
    ):  # a URL has its user before an @
        run(["qemu-img", "convert", "-O", "raw", *source, tmp_path / "copy"])
        assert (tmp_path / "copy").read_bytes() == image
    assert "CONNECTED" in run(["iscsi-inq", protected.url("now").replace("@", "%40")]).stdout
