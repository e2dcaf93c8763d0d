"""Copies of discs and cartridges: jobs of the server, which whoever has begun one watches."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from blockyard.cli.output import watch_job
from blockyard.control.administration import ask


def add_no_wait(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-wait", action="store_true", help="do not wait: `blockyard optical jobs` shows how far it is"
    )


def all_jobs(directory: Path) -> list[dict[str, Any]]:
    """Those of all drives and tape libraries."""
    found: list[dict[str, Any]] = ask(directory, "media jobs")["jobs"]
    return found


def follow(directory: Path, options: argparse.Namespace, owner: str, number: int) -> None:
    """Show how far a job is of "drive:NAME" or "library:NAME", and what it says in the end. Raises ControlError."""
    if options.no_wait:
        print(f"job {owner}.{number} has begun: `blockyard optical jobs` shows it")
        return
    stop = f"`blockyard optical jobs` shows it, `blockyard optical cancel {owner}.{number}` stops it"
    print(watch_job(lambda: [job for job in all_jobs(directory) if job["owner"] == owner], number, stop))
