"""`blockyard events`: what `serve` has recorded."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from blockyard.cli.parsers import Subparsers, command
from blockyard.control.administration import REMOTE, ask
from blockyard.control.catalogue import CATALOGUE
from blockyard.control.errors import UsageError
from blockyard.control.events import Event, read_events
from blockyard.control.state import State

_EPILOG = """\
exit status:
  0  done
  2  the command line does not make sense, or a receiver could not be reached
  7  nobody serves with this state directory
  5  the state directory cannot be used
"""
_INTERVAL = 0.5  # seconds between two looks at the database, or at a server elsewhere
_MOST = 10_000  # that a server tells at once


def add_commands(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `events` to the commands."""
    what = "show what `serve` has recorded, the latest last: failed logins, blocked addresses and the like"
    parser = command(commands, "events", _show, what, epilog=_EPILOG)
    parser.add_argument(
        "do",
        metavar="test",
        nargs="?",
        choices=["test"],
        help="send one to every receiver, and say whether it has arrived",
    )
    parser.add_argument("--count", metavar="N", type=int, default=100, help="of the last N events (default: 100)")
    parser.add_argument("--follow", action="store_true", help="go on with new ones as they come")
    parser.add_argument("--explain", metavar="WHAT", help="say what this kind of event means, and what to do about it")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def _show(directory: Path, options: argparse.Namespace) -> None:
    if options.explain is not None:
        _explain(options)
        return
    if options.do == "test":
        _test(directory)
        return
    if REMOTE.get() is not None:
        _print_elsewhere(directory, options)
        return
    with contextlib.closing(State(directory)) as state:
        _print(state, options)


def _test(directory: Path) -> None:
    found = ask(directory, "events test")
    width = max(map(len, found))
    for place, why in found.items():
        print(f"{place:{width}}  {why or 'it has arrived'}")
    if any(found.values()):
        raise UsageError("not every receiver could be reached")


def _explain(options: argparse.Namespace) -> None:
    kind = CATALOGUE.get(options.explain)
    if kind is None:
        near = difflib.get_close_matches(options.explain, CATALOGUE, 1)
        more = f"did you mean {near[0]}?" if near else "docs/events.md has them all"
        raise UsageError(f"there is no kind of event {options.explain!r}: {more}")
    if options.json:
        print(json.dumps(kind.as_dict(), ensure_ascii=False))
    else:
        print(f"{kind.what} ({kind.severity})\n\n{kind.meaning}\n\nWhat to do: {kind.action}")


def _print(state: State, options: argparse.Namespace) -> None:
    seen = 0
    count: int | None = max(0, options.count)
    while True:
        changes = state.changes()
        for event in read_events(state, after=seen, last=count):
            print(json.dumps(event.as_dict(), ensure_ascii=False) if options.json else _line(event), flush=True)
            seen = event.id
        count = None
        if not options.follow:
            return
        while state.changes() == changes:
            time.sleep(_INTERVAL)


def _print_elsewhere(directory: Path, options: argparse.Namespace) -> None:
    """The same, of a server elsewhere."""
    seen, count = 0, min(max(0, options.count), _MOST)
    while True:
        for event in ask(directory, "events", after=seen, last=count):
            print(json.dumps(event, ensure_ascii=False) if options.json else _line(_read(event)), flush=True)
            seen = event["id"]
        if not options.follow:
            return
        count = _MOST
        time.sleep(_INTERVAL)


def _read(told: dict[str, Any]) -> Event:
    return Event(**{**told, "time": datetime.fromisoformat(told["time"]).timestamp()})


def _line(event: Event) -> str:
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.time))
    return f"{stamp}  {event.severity:7}  {event.what:14}  {event.text}"
