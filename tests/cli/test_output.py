"""Progress bars, and whether what destroys is meant, at a terminal that is one."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import threading

import pytest

BAR = """
from blockyard.cli.output import watch
steps = iter([(0, 0, "chunks"), (1 << 20, 4 << 20, "bytes"), (4 << 20, 4 << 20, "bytes"), None])
watch("freeing in fast", lambda: next(steps))
"""
CONFIRM = """
import argparse
from blockyard.cli.output import confirm
confirm(argparse.Namespace(yes=False), "fast/vm", "fast/vm will be lost")
print("done")
"""


def at_a_terminal(program: str, typed: bytes = b"") -> tuple[int, str]:
    """The exit status of a program, and what it has shown."""
    ours, theirs = pty.openpty()
    shown = bytearray()

    def read() -> None:
        try:
            while data := os.read(ours, 4096):
                shown.extend(data)
        except OSError:  # nobody has the other end any more
            pass

    reader = threading.Thread(target=read)
    reader.start()
    process = subprocess.Popen([sys.executable, "-c", program], stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.write(ours, typed)
    status = process.wait(120)
    reader.join()
    os.close(ours)
    return status, shown.decode()


def test_a_bar() -> None:
    status, shown = at_a_terminal(BAR)
    assert status == 0
    assert "\rfreeing in fast: 0 chunks" in shown
    assert re.search(r"\[#{7}\.{23}\]  25%, 1 MiB of 4 MiB, \d+ s left", shown)
    assert f"[{'#' * 30}] 100%" in shown
    assert shown.endswith("\r\x1b[K"), "nothing is left of it"


def test_no_bar_where_there_is_no_terminal() -> None:
    done = subprocess.run([sys.executable, "-c", BAR], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize(("typed", "meant"), [(b"fast/vm\n", True), (b"fast/v\n", False), (b"\n", False)])
def test_a_name_is_typed_before_something_is_lost(typed: bytes, meant: bool) -> None:
    status, shown = at_a_terminal(CONFIRM, typed)
    assert "fast/vm will be lost. Type fast/vm to go on: " in shown
    assert (status == 0, "done" in shown, "nothing was changed" in shown) == (meant, meant, not meant)
