"""`blockyard discover`, `inquiry`, `read`, `write` and `raw`: look at any iSCSI target, of whoever's make."""

from __future__ import annotations

import argparse
import contextlib
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import quote

from blockyard.cli.client_arguments import (
    ALL_PAGES,
    add_session_options,
    block_count,
    block_number,
    page_code,
    session_options,
)
from blockyard.cli.client_output import (
    describe,
    page_fields,
    print_hex,
    print_json,
    print_page,
    print_response,
    response_fields,
)
from blockyard.cli.credentials import CredentialsError
from blockyard.initiator import (
    DiscoveredTarget,
    InitiatorError,
    InvalidName,
    Lun,
    PortalAddress,
    ProtocolError,
    Response,
    ScsiError,
    SenseKey,
    SessionLost,
    Status,
    connect,
    decode_sense,
    discover,
    inquiry,
    parse_portal,
    parse_url,
)

EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3
_EXIT_STATUS = """\
exit status:
  0  done
  1  the target refused: the login, or the command (SCSI status other than GOOD)
  2  the command line does not make sense, or a file of this machine cannot be used
  3  the target cannot be reached, does not answer in time, or breaks the protocol
"""
_URL = "iscsi://[USER@]HOST[:PORT]/TARGET/LUN"
_PIECE = 8 << 20  # bytes of a file that are in memory at a time
_LONGEST_CDB = 260  # SPC-5 §4.2.3

Subparsers = argparse._SubParsersAction  # it has no public name


class _Failure(Exception):
    """Something that the user is told in a line; ends the command with `status`."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def add_commands(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the client's commands."""
    _add_discover(subparsers)
    _add_inquiry(subparsers)
    _add_read(subparsers)
    _add_write(subparsers)
    _add_raw(subparsers)


def _add(
    subparsers: Subparsers[argparse.ArgumentParser],
    name: str,
    handler: Callable[[argparse.Namespace], int],
    summary: str,
    examples: str,
) -> argparse.ArgumentParser:
    parser = subparsers.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"{_EXIT_STATUS}\nexamples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=lambda options: _guarded(handler, options))
    return parser


