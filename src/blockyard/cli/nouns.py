"""Targets, portals, LUNs, access rules and all else that a configuration has, changed one by one: a table of nouns and options.

The options are those of the configuration file, under the same names. What they may be is checked where the configuration is.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from blockyard.block.records import key
from blockyard.cli import parsers
from blockyard.cli.changing import Data, change, entry, look, table_of
from blockyard.cli.parsers import Action, Subparsers, family
from blockyard.control.configuration_file import value_text
from blockyard.control.errors import UsageError

EXIT_STATUS = """\
exit status:
  0  done
  2  there is no such thing, or there is one already; or the server has its configuration from a file or the command line
  3  a portal cannot be listened on
  4  a volume cannot be served as it shall be
  5  the state directory cannot be used
  6  the configuration would make no sense, and is left as it was
"""


class Option(NamedTuple):
    """An option that is a key of the configuration. `kind`: text, number, flag, list, path, numbers, counts."""

    field: str
    help: str
    kind: str = "text"
    metavar: str = "TEXT"
    flag: str = ""  # what it is called, if not like the key

    @property
    def name(self) -> str:
        return self.flag or self.field.replace("_", "-")


class Noun(NamedTuple):
    """Something of which a configuration has several, by their names."""

    name: str
    table: str
    metavar: str
    options: tuple[Option, ...]
    example: str


VOLUME_OPTIONS = (
    Option("path", "a file or block device", "path", "FILE"),
    Option("stack", "layers that stand on each other (docs/layers.md)", metavar="STACK"),
    Option("pool", "the pool that it is in", metavar="POOL"),
    Option("volume", "what it is called in the pool, if otherwise", metavar="NAME", flag="pool-volume"),
    Option("snapshot", "which snapshot of it this is", metavar="NAME"),
    Option("size", "a file is made with this size, and grows to it", metavar="SIZE"),
    Option("format", "raw, vhd, vhdx, qcow2, …; auto: whichever image it is", metavar="FORMAT"),
    Option("block_size", "of a logical block: 512 or 4096", "number", "BYTES"),
    Option("read_only", "let nobody write", "flag"),
    Option("write_through", "answer a write only when it is on stable storage", "flag"),
    Option("thick", "keep all space: initiators cannot unmap blocks", "flag"),
    Option("removable", "let initiators eject and load the medium", "flag"),
    Option("protection", "type of protection information: 0 to 3", "number", "TYPE"),
    Option("soft_threshold", "warn initiators when so little is left", metavar="SIZE"),
    Option("background_rate", "what SANITIZE writes per second at most", metavar="SIZE"),
)
TARGET = Noun(
    "target", "targets", "IQN",
    (
        Option("alias", "a text for people, which initiators show"),
        Option("portal_groups", "a portal group by which it is reached; may be repeated", "numbers", "TAG", "portal-group"),
        Option("library", "a tape library that it shows instead of LUNs", metavar="LIBRARY"),
        Option("max_connections", "of one session", "number", "N"),
        Option("error_recovery_level", "0 to 2", "number", "N"),
    ),
    "blockyard target create iqn.2024-01.com.example:db --alias 'Databases'",
)  # fmt: skip
DRIVE = Noun(
    "drive", "drives", "DRIVE",
    (
        Option("image", "what is in it at first", "path", "FILE"),
        Option("kind", "cd, dvd, bd, bd-re, …; auto: by the image's size", metavar="KIND"),
        Option("jukebox", "a directory of images that are known by their names", "path", "DIR"),
    ),
    "blockyard drive create dvd --jukebox /srv/isos && blockyard lun map iqn.2024-01.com.example:db dvd",
)  # fmt: skip
LIBRARY = Noun(
    "library", "libraries", "LIBRARY",
    (
        Option("directory", "where its cartridges are; it is made when it is missing", "path", "DIR"),
        Option("model", "what it gives itself out for", metavar="MODEL"),
        Option("drive_model", "what its drives give themselves out for", metavar="MODEL"),
        Option("drives", "how many drives it has", "number", "N"),
        Option("slots", "how many slots", "number", "N"),
        Option("import_export", "how many elements for bringing in and taking away", "number", "N"),
    ),
    "blockyard tape library create vault --directory /srv/tapes --drives 2 --slots 40",
)  # fmt: skip
SCHEDULE = Noun(
    "schedule", "schedules", "SCHEDULE",
    (
        Option("at", "when: 'every 15m', hourly, 'daily at 02:00', …", metavar="WHEN"),
        Option("volumes", "POOL/VOLUME, with * and ? for any; may be repeated", "list", "PATTERN", "volume"),
        Option("keep", "how many: hourly=24; may be repeated", "counts", "UNIT=N"),
        Option("zone", "of the times, such as Europe/Berlin", metavar="ZONE"),
    ),
    "blockyard schedule create hourly --at hourly --volume 'fast/vm*' --keep hourly=24 --keep daily=7",
)  # fmt: skip
POOL = Noun("pool", "pools", "POOL", (), "")
VOLUME = Noun("volume", "volumes", "VOLUME", VOLUME_OPTIONS, "")
_SETTINGS = {  # name: what for, the key that it is listened on or found at, and other options
    "isns": ("the name server that targets are registered with", "server", (Option("entity", "the name of this system there"),)),
    "metrics": ("where Prometheus fetches metrics", "listen", ()),
    "telemetry": (
        "where metrics are sent to, by OpenTelemetry", "endpoint",
        (
            Option("interval", "seconds between two times (default: 60)", "number", "SECONDS"),
            Option("headers_file", "lines NAME: VALUE, such as a token", "path", "FILE"),
            Option("authority", "who signs the receiver's certificate, in PEM", "path", "FILE"),
        ),
    ),
    "api": (
        "where the console and the API are served", "listen",
        (
            Option("certificate", "its certificate, in PEM", "path", "FILE"),
            Option("key", "the key of that, in PEM", "path", "FILE"),
            Option("http", "plain HTTP for ACME's challenges, which leads to HTTPS", metavar="ADDR:PORT"),
            Option("paths", "where volumes, pools and layers may lie (default: anywhere)", "list", "DIR", "path"),
        ),
    ),
}  # fmt: skip


def add_commands(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the nouns that have no other commands to the commands."""
    for noun, what in ((TARGET, "targets of a managed server"), (DRIVE, "optical drives of a managed server")):
        add_noun(family(commands, noun.name, what), noun)
    for name, (what, field, options) in _SETTINGS.items():
        _add_setting(family(commands, name, what), name, field, options)


