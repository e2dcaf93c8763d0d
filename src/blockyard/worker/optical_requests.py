"""What control may ask of a worker about an optical drive: one function for each request, and their table (see requests.py)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from blockyard.block.file import create
from blockyard.optical.disc import Disc
from blockyard.optical.drive import Image, OpticalDrive, Wish
from blockyard.optical.jukebox import find, images, place
from blockyard.optical.kinds import AUTO, BD_RE, BLOCK, KINDS, kind_of
from blockyard.worker.drives import OpenDrive
from blockyard.worker.handoff import Message
from blockyard.worker.later import Answer, Later, nothing_more


def status(drive: OpenDrive, request: Message) -> Message:
    """What is in it, and who uses it."""
    unit, disc = drive.unit, drive.unit.disc
    found: dict[str, Any] = {
        "state": _state(unit),
        "image": None if unit.image is None else unit.image.path,
        "jukebox": drive.configured.jukebox,
        "initiators": sorted({nexus.it.initiator.partition(",i,")[0] for nexus in unit.nexuses}),
        "locked_by": unit.preventing if unit.locked else [],
        "wished": unit.wish is not None,  # hosts are asked to eject
        "counters": unit.counters.as_dict(),
        "disc": None,
    }
    if disc is not None:
        found["disc"] = {
            "kind": disc.kind.name,
            "size": disc.blocks * BLOCK,
            "layers": disc.layers,
            "sessions": [session.start for session in disc.sessions],
        }
    return found


def _state(unit: OpticalDrive) -> str:
    if unit.disc is not None:
        return "loaded"
    if unit.open:
        return "open"
    return "empty" if unit.image is None else "unreadable"


def insert(drive: OpenDrive, request: Message) -> Answer:
    """Put an image in, in the place of what is there. Hosts that prevent that are asked first, unless `force` is set."""
    unit, name, kind = drive.unit, request.get("image"), request.get("kind") or drive.configured.kind
    if not isinstance(name, str) or not name:
        raise ValueError("the request has no image")
    if not isinstance(kind, str) or kind not in (*KINDS, AUTO):
        raise ValueError(f"a disc is {', '.join(KINDS)} or {AUTO}, not {kind!r}")

    size = request.get("blank")
    if size is not None and (
        not isinstance(size, int) or size <= 0 or size % BLOCK or kind == AUTO or not KINDS[kind].writable
    ):
        raise ValueError(f"a blank disc is of the kind {BD_RE.name}, and has whole blocks of {BLOCK} bytes")

    def work() -> Disc:
        if size is None:
            return Disc(find(drive.configured.jukebox, name), kind)
        kind_of(size // BLOCK, kind)
        path = place(drive.configured.jukebox, name)
        create(path, size)
        return Disc(path, kind)

    def put(disc: Disc) -> Answer:
        image = Image(str(disc.path), kind)
        if unit.locked and not request.get("force"):
            unit.request_eject(Wish(disc, image))
            return {"asked": True}
        unit.insert(disc, image)
        return Later(unit.save, nothing_more)

    return Later(work, put)


def eject(drive: OpenDrive, request: Message) -> Answer:
    """Take out what is there, and close the tray. Hosts that prevent that are asked first, unless `force` is set."""
    unit = drive.unit
    if unit.image is None and not unit.open:
        raise ValueError(f"there is nothing in {unit}")
    if unit.locked and not request.get("force"):
        unit.request_eject(Wish(None, None))
        return {"asked": True}
    unit.remove()
    return Later(unit.save, nothing_more)


def withdraw(drive: OpenDrive, request: Message) -> Answer:
    """What hosts were asked for is not wanted any more."""
    drive.unit.withdraw()
    return {}


def list_images(drive: OpenDrive, request: Message) -> Answer:
    """The images of its jukebox."""
    jukebox = drive.configured.jukebox
    if not jukebox:
        raise ValueError(f"{drive.unit} has no jukebox: add `jukebox = DIRECTORY` to its configuration")
    return Later(lambda: images(Path(jukebox)), lambda found: {"images": {image.name: image.size for image in found}})


OPTICAL_REQUESTS: Mapping[str, Callable[[OpenDrive, Message], Answer]] = {
    "status": status,
    "insert": insert,
    "eject": eject,
    "withdraw": withdraw,
    "list": list_images,
}
