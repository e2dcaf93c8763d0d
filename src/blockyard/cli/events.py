"""`blockyard events`: what `serve` has recorded."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from pathlib import Path

from blockyard.control.errors import ControlError
from blockyard.control.events import Event, read_events
from blockyard.control.state import State, default_directory

_EPILOG = """\
exit status:
  0  done
  2  the command line does not make sense
  5  the state directory cannot be used
"""
_INTERVAL = 0.5  # seconds between two looks at the database


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `events` to the commands."""
    parser = commands.add_parser(
        "events",
        help="show what has been recorded: failed logins and the like",
        description="Show what `serve` has recorded: failed logins, blocked addresses and the like, the latest last.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument("--count", metavar="N", type=int, default=100, help="of the last N events (default: 100)")
    parser.add_argument("--follow", action="store_true", help="go on with new ones as they come")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument(
        "--state",
        metavar="DIR",
        type=Path,
        help="the state directory of `serve` (default: $XDG_STATE_HOME/blockyard or ~/.local/state/blockyard)",
    )


def run(options: argparse.Namespace) -> int:
    """Print events. Returns the exit status."""
    try:
        with contextlib.closing(State(options.state or default_directory())) as state:
            _print(state, options)
    except ControlError as error:
        print(f"blockyard: {error}", file=sys.stderr)
        return error.exit_status
    return 0


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


def _line(event: Event) -> str:
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.time))
    return f"{stamp}  {event.severity:7}  {event.what:14}  {event.text}"