def command(
    commands: Subparsers[argparse.ArgumentParser], name: str, action: Action, what: str, example: str = ""
) -> argparse.ArgumentParser:
    """A command that changes the configuration of a managed server, or shows it."""
    epilog = EXIT_STATUS + (f"\nexample:\n  {example}\n" if example else "")
    return parsers.command(commands, name, action, what, epilog=epilog)


def add_noun(members: Subparsers[argparse.ArgumentParser], noun: Noun, *, listing: bool = True) -> None:
    """Add `create`, `set` and `delete`, and with `listing` `list` and `show`."""
    make = command(members, "create", partial(_create, noun), f"add a {noun.name} to what is served", noun.example)
    edit = command(members, "set", partial(_set, noun), f"change a {noun.name}", noun.example)
    remove = command(members, "delete", partial(_delete, noun), f"serve a {noun.name} no more; no data is deleted")
    for parser in (make, edit, remove):
        parser.add_argument("name", metavar=noun.metavar, help="its name")
    for parser in (make, edit):
        add_options(parser, noun.options)
    if listing:
        every = command(members, "list", partial(_list, noun), f"list what there is of {noun.table}")
        one = command(members, "show", partial(_show, noun), f"show a {noun.name}")
        one.add_argument("name", metavar=noun.metavar, help="its name")
        for parser in (every, one):
            parser.add_argument("--json", action="store_true", help="as JSON")


def add_options(parser: argparse.ArgumentParser, options: Iterable[Option]) -> None:
    for option in options:
        flag = f"--{option.name}"
        if option.kind == "flag":
            parser.add_argument(
                flag, dest=option.field, action=argparse.BooleanOptionalAction, default=None, help=option.help
            )
        elif option.kind in ("list", "numbers", "counts"):
            kind: Any = int if option.kind == "numbers" else str
            parser.add_argument(
                flag, dest=option.field, metavar=option.metavar, action="append", type=kind, help=option.help
            )
        else:
            kind = int if option.kind == "number" else str
            parser.add_argument(flag, dest=option.field, metavar=option.metavar, type=kind, help=option.help)


