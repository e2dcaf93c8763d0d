"""What the client's commands print: fields, hex dumps, and how a command ended."""

from __future__ import annotations

import json
import sys
from typing import Any

from blockyard.initiator import Response, Status, decode_sense, inquiry

_ACRONYMS = {"aca": "ACA", "fua": "FUA", "lu": "LU"}


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def _decode(page: int | None, data: bytes) -> dict[str, Any] | None:
    return inquiry.decode_standard(data) if page is None else inquiry.decode_page(data)


def page_fields(page: int | None, data: bytes) -> dict[str, Any]:
    return {"page": None if page is None else f"0x{page:02x}", "data": data.hex(), "fields": _decode(page, data)}


def print_page(page: int | None, data: bytes, *, as_hex: bool) -> None:
    name = "standard INQUIRY data"
    if page is not None:
        name = f"vital product data page 0x{page:02x}: {inquiry.PAGE_NAMES.get(page, 'unknown')}"
    print(name)
    fields = None if as_hex else _decode(page, data)
    if fields is None:
        print_hex(data)
    else:
        print_fields(fields)


def _status_name(response: Response) -> str:
    if response.status in tuple(Status):
        return Status(response.status).name.replace("_", " ")
    return f"status 0x{response.status:02x}"


def response_fields(response: Response) -> dict[str, Any]:
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


def print_response(response: Response, *, dump: bool) -> None:
    """The data on stdout, all the rest on stderr, so that the two can be kept apart."""
    print(_status_name(response), file=sys.stderr)
    sense = decode_sense(response.sense)
    if sense is not None:
        print(sense, file=sys.stderr)
    if response.residual:
        what = "more bytes than were asked for" if response.overflow else "bytes fewer than were asked for"
        print(f"residual: {response.residual} {what}", file=sys.stderr)
    if dump:
        print_hex(response.data)


def describe(unit: dict[str, Any]) -> str:
    text = f"LUN {unit['lun']}: {unit['device_type']}, {unit['vendor']} {unit['product']}"
    if unit["size"] is not None:
        text += f", {_size(unit['size'])} in blocks of {unit['block_size']}"
    return text


def print_fields(fields: dict[str, Any], indent: str = "  ") -> None:
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


def print_hex(data: bytes, offset: int = 0) -> None:
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
