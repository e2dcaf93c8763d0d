"""`blockyard optical`: what is in the optical drives that are served (docs/optical.md)."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from blockyard.block.size import format_size
from blockyard.cli import parsers
from blockyard.cli.output import show
from blockyard.cli.parsers import Action, Subparsers, family
from blockyard.cli.pools import size_of
from blockyard.control.administration import ask
from blockyard.optical.kinds import AUTO, BD_RE, KINDS

_EXIT_STATUS = """\
exit status:
  0  done
  1  something failed
  2  it does not make sense: no such drive or image, or an initiator does not eject the disc
  7  nobody serves with this state directory, or its user is another one
"""


def add_commands(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `optical` to the commands."""
    optical = family(commands, "optical", "optical drives: put images in and take them out")
    insert = _command(optical, "insert", _insert, "put an image into a drive, in the place of what is there")
    insert.add_argument("drive", metavar="DRIVE", help="its name, as `blockyard optical status` shows it")
    insert.add_argument("image", metavar="IMAGE", help="the name of an image in its jukebox, or a path with a / in it")
    insert.add_argument(
        "--kind", choices=(*KINDS, AUTO), help="the disc that it is to be (default: what the drive says)"
    )
    insert.add_argument(
        "--blank",
        metavar="SIZE",
        help="make it: a blank disc of this size, which takes no space before it is written (25G)",
    )
    _add_force(insert)
    eject = _command(optical, "eject", _eject, "take out what is in a drive")
    eject.add_argument("drive", metavar="DRIVE", help="its name")
    _add_force(eject)
    status = _command(optical, "status", _status, "show the drives, what is in them and who uses them")
    status.add_argument("--json", action="store_true", help="as JSON")
    listing = _command(optical, "list", _list, "list the images in the jukebox of a drive")
    listing.add_argument("drive", metavar="DRIVE", help="its name")
    listing.add_argument("--json", action="store_true", help="as JSON")


def _command(
    commands: Subparsers[argparse.ArgumentParser], name: str, action: Action, what: str
) -> argparse.ArgumentParser:
    return parsers.command(commands, name, action, what, epilog=_EXIT_STATUS)


def _add_force(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--wait",
        metavar="SECONDS",
        type=int,
        default=10,
        help="where an initiator keeps the disc in, it is asked to eject it, and has this time for that (default: 10)",
    )
    parser.add_argument(
        "--force", action="store_true", help="even where an initiator keeps the disc in, which loses it while it reads"
    )


def _ask(directory: Path, options: argparse.Namespace, request: str, **arguments: object) -> Any:
    return ask(directory, "optical", drive=options.drive, request=request, **arguments)


def _insert(directory: Path, options: argparse.Namespace) -> None:
    image = os.path.abspath(options.image) if "/" in options.image else options.image
    blank = None if options.blank is None else size_of(options.blank)
    kind = options.kind or (None if blank is None else BD_RE.name)
    _ask(directory, options, "insert", image=image, kind=kind, blank=blank, force=options.force, wait=options.wait)
    print(f"{options.image} is in {options.drive}")


def _eject(directory: Path, options: argparse.Namespace) -> None:
    _ask(directory, options, "eject", force=options.force, wait=options.wait)
    print(f"{options.drive} is empty")


def _status(directory: Path, options: argparse.Namespace) -> None:
    found = ask(directory, "optical drives")
    head = ("DRIVE", "STATE", "DISC", "SIZE", "SESSIONS", "LOCKED BY", "IMAGE")
    rows = [(name, drive["state"], *_disc(drive), ", ".join(drive["locked_by"]) or "-", drive["image"] or "-")
            for name, drive in found.items()]  # fmt: skip
    show(options, found, head, rows, none="no drive is served")


def _disc(drive: dict[str, Any]) -> tuple[str, str, str]:
    disc = drive["disc"]
    return (disc["kind"].upper(), format_size(disc["size"]), str(len(disc["sessions"]))) if disc else ("-", "-", "-")


def _list(directory: Path, options: argparse.Namespace) -> None:
    found = _ask(directory, options, "list")["images"]
    rows = [(name, format_size(size)) for name, size in found.items()]
    show(options, found, ("IMAGE", "SIZE"), rows, none="there is no image in it")
