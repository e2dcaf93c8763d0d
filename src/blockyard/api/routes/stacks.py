"""The stacks of layers that volumes are: how each layer is, what can be done with it in use, and moves to other stacks."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Response
from pydantic import BaseModel, ConfigDict, Field

from blockyard.api.context import Context
from blockyard.api.models import Input
from blockyard.api.problems import not_found
from blockyard.api.routes.jobs import Started
from blockyard.api.security import Here, Owners, Routes, Who
from blockyard.control.jobs import all_jobs
from blockyard.control.layer_commands import looked
from blockyard.control.roles import Role

routes = Routes("stacks")

_STACK = Field(min_length=1, max_length=1 << 16, description="a stack, or an absolute path")
_PLACE = (
    "which layer: by places from the top, as in 0/1, or by the kind that is there once; nothing: the only one that can"
)


class Work(BaseModel):
    """What goes on by itself until it is done."""

    layer: str
    kind: str = Field(description="rebuild, reshape, resync")
    unit: str
    done: int
    total: int
    paused: bool = Field(False, description="until somebody lets it go on")


class Stack(BaseModel):
    """A volume that is made of layers."""

    volume: str
    stack: str
    health: str | None = Field(
        description="ok, degraded, failed or what it is busy with; none while no target shows it"
    )
    text: str = Field(description="why it is not well")
    work: list[Work]


class StackLayer(BaseModel):
    """A layer that is open, with all that it reports: members of an array, counters, gauges."""

    model_config = ConfigDict(extra="allow")

    label: str = Field(description="how it is written, without what it stands on")
    size: int
    health: str
    text: str = ""
    progress: list[int] | None = Field(None, description="what is done, and all of it")
    actions: list[str] = Field(description="what can be done with it")
    children: list[StackLayer]


class LayerAction(BaseModel):
    text: str
    long: bool = Field(description="it becomes a job")
    options: dict[str, Any] = Field(description="type and default of each")


class Act(Input):
    action: str = Field(max_length=64)
    layer: str = Field("", max_length=256, description=_PLACE)
    options: dict[str, bool | int | float | Annotated[str, Field(max_length=4096)]] = Field({})


class Acted(BaseModel):
    text: str | None = Field(description="for people; none for a job")
    job: str | None = Field(description="its id, for what takes long: GET /jobs/{id}")


class NewMove(Input):
    stack: str = _STACK


class Ended(BaseModel):
    text: str


@routes.get("/stacks", Role.VIEWER)
async def list_stacks(here: Here) -> list[Stack]:
    """All volumes that are made of layers, and how they are."""
    told = {name: stack for found in (await looked(here.server)).values() for name, stack in found["stacks"].items()}
    nothing: dict[str, Any] = {"health": None, "text": "", "work": []}
    return [
        Stack(volume=name, stack=volume.stack, **told.get(name, nothing))
        for name, volume in here.server.settled.volumes.items()
        if volume.stack
    ]


@routes.get("/stacks/{volume:path}", Role.VIEWER, Owners.VOLUME)
async def get_stack(volume: str, here: Here) -> StackLayer:
    """The layers of one of them, the top first."""
    _check(here, volume)
    told = await here.server.supervisor.ask_volume(volume, {"request": "show", "path": ""})
    return StackLayer.model_validate(told["tree"])


@routes.get("/stack-actions/{volume:path}", Role.VIEWER)
async def list_actions(
    volume: str,
    here: Here,
    layer: Annotated[str, Query(max_length=256, description="by places from the top: 0/1")] = "",
) -> dict[str, LayerAction]:
    """What can be done with a layer while it is in use."""
    _check(here, volume)
    told = await here.server.supervisor.ask_volume(volume, {"request": "actions", "path": layer})
    return {name: LayerAction(**each) for name, each in told["actions"].items()}


@routes.post("/stacks/{volume:path}", Role.ADMIN, responses={202: {"model": Acted, "description": "begun, as a job"}})
async def act(volume: str, wanted: Act, here: Here, who: Who, response: Response) -> Acted:
    """Have a layer do something while it is in use: a scrub, another rate, a disk more."""
    _check(here, volume)
    where = f"{volume}/{wanted.layer}" if wanted.layer else volume
    options = dict(wanted.options)
    told = await here.command(who, "layer", request="act", layer=where, action=wanted.action, options=options)
    if "job" not in told:
        return Acted(text=told["said"], job=None)
    job = await _started(here, volume, told["job"], response)
    response.status_code = 202
    return Acted(text=None, job=job)


@routes.post("/moves/{volume:path}", Role.ADMIN, status_code=202)
async def begin_move(volume: str, new: NewMove, here: Here, who: Who, response: Response) -> Started:
    """Copy a volume to another stack, under all that is written: what is written goes to both from now on."""
    _check(here, volume, stack=False)
    told = await here.command(who, "layer move", volume=volume, stack=new.stack)
    return Started(job=await _started(here, volume, told["job"], response))


@routes.delete("/moves/{volume:path}", Role.ADMIN)
async def end_move(volume: str, here: Here, who: Who) -> Ended:
    """All is copied: let go of the stack that it was moved from. (What is not done yet is stopped by DELETE of its job.)"""
    _check(here, volume, stack=False)
    told = await here.command(who, "layer finish", volume=volume)
    return Ended(text=told["said"])


async def _started(here: Context, volume: str, number: int, response: Response) -> str:
    """The id of a job that has just begun."""
    found = [job["id"] for job in await all_jobs(here.server) if (job["volume"], job["number"]) == (volume, number)]
    name: str = found[-1]
    response.headers["Location"] = f"/api/v1/jobs/{name}"
    return name


def _check(here: Context, volume: str, *, stack: bool = True) -> None:
    """Raises Refused."""
    found = here.server.settled.volumes.get(volume)
    if found is None or (stack and not found.stack):
        raise not_found(f"volume {volume!r}{' that is made of layers' if stack else ''}")
