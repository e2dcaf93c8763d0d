"""`blockyard tape`: tape libraries and their cartridges, while they are served (docs/tape.md)."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from blockyard.block.size import format_size
from blockyard.cli import parsers
from blockyard.cli.media_jobs import add_no_wait, follow
from blockyard.cli.nouns import LIBRARY, add_noun
from blockyard.cli.output import confirm, show, table
from blockyard.cli.parsers import Action, Subparsers, family
from blockyard.control.administration import ask
from blockyard.media.generations import GENERATIONS

_EXIT_STATUS = """\
exit status:
  0  done
  1  something failed
  2  it does not make sense: no such library, cartridge or element, or the place is taken
  7  nobody serves with this state directory, or its user is another one
"""


def add_commands(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `tape` to the commands."""
    tape = family(commands, "tape", "tape libraries, their drives and cartridges")
    library = family(tape, "library", "tape libraries")
    add_noun(library, LIBRARY, listing=False)
    listing = _command(library, "list", _list, "list the libraries that are served")
    listing.add_argument("--json", action="store_true", help="as JSON")
    status = _command(library, "status", _status, "show the drives of a library, and what is in its elements")
    _library(status)
    status.add_argument("--json", action="store_true", help="as JSON")
    cartridge = family(tape, "cartridge", "cartridges")
    cartridges = _command(cartridge, "list", _cartridges, "list the cartridges of a library, those on the shelf too")
    _library(cartridges)
    cartridges.add_argument("--json", action="store_true", help="as JSON")
    create = _command(cartridge, "create", _create, "make an empty cartridge and put it into a slot")
    _library(create)
    create.add_argument(
        "barcode", metavar="BARCODE", help="capital letters and digits; the last two may say the generation: A00001L8"
    )
    create.add_argument("--size", metavar="SIZE", help="its capacity (default: that of its generation)")
    create.add_argument(
        "--generation", metavar="LTO-N", choices=list(GENERATIONS), help="instead of what the barcode says"
    )
    create.add_argument("--worm", action="store_true", help="what is written stays (also by barcodes with LV to LZ)")
    place = create.add_mutually_exclusive_group()
    place.add_argument("--element", metavar="ELEMENT", help="slot-N or io-N (default: the first free slot)")
    place.add_argument(
        "--count", metavar="N", type=int, help="so many: A00001L8, A00002L8 and so on, each in the first free slot"
    )
    add_no_wait(create)
    bring = _command(
        cartridge, "import", _import, "put a cartridge from the shelf, or made of a file, into an import/export element"
    )
    _library(bring)
    bring.add_argument("barcode", metavar="BARCODE", help="the cartridge")
    bring.add_argument("--element", metavar="ELEMENT", help="slot-N or io-N (default: the first free io)")
    bring.add_argument("--file", metavar="FILE", help="a tape image (SIMH) that becomes this new cartridge")
    bring.add_argument("--size", metavar="SIZE", help="with --file: its capacity (default: that of its generation)")
    add_no_wait(bring)
    away = _command(
        cartridge, "export", _export, "take a cartridge out of a library, on the shelf; or copy what is on it to a file"
    )
    _library(away)
    away.add_argument("barcode", metavar="BARCODE", help="the cartridge")
    away.add_argument("--file", metavar="FILE", help="the new tape image (SIMH); the cartridge stays in its place")
    away.add_argument("--partition", metavar="N", type=int, default=0, help="with --file: which one (default: 0)")
    add_no_wait(away)
    protect = _command(
        cartridge, "protect", _protect, "move the write-protect switch of a cartridge that is in no drive"
    )
    _library(protect)
    protect.add_argument("barcode", metavar="BARCODE", help="the cartridge")
    protect.add_argument("--off", action="store_true", help="it can be written again")
    label = _command(cartridge, "label", _label, "give a cartridge that is in no drive another barcode")
    _library(label)
    label.add_argument("barcode", metavar="BARCODE", help="the cartridge")
    label.add_argument("to", metavar="NEW", help="the new barcode, whose end says the same of the cartridge")
    delete = _command(
        cartridge, "delete", _delete, "throw cartridges away that are in no drive, with all that is on them"
    )
    _library(delete)
    delete.add_argument("barcodes", metavar="BARCODE", nargs="+", help="the cartridges")
    delete.add_argument("--yes", action="store_true", help="do not ask")
    move = _command(tape, "move", _move, "move a cartridge within a library, as an initiator would")
    _library(move)
    move.add_argument("source", metavar="FROM", help="an element (slot-3, drive-1, io-1) or a barcode")
    move.add_argument("destination", metavar="TO", help="an element")


