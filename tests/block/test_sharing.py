"""Devices that several layers stand on."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from blockyard.block.device import Device
from blockyard.block.file import FileDevice
from blockyard.block.sharing import Shared


def _file(path: Path) -> FileDevice:
    return FileDevice(path)  # locked: open once at a time


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.img"
    path.write_bytes(bytes(4096))
    return path


def test_it_is_open_once_until_the_last_one_has_left(path: Path) -> None:
    shared = Shared()
    first, second = (shared.take("a", lambda: _file(path)) for _ in range(2))
    assert first is second
    shared.give_back(first)
    assert shared.take("a", lambda: _file(path)) is first
    shared.give_back(first)
    shared.give_back(first)
    _file(path).close()


def test_who_comes_while_it_is_closed_waits_for_that(path: Path) -> None:
    shared, closing, go_on = Shared(), threading.Event(), threading.Event()

    def close(device: Device) -> None:
        closing.set()
        assert go_on.wait(120)
        device.close()

    def take() -> Device:
        coming.set()
        return shared.take("a", lambda: _file(path))

    coming = threading.Event()
    first = shared.take("a", lambda: _file(path))
    with ThreadPoolExecutor() as threads:
        left = threads.submit(shared.give_back, first, close)
        assert closing.wait(120)
        came = threads.submit(take)
        assert coming.wait(120)
        assert not came.done()
        go_on.set()
        left.result(120)
        second = came.result(120)
    assert second is not first
    shared.give_back(second)
    _file(path).close()


def test_what_cannot_be_opened_or_closed_leaves_nothing_behind(path: Path) -> None:
    shared = Shared()

    def fail(device: Device) -> None:
        device.close()
        raise OSError("what was written is not stable")

    def refuse() -> Device:
        raise OSError("there is no such thing")

    with pytest.raises(OSError, match="no such thing"):
        shared.take("a", refuse)
    with pytest.raises(OSError, match="not stable"):
        shared.give_back(shared.take("a", lambda: _file(path)), fail)
    shared.give_back(shared.take("a", lambda: _file(path)))


def test_many_who_come_and_go(path: Path) -> None:
    shared = Shared()

    def come_and_go() -> None:
        for _ in range(100):
            shared.give_back(shared.take("a", lambda: _file(path)))

    with ThreadPoolExecutor(4) as threads:
        for each in [threads.submit(come_and_go) for _ in range(4)]:
            each.result(120)
    assert not shared._entries
