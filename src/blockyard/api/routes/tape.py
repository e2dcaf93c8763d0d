"""Tape libraries, their drives and cartridges (docs/tape.md)."""

from __future__ import annotations

from typing import Any

from fastapi import Response
from pydantic import BaseModel, Field

from blockyard.api import etags, schemas
from blockyard.api.configured import Table, add_routes, described
from blockyard.api.context import Context
from blockyard.api.etags import IfMatch
from blockyard.api.models import Counters, Input
from blockyard.api.problems import not_found
from blockyard.api.routes.jobs import Started, started
from blockyard.api.security import Here, Routes, Who
from blockyard.control.roles import Identity, Role
from blockyard.media.generations import GENERATIONS
from blockyard.worker.configuration import Library as Configured

routes = Routes("tape libraries")
TABLE = Table("libraries", Configured, "library", "/libraries/{library}", "library", paths=("directory",))

_ELEMENT = Field(None, max_length=32, description="slot-3, io-1 …; nothing: the first that is free")
_BARCODE = Field(min_length=1, max_length=32)
_GENERATION = Field(
    None, json_schema_extra={"enum": [*GENERATIONS, None]}, description="nothing: what the barcode says"
)
_SIZE = Field(None, ge=1 << 20, le=1 << 60, description="bytes; nothing: that of its generation")


class TapeDrive(BaseModel):
    element: str = Field(description="drive-N")
    lun: int
    product: str
    serial: str
    cartridge: str | None
    state: str = Field(description="empty, unloaded, loaded, or what is wrong")
    counters: Counters


class Library(BaseModel):
    """A media changer with drives."""

    name: str
    model: str
    directory: str
    slots: int
    import_export: int
    locked: bool = Field(description="hosts prevent that cartridges are taken away")
    drives: list[TapeDrive]
    elements: dict[str, str] = Field(description="slot or import/export element → barcode of what is in it")
    targets: list[str] = Field(
        description="that show it; where none does, nobody has looked at its drives and elements"
    )
    configuration: dict[str, Any] | None = schemas.field(Configured)


class Cartridge(BaseModel):
    barcode: str
    element: str | None = Field(description="where it is; none: on the shelf")
    error: str | None = Field(None, description="it is damaged")
    generation: str | None = None
    capacity: int | None = Field(None, description="bytes")
    used: int | None = None
    partitions: int | None = None
    worm: bool | None = None
    write_protected: bool | None = None
    loads: int | None = None
    written: int | None = Field(None, description="bytes, over its life")
    read: int | None = None


class NewCartridge(Input):
    barcode: str = _BARCODE
    generation: str | None = _GENERATION
    size: int | None = _SIZE
    worm: bool = False
    element: str | None = _ELEMENT


class NewCartridges(Input):
    barcode: str = Field(
        min_length=1, max_length=32, description="of the first: those after it count up, A00001L8, A00002L8 …"
    )
    count: int = Field(ge=1, le=10_000)
    generation: str | None = _GENERATION
    size: int | None = _SIZE
    worm: bool = False


class Switch(Input):
    write_protected: bool


class Label(Input):
    barcode: str = Field(min_length=1, max_length=32, description="the new one; its end says what the cartridge is")


class TapeImage(Input):
    """A file at the server with what is on a tape (SIMH, .tap)."""

    file: str = Field(min_length=1, max_length=4096, pattern="^/")


class CopyOut(TapeImage):
    partition: int = Field(0, ge=0, le=3)


class CopyIn(TapeImage):
    barcode: str = _BARCODE
    size: int | None = _SIZE
    element: str | None = _ELEMENT


class Place(Input):
    element: str | None = _ELEMENT


class Move(Input):
    source: str = Field(max_length=32, description="an element or a barcode")
    destination: str = Field(max_length=32, description="an element")


class Moved(BaseModel):
    source: str
    destination: str


@routes.get("/libraries", Role.VIEWER)
async def list_libraries(here: Here) -> list[Library]:
    """All tape libraries, those that no target shows too."""
    return [await _library(here, name) for name in sorted(here.server.settled.libraries)]


@routes.get("/libraries/{library}", Role.VIEWER)
async def get_library(library: str, here: Here, response: Response) -> Library:
    """One of them: its drives, and what is in its elements."""
    described(here, TABLE, library, response)
    return await _library(here, library)


add_routes(routes, TABLE)


@routes.post("/libraries/{library}/move", Role.OPERATOR)
async def move_cartridge(library: str, move: Move, here: Here, who: Who) -> Moved:
    """Move a cartridge as an initiator would."""
    told = await _command(here, who, library, "move", source=move.source, destination=move.destination)
    return Moved(source=told["from"], destination=told["to"])


@routes.get("/libraries/{library}/cartridges", Role.VIEWER)
async def list_cartridges(library: str, here: Here) -> list[Cartridge]:
    """All cartridges of a library, those on the shelf too."""
    return await _cartridges(here, library)


@routes.post("/libraries/{library}/cartridges", Role.OPERATOR, status_code=201)
async def create_cartridge(library: str, new: NewCartridge, here: Here, who: Who, response: Response) -> Cartridge:
    """Make an empty one, and put it into a slot."""
    await _command(here, who, library, "create", **new.model_dump(exclude_none=True))
    response.headers["Location"] = f"/api/v1/libraries/{library}/cartridges/{new.barcode}"
    return await _cartridge(here, library, new.barcode)


@routes.post("/libraries/{library}/create-cartridges", Role.OPERATOR, status_code=202)
async def create_cartridges(library: str, new: NewCartridges, here: Here, who: Who, response: Response) -> Started:
    """Make empty ones in numbers, and put them into slots: a job. Those that are made when it is stopped stay."""
    told = await _command(here, who, library, "create many", **new.model_dump(exclude_none=True))
    return started(response, f"library:{library}", told["job"])


