"""What control may ask of a worker about an optical drive: one function for each request, and their table (see requests.py)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from blockyard.optical.disc import Disc
from blockyard.optical.drive import Image, OpticalDrive, Wish
from blockyard.optical.jukebox import find, find_renamed, images, place, state_of
from blockyard.optical.keeping import remove, rename
from blockyard.optical.kinds import AUTO, BLANKS, BLOCK, KINDS, Writing, capacity_of
from blockyard.optical.record import load, make
from blockyard.scsi.sense import Asc, CheckCondition
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
            "sessions": [session.start for session in disc.sessions if session.tracks],
            "tracks": [
                {"number": track.number, "start": track.start, "blocks": track.size, "form": track.form.value}
                for track in disc.tracks
            ],
            "capacity": disc.capacity * BLOCK,
            "state": "pressed" if disc.record is None else state_of(disc.record),
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

    capacity = None if request.get("blank") is None else capacity_of(kind, _text(request, "blank"))

    def work() -> Disc:
        _settle(unit)
        if capacity is None:
            path = find(drive.configured.jukebox, name)
            own = request.get("kind") is None and load(path) is not None  # what it was made as, whatever the drive says
            return Disc(path, AUTO if own else kind)
        path = place(drive.configured.jukebox, name)
        make(path, kind, capacity)
        return Disc(path, kind)

    def put(disc: Disc) -> Answer:
        image = Image(str(disc.path), disc.wanted)
        if unit.locked and not request.get("force"):
            unit.request_eject(Wish(disc, image))
            return {"asked": True}
        unit.insert(disc, image)
        return Later(unit.save, nothing_more)

    return Later(work, put)


def create(drive: OpenDrive, request: Message) -> Answer:
    """Make a blank disc, which is in no drive yet."""
    kind, name = _text(request, "kind"), _text(request, "image")
    size = request.get("size")
    capacity = capacity_of(kind, None if size is None else str(size))

    def work() -> str:
        path = place(drive.configured.jukebox, name)
        make(path, kind, capacity)
        return str(path)

    return Later(work, lambda path: {"image": path, "size": capacity * BLOCK})


def close(drive: OpenDrive, request: Message) -> Answer:
    """Finalize a disc that is in no drive: nothing can be added."""

    def work() -> None:
        with contextlib.closing(_burned(drive, request)) as disc:
            if disc.recorder is None or not disc.sessions:
                raise ValueError("there is nothing to close on the disc: it is blank, or written at any place")
            disc.recorder.close_session(final=True)

    return Later(_explained(work), nothing_more)


def blank(drive: OpenDrive, request: Message) -> Answer:
    """Take everything off a rewritable disc that is in no drive."""

    def work() -> None:
        with contextlib.closing(_burned(drive, request)) as disc:
            if disc.record is None or BLANKS[disc.record.kind].writing is Writing.ONCE:
                raise ValueError("what is written on such a disc stays")
            disc.blanked()

    return Later(_explained(work), nothing_more)


def rename_disc(drive: OpenDrive, request: Message) -> Answer:
    """Give a disc that is in no drive another name."""
    jukebox, name = drive.configured.jukebox, _text(request, "image")

    def work() -> str:
        return str(rename(find_renamed(jukebox, name), _text(request, "to")))

    return Later(work, lambda path: {"image": path})


def remove_disc(drive: OpenDrive, request: Message) -> Answer:
    """Throw a disc away that is in no drive."""
    return Later(lambda: remove(find(drive.configured.jukebox, _text(request, "image"))), nothing_more)


def _burned(drive: OpenDrive, request: Message) -> Disc:
    """A disc that was made as a blank one, and is in no drive."""
    disc = Disc(find(drive.configured.jukebox, _text(request, "image")))
    if disc.record is None:
        disc.close()
        raise ValueError("the image was not made as a blank disc: nothing can be done to it")
    return disc


def _explained(work: Callable[[], None]) -> Callable[[], None]:
    """What a host would get as sense data, an administrator gets in words."""

    def explained() -> None:
        try:
            work()
        except CheckCondition as error:
            raise ValueError(f"the disc does not take that: {Asc(error.asc).text.lower()}") from error

    return explained


def _text(request: Message, name: str) -> str:
    value = request.get(name)
    if not isinstance(value, str) or not value:
        raise ValueError(f"the request has no {name}")
    return value


def eject(drive: OpenDrive, request: Message) -> Answer:
    """Take out what is there, and close the tray. Hosts that prevent that are asked first, unless `force` is set."""
    unit = drive.unit
    if unit.image is None and not unit.open:
        raise ValueError(f"there is nothing in {unit}")
    if unit.locked and not request.get("force"):
        unit.request_eject(Wish(None, None))
        return {"asked": True}

    def remove(result: object) -> Answer:
        unit.remove()
        return Later(unit.save, nothing_more)

    return Later(lambda: _settle(unit), remove)


def _settle(unit: OpticalDrive) -> None:
    """Make stable what is on a disc that is about to go, here rather than on the loop's thread. What fails is told as it goes."""
    with contextlib.suppress(OSError):
        unit.flush()


def withdraw(drive: OpenDrive, request: Message) -> Answer:
    """What hosts were asked for is not wanted any more."""
    drive.unit.withdraw()
    return {}


def list_images(drive: OpenDrive, request: Message) -> Answer:
    """The images of its jukebox."""
    jukebox = drive.configured.jukebox
    if not jukebox:
        raise ValueError(f"{drive.unit} has no jukebox: add `jukebox = DIRECTORY` to its configuration")
    return Later(
        lambda: images(Path(jukebox)), lambda found: {"images": {image.name: image._asdict() for image in found}}
    )


OPTICAL_REQUESTS: Mapping[str, Callable[[OpenDrive, Message], Answer]] = {
    "status": status,
    "insert": insert,
    "eject": eject,
    "withdraw": withdraw,
    "list": list_images,
    "create": create,
    "close": close,
    "blank": blank,
    "rename": rename_disc,
    "remove": remove_disc,
}
