"""READ ELEMENT STATUS: what is where (SMC-3)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
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
_ASCII_T10 = bytes([0x02, 0x01])  # CODE SET, IDENTIFIER TYPE


def read_element_status(unit: MediaChanger, task: Task) -> Buffer:
    fields, library = task.fields, unit.library
    if fields["element_type"] > max(Kind):
        raise invalid_field(1, 3)
    kinds = [Kind(fields["element_type"])] if fields["element_type"] else sorted(Kind, key=library.first)
    chosen = list(_chosen(library, kinds, fields["start"], fields["number"]))
    if not chosen:
        if fields["number"] and any(library.counts[kind] for kind in kinds):
            raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.INVALID_ELEMENT_ADDRESS)
        return bytes(8)
    with library.lock:
        pages = b"".join(
            _page(library, kind, elements, tags=bool(fields["voltag"]), names=bool(fields["dvcid"]))
            for kind in kinds
            if (elements := [element for element in chosen if element.kind is kind])
        )
    head = struct.pack(">HHx", library.address(chosen[0]), len(chosen)) + len(pages).to_bytes(3, "big")
    return head + pages


def _chosen(library: Library, kinds: list[Kind], start: int, most: int) -> Iterator[Element]:
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


def _tag(barcode: str | None) -> bytes:
    """The volume tag of a cartridge: VOLUME IDENTIFIER, and 0 as its sequence number."""
    return bytes(_TAG_LENGTH) if barcode is None else f"{barcode:32.32}".encode() + bytes(4)