@routes.get("/libraries/{library}/cartridges/{barcode}", Role.VIEWER)
async def get_cartridge(library: str, barcode: str, here: Here, response: Response) -> Cartridge:
    """One of them."""
    found = await _cartridge(here, library, barcode)
    etags.mark(response, found.element)
    return found


@routes.post("/libraries/{library}/cartridges/{barcode}/import", Role.OPERATOR)
async def import_cartridge(library: str, barcode: str, place: Place, here: Here, who: Who) -> Cartridge:
    """Take it from the shelf, and put it into an import/export element."""
    await _cartridge(here, library, barcode)
    await _command(here, who, library, "import", barcode=barcode, element=place.element)
    return await _cartridge(here, library, barcode)


@routes.post("/libraries/{library}/cartridges/{barcode}/export", Role.OPERATOR)
async def export_cartridge(library: str, barcode: str, here: Here, who: Who, if_match: IfMatch = None) -> Cartridge:
    """Take it out of the library, and put it on the shelf. With If-Match only from where it was seen."""
    found = await _cartridge(here, library, barcode)
    if if_match is not None:
        etags.check(if_match, found.element)
    await _command(here, who, library, "export", barcode=barcode)
    return await _cartridge(here, library, barcode)


@routes.patch("/libraries/{library}/cartridges/{barcode}", Role.OPERATOR)
async def protect_cartridge(library: str, barcode: str, switch: Switch, here: Here, who: Who) -> Cartridge:
    """Move the write-protect switch of one that is in no drive."""
    await _cartridge(here, library, barcode)
    await _command(here, who, library, "protect", barcode=barcode, protected=switch.write_protected)
    return await _cartridge(here, library, barcode)


@routes.post("/libraries/{library}/cartridges/{barcode}/label", Role.OPERATOR)
async def label_cartridge(
    library: str, barcode: str, new: Label, here: Here, who: Who, response: Response
) -> Cartridge:
    """Give another barcode to one that is in no drive. It is found by that from now on."""
    await _cartridge(here, library, barcode)
    await _command(here, who, library, "label", barcode=barcode, to=new.barcode)
    response.headers["Location"] = f"/api/v1/libraries/{library}/cartridges/{new.barcode}"
    return await _cartridge(here, library, new.barcode)


@routes.delete("/libraries/{library}/cartridges/{barcode}", Role.ADMIN, status_code=204)
async def delete_cartridge(library: str, barcode: str, here: Here, who: Who, if_match: IfMatch = None) -> None:
    """Throw one away that is in no drive, with all that is on it. With If-Match only from where it was seen."""
    found = await _cartridge(here, library, barcode)
    if if_match is not None:
        etags.check(if_match, found.element)
    await _command(here, who, library, "remove", barcode=barcode)


@routes.post("/libraries/{library}/cartridges/{barcode}/export-image", Role.ADMIN, status_code=202)
async def export_image(library: str, barcode: str, copy: CopyOut, here: Here, who: Who, response: Response) -> Started:
    """Copy what is on a cartridge, which stays where it is, to a new file: a job."""
    await _cartridge(here, library, barcode)
    arguments = {"barcode": barcode, "file": copy.file, "partition": copy.partition}
    told = await _command(here, who, library, "export image", **arguments)
    return started(response, f"library:{library}", told["job"])


@routes.post("/libraries/{library}/import-image", Role.ADMIN, status_code=202)
async def import_image(library: str, copy: CopyIn, here: Here, who: Who, response: Response) -> Started:
    """Make a cartridge of a file, and bring it in: a job."""
    told = await _command(here, who, library, "import image", **copy.model_dump(exclude_none=True))
    return started(response, f"library:{library}", told["job"])


def _shown(here: Context) -> list[str]:
    return sorted({target.library for target in here.server.settled.targets.values() if target.library})


async def _ask(here: Context, library: str, request: str) -> dict[str, Any]:
    if library not in _shown(here):
        raise not_found(f"tape library {library!r} that a target shows")
    return await here.server.supervisor.ask_library(library, {"request": request})


async def _command(here: Context, who: Identity, library: str, request: str, **arguments: object) -> dict[str, Any]:
    if library not in _shown(here):
        raise not_found(f"tape library {library!r} that a target shows")
    told: dict[str, Any] = await here.command(who, "tape", library=library, request=request, **arguments)
    return told


async def _library(here: Context, name: str) -> Library:
    found = _hidden(here, name) or await _ask(here, name, "status")
    counts = found.pop("counts")
    targets = sorted(each.name for each in here.server.settled.targets.values() if each.library == name)
    sizes = {key: counts[key] for key in ("slots", "import_export")}
    configuration = described(here, TABLE, name)
    return Library.model_validate({**found, **sizes, "name": name, "targets": targets, "configuration": configuration})


def _hidden(here: Context, name: str) -> dict[str, Any] | None:
    """What is known of a library that no target shows, so that nobody has it open; None for others."""
    configured = here.server.settled.libraries.get(name)
    if configured is None or name in _shown(here):
        return None
    counts = {"slots": configured.slots, "import_export": configured.import_export}
    nothing = {"locked": False, "drives": [], "elements": {}}
    return {"model": configured.model, "directory": configured.directory, "counts": counts, **nothing}


async def _cartridges(here: Context, library: str) -> list[Cartridge]:
    told = await _ask(here, library, "cartridges")
    return [Cartridge(barcode=barcode, **found) for barcode, found in told["cartridges"].items()]


async def _cartridge(here: Context, library: str, barcode: str) -> Cartridge:
    for cartridge in await _cartridges(here, library):
        if cartridge.barcode == barcode:
            return cartridge
    raise not_found(f"cartridge {barcode!r} in {library!r}")
