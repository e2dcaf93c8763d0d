"""`blockyard support-bundle`: all that helps to find out what is wrong, in one file, and no secret in it."""

from __future__ import annotations

import argparse
import base64
import contextlib
import io
import json
import os
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from blockyard import __version__
from blockyard.cli.changing import look
from blockyard.cli.doctor import examine
from blockyard.cli.parsers import Subparsers, command
from blockyard.control import audit
from blockyard.control.administration import ask
from blockyard.control.errors import ControlError, UsageError
from blockyard.control.events import read_events
from blockyard.control.redaction import REMOVED, redacted
from blockyard.control.revisions import Revisions
from blockyard.control.state import State
from blockyard.control.users import Users

_EVENTS, _LINES = 5000, 5000  # the last ones
_PROC = ("/proc/cpuinfo", "/proc/meminfo", "/proc/loadavg", "/proc/mounts", "/proc/net/snmp", "/proc/pressure/io")
_SHORTEST = 4  # characters of a secret that is looked for in texts
_EPILOG = """\
What is in it: the configuration and its history, status, events, the audit log, what `blockyard doctor` says, versions,
memory and mounts of the machine, and the log of the systemd unit where there is one. Secrets are taken out: whatever is
called password, secret, token or key, what stands in URLs, and the secrets of users wherever they turn up. Names,
addresses and paths stay: look at it before you send it.

exit status:
  0  done
  1  the file cannot be written
  2  there is such a file already

example:
  blockyard support-bundle
  blockyard support-bundle --log /var/log/blockyard.log blockyard-support.tar.gz
"""


def add_commands(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `support-bundle` to the commands."""
    what = "put all that helps to find out what is wrong into one file, without secrets"
    parser = command(commands, "support-bundle", _bundle, what, epilog=_EPILOG, local=True)
    parser.add_argument(
        "file", metavar="FILE", type=Path, nargs="?", help="the file (default: blockyard-support-TIME.tar.gz)"
    )
    parser.add_argument(
        "--log", metavar="FILE", type=Path, action="append", default=[], help="a log to put in; may be repeated"
    )
    parser.add_argument("--unit", metavar="NAME", default="blockyard", help="the systemd unit (default: blockyard)")


def _bundle(directory: Path, options: argparse.Namespace) -> None:
    file = options.file or Path(time.strftime("blockyard-support-%Y%m%d-%H%M%S.tar.gz"))
    secrets = _secrets(directory)
    try:
        with (
            os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as out,
            tarfile.open(fileobj=out, mode="w:gz") as archive,
        ):
            for name, text in _contents(directory, options):
                _add(archive, name, _without(text, secrets))
    except FileExistsError:
        raise UsageError(f"{file} exists already") from None
    except OSError as error:
        raise ControlError(f"{file}: {error.strerror or error}") from error
    print(f"{file}: without secrets, but with names, addresses and paths: look at it before you send it")


def _contents(directory: Path, options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """The files by their names; what cannot be had says why."""
    parts: dict[str, Callable[[], Any]] = {
        "versions.json": lambda: {"blockyard": __version__, "system": list(os.uname()), "time": time.time()},
        "configuration.json": lambda: look(directory),
        "status.json": lambda: ask(directory, "status"),
        "pools.json": lambda: ask(directory, "pools"),
        "doctor.json": lambda: [finding._asdict() for finding in examine(directory)],
        "events.json": lambda: _of_state(directory, lambda state: [e.as_dict() for e in read_events(state, last=_EVENTS)]),
        "audit.json": lambda: _of_state(directory, lambda state: [e.as_dict() for e in audit.read(state, last=_EVENTS)]),
        "history.json": lambda: _of_state(
            directory, lambda state: [(each.number, each.time, each.who, each.what) for each in Revisions(state).history(200)]
        ),
        "files.json": lambda: {
            str(path.relative_to(directory)): path.lstat().st_size for path in sorted(directory.rglob("*"))
        },
    }  # fmt: skip
    for name, part in parts.items():
        try:
            found = redacted(json.loads(json.dumps(part(), default=str)))
        except (ControlError, OSError) as error:
            found = {"error": str(error)}
        yield name, json.dumps(found, indent=2, ensure_ascii=False)
    for path in _PROC:
        with contextlib.suppress(OSError):
            yield f"machine{path}", Path(path).read_text(errors="replace")
    for log in options.log:
        yield f"logs/{log.name}", "\n".join(log.read_text(errors="replace").splitlines()[-_LINES:])
    yield "logs/journal.txt", _journal(options.unit)


def _journal(unit: str) -> str:
    command = ["journalctl", "--no-pager", "-u", unit, "-n", str(_LINES)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{error}\n"
    return done.stdout + done.stderr


def _of_state(directory: Path, read: Callable[[State], Any]) -> Any:
    if not directory.is_dir():
        raise UsageError(f"{directory} is not there")
    with contextlib.closing(State(directory)) as state:
        return read(state)


def _secrets(directory: Path) -> list[str]:
    """The secrets of users, in the forms in which they might stand somewhere; the longest first."""
    if not (directory / "state.db").exists():
        return []
    try:
        accounts = _of_state(directory, lambda state: Users(state).load())
    except ControlError:  # what cannot be opened here cannot be told either
        return []
    found: set[str] = set()
    for user in accounts.users.values():
        for secret in filter(None, (user.secret, user.target_secret)):
            found |= {secret.decode(errors="replace"), secret.hex(), base64.b64encode(secret).decode()}
            found.add(json.dumps(secret.decode(errors="replace"))[1:-1])
    return sorted((text for text in found if len(text) >= _SHORTEST), key=len, reverse=True)


def _without(text: str, secrets: list[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, REMOVED)
    return str(redacted(text))


def _add(archive: tarfile.TarFile, name: str, text: str) -> None:
    data = text.encode(errors="replace")
    info = tarfile.TarInfo(f"blockyard-support/{name}")
    info.size, info.mtime, info.mode = len(data), int(time.time()), 0o600
    archive.addfile(info, io.BytesIO(data))
