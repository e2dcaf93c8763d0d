"""Where the schemas and the messages are: JsonSchemas and Registries; and the registry of our events (DSP0266 §11)."""

from __future__ import annotations

from typing import Any

from fastapi import Request, Response

from blockyard.api.problems import not_found
from blockyard.api.redfish.errors import BASE
from blockyard.api.redfish.resources import TYPES, collection, new_routes, reply, resource, schema_file, uri
from blockyard.control import message_registry
from blockyard.control.roles import Role

routes = new_routes()

_REGISTRIES, _SCHEMAS = ("Registries",), ("JsonSchemas",)
_OURS = f"{message_registry.PREFIX}.{message_registry.VERSION}"
_PLACES: dict[str, dict[str, str]] = {
    BASE: {"PublicationUri": f"https://redfish.dmtf.org/registries/{BASE}.0.json"},
    _OURS: {"Uri": uri(*_REGISTRIES, _OURS, "registry")},
}


@routes.get("/v1/Registries", Role.VIEWER, name="redfish_registries")
async def registries(request: Request) -> Response:
    """Those that messages are of."""
    return reply(
        request, collection("MessageRegistryFile", uri(*_REGISTRIES), [uri(*_REGISTRIES, name) for name in _PLACES])
    )


@routes.get("/v1/Registries/{registry}", Role.VIEWER, name="redfish_registry_file")
async def registry_file(registry: str, request: Request) -> Response:
    """Where one of them is."""
    if registry not in _PLACES:
        raise not_found(f"registry {registry!r}")
    short = ".".join(registry.split(".")[:3])
    more = {"Registry": short, **_place(_PLACES[registry])}
    return reply(request, resource("MessageRegistryFile", uri(*_REGISTRIES, registry), registry, registry, **more))


@routes.get("/v1/Registries/{registry}/registry", Role.VIEWER, name="redfish_registry")
async def registry_(registry: str, request: Request) -> Response:
    """That of our events."""
    if registry != _OURS:
        raise not_found(f"registry {registry!r} here")
    return reply(request, message_registry.registry())


@routes.get("/v1/JsonSchemas", Role.VIEWER, name="redfish_schemas")
async def schemas(request: Request) -> Response:
    """Those of all resources that there are here."""
    return reply(request, collection("JsonSchemaFile", uri(*_SCHEMAS), [uri(*_SCHEMAS, kind) for kind in TYPES]))


@routes.get("/v1/JsonSchemas/{schema}", Role.VIEWER, name="redfish_schema")
async def schema_(schema: str, request: Request) -> Response:
    """Where one of them is published."""
    if schema not in TYPES:
        raise not_found(f"schema {schema!r}")
    full = f"{schema}.{TYPES[schema]}"
    place = {"PublicationUri": f"{schema_file(schema).removesuffix(schema)}{full}.json"}
    more = {"Schema": f"#{full}.{schema}", **_place(place)}
    return reply(request, resource("JsonSchemaFile", uri(*_SCHEMAS, schema), schema, f"{schema} schema file", **more))


def _place(where: dict[str, str]) -> dict[str, Any]:
    return {"Languages": ["en"], "Location": [{"Language": "en", **where}]}
