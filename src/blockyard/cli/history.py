"""`blockyard history`: what was measured in the last 60 days, as lines of blocks or in figures."""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from blockyard.block.size import format_size
from blockyard.cli.output import Row, duration, moment, show, table
from blockyard.cli.parsers import Subparsers, command
from blockyard.control.administration import ask
from blockyard.control.errors import UsageError
from blockyard.control.history.series import RESOLUTIONS

_BLOCKS = "▁▂▃▄▅▆▇█"
_WIDTH = 60  # blocks
_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_EPILOG = """\
exit status:
  0  done
  2  there is no history of that
  5  the history cannot be read
  7  nobody serves with this state directory, or its user is another one

examples:
  blockyard history                          the last hour of all volumes together
  blockyard history volume:db --last 1d      a day of one volume
  blockyard history pool:fast --last 60d     how a pool has filled up
  blockyard history volume:db --table        every figure
  blockyard history --list                   of what there is a history
"""


def add_commands(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `history` to the commands."""
    what = "show what was measured in the last 60 days: throughput, latency, queue depth, space"
    parser = command(commands, "history", _show, what, epilog=_EPILOG)
    parser.add_argument("series", metavar="SERIES", nargs="*", help="total (the default), volume:NAME or pool:NAME")
    parser.add_argument("--last", metavar="TIME", default="1h", help="how far back, like 30min, 6h, 7d (default: 1h)")
    parser.add_argument(
        "--resolution",
        metavar="SECONDS",
        type=int,
        choices=[each.step for each in RESOLUTIONS],
        help="a figure each 10, 60 or 900 seconds (default: the finest that goes back so far)",
    )
    parser.add_argument("--list", action="store_true", help="of what there is a history, instead")
    parser.add_argument("--table", action="store_true", help="a line for each moment, with all figures")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _show(directory: Path, options: argparse.Namespace) -> None:
    if options.list:
        found = ask(directory, "history list")
        rows = [(each["series"], moment(each["began"]), moment(each["seen"])) for each in found]
        show(options, found, ("SERIES", "SINCE", "UNTIL ABOUT"), rows, none="there is no history yet")
        return
    wanted = {"series": options.series or ["total"], "from": -_seconds(options.last), "resolution": options.resolution}
    found = ask(directory, "history show", **wanted)
    if options.json:
        print(json.dumps(found, indent=2))
        return
    for each in found["series"]:
        print("\n".join(_table(each) if options.table else _picture(found, each)))


def _seconds(text: str) -> int:
    match = re.fullmatch(r"(\d{1,6}) ?(s|min|h|d|w)", text)
    if match is None or not int(match[1]):
        raise UsageError(f"--last is a time like 30min, 6h, 7d or 8w, not {text!r}")
    return int(match[1]) * _UNITS[match[2]]


def _picture(found: dict[str, Any], graph: dict[str, Any]) -> Iterator[str]:
    """A line of blocks for each column, from 0 to its greatest value."""
    yield f"{graph['series']}, from {moment(found['from'])} to {moment(found['to'])}"
    if not graph["times"]:
        yield "  nothing was measured in that time"
        return
    width = max(1, min(_WIDTH, int((found["to"] - found["from"]) / found["resolution"])))
    rows: list[Row] = [("", "", "LAST", "MEAN", "MOST")]
    for column, values in graph["values"].items():
        known = [value for value in values if value is not None]
        if known:
            line = sparkline(zip(graph["times"], values, strict=True), found["from"], found["to"], width)
            rows.append(
                (column, line, *(_text(column, each) for each in (known[-1], sum(known) / len(known), max(known))))
            )
    yield from table(rows)


def sparkline(points: Iterable[tuple[float, float | None]], begin: float, end: float, width: int = _WIDTH) -> str:
    """The greatest value of each stretch of time as a block; a space where there is none."""
    stretches: list[list[float]] = [[] for _ in range(width)]
    for at, value in points:
        if value is not None:
            stretches[min(max(int((at - begin) / (end - begin) * width), 0), width - 1)].append(value)
    most = max((max(stretch) for stretch in stretches if stretch), default=0.0)
    return "".join(
        " " if not stretch else _BLOCKS[round(max(stretch) / most * (len(_BLOCKS) - 1)) if most else 0]
        for stretch in stretches
    )


def _table(graph: dict[str, Any]) -> Iterator[str]:
    columns = graph["values"]
    rows = [
        (time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)),
         *("-" if values[number] is None else _text(column, values[number]) for column, values in columns.items()))
        for number, at in enumerate(graph["times"])
    ]  # fmt: skip
    yield from table([(graph["series"], *(column.upper() for column in columns)), *rows], indent="")


def _text(column: str, value: float) -> str:
    if column.endswith("_bytes"):
        return f"{format_size(int(value))}/s"
    if column.endswith(("p50", "p99")):
        return duration(value)
    if column == "cache_hits":
        return f"{value:.1%}"
    if column in ("reads", "writes"):
        return f"{value:.1f}/s"
    return f"{value:.1f}" if column == "depth" else format_size(int(value))
