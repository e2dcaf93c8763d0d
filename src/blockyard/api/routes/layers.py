"""Layers that stacks have by their names."""

from __future__ import annotations

import asyncio
import json
from functools import cache
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Response
from pydantic import BaseModel, Field

from blockyard.api import schemas
from blockyard.api.configured import Table, add_routes, described
from blockyard.api.models import Input
from blockyard.api.problems import Refused, not_found
from blockyard.api.security import Here, Routes, Who
from blockyard.block import kinds
from blockyard.block.layers import MANY, Kind
from blockyard.block.size import MAX_VOLUME
from blockyard.block.stack import Call, StackError, Value, Word, Written, parse
from blockyard.control.making import PATIENT, QUICK
from blockyard.control.roles import Role
from blockyard.worker.declared import DeclaredLayer
from blockyard.worker.layer_requests import described_options

routes = Routes("layers")

OptionValue = bool | int | float | Annotated[str, Field(max_length=4096)] | list[Annotated[str, Field(max_length=4096)]]
TABLE = Table("layers", DeclaredLayer, "layer", "/layers/{layer}", "layer")


class Layer(BaseModel):
    """A part of a stack that is declared on its own."""

    name: str
    configuration: dict[str, Any] | None = schemas.field(DeclaredLayer)


class LayerKind(BaseModel):
    """What layers can be."""

    name: str
    text: str
    example: str
    least: int = Field(description="so many layers, files or devices it stands on at least")
    most: int | None = Field(description="and so many at most; none: as many as you like")
    argument: str | None = Field(description="the option that stands without its name")
    options: dict[str, Any] = Field(description="of one that is in use, as a JSON Schema")
    creation: dict[str, Any] | None = Field(
        description="what there is to choose when it is made; none: it need not be made"
    )


class NewLayer(Input):
    kind: str = Field(max_length=64, examples=["raid1"])
    on: list[Annotated[str, Field(max_length=4096)]] = Field(
        max_length=1024, description="what it stands on: absolute paths, names of layers, stacks, pool(POOL/VOLUME)"
    )
    options: dict[str, OptionValue] = Field({}, description="as `creation` of its kind has them")
    size: int | None = Field(None, ge=512, le=MAX_VOLUME, description="bytes of each file that is missing, and is made")
    passphrase: str | None = Field(
        None,
        min_length=1,
        max_length=1024,
        description="of an encrypted disk; the server keeps it, to open the disk again",
    )
    name: str | None = Field(None, min_length=1, max_length=64, description="that it is declared under")
    wait: float = Field(QUICK, ge=0, le=PATIENT, description="seconds; what takes longer is answered with its job")


class MadeLayer(BaseModel):
    text: str | None = Field(description="for people; none for a job")
    job: str | None = Field(None, description="its id, where it takes longer: GET /jobs/{id}")
    stack: str = Field(description="what opens it")
    name: str | None = Field(description="that it is declared under, when it is there")


@routes.get("/layers", Role.VIEWER)
async def list_layers(here: Here) -> list[Layer]:
    """All of them."""
    return [Layer(name=name, configuration=described(here, TABLE, name)) for name in here.server.configuration.layers]


@routes.get("/layers/{layer}", Role.VIEWER)
async def get_layer(layer: str, here: Here, response: Response) -> Layer:
    """One of them."""
    found = described(here, TABLE, layer, response)
    if found is None:
        raise not_found(f"layer {layer!r}")
    return Layer(name=layer, configuration=found)


@routes.get("/layer-kinds", Role.VIEWER)
async def list_layer_kinds() -> list[LayerKind]:
    """All kinds of layers that there are, with their options."""
    return list(await asyncio.to_thread(_kinds))


@routes.post(
    "/layers", Role.ADMIN, status_code=201, responses={202: {"model": MadeLayer, "description": "begun, as a job"}}
)
async def create_layer(new: NewLayer, here: Here, who: Who, response: Response) -> MadeLayer:
    """Make a layer that keeps marks on what it stands on: an array, a cache, an encrypted or compressed disk.

    What that holds is lost. With a name, it is declared under that, so that stacks can have it; a volume is made of it by
    PUT /volumes/{volume} with its stack. What takes longer becomes a job; one that is stopped leaves nothing that could be
    opened.
    """
    stack = Call(new.kind, tuple(map(_part, new.on)), tuple((key, _value(value)) for key, value in new.options.items()))
    asked = {"stack": str(stack), "size": new.size, "name": new.name, "declare": new.name is not None, "wait": new.wait}
    if new.passphrase is not None:
        asked["passphrase"] = new.passphrase
    made = await here.command(who, "layer create", **asked)
    job = f"layers:{made['name']}" if "job" in made else None
    if job is not None:
        response.status_code = 202
        response.headers["Location"] = f"/api/v1/jobs/{job}"
    elif new.name is not None:
        response.headers["Location"] = f"/api/v1/layers/{quote(new.name, safe='')}"
    return MadeLayer(text=made.get("said"), job=job, stack=made["stack"], name=new.name)


add_routes(routes, TABLE)


def _part(text: str) -> Written:
    """Raises Refused."""
    try:
        return parse(text)
    except StackError as error:
        raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, f"on: {error}") from None


def _value(value: Any) -> Value:
    if isinstance(value, list):
        return tuple(Word(each, True) for each in value)
    return Word(str(value).lower() if isinstance(value, bool) else str(value))


@cache
def _kinds() -> tuple[LayerKind, ...]:
    return tuple(_kind(each) for each in kinds.kinds())


def _kind(kind: Kind) -> LayerKind:
    return LayerKind(
        name=kind.name,
        text=kind.text,
        example=kind.example,
        least=kind.children[0],
        most=None if kind.children[1] == MANY else kind.children[1],
        argument=kind.argument or None,
        options=_described(kind.options),
        creation=None if kind.create is None else _described(kind.creation),
    )


def _described(options: type) -> dict[str, Any]:
    """A schema, with the defaults that there are."""
    schema = schemas.of(options)
    for name, each in described_options(options).items():
        if "default" in each and name in schema["properties"]:
            schema["properties"][name]["default"] = json.loads(json.dumps(each["default"], default=str))
    return schema
