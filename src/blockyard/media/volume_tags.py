"""SEND VOLUME TAG and REQUEST VOLUME ELEMENT ADDRESS: which elements have cartridges with certain barcodes (SMC-3).

The first searches, the second tells what was found: each element once, with what is in it by then. A search belongs to the
initiator that asked. Tags are barcodes, which are on cartridges and are read from them: as libraries with a reader do, this one
refuses the actions that would give a cartridge another one (ASSERT, REPLACE, UNDEFINE).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from blockyard.media.element_status import HEADER_LENGTH, descriptor_length, elements_of, header, kinds_of, pages
from blockyard.media.elements import Element
from blockyard.scsi.sense import Asc, CheckCondition, SenseKey, parameter_list_length_error

if TYPE_CHECKING:
    from blockyard.media.changer import MediaChanger
    from blockyard.scsi.task import Buffer, Task

# SEND ACTION CODE: TRANSLATE of all, of primary and of alternate tags; the sequence number counts, or not
_ALL, _PRIMARY, _ALTERNATE = 0, 1, 2
_ANY_NUMBER = 4
_TRANSLATE = frozenset(kind | number for kind in (_ALL, _PRIMARY, _ALTERNATE) for number in (0, _ANY_NUMBER))

_LIST_LENGTH = 40
_TEMPLATE, _LOWEST = slice(0, 32), slice(34, 36)  # VOLUME IDENTIFICATION TEMPLATE, MINIMUM VOLUME SEQUENCE NUMBER


class Found(NamedTuple):
    """What a search has found and not told yet."""

    action: int
    elements: Sequence[Element]


def check_send(unit: MediaChanger, task: Task) -> None:
    fields = task.fields
    assert task.command is not None
    if fields["action"] not in _TRANSLATE:
        raise task.command.invalid("action")
    kinds_of(unit.library, fields["element_type"])
    if fields["parameter_list_length"] not in (0, _LIST_LENGTH) or task.data_out_length < task.expected:
        raise parameter_list_length_error()


def send_volume_tag(unit: MediaChanger, task: Task) -> Buffer:
    """Search. Without a parameter list there is nothing to do, which is no error."""
    fields, data, library = task.fields, bytes(task.data_out), unit.library
    if not data:
        return b""
    matches = _pattern(data[_TEMPLATE]).fullmatch
    counts = not fields["action"] & _ANY_NUMBER
    if fields["action"] & ~_ANY_NUMBER == _ALTERNATE or (counts and any(data[_LOWEST])):
        contents: dict[Element, str] = {}  # no tag is an alternate one, and all have the sequence number 0
    else:
        contents = library.contents
    elements = [
        element
        for element in elements_of(library, kinds_of(library, fields["element_type"]), fields["start"], 0xFFFF)
        if element in contents and matches(contents[element])
    ]
    unit.searches[task.nexus] = Found(fields["action"], elements)
    return b""


def _pattern(template: bytes) -> re.Pattern[str]:
    """`?` stands for one character, `*` for all that follow. It ends with the first 0; blanks fill it up."""
    text = template.partition(b"\0")[0].decode("latin-1").rstrip(" ")
    start, star, _ = text.partition("*")
    return re.compile("".join("." if one == "?" else re.escape(one) for one in start) + (".*" if star else ""))


def request_volume_element_address(unit: MediaChanger, task: Task) -> Buffer:
    """Tell what the last search of this initiator has found, from an address on: as many as are asked for and fit whole."""
    fields, library = task.fields, unit.library
    found = unit.searches.get(task.nexus)
    if found is None:
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.COMMAND_SEQUENCE_ERROR)
    left = [element for element in found.elements if library.address(element) >= fields["start"]]
    wanted, tags = left[: fields["number"]], bool(fields["voltag"])
    body = pages(library, wanted, tags=tags)
    told = _fitting(wanted, fields["allocation_length"] - HEADER_LENGTH, tags)
    shown = body if told == len(wanted) else pages(library, wanted[:told], tags=tags)
    if told:  # those before them are not told any more either
        unit.searches[task.nexus] = Found(found.action, left[told:])
    return header(library, wanted, found.action, body) + shown


def _fitting(elements: Sequence[Element], room: int, tags: bool) -> int:
    """How many of them can be told whole in so many bytes."""
    for number, element in enumerate(elements):
        room -= descriptor_length(tags=tags)
        if not number or elements[number - 1].kind is not element.kind:
            room -= HEADER_LENGTH
        if room < 0:
            return number
    return len(elements)
