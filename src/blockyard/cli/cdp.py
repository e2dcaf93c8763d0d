"""`blockyard cdp`: continuous data protection of volumes (docs/cdp.md)."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from blockyard.block.size import format_size
from blockyard.cli.output import confirm, show
from blockyard.cli.parsers import Subparsers, family
from blockyard.cli.pools import ask_pool, command, named, size_of, watch_job
from blockyard.control.administration import ask
from blockyard.control.errors import UsageError
from blockyard.pool import instant

_VOLUME, _MOMENT = "POOL/VOLUME", "POOL/VOLUME@MOMENT"
_A_MOMENT = "2026-11-22T12:00:01.5Z, -5m, or the name of a bookmark"


def add_commands(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `cdp` to the commands."""
    cdp = family(commands, "cdp", "continuous data protection: volumes as they were at any moment")
    on = command(cdp, "on", _on, "have every write to a volume kept with its time, or change for how long")
    on.add_argument("name", metavar=_VOLUME, help="the volume")
    on.add_argument(
        "--time", metavar="TIME", help="how far back moments are kept: 24h, 90m, 7d (default: 24h); 0s: all"
    )
    on.add_argument(
        "--size", metavar="SIZE", help="how much space they may take, the oldest go first: 10G (default: any)"
    )
    off = command(cdp, "off", _off, "keep writes to a volume no more; all moments are lost that no bookmark keeps")
    off.add_argument("name", metavar=_VOLUME, help="the volume")
    off.add_argument("--yes", action="store_true", help="without being asked")
    showing = command(cdp, "show", _show, "show how far back volumes can be seen, and what that costs")
    showing.add_argument("name", metavar=_VOLUME, nargs="?", help="this volume, with its bookmarks (default: all)")
    showing.add_argument("--json", action="store_true", help="as JSON; times in nanoseconds since 1970")
    mark = command(cdp, "bookmark", _bookmark, "give a moment of a volume a name")
    mark.add_argument("name", metavar=f"{_VOLUME}[@MOMENT]", help=f"the moment: {_A_MOMENT} (default: now)")
    mark.add_argument("bookmark", metavar="NAME", help="what to call it")
    mark.add_argument("--keep", action="store_true", help="keep the moment, however old it is")
    mark.add_argument("--delete", action="store_true", help="forget the name instead; of POOL/VOLUME only")
    make = command(cdp, "open", _open, "make a volume that begins as a moment of another, and can be written")
    make.add_argument("source", metavar=_MOMENT, help=f"the moment: {_A_MOMENT}")
    make.add_argument("name", metavar=_VOLUME, help="the new volume, in the same pool")
    back = command(cdp, "rollback", _roll_back, "make a volume what it was at a moment; nobody may be logged in to it")
    back.add_argument("name", metavar=_MOMENT, help=f"the moment: {_A_MOMENT}")
    back.add_argument("--yes", action="store_true", help="without being asked")
    copy = command(cdp, "copy", _copy, "copy a moment of a volume to a new file on the server")
    copy.add_argument("name", metavar=_MOMENT, help=f"the moment: {_A_MOMENT}")
    copy.add_argument("path", metavar="FILE", help="the file, sparse; it must not be there yet")


def _on(directory: Path, options: argparse.Namespace) -> None:
    name = named(options.name, _VOLUME)
    time = None if options.time is None else _length(options.time)
    size = None if options.size is None else size_of(options.size)
    ask_pool(directory, name.pool, "cdp on", volume=name.volume, time=time, size=size)
    print(f"{name} is protected: every moment from now on can be seen again")


def _off(directory: Path, options: argparse.Namespace) -> None:
    name = named(options.name, _VOLUME)
    confirm(options, str(name), f"all moments of {name} will be lost that no bookmark keeps")
    ask_pool(directory, name.pool, "cdp off", volume=name.volume)
    print(f"{name} is not protected any more; the space is freed in the background")


