"""`blockyard serve`: export files and block devices."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from blockyard.cli.instructions import Export, overview, usage
from blockyard.control import logs
from blockyard.control.errors import ControlError, UsageError
from blockyard.control.portals import parse_portal
from blockyard.control.server import Options, Server
from blockyard.control.state import State, default_directory
from blockyard.control.volumes import format_size, missing_space, parse_size, prepare
from blockyard.iscsi.directory import Portal
from blockyard.iscsi.names import InvalidName, validate
from blockyard.worker.configuration import Configuration, Target, Volume

DEMO_SIZE = 1 << 30  # bytes
DEFAULT_PORTAL = "127.0.0.1:3260"  # one only: with [::1] beside it an initiator would find each disk on two paths
MAX_LUNS = 256  # of a target; LUNs 0 to 255 have the peripheral device addressing format (SAM-5 §4.7.7.2)

_EPILOG = """\
exit status:
  0  stopped by SIGTERM or SIGINT (Ctrl-C): initiators have been asked to log out, everything is flushed
  1  something failed while serving, or it was told to stop a second time and did not wait
  2  the command line does not make sense
  3  a portal cannot be listened on: taken, not an address of this machine, not permitted
  4  a path cannot be exported: missing, not permitted, in use, of another size
  5  the state directory cannot be used

examples:
  blockyard serve                                   a 1 GiB disk to try things with
  blockyard serve disk.img --size 10G               create disk.img, sparse, and export it
  blockyard serve a.img b.img /dev/sdc              one target with LUNs 0, 1 and 2
  blockyard serve iqn.2024-01.com.example:a=a.img iqn.2024-01.com.example:b=b.img
                                                    two targets, each in a worker process of its own
  blockyard serve disk.img --portal 192.0.2.1       for other machines: anyone who can reach it can read and write
"""

DEMO = Path("demo.img")  # stands for the one in the state directory
_NAME_TYPES = ("iqn.", "eui.", "naa.")  # RFC 7143 §4.2.7.2

log = logging.getLogger(__name__)


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `serve` to the commands."""
    parser = commands.add_parser(
        "serve",
        help="export files and block devices as iSCSI disks",
        description="Export files and block devices as iSCSI disks. "
        "Without PATH, a 1 GiB demo disk in the state directory.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "volumes",
        metavar="[IQN=]PATH",
        nargs="*",
        help="a file or block device; several become LUN 0, 1, 2, … of the target IQN (default: that of --target)",
    )
    disks = parser.add_argument_group("disks")
    disks.add_argument(
        "--size",
        metavar="SIZE",
        help="create the files that are missing, sparse, with this size: bytes, or with K, M, G, T (powers of 1024). "
        "A file that exists is never resized",
    )
    disks.add_argument(
        "--block-size",
        type=int,
        choices=(512, 4096),
        default=512,
        help="logical block size in bytes (default: 512)",
    )
    disks.add_argument("--read-only", action="store_true", help="let nobody write")
    disks.add_argument(
        "--write-through",
        action="store_true",
        help="answer a write only when it is on stable storage (default: initiators decide by flushing)",
    )
    disks.add_argument("--thick", action="store_true", help="keep all space: initiators cannot unmap blocks")
    disks.add_argument("--removable", action="store_true", help="let initiators eject and load the medium")
    disks.add_argument(
        "--background-rate",
        metavar="SIZE",
        help="what SANITIZE and FORMAT UNIT write per second at most, so that other disks keep their speed "
        "(default: not limited)",
    )
    network = parser.add_argument_group("network")
    network.add_argument(
        "--portal",
        metavar="ADDR[:PORT]",
        action="append",
        default=[],
        help=f"listen here; may be repeated; IPv6 in brackets; port 0 is any free one (default: {DEFAULT_PORTAL})",
    )
    network.add_argument(
        "--target",
        metavar="IQN",
        help="the name of the target (default: one made up once and kept in the state directory)",
    )
    network.add_argument(
        "--max-connections",
        metavar="N",
        type=int,
        choices=range(1, 17),
        default=Target.max_connections,
        help=f"connections that one session may have, 1 to 16 (default: {Target.max_connections})",
    )
    network.add_argument(
        "--error-recovery-level",
        type=int,
        choices=(0, 1, 2),
        default=Target.error_recovery_level,
        help="what is recovered, where the initiator offers as much: 1 lost and damaged PDUs, 2 lost connections too. "
        "Sessions with 1 or 2 are slower (default: 0)",
    )
    process = parser.add_argument_group("process")
    process.add_argument(
        "--state",
        metavar="DIR",
        type=Path,
        help="where names and identities are kept (default: $XDG_STATE_HOME/blockyard or ~/.local/state/blockyard)",
    )
    process.add_argument(
        "--workers",
        metavar="N",
        type=int,
        help="worker processes; targets are spread over them (default: one a core; never more than targets)",
    )
    process.add_argument(
        "--poll",
        action="store_true",
        help="spin for a moment before sleeping: less latency at low queue depth for more CPU time",
    )
    process.add_argument(
        "--log-format", choices=("text", "json"), default="text", help="of the log on stderr (default: text)"
    )
    process.add_argument("--verbose", action="store_true", help="log logins and logouts too, and tracebacks of errors")


