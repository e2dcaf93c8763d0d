"""Layers that stacks have by their names."""

from __future__ import annotations

from typing import Any

from fastapi import Response
from pydantic import BaseModel

from blockyard.api import schemas
from blockyard.api.configured import Table, add_routes, described
from blockyard.api.problems import not_found
from blockyard.api.security import Here, Routes
from blockyard.control.roles import Role
from blockyard.worker.declared import DeclaredLayer

routes = Routes("layers")
TABLE = Table("layers", DeclaredLayer, "layer", "/layers/{layer}", "layer")


class Layer(BaseModel):
    """A part of a stack that is declared on its own."""

    name: str
    configuration: dict[str, Any] | None = schemas.field(DeclaredLayer)


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


add_routes(routes, TABLE)
