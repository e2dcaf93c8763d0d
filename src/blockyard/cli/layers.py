"""`blockyard layer`: the layers that volumes are made of (docs/layers.md)."""

from __future__ import annotations

import argparse
import getpass
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from blockyard.block import kinds
from blockyard.block.building import creation, make, open_stack
from blockyard.block.layers import MANY, Kind, Opening
from blockyard.block.record import replay
from blockyard.block.size import Size, format_size
from blockyard.block.stack import StackError
from blockyard.cli import parsers
from blockyard.cli.credentials import CredentialsError, read_secret
from blockyard.cli.output import Bar, show, show_jobs, table, watch_job
from blockyard.cli.parsers import Action, Subparsers, family
from blockyard.control.administration import REMOTE, ask
from blockyard.control.allowed import files_of
from blockyard.control.errors import ControlError, UsageError
from blockyard.control.making import missing_files
from blockyard.worker.layer_requests import described_options

_EXIT_STATUS = """\
exit status:
  0  done
  1  something failed
  2  it does not make sense: no such volume, layer or action, a stack that cannot be
  7  nobody serves with this state directory, or its user is another one

examples:
  blockyard layer show mail                    the layers of a volume, how they are, and what they have done
  blockyard layer do mail/raid5 scrub          have a layer do something
  blockyard layer do mail throttle iops=500    where only one layer can, it need not be named
"""


