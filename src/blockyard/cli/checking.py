"""`blockyard pool check` and `blockyard pool scrub` (docs/pools.md)."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from blockyard.cli import pools
from blockyard.cli.output import Bar, show
from blockyard.cli.parsers import Subparsers
from blockyard.cli.pools import ask_pool, command, size_of, watch_job
from blockyard.control.errors import ControlError, UsageError
from blockyard.pool.repair import check_offline

_BLOCK = 512  # bytes of a logical block, as most initiators count them


def add_commands(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `pool` to the commands, with all that is below it."""
    pool = pools.add_commands(commands)
    check = command(pool, "check", _check, "check the metadata of a pool, while it is used or when nobody has it open")
    check.add_argument("pool", metavar="POOL|DIR", help="its name where it is served, or the directory where it is not")
    check.add_argument("--repair", action="store_true", help="mend what can be mended without losing anything")
    check.add_argument("--json", action="store_true", help="as JSON")
    scrub = command(pool, "scrub", _scrub, "read all data of a pool, and tell what is not as it was written")
    scrub.add_argument("pool", metavar="POOL", help="its name")
    scrub.add_argument("--rate", metavar="SIZE", help="so much a second at most: 100M (default: as fast as it goes)")
    scrub.add_argument("--json", action="store_true", help="as JSON")


def _check(directory: Path, options: argparse.Namespace) -> None:
    if Path(options.pool).is_dir():
        found, summary = _check_offline(Path(options.pool), repair=options.repair)
    else:
        job = ask_pool(directory, options.pool, "check", repair=options.repair)["job"]
        summary = watch_job(directory, options.pool, job)
        found = _found(directory, options.pool, job)
    rows = [(each["severity"].upper(), each["what"], each["repair"]) for each in found]
    show(options, found, ("SEVERITY", "WHAT", "REPAIR"), rows, none=summary)
    if any(not (options.repair and each["repair"]) for each in found):
        raise ControlError(summary)


def _check_offline(directory: Path, *, repair: bool) -> tuple[list[dict[str, str]], str]:
    bar = Bar(f"check of {directory}")
    try:
        report = check_offline(directory, lambda done, total: bar.show(done, total, "entries"), repair=repair)
    except OSError as error:
        raise UsageError(f"{error.filename or directory}: {error.strerror}") from error
    except ValueError as error:
        raise ControlError(f"{directory}: {error}") from error
    finally:
        bar.end()
    return [each.describe() for each in report.findings], report.summary(repair)


def _scrub(directory: Path, options: argparse.Namespace) -> None:
    rate = 0 if options.rate is None else size_of(options.rate)
    job = ask_pool(directory, options.pool, "scrub", rate=rate)["job"]
    summary = watch_job(directory, options.pool, job)
    found = _found(directory, options.pool, job)
    rows = [
        (", ".join(each["where"]), str(each["offset"] // _BLOCK), str(each["length"] // _BLOCK), each["what"])
        for each in found
    ]
    show(options, found, ("WHERE", "LBA (512 BYTES)", "BLOCKS", "WHAT"), rows, none=summary)
    if found:
        raise ControlError(summary)


def _found(directory: Path, pool: str, number: int) -> list[Any]:
    """What a job that is over has found."""
    jobs: list[dict[str, Any]] = ask_pool(directory, pool, "jobs")["jobs"]
    return next((list(job["details"]) for job in jobs if job["number"] == number), [])