def _library(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("library", metavar="LIBRARY", help="its name, as `blockyard tape library list` shows it")


def _command(
    commands: Subparsers[argparse.ArgumentParser], name: str, action: Action, what: str
) -> argparse.ArgumentParser:
    return parsers.command(commands, name, action, what, epilog=_EXIT_STATUS)


def _ask(directory: Path, options: argparse.Namespace, request: str, **arguments: object) -> dict[str, Any]:
    found: dict[str, Any] = ask(directory, "tape", library=options.library, request=request, **arguments)
    return found


def _list(directory: Path, options: argparse.Namespace) -> None:
    found = ask(directory, "tape libraries")
    rows = [
        (
            name,
            library["model"],
            str(library["counts"]["drives"]),
            str(library["counts"]["slots"]),
            str(library["counts"]["import_export"]),
            library["directory"],
        )
        for name, library in found.items()
    ]
    show(
        options,
        found,
        ("LIBRARY", "MODEL", "DRIVES", "SLOTS", "IO", "DIRECTORY"),
        rows,
        none="no tape library is served",
    )


def _status(directory: Path, options: argparse.Namespace) -> None:
    found = _ask(directory, options, "status")
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{options.library}, {found['model']}, in {found['directory']}{', locked' if found['locked'] else ''}")
    drives = [
        (
            drive["element"],
            str(drive["lun"]),
            drive["product"],
            drive["serial"],
            drive["cartridge"] or "-",
            drive["state"],
        )
        for drive in found["drives"]
    ]
    print("\n".join(table([("DRIVE", "LUN", "PRODUCT", "SERIAL", "CARTRIDGE", "STATE"), *drives])))
    elements = list(found["elements"].items())
    counts = found["counts"]
    print(f"{len(elements)} of {counts['slots']} slots and {counts['import_export']} import/export elements are full")
    if elements:
        print("\n".join(table([("ELEMENT", "CARTRIDGE"), *elements])))


def _cartridges(directory: Path, options: argparse.Namespace) -> None:
    found = _ask(directory, options, "cartridges")["cartridges"]
    rows = [(barcode, *_row(cartridge)) for barcode, cartridge in found.items()]
    head = ("CARTRIDGE", "ELEMENT", "GENERATION", "CAPACITY", "USED", "LOADS", "FLAGS")
    show(options, found, head, rows, none=f"{options.library} has no cartridges")


def _row(cartridge: dict[str, Any]) -> tuple[str, ...]:
    where = cartridge["element"] or "shelf"
    if "error" in cartridge:
        return where, "-", "-", "-", "-", cartridge["error"]
    flags = ", ".join(flag.replace("_", " ") for flag in ("worm", "write_protected") if cartridge[flag])
    sizes = (format_size(cartridge[name]) for name in ("capacity", "used"))
    return where, cartridge["generation"], *sizes, str(cartridge["loads"]), flags or "-"


def _create(directory: Path, options: argparse.Namespace) -> None:
    names = ("barcode", "size", "generation", "worm", "element", "count")
    arguments = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.count is not None:
        number = _ask(directory, options, "create many", **arguments)["job"]
        follow(directory, options, f"library:{options.library}", number)
        return
    found = _ask(directory, options, "create", **arguments)
    print(f"{options.barcode} is in {found['element']}")


def _import(directory: Path, options: argparse.Namespace) -> None:
    if options.file is not None:
        wanted = {"element": options.element, "size": options.size}
        _copy(
            directory, options, "import image", **{name: value for name, value in wanted.items() if value is not None}
        )
        return
    found = _ask(directory, options, "import", barcode=options.barcode, element=options.element)
    print(f"{options.barcode} is in {found['element']}")


def _export(directory: Path, options: argparse.Namespace) -> None:
    if options.file is not None:
        _copy(directory, options, "export image", partition=options.partition)
        return
    found = _ask(directory, options, "export", barcode=options.barcode)
    print(f"{options.barcode} was in {found['element']}, and is on the shelf")


def _copy(directory: Path, options: argparse.Namespace, request: str, **arguments: object) -> None:
    file = os.path.abspath(options.file)
    number = _ask(directory, options, request, barcode=options.barcode, file=file, **arguments)["job"]
    follow(directory, options, f"library:{options.library}", number)


def _protect(directory: Path, options: argparse.Namespace) -> None:
    _ask(directory, options, "protect", barcode=options.barcode, protected=not options.off)
    print(f"{options.barcode} {'can be written' if options.off else 'is write-protected'}")


def _label(directory: Path, options: argparse.Namespace) -> None:
    found = _ask(directory, options, "label", barcode=options.barcode, to=options.to)
    place = "on the shelf" if found["element"] is None else f"in {found['element']}"
    print(f"{options.barcode} is {options.to} now, and is {place}")


def _delete(directory: Path, options: argparse.Namespace) -> None:
    barcodes = list(dict.fromkeys(options.barcodes))
    which, name = f"the cartridge {barcodes[0]} will be gone, with all that is on it", barcodes[0]
    if len(barcodes) > 1:
        which, name = f"{len(barcodes)} cartridges will be gone, with all that is on them", options.library
    confirm(options, name, which)
    for barcode in barcodes:
        _ask(directory, options, "remove", barcode=barcode)
        print(f"{barcode} is gone")


def _move(directory: Path, options: argparse.Namespace) -> None:
    found = _ask(directory, options, "move", source=options.source, destination=options.destination)
    print(f"moved from {found['from']} to {found['to']}")
