"""`blockyard schedule`: snapshots that are taken by themselves (docs/pools.md)."""

from __future__ import annotations

import argparse
from pathlib import Path

from blockyard.cli.nouns import SCHEDULE, add_noun
from blockyard.cli.output import moment, show
from blockyard.cli.parsers import Subparsers, family
from blockyard.cli.pools import command
from blockyard.control.administration import ask


def add_commands(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `schedule` to the commands."""
    schedule = family(commands, "schedule", "snapshots that are taken and deleted by themselves")
    add_noun(schedule, SCHEDULE, listing=False)
    listing = command(schedule, "list", _list, "list schedules: when they ran last, and run next")
    listing.add_argument("--json", action="store_true", help="as JSON")
    run = command(schedule, "run", _run, "run a schedule now, and delete what it does not keep")
    run.add_argument("name", metavar="NAME", help="the schedule")


def _list(directory: Path, options: argparse.Namespace) -> None:
    found = ask(directory, "schedules")
    head = ("SCHEDULE", "WHEN", "VOLUMES", "KEEPS", "LAST", "NEXT")
    rows = [
        (name, f"{each['at']}{' ' + each['zone'] if 'zone' in each else ''}", ", ".join(each["matching"]) or "none",
         ", ".join(f"{count} {unit}" for unit, count in each.get("keep", {}).items()) or "all",
         moment(each["last"]) if each["last"] else "-", moment(each["next"]))
        for name, each in found.items()
    ]  # fmt: skip
    show(options, found, head, rows, none="there is no schedule")


def _run(directory: Path, options: argparse.Namespace) -> None:
    done = ask(directory, "schedule run", schedule=options.name)
    print("\n".join(done["taken"]))
    if done["deleted"]:
        print(f"{done['deleted']} older snapshots deleted")
