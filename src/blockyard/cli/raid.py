"""`blockyard raid`: the members of arrays, while they are not served: look at them, force them together (docs/raid.md)."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from blockyard.block.building import open_stack
from blockyard.block.device import Device
from blockyard.block.file import FileDevice
from blockyard.block.layers import Opening
from blockyard.block.raid import superblock
from blockyard.block.raid.assembly import assemble, examine
from blockyard.block.raid.geometry import geometry
from blockyard.block.raid.superblock import FAULTY, SPARE, NoSuperblock, Superblock
from blockyard.block.size import format_size
from blockyard.cli.parsers import Subparsers, family, leaf

_EXIT_STATUS = """\
exit status:
  0  done
  1  it cannot be done, or a member cannot be read or written
  2  it does not make sense
"""
_STACK = "stack:"


def add_commands(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `raid` to the commands."""
    members = family(
        commands, "raid", "members of arrays, while these are not served (`blockyard layer create` makes arrays)"
    )
    look = _command(members, "examine", _examine, "say what members say of themselves; they may be in use")
    _add_members(look)
    look.add_argument("--json", action="store_true", help="as JSON")
    join = _command(members, "assemble", _assemble, "put an array together and take it apart again: what the journal "
                    "has is carried out, and with --force members that are out of date count again")  # fmt: skip
    _add_members(join)
    join.add_argument(
        "--force", action="store_true", help="go on with what there is: what was written last may be lost or wrong"
    )


def _command(
    commands: Subparsers[argparse.ArgumentParser], name: str, action: Callable[[argparse.Namespace], None], what: str
) -> argparse.ArgumentParser:
    return leaf(commands, name, lambda options: _run(action, options), what, epilog=_EXIT_STATUS)


def _add_members(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "members", metavar="MEMBER", nargs="+", help="a file or block device, or layers as stack:KIND(…)"
    )


def _run(action: Callable[[argparse.Namespace], None], options: argparse.Namespace) -> int:
    try:
        action(options)
    except ValueError as error:
        print(f"blockyard: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"blockyard: {where}{error.strerror or error}", file=sys.stderr)
        return 1
    return 0


@contextlib.contextmanager
def _opened(members: Sequence[str], *, look: bool = False) -> Iterator[list[Device]]:
    with contextlib.ExitStack() as stack:
        devices = []
        for text in members:
            device = _open(text, look=look)
            stack.callback(device.close)
            device.label = device.label or text
            devices.append(device)
        yield devices


def _open(text: str, *, look: bool) -> Device:
    if text.startswith(_STACK):
        return open_stack(text.removeprefix(_STACK), Opening(read_only=look))
    return FileDevice(text, read_only=look, lock=not look)


def _assemble(options: argparse.Namespace) -> None:
    with contextlib.ExitStack() as stack:
        devices = stack.enter_context(_opened(options.members))
        array = assemble(devices, None, Opening(notify=lambda severity, what, text: print(text)), force=options.force)
        stack.pop_all()
    health = array.report()["health"]
    array.close()
    print(f"array {array.name} can be assembled: it is {health}")


def _examine(options: argparse.Namespace) -> None:
    found: list[dict[str, Any]] = []
    failed = False
    for text in options.members:
        with _opened([text], look=True) as (device,):
            try:
                found.append({"member": text, **_described(examine(device))})
            except NoSuperblock as error:
                failed = True
                found.append({"member": text, "error": str(error)})
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        print(
            "\n\n".join(
                "\n".join(
                    f"  {key:12}{_shown(value)}" if key != "member" else f"{value}:" for key, value in one.items()
                )
                for one in found
            )
        )
    if failed and not options.json:
        raise OSError(0, "not all of them are members of an array")


def _shown(value: object) -> str:
    return format_size(value) if type(value) is int and value >= 1 << 10 else str(value)


def _described(found: Superblock) -> dict[str, Any]:
    size = geometry(found.level, found.disks - found.added_disks, found.chunk, found.layout, found.used).size
    described: dict[str, Any] = {
        "array": str(found.array),
        "name": found.name,
        "level": f"raid{found.level}",
        "size": size,
        "members": found.disks,
        "role": _role(found),
        "state": "clean" if found.clean else "was being written, or is",
        "events": str(found.events),
        "updated": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found.updated)),
        "device": str(found.device),
        "data at": found.data_offset,
    }
    if found.level != 1:
        described["chunk"] = found.chunk
    if found.level == 10:
        described["copies"] = found.layout & 0xFF
    if found.ours.journal_size:
        described["journal"] = (
            f"{format_size(found.ours.journal_size)}, {'for every write' if found.ours.always else 'for what lacks a member'}"
        )
    if found.recovery_offset != superblock.ALL:
        described["rebuilt"] = f"{found.recovery_offset * 100 // found.used} %"
    if found.features & superblock.RESHAPE:
        described["reshaped"] = f"{found.reshape_position * 100 // max(1, size)} %, to {found.disks} members"
    return described


def _role(found: Superblock) -> str:
    if found.role == SPARE:
        return "spare"
    return "none any more" if found.role == FAULTY else str(found.role)
