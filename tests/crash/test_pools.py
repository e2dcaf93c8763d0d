"""The worker that has a pool is killed again and again while QEMU's initiator writes to a volume of it.

What QEMU was told is written has to be there, and what snapshots have seen has to stay, bit for bit.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.conftest import TargetFactory, need, run
from tests.control.test_pools import BLOCKYARD
from tests.serving import Serving, workers_of

IQN = "iqn.2026-11.test:pool"
BETWEEN = 25  # writes
PIECE = 48  # KiB: neither a chunk nor a part of one
CONFIG = f"[pools.fast]\ndirectory = 'fast'\nexport = true\ntarget = '{IQN}'\n"


def command(tmp_path: Path, *words: str) -> None:
    run([*BLOCKYARD, *words, "--state", tmp_path / "state-0"])


def qemu_io(serving: Serving, volume: str) -> list[str]:
    return [need("qemu-io", "qemu-utils"), "-f", "raw", serving.url(target=f"{IQN}:{volume}")]


@pytest.mark.parametrize("kills", [2, pytest.param(50, marks=pytest.mark.soak)])
def test_killed_under_load(kills: int, target: TargetFactory, tmp_path: Path) -> None:
    run([*BLOCKYARD, "pool", "create", tmp_path / "fast", "--size", "256M"])
    serving = target(config=CONFIG)
    command(tmp_path, "volume", "create", "fast/vm", "64M")
    load = subprocess.Popen(
        qemu_io(serving, "vm"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert load.stdin is not None
    assert load.stdout is not None
    contents: dict[int, int] = {}  # of each piece of the volume, the byte that it is full of
    snapshots: dict[str, dict[int, int]] = {}
    try:
        for number in range(kills * BETWEEN):
            piece, byte = number * 7 % 40, number % 250 + 1
            load.stdin.write(f"write -P {byte} {piece * PIECE}k {PIECE}k\n" + ("flush\n" if number % 9 == 8 else ""))
            load.stdin.flush()
            killed = None
            if number % BETWEEN == BETWEEN // 2:  # while it is at that write, or just before or after it
                (killed,) = workers_of(serving.pid)
                os.kill(killed, signal.SIGKILL)
            while not re.search(
                rf"wrote {PIECE << 10}/{PIECE << 10} bytes at offset {piece * PIECE << 10}\b",
                line := load.stdout.readline(),
            ):
                assert line, "qemu-io has ended"
                assert "failed" not in line, line
            contents[piece] = byte
            if number % BETWEEN == BETWEEN - 1:
                name = f"s{number}"
                command(tmp_path, "snapshot", "create", f"fast/vm@{name}")
                snapshots[name] = dict(contents)
        load.stdin.close()
        assert load.wait(120) == 0
    finally:
        load.kill()
        load.stdout.close()
    verify(serving, "vm", contents)
    for name, expected in snapshots.items():
        command(tmp_path, "clone", "create", f"fast/vm@{name}", f"fast/{name}")
        verify(serving, name, expected)
    serving.restart()
    verify(serving, "vm", contents)
    for name, expected in snapshots.items():
        verify(serving, name, expected)


def verify(serving: Serving, volume: str, contents: dict[int, int]) -> None:
    words = [word for piece, byte in contents.items() for word in ("-c", f"read -P {byte} {piece * PIECE}k {PIECE}k")]
    output = run([*qemu_io(serving, volume)[:3], *words, *qemu_io(serving, volume)[3:]]).stdout
    assert "failed" not in output, (volume, output)
    assert output.count(f"read {PIECE << 10}/{PIECE << 10} bytes") == len(contents)
