"""`blockyard pool`: pools, made here and administered where they are served (docs/pools.md)."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from blockyard.block.size import MAX_VOLUME, format_size, parse_size
from blockyard.cli import parsers
from blockyard.cli.nouns import POOL
from blockyard.cli.nouns import create as add
from blockyard.cli.nouns import remove as take_out
from blockyard.cli.output import confirm, show, show_jobs, table, watch
from blockyard.cli.parsers import Action, Subparsers, family
from blockyard.control.administration import REMOTE, ask
from blockyard.control.errors import ControlError, UsageError
from blockyard.control.pools import create, destroy
from blockyard.pool.names import Name, parse

EXIT_STATUS = """\
exit status:
  0  done
  1  something failed
  2  it does not make sense: no such pool, volume or snapshot, in use, a size that cannot be
  4  what is served could not be changed after it
  7  nobody serves with this state directory, or its user is another one
"""


def add_commands(commands: Subparsers[argparse.ArgumentParser]) -> Subparsers[argparse.ArgumentParser]:
    """Add `pool` to the commands; returns what further ones are added to (cli/checking.py)."""
    pool = family(commands, "pool", "pools: thin volumes, snapshots and clones")
    make = command(
        pool, "create", _create, "make a pool; no server is needed for that, and with --url that one makes it"
    )
    make.add_argument(
        "directory", metavar="DIR", type=Path, help="where its metadata shall be; it is made, or is empty"
    )
    make.add_argument(
        "members",
        metavar="MEMBER",
        nargs="*",
        help="where its data shall be: block devices, files, or directories that a file is made in (default: a file in DIR)",
    )
    make.add_argument(
        "--size", metavar="SIZE", help="of each file that is to be made, which is sparse: 10G (needed for these)"
    )
    make.add_argument("--force", action="store_true", help="take devices and files even if there is something on them")
    make.add_argument(
        "--name", metavar="NAME", help="serve it from now on, under this name, where a managed server runs"
    )
    make.add_argument("--export", action="store_true", help="then show each of its volumes as a target of its own")
    attach = command(pool, "attach", _attach, "serve a pool that there is already, where a managed server runs")
    attach.add_argument("name", metavar="POOL", help="what to call it")
    attach.add_argument("directory", metavar="DIR", type=Path, help="where it is")
    attach.add_argument("--export", action="store_true", help="show each of its volumes as a target of its own")
    detach = command(pool, "detach", _detach, "serve a pool no more; nothing in it changes")
    detach.add_argument("name", metavar="POOL", help="its name")
    destroy = command(pool, "destroy", _destroy, "do away with a pool that is not served, and with all that is in it")
    destroy.add_argument("directory", metavar="DIR", type=Path, help="where it is")
    destroy.add_argument("--yes", action="store_true", help="without being asked")
    add = command(pool, "add", _add, "add a member to a pool while it is used: another file or block device")
    add.add_argument("pool", metavar="POOL", help="its name")
    add.add_argument("member", metavar="MEMBER", help="a block device, a file, or a directory that a file is made in")
    add.add_argument("--size", metavar="SIZE", help="of a file that is to be made")
    add.add_argument("--force", action="store_true", help="take it even if there is something on it")
    grow = command(pool, "grow", _grow, "let a pool use what one of its members has become larger by")
    grow.add_argument("pool", metavar="POOL", help="its name")
    grow.add_argument("member", metavar="N", type=int, help="the member, as `blockyard pool show` numbers it")
    grow.add_argument("size", metavar="SIZE", nargs="?", help="of a file: make it so large first")
    remove = command(pool, "remove", _remove, "take a member that holds nothing out of a pool")
    remove.add_argument("pool", metavar="POOL", help="its name")
    remove.add_argument("member", metavar="N", type=int, help="the member, as `blockyard pool show` numbers it")
    listing = command(pool, "list", _list, "list the pools that are served")
    listing.add_argument("--json", action="store_true", help="as JSON")
    parsers.watchable(listing)
    showing = command(pool, "show", _show, "show a pool: what it has and how full it is")
    showing.add_argument("pool", metavar="POOL", help="its name, as `blockyard pool list` shows it")
    showing.add_argument("--json", action="store_true", help="as JSON")
    change = command(
        pool, "set", _set, "set the thresholds of a pool, at which events are recorded and initiators told"
    )
    change.add_argument("pool", metavar="POOL", help="its name")
    change.add_argument("--soft", metavar="LIMIT", help="80%%: so much is used; 10G: so much is left; none")
    change.add_argument(
        "--hard", metavar="LIMIT", help="likewise: nothing new is stored any more, except in reserved space"
    )
    jobs = command(pool, "jobs", _jobs, "show what goes on in a pool, and what has been done of late")
    jobs.add_argument("pool", metavar="POOL", help="its name")
    jobs.add_argument("--json", action="store_true", help="as JSON")
    parsers.watchable(jobs)
    cancel = command(pool, "cancel", _cancel, "have a job of a pool stop")
    cancel.add_argument("pool", metavar="POOL", help="its name")
    cancel.add_argument("job", metavar="N", type=int, help="the job, as `blockyard pool jobs` numbers it")
    return pool


def command(
    commands: Subparsers[argparse.ArgumentParser], name: str, action: Action, what: str, *, local: bool = False
) -> argparse.ArgumentParser:
    """A command that has to do with pools."""
    return parsers.command(commands, name, action, what, epilog=EXIT_STATUS, local=local)


# ---- what all of them need


def ask_pool(directory: Path, pool: str, request: str, **arguments: object) -> Any:
    """Have the server do something with a pool. Raises ControlError."""
    return ask(directory, "pool", pool=pool, request=request, **arguments)


def named(text: str, form: str) -> Name:
    """What a name says, if it has the form of `form`: POOL/VOLUME or POOL/VOLUME@SNAPSHOT. Raises UsageError."""
    try:
        name = parse(text)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if bool(name.volume) != ("/" in form) or bool(name.snapshot) != ("@" in form):
        raise UsageError(f"{text!r} is not {form}")
    return name


def size_of(text: str) -> int:
    """Raises UsageError."""
    try:
        return parse_size(text, MAX_VOLUME)
    except ValueError as error:
        raise UsageError(str(error)) from None


def watch_job(directory: Path, pool: str, number: int) -> str:
    """Show how far a job is until it is over; what it has said then. Raises ControlError when it has failed."""
    last: dict[str, Any] = {}

    def look() -> tuple[int, int, str] | None:
        jobs = ask_pool(directory, pool, "jobs")["jobs"]
        found = next((job for job in jobs if job["number"] == number), None)
        if found is None:
            raise ControlError(f"job {number} of {pool} is not known any more: the pool was opened anew meanwhile")
        last.update(found)
        return (last["done"], last["total"], last["unit"]) if last["state"] == "running" else None

    try:
        watch(f"job {number} of {pool}", look)
    except KeyboardInterrupt:
        print(
            f"job {number} goes on: `blockyard pool jobs {pool}` shows it, `blockyard pool cancel {pool} {number}` stops it"
        )
        raise
    if last["state"] != "done":
        raise ControlError(last["result"] or f"{last['kind']} of {last['subject']} was stopped")
    return str(last["result"])


def wait_until_freed(directory: Path, pool: str) -> None:
    """Show how much comes back of what was deleted, until all of it has."""
    before = ask_pool(directory, pool, "show")["used"]

    def look() -> tuple[int, int, str] | None:
        found = ask_pool(directory, pool, "show")
        return (max(0, before - found["used"]), 0, "bytes") if found["freeing"] else None

    watch(f"freeing in {pool}", look)


# ---- the commands


def _create(directory: Path, options: argparse.Namespace) -> None:
    size = 0 if options.size is None else size_of(options.size)
    if REMOTE.get() is None:
        create(options.directory, options.members, size, force=options.force)
    else:
        made_of = {"members": options.members, "size": size, "force": options.force}
        ask(directory, "pool create", path=str(options.directory), **made_of)
    if options.name is not None:
        _attach(directory, options)
        return
    print(f"{options.directory} is a pool now: serve it with `blockyard serve --pool {options.directory}`")


def _attach(directory: Path, options: argparse.Namespace) -> None:
    export = {"export": True} if options.export else {}
    add(directory, POOL, options.name, {"directory": os.path.abspath(options.directory), **export})


def _detach(directory: Path, options: argparse.Namespace) -> None:
    take_out(directory, POOL, options.name)


def _destroy(directory: Path, options: argparse.Namespace) -> None:
    confirm(options, str(options.directory), f"the pool in {options.directory} and all its volumes will be lost")
    elsewhere = REMOTE.get() is not None
    left = ask(directory, "pool destroy", path=str(options.directory)) if elsewhere else destroy(options.directory)
    print(f"{options.directory} is gone")
    for path in left:
        print(f"{path} is free for other uses")


def _add(directory: Path, options: argparse.Namespace) -> None:
    size = 0 if options.size is None else size_of(options.size)
    path = os.path.abspath(options.member)
    made = ask_pool(directory, options.pool, "add member", path=path, size=size, force=options.force)["path"]
    print(f"{made} belongs to {options.pool} now")


def _grow(directory: Path, options: argparse.Namespace) -> None:
    size = 0 if options.size is None else size_of(options.size)
    now = ask_pool(directory, options.pool, "grow member", member=options.member, size=size)["size"]
    print(f"member {options.member} of {options.pool} has {format_size(now)} now")


def _remove(directory: Path, options: argparse.Namespace) -> None:
    ask_pool(directory, options.pool, "remove member", member=options.member)
    print(f"member {options.member} does not belong to {options.pool} any more")


def _list(directory: Path, options: argparse.Namespace) -> None:
    found = ask(directory, "pools")
    head = ("POOL", "SIZE", "USED", "PROVISIONED", "VOLUMES", "SNAPSHOTS", "DIRECTORY")
    rows = [
        (name, *("-" if "error" in pool else format_size(pool[key]) for key in ("size", "used", "provisioned")),
         *("-" if "error" in pool else str(pool[key]) for key in ("volumes", "snapshots")), pool["directory"])
        for name, pool in found.items()
    ]  # fmt: skip
    show(options, found, head, rows, none="no pool is served")
    for name, pool in found.items():
        if "error" in pool:
            print(f"blockyard: {name}: {pool['error']}", file=sys.stderr)


def _show(directory: Path, options: argparse.Namespace) -> None:
    found = ask_pool(directory, options.pool, "show")
    if options.json:
        print(json.dumps(found, indent=2))
        return
    size = max(1, found["size"])
    waiting = f", of this {format_size(found['waiting'])} to be freed" if found["waiting"] else ""
    if found["freeing"]:
        waiting += "; what was deleted is being freed"
    lacking = f"; {format_size(found['lacking'])} more have no room on the disk" if found["lacking"] else ""
    provisioned = f"{format_size(found['provisioned'])} ({found['provisioned'] / size:.3g} times the size)"
    lines = {
        "directory": found["directory"],
        "state": found["failed"] or found["level"],
        "size": format_size(found["size"]),
        "used": f"{format_size(found['used'])} ({found['used'] / size:.0%}){waiting}",
        "free": f"{format_size(found['free'])}, of this {format_size(found['reserved'])} reserved{lacking}",
        "metadata": format_size(found["metadata"]),
        "thresholds": f"soft {found['soft']}, hard {found['hard']}",
        "volumes": f"{found['volumes']}, together {provisioned}",
        "snapshots": str(found["snapshots"]),
    }
    print(f"pool {options.pool}")
    for key, value in lines.items():
        print(f"  {key:<10} {value}")
    members = [(number, format_size(member["size"]), member["path"]) for number, member in found["members"].items()]
    print("", *table([("MEMBER", "SIZE", "PATH"), *members]), sep="\n")


def _set(directory: Path, options: argparse.Namespace) -> None:
    if options.soft is None and options.hard is None:
        raise UsageError("there is nothing to change: give --soft or --hard")
    ask_pool(directory, options.pool, "set", soft=options.soft, hard=options.hard)
    print(f"{options.pool} is changed")


def _jobs(directory: Path, options: argparse.Namespace) -> None:
    show_jobs(options, ask_pool(directory, options.pool, "jobs")["jobs"])


def _cancel(directory: Path, options: argparse.Namespace) -> None:
    ask_pool(directory, options.pool, "cancel job", job=options.job)
    print(f"job {options.job} is told to stop")
