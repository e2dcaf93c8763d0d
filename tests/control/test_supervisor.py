"""Workers: real processes that are started, killed, and started again."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from blockyard.control.acceptor import WorkerUnavailable
from blockyard.control.errors import VolumeError
from blockyard.control.supervisor import Supervisor
from blockyard.control.worker import WorkerFailed
from blockyard.worker.configuration import Settled, Target, Volume
from tests.waiting import comes_about


def make_volume(folder: Path, name: str) -> Volume:
    path = folder / f"{name}.img"
    with path.open("wb") as file:
        file.truncate(1 << 20)
    return Volume(name, str(path), uuid=str(uuid.uuid4()))


def configure(*volumes: Volume) -> Settled:
    """A target for each volume."""
    targets = [Target(f"iqn.2026-11.test:{volume.name}", {0: volume.name}) for volume in volumes]
    return Settled(
        volumes={volume.name: volume for volume in volumes}, targets={target.name: target for target in targets}
    )


def run(scene: Callable[[Supervisor], Awaitable[None]], volumes: list[Volume], count: int) -> None:
    async def play() -> None:
        supervisor = Supervisor(configure(*volumes), count)
        try:
            async with asyncio.timeout(120):
                await scene(supervisor)
        finally:
            await supervisor.close()

    asyncio.run(play())


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def give_connection(supervisor: Supervisor, target: str) -> None:
    """Hand over a connection on which nothing has been said yet."""
    message = {"type": "connection", "portal": "127.0.0.1:3260", "peer": "127.0.0.1:1", "received": "", "answered": 0}
    ours, theirs = socket.socketpair()
    with ours, theirs:
        await supervisor.hand_over(target, message, theirs.fileno())


def test_targets_are_spread_over_workers() -> None:
    volumes = [Volume(name, f"/{name}") for name in "abcde"]
    configuration = configure(*volumes)
    supervisor = Supervisor(configuration, 2)
    assert [[name[-1] for name in worker.configuration.targets] for worker in supervisor.workers] == [
        ["a", "c", "e"],
        ["b", "d"],
    ]
    assert list(supervisor.workers[1].configuration.volumes) == ["b", "d"]
    assert len(Supervisor(configuration, 99).workers) == 5


def test_stopping_ends_the_processes(tmp_path: Path) -> None:
    async def scene(supervisor: Supervisor) -> None:
        await supervisor.start()
        pids = [worker.pid for worker in supervisor.workers]
        await supervisor.stop(5)
        assert all(pid is not None and is_gone(pid) for pid in pids)
        assert [worker.restarts for worker in supervisor.workers] == [0, 0]

    run(scene, [make_volume(tmp_path, name) for name in "ab"], 2)


def test_a_worker_that_is_killed_is_started_again_and_the_other_left_alone(tmp_path: Path) -> None:
    async def scene(supervisor: Supervisor) -> None:
        await supervisor.start()
        one, other = supervisor.workers
        first, untouched = one.pid, other.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await comes_about(lambda: one.pid not in (first, None))
        await give_connection(supervisor, next(iter(one.configuration.targets)))
        assert one.restarts == 1
        assert (other.pid, other.restarts) == (untouched, 0)
        await supervisor.stop(0)

    run(scene, [make_volume(tmp_path, name) for name in "ab"], 2)


def test_a_connection_that_a_worker_dies_with_goes_to_the_next(tmp_path: Path) -> None:
    async def scene(supervisor: Supervisor) -> None:
        await supervisor.start()
        worker = supervisor.workers[0]
        first = worker.pid
        assert first is not None
        os.kill(first, signal.SIGSTOP)  # what is sent to it now it will never read
        given = asyncio.create_task(give_connection(supervisor, "iqn.2026-11.test:a"))
        await asyncio.sleep(0.05)
        assert not given.done()
        os.kill(first, signal.SIGKILL)
        await given
        assert worker.pid not in (first, None)
        await supervisor.stop(0)

    run(scene, [make_volume(tmp_path, "a")], 1)


def test_a_worker_that_hangs_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blockyard.control.worker.PULSE", 0.05)
    monkeypatch.setattr("blockyard.control.worker.HANG", 1.0)

    async def scene(supervisor: Supervisor) -> None:
        await supervisor.start()
        (worker,) = supervisor.workers
        await comes_about(lambda: worker.pid is not None)
        first = worker.pid
        assert first is not None
        os.kill(first, signal.SIGSTOP)
        await comes_about(lambda: worker.pid not in (None, first))
        assert is_gone(first)
        assert worker.restarts >= 1  # the next one has no longer to begin to answer

    run(scene, [make_volume(tmp_path, "a")], 1)


def test_one_that_dies_again_and_again_is_given_time(tmp_path: Path) -> None:
    async def scene(supervisor: Supervisor) -> None:
        await supervisor.start()
        worker = supervisor.workers[0]
        began = time.monotonic()
        for count in range(4):
            await comes_about(lambda: worker.pid is not None)
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)
            await comes_about(lambda count=count: worker.restarts == count + 1)  # type: ignore[misc]
        assert time.monotonic() - began > 0.1 + 0.2 + 0.4  # and nothing before the first

    run(scene, [make_volume(tmp_path, "a")], 1)


def test_a_connection_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blockyard.control.worker.PATIENCE", 0.3)
    volume = make_volume(tmp_path, "a")

    async def scene(supervisor: Supervisor) -> None:
        await supervisor.start()
        worker = supervisor.workers[0]
        Path(volume.path).rename(tmp_path / "away.img")  # the next process cannot take up its work
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        await asyncio.sleep(0.05)
        began = time.monotonic()
        with pytest.raises(WorkerUnavailable):
            await give_connection(supervisor, "iqn.2026-11.test:a")
        assert time.monotonic() - began > 0.2
        (tmp_path / "away.img").rename(volume.path)
        monkeypatch.setattr("blockyard.control.worker.PATIENCE", 20.0)
        await give_connection(supervisor, "iqn.2026-11.test:a")
        await supervisor.stop(0)

    run(scene, [volume], 1)


def test_a_first_start_that_fails_says_why(tmp_path: Path) -> None:
    volume = make_volume(tmp_path, "a")
    Path(volume.path).unlink()

    async def scene(supervisor: Supervisor) -> None:
        with pytest.raises(VolumeError, match=r"a\.img"):
            await supervisor.start()

    run(scene, [volume], 1)


def test_a_worker_that_cannot_even_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blockyard.control.body.sys.executable", "/bin/false")

    async def scene(supervisor: Supervisor) -> None:
        with pytest.raises(WorkerFailed, match="worker 0 could not start: exit status 1"):
            await supervisor.start()

    run(scene, [make_volume(tmp_path, "a")], 1)


def test_no_process_to_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(supervisor: Supervisor) -> None:
        await supervisor.start()
        worker = supervisor.workers[0]
        assert worker.pid is not None
        with monkeypatch.context() as patch:
            patch.setattr("blockyard.control.body.sys.executable", "/no/such/python")
            os.kill(worker.pid, signal.SIGKILL)
            await comes_about(lambda: worker.restarts >= 2)
        await comes_about(lambda: worker.pid is not None)
        await supervisor.stop(0)

    run(scene, [make_volume(tmp_path, "a")], 1)
