"""`blockyard serve`: export files and block devices."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import sys
from functools import partial
from pathlib import Path

from blockyard.api.service import ApiService
from blockyard.block.formats import FORMATS, RAW
from blockyard.block.size import format_size
from blockyard.cli.first_start import managed_configuration
from blockyard.cli.instructions import overview, usage
from blockyard.cli.serve_arguments import from_arguments, with_defaults
from blockyard.control import logs
from blockyard.control.configuration_file import DEFAULT_PORTAL, load
from blockyard.control.consistency import API_PORT, DEFAULT_API
from blockyard.control.errors import ControlError, UsageError
from blockyard.control.images import looks_like
from blockyard.control.server import LINGER, Options, Server
from blockyard.control.settling import Found
from blockyard.control.state import default_directory
from blockyard.control.volumes import missing_space
from blockyard.worker.configuration import Configuration, Target, Volume

_EPILOG = """\
exit status:
  0  stopped by SIGTERM or SIGINT (Ctrl-C): initiators have been asked to log out, everything is flushed
  1  something failed while serving, or it was told to stop a second time and did not wait
  2  the command line does not make sense
  3  a portal cannot be listened on: taken, not an address of this machine, not permitted
  4  a path cannot be exported: missing, not permitted, in use, of another size
  5  the state directory cannot be used
  6  the configuration file cannot be read or does not make sense

examples:
  blockyard serve                                   what was configured by commands; at first a 1 GiB disk to try
                                                    things with (docs/configuration.md)
  blockyard serve disk.img --size 10G               create disk.img, sparse, and export it
  blockyard serve a.img b.img /dev/sdc              one target with LUNs 0, 1 and 2
  blockyard serve iqn.2024-01.com.example:a=a.img iqn.2024-01.com.example:b=b.img
                                                    two targets, each in a worker process of its own
  blockyard serve 'stack:concat(a.img, b.img)'      a disk made of layers (docs/layers.md)
  blockyard serve --pool /srv/fast                  all volumes of a pool (blockyard pool --help)
  blockyard serve --config /etc/blockyard.toml      what a configuration file says (docs/configuration.md)
  blockyard serve disk.img --portal 192.0.2.1       for other machines: anyone who can reach it can read and write
