"""`blockyard doctor`: looks at what a server needs of its machine, and says what to do about what is not well."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import resource
import shutil
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from blockyard import __version__
from blockyard.block.size import format_size
from blockyard.cli.changing import look
from blockyard.cli.output import table
from blockyard.cli.parsers import Subparsers, command
from blockyard.control.administration import NotServing, ask
from blockyard.control.errors import ControlError
from blockyard.control.vault import KEY_FILE
from blockyard.iscsi.directory import portal_from

OK, WARNING, ERROR = "ok", "warning", "error"

_FILES = 4096  # open files that are enough for most
_BACKLOG = 1024  # connections that portals let wait
_BUFFER = 4 << 20  # bytes that a socket's buffers should be able to have
_SPACE = 0.05  # of a file system that should be free, and of the state directory's
_LITTLE = 256 << 20  # bytes
_JUMP = 0.5  # seconds that clocks may differ by in a moment
_OPTIONAL = (  # what is missing without it: modules and programs
    (
        "module",
        "zstandard or Python 3.14",
        ("backports.zstd", "compression.zstd"),
        "compressed cartridges of tape libraries",
    ),
    ("module", "rbd (Debian: python3-rbd)", ("rbd",), "images of Ceph"),
    ("program", "qemu-nbd (Debian: qemu-utils)", ("qemu-nbd",), "images in QEMU's formats"),
    ("program", "nbdkit", ("nbdkit",), "disks that nbdkit makes"),
)
_EPILOG = """\
exit status:
  0  all is well, or there are warnings only
  1  something is wrong; what to do is said with it

examples:
  blockyard doctor
  blockyard doctor --json | jq '.[] | select(.severity != "ok")'
"""


class Finding(NamedTuple):
    severity: str
    what: str
    found: str
    advice: str = ""


Check = Callable[[Path, dict[str, Any]], Iterator[Finding]]  # gets the state directory and the configuration


class NotWell(ControlError):
    """The doctor has found errors."""


def add_commands(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `doctor` to the commands."""
    what = "look whether the machine has what a server needs, and say what to do"
    parser = command(commands, "doctor", _doctor, what, epilog=_EPILOG, local=True)
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--all", action="store_true", help="what is well, too")


def examine(directory: Path) -> list[Finding]:
    """All that there is to say."""
    try:
        configuration = look(directory)
    except ControlError:
        configuration = {}
    findings: list[Finding] = []
    for check in CHECKS:
        try:
            findings += check(directory, configuration)
        except OSError as error:  # the check itself could not be done
            findings.append(Finding(WARNING, check.__name__.strip("_").replace("_", " "), f"cannot be told: {error}"))
    return findings


def _doctor(directory: Path, options: argparse.Namespace) -> None:
    findings = examine(directory)
    wrong = sum(finding.severity == ERROR for finding in findings)
    if options.json:
        print(json.dumps([finding._asdict() for finding in findings], indent=2))
    else:
        shown = [each for each in findings if options.all or each.severity != OK]
        if shown:
            print(
                "\n".join(
                    table(
                        [("", "WHAT", "FOUND"), *((each.severity, each.what, each.found) for each in shown)], indent=""
                    )
                )
            )
        for each in shown:
            if each.advice:
                print(f"* {each.what}: {each.advice}")
        print(f"{len(findings)} checks, {wrong} errors, {sum(each.severity == WARNING for each in findings)} warnings")
    if wrong:
        raise NotWell("something is wrong")


# ---- checks


def _versions(directory: Path, configuration: dict[str, Any]) -> Iterator[Finding]:
    yield Finding(
        OK, "version", f"Blockyard {__version__}, SQLite {sqlite3.sqlite_version}, Linux {os.uname().release}"
    )
    with contextlib.suppress(ControlError):
        running = ask(directory, "status")["version"]
        if running != __version__:
            yield Finding(
                WARNING, "running version", f"{running} serves, {__version__} is installed", "`blockyard restart`"
            )


def _state(directory: Path, configuration: dict[str, Any]) -> Iterator[Finding]:
    if not directory.exists():
        yield Finding(OK, "state directory", f"{directory} is not there yet: the first start makes it")
        return
    info = directory.stat()
    if info.st_mode & 0o077:
        yield Finding(ERROR, "state directory", f"{directory} can be entered by others", f"chmod 700 {directory}")
    if info.st_uid != os.geteuid():
        yield Finding(
            WARNING, "state directory", f"{directory} belongs to user {info.st_uid}", "run commands as that user"
        )
    for name in ("state.db", KEY_FILE, "control.sock", "api.sock", "api.key"):
        path = directory / name
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mode & 0o077:
                yield Finding(ERROR, "state directory", f"{path} can be read by others", f"chmod 600 {path}")
    try:
        with contextlib.closing(sqlite3.connect(f"file:{directory / 'state.db'}?mode=ro", uri=True)) as database:
            said = database.execute("PRAGMA quick_check").fetchone()[0]
    except sqlite3.Error as error:
        said = str(error)
    if said == "ok":
        yield Finding(OK, "database", "is sound")
    else:
        yield Finding(ERROR, "database", said, "stop the server and `blockyard state restore` a backup")


def _server(directory: Path, configuration: dict[str, Any]) -> Iterator[Finding]:
    try:
        found = ask(directory, "status")
    except NotServing:
        yield Finding(WARNING, "server", "nobody serves with this state directory", "start `blockyard serve`")
        return
    except ControlError as error:
        yield Finding(ERROR, "server", f"it does not answer: {error}", "look at its log, then start it again")
        return
    yield Finding(OK, "server", f"serves {len(found['targets'])} targets, {len(found['sessions'])} sessions")
    for worker in found.get("workers", ()):
        if worker["pid"] is None or worker["restarts"]:
            yield Finding(
                WARNING, "workers", f"worker {worker['number']} was started again {worker['restarts']} times",
                "the log says why it has ended",
            )  # fmt: skip


