"""`blockyard config`: look at a configuration file before it is served, and at what is served."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from blockyard.cli.admin import command, config_show
from blockyard.cli.parsers import Subparsers, family
from blockyard.control.configuration_file import dump, load
from blockyard.control.errors import ControlError

_EXIT_STATUS = """\
exit status:
  0  the file makes sense
  6  it cannot be read, or does not make sense
"""


def add_commands(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `config` to the commands."""
    members = family(commands, "config", "configuration files")
    command(members, "show", config_show, "print the configuration that is served, as a file")
    check = members.add_parser(
        "check",
        help="say whether a configuration file makes sense",
        description="Say whether a configuration file makes sense. Volumes and portals are not touched.",
        epilog=_EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check.add_argument("file", metavar="FILE", type=Path, help="the file")
    check.add_argument("--print", action="store_true", help="print it as it is understood: names in their normal form")
    check.set_defaults(run=_check)


def _check(options: argparse.Namespace) -> int:
    try:
        configuration = load(options.file)
    except ControlError as error:
        print(f"blockyard: {error}", file=sys.stderr)
        return error.exit_status
    if options.print:
        sys.stdout.write(dump(configuration))
    else:
        counts = {
            "target": len(configuration.targets),
            "volume": len(configuration.volumes),
            **({"pool": len(configuration.pools)} if configuration.pools else {}),
            "portal": len(configuration.portals),
        }
        found = ", ".join(f"{number} {noun}{'' if number == 1 else 's'}" for noun, number in counts.items())
        print(f"{options.file}: {found}")
    return 0
