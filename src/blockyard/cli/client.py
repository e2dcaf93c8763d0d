"""`blockyard discover`, `inquiry`, `read`, `write` and `raw`: look at any iSCSI target, of whoever's make."""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import quote

from blockyard.cli.credentials import CredentialsError, account_of, add_options
from blockyard.initiator import (
    DIGEST_CHOICES,
    PREFERENCES,
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
from blockyard.initiator.session import DEFAULT_TIMEOUT

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
_ACRONYMS = {"aca": "ACA", "fua": "FUA", "lu": "LU"}
_ALL = -1  # for --page: all of them

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


def _add_session_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("session")
    group.add_argument(
        "--initiator-name", metavar="IQN", help="the name to log in with (default: one made of this host's name)"
    )
    group.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_seconds,
        default=DEFAULT_TIMEOUT,
        help="how long the target may stay silent (default: 30)",
    )
    for kind in ("header", "data"):
        group.add_argument(
            f"--{kind}-digest",
            choices=tuple(DIGEST_CHOICES),
            default="none",
            help=f"protect {'headers' if kind == 'header' else 'data'} by CRC32C: never, if the target can, or always",
        )
    add_options(parser)


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
    _add_session_options(parser)


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
        type=_page,
        help="a vital product data page, in hexadecimal (00, 80, 83, b0, …), or `all` of them",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--hex", action="store_true", help="print the bytes as they are")
    _add_session_options(parser)


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
    parser.add_argument("--lba", metavar="N", type=_number, default=0, help="the first block (default: 0)")
    parser.add_argument(
        "--count", metavar="N", type=_count, default=1, help="how many blocks, or `all` to the end (default: 1)"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="where to write them, - for stdout (default: a hex dump)"
    )
    _add_session_options(parser)


def _add_write(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    parser = _add(
        subparsers,
        "write",
        _write,
        "write blocks of a disk, and flush them",
        "  blockyard write iscsi://192.0.2.1/iqn.2024-01.com.example:disk/0 --lba 0 -i disk.img\n",
    )
    parser.add_argument("url", metavar="URL", help=_URL)
    parser.add_argument("--lba", metavar="N", type=_number, required=True, help="the first block")
    parser.add_argument("-i", "--input", metavar="FILE", default="-", help="what to write (default: stdin)")
    parser.add_argument("--pad", action="store_true", help="fill the last block up with zeros")
    _add_session_options(parser)


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
        "--in", dest="length", metavar="N", type=_number, default=0, help="how many bytes to read at most"
    )
    parser.add_argument("--out", metavar="FILE", help="what to send to the device, - for stdin")
    parser.add_argument("-o", "--output", metavar="FILE", help="where to write what was read, - for stdout")
    parser.add_argument("--json", action="store_true", help="print JSON")
    _add_session_options(parser)


# ---- arguments


def _number(text: str) -> int:
    number = int(text, 0)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return number


_number.__name__ = "number"  # argparse says "invalid number value"


def _count(text: str) -> int | None:
    return None if text == "all" else _number(text)


_count.__name__ = "number"


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a time")
    return seconds


def _page(text: str) -> int:
    if text == "all":
        return _ALL
    page = int(text, 16)
    if not 0 <= page <= 0xFF:
        raise argparse.ArgumentTypeError(f"{text} is not from 00 to ff")
    return page


_page.__name__ = "page"


def _session_options(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "initiator_name": options.initiator_name,
        "account": account_of(options),
        "algorithms": options.chap_algorithms,
        "timeout": options.timeout,
        "preferences": replace(
            PREFERENCES,
            header_digest=DIGEST_CHOICES[options.header_digest],
            data_digest=DIGEST_CHOICES[options.data_digest],
        ),
    }


def _connect(options: argparse.Namespace) -> Lun:
    return connect(options.url, **_session_options(options))


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


def _discover(options: argparse.Namespace) -> int:
    session_options = _session_options(options)
    targets = discover(options.portal, **session_options)
    portal = parse_portal(options.portal)
    luns = {target.name: _list_luns(target, portal, session_options) if options.luns else None for target in targets}
    if options.json:
        _print_json([_target_fields(target, luns[target.name]) for target in targets])
        return 0
    if not targets:
        print("The portal knows of no target for this initiator.")
    for target in targets:
        print(target.name)
        for address, tag in target.portals:
            print(f"    portal {address}, portal group {tag}")
        for unit in luns[target.name] or ():
            print(f"    {_describe(unit)}")
    return 0


def _target_fields(target: DiscoveredTarget, luns: list[dict[str, Any]] | None) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "name": target.name,
        "portals": [{"address": str(address), "portal_group": tag} for address, tag in target.portals],
    }
    return fields if luns is None else fields | {"luns": luns}