"""

_SERVED: dict[str, object] = {  # options that say what is served, and what they are when they are not given
    "portal": [],
    **dict.fromkeys(("isns", "metrics", "console", "size", "target", "background_rate", "soft_threshold")),
    **{name: getattr(Volume, name) for name in ("block_size", "format", "protection")},
    **dict.fromkeys(("read_only", "write_through", "thick", "removable"), False),
    **{name: getattr(Target, name) for name in ("max_connections", "error_recovery_level")},
}

log = logging.getLogger(__name__)


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `serve` to the commands."""
    parser = commands.add_parser(
        "serve",
        help="export files and block devices as iSCSI disks",
        description="Export files and block devices as iSCSI disks. Without PATH, --pool and --config: what was configured by "
        "commands and is kept in the state directory; when it is served for the first time, a 1 GiB demo disk.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "volumes",
        metavar="[IQN=]PATH",
        nargs="*",
        help="a file or block device, or layers on them as stack:KIND(…) (docs/layers.md); several become LUN 0, 1, 2, … of the "
        "target IQN (default: that of --target)",
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        help="serve what this file says instead; SIGHUP and `blockyard reload` read it again (docs/configuration.md)",
    )
    parser.add_argument(
        "--pool",
        metavar="DIR",
        action="append",
        default=[],
        help="export every volume of the pool in this directory, each as a target of its own, now and whenever one is created; "
        "may be repeated (docs/pools.md)",
    )
    disks = parser.add_argument_group("disks")
    disks.add_argument(
        "--size",
        metavar="SIZE",
        help="create the files that are missing, sparse, with this size: bytes, or with K, M, G, T (powers of 1024). "
        "A file that exists is never resized",
    )
    disks.add_argument(
        "--format",
        choices=FORMATS,
        default=RAW,
        help="what the files are: disks themselves (raw), or images; auto takes images for what they are (default: raw)",
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
        "--protection",
        metavar="TYPE",
        type=int,
        choices=(0, 1, 2, 3),
        default=0,
        help="keep protection information (T10 DIF) of this type for each block (default: 0, none)",
    )
    disks.add_argument(
        "--background-rate",
        metavar="SIZE",
        help="what SANITIZE and FORMAT UNIT write per second at most, so that other disks keep their speed "
        "(default: not limited)",
    )
    disks.add_argument(
        "--soft-threshold",
        metavar="SIZE",
        help="warn initiators when so little, or less, is left on the file system of a thin disk (default: do not warn)",
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
    network.add_argument(
        "--isns",
        metavar="ADDR[:PORT]",
        help="register targets and portals with the iSNS server there, so that initiators find them by it",
    )
    network.add_argument(
        "--metrics",
        metavar="ADDR[:PORT]",
        help="let Prometheus fetch metrics there, over HTTP from /metrics (default: off; docs/metrics.md)",
    )
    network.add_argument(
        "--console",
        metavar="ADDR[:PORT]",
        help=f"serve the console and the API there, with port {API_PORT} unless said otherwise: over HTTP on loopback, over "
        f"HTTPS elsewhere; off: nowhere (default: {DEFAULT_API.listen} for a managed server, else off; docs/api.md)",
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
        "--linger",
        metavar="SECONDS",
        type=float,
        default=LINGER,
        help="when the control process dies, sessions go on for so long and wait for it to be started again; 0: they end with it "
        f"(default: {LINGER:g})",
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
    how = Options(
        options.state or default_directory(),
        options.config,
        None if options.config or options.volumes or options.pool else _given(options),
        tuple(options.portal),
        _worker_count(options.workers),
        poll=options.poll,
        linger=options.linger,
        verbose=options.verbose,
    )
    service: list[ApiService] = []

    def made(server: Server) -> ApiService:
        service.append(ApiService(server))
        return service[0]

    configuration = _from_file(options) if options.config else from_arguments(options)
    server = Server(how, made)
    try:
        server.claim()
        if not options.config:
            configuration = with_defaults(configuration, how.state)
        if how.arguments is None:
            found = server.prepare(configuration)
        else:
            found = server.prepare_stored(partial(managed_configuration, configuration, how.arguments))
        _say(overview(found))
        _say(usage(found.settled))
        _warn(found)
        asyncio.run(server.run(on_ready=lambda: _say(f"{service[0].invitation()}Ready.")))
    finally:
        server.close()
    if server.restarting:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606  (it is this very command)
    return 0


def _from_file(options: argparse.Namespace) -> Configuration:
    """Raises UsageError for options that the file has in it, ConfigurationError."""
    if options.volumes:
        raise UsageError(f"{options.volumes[0]}: with --config, volumes stand in the file")
    if options.pool:
        raise UsageError(f"--pool {options.pool[0]}: with --config, pools stand in the file")
    for name in _given(options):
        if name != "portal":
            raise UsageError(f"--{name.replace('_', '-')}: with --config, this stands in the file")
    return load(options.config, portals=tuple(options.portal))


def _given(options: argparse.Namespace) -> dict[str, object]:
    """Those options that say what is served, and that were given."""
    return {name: value for name, default in _SERVED.items() if (value := getattr(options, name)) != default}


def _worker_count(asked: int | None) -> int:
    if asked is None:
        return len(os.sched_getaffinity(0))
    if asked < 1:
        raise UsageError(f"--workers {asked}: there must be one at least")
    return asked


def _warn(found: Found) -> None:
    exposed = ", ".join(str(portal) for portal in found.settled.portals if not portal.loopback)
    unguarded = [name for name, target in found.settled.targets.items() if not target.access]
    if exposed and unguarded:
        others = f" and {len(unguarded) - 1} more" if unguarded[1:] else ""
        log.warning(
            "anyone who can reach %s can read and write %s%s: no rules of access say otherwise (docs/access.md)",
            exposed, unguarded[0], others,
        )  # fmt: skip
    for backing in found.backings.values():
        seems = looks_like(backing.path) if backing.format == RAW else RAW
        if seems != RAW:
            log.warning("%s looks like a %s image, and is served as it is: to serve the disk in it, say its format",
                backing.path, seems.upper())  # fmt: skip
        free = missing_space(backing)
        if free is not None:
            log.warning(
                "%s can grow to %s, but its file system has only %s free: writes will fail when it is full",
                backing.path, format_size(backing.size), format_size(free),
            )  # fmt: skip


def _say(text: str) -> None:
    """Print, and go on serving when nobody reads it."""
    with contextlib.suppress(BrokenPipeError):
        print(text, flush=True)
