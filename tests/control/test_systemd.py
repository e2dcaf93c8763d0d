"""sd_notify, at a real socket."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from blockyard.control.systemd import keep_watchdog, notify, watchdog_interval
from tests.waiting import LIMIT


@pytest.mark.parametrize("abstract", [False, True])
def test_what_is_told_arrives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, abstract: bool) -> None:
    name = f"\0blockyard-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name)
        sock.settimeout(LIMIT)
        monkeypatch.setenv("NOTIFY_SOCKET", name.replace("\0", "@"))
        notify(READY="1", STATUS="Serving")
        assert sock.recv(4096) == b"READY=1\nSTATUS=Serving"


@pytest.mark.parametrize("address", ["", "/nowhere/at/all", "relative", "vsock:2:1234"])
def test_nobody_listens(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify(READY="1")


@pytest.mark.parametrize(
    ("microseconds", "pid", "interval"),
    [("3000000", None, 1.5), ("3000000", "1", None), ("", None, None), ("0", None, None), ("x", None, None)],
)
def test_the_watchdog_is_for_the_process_that_it_names(
    monkeypatch: pytest.MonkeyPatch, microseconds: str, pid: str | None, interval: float | None
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", microseconds)
    monkeypatch.setenv("WATCHDOG_PID", pid or str(os.getpid()))
    assert watchdog_interval() == interval


def test_signs_of_life(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)

        async def live() -> list[bytes]:
            watchdog = asyncio.create_task(keep_watchdog())
            async with asyncio.timeout(LIMIT):
                told = [await asyncio.get_running_loop().sock_recv(sock, 100) for _ in range(3)]
            watchdog.cancel()
            return told

        assert asyncio.run(live()) == [b"WATCHDOG=1"] * 3
