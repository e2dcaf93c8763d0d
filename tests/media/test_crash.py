"""Loss of power: whatever part of what was not synchronised has reached the disk, a partition opens, and it has all that was
synchronised, then perhaps some of what was written since, whole and in order, and nothing else.

Writes, syncs and cuts of files are logged as they pass. A crash comes at any of them; of what has not been synced by then,
any subset has reached the disk, torn at 4 KiB.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockyard.media.partition import Partition, create
from tests.media.scratch import scratch
from tests.media.test_partition import CARTRIDGE, contents

_PAGE = 4096
Contents = list[bytes | None]


class Log:
    """What happens to files: (name, offset, data), (name, length) for a cut, (name,) for a sync."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entries: list[tuple[Any, ...]] = []
        for name in ("pwritev", "ftruncate", "fdatasync"):
            monkeypatch.setattr(os, name, self._logging(name, getattr(os, name)))

    def _logging(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def logged(fd: int, *arguments: Any) -> Any:
            path = Path(os.readlink(f"/proc/self/fd/{fd}")).name
            if name == "pwritev":
                self.entries.append((path, arguments[1], b"".join(arguments[0])))
            else:
                self.entries.append((path, *arguments))
            return real(fd, *arguments)

        return logged


def state(entries: list[tuple[Any, ...]], begin: dict[str, bytes], rng: Random) -> dict[str, bytes]:
    """What is on the disk when the power fails after these entries."""
    files = {name: bytearray(data) for name, data in begin.items()}
    for name, file in files.items():
        own = [entry[1:] for entry in entries if entry[0] == name]
        safe = max((at for at, entry in enumerate(own) if not entry), default=-1)
        for at, entry in enumerate(own):
            chance = 1.0 if at <= safe else 0.5
            if len(entry) == 1 and rng.random() < chance:
                del file[entry[0] :]
            elif len(entry) == 2:
                _write(file, *entry, lambda chance=chance: rng.random() < chance)  # type: ignore[misc]
    return {name: bytes(file) for name, file in files.items()}


def _write(file: bytearray, offset: int, data: bytes, keep: Callable[[], bool]) -> None:
    at = offset
    while at < offset + len(data):
        end = min(offset + len(data), (at // _PAGE + 1) * _PAGE)
        if keep():
            if len(file) < at:
                file.extend(bytes(at - len(file)))
            file[at:end] = data[at - offset : end - offset]
        at = end


class Run:
    """What was written, and what a crash at each entry of the log may leave of it."""

    def __init__(self, log: Log, directory: Path) -> None:
        self.log = log
        create(directory / "0.data", CARTRIDGE, 0)
        self.partition = Partition(directory / "0.data")
        self.now: Contents = []
        self.floor: Contents = []  # what has to be there
        self.ceilings: list[Contents] = [[]]  # of one of these all has to be a beginning
        self.begin = {name: (directory / name).read_bytes() for name in ("0.data", "0.index")}
        log.entries.clear()
        self.marks: list[tuple[int, Contents, list[Contents]]] = []

    def step(self, do: Callable[[], object], after: Contents, *, floor: Contents, stable: bool = False) -> None:
        """Something that makes `after` of the contents; while it goes on only `floor` is sure."""
        self.ceilings = [*self.ceilings, after]
        self.floor = floor
        first = len(self.log.entries)
        do()
        self.marks += [(at, self.floor, self.ceilings) for at in range(first, len(self.log.entries) + 1)]
        if stable:
            self.floor, self.ceilings = after, [after]
            self.marks[-1] = len(self.log.entries), self.floor, self.ceilings
        self.now = after


@given(st.randoms(use_true_random=False))
@settings(max_examples=120, deadline=None)
def test_every_promise_holds_after_a_crash_at_any_moment(rng: Random) -> None:
    directory = scratch()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("blockyard.media.partition._CHECKPOINT", rng.choice((20000, 1 << 28)))
        run = Run(Log(monkeypatch), directory)
        partition = run.partition
        for serial in range(rng.randrange(3, 25)):
            kind = rng.choice(("block", "block", "block", "mark", "sync", "over"))
            if partition.checkpoint_due:
                run.step(partition.checkpoint, run.now, floor=run.floor, stable=True)
            if kind == "block":
                data = serial.to_bytes(2, "big") * rng.choice((5, 500, 4000))
                run.step(partial(partition.append, data), [*run.now, data], floor=run.floor)
            elif kind == "mark":
                run.step(partition.append_filemark, [*run.now, None], floor=run.floor)
            elif kind == "sync":
                run.step(partition.sync, run.now, floor=run.floor, stable=True)
            else:
                to = rng.randrange(len(run.now) + 1)
                stable = to < len(run.now)
                run.step(partial(partition.truncate, to), run.now[:to], floor=run.floor[:to], stable=stable)
        entries = list(run.log.entries)
        partition.close()
    for _ in range(4):
        at, floor, ceilings = rng.choice(run.marks)
        for name, data in state(entries[:at], run.begin, rng).items():
            (directory / name).write_bytes(data)
        again = Partition(directory / "0.data")
        found = contents(again)
        again.close()
        assert found[: len(floor)] == floor
        assert any(found == ceiling[: len(found)] for ceiling in ceilings)
        again = Partition(directory / "0.data")
        assert contents(again) == found
        again.close()