def _show(directory: Path, options: argparse.Namespace) -> None:
    chosen = named(options.name, _VOLUME) if options.name else None
    pools = [chosen.pool] if chosen else ask(directory, "pools")
    found = {
        f"{pool}/{name}": journal
        for pool in pools
        for name, journal in ask_pool(directory, pool, "cdp show", volume=chosen.volume if chosen else None)[
            "journals"
        ].items()
    }
    if chosen is not None and not options.json:
        _show_one(str(chosen), found[str(chosen)])
        return
    head = ("VOLUME", "PROTECTED", "WINDOW", "BACK TO", "WRITES", "SPACE", "BOOKMARKS")
    rows = [
        (name, "yes" if each["on"] else "no", _window(each), _since(each), str(each["writes"]),
         format_size(each["held"]), str(len(each["bookmarks"])))
        for name, each in found.items()
    ]  # fmt: skip
    show(options, found, head, rows, none="no volume is protected continuously")


def _show_one(name: str, found: dict[str, Any]) -> None:
    print(f"volume {name}")
    lines = {
        "protected": "yes" if found["on"] else "no",
        "window": _window(found),
        "back to": _since(found),
        "writes": f"{found['writes']}, in {found['segments']} segments",
        "space": f"{format_size(found['held'])} for the journal alone",
    }
    if found["ahead"] >= 1_000_000_000:
        lines["clock"] = f"{instant.show_length(found['ahead'])} ahead of the machine's, which was set back"
    for key, value in lines.items():
        print(f"  {key:<10} {value}")
    for start, end in found["spans"][:-1] if len(found["spans"]) > 1 else ():
        print(f"  besides    from {instant.show(start)} to {instant.show(end)}")
    for label, mark in sorted(found["bookmarks"].items(), key=lambda each: each[1]["time"]):
        print(f"  bookmark   {label}: {instant.show(mark['time'])}{', kept' if mark['keep'] else ''}")


def _window(found: dict[str, Any]) -> str:
    limits = [instant.show_length(found["time"])] if found["time"] else []
    limits += [format_size(found["size"])] if found["size"] else []
    return " and ".join(limits) or "no limit"


def _since(found: dict[str, Any]) -> str:
    if not found["spans"]:
        return "-"
    start = found["spans"][-1][0]
    return f"{instant.show(start // 1_000_000_000 * 1_000_000_000)}, {instant.show_length(found['now'] - start)} ago"


def _bookmark(directory: Path, options: argparse.Namespace) -> None:
    name = named(options.name, _MOMENT if "@" in options.name else _VOLUME)
    if options.delete:
        if name.snapshot or options.keep:
            raise UsageError("to forget a bookmark, say of which volume and its name, and nothing else")
        ask_pool(directory, name.pool, "cdp delete bookmark", volume=name.volume, bookmark=options.bookmark)
        print(f"{options.bookmark} is forgotten")
        return
    reply = ask_pool(
        directory, name.pool, "cdp bookmark", volume=name.volume, moment=name.snapshot, bookmark=options.bookmark,
        keep=options.keep,
    )  # fmt: skip
    print(f"{options.bookmark} is {name.pool}/{name.volume}@{instant.show(reply['time'])}")


def _open(directory: Path, options: argparse.Namespace) -> None:
    source, name = named(options.source, _MOMENT), named(options.name, _VOLUME)
    if source.pool != name.pool:
        raise UsageError("the new volume shares space with what it begins as: it is in the same pool")
    reply = ask_pool(directory, name.pool, "cdp clone", volume=source.volume, moment=source.snapshot, clone=name.volume)
    print(f"{name} begins as {source.pool}/{source.volume}@{instant.show(reply['time'])}")


def _roll_back(directory: Path, options: argparse.Namespace) -> None:
    name = named(options.name, _MOMENT)
    volume = f"{name.pool}/{name.volume}"
    confirm(options, volume, f"{volume} will be what it was at {name.snapshot}")
    reply = ask_pool(directory, name.pool, "cdp roll back", volume=name.volume, moment=name.snapshot)
    print(f"{volume} is what it was at {instant.show(reply['time'])}")
    print(f"to undo this: blockyard cdp rollback {volume}@{instant.show(reply['before'])}")


def _copy(directory: Path, options: argparse.Namespace) -> None:
    name = named(options.name, _MOMENT)
    path = Path(options.path).absolute()
    reply = ask_pool(directory, name.pool, "cdp copy", volume=name.volume, moment=name.snapshot, path=str(path))
    watch_job(directory, name.pool, reply["job"])
    print(f"{path} is {name.pool}/{name.volume}@{instant.show(reply['time'])}")


def _length(text: str) -> int:
    try:
        return instant.parse_length(text)
    except ValueError as error:
        raise UsageError(str(error)) from None
