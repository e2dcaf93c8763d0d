"""What the commands of `blockyard` have in common: families, the option --state, errors as one line and an exit status."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from blockyard.control.errors import ControlError
from blockyard.control.state import default_directory

Subparsers = argparse._SubParsersAction  # it has no public name
Action = Callable[[Path, argparse.Namespace], None]  # gets the state directory; raises ControlError


def family(commands: Subparsers[argparse.ArgumentParser], name: str, what: str) -> Subparsers[argparse.ArgumentParser]:
    """A command that has others below it."""
    parser = commands.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
    return parser.add_subparsers(title="commands", metavar="COMMAND", required=True)


def leaf(
    commands: Subparsers[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int],
    what: str,
    *,
    epilog: str,
) -> argparse.ArgumentParser:
    """A command with none below it. `run` returns its exit status, of which `epilog` speaks."""
    parser = commands.add_parser(
        name,
        help=what,
        description=f"{what[0].upper()}{what[1:]}.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def command(
    commands: Subparsers[argparse.ArgumentParser],
    name: str,
    action: Action,
    what: str,
    *,
    epilog: str,
    local: bool = False,
) -> argparse.ArgumentParser:
    """A command that works with the state directory of `serve`, or unless it is `local` with a server elsewhere (--url).

    `epilog` says its exit statuses.
    """
    parser = leaf(commands, name, lambda options: _run(action, options), what, epilog=epilog)
    parser.set_defaults(asks=not local)
    parser.add_argument(
        "--state",
        metavar="DIR",
        type=Path,
        help="the state directory of `serve` (default: $XDG_STATE_HOME/blockyard or ~/.local/state/blockyard)",
    )
    return parser


def watchable(parser: argparse.ArgumentParser) -> None:
    """Give a command that shows something the option --watch."""
    parser.add_argument(
        "--watch",
        metavar="SECONDS",
        type=float,
        nargs="?",
        const=2.0,
        help="show it again and again, until Ctrl-C (default: every 2 seconds)",
    )


def _run(action: Action, options: argparse.Namespace) -> int:
    try:
        interval = getattr(options, "watch", None)
        while interval is not None:
            if sys.stdout.isatty():
                print("\x1b[H\x1b[J", end="")
            action(options.state or default_directory(), options)
            sys.stdout.flush()
            time.sleep(max(interval, 0.1))
        action(options.state or default_directory(), options)
    except ControlError as error:
        print(f"blockyard: {error}", file=sys.stderr)
        return error.exit_status
    return 0
