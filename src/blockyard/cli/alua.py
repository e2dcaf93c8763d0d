"""`blockyard alua`: the states of target port groups, while initiators are logged in (docs/clusters.md)."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from blockyard.cli.admin import command
from blockyard.cli.parsers import Subparsers, family
from blockyard.control.administration import ask
from blockyard.scsi.alua import STATES


def add_commands(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `alua` to the commands."""
    alua = family(commands, "alua", "target port groups: which paths initiators are to take")
    show = command(alua, "show", _show, "show the state of each portal group of each target")
    show.add_argument("--json", action="store_true", help="as JSON")
    change = command(
        alua, "set", _set, "change a portal group of a target; initiators are told, and it outlives a restart"
    )
    change.add_argument("target", metavar="TARGET", help="the target's name")
    change.add_argument("group", metavar="GROUP", type=int, help="the tag of its portal group")
    change.add_argument("access_state", metavar="STATE", nargs="?", help=f"its new state: {', '.join(STATES)}")
    preferred = change.add_mutually_exclusive_group()
    preferred.add_argument(
        "--preferred", action="store_true", default=None, help="hosts return to this group when they can"
    )
    preferred.add_argument("--not-preferred", dest="preferred", action="store_false", help="it is as good as others")


def _show(directory: Path, options: argparse.Namespace) -> None:
    found = ask(directory, "alua show")
    if options.json:
        print(json.dumps(found, indent=2))
        return
    for target, groups in found.items():
        print(target)
        for tag, group in groups.items():
            preferred = ", preferred" if group["preferred"] else ""
            print(f"  portal group {tag}: {group['state']}{preferred}; sessions: {group['sessions']}")


def _set(directory: Path, options: argparse.Namespace) -> None:
    ask(
        directory,
        "alua set",
        target=options.target,
        group=options.group,
        state=options.access_state,
        preferred=options.preferred,
    )
