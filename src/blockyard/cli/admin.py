"""What a running server is asked by its control socket: `status`, `reload` and `session`."""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from blockyard.block.size import format_size
from blockyard.cli import parsers
from blockyard.cli.output import table
from blockyard.cli.parsers import Action, Subparsers, family
from blockyard.control.administration import NotServing, ask
from blockyard.control.errors import ControlError

_PATIENCE = 60.0  # seconds that a server has to be there again
_LOOK = 0.05  # seconds between two looks whether it is
_EXIT_STATUS = """\
exit status:
  0  done
  2  the server does not take that: no such session
  4  a volume cannot be served as it shall be
  6  the configuration file cannot be read or does not make sense
  7  nobody serves with this state directory, or its user is another one
"""


def add_commands(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `status`, `reload` and `session` to the commands."""
    status = command(commands, "status", _status, "show what is served, and who uses it")
    status.add_argument("--json", action="store_true", help="as JSON")
    parsers.watchable(status)
    command(
        commands, "reload", _reload, "have the server read its configuration file again, and print what has changed"
    )
    command(
        commands,
        "restart",
        _restart,
        "start the control process again, with the program as it is installed now; sessions go on, unless the version is another",
    )
    session = family(commands, "session", "sessions of initiators")
    drop = command(session, "drop", _drop, "end sessions of an initiator; it may log in again")
    drop.add_argument("initiator", metavar="INITIATOR", help="its iSCSI name")
    drop.add_argument("--target", metavar="IQN", help="only with this target")
    drop.add_argument("--tsih", metavar="N", type=int, help="only the session with this identifying handle")


def command(
    commands: Subparsers[argparse.ArgumentParser], name: str, action: Action, what: str
) -> argparse.ArgumentParser:
    """A command that asks the server."""
    return parsers.command(commands, name, action, what, epilog=_EXIT_STATUS)


def _reload(directory: Path, options: argparse.Namespace) -> None:
    changes = ask(directory, "reload")
    print("\n".join(changes) if changes else "nothing has changed")


def _restart(directory: Path, options: argparse.Namespace) -> None:
    before = ask(directory, "status")
    ask(directory, "restart")
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        with contextlib.suppress(NotServing):
            now = ask(directory, "status")
            if now["began"] != before["began"]:
                kept = len(_sessions(before) & _sessions(now))
                print(f"started again; {kept} of {len(before['sessions'])} sessions went on")
                return
        time.sleep(_LOOK)
    raise ControlError("it was not there again in time: look at its log")


def _sessions(found: dict[str, Any]) -> set[tuple[str, int, str]]:
    return {(session["target"], session["tsih"], session["initiator"]) for session in found["sessions"]}


def _drop(directory: Path, options: argparse.Namespace) -> None:
    count = ask(directory, "session drop", initiator=options.initiator, target=options.target, tsih=options.tsih)
    print(f"{count} session{'' if count == 1 else 's'} ended")


def _status(directory: Path, options: argparse.Namespace) -> None:
    found = ask(directory, "status")
    print(json.dumps(found, indent=2) if options.json else "\n".join(_overview(found)))


def _overview(found: dict[str, Any]) -> Iterator[str]:
    yield f"Blockyard {found['version']}, process {found['pid']}"
    if found["config"]:
        yield f"configuration {found['config']}"
    for tag, portals in found["portal_groups"].items():
        yield f"portal group {tag}: {', '.join(portals)}"
    for name, pool in found["pools"].items():
        yield f"pool {name} in {pool['directory']}"
    for name, target in found["targets"].items():
        alias = f" ({target['alias']})" if target["alias"] else ""
        groups = ", ".join(map(str, target["portal_groups"]))
        yield from ("", f"target {name}{alias}, portal groups {groups}")
        if target["library"]:
            yield f"  tape library {target['library']} (blockyard tape library status)"
        luns = [
            _lun(lun, name, found["volumes"][name])
            if name in found["volumes"]
            else _drive(lun, name, found["drives"][name])
            for lun, name in target["luns"].items()
        ]
        if luns or not target["library"]:
            yield from table([("LUN", "VOLUME", "SIZE", "ACCESS", "READ", "WRITTEN", "ERRORS"), *luns])
        sessions = [_session(session) for session in found["sessions"] if session["target"] == name]
        if sessions:
            yield from table([("SESSION", "INITIATOR", "GROUP", "RIGHT", "CONNECTIONS"), *sessions])


def _drive(lun: str, name: str, drive: dict[str, Any]) -> tuple[str, ...]:
    """What is in it, `blockyard optical status` tells."""
    counters = drive["counters"]
    read, errors = ("-", "-") if counters is None else (format_size(counters["read_bytes"]), str(counters["errors"]))
    return lun, name, "-", "optical", read, "-", errors


def _lun(lun: str, name: str, volume: dict[str, Any]) -> tuple[str, ...]:
    counters = volume["counters"]
    access = "read-only" if volume["read_only"] else "read-write"
    if counters is None:  # its worker is just being started
        return lun, name, format_size(volume["size"]), access, "-", "-", "-"
    moved = (format_size(counters[key]) for key in ("read_bytes", "write_bytes"))
    return lun, name, format_size(volume["size"]), access, *moved, str(counters["errors"])


def _session(session: dict[str, Any]) -> tuple[str, ...]:
    who = f"{session['initiator']} as {session['user']}" if session["user"] else session["initiator"]
    connections = ", ".join(f"{one['peer']} to {one['portal']}" for one in session["connections"])
    return str(session["tsih"]), who, str(session["portal_group"]), session["right"], connections or "none"
