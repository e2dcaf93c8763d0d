"""`blockyard rbd`: images of Ceph's RADOS Block Device, whether they are served or not (docs/rbd.md)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from blockyard.block.rbd import administration as rbd
from blockyard.block.rbd.administration import Told
from blockyard.block.rbd.connection import Access, Spec
from blockyard.block.size import format_size, parse_size
from blockyard.cli.output import Bar, confirm, moment, show
from blockyard.cli.parsers import Subparsers, family, leaf
from blockyard.control.errors import UsageError

_EXIT_STATUS = """\
exit status:
  0  done
  1  the cluster cannot be reached, or says no
  2  it does not make sense
"""
_Action = Callable[[argparse.Namespace, Access, Spec], None]


def add_commands(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `rbd` to the commands."""
    members = family(commands, "rbd", "images of Ceph RBD: make them, take snapshots of them, clone them")
    listing = _command(members, "list", _list, "say which images a pool has", image="POOL[/NAMESPACE]")
    showing = _command(members, "show", _show, "say what an image is, and which snapshots it has")
    create = _command(members, "create", _create, "make an image")
    create.add_argument("size", metavar="SIZE", help="for example 10G")
    create.add_argument(
        "--object-size", metavar="SIZE", help="of its objects, a power of two (default: the cluster's, 4M)"
    )
    delete = _command(members, "delete", _delete, "delete an image or a snapshot", image="IMAGE[@SNAPSHOT]")
    resize = _command(members, "resize", _resize, "let an image grow, while it is served too")
    resize.add_argument("size", metavar="SIZE", help="its new size")
    resize.add_argument("--shrink", action="store_true", help="it may get smaller, and lose what is at its end")
    _command(members, "snapshot", _snapshot, "keep an image as it is now", image="IMAGE@SNAPSHOT")
    _command(members, "protect", _protect, "have a snapshot not deleted by mistake", image="IMAGE@SNAPSHOT")
    _command(members, "unprotect", _unprotect, "have it so again that it can be deleted", image="IMAGE@SNAPSHOT")
    clone = _command(members, "clone", _clone, "make an image that begins as a snapshot is", image="IMAGE@SNAPSHOT")
    clone.add_argument("new", metavar="NEW", help="the new image, POOL/IMAGE")
    _command(members, "flatten", _flatten, "copy to a clone what it shares, so that it stands alone")
    rollback = _command(members, "rollback", _rollback, "make an image what a snapshot is", image="IMAGE@SNAPSHOT")
    diff = _command(members, "diff", _diff, "say what has changed since a snapshot", image="IMAGE[@SNAPSHOT]")
    diff.add_argument("--since", metavar="SNAPSHOT", default="", help="its name (default: since it was made)")
    unlock = _command(members, "unlock", _unlock, "fence off the server that has an image: one that waits gets it")
    for parser in (delete, rollback, unlock):
        parser.add_argument("--yes", action="store_true", help="do not ask")
    for parser in (listing, showing, diff):
        parser.add_argument("--json", action="store_true", help="as JSON")


def _command(
    commands: Subparsers[argparse.ArgumentParser], name: str, action: _Action, what: str, *, image: str = "IMAGE"
) -> argparse.ArgumentParser:
    parser = leaf(commands, name, lambda options: _run(action, options), what, epilog=_EXIT_STATUS)
    parser.add_argument(
        "image", metavar=image, help="POOL/IMAGE or POOL/NAMESPACE/IMAGE" if "IMAGE" in image else "the pool"
    )
    parser.add_argument("--conf", metavar="PATH", default="", help="ceph.conf (default: where Ceph looks for it)")
    parser.add_argument("--id", metavar="USER", default="admin", help="the user of the cluster (default: admin)")
    parser.add_argument(
        "--keyring", metavar="PATH", default="", help="the file with the user's key (default: as ceph.conf says)"
    )
    return parser


