"""`blockyard apply`, `config` and `audit`: the configuration as a whole, in a file, in a server, and as it was before."""

from __future__ import annotations

import argparse
import contextlib
import getpass
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from blockyard.block import records
from blockyard.cli import parsers
from blockyard.cli.output import moment, show
from blockyard.cli.parsers import Subparsers, family, leaf
from blockyard.control import audit
from blockyard.control.administration import NotServing, alone, ask
from blockyard.control.configuration_commands import describe
from blockyard.control.configuration_file import dump, load
from blockyard.control.difference import differences
from blockyard.control.errors import ControlError
from blockyard.control.revisions import Revisions, check_expected
from blockyard.control.state import State
from blockyard.worker.configuration import Configuration

_CHECK_STATUS = """\
exit status:
  0  the file makes sense
  6  it cannot be read, or does not make sense
"""
_EXIT_STATUS = """\
exit status:
  0  done, or there was nothing to do
  2  the server has its configuration from a file or the command line, or there is no such revision
  3  a portal cannot be listened on
  4  a volume cannot be served as it shall be
  5  the state directory cannot be used
  6  the configuration cannot be read, or does not make sense
  8  --expect: another revision holds by now
"""
_APPLY = f"""\
The file says all: what is not in it is not served any more. Nothing happens to the data of volumes that go. Where no server
runs, the state directory takes it for the next start.

{_EXIT_STATUS}  9  --dry-run: something would change

examples:
  blockyard config show > blockyard.toml
  blockyard apply -f blockyard.toml --dry-run     + what would come, - go, ~ change
  blockyard apply -f blockyard.toml
  blockyard apply -f blockyard.toml --expect 12   unless somebody has changed anything since revision 12
"""
_HISTORY = f"""\
{_EXIT_STATUS}
examples:
  blockyard config history
  blockyard config show --revision 11
  blockyard config rollback 11 --dry-run
  blockyard config rollback 11
"""


class WouldChange(ControlError):
    """Not an error: what --dry-run is asked for by scripts."""

    exit_status = 9


