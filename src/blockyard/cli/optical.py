"""`blockyard optical`: what is in the optical drives that are served (docs/optical.md)."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from blockyard.block.size import format_size
from blockyard.cli import parsers
from blockyard.cli.media_jobs import add_no_wait, all_jobs, follow
from blockyard.cli.output import confirm, show, show_jobs
from blockyard.cli.parsers import Action, Subparsers, family
from blockyard.control.administration import ask
from blockyard.control.errors import UsageError
from blockyard.optical.kinds import AUTO, BD_RE, BLANKS, CD_R, KINDS

_EXIT_STATUS = """\
exit status:
  0  done
  1  something failed
  2  it does not make sense: no such drive or image, or an initiator does not eject the disc
  7  nobody serves with this state directory, or its user is another one
"""


def add_commands(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `optical` to the commands."""
    optical = family(commands, "optical", "optical drives: put discs in and take them out, and make them")
    insert = _command(optical, "insert", _insert, "put an image into a drive, in the place of what is there")
    insert.add_argument("drive", metavar="DRIVE", help="its name, as `blockyard optical status` shows it")
    insert.add_argument("image", metavar="IMAGE", help="the name of an image in its jukebox, or a path with a / in it")
    insert.add_argument(
        "--kind", choices=(*KINDS, AUTO), help="the disc that it is to be (default: what the drive says)"
    )
    insert.add_argument(
        "--blank",
        metavar="SIZE",
        help="make it: a blank disc of this size (25G, 80min), which takes no space before it is written",
    )
    _add_force(insert)
    eject = _command(optical, "eject", _eject, "take out what is in a drive")
    eject.add_argument("drive", metavar="DRIVE", help="its name")
    _add_force(eject)
    create = _command(optical, "create", _create, "make a blank disc, which takes no space before it is written")
    _disc(create)
    create.add_argument("--kind", choices=tuple(BLANKS), default=CD_R.name, help="the disc that it is (default: cd-r)")
    create.add_argument(
        "--size", metavar="SIZE", help="80min, 50G or another size (default: the usual one of its kind)"
    )
    close = _command(optical, "close", _close, "finalize a disc that is in no drive: nothing can be added then")
    _disc(close)
    blank = _command(optical, "blank", _blank, "take everything off a rewritable disc that is in no drive")
    _disc(blank)
    export = _command(
        optical, "export", _export, "write what is on a disc to an ISO image, or a cue sheet with its data"
    )
    _disc(export)
    export.add_argument("file", metavar="FILE", help="a new file: .iso, or .cue for a CD with audio tracks")
    add_no_wait(export)
    bring = _command(optical, "import", _import, "copy an image into the jukebox of a drive")
    bring.add_argument("drive", metavar="DRIVE", help="the drive whose jukebox it is to be in")
    bring.add_argument("file", metavar="FILE", help="an image, a cue sheet, or a disc that was burned")
    bring.add_argument(
        "image", metavar="DISC", help="its name in the jukebox: .iso, or .cue for a CD with audio tracks"
    )
    add_no_wait(bring)
    convert = _command(
        optical, "convert", _convert, "copy a disc under another name: an image of a cue sheet, or the other way round"
    )
    _disc(convert)
    convert.add_argument("name", metavar="NAME", help="the new one, in the jukebox: .iso, or .cue")
    add_no_wait(convert)
    rename = _command(optical, "rename", _rename, "give a disc that is in no drive another name")
    _disc(rename)
    rename.add_argument("name", metavar="NAME", help="the new one")
    remove = _command(optical, "remove", _remove, "throw a disc away that is in no drive")
    _disc(remove)
    remove.add_argument("--yes", action="store_true", help="do not ask")
    jobs = _command(optical, "jobs", _jobs, "show which discs and cartridges are being copied, and were of late")
    jobs.add_argument("--json", action="store_true", help="as JSON")
    cancel = _command(optical, "cancel", _cancel, "stop one of these jobs")
    cancel.add_argument("job", metavar="OWNER.JOB", help="as `blockyard optical jobs` shows it: drive:dvd.3")
    status = _command(optical, "status", _status, "show the drives, what is in them and who uses them")
    status.add_argument("--json", action="store_true", help="as JSON")
    listing = _command(optical, "list", _list, "list the images in the jukebox of a drive")
    listing.add_argument("drive", metavar="DRIVE", help="its name")
    listing.add_argument("--json", action="store_true", help="as JSON")


def _command(
    commands: Subparsers[argparse.ArgumentParser], name: str, action: Action, what: str
) -> argparse.ArgumentParser:
    return parsers.command(commands, name, action, what, epilog=_EXIT_STATUS)


