"""`blockyard volume`, `snapshot` and `clone`: what is in pools (docs/pools.md)."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from blockyard.block.size import format_size
from blockyard.cli.nouns import VOLUME, VOLUME_OPTIONS, add_options, create, remove, update, values
from blockyard.cli.output import confirm, moment, show
from blockyard.cli.parsers import Subparsers, family
from blockyard.cli.pools import ask_pool, command, named, size_of, wait_until_freed, watch_job
from blockyard.control.administration import ask
from blockyard.control.errors import UsageError

_VOLUME, _SNAPSHOT = "POOL/VOLUME", "POOL/VOLUME@SNAPSHOT"
_SIZE = "bytes, or with K, M, G, T (powers of 1024)"


def add_commands(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `volume`, `snapshot` and `clone` to the commands."""
    _add_volume(family(commands, "volume", "volumes: those of pools, and their sizes"))
    _add_snapshot(family(commands, "snapshot", "snapshots of volumes of pools"))
    clone = family(commands, "clone", "volumes that begin as a snapshot")
    make = command(
        clone, "create", _clone, "make a volume that begins as a snapshot, and takes space for what changes only"
    )
    make.add_argument("source", metavar=_SNAPSHOT, help="the snapshot")
    make.add_argument("name", metavar=_VOLUME, help="the new volume, in the same pool")


def _add_volume(volume: Subparsers[argparse.ArgumentParser]) -> None:
    make = command(
        volume, "create", _create, "make a thin volume in a pool, or serve a file, device or stack as a volume"
    )
    make.add_argument("name", metavar=_VOLUME, help="what to call it; without a pool, it is one of --path or --stack")
    make.add_argument("size", metavar="SIZE", nargs="?", help=f"{_SIZE}; it takes no space before it is written")
    add_options(make, (each for each in VOLUME_OPTIONS if each.field not in ("size", "pool")))
    make.add_argument("--pool", metavar="POOL", help="show a volume of this pool under a name of its own")
    make.add_argument(
        "--chunk",
        metavar="SIZE",
        help="in what it takes and shares space: 4K to 4M, a power of two (default: 16K). Small ones cost memory, large "
        "ones space",
    )
    make.add_argument(
        "--checksums",
        action="store_true",
        help="verify all that is read; takes speed, as nothing is written in place then",
    )
    _add_options(make)
    change = command(
        volume, "set", _set, "change a volume: its limits in its pool, or how a volume of the configuration is"
    )
    change.add_argument("name", metavar=_VOLUME, help="the volume")
    add_options(change, VOLUME_OPTIONS)
    _add_options(change)
    listing = command(volume, "list", _list, "list the volumes of pools")
    listing.add_argument("pool", metavar="POOL", nargs="?", help="of this pool only")
    listing.add_argument("--json", action="store_true", help="as JSON")
    showing = command(volume, "show", _show, "show a volume of a pool")
    showing.add_argument("name", metavar=_VOLUME, help="the volume")
    showing.add_argument("--json", action="store_true", help="as JSON")
    usage = command(volume, "usage", _usage, "show what a volume and each of its snapshots have alone, and share")
    usage.add_argument("name", metavar=_VOLUME, help="the volume")
    usage.add_argument("--json", action="store_true", help="as JSON")
    resize = command(volume, "resize", _resize, "give a volume another size while it is served; initiators are told")
    resize.add_argument("name", metavar="NAME", help=f"the volume, as `blockyard status` calls it, or {_VOLUME}")
    resize.add_argument("size", metavar="SIZE", help=f"its new size: {_SIZE}")
    resize.add_argument(
        "--force",
        action="store_true",
        help="cut off data when it becomes smaller, which is possible in pools and while nobody is logged in to it",
    )
    delete = command(
        volume,
        "delete",
        _delete,
        "delete a volume of a pool and all that is in it; of the configuration: serve it no more, its data stays",
    )
    delete.add_argument("name", metavar=_VOLUME, help="the volume")
    _add_wait(delete)
    delete.add_argument("--snapshots", action="store_true", help="with its snapshots; clones of them stay")
    delete.add_argument("--yes", action="store_true", help="without being asked")