def add_commands(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `apply`, `config` and `audit` to the commands."""
    apply = parsers.command(commands, "apply", _apply, "have a managed server serve what a file says", epilog=_APPLY)
    apply.add_argument(
        "-f", "--file", metavar="FILE", type=Path, required=True, help="the file (docs/configuration.md)"
    )
    _change_options(apply)
    members = family(commands, "config", "the configuration of a server, and configuration files")
    showing = parsers.command(
        members, "show", _show, "print the configuration that is served, as a file", epilog=_HISTORY
    )
    showing.add_argument("--revision", metavar="N", type=int, help="not that of now, but this one")
    check = leaf(members, "check", _check, "say whether a configuration file makes sense", epilog=_CHECK_STATUS)
    check.add_argument("file", metavar="FILE", type=Path, help="the file; volumes and portals are not touched")
    check.add_argument("--print", action="store_true", help="print it as it is understood: names in their normal form")
    history = parsers.command(
        members, "history", _history, "list what the configuration has been, and who has changed it", epilog=_HISTORY
    )
    _last_option(history)
    rollback = parsers.command(
        members, "rollback", _rollback, "go back to a revision of the configuration", epilog=_HISTORY
    )
    rollback.add_argument(
        "revision", metavar="N", type=int, help="the revision, as `blockyard config history` numbers it"
    )
    _change_options(rollback)
    trail = parsers.command(
        commands, "audit", _audit, "show who has changed what, the latest last", epilog=_EXIT_STATUS
    )
    _last_option(trail)


def _change_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="only show what would change")
    parser.add_argument("--expect", metavar="N", type=int, help="only if this revision holds now")
    parser.add_argument("--json", action="store_true", help="as JSON")


def _last_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", metavar="N", type=int, default=20, help="the last N (default: 20)")
    parser.add_argument("--json", action="store_true", help="as JSON")


# ---- changes


def _apply(directory: Path, options: argparse.Namespace) -> None:
    wanted = load(options.file)
    try:
        done = ask(
            directory,
            "config apply",
            configuration=records.write(wanted),
            dry_run=options.dry_run,
            expected=options.expect,
        )
    except NotServing:
        done = _offline(directory, options, lambda revisions: wanted)
    _tell(options, done)


def _rollback(directory: Path, options: argparse.Namespace) -> None:
    try:
        done = ask(
            directory, "config rollback", revision=options.revision, dry_run=options.dry_run, expected=options.expect
        )
    except NotServing:
        done = _offline(directory, options, lambda revisions: revisions.at(options.revision).configuration)
    _tell(options, done)


def _offline(
    directory: Path, options: argparse.Namespace, choose: Callable[[Revisions], Configuration]
) -> dict[str, Any]:
    """Change what the next start begins with. Raises StateError when a server has the state directory after all."""
    with contextlib.closing(State(directory)) as state, alone(directory):
        revisions = Revisions(state)
        latest = revisions.current()
        before = Configuration() if latest is None else latest.configuration
        wanted = choose(revisions)
        lines = differences(before, wanted)
        check_expected(options.expect, 0 if latest is None else latest.number)
        if options.dry_run:
            return {"changes": lines, "revision": 0 if latest is None else latest.number, "served": False}
        made = revisions.put(wanted, getpass.getuser())
    return {"changes": lines, "revision": made.number, "served": False}


def _tell(options: argparse.Namespace, done: dict[str, Any]) -> None:
    if options.json:
        print(json.dumps(done, indent=2, ensure_ascii=False))
    else:
        print("\n".join(done["changes"]) if done["changes"] else "nothing differs")
        if done["changes"] and not options.dry_run:
            print(f"revision {done['revision']}{'' if done.get('served', True) else ', for the next start'}")
    if options.dry_run and done["changes"]:
        raise WouldChange("something would change")


# ---- looking on


def _show(directory: Path, options: argparse.Namespace) -> None:
    try:
        text = ask(directory, "config show", revision=options.revision)
    except NotServing as error:
        with _stored(directory, error) as revisions:
            latest = revisions.current() if options.revision is None else revisions.at(options.revision)
        if latest is None:
            raise
        text = dump(latest.configuration)
    sys.stdout.write(text)


def _history(directory: Path, options: argparse.Namespace) -> None:
    try:
        found = ask(directory, "config history", last=max(0, options.count))
    except NotServing as error:
        with _stored(directory, error) as revisions:
            found = [describe(revision) for revision in revisions.history(max(0, options.count))]
    rows = [(str(each["revision"]), _clock(each["time"]), each["who"], each["what"]) for each in found]
    show(options, found, ("REVISION", "SINCE", "WHO", "CHANGES"), rows, none="nothing has been configured yet")


def _audit(directory: Path, options: argparse.Namespace) -> None:
    with contextlib.closing(State(directory)) as state:
        entries = list(audit.read(state, last=max(0, options.count)))
    rows = [(str(entry.id), moment(entry.time), entry.who, entry.what) for entry in entries]
    found = [entry.as_dict() for entry in entries]
    show(options, found, ("ID", "TIME", "WHO", "WHAT"), rows, none="nothing has been changed yet")


def _clock(stamp: str) -> str:
    return stamp[:19].replace("T", " ") + " UTC"


def _check(options: argparse.Namespace) -> int:
    try:
        configuration = load(options.file)
    except ControlError as error:
        print(f"blockyard: {error}", file=sys.stderr)
        return error.exit_status
    if options.print:
        sys.stdout.write(dump(configuration))
    else:
        counts = {
            "target": len(configuration.targets),
            "volume": len(configuration.volumes),
            **({"pool": len(configuration.pools)} if configuration.pools else {}),
            "portal": len(configuration.portals),
        }
        found = ", ".join(f"{number} {noun}{'' if number == 1 else 's'}" for noun, number in counts.items())
        print(f"{options.file}: {found}")
    return 0


# ---- where no server runs


@contextlib.contextmanager
def _stored(directory: Path, error: NotServing) -> Iterator[Revisions]:
    """What a managed server will begin with. Raises `error` where there is no state directory."""
    if not directory.is_dir():
        raise error
    with contextlib.closing(State(directory)) as state:
        yield Revisions(state)
