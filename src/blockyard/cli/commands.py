"""All commands of `blockyard`: which module of this package has which, and the parser of them.

A module is imported when one of its commands is asked for: importing all of them takes longer than what most commands do.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from blockyard import __version__

# In the order in which they are listed.
_MODULES = {
    "serve": ("serve",),
    "config": ("apply", "config", "audit"),
    "admin": ("status", "reload", "restart", "session"),
    "checking": ("pool",),  # with those of pools.py
    "volumes": ("volume", "snapshot", "clone"),
    "nouns": ("target", "drive", "isns", "metrics", "telemetry", "api"),
    "mapping": ("lun", "portal", "access"),
    "schedules": ("schedule",),
    "cdp": ("cdp",),
    "image": ("image",),
    "layers": ("layer",),
    "rbd": ("rbd",),
    "raid": ("raid",),
    "optical": ("optical",),
    "alua": ("alua",),
    "users": ("user", "group"),
    "backup": ("state",),
    "accounts": ("account", "token"),
    "tape": ("tape",),
    "events": ("events",),
    "client": ("discover", "inquiry", "read", "write", "raw"),
    "doctor": ("doctor",),
    "top": ("top",),
    "history": ("history",),
    "bundle": ("support-bundle",),
    "completion": ("completion",),
    "manual": ("manual",),
}


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the whole usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (`{self.prog} --help` tells more)\n")


def build_parser(words: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The parser of what `words` ask for; of all commands, if they name none.

    Each command sets `run`: a function of the parsed options that returns the exit status.
    """
    parser: argparse.ArgumentParser = _Parser(
        prog="blockyard",
        description="An iSCSI target: turns files and block devices into SCSI disks on the network.",
        epilog="To begin: `blockyard serve` serves a 1 GiB disk. `blockyard COMMAND --help` tells all about a command.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    _add_road(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in _modules(words):
        import_module(f"blockyard.cli.{module}").add_commands(commands)
    return parser


def _modules(words: Sequence[str]) -> list[str]:
    """Those that have the command: the first word that is neither an option of the road nor its value."""
    road = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    _add_road(road)
    try:
        rest = road.parse_known_args(words)[1]
    except argparse.ArgumentError:
        rest = []
    return [module for module, names in _MODULES.items() if rest and rest[0] in names] or list(_MODULES)


def _add_road(parser: argparse.ArgumentParser) -> None:
    road = parser.add_argument_group("a server elsewhere, for commands that ask one (docs/api.md)")
    road.add_argument(
        "--url", metavar="URL", dest="elsewhere", help="its API: https://HOST[:PORT] (default: $BLOCKYARD_URL)"
    )
    road.add_argument(
        "--token-file",
        metavar="FILE",
        type=Path,
        help="where the token stands, for nobody else to read (default: $BLOCKYARD_TOKEN_FILE)",
    )
    road.add_argument("--cacert", metavar="FILE", type=Path, help="trust this certificate, or what it has signed (PEM)")
    road.add_argument(
        "--pin", metavar="PIN", help="trust the key that this is of: sha256//…, as `blockyard serve` prints it"
    )