def _run(action: _Action, options: argparse.Namespace) -> int:
    try:
        access = Access(options.conf, options.id, options.keyring)
        spec = Spec.parse(f"{options.image}/-" if action is _list else options.image)
        if action in _OF_SNAPSHOTS and not spec.snapshot:
            raise UsageError(f"{options.image} is an image: name one of its snapshots, as in {options.image}@monday")
        if action not in (*_OF_SNAPSHOTS, _delete, _diff) and spec.snapshot:
            raise UsageError(f"{options.image} is a snapshot: name an image")
        action(options, access, spec)
    except (ValueError, UsageError) as error:
        print(f"blockyard: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"blockyard: {where}{error.strerror or error}", file=sys.stderr)
        return 1
    return 0


def _with_bar(what: str, work: Callable[[Told], None], unit: str = "objects") -> None:
    bar = Bar(what)
    try:
        work(lambda done, total: bar.show(done, total, unit))
    finally:
        bar.end()


def _list(options: argparse.Namespace, access: Access, spec: Spec) -> None:
    found = rbd.names(access, spec.pool, spec.namespace)
    show(options, found, ("image",), [(name,) for name in found], none=f"no images in {options.image}")


def _show(options: argparse.Namespace, access: Access, spec: Spec) -> None:
    found = rbd.about(access, spec)
    if options.json:
        told = found._asdict() | {"snapshots": [each._asdict() for each in found.snapshots]}
        show(options, told, (), [], none="")
        return
    print(f"{found.spec}: {format_size(found.size)}, of which {format_size(found.used)} are in use")
    print(f"  objects   {format_size(found.object_size)}")
    print(f"  lock      {'a server has it' if found.owned else 'nobody has it'}")
    if found.parent:
        print(f"  clone of  {found.parent}")
    for each in found.snapshots:
        kept = ", protected" if each.protected else ""
        clones = f", clones: {', '.join(each.clones)}" if each.clones else ""
        print(f"  snapshot  {each.name}: {format_size(each.size)}, {moment(each.created)}{kept}{clones}")


def _create(options: argparse.Namespace, access: Access, spec: Spec) -> None:
    object_size = parse_size(options.object_size) if options.object_size else 0
    if object_size & (object_size - 1):
        raise UsageError(f"--object-size {options.object_size} is not a power of two")
    rbd.create(access, spec, parse_size(options.size), object_size=object_size)


def _delete(options: argparse.Namespace, access: Access, spec: Spec) -> None:
    confirm(options, options.image, f"{options.image} is gone for good then")
    if spec.snapshot:
        rbd.remove_snapshot(access, spec)
    else:
        _with_bar("deleting", lambda told: rbd.remove(access, spec, told))


def _resize(options: argparse.Namespace, access: Access, spec: Spec) -> None:
    size = parse_size(options.size)
    _with_bar("resizing", lambda told: rbd.resize(access, spec, size, told, shrink=options.shrink))


def _snapshot(options: argparse.Namespace, access: Access, spec: Spec) -> None:
    rbd.take_snapshot(access, spec)


def _protect(options: argparse.Namespace, access: Access, spec: Spec) -> None:
    rbd.protect(access, spec, protected=True)


def _unprotect(options: argparse.Namespace, access: Access, spec: Spec) -> None:
    rbd.protect(access, spec, protected=False)


def _clone(options: argparse.Namespace, access: Access, spec: Spec) -> None:
    new = Spec.parse(options.new)
    if new.snapshot:
        raise UsageError(f"{options.new} is a snapshot: name a new image")
    rbd.clone(access, spec, new)


def _flatten(options: argparse.Namespace, access: Access, spec: Spec) -> None:
    _with_bar("flattening", lambda told: rbd.flatten(access, spec, told))


def _rollback(options: argparse.Namespace, access: Access, spec: Spec) -> None:
    confirm(options, options.image, f"what was written since {options.image} is gone then")
    _with_bar("rolling back", lambda told: rbd.roll_back(access, spec, told))


def _diff(options: argparse.Namespace, access: Access, spec: Spec) -> None:
    changed = [run for run in rbd.differences(access, spec, options.since) if run.mapped]
    found = [{"offset": run.offset, "length": run.length} for run in changed]
    rows = [(str(run.offset), str(run.length)) for run in changed]
    show(options, found, ("offset", "length"), rows, none="nothing has changed")


def _unlock(options: argparse.Namespace, access: Access, spec: Spec) -> None:
    confirm(options, options.image, f"the server that has {options.image} can write no more then")
    if not rbd.unlock(access, spec):
        print(f"nobody had {options.image}")


_OF_SNAPSHOTS = (_snapshot, _protect, _unprotect, _clone, _rollback)
