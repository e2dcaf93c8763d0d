"""`blockyard lun`, `portal` and `access`: what a target shows, by which ways it is reached, and by whom."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from blockyard.cli.changing import Data, change, entry, look, table_of
from blockyard.cli.nouns import Option, add_options, command, tell, values
from blockyard.cli.output import show
from blockyard.cli.parsers import Subparsers, family, watchable
from blockyard.control.errors import UsageError
from blockyard.iscsi.access import Right
from blockyard.iscsi.directory import portal_from
from blockyard.worker.configuration import PORTAL_GROUP

_DISCOVERY = "discovery"
_WHOSE = f"the target, or {_DISCOVERY}"
_RULE = (
    Option("right", f"{', '.join(Right)} (default: full)", metavar="RIGHT"),
    Option("initiators", "a name, or a pattern with * and ?; may be repeated", "list", "IQN", "initiator"),
    Option("addresses", "an address or a network; may be repeated", "list", "ADDR[/BITS]", "address"),
    Option("users", "who has authenticated as this user; may be repeated", "list", "USER", "user"),
    Option("groups", "or as one of this group; may be repeated", "list", "GROUP", "group"),
    Option("mutual", "the initiator has to let the target prove itself as well", "flag"),
    Option("luns", "it sees these instead: LUN=VOLUME; may be repeated", "list", "LUN=VOLUME", "lun"),
)
_IQN = "iqn.2024-01.com.example:db"


def add_commands(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `lun`, `portal` and `access` to the commands."""
    lun = family(commands, "lun", "which volume is which LUN of a target")
    put = command(
        lun, "map", _map, "show a volume or drive as a LUN of a target", f"blockyard lun map {_IQN} db --lun 3"
    )
    put.add_argument("target", metavar="IQN", help="the target")
    put.add_argument("volume", metavar="VOLUME", help="the volume or drive")
    put.add_argument("--lun", metavar="N", type=int, help="which one (default: the first that is free)")
    away = command(lun, "unmap", _unmap, "take a LUN from a target; the volume stays", f"blockyard lun unmap {_IQN} 3")
    away.add_argument("target", metavar="IQN", help="the target")
    away.add_argument("lun", metavar="N", type=int, help="the LUN")
    every = command(lun, "list", _luns, "list LUNs")
    every.add_argument("target", metavar="IQN", nargs="?", help="of this target only")
    every.add_argument("--json", action="store_true", help="as JSON")
    watchable(every)
    portal = family(commands, "portal", "addresses that are listened on")
    add = command(portal, "add", _portal_add, "listen on one more address", "blockyard portal add 192.0.2.1 --group 2")
    add.add_argument("portal", metavar="ADDR[:PORT]", help="the address; IPv6 in brackets")
    add.add_argument("--group", metavar="TAG", type=int, default=PORTAL_GROUP, help="the portal group (default: 1)")
    out = command(portal, "remove", _portal_remove, "listen on an address no more")
    out.add_argument("portal", metavar="ADDR[:PORT]", help="the address")
    listing = command(portal, "list", _portals, "list portals")
    listing.add_argument("--json", action="store_true", help="as JSON")
    access = family(commands, "access", "rules of who may do what: the first that matches decides (docs/access.md)")
    rule = command(
        access,
        "add",
        _rule_add,
        "add a rule to a target",
        f"blockyard access add {_IQN} --initiator 'iqn.*:db-*' --right full",
    )
    rule.add_argument("target", metavar="IQN", help=_WHOSE)
    rule.add_argument("--at", metavar="N", type=int, help="as the rule with this number (default: the last)")
    add_options(rule, _RULE)
    gone = command(access, "remove", _rule_remove, "take a rule from a target", f"blockyard access remove {_IQN} 2")
    gone.add_argument("target", metavar="IQN", help=_WHOSE)
    gone.add_argument("number", metavar="N", type=int, help="the rule, as `blockyard access list` numbers it")
    rules = command(access, "list", _rules, "list the rules of a target")
    rules.add_argument("target", metavar="IQN", help=_WHOSE)
    rules.add_argument("--json", action="store_true", help="as JSON")


# ---- LUNs


