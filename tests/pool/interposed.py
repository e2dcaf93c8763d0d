"""Python processes whose file I/O can be counted, made to fail and written down, LMDB's too (interpose.c)."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

_SOURCE = Path(__file__).with_name("interpose.c")
_REPOSITORY = Path(__file__).parents[2]


def run(module: str, *arguments: str, directory: Path) -> str:
    """Run a module of the tests in a process of that kind; what it has printed. `directory` is for the library."""
    library = directory / "interpose.so"
    if not library.exists():
        subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", str(library), str(_SOURCE), "-ldl"], check=True)
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=_REPOSITORY,
        env={**os.environ, "LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass(frozen=True)
class Mode:
    """How calls fail: with `errno`, the n-th alone or all from it on; when `short`, that one writes a half first."""

    errno: int
    lasting: bool = False
    short: bool = False

    def __str__(self) -> str:
        words = [errno.errorcode[self.errno] if self.errno else "", "lasting" * self.lasting, "short" * self.short]
        return " ".join(filter(None, words))


class Interposed:
    """The library in this process."""

    def __init__(self, below: Path) -> None:
        """Only what happens to files below this directory counts."""
        self._library = ctypes.CDLL(None)
        ctypes.c_char.in_dll(self._library, "interpose_calls")  # raises ValueError where it is not loaded
        ctypes.memmove(ctypes.addressof(self._at("below")), os.fsencode(below) + b"\0", len(os.fsencode(below)) + 1)

    def _at(self, name: str) -> ctypes.c_long:
        return ctypes.c_long.in_dll(self._library, f"interpose_{name}")

    def _set(self, name: str, value: int) -> None:
        kind = ctypes.c_int if name in ("errno", "short", "log") else ctypes.c_long
        kind.in_dll(self._library, f"interpose_{name}").value = value

    @contextmanager
    def failing(self, number: int, mode: Mode) -> Iterator[None]:
        """Fail the `number`-th call of what is done inside."""
        self._set("calls", 0)
        self._set("struck", 0)
        self._set("errno", mode.errno)
        self._set("short", mode.short)
        self._set("fail_last", 1 << 40 if mode.lasting else number)
        self._set("fail_at", number)
        try:
            yield
        finally:
            self._set("fail_at", 0)

    @property
    def struck(self) -> int:
        """How many calls have failed."""
        return self._at("struck").value

    @contextmanager
    def recording(self, path: Path) -> Iterator[None]:
        """Write down what is done inside, to be read by `recorded`."""
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        self._set("log", fd)
        try:
            yield
        finally:
            self._set("log", -1)
            os.close(fd)

    def mark(self, text: str) -> None:
        """A remark among what is written down."""
        self._library.interpose_mark(text.encode())


class Step(NamedTuple):
    """What a call did to a file, or a remark."""

    what: str  # "write", "sync", "truncate", "punch", "mark"
    name: str  # of the file in its directory; the text of a remark
    stable: bool  # what was written is on stable storage when the call returns (O_DSYNC)
    offset: int
    length: int
    data: bytes


_HEAD = struct.Struct("=BBHIqq")
_WHAT = {1: "write", 2: "sync", 3: "truncate", 4: "punch", 255: "mark"}


def recorded(path: Path) -> list[Step]:
    """What was written down there."""
    data, at, steps = path.read_bytes(), 0, []
    while at < len(data):
        what, stable, name_length, _, offset, length = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        name = data[at : at + name_length].decode()
        at += name_length
        content = data[at : at + length] if what == 1 else b""
        at += len(content)
        steps.append(Step(_WHAT[what], name.lstrip("/"), bool(stable), offset, length, content))
    return steps