def add_commands(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `layer` to the commands."""
    layer = family(commands, "layer", "the layers that volumes are made of")
    listing = _command(layer, "kinds", _kinds, "list the kinds of layers that there are, or tell all about one")
    listing.add_argument("kind", metavar="KIND", nargs="?", help="its name")
    listing.add_argument("--json", action="store_true", help="as JSON")
    showing = _command(layer, "show", _show, "show the layers of a volume as a tree, with health and counters")
    showing.add_argument("volume", metavar="VOLUME", help="its name, as `blockyard status` shows it")
    showing.add_argument("--json", action="store_true", help="as JSON")
    actions = _command(layer, "actions", _actions, "list what can be done with a layer while it is in use")
    actions.add_argument("layer", metavar="VOLUME[/PATH]", help=_PATH)
    actions.add_argument("--json", action="store_true", help="as JSON")
    do = _command(layer, "do", _do, "have a layer do something while it is in use")
    do.add_argument("layer", metavar="VOLUME[/PATH]", help=_PATH)
    do.add_argument("action", metavar="ACTION", help="what it is to do, as `blockyard layer actions` lists it")
    do.add_argument(
        "options", metavar="OPTION=VALUE", nargs="*", help="options of the action; paths in them are absolute"
    )
    do.add_argument("--no-wait", action="store_true", help="of what takes long: do not wait until it is done")
    moving = _command(layer, "move", _move, "move a volume to another stack, while it is in use")
    moving.add_argument("volume", metavar="VOLUME", help="its name")
    moving.add_argument("stack", metavar="STACK", help="where to: a stack or an absolute path, at least as large")
    moving.add_argument(
        "--no-wait", action="store_true", help="do not wait: `blockyard layer finish` ends it when all is copied"
    )
    finish = _command(layer, "finish", _finish, "let go of what a volume has been moved from")
    finish.add_argument("volume", metavar="VOLUME", help="its name")
    jobs = _command(layer, "jobs", _jobs, "show what goes on in layers, and what has been done of late")
    jobs.add_argument("--json", action="store_true", help="as JSON")
    for name, what in (
        ("cancel", "have a job of a layer stop; what an array does by itself is paused"),
        ("pause", "let a rebuild, reshape or resync of an array rest; the array stays as it is meanwhile"),
        ("resume", "let what was paused go on"),
    ):
        job = _command(layer, name, globals()[f"_{name}"], what)
        job.add_argument("job", metavar="JOB", help="as `blockyard layer jobs` shows it")
    make = _command(layer, "create", _create, "make a layer that keeps marks on what it stands on; a server is needed only "
                    "for what stands on volumes of pools, and with --url that one makes it")  # fmt: skip
    make.add_argument(
        "stack",
        metavar="STACK",
        help="its kind, with options, and what it is to stand on: 'raid1(/dev/sda, /dev/sdb)'",
    )
    make.add_argument("--size", metavar="SIZE", type=Size.read, help="make files that are missing, as large as this")
    make.add_argument(
        "--passphrase-file",
        metavar="FILE",
        type=Path,
        help="of an encrypted disk that a server makes: its first line, which the server keeps (else: key_file=, secret= …)",
    )
    make.add_argument(
        "--no-wait", action="store_true", help="where a server makes it and it takes long: do not wait until it is done"
    )

    again = parsers.command(
        layer, "replay", _replay, "do again what a layer `record` has recorded; no server is needed for that",
        epilog=_EXIT_STATUS, local=True,
    )  # fmt: skip
    again.add_argument("record", metavar="FILE", help="the file that it has written")
    again.add_argument(
        "stack", metavar="STACK", help="a stack or path: what to do it to, as it was when recording began"
    )
    again.add_argument("--until", metavar="N", type=int, help="only the first N records")
    again.add_argument("--flushes", metavar="N", type=int, help="only up to the Nth flush")


_PATH = "a volume, or one of its layers: by places from the top, as in mail/0/1, or by the kind that is there once: mail/raid5"


def _command(
    commands: Subparsers[argparse.ArgumentParser], name: str, action: Action, what: str
) -> argparse.ArgumentParser:
    return parsers.command(commands, name, action, what, epilog=_EXIT_STATUS)


# ---- kinds


def _kinds(directory: Path, options: argparse.Namespace) -> None:
    if options.kind is not None:
        _kind(options)
        return
    rows = [(kind.name, stands_on(kind), kind.text) for kind in kinds.kinds()]
    show(options, [described(kind) for kind in kinds.kinds()], ("KIND", "STANDS ON", "WHAT"), rows, none="")


def _kind(options: argparse.Namespace) -> None:
    try:
        kind = kinds.kind(options.kind)
    except LookupError as error:
        raise UsageError(str(error.args[0])) from None
    found = described(kind)
    if options.json:
        print(json.dumps(found, indent=2, default=str))
        return
    print(f"{kind.name}: {kind.text}", f"  stands on  {stands_on(kind)}", sep="\n")
    if kind.example:
        print(f"  example    {kind.example}")
    for title, given in (("OPTION", found["options"]), ("OPTION OF CREATE", found.get("creation", {}))):
        rows = [(name, each["type"], shown_default(each)) for name, each in given.items()]
        if rows:
            print("", *table([(title, "TYPE", "DEFAULT"), *rows]), sep="\n")


def described(kind: Kind) -> dict[str, Any]:
    found = {"name": kind.name, "text": kind.text, "least": kind.children[0], "most": kind.children[1],
             "argument": kind.argument, "example": kind.example, "options": described_options(kind.options)}  # fmt: skip
    return found | ({"creation": described_options(kind.creation)} if kind.create is not None else {})


def shown_default(option: dict[str, Any]) -> str:
    if "default" not in option:
        return "needed"
    default = option["default"]
    return str(default).lower() if isinstance(default, bool) else "-" if default in ("", (), None) else str(default)


def stands_on(kind: Kind) -> str:
    least, most = kind.children
    if not most:
        return "nothing"
    return f"{least}" if least == most else f"{least} or more" if most >= MANY else f"{least} to {most}"


# ---- layers of volumes


def _show(directory: Path, options: argparse.Namespace) -> None:
    found = ask(directory, "layer", layer=options.volume, request="show")["tree"]
    if options.json:
        print(json.dumps(found, indent=2))
        return
    rows = list(_rows(found, "", ""))
    print("\n".join(table([("LAYER", "SIZE", "HEALTH", ""), *rows], indent="")))


def _rows(layer: dict[str, Any], first: str, rest: str) -> Iterator[tuple[str, str, str, str]]:
    """A row for a layer and for each beneath, with lines drawn before them."""
    yield f"{first}{layer['label']}", format_size(layer["size"]), layer["health"], _told(layer)
    children = layer["children"]
    for number, child in enumerate(children):
        last = number == len(children) - 1
        yield from _rows(child, f"{rest}{'└─' if last else '├─'} ", f"{rest}{'   ' if last else '│  '}")


def _told(layer: dict[str, Any]) -> str:
    """What a layer says of itself, in a line."""
    told = [str(layer["text"])] if layer.get("text") else []
    if layer.get("progress"):
        done, total = layer["progress"]
        told.append(f"{done / max(1, total):.0%}")
    for table_of in ("gauges", "counters"):
        told += [f"{name.replace('_', ' ')} {value}" for name, value in layer.get(table_of, {}).items()]
    return ", ".join(told)


def _actions(directory: Path, options: argparse.Namespace) -> None:
    found = ask(directory, "layer", layer=options.layer, request="actions")
    rows = [
        (
            name,
            " ".join(f"{option}={each['type']}" for option, each in action["options"].items()) or "-",
            action["text"],
        )
        for name, action in found["actions"].items()
    ]
    show(
        options,
        found["actions"],
        ("ACTION", "OPTIONS", "WHAT"),
        rows,
        none=f"nothing can be done with {found['layer']}",
    )


def _do(directory: Path, options: argparse.Namespace) -> None:
    given = {}
    for option in options.options:
        name, equals, value = option.partition("=")
        if not equals:
            raise UsageError(f"{option!r} is not OPTION=VALUE")
        given[name] = value
    reply = ask(directory, "layer", layer=options.layer, request="act", action=options.action, options=given)
    if "job" not in reply:
        print(reply["said"])
    elif options.no_wait:
        print(f"job {reply['name']} has begun: `blockyard layer jobs` shows it")
    else:
        print(watch_layer_job(directory, reply["name"]))


def _move(directory: Path, options: argparse.Namespace) -> None:
    job = ask(directory, "layer move", volume=options.volume, stack=options.stack)["name"]
    if options.no_wait:
        print(
            f"job {job} has begun: `blockyard layer jobs` shows it, `blockyard layer finish {options.volume}` ends it"
        )
    else:
        watch_layer_job(directory, job)
        _finish(directory, options)


def _finish(directory: Path, options: argparse.Namespace) -> None:
    print(ask(directory, "layer finish", volume=options.volume)["said"])


def watch_layer_job(directory: Path, name: str) -> str:
    """Show how far a job is until it is over; what it has said then. Raises ControlError when it has failed."""
    stop = f"`blockyard layer jobs` shows it, `blockyard layer cancel {name}` stops it"
    return watch_job(lambda: ask(directory, "layer jobs")["jobs"], name, stop)


def _jobs(directory: Path, options: argparse.Namespace) -> None:
    show_jobs(options, ask(directory, "layer jobs")["jobs"])


def _cancel(directory: Path, options: argparse.Namespace) -> None:
    ask(directory, "layer cancel", job=options.job)
    print(f"job {options.job} is told to stop")


def _pause(directory: Path, options: argparse.Namespace) -> None:
    print(ask(directory, "layer pause", job=options.job)["said"])


def _resume(directory: Path, options: argparse.Namespace) -> None:
    print(ask(directory, "layer resume", job=options.job)["said"])


# ---- making


def _create(directory: Path, options: argparse.Namespace) -> None:
    try:
        layer = creation(options.stack)
        pools = any(claim.what.startswith("pool:") for claim in layer.claims())
        if pools or options.passphrase_file is not None or REMOTE.get() is not None:
            _have_created(directory, options)
            return
        bar = Bar(f"making {layer.kind.name}")
        with missing_files(files_of(layer), options.size):
            print(make(layer, Opening(secret=_secret), lambda done, total: bar.show(done, total, layer.kind.unit)))
    except StackError as error:
        raise UsageError(str(error)) from None
    except OSError as error:
        raise _explained(error) from error


def _have_created(directory: Path, options: argparse.Namespace) -> None:
    """By a server."""
    more: dict[str, object] = {} if options.size is None else {"size": int(options.size)}
    if options.passphrase_file is not None:
        try:
            more["passphrase"] = read_secret(options.passphrase_file).decode()
        except (CredentialsError, UnicodeDecodeError) as error:
            raise UsageError(str(error)) from None
    if options.no_wait:
        more["wait"] = 0
    made = ask(directory, "layer create", stack=options.stack, **more)
    if "job" not in made:
        said = made["said"]
    elif options.no_wait:
        said = f"job {made['name']} has begun: `blockyard layer jobs` shows it; when it is done,"
    else:
        said = watch_layer_job(directory, made["name"])
    print(said, f"it is opened by the stack {made['stack']}", sep="\n")


def _replay(directory: Path, options: argparse.Namespace) -> None:
    bar = Bar("replaying")
    try:
        device = open_stack(options.stack, Opening(secret=_secret))
        try:
            done = replay(
                options.record, device, until=options.until, flushes=options.flushes,
                progress=lambda at, size: bar.show(at, size, "bytes"),
            )  # fmt: skip
        finally:
            device.close()
    except StackError as error:
        raise UsageError(str(error)) from None
    except OSError as error:
        raise _explained(error) from error
    finally:
        bar.end()
    print(f"{done} records are done again")


def _explained(error: OSError) -> ControlError:
    where = f"{error.filename}: " if error.filename else ""
    return ControlError(f"{where}{error.strerror or error}")


def _secret(name: str) -> bytes:
    """What whoever is at the terminal types."""
    if not sys.stdin.isatty():
        raise OSError(f"there is nobody who could be asked for the secret {name}")
    return getpass.getpass(f"{name}: ").encode()