def _map(directory: Path, options: argparse.Namespace) -> None:
    def edit(data: Data) -> None:
        luns = entry(data, "target", "targets", options.target).setdefault("luns", {})
        number = options.lun
        if number is None:
            number = next(lun for lun in range(len(luns) + 1) if str(lun) not in luns)
        if str(number) in luns:
            raise UsageError(f"LUN {number} is {luns[str(number)]}: unmap it first, or choose another")
        luns[str(number)] = options.volume

    tell(change(directory, edit))


def _unmap(directory: Path, options: argparse.Namespace) -> None:
    def edit(data: Data) -> None:
        luns = entry(data, "target", "targets", options.target).get("luns", {})
        if str(options.lun) not in luns:
            raise UsageError(f"{options.target} has no LUN {options.lun}; it has: {', '.join(luns) or 'none'}")
        del luns[str(options.lun)]

    tell(change(directory, edit))


def _luns(directory: Path, options: argparse.Namespace) -> None:
    data = look(directory)
    if options.target:
        entry(data, "target", "targets", options.target)
    found = {
        name: target.get("luns", {})
        for name, target in data.get("targets", {}).items()
        if options.target in (None, name)
    }
    rows = [(name, lun, volume) for name, luns in found.items() for lun, volume in luns.items()]
    show(options, found, ("TARGET", "LUN", "VOLUME"), rows, none="there is no LUN")


# ---- portals


def _written(text: str) -> str:
    try:
        return portal_from(text).written
    except ValueError:
        raise UsageError(f"{text!r} is no address, such as 192.0.2.1:3260 or [2001:db8::1]:3260") from None


def _portal_add(directory: Path, options: argparse.Namespace) -> None:
    portal = _written(options.portal)

    def edit(data: Data) -> None:
        table_of(data, "portal_groups", str(options.group)).setdefault("portals", []).append(portal)

    tell(change(directory, edit))


def _portal_remove(directory: Path, options: argparse.Namespace) -> None:
    portal = _written(options.portal)

    def edit(data: Data) -> None:
        groups = table_of(data, "portal_groups")
        tag = next((tag for tag, group in groups.items() if portal in group["portals"]), None)
        if tag is None:
            raise UsageError(f"there is no portal {portal}: `blockyard portal list` lists them")
        groups[tag]["portals"].remove(portal)
        if not groups[tag]["portals"]:
            del groups[tag]

    tell(change(directory, edit))


def _portals(directory: Path, options: argparse.Namespace) -> None:
    found = look(directory).get("portal_groups", {})
    rows = [(tag, portal) for tag, group in found.items() for portal in group["portals"]]
    show(options, found, ("GROUP", "PORTAL"), rows, none="there is no portal")


# ---- access


def _access_of(data: Data, target: str) -> Data:
    return table_of(data, _DISCOVERY) if target == _DISCOVERY else entry(data, "target", "targets", target)


def _rule_add(directory: Path, options: argparse.Namespace) -> None:
    rule = values(options, _RULE)
    if "luns" in rule:
        pairs = [text.partition("=") for text in rule["luns"]]
        if any(not (lun.isdecimal() and volume) for lun, _, volume in pairs):
            raise UsageError("--lun is LUN=VOLUME, such as 0=db")
        rule["luns"] = {lun: volume for lun, _, volume in pairs}

    def edit(data: Data) -> None:
        rules = _access_of(data, options.target).setdefault("access", [])
        rules.insert(len(rules) if options.at is None else options.at, rule)

    tell(change(directory, edit))


def _rule_remove(directory: Path, options: argparse.Namespace) -> None:
    def edit(data: Data) -> None:
        rules = _access_of(data, options.target).get("access", [])
        if not 0 <= options.number < len(rules):
            raise UsageError(f"there is no rule {options.number}: `blockyard access list {options.target}` lists them")
        del rules[options.number]

    tell(change(directory, edit))


def _rules(directory: Path, options: argparse.Namespace) -> None:
    rules = _access_of(look(directory), options.target).get("access", [])
    rows = [
        (
            str(number),
            rule.get("right", "full"),
            json.dumps({name: each for name, each in rule.items() if name != "right"}),
        )
        for number, rule in enumerate(rules)
    ]
    show(options, rules, ("RULE", "RIGHT", "FOR"), rows, none="there is no rule: everybody may do everything")