def _disc(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("drive", metavar="DRIVE", help="the drive whose jukebox it is in, or whose server has it")
    parser.add_argument("image", metavar="DISC", help="its name in the jukebox, or a path with a / in it")


def _add_force(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--wait",
        metavar="SECONDS",
        type=int,
        default=10,
        help="where an initiator keeps the disc in, it is asked to eject it, and has this time for that (default: 10)",
    )
    parser.add_argument(
        "--force", action="store_true", help="even where an initiator keeps the disc in, which loses it while it reads"
    )


def _ask(directory: Path, options: argparse.Namespace, request: str, **arguments: object) -> Any:
    return ask(directory, "optical", drive=options.drive, request=request, **arguments)


def _image(options: argparse.Namespace) -> str:
    """The name of an image in the jukebox, or a path that means the same for the server."""
    image: str = options.image
    return os.path.abspath(image) if "/" in image else image


def _insert(directory: Path, options: argparse.Namespace) -> None:
    image = _image(options)
    kind = options.kind or (None if options.blank is None else BD_RE.name)
    _ask(
        directory,
        options,
        "insert",
        image=image,
        kind=kind,
        blank=options.blank,
        force=options.force,
        wait=options.wait,
    )
    print(f"{options.image} is in {options.drive}")


def _eject(directory: Path, options: argparse.Namespace) -> None:
    _ask(directory, options, "eject", force=options.force, wait=options.wait)
    print(f"{options.drive} is empty")


def _create(directory: Path, options: argparse.Namespace) -> None:
    found = _ask(directory, options, "create", image=_image(options), kind=options.kind, size=options.size)
    print(f"{found['image']} is a blank {options.kind.upper()} of {format_size(found['size'])}")


def _close(directory: Path, options: argparse.Namespace) -> None:
    _ask(directory, options, "close", image=_image(options))
    print(f"{options.image} is closed")


def _blank(directory: Path, options: argparse.Namespace) -> None:
    _ask(directory, options, "blank", image=_image(options))
    print(f"{options.image} is blank")


def _export(directory: Path, options: argparse.Namespace) -> None:
    _copy(directory, options, "export", image=_image(options), file=os.path.abspath(options.file))


def _import(directory: Path, options: argparse.Namespace) -> None:
    _copy(directory, options, "import", image=_image(options), file=os.path.abspath(options.file))


def _convert(directory: Path, options: argparse.Namespace) -> None:
    _copy(directory, options, "convert", image=_image(options), to=options.name)


def _copy(directory: Path, options: argparse.Namespace, request: str, **arguments: object) -> None:
    number = _ask(directory, options, request, **arguments)["job"]
    follow(directory, options, f"drive:{options.drive}", number)


def _rename(directory: Path, options: argparse.Namespace) -> None:
    found = _ask(directory, options, "rename", image=_image(options), to=options.name)
    print(f"{options.image} is {found['image']} now")


def _remove(directory: Path, options: argparse.Namespace) -> None:
    confirm(options, options.image, f"the disc {options.image} will be gone, with all that is on it")
    _ask(directory, options, "remove", image=_image(options))
    print(f"{options.image} is gone")


def _jobs(directory: Path, options: argparse.Namespace) -> None:
    jobs = all_jobs(directory)
    show_jobs(options, jobs if options.json else [{**job, "number": f"{job['owner']}.{job['number']}"} for job in jobs])


def _cancel(directory: Path, options: argparse.Namespace) -> None:
    owner, _, number = options.job.rpartition(".")
    if not number.isdecimal():
        raise UsageError(f"{options.job!r} is no job: `blockyard optical jobs` lists them")
    ask(directory, "media cancel", owner=owner, job=int(number))
    print(f"job {options.job} is told to stop")


def _status(directory: Path, options: argparse.Namespace) -> None:
    found = ask(directory, "optical drives")
    head = ("DRIVE", "STATE", "DISC", "SIZE", "SESSIONS", "LOCKED BY", "IMAGE")
    rows = [(name, drive["state"], *_loaded(drive), ", ".join(drive["locked_by"]) or "-", drive["image"] or "-")
            for name, drive in found.items()]  # fmt: skip
    show(options, found, head, rows, none="no drive is served")


def _loaded(drive: dict[str, Any]) -> tuple[str, str, str]:
    disc = drive["disc"]
    if not disc:
        return "-", "-", "-"
    return disc["kind"].upper(), format_size(disc["size"] or disc["capacity"]), str(len(disc["sessions"]))


def _list(directory: Path, options: argparse.Namespace) -> None:
    found = _ask(directory, options, "list")["images"]
    rows = [
        (name, format_size(image["size"]), image["kind"].upper() or "-", image["state"] or "-")
        for name, image in found.items()
    ]
    show(options, found, ("IMAGE", "SIZE", "DISC", "STATE"), rows, none="there is no image in it")