def values(options: argparse.Namespace, known: Iterable[Option]) -> Data:
    """What was given, as the configuration has it. Raises UsageError."""
    found: Data = {}
    for option in known:
        value = getattr(options, option.field)
        if value is None:
            continue
        if option.kind == "path" and value:
            value = os.path.abspath(value)
        elif option.kind == "counts":
            value = dict(map(_count, value))
        found[option.field] = value
    return found


def _count(text: str) -> tuple[str, int]:
    unit, equals, number = text.partition("=")
    if not equals or not number.isdecimal():
        raise UsageError(f"{text!r} is not UNIT=N, such as hourly=24")
    return unit, int(number)


def tell(changes: list[str]) -> None:
    print("\n".join(changes) if changes else "nothing differs")


def create(directory: Path, noun: Noun, name: str, data: Data) -> None:
    """Add one with these values. Raises ControlError."""

    def edit(configuration: Data) -> None:
        there = table_of(configuration, noun.table)
        if name in there:
            raise UsageError(f"there is a {noun.name} {name} already: `set` changes it")
        there[name] = data

    tell(change(directory, edit))


def _create(noun: Noun, directory: Path, options: argparse.Namespace) -> None:
    create(directory, noun, options.name, values(options, noun.options))


def update(directory: Path, noun: Noun, name: str, data: Data) -> None:
    """Change values of one. Raises ControlError."""
    if not data:
        raise UsageError("there is nothing to change: give an option")
    tell(change(directory, lambda configuration: entry(configuration, noun.name, noun.table, name).update(data)))


def _set(noun: Noun, directory: Path, options: argparse.Namespace) -> None:
    update(directory, noun, options.name, values(options, noun.options))


def remove(directory: Path, noun: Noun, name: str) -> None:
    """Raises ControlError."""

    def edit(configuration: Data) -> None:
        entry(configuration, noun.name, noun.table, name)
        del configuration[noun.table][name]

    tell(change(directory, edit))


def _delete(noun: Noun, directory: Path, options: argparse.Namespace) -> None:
    remove(directory, noun, options.name)


def _list(noun: Noun, directory: Path, options: argparse.Namespace) -> None:
    found = look(directory).get(noun.table, {})
    if options.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        print("\n".join(found) if found else f"there is no {noun.name}")


def _show(noun: Noun, directory: Path, options: argparse.Namespace) -> None:
    found = entry(look(directory), noun.name, noun.table, options.name)
    if options.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    print(f"{noun.name} {options.name}")
    for name, value in found.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key(inner)} = {value_text(each)}" for inner, each in value.items())  # noqa: PLW2901
        print(f"  {name:<20} {value if isinstance(value, str) else value_text(value)}")


# ---- settings of which there is one


def _add_setting(
    members: Subparsers[argparse.ArgumentParser], name: str, field: str, options: tuple[Option, ...]
) -> None:
    edit = command(members, "set", partial(_set_setting, name, field, options), f"set the {field} of {name}")
    edit.add_argument("address", metavar="ADDR[:PORT]", help="where")
    add_options(edit, options)
    command(members, "off", partial(_off, name), f"do without {name}")
    showing = command(members, "show", partial(_show_setting, name), f"show how {name} is set")
    showing.add_argument("--json", action="store_true", help="as JSON")


def _set_setting(
    name: str, field: str, known: tuple[Option, ...], directory: Path, options: argparse.Namespace
) -> None:
    data = {field: options.address, **values(options, known)}
    tell(change(directory, lambda configuration: table_of(configuration, name).update(data)))


def _off(name: str, directory: Path, options: argparse.Namespace) -> None:
    tell(change(directory, lambda configuration: _drop(configuration, name)))


def _drop(configuration: Data, name: str) -> None:
    configuration.pop(name, None)
    if name == "api":  # without a word of it, a managed server has it at the usual place
        configuration[name] = {"listen": ""}


def _show_setting(name: str, directory: Path, options: argparse.Namespace) -> None:
    found = look(directory).get(name)
    if options.json:
        print(json.dumps(found))
    else:
        print("off" if found is None else "\n".join(f"{field} {value}" for field, value in found.items()))