def _add_discover(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    parser = _add(
        subparsers,
        "discover",
        _discover,
        "list the targets behind a portal",
        "  blockyard discover 192.0.2.1\n  blockyard discover [2001:db8::1]:3260 --luns\n",
    )
    parser.add_argument("portal", metavar="PORTAL", help="ADDR[:PORT] (port: 3260 unless given)")
    parser.add_argument("--luns", action="store_true", help="log in to each target and list its logical units too")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_session_options(parser)


def _add_inquiry(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    parser = _add(
        subparsers,
        "inquiry",
        _inquiry,
        "show what a logical unit says of itself",
        "  blockyard inquiry iscsi://192.0.2.1/iqn.2024-01.com.example:disk/0\n"
        "  blockyard inquiry iscsi://192.0.2.1/iqn.2024-01.com.example:disk/0 --page 83\n",
    )
    parser.add_argument("url", metavar="URL", help=_URL)
    parser.add_argument(
        "--page",
        metavar="N",
        type=page_code,
        help="a vital product data page, in hexadecimal (00, 80, 83, b0, …), or `all` of them",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--hex", action="store_true", help="print the bytes as they are")
    add_session_options(parser)


def _add_read(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    parser = _add(
        subparsers,
        "read",
        _read,
        "read blocks of a disk",
        "  blockyard read iscsi://192.0.2.1/iqn.2024-01.com.example:disk/0 --lba 0 --count 1\n"
        "  blockyard read iscsi://192.0.2.1/iqn.2024-01.com.example:disk/0 --count all -o copy.img\n",
    )
    parser.add_argument("url", metavar="URL", help=_URL)
    parser.add_argument("--lba", metavar="N", type=block_number, default=0, help="the first block (default: 0)")
    parser.add_argument(
        "--count", metavar="N", type=block_count, default=1, help="how many blocks, or `all` to the end (default: 1)"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="where to write them, - for stdout (default: a hex dump)"
    )
    add_session_options(parser)


def _add_write(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    parser = _add(
        subparsers,
        "write",
        _write,
        "write blocks of a disk, and flush them",
        "  blockyard write iscsi://192.0.2.1/iqn.2024-01.com.example:disk/0 --lba 0 -i disk.img\n",
    )
    parser.add_argument("url", metavar="URL", help=_URL)
    parser.add_argument("--lba", metavar="N", type=block_number, required=True, help="the first block")
    parser.add_argument("-i", "--input", metavar="FILE", default="-", help="what to write (default: stdin)")
    parser.add_argument("--pad", action="store_true", help="fill the last block up with zeros")
    add_session_options(parser)


def _add_raw(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    parser = _add(
        subparsers,
        "raw",
        _raw,
        "send a SCSI command, byte for byte",
        "  blockyard raw iscsi://192.0.2.1/iqn.2024-01.com.example:disk/0 12 00 00 00 24 00 --in 36\n"
        "  blockyard raw iscsi://192.0.2.1/iqn.2024-01.com.example:disk/0 2a000000000000000100 --out block.bin\n",
    )
    parser.add_argument("url", metavar="URL", help=_URL)
    parser.add_argument("cdb", metavar="CDBHEX", nargs="+", help="the command's bytes in hexadecimal")
    parser.add_argument(
        "--in", dest="length", metavar="N", type=block_number, default=0, help="how many bytes to read at most"
    )
    parser.add_argument("--out", metavar="FILE", help="what to send to the device, - for stdin")
    parser.add_argument("-o", "--output", metavar="FILE", help="where to write what was read, - for stdout")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_session_options(parser)


# ---- errors


def _guarded(handler: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    """Run a command; turn what goes wrong into a line and an exit status."""
    try:
        return handler(options)
    except _Failure as failure:
        message, status = str(failure), failure.status
    except (InvalidName, CredentialsError) as error:
        message, status = str(error), EXIT_USAGE
    except (ProtocolError, SessionLost) as error:
        message, status = str(error), EXIT_UNREACHABLE
    except InitiatorError as error:
        message, status = str(error), EXIT_REFUSED
    except BrokenPipeError:
        raise
    except OSError as error:
        message, status = f"{_where(options)}: {_explain(error)}", EXIT_UNREACHABLE
    print(f"blockyard: {message}", file=sys.stderr)
    return status


def _where(options: argparse.Namespace) -> str:
    return str(parse_url(options.url).portal if "url" in options else parse_portal(options.portal))


def _explain(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return f"no such host ({error.strerror})"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused; no target listens there, or a firewall says so"
    if isinstance(error, TimeoutError):
        return "no answer in time; --timeout allows for more, and a firewall may be in between"
    return error.strerror or str(error)


@contextlib.contextmanager
def _file(path: str, mode: str) -> Iterator[BinaryIO]:
    """A file of this machine, or standard input or output for "-"; its errors become a _Failure."""
    try:
        if path == "-":
            yield sys.stdin.buffer if mode == "rb" else sys.stdout.buffer
        else:
            with Path(path).open(mode) as file:
                yield cast(BinaryIO, file)
    except BrokenPipeError:
        raise
    except OSError as error:
        if isinstance(error, TimeoutError | ConnectionError | socket.gaierror):
            raise  # of the network: it came from inside the with statement
        raise _Failure(f"{path}: {error.strerror}", EXIT_USAGE) from error


# ---- the commands


def _connect(options: argparse.Namespace) -> Lun:
    return connect(options.url, **session_options(options))


def _discover(options: argparse.Namespace) -> int:
    session = session_options(options)
    targets = discover(options.portal, **session)
    portal = parse_portal(options.portal)
    luns = {target.name: _list_luns(target, portal, session) if options.luns else None for target in targets}
    if options.json:
        print_json([_target_fields(target, luns[target.name]) for target in targets])
        return 0
    if not targets:
        print("The portal knows of no target for this initiator.")
    for target in targets:
        print(target.name)
        for address, tag in target.portals:
            print(f"    portal {address}, portal group {tag}")
        for unit in luns[target.name] or ():
            print(f"    {describe(unit)}")
    return 0


def _target_fields(target: DiscoveredTarget, luns: list[dict[str, Any]] | None) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "name": target.name,
        "portals": [{"address": str(address), "portal_group": tag} for address, tag in target.portals],
    }
    return fields if luns is None else fields | {"luns": luns}


def _list_luns(target: DiscoveredTarget, portal: PortalAddress, session: dict[str, Any]) -> list[dict[str, Any]]:
    """What a target has, through the portal that was asked: others may not be within reach from here."""
    units = []
    url = f"iscsi://{portal}/{quote(target.name, safe=':')}/0"
    with connect(url, **session) as first:
        for number in first.luns():
            unit = Lun(first.session, number)
            fields = inquiry.decode_standard(unit.inquiry())
            entry = {"lun": number, "size": None, "block_size": None}
            entry |= {key: fields[key] for key in ("device_type", "vendor", "product")}
            with contextlib.suppress(ScsiError):  # no disk, or no medium in it
                if fields["device_type"] in ("disk", "CD/DVD"):
                    capacity = unit.capacity()
                    entry |= {"size": capacity.size, "block_size": capacity.block_size}
            units.append(entry)
    return units


def _inquiry(options: argparse.Namespace) -> int:
    with _connect(options) as lun:
        pages = [options.page]
        if options.page == ALL_PAGES:
            supported = lun.inquiry(0x00)
            pages = [None, *supported[4 : 4 + int.from_bytes(supported[2:4], "big")]]
        answers = [(page, lun.inquiry(page)) for page in pages]
    if options.json:
        shown = [page_fields(page, data) for page, data in answers]
        print_json(shown if options.page == ALL_PAGES else shown[0])
        return 0
    for position, (page, data) in enumerate(answers):
        if position:
            print()
        print_page(page, data, as_hex=options.hex)
    return 0


def _read(options: argparse.Namespace) -> int:
    with contextlib.ExitStack() as stack:
        file = None if options.output is None else stack.enter_context(_file(options.output, "wb"))
        lun = stack.enter_context(_connect(options))
        capacity = lun.capacity()
        count = capacity.blocks - options.lba if options.count is None else options.count
        if options.lba + count > capacity.blocks or count < 0:
            raise _Failure(f"the disk has {capacity.blocks} blocks: there are none beyond", EXIT_USAGE)
        offset = options.lba * capacity.block_size
        for chunk in lun.read_chunks(options.lba, count):
            if file is None:
                print_hex(chunk, offset)
            else:
                file.write(chunk)
            offset += len(chunk)
    return 0


def _write(options: argparse.Namespace) -> int:
    with _file(options.input, "rb") as file, _connect(options) as lun:
        capacity = lun.capacity()
        lba = options.lba
        for piece in _pieces(file, capacity.block_size, pad=options.pad):
            blocks = len(piece) // capacity.block_size
            if lba + blocks > capacity.blocks:
                raise _Failure(f"the disk has {capacity.blocks} blocks: the input is too long for it", EXIT_USAGE)
            lun.write(lba, piece)
            lba += blocks
        lun.flush()
    print(f"{lba - options.lba} blocks written from {options.lba} on", file=sys.stderr)
    return 0


def _pieces(file: BinaryIO, block_size: int, *, pad: bool) -> Iterator[bytes]:
    """The contents of `file` in large pieces, each a whole number of blocks."""
    while piece := _read_fully(file, _PIECE):
        excess = len(piece) % block_size
        if excess and not pad:
            raise _Failure(f"the input is not a whole number of blocks of {block_size} bytes: try --pad", EXIT_USAGE)
        yield piece + bytes(block_size - excess) if excess else piece


def _read_fully(file: BinaryIO, size: int) -> bytes:
    """`size` bytes, fewer only at the end: a pipe gives what it has."""
    parts = []
    while size and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _raw(options: argparse.Namespace) -> int:
    cdb = _parse_cdb("".join(options.cdb))
    data = b""
    if options.out is not None:
        with _file(options.out, "rb") as file:
            data = file.read()
    with _connect(options) as lun:
        response = lun.command(cdb, data, options.length)
        if response.status == Status.CHECK_CONDITION and _is_attention(response):
            response = lun.command(cdb, data, options.length)  # a session begins with one; it is not what was asked for
    if options.output is not None:
        with _file(options.output, "wb") as file:
            file.write(response.data)
    if options.json:
        print_json(response_fields(response))
    else:
        print_response(response, dump=options.output is None)
    return 0 if response.status == Status.GOOD else EXIT_REFUSED


def _parse_cdb(text: str) -> bytes:
    try:
        cdb = bytes.fromhex(text)
    except ValueError:
        raise _Failure(f"{text!r} is not a command in hexadecimal, such as 12 00 00 00 24 00", EXIT_USAGE) from None
    if not 6 <= len(cdb) <= _LONGEST_CDB:
        raise _Failure(f"a command has from 6 to {_LONGEST_CDB} bytes, not {len(cdb)}", EXIT_USAGE)
    return cdb


def _is_attention(response: Response) -> bool:
    sense = decode_sense(response.sense)
    return sense is not None and sense.key == SenseKey.UNIT_ATTENTION
