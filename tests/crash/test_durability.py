"""Every acknowledged flush survives the death of the target, and what is acknowledged has been flushed.

A file outlives the process that wrote it, so kill -9 shows that nothing acknowledged lay in the target's own memory.
That it was on stable storage too is shown by the order of system calls: no SYNCHRONIZE CACHE, FUA or write-through WRITE
is answered before the fdatasync that follows its data.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from blockyard.initiator import connect
from blockyard.initiator.errors import InitiatorError
from tests.serving import Serving
from tests.waiting import eventually

BLOCKS = 2048  # 4 KiB each
ROUNDS_IN_TEST = 3
ROUNDS_IN_SOAK = 100


class Writer(threading.Thread):
    """Writes numbered blocks at random places, flushes now and then, and knows what was flushed."""

    def __init__(self, url: str, generation: int, flushed: dict[int, int]) -> None:
        super().__init__(daemon=True)
        self.flushed = flushed  # block → number that a flush after its write has been acknowledged for
        self.flushes = 0
        self.sent: dict[int, int] = {}  # block → number last sent, acknowledged or not: may be there or not
        self._url = url
        self._number = generation << 24
        self._rng = random.Random(generation)

    def run(self) -> None:
        """One session until it is lost; a login that comes while the worker is being restarted is tried again."""
        deadline = time.monotonic() + 120
        while not self.flushes and time.monotonic() < deadline:
            with contextlib.suppress(InitiatorError, OSError):
                self._write()

    def _write(self) -> None:
        with connect(self._url, timeout=120) as lun:
            while True:
                written = {}
                for _ in range(self._rng.randrange(1, 20)):
                    block = self._rng.randrange(BLOCKS)
                    self._number += 1
                    self.sent[block] = self._number
                    lun.write(block * 8, self._number.to_bytes(8, "big") * 512)
                    written[block] = self._number
                lun.flush()
                self.flushed.update(written)
                self.flushes += 1


def number_at(data: bytes, block: int) -> int:
    """The number in a block, which must be the same in all of it: a torn 4 KiB write would show."""
    content = data[block * 4096 : block * 4096 + 4096]
    assert content == content[:8] * 512, f"block {block} is torn"
    return int.from_bytes(content[:8], "big")


def kill_during_writes(rounds: int, tmp_path: Path, victim: Callable[[Serving], list[int]]) -> None:
    disk = tmp_path / "disk.img"
    flushed: dict[int, int] = {}
    sent: dict[int, int] = {}
    with Serving([disk], state=tmp_path / "state", log=tmp_path / "log", options=["--size", "8M"]) as serving:
        for generation in range(1, rounds + 1):
            writer = Writer(serving.url(), generation, flushed)
            writer.start()
            eventually(lambda writer=writer: writer.flushes >= 5, serving.tail)  # type: ignore[misc]
            time.sleep(random.Random(generation).random() / 10)
            victims = victim(serving)
            for pid in victims:
                os.kill(pid, signal.SIGKILL)
            writer.join(120)
            assert not writer.is_alive()
            if serving.pid in victims:
                serving.process.wait()
                serving.restart()
            sent.update(writer.sent)
            data = disk.read_bytes()
            for block, number in flushed.items():
                found = number_at(data, block)
                assert number <= found <= sent[block], f"block {block}: flushed {number}, found {found}"
        serving.stop()


def everything(serving: Serving) -> list[int]:
    return [*serving.workers, serving.pid]


def a_worker(serving: Serving) -> list[int]:
    return serving.workers[:1]


@pytest.mark.parametrize("victim", [everything, a_worker])
def test_flushed_writes_survive_kill_9(tmp_path: Path, victim: Callable[[Serving], list[int]]) -> None:
    kill_during_writes(ROUNDS_IN_TEST, tmp_path, victim)


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("victim", [everything, a_worker])
def test_flushed_writes_survive_kill_9_soak(tmp_path: Path, victim: Callable[[Serving], list[int]]) -> None:
    kill_during_writes(ROUNDS_IN_SOAK, tmp_path, victim)


@contextlib.contextmanager
def traced(pid: int, trace: Path) -> Iterator[None]:
    """System calls of a worker that have to do with data, with their order, in `trace`."""
    calls = "pwrite64,pwritev,pwritev2,fdatasync,fsync,sync_file_range,sendto,sendmsg"
    strace = subprocess.Popen(
        ["strace", "-f", "-qq", "-yy", "-e", f"trace={calls}", "-e", "signal=none", "-o", str(trace), "-p", str(pid)],
        stderr=subprocess.PIPE,
    )
    try:
        deadline = time.monotonic() + 120
        while not all(f"TracerPid:\t{strace.pid}" in text for text in _statuses(pid)):
            assert time.monotonic() < deadline, "strace did not attach"
            assert strace.poll() is None, strace.stderr.read() if strace.stderr else ""
            time.sleep(0.01)
        yield
    finally:
        strace.terminate()
        strace.wait(120)


def _statuses(pid: int) -> list[str]:
    """Of all threads."""
    return [path.read_text(encoding="ascii") for path in Path(f"/proc/{pid}/task").glob("*/status")]


def order_of_calls(trace: Path) -> list[str]:
    """W for a write, S for a sync that has returned 0, A for an answer, in the order in which they ended.

    What is told to control, by a unix socket, is none.
    """
    to_control: set[str] = set()  # threads that are about it
    letters = {"pwrite": "W", "fdatas": "S", "fsync": "S", "sendto": "A", "sendms": "A"}
    order = []
    for line in trace.read_text(encoding="utf-8", errors="replace").splitlines():
        match = re.match(r"(\d+)\s+(?:<\.\.\. )?(\w+)", line)
        if match is None:
            continue
        if re.search(r"\(\d+<UNIX", line):
            to_control.add(match[1])
        elif "resumed>" not in line:
            to_control.discard(match[1])
        if "<unfinished" in line:
            continue
        for prefix, letter in letters.items():
            if match[2].startswith(prefix) and not (letter == "A" and match[1] in to_control):
                assert "= -1" not in line, line
                order.append(letter)
    return order


WRITE_10 = bytes.fromhex("2a000000000000000800")
WRITE_10_FUA = bytes.fromhex("2a080000000000000800")
SYNCHRONIZE_CACHE_10 = bytes.fromhex("35000000000000000000")


@pytest.mark.parametrize(
    ("options", "commands", "expected"),
    [
        ([], [WRITE_10], "WA"),
        ([], [WRITE_10, SYNCHRONIZE_CACHE_10], "WASA"),
        ([], [WRITE_10_FUA], "WSA"),
        (["--write-through"], [WRITE_10], "WSA"),
    ],
    ids=["write", "synchronize cache", "FUA", "write-through"],
)
def test_nothing_is_acknowledged_before_it_is_stable(
    tmp_path: Path, options: list[str], commands: list[bytes], expected: str
) -> None:
    disk, trace = tmp_path / "disk.img", tmp_path / "trace"
    options = ["--size", "8M", *options]
    with Serving([disk], state=tmp_path / "state", log=tmp_path / "log", options=options) as serving:
        with connect(serving.url(), timeout=120) as lun:
            lun.read(0, 1)
            with traced(serving.workers[0], trace):
                for cdb in commands:
                    data = os.urandom(4096) if cdb[0] == WRITE_10[0] else b""
                    assert lun.command(cdb, data_out=data).status == 0
        serving.stop()
    assert "".join(order_of_calls(trace)) == expected


def test_stopping_flushes(tmp_path: Path) -> None:
    """SIGTERM: what was written and never flushed is on stable storage before the process ends."""
    disk, trace = tmp_path / "disk.img", tmp_path / "trace"
    with Serving([disk], state=tmp_path / "state", log=tmp_path / "log", options=["--size", "8M"]) as serving:
        with traced(serving.workers[0], trace):
            with connect(serving.url(), timeout=120) as lun:
                lun.write(0, os.urandom(4096))
            serving.stop()
        assert "S" in order_of_calls(trace)[order_of_calls(trace).index("W") :]
