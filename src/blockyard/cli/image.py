"""`blockyard image`: disk images of all formats, while they are not served (docs/image-formats.md)."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable

from blockyard.block import formats
from blockyard.block.engines.formats import FORMATS as QEMU_FORMATS
from blockyard.block.formats import AUTO, FORMATS, KINDS, MADE, RAW, Information, format_of_name
from blockyard.block.image import Progress
from blockyard.block.size import format_size, parse_size
from blockyard.cli.output import Bar
from blockyard.cli.parsers import Subparsers, family, leaf

_EXIT_STATUS = """\
exit status:
  0  done, and for `check`: nothing is wrong
  1  something is wrong with the image, or it cannot be read or written
  2  it does not make sense
"""


class _Nonsense(Exception):
    """What the command line asks for cannot be."""


def add_commands(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `image` to the commands."""
    members = family(commands, "image", "disk images: VHD, VHDX, raw files and what QEMU knows")
    create = _command(members, "create", _create, "make an image")
    create.add_argument("path", metavar="PATH", help="the file, which is not there yet")
    create.add_argument("size", metavar="SIZE", nargs="?", help="of the disk: 10G (with --parent: that of the parent)")
    _add_making(create)
    create.add_argument("--parent", metavar="PATH", help="make a differencing image that stands on this one")
    create.add_argument(
        "--sector-size", metavar="N", type=int, choices=(512, 4096), help="logical sectors of a VHDX (default: 512)"
    )
    info = _command(members, "info", _info, "say what an image is, and what it stands on")
    _add_image(info)
    info.add_argument("--json", action="store_true", help="as JSON")
    convert = _command(members, "convert", _convert, "copy a disk into an image of another format")
    _add_image(convert)
    convert.add_argument(
        "target", metavar="TARGET", help="the new image; a chain of differencing images becomes this one"
    )
    convert.add_argument(
        "--from", dest="source_format", choices=FORMATS, default=AUTO, help="what PATH is (default: auto)"
    )
    convert.add_argument(
        "--backing",
        metavar="DIR",
        default="",
        help="where files may be that an image of QEMU's formats stands on (default: nowhere)",
    )
    _add_making(convert)
    resize = _command(members, "resize", _resize, "let a disk grow")
    _add_image(resize)
    resize.add_argument("size", metavar="SIZE", help="its new size, which is not less than the old one")
    merge = _command(members, "merge", _merge, "bring what a differencing image has into its parent, and remove it")
    _add_image(merge)
    merge.add_argument("--keep", action="store_true", help="do not remove it; nothing may be written to it any more")
    compact = _command(members, "compact", _compact, "free blocks that hold nothing, and cut off the end of the file")
    _add_image(compact)
    check = _command(members, "check", _check, "say whether an image and all that it stands on are sound")
    _add_image(check)
    check.add_argument("--repair", action="store_true", help="bring in order what was not closed cleanly")


def _command(
    commands: Subparsers[argparse.ArgumentParser],
    name: str,
    action: Callable[[argparse.Namespace], int | None],
    what: str,
) -> argparse.ArgumentParser:
    return leaf(commands, name, lambda options: _run(action, options), what, epilog=_EXIT_STATUS)