def _ports(directory: Path, configuration: dict[str, Any]) -> Iterator[Finding]:
    with contextlib.suppress(ControlError):
        ask(directory, "status")
        return  # it listens on them
    for group in configuration.get("portal_groups", {}).values():
        for text in group.get("portals", ()):
            portal = portal_from(text)
            family = socket.AF_INET6 if portal.address.version == 6 else socket.AF_INET
            with socket.socket(family, socket.SOCK_STREAM) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    sock.bind((str(portal.address), portal.port))
                except OSError as error:
                    yield Finding(
                        ERROR, "portals", f"{portal}: {error.strerror}",
                        "stop what has the port (`ss -ltnp`), or choose another address: `blockyard portal --help`",
                    )  # fmt: skip


def _kernel(directory: Path, configuration: dict[str, Any]) -> Iterator[Finding]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(_FILES, 2 * (len(configuration.get("volumes", ())) + len(configuration.get("targets", ()))))
    if hard != resource.RLIM_INFINITY and hard < wanted:
        yield Finding(
            WARNING, "open files", f"{hard} at most; every volume and session is one",
            f"LimitNOFILE={wanted} in the unit, or `ulimit -Hn {wanted}`",
        )  # fmt: skip
    else:
        yield Finding(OK, "open files", f"{hard} at most")
    for name, least in (("somaxconn", _BACKLOG), ("rmem_max", _BUFFER), ("wmem_max", _BUFFER)):
        path = Path("/proc/sys/net/core", name)
        if not path.exists():  # a container may hide it
            continue
        value = int(path.read_text())
        severity = OK if value >= least or name != "somaxconn" else WARNING
        advice = (
            ""
            if value >= least
            else f"`sysctl -w net.core.{name}={least}`"
            + ("" if name == "somaxconn" else ", for fast networks with long lines")
        )
        yield Finding(severity, f"net.core.{name}", str(value), advice)


def _space(directory: Path, configuration: dict[str, Any]) -> Iterator[Finding]:
    paths = {"the state directory": directory}
    paths |= {
        f"volume {name}": Path(each["path"])
        for name, each in configuration.get("volumes", {}).items()
        if each.get("path")
    }
    paths |= {f"pool {name}": Path(each["directory"]) for name, each in configuration.get("pools", {}).items()}
    seen: set[int] = set()
    for what, path in paths.items():
        there = next(each for each in (path, *path.absolute().parents) if each.exists())
        if not path.exists() and what != "the state directory":
            yield Finding(ERROR, what, f"{path} is not there", "is its file system mounted?")
        device = there.stat().st_dev
        if device in seen or there.is_block_device():
            continue
        seen.add(device)
        system = os.statvfs(there)
        free = system.f_bavail * system.f_frsize
        if free < max(_LITTLE, _SPACE * system.f_blocks * system.f_frsize):
            yield Finding(
                WARNING, "disk space", f"{format_size(free)} free for {what} ({there})", "make room, or move it"
            )
        else:
            yield Finding(OK, "disk space", f"{format_size(free)} free for {what}")


def _clocks(directory: Path, configuration: dict[str, Any]) -> Iterator[Finding]:
    before = time.time() - time.monotonic()
    time.sleep(0.05)
    if abs(time.time() - time.monotonic() - before) > _JUMP:
        yield Finding(
            WARNING, "clock", "it has just been set", "snapshots and one-time passwords go by it: let chrony slew it"
        )
    if time.gmtime().tm_year < 2025:
        yield Finding(ERROR, "clock", time.strftime("it is %Y-%m-%d"), "set it: `timedatectl set-ntp true`")
    synchronised = Path("/run/systemd/timesync/synchronized").exists() or any(
        _runs(name) for name in ("chronyd", "ntpd", "ntpsec", "systemd-timesyn")
    )
    if synchronised:
        yield Finding(OK, "clock", "is kept right by a time service")
    else:
        yield Finding(
            WARNING,
            "clock",
            "no time service keeps it right",
            "install chrony, unless the host of this machine does that",
        )


def _runs(name: str) -> bool:
    for path in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):
            if path.read_text().strip() == name:
                return True
    return False


def _tools(directory: Path, configuration: dict[str, Any]) -> Iterator[Finding]:
    for kind, what, names, without in _OPTIONAL:
        there = any(shutil.which(name) if kind == "program" else _has_module(name) for name in names)
        yield Finding(OK, "optional", f"{what}: {'there' if there else f'not there, so no {without}'}")


def _has_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # of a package that is not there
        return False


def _pools(directory: Path, configuration: dict[str, Any]) -> Iterator[Finding]:
    try:
        found = ask(directory, "pools")
    except ControlError:
        return
    for name, pool in found.items():
        if "error" in pool:
            yield Finding(ERROR, f"pool {name}", pool["error"], f"`blockyard pool check {pool['directory']}`")
        elif pool.get("failed"):
            yield Finding(ERROR, f"pool {name}", pool["failed"], f"`blockyard pool check {name}`")
        else:
            share = pool["used"] / max(1, pool["size"])
            severity = WARNING if pool["level"] != "ok" and share > 0.8 else OK
            yield Finding(
                severity, f"pool {name}", f"{share:.0%} used", "`blockyard pool add`" if severity != OK else ""
            )


CHECKS: tuple[Check, ...] = (_versions, _state, _server, _ports, _kernel, _space, _clocks, _tools, _pools)