def _list_luns(
    target: DiscoveredTarget, portal: PortalAddress, session_options: dict[str, Any]
) -> list[dict[str, Any]]:
    """What a target has, through the portal that was asked: others may not be within reach from here."""
    units = []
    url = f"iscsi://{portal}/{quote(target.name, safe=':')}/0"
    with connect(url, **session_options) as first:
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


def _describe(unit: dict[str, Any]) -> str:
    text = f"LUN {unit['lun']}: {unit['device_type']}, {unit['vendor']} {unit['product']}"
    if unit["size"] is not None:
        text += f", {_size(unit['size'])} in blocks of {unit['block_size']}"
    return text


def _inquiry(options: argparse.Namespace) -> int:
    with _connect(options) as lun:
        pages = [options.page]
        if options.page == _ALL:
            supported = lun.inquiry(0x00)
            pages = [None, *supported[4 : 4 + int.from_bytes(supported[2:4], "big")]]
        answers = [(page, lun.inquiry(page)) for page in pages]
    if options.json:
        shown = [_page_fields(page, data) for page, data in answers]
        _print_json(shown if options.page == _ALL else shown[0])
        return 0
    for position, (page, data) in enumerate(answers):
        if position:
            print()
        _print_page(page, data, as_hex=options.hex)
    return 0


def _decode(page: int | None, data: bytes) -> dict[str, Any] | None:
    return inquiry.decode_standard(data) if page is None else inquiry.decode_page(data)


def _page_fields(page: int | None, data: bytes) -> dict[str, Any]:
    return {"page": None if page is None else f"0x{page:02x}", "data": data.hex(), "fields": _decode(page, data)}


def _print_page(page: int | None, data: bytes, *, as_hex: bool) -> None:
    name = "standard INQUIRY data"
    if page is not None:
        name = f"vital product data page 0x{page:02x}: {inquiry.PAGE_NAMES.get(page, 'unknown')}"
    print(name)
    fields = None if as_hex else _decode(page, data)
    if fields is None:
        _print_hex(data)
    else:
        _print_fields(fields)


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
                _print_hex(chunk, offset)
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
        _print_json(_response_fields(response))
    else:
        _print_response(response, dump=options.output is None)
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


def _status_name(response: Response) -> str:
    if response.status in tuple(Status):
        return Status(response.status).name.replace("_", " ")
    return f"status 0x{response.status:02x}"


def _response_fields(response: Response) -> dict[str, Any]:
    sense = decode_sense(response.sense)
    return {
        "status": response.status,
        "status_name": _status_name(response),
        "data": response.data.hex(),
        "residual": response.residual,
        "overflow": response.overflow,
        "sense": response.sense.hex(),
        "sense_text": None if sense is None else str(sense),
    }


def _print_response(response: Response, *, dump: bool) -> None:
    """The data on stdout, all the rest on stderr, so that the two can be kept apart."""
    print(_status_name(response), file=sys.stderr)
    sense = decode_sense(response.sense)
    if sense is not None:
        print(sense, file=sys.stderr)
    if response.residual:
        what = "more bytes than were asked for" if response.overflow else "bytes fewer than were asked for"
        print(f"residual: {response.residual} {what}", file=sys.stderr)
    if dump:
        _print_hex(response.data)


# ---- output


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def _print_fields(fields: dict[str, Any], indent: str = "  ") -> None:
    for name, value in fields.items():
        words = [_ACRONYMS.get(word, word) for word in name.split("_")]
        label = f"{indent}{' '.join(words)}:"
        if isinstance(value, list):
            print(label)
            for item in value:
                print(f"{indent}  {_line(item)}")
        else:
            print(f"{label} {_line(value)}")


def _line(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(str(part) for part in value.values())
    return "-" if value is None else str(value)


def _print_hex(data: bytes, offset: int = 0) -> None:
    """A hex dump, 16 bytes a line; a run of lines that repeat the one before is shown as `*`."""
    before = b""
    starred = False
    for at in range(0, len(data), 16):
        line = data[at : at + 16]
        if line == before and at + 16 < len(data):
            if not starred:
                print("*")
            starred = True
            continue
        before, starred = line, False
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in line)
        print(f"{offset + at:08x}  {line[:8].hex(' '):23}  {line[8:].hex(' '):23}  |{text}|")


def _size(count: int) -> str:
    """Bytes for people, in powers of 1024."""
    value = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if value < 1024 or unit == "PiB":
            break
        value /= 1024
    return f"{value:g} {unit}" if value == int(value) else f"{value:.1f} {unit}"
