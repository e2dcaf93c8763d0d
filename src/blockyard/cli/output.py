"""How commands show what they have found, how far something is, and how they make sure that it is meant."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from blockyard.block.size import format_size
from blockyard.control.errors import ControlError, UsageError

Row = tuple[str, ...]

_WIDTH = 30  # characters of a progress bar
_LOOK = 0.2  # seconds between two looks at something that goes on


def table(rows: Sequence[Row], *, indent: str = "  ") -> Iterator[str]:
    """The lines of a table; the first row is its head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield f"{indent}{'  '.join(cells)}".rstrip()


def show(options: argparse.Namespace, found: Any, head: Row, rows: Sequence[Row], *, none: str) -> None:
    """Print what was found: as JSON where that was asked for, else as a table, or `none` where it is empty."""
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        print("\n".join(table([head, *rows], indent="")) if rows else none)


def moment(seconds: float) -> str:
    """A time in seconds since 1970, as the clock here shows it."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def duration(seconds: float) -> str:
    """How long commands take, in three digits."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def confirm(options: argparse.Namespace, name: str, what: str) -> None:
    """Have whoever is at the terminal type a name before something is destroyed. Raises UsageError when it is not meant."""
    if options.yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"{what}: say --yes, as nobody is there who could be asked")
    print(f"{what}. Type {name} to go on: ", end="", flush=True, file=sys.stderr)
    if sys.stdin.readline().strip() != name:
        raise UsageError("nothing was changed")


class Bar:
    """A progress bar on a terminal; nothing elsewhere."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._shown = sys.stderr.isatty()
        self._began = time.monotonic()

    def show(self, done: int, total: int, unit: str) -> None:
        if self._shown:
            print(
                f"\r{self._what}: {_progress(done, total, unit, self._began)}\x1b[K",
                end="",
                file=sys.stderr,
                flush=True,
            )

    def end(self) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def amount(number: int, unit: str) -> str:
    """So many of a unit: bytes as people read them."""
    return format_size(number) if unit == "bytes" else f"{number} {unit}".rstrip()


def progress(job: dict[str, Any]) -> str:
    """How far a job is, in a word."""
    done = amount(job["done"], job["unit"])
    return f"{done} of {amount(job['total'], job['unit'])}" if job["total"] else done


def job_name(job: dict[str, Any]) -> str:
    """What a job goes by: the name that it has where several processes number theirs, or its number."""
    return str(job.get("name", job["number"]))


def show_jobs(options: argparse.Namespace, jobs: list[dict[str, Any]]) -> None:
    """Print what goes on and what is over, as workers tell it (worker/jobs.py)."""
    head = ("JOB", "WHAT", "OF", "STATE", "PROGRESS", "BEGAN", "RESULT")
    rows = [
        (
            job_name(job),
            job["kind"],
            job["subject"],
            job["state"],
            progress(job),
            "-" if job["began"] is None else moment(job["began"]),
            job["result"],
        )
        for job in jobs
    ]
    show(options, jobs, head, rows, none="nothing goes on")


def _progress(done: int, total: int, unit: str, began: float) -> str:
    if not total:
        return amount(done, unit)
    share = min(done / total, 1.0)
    filled = int(share * _WIDTH)
    left = ""
    if done:
        seconds = (time.monotonic() - began) * (total - done) / done
        left = f", {seconds:.0f} s left"
    return (
        f"[{'#' * filled}{'.' * (_WIDTH - filled)}] {share:4.0%}, {amount(done, unit)} of {amount(total, unit)}{left}"
    )


def watch(what: str, look: Callable[[], tuple[int, int, str] | None]) -> None:
    """Show how far something is until `look`, which tells what is done, the total and the unit, returns None."""
    bar = Bar(what)
    try:
        while (found := look()) is not None:
            bar.show(*found)
            time.sleep(_LOOK)
    finally:
        bar.end()


def watch_job(jobs: Callable[[], list[dict[str, Any]]], name: str | int, stop: str) -> str:
    """Show how far a job is until it is over; what it has said then. Raises ControlError when it has failed.

    `jobs` tells of all of its kind; `stop` is what somebody is told who does not want to wait any more.
    """
    last: dict[str, Any] = {}

    def look() -> tuple[int, int, str] | None:
        found = next((job for job in jobs() if job_name(job) == str(name)), None)
        if found is None:
            raise ControlError(f"job {name} is not known any more: its worker was started anew meanwhile")
        last.update(found)
        return (last["done"], last["total"], last["unit"]) if last["state"] == "running" else None

    try:
        watch(f"job {name}", look)
    except KeyboardInterrupt:
        print(f"job {name} goes on: {stop}")
        raise
    if last["state"] != "done":
        raise ControlError(last["result"] or f"{last['kind']} of {last['subject']} was stopped")
    return str(last["result"])