def _add_wait(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--wait", action="store_true", help="until the space is freed, and show how that goes on")


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quota", metavar="SIZE", help="the most that it may take with its snapshots; none: no limit")
    parser.add_argument(
        "--reservation", metavar="SIZE", help="space that is kept for it in any case; none: no such space"
    )
    parser.add_argument(
        "--zero-detection", choices=("on", "off"), help="whether chunks that are written with zeros take no space"
    )


def _options(options: argparse.Namespace) -> dict[str, int | bool]:
    """The limits that were said. Raises UsageError."""
    found: dict[str, int | bool] = {}
    for name in ("quota", "reservation"):
        text = getattr(options, name)
        if text is not None:
            found[name] = 0 if text == "none" else size_of(text)
    if options.zero_detection is not None:
        found["zero_detection"] = options.zero_detection == "on"
    return found


def _add_snapshot(snapshot: Subparsers[argparse.ArgumentParser]) -> None:
    make = command(snapshot, "create", _take, "take a snapshot of a volume, or of several at one moment")
    make.add_argument(
        "names",
        metavar=f"{_VOLUME}[@SNAPSHOT]",
        nargs="+",
        help="the volumes, all of one pool; the name of the snapshot with any of them (default: the time)",
    )
    listing = command(snapshot, "list", _list_snapshots, "list snapshots, the oldest first")
    listing.add_argument("name", metavar="POOL[/VOLUME]", help="of this volume, or of all in this pool")
    listing.add_argument("--json", action="store_true", help="as JSON")
    delete = command(snapshot, "delete", _delete_snapshots, "delete snapshots; their space is freed in the background")
    delete.add_argument("names", metavar=_SNAPSHOT, nargs="+", help="the snapshots, in any order")
    _add_wait(delete)
    delete.add_argument("--yes", action="store_true", help="without being asked")
    back = command(
        snapshot, "rollback", _roll_back, "make a volume what it was at a snapshot; nobody may be logged in to it"
    )
    back.add_argument("name", metavar=_SNAPSHOT, help="the snapshot")
    back.add_argument("--yes", action="store_true", help="without being asked")


# ---- volumes


def _create(directory: Path, options: argparse.Namespace) -> None:
    if "/" not in options.name:
        given = values(options, VOLUME_OPTIONS)
        if not given.keys() & {"path", "stack", "pool"}:
            raise UsageError(f"{options.name!r} is not POOL/VOLUME: for another volume say --path, --stack or --pool")
        create(directory, VOLUME, options.name, given)
        return
    if values(options, (each for each in VOLUME_OPTIONS if each.field != "size")):
        raise UsageError("a volume of a pool has none of the options that say what a volume of the configuration is")
    if options.size is None:
        raise UsageError(f"{options.name} needs a size: {_SIZE}")
    name, size = named(options.name, _VOLUME), size_of(options.size)
    chunk = None if options.chunk is None else size_of(options.chunk)
    arguments = {"volume": name.volume, "size": size, "chunk": chunk, "checksums": options.checksums}
    ask_pool(directory, name.pool, "create volume", **arguments, **_options(options))
    print(f"{name} has {format_size(size)}")


def _set(directory: Path, options: argparse.Namespace) -> None:
    if "/" not in options.name:
        update(directory, VOLUME, options.name, values(options, VOLUME_OPTIONS))
        return
    name, wanted = named(options.name, _VOLUME), _options(options)
    if not wanted:
        raise UsageError("there is nothing to change: give --quota, --reservation or --zero-detection")
    ask_pool(directory, name.pool, "set volume", volume=name.volume, **wanted)
    print(f"{name} is changed")


def _list(directory: Path, options: argparse.Namespace) -> None:
    served = {} if options.pool else ask(directory, "pools")
    pools = [options.pool] if options.pool else [name for name, pool in served.items() if "error" not in pool]
    found = {
        f"{pool}/{name}": volume
        for pool in pools
        for name, volume in ask_pool(directory, pool, "volumes")["volumes"].items()
    }
    head = ("VOLUME", "SIZE", "MAPPED", "USED", "CHUNK", "SNAPSHOTS", "CLONE OF", "IN USE BY")
    rows = [
        (name, *(format_size(volume[key]) for key in ("size", "mapped", "used", "chunk")), str(volume["snapshots"]),
         volume["origin"] or "-", ", ".join(volume["initiators"]) or "-")
        for name, volume in found.items()
    ]  # fmt: skip
    show(options, found, head, rows, none="there is no volume")


def _show(directory: Path, options: argparse.Namespace) -> None:
    name = named(options.name, _VOLUME)
    found: dict[str, Any] = ask_pool(directory, name.pool, "volumes", volume=name.volume)["volumes"][name.volume]
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print(f"volume {name}")
    lines = {
        "size": f"{format_size(found['size'])} ({found['size']} bytes)",
        "mapped": format_size(found["mapped"]),
        "used": f"{format_size(found['used'])}, with its snapshots",
        "chunk": format_size(found["chunk"]) + (", each with a checksum" if found["checksums"] else ""),
        "quota": format_size(found["quota"]) if found["quota"] else "none",
        "reserved": format_size(found["reservation"]) if found["reservation"] else "none",
        "zeros": "take no space" if found["zero_detection"] else "take space when they are written",
        "identity": found["uuid"],
        "clone of": found["origin"] or "-",
        "snapshots": str(found["snapshots"]),
        "in use by": ", ".join(found["initiators"]) or "nobody",
    }
    for key, value in lines.items():
        print(f"  {key:<10} {value}")


def _usage(directory: Path, options: argparse.Namespace) -> None:
    name = named(options.name, _VOLUME)
    number = ask_pool(directory, name.pool, "survey", volume=name.volume)["job"]
    watch_job(directory, name.pool, number)
    jobs = ask_pool(directory, name.pool, "jobs")["jobs"]
    found = next(job["details"] for job in jobs if job["number"] == number)
    shares = {str(name): found["now"], **{f"{name}@{each}": share for each, share in found["snapshots"].items()}}
    rows = [
        (label, format_size(share["seen"]), format_size(share["own"]), format_size(share["seen"] - share["own"]))
        for label, share in shares.items()
    ]
    rows += [
        (what, "-", format_size(found[key]), "-")
        for what, key in (("journal and hidden snapshots", "unnamed"), ("to be freed", "leaving"))
        if found[key]
    ]
    show(options, found, ("OF", "HAS", "ALONE", "SHARED"), rows, none="")


def _resize(directory: Path, options: argparse.Namespace) -> None:
    size = ask(directory, "volume resize", volume=options.name, size=options.size, force=options.force)["size"]
    print(f"{options.name} has {format_size(size)} now")


def _delete(directory: Path, options: argparse.Namespace) -> None:
    if "/" not in options.name:
        remove(directory, VOLUME, options.name)
        return
    name = named(options.name, _VOLUME)
    confirm(options, str(name), f"{name} and all that is in it will be lost")
    ask_pool(directory, name.pool, "delete volume", volume=name.volume, snapshots=options.snapshots)
    print(f"{name} is deleted; its space {_freed(directory, options, {name.pool})}")


def _freed(directory: Path, options: argparse.Namespace, pools: Collection[str]) -> str:
    """What became of space, after having waited for it where that was wanted."""
    for pool in pools if options.wait else ():
        wait_until_freed(directory, pool)
    return "is free" if options.wait else "is freed in the background"


# ---- snapshots and clones


def _take(directory: Path, options: argparse.Namespace) -> None:
    pools, volumes, snapshots = set(), [], set()
    for text in options.names:
        name = named(text, _SNAPSHOT if "@" in text else _VOLUME)
        pools.add(name.pool)
        volumes.append(name.volume)
        snapshots.add(name.snapshot)
    snapshots.discard("")
    if len(pools) > 1 or len(snapshots) > 1 or len(set(volumes)) < len(volumes):
        raise UsageError("a snapshot is of volumes of one pool, each once, and has one name")
    pool, snapshot = pools.pop(), snapshots.pop() if snapshots else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    ask_pool(directory, pool, "create snapshot", volumes=volumes, snapshot=snapshot)
    for volume in volumes:
        print(f"{pool}/{volume}@{snapshot}")


def _list_snapshots(directory: Path, options: argparse.Namespace) -> None:
    name = named(options.name, _VOLUME if "/" in options.name else "POOL")
    found = ask_pool(directory, name.pool, "snapshots", volume=name.volume)["snapshots"]
    rows = [
        (f"{name.pool}/{each['volume']}@{each['name']}", moment(each["time"]), format_size(each["size"]))
        for each in found
    ]
    show(options, found, ("SNAPSHOT", "TAKEN", "SIZE OF THE VOLUME"), rows, none="there is no snapshot")


def _delete_snapshots(directory: Path, options: argparse.Namespace) -> None:
    names = [named(text, _SNAPSHOT) for text in options.names]
    what = str(names[0]) if len(names) == 1 else f"{len(names)} snapshots"
    confirm(options, what if len(names) == 1 else "yes", f"{what} will be lost")
    by_volume: dict[tuple[str, str], list[str]] = {}
    for name in names:
        by_volume.setdefault((name.pool, name.volume), []).append(name.snapshot)
    for (pool, volume), snapshots in by_volume.items():
        ask_pool(directory, pool, "delete snapshots", volume=volume, snapshots=snapshots)
    print(f"{what} deleted; the space {_freed(directory, options, {name.pool for name in names})}")


def _roll_back(directory: Path, options: argparse.Namespace) -> None:
    name = named(options.name, _SNAPSHOT)
    volume = f"{name.pool}/{name.volume}"
    confirm(options, volume, f"all that was written to {volume} since {name.snapshot} will be lost")
    ask_pool(directory, name.pool, "roll back", volume=name.volume, snapshot=name.snapshot)
    print(f"{volume} is what it was at {name.snapshot}")


def _clone(directory: Path, options: argparse.Namespace) -> None:
    source, name = named(options.source, _SNAPSHOT), named(options.name, _VOLUME)
    if source.pool != name.pool:
        raise UsageError("a clone shares space with its snapshot: it is in the same pool")
    ask_pool(directory, name.pool, "create clone", volume=source.volume, snapshot=source.snapshot, clone=name.volume)
    print(f"{name} begins as {source}")
