"""`blockyard top`: what is going on, in the terminal: operations, bytes and latency by LUN, and what sessions do."""

from __future__ import annotations

import argparse
import contextlib
import select
import shutil
import sys
import termios
import time
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from blockyard.block.size import format_size
from blockyard.cli.output import Row, duration, table
from blockyard.cli.parsers import Subparsers, command
from blockyard.control.activity import Activity, session_key
from blockyard.control.administration import ask
from blockyard.control.errors import UsageError

_COUNTED = ("read_ops", "write_ops", "other_ops", "read_bytes", "write_bytes", "errors")
_TIMES = ("read_p50", "read_p99", "write_p50", "write_p99")
_EPILOG = """\
P50 and P99 are the times within which half, and 99 %, of the commands were done; LATENCY is their mean; QUEUE are commands in
progress.

q ends it. Without a terminal, or with --count, it prints one table after the other.

exit status:
  0  done
  7  nobody serves with this state directory, or its user is another one

examples:
  blockyard top
  blockyard top --interval 5 --count 1      what has been done in five seconds, for scripts
"""


def add_commands(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `top` to the commands."""
    what = "show what is going on: operations, bytes a second and latency by LUN, and what sessions do"
    parser = command(commands, "top", _top, what, epilog=_EPILOG)
    parser.add_argument("--interval", metavar="SECONDS", type=float, default=1.0, help="between two looks (default: 1)")
    parser.add_argument("--count", metavar="N", type=int, help="end after so many tables (default: go on)")


def _top(directory: Path, options: argparse.Namespace) -> None:
    if not 0.05 <= options.interval <= 3600:
        raise UsageError("--interval is from 0.05 to 3600 seconds")
    screen = sys.stdout.isatty() and sys.stdin.isatty() and options.count is None
    before, then = _look(directory), time.monotonic()
    shown = 0
    with _keys() if screen else contextlib.nullcontext():
        while options.count is None or shown < options.count:
            if _asked_to_end(options.interval, screen):
                return
            found, now = _look(directory), time.monotonic()
            lines = list(picture(before, found, now - then))
            if screen:
                _draw(lines)
            else:
                print("\n".join(lines), flush=True)
            before, then, shown = found, now, shown + 1


def _look(directory: Path) -> dict[str, Any]:
    return {**ask(directory, "status"), "activity": ask(directory, "activity")}


@contextlib.contextmanager
def _keys() -> Iterator[None]:
    """Keys are read one by one, and the terminal is as it was afterwards."""
    mode = termios.tcgetattr(sys.stdin)
    sys.stdout.write("\x1b[?1049h\x1b[?25l")  # another screen, no cursor (ECMA-48, xterm)
    try:
        tty.setcbreak(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, mode)
        sys.stdout.write("\x1b[?25h\x1b[?1049l")
        sys.stdout.flush()


def _asked_to_end(seconds: float, screen: bool) -> bool:
    if not screen:
        time.sleep(seconds)
        return False
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if select.select([sys.stdin], [], [], left)[0] and sys.stdin.read(1) in ("q", "Q", ""):
            return True
    return False


def _draw(lines: list[str]) -> None:
    width, height = shutil.get_terminal_size()
    cut = [line[: width - 1] for line in lines[: height - 1]]
    sys.stdout.write("\x1b[H" + "".join(f"{line}\x1b[K\n" for line in cut) + "\x1b[J")
    sys.stdout.flush()


def picture(before: dict[str, Any], now: dict[str, Any], seconds: float) -> Iterator[str]:
    """The lines for what has been done between two looks; the busiest first."""
    rates = {
        name: _rates(kind.get("counters"), before[what].get(name, {}).get("counters"), seconds)
        for what in ("volumes", "drives")
        for name, kind in now[what].items()
    }
    total = {key: sum(rate[key] for rate in rates.values()) for key in _COUNTED}
    yield (
        f"Blockyard {now['version']}   {time.strftime('%H:%M:%S')}   {len(now['sessions'])} sessions   "
        f"{total['read_ops']:.0f} reads/s  {format_size(int(total['read_bytes']))}/s   "
        f"{total['write_ops']:.0f} writes/s  {format_size(int(total['write_bytes']))}/s"
    )
    activity = Activity(before["activity"], now["activity"], seconds)
    rows: list[tuple[float, Row]] = []
    for target, described in now["targets"].items():
        users = sum(session["target"] == target for session in now["sessions"])
        for lun, volume in described["luns"].items():
            rate = rates.get(volume, dict.fromkeys(_COUNTED, 0.0))
            work = rate["read_ops"] + rate["write_ops"]
            times = activity.volume(volume)
            cells = (target, lun, volume, *_cells(rate), *(_time(times[each]) for each in _TIMES), str(users))
            rows.append((-work, cells))
    head = ("TARGET", "LUN", "VOLUME", "READS/S", "READ/S", "WRITES/S", "WRITTEN/S", "OTHER/S", "ERRORS/S",
            "READ P50", "P99", "WRITE P50", "P99", "SESSIONS")  # fmt: skip
    yield from ("", *table([head, *(row for _, row in sorted(rows, key=lambda each: each[0]))], indent=""))
    if now["sessions"]:
        first = (
            "INITIATOR",
            "USER",
            "TARGET",
            "FROM",
            "READS/S",
            "READ/S",
            "WRITES/S",
            "WRITTEN/S",
            "LATENCY",
            "QUEUE",
        )
        yield from ("", *table([first, *(_session(activity, each) for each in now["sessions"])], indent=""))


def _session(activity: Activity, each: dict[str, Any]) -> Row:
    done = activity.session(session_key(each))
    peers = ", ".join(one["peer"] for one in each["connections"]) or "-"
    cells = _cells({**dict.fromkeys(_COUNTED, 0.0), **{key: done[key] for key in _COUNTED[:2] + _COUNTED[3:5]}})[:4]
    return (
        each["initiator"],
        each["user"] or "-",
        each["target"],
        peers,
        *cells,
        _time(done["latency"]),
        str(done["depth"]),
    )


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else duration(seconds)


def _rates(now: dict[str, int] | None, before: dict[str, int] | None, seconds: float) -> dict[str, float]:
    """A second; nothing where there is nothing to compare, and never less: a worker that was started again counts anew."""
    if not now or not before:
        return dict.fromkeys(_COUNTED, 0.0)
    return {key: max(0, now.get(key, 0) - before.get(key, 0)) / seconds for key in _COUNTED}


def _cells(rate: dict[str, float]) -> Row:
    def text(key: str) -> str:
        return format_size(int(rate[key])) if key.endswith("bytes") else f"{rate[key]:.0f}"

    return tuple(map(text, ("read_ops", "read_bytes", "write_ops", "write_bytes", "other_ops", "errors")))