def run(options: argparse.Namespace) -> int:
    """Serve until told to stop. Returns the exit status."""
    logs.set_up(verbose=options.verbose, json_lines=options.log_format == "json")
    try:
        return _serve(options)
    except ControlError as error:
        log.info("serving failed", exc_info=error)
        print(f"blockyard: {error}", file=sys.stderr)
        return error.exit_status
    except OSError as error:
        log.info("serving failed", exc_info=error)
        print(f"blockyard: {error}", file=sys.stderr)
        return ControlError.exit_status


def _serve(options: argparse.Namespace) -> int:
    # What a slip of the pen can be comes first, then what may be taken: files are created only when all of it is well.
    wanted = _wanted(options.volumes, options.target)
    size = None if options.size is None else parse_size(options.size)
    workers = _worker_count(options.workers)
    server = Server([parse_portal(text) for text in options.portal or [DEFAULT_PORTAL]])
    server.open()
    try:
        with contextlib.closing(State(options.state or default_directory())) as state:
            exports = _prepare(state, wanted, size, options)
        configuration = Configuration(
            units_directory=str(state.units_directory),
            volumes={export.volume.name: export.volume for units in exports.values() for export in units},
            targets={
                name: Target(
                    name,
                    {export.lun: export.volume.name for export in units},
                    max_connections=options.max_connections,
                    error_recovery_level=options.error_recovery_level,
                )
                for name, units in exports.items()
            },
        )
        _say(overview(server.portals, exports))
        _say(usage(server.portals, next(iter(exports)), others=len(exports) - 1))
        _warn(server.portals, exports)
        how = Options(options.state or default_directory(), workers, poll=options.poll, verbose=options.verbose)
        asyncio.run(server.run(configuration, how, on_ready=lambda: _say("Ready.")))
    finally:
        server.close()
    return 0


def _wanted(arguments: Iterable[str], target: str | None) -> list[tuple[str | None, Path]]:
    """Target name (None: the default one) and path for each argument. Raises UsageError."""
    try:
        default = None if target is None else validate(target)
        wanted: list[tuple[str | None, Path]] = []
        for argument in arguments:
            name, equals, path = argument.partition("=")
            named = bool(equals) and name.lower().startswith(_NAME_TYPES)
            if not (path if named else argument):
                raise UsageError(f"{argument!r}: the PATH is empty")
            wanted.append((validate(name), Path(path)) if named else (default, Path(argument)))
    except InvalidName as error:
        raise UsageError(str(error)) from None
    return wanted or [(default, DEMO)]


def _worker_count(asked: int | None) -> int:
    if asked is None:
        return len(os.sched_getaffinity(0))
    if asked < 1:
        raise UsageError(f"--workers {asked}: there must be one at least")
    return asked


def _prepare(
    state: State, wanted: list[tuple[str | None, Path]], size: int | None, options: argparse.Namespace
) -> dict[str, list[Export]]:
    """Every volume checked, created where it is missing, and with its identity: the exports of each target by LUN."""
    exports: dict[str, list[Export]] = {}
    seen: dict[tuple[int, int], Path] = {}
    names: set[str] = set()
    for name, given in wanted:
        path = state.directory / "demo.img" if given is DEMO else given
        creating = DEMO_SIZE if given is DEMO and size is None and not path.exists() else size
        backing = prepare(path, size=creating, block_size=options.block_size, read_only=options.read_only)
        info = backing.path.stat()
        identity = (info.st_dev, info.st_rdev or info.st_ino)
        if identity in seen:
            raise UsageError(f"{path} and {seen[identity]} are one volume: it can be exported once only")
        seen[identity] = path
        if backing.created:
            state.forget_volume(backing.key)
        units = exports.setdefault(name or state.default_target_name(), [])
        volume = Volume(
            name=_volume_name(backing.path, names),
            path=str(backing.path),
            uuid=str(state.volume_uuid(backing.key)),
            block_size=options.block_size,
            read_only=options.read_only,
            write_through=options.write_through,
            thick=options.thick,
            removable=options.removable,
            background_rate=0 if options.background_rate is None else parse_size(options.background_rate),
        )
        names.add(volume.name)
        units.append(Export(len(units), volume, backing))
    for name, units in exports.items():
        if len(units) > MAX_LUNS:
            raise UsageError(
                f"{name}: {len(units)} LUNs; {MAX_LUNS} is the most: spread them over targets with IQN=PATH"
            )
    return exports


def _volume_name(path: Path, taken: set[str]) -> str:
    """What to call a volume that was given by its path only: the file's name, with a number where that is taken."""
    name = path.name
    count = 1
    while name in taken:
        count += 1
        name = f"{path.name}-{count}"
    return name


def _warn(portals: list[Portal], exports: dict[str, list[Export]]) -> None:
    for portal in portals:
        if not portal.loopback:
            log.warning("%s: anyone who can reach this portal can read and write: there is no authentication", portal)
    for units in exports.values():
        for export in units:
            free = missing_space(export.backing)
            if free is not None:
                log.warning(
                    "%s can grow to %s, but its file system has only %s free: writes will fail when it is full",
                    export.backing.path, format_size(export.backing.size), format_size(free),
                )  # fmt: skip


def _say(text: str) -> None:
    """Print, and go on serving when nobody reads it."""
    with contextlib.suppress(BrokenPipeError):
        print(text, flush=True)