def _add_image(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", help="the image")


def _add_making(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=MADE, help="of the new image (default: by the ending of its name)")
    parser.add_argument(
        "--kind",
        choices=KINDS,
        default=KINDS[0],
        help="dynamic images take space as it is written to, fixed ones at once (default: dynamic)",
    )
    parser.add_argument(
        "--block-size",
        metavar="SIZE",
        help="of a VHD (default: 2M), VHDX (default: 32M; with a parent 2M) or qcow2 (default: 64K), a power of two",
    )


def _run(action: Callable[[argparse.Namespace], int | None], options: argparse.Namespace) -> int:
    try:
        return action(options) or 0
    except (_Nonsense, ValueError) as error:
        print(f"blockyard: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"blockyard: {where}{error.strerror or error}", file=sys.stderr)
        return 1


def _with_bar(what: str, work: Callable[[Progress], None]) -> None:
    bar = Bar(what)
    try:
        work(lambda done, total: bar.show(done, total, "bytes"))
    finally:
        bar.end()


def _format_of(path: str, asked: str | None) -> str:
    return asked or format_of_name(path)


def _block_size(options: argparse.Namespace) -> int:
    size = parse_size(options.block_size) if options.block_size else 0
    if size & (size - 1):
        raise _Nonsense(f"--block-size {options.block_size} is not a power of two")
    return size


def _create(options: argparse.Namespace) -> None:
    kind = _format_of(options.path, options.format)
    if options.size is None and options.parent is None:
        raise _Nonsense("give the size of the disk, for example 10G, or the parent that it shall stand on")
    if options.parent is not None and kind == RAW:
        raise _Nonsense("a raw image has no parent: use --format vhdx, or a name that ends with .vhdx")
    formats.create_image(
        options.path,
        kind,
        parse_size(options.size) if options.size else 0,
        kind=options.kind,
        block_size=_block_size(options),
        sector_size=options.sector_size or 0,
        parent=options.parent,
    )


def _info(options: argparse.Namespace) -> None:
    found = formats.describe(options.path, lock=False)
    if options.json:
        print(json.dumps(dataclasses.asdict(found), indent=2))
    else:
        print("\n".join(_lines(found)))


def _lines(found: Information) -> list[str]:
    lines = [
        f"{found.path}: {found.kind} {'raw file' if found.format == RAW else found.format.upper()}",
        f"  disk        {format_size(found.size)} ({found.size} bytes)",
        f"  file        {format_size(found.file_size)}, of which {format_size(found.used)} are in use",
    ]
    if found.block_size:
        lines.append(f"  blocks      {format_size(found.block_size)}, sectors of {found.sector_size} bytes")
    if found.identifier:
        lines.append(f"  identifier  {found.identifier}")
    lines += [f"  stands on   {parent}" for parent in found.parents]
    return lines + [f"  note        {note}" for note in found.notes]


def _convert(options: argparse.Namespace) -> None:
    _with_bar(
        "converting",
        lambda progress: formats.convert(
            options.path,
            options.target,
            _format_of(options.target, options.format),
            source_format=options.source_format,
            kind=options.kind,
            block_size=_block_size(options),
            backing=options.backing,
            progress=progress,
        ),
    )


def _resize(options: argparse.Namespace) -> None:
    formats.resize(options.path, parse_size(options.size))


def _merge(options: argparse.Namespace) -> None:
    def work(progress: Progress) -> None:
        parents.append(formats.merge(options.path, progress=progress))

    parents: list[str] = []
    _with_bar("merging", work)
    if not options.keep:
        os.unlink(options.path)
    print(f"{options.path} is in {parents[0]} now")


def _compact(options: argparse.Namespace) -> None:
    before = os.stat(options.path).st_size
    _with_bar("compacting", lambda progress: formats.compact(options.path, progress=progress))
    after = os.stat(options.path).st_size
    print(f"{options.path}: {format_size(before)} before, {format_size(after)} now")


def _check(options: argparse.Namespace) -> int:
    found = formats.check(options.path, mend=options.repair)
    ours = found.format not in QEMU_FORMATS  # what an image of theirs stands on, it does not say reliably
    for path in [options.path, *(found.parents if ours else ())]:
        image = found if path == options.path else formats.describe(path)
        lost = f", {format_size(image.lost)} of its file are unused" if image.lost >= max(image.block_size, 1) else ""
        print(f"{path}: {'; '.join(image.notes) or 'sound'}{lost}")
        if image.notes and path == options.path and not options.repair:
            print(
                f"`blockyard image check --repair {path}` brings that in order, and so does the next who writes to it"
            )
    return 1 if found.notes else 0
