"""What control may ask of the worker that has a tape library: one function for each request, and their table.

Everything takes its time, as a drive may have to let go of a cartridge first: it is done in another thread.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial
from typing import Any, TypedDict, TypeVar

from blockyard.block.size import parse_size
from blockyard.media.elements import Element, Kind, element
from blockyard.media.generations import GENERATIONS, Generation, by_barcode, check_barcode
from blockyard.media.library import Library
from blockyard.scsi.sense import Asc, CheckCondition
from blockyard.worker.handoff import Message
from blockyard.worker.later import Answer, Later

T = TypeVar("T")

_SMALLEST = 1 << 20  # bytes of a cartridge


def status(library: Library, request: Message) -> dict[str, Any]:
    """The library: its model, its drives, and what is in its elements."""
    contents = library.contents
    return {
        "model": library.model.name,
        "directory": str(library.directory),
        "counts": {"drives": len(library.drives), "slots": library.counts[Kind.SLOT],
                   "import_export": library.counts[Kind.IMPORT_EXPORT]},
        "locked": library.changer.tray.locked,
        "drives": [
            {
                "element": str(Element(Kind.DRIVE, number)), "lun": number + 1, "product": drive.product,
                "serial": drive.serial, "cartridge": contents.get(Element(Kind.DRIVE, number)),
                "state": _state(drive.inserted is not None, drive.tape is not None, drive.trouble),
                "counters": drive.counters.as_dict(),
            }
            for number, drive in enumerate(library.drives)
        ],
        "elements": {
            str(place): barcode for place, barcode in sorted(contents.items()) if place.kind is not Kind.DRIVE
        },
    }  # fmt: skip


def _state(inserted: bool, loaded: bool, trouble: Asc | None) -> str:
    if trouble is not None:
        return trouble.text.lower()
    return "loaded" if loaded else "unloaded" if inserted else "empty"


def cartridges(library: Library, request: Message) -> dict[str, Any]:
    """All cartridges, those on the shelf too, by their barcodes; with "error" those that are damaged."""
    return {"cartridges": {barcode: _cartridge(library, barcode) for barcode in library.barcodes()}}


def _cartridge(library: Library, barcode: str) -> dict[str, Any]:
    place = library.find(barcode)
    found: dict[str, Any] = {"element": None if place is None else str(place)}
    try:
        description, used = library.describe(barcode), library.used(barcode)
    except OSError as error:
        return {**found, "error": error.strerror}
    return {
        **found,
        "generation": description.generation.name,
        "capacity": description.capacity,
        "partitions": len(description.capacities),
        "used": used,
        "worm": description.worm,
        "write_protected": description.write_protected,
        "loads": description.loads,
        "written": description.written,
        "read": description.read,
    }


def create(library: Library, request: Message) -> dict[str, Any]:
    """Make an empty cartridge and put it into a slot."""
    barcode = _field(request, "barcode", str)
    place = library.create(barcode, place=_place(request, "element"), **wanted(library, request, barcode))
    return {"element": str(place)}


class Wanted(TypedDict):
    """What a new cartridge is to be."""

    generation: Generation
    worm: bool
    capacity: int


def wanted(library: Library, request: Message, barcode: str) -> Wanted:
    """What is said in a request, or else by the barcode. Raises ValueError."""
    size = request.get("size")
    capacity = 0 if size is None else parse_size(str(size))
    if size is not None and capacity < _SMALLEST:
        raise ValueError(f"a cartridge has {_SMALLEST >> 20}M at least, not {size}")
    said, name, worm = by_barcode(barcode), request.get("generation"), bool(request.get("worm"))
    generation, worm = (library.drives[0].model.generation, worm) if said is None else (said[0], worm or said[1])
    if name is not None:
        if not isinstance(name, str) or name not in GENERATIONS:
            raise ValueError(f"there is no generation {name}; there are {', '.join(GENERATIONS)}")
        generation = GENERATIONS[name]
    check_barcode(barcode, generation, worm=worm)
    return {"generation": generation, "worm": worm, "capacity": capacity}


def bring(library: Library, request: Message) -> dict[str, Any]:
    """Put a cartridge from the shelf into an import/export element."""
    return {"element": str(library.bring(_field(request, "barcode", str), _place(request, "element")))}


def take_away(library: Library, request: Message) -> dict[str, Any]:
    """Put a cartridge on the shelf."""
    return {"element": str(library.take_away(_field(request, "barcode", str)))}


def protect(library: Library, request: Message) -> dict[str, Any]:
    """Move the write-protect switch of a cartridge."""
    library.protect(_field(request, "barcode", str), _field(request, "protected", bool))
    return {}


def label(library: Library, request: Message) -> dict[str, Any]:
    """Give a cartridge another barcode."""
    place = library.label(_field(request, "barcode", str), _field(request, "to", str))
    return {"element": None if place is None else str(place)}


def remove(library: Library, request: Message) -> dict[str, Any]:
    """Throw a cartridge away."""
    library.remove(_field(request, "barcode", str))
    return {}


def move(library: Library, request: Message) -> dict[str, Any]:
    """Move a cartridge as an initiator would; the source is an element or a barcode."""
    source, destination = _field(request, "source", str), element(_field(request, "destination", str))
    found = library.find(source) or element(source)
    for place in (found, destination):
        if place.number >= library.counts[place.kind]:
            raise ValueError(f"{library.name} has no {place}")
    try:
        library.move(found, destination)
    except CheckCondition as error:
        raise ValueError(f"{found} to {destination}: {Asc(error.asc).text.lower()}") from error
    return {"from": str(found), "to": str(destination)}


TAPE_REQUESTS: dict[str, Callable[[Library, Message], dict[str, Any]]] = {
    "status": status,
    "cartridges": cartridges,
    "create": create,
    "import": bring,
    "export": take_away,
    "protect": protect,
    "label": label,
    "remove": remove,
    "move": move,
}


_LOOKS = ("status", "cartridges")


def carry_out(library: Library, request: Message) -> Answer:
    """One of these. Raises LookupError for what there is not."""
    if request["request"] not in TAPE_REQUESTS:
        raise LookupError(f"a tape library knows no request {request['request']!r}")
    work = partial(TAPE_REQUESTS[request["request"]], library, request)
    if request["request"] in _LOOKS:
        return Later(work, dict)
    if not library.askers.acquire(blocking=False):
        raise OSError(errno.EBUSY, f"{library.name} is busy with what was asked of it before: try again")
    return Later(partial(_one_less, library, work), dict)


def _one_less(library: Library, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return work()
    finally:
        library.askers.release()


def _place(request: Message, name: str) -> Element | None:
    text = request.get(name)
    return None if text is None else element(str(text))


def _field(request: Message, name: str, kind: type[T]) -> T:
    value = request.get(name)
    if not isinstance(value, kind):
        raise ValueError(f"the request has no {name}")
    return value
