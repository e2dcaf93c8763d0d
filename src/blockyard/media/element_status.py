"""READ ELEMENT STATUS: what is where (SMC-3)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from blockyard.media.elements import Element, Kind
from blockyard.scsi.sense import Asc, CheckCondition, SenseKey, invalid_field

if TYPE_CHECKING:
    from blockyard.media.changer import MediaChanger
    from blockyard.media.library import Library
    from blockyard.scsi.task import Buffer, Task

_FULL, _BY_OPERATOR, _EXCEPTION, _ACCESS, _EXPORT, _IMPORT = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_SOURCE_VALID = 0x80
_PRIMARY_TAGS = 0x80
_TAG_LENGTH = 36
HEADER_LENGTH = 8  # of the data, and of each page
_ASCII_T10 = bytes([0x02, 0x01])  # CODE SET, IDENTIFIER TYPE


def read_element_status(unit: MediaChanger, task: Task) -> Buffer:
    fields, library = task.fields, unit.library
    chosen = list(elements_of(library, kinds_of(library, fields["element_type"]), fields["start"], fields["number"]))
    if not chosen:
        if fields["number"] and any(library.counts[kind] for kind in kinds_of(library, fields["element_type"])):
            raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.INVALID_ELEMENT_ADDRESS)
        return bytes(HEADER_LENGTH)
    body = pages(library, chosen, tags=bool(fields["voltag"]), names=bool(fields["dvcid"]))
    return header(library, chosen, 0, body) + body


def kinds_of(library: Library, code: int) -> list[Kind]:
    """What an ELEMENT TYPE CODE stands for, in the order of addresses. Raises CheckCondition."""
    if code > max(Kind):
        raise invalid_field(1, 3)
    return [Kind(code)] if code else sorted(Kind, key=library.first)


def header(library: Library, elements: Sequence[Element], action: int, body: bytes) -> bytes:
    """Of pages about elements; a SEND ACTION CODE is in that of REQUEST VOLUME ELEMENT ADDRESS."""
    first = library.address(elements[0]) if elements else 0
    return struct.pack(">HHB", first, len(elements), action) + len(body).to_bytes(3, "big")


def pages(library: Library, elements: Sequence[Element], *, tags: bool, names: bool = False) -> bytes:
    """What is in elements, one page for each kind. They stand in the order of addresses."""
    with library.lock:
        return b"".join(_page(library, kind, list(some), tags=tags, names=names)
                        for kind, some in groupby(elements, lambda element: element.kind))  # fmt: skip


def elements_of(library: Library, kinds: list[Kind], start: int, most: int) -> Iterator[Element]:
    """The elements with the lowest addresses from `start` on, `most` of them at most."""
    for kind in kinds:
        first, count = library.first(kind), library.counts[kind]
        for number in range(max(0, start - first), count):
            if not most:
                return
            most -= 1
            yield Element(kind, number)


def _page(library: Library, kind: Kind, elements: list[Element], *, tags: bool, names: bool) -> bytes:
    tail = [b"\0\0\0\0"] * len(elements)  # no identifier
    if names and kind is Kind.DRIVE:
        tail = [_name(library, element) for element in elements]
    body = b"".join(_descriptor(library, element, tags) + end for element, end in zip(elements, tail, strict=True))
    flags = _PRIMARY_TAGS if tags else 0
    return struct.pack(">BBHx", kind, flags, len(body) // len(elements)) + len(body).to_bytes(3, "big") + body


def _name(library: Library, element: Element) -> bytes:
    drive = library.drives[element.number]
    name = f"{drive.vendor:8.8}{drive.product:16.16}{drive.serial:10.10}".encode()
    return _ASCII_T10 + bytes([0, len(name)]) + name


def _descriptor(library: Library, element: Element, tags: bool) -> bytes:
    barcode = library.contents.get(element)
    flags = _FULL if barcode is not None else 0
    code = 0
    if element.kind is not Kind.TRANSPORT:
        flags |= _ACCESS
    if element.kind is Kind.IMPORT_EXPORT:
        flags |= _EXPORT | _IMPORT
        flags |= _BY_OPERATOR if barcode is not None and barcode not in library.sources else 0
    if element.kind is Kind.DRIVE and library.drives[element.number].trouble is not None:
        flags |= _EXCEPTION
        code = int(library.drives[element.number].trouble or 0)
    source = None if barcode is None else library.sources.get(barcode)
    address = 0 if source is None else library.address(source)
    valid = 0 if source is None else _SOURCE_VALID
    head = struct.pack(">HBxH3xBH", library.address(element), flags, code, valid, address)
    return head + (_tag(barcode) if tags else b"")


def descriptor_length(*, tags: bool) -> int:
    """Bytes that tell of one element, without the name of a drive."""
    return 16 + (_TAG_LENGTH if tags else 0)


def _tag(barcode: str | None) -> bytes:
    """The volume tag of a cartridge: VOLUME IDENTIFIER, and 0 as its sequence number."""
    return bytes(_TAG_LENGTH) if barcode is None else f"{barcode:32.32}".encode() + bytes(4)
