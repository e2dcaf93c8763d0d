"""Optical drives, and what is in them (docs/optical.md)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import Response
from pydantic import BaseModel, Field

from blockyard.api import schemas
from blockyard.api.configured import Table, add_routes, described
from blockyard.api.context import Context
from blockyard.api.models import Counters, Input
from blockyard.api.problems import Refused, not_found
from blockyard.api.routes.jobs import Started, started
from blockyard.api.security import Here, Routes, Who
from blockyard.control.commands import COMMANDS
from blockyard.control.roles import Identity, Role
from blockyard.worker.configuration import Drive as Configured

routes = Routes("optical drives")
TABLE = Table("drives", Configured, "drive", "/drives/{drive}", "drive", paths=("image", "jukebox"))

_WAIT = Field(10, ge=0, le=60, description="seconds that hosts have for ejecting, where they keep the disc in")
_FORCE = Field(False, description="even where a host keeps the disc in, which loses it while it reads")


class Track(BaseModel):
    number: int
    start: int = Field(description="its first block")
    blocks: int
    form: str = Field(description="mode1, mode2, xa or audio")


class Disc(BaseModel):
    kind: str
    size: int = Field(description="bytes that can be read")
    capacity: int = Field(description="bytes that it has room for")
    state: str = Field(description="pressed; of what was made as a blank disc blank, appendable, closed or formatted")
    layers: int
    sessions: list[int] = Field(description="the first block of each")
    tracks: list[Track]


class Drive(BaseModel):
    """An optical drive."""

    name: str
    state: str = Field(description="loaded, open, empty, unreadable, or hidden: no target shows it")
    image: str | None = Field(description="the file of what is in it")
    jukebox: str | None = Field(description="the directory of its images")
    disc: Disc | None
    initiators: list[str]
    locked_by: list[str] = Field(description="initiators that keep the disc in")
    wished: bool = Field(description="they are asked to eject it")
    targets: list[str] = Field(description="that show it")
    counters: Counters | None = Field(description="none while it is hidden")
    configuration: dict[str, Any] | None = schemas.field(Configured)


class Image(BaseModel):
    name: str
    size: int = Field(description="bytes of its file")
    kind: str = Field(description="of what was made as a blank disc; empty for other images")
    state: str = Field(description="and what it is: blank, appendable, closed, formatted, or damaged")


class Burned(Input):
    """A disc."""

    image: str = Field(min_length=1, max_length=4096, description="its name in the jukebox; for admins, a path as well")


class Blank(Burned):
    """A blank disc that is to be made."""

    kind: str = Field("cd-r", max_length=16, description="the disc that it is")
    size: str | None = Field(None, max_length=32, description="80min, 50G or another size; nothing: the usual one")


class Export(Burned):
    file: str = Field(min_length=1, max_length=4096, description="at the server: .iso, or .cue with a .bin")


class Named(Burned):
    name: str = Field(min_length=1, max_length=255, description="the new one, in the jukebox")


class Insertion(Input):
    image: str = Field(
        min_length=1,
        max_length=4096,
        description="the name of one in the jukebox; for admins, a path with a / in it as well",
    )
    kind: str | None = Field(None, max_length=16, description="the disc that it is to be; nothing: what the drive says")
    blank: str | None = Field(None, max_length=32, description="make it: a blank disc of this size, 80min or 25G")
    wait: int = _WAIT
    force: bool = _FORCE


class Ejection(Input):
    wait: int = _WAIT
    force: bool = _FORCE


@routes.get("/drives", Role.VIEWER)
async def list_drives(here: Here) -> list[Drive]:
    """All optical drives, those that no target shows too."""
    return [await _drive(here, name) for name in sorted(here.server.settled.drives)]


@routes.get("/drives/{drive}", Role.VIEWER)
async def get_drive(drive: str, here: Here, response: Response) -> Drive:
    """One of them, and what is in it."""
    described(here, TABLE, drive, response)
    return await _drive(here, drive)


add_routes(routes, TABLE)


@routes.get("/drives/{drive}/images", Role.VIEWER)
async def list_images(drive: str, here: Here) -> list[Image]:
    """The images in its jukebox."""
    return await _images(here, drive)


@routes.post("/drives/{drive}/create-disc", Role.OPERATOR)
async def create_disc(drive: str, new: Blank, here: Here, who: Who) -> list[Image]:
    """Make a blank disc, which is in no drive yet."""
    await _command(here, who, drive, "create", **new.model_dump(exclude_none=True))
    return await _images(here, drive)


@routes.post("/drives/{drive}/close-disc", Role.OPERATOR)
async def close_disc(drive: str, disc: Burned, here: Here, who: Who) -> list[Image]:
    """Finalize it: nothing can be added then."""
    await _command(here, who, drive, "close", **disc.model_dump())
    return await _images(here, drive)


@routes.post("/drives/{drive}/blank-disc", Role.OPERATOR)
async def blank_disc(drive: str, disc: Burned, here: Here, who: Who) -> list[Image]:
    """Take everything off a rewritable one."""
    await _command(here, who, drive, "blank", **disc.model_dump())
    return await _images(here, drive)


@routes.post("/drives/{drive}/export-disc", Role.ADMIN, status_code=202)
async def export_disc(drive: str, copy: Export, here: Here, who: Who, response: Response) -> Started:
    """Copy a disc to a file at the server: a job."""
    return await _begin(here, who, response, drive, "export", image=copy.image, file=copy.file)


@routes.post("/drives/{drive}/import-disc", Role.ADMIN, status_code=202)
async def import_disc(drive: str, copy: Export, here: Here, who: Who, response: Response) -> Started:
    """Copy an image at the server, `file`, into the jukebox: a job."""
    return await _begin(here, who, response, drive, "import", image=copy.image, file=copy.file)


@routes.post("/drives/{drive}/convert-disc", Role.OPERATOR, status_code=202)
async def convert_disc(drive: str, copy: Named, here: Here, who: Who, response: Response) -> Started:
    """Copy a disc to another name in the jukebox, of a cue sheet as an image, or the other way round: a job."""
    return await _begin(here, who, response, drive, "convert", image=copy.image, to=copy.name)


@routes.post("/drives/{drive}/rename-disc", Role.OPERATOR)
async def rename_disc(drive: str, new: Named, here: Here, who: Who) -> list[Image]:
    """Give a disc that is in no drive another name."""
    await _command(here, who, drive, "rename", image=new.image, to=new.name)
    return await _images(here, drive)


@routes.post("/drives/{drive}/remove-disc", Role.ADMIN)
async def remove_disc(drive: str, disc: Burned, here: Here, who: Who) -> list[Image]:
    """Throw a disc away that is in no drive, with all that is on it."""
    await _command(here, who, drive, "remove", image=disc.image)
    return await _images(here, drive)


@routes.post("/drives/{drive}/insert", Role.OPERATOR)
async def insert_disc(drive: str, new: Insertion, here: Here, who: Who) -> Drive:
    """Put an image into it, in the place of what is there."""
    await _command(here, who, drive, "insert", **new.model_dump(exclude_none=True))
    return await _drive(here, drive)


@routes.post("/drives/{drive}/eject", Role.OPERATOR)
async def eject_disc(drive: str, ejection: Ejection, here: Here, who: Who) -> Drive:
    """Take out what is in it."""
    await _command(here, who, drive, "eject", **ejection.model_dump())
    return await _drive(here, drive)


async def _images(here: Context, drive: str) -> list[Image]:
    """Those of its jukebox; none where it has no jukebox."""
    if not (await _ask(here, drive, "status"))["jukebox"]:
        return []
    found = await _ask(here, drive, "list")
    return [Image.model_validate(image) for image in found["images"].values()]


def _shown(here: Context) -> list[str]:
    settled = here.server.settled
    return sorted(set().union(*(target.volumes for target in settled.targets.values())) & settled.drives.keys())


async def _ask(here: Context, drive: str, request: str) -> dict[str, Any]:
    if drive not in _shown(here):
        raise not_found(f"optical drive {drive!r} that a target shows")
    return await here.server.supervisor.ask_drive(drive, {"request": request})


async def _begin(
    here: Context, who: Identity, response: Response, drive: str, request: str, **arguments: object
) -> Started:
    told = await _command(here, who, drive, request, **arguments)
    return started(response, f"drive:{drive}", told["job"])


async def _command(here: Context, who: Identity, drive: str, request: str, **arguments: object) -> dict[str, Any]:
    if drive not in _shown(here):
        raise not_found(f"optical drive {drive!r} that a target shows")
    arguments = {"drive": drive, "request": request, **arguments}
    role = COMMANDS["optical"].role_for(arguments)
    if not who.at_least(role):
        raise Refused(
            HTTPStatus.FORBIDDEN, f"{who.name} is {who.role}: images that are named by a path are for {role}s"
        )
    told: dict[str, Any] = await here.command(who, "optical", **arguments)
    return told


async def _drive(here: Context, name: str) -> Drive:
    found = _hidden(here, name) or await _ask(here, name, "status")
    targets = sorted(each.name for each in here.server.settled.targets.values() if name in each.volumes)
    more = {"jukebox": found["jukebox"] or None, "configuration": described(here, TABLE, name)}
    return Drive.model_validate({**found, **more, "name": name, "targets": targets})


def _hidden(here: Context, name: str) -> dict[str, Any] | None:
    """What is known of a drive that no target shows, so that nobody has it open; None for others."""
    configured = here.server.settled.drives.get(name)
    if configured is None or name in _shown(here):
        return None
    nothing: dict[str, Any] = {
        "image": None,
        "disc": None,
        "initiators": [],
        "locked_by": [],
        "wished": False,
        "counters": None,
    }
    return {"state": "hidden", "jukebox": configured.jukebox, **nothing}
