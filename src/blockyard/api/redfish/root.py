"""What can be read without a proof: the versions, the service root, and the two documents of OData (DSP0266 §8.4, §8.5)."""

from __future__ import annotations

from xml.sax.saxutils import quoteattr

from fastapi import Request, Response

from blockyard import __version__
from blockyard.api.redfish.errors import FIELDS
from blockyard.api.redfish.queries import FEATURES
from blockyard.api.redfish.resources import (
    COLLECTIONS,
    MANAGER,
    PARTS,
    SCHEMAS,
    TYPES,
    V1,
    link,
    new_routes,
    reply,
    resource,
    schema_file,
    uri,
)
from blockyard.api.security import Here

routes = new_routes()

_SERVICES = (
    "Systems", "Managers", "Storage", "Fabrics", "SessionService", "AccountService", "EventService", "Registries", "JsonSchemas",
)  # fmt: skip


@routes.get("", None, name="redfish_versions")
async def versions(request: Request) -> Response:
    """Which versions there are."""
    return reply(request, {"v1": f"{V1}/"})


@routes.get("/v1", None, name="redfish_root")
async def service_root(request: Request, here: Here) -> Response:
    """Where everything begins."""
    services = {name: link(uri(name)) for name in _SERVICES} | {"Tasks": link(uri("TaskService"))}
    links = {"Sessions": link(uri("SessionService", "Sessions")), "ManagerProvidingService": link(uri(*MANAGER))}
    more = {
        "RedfishVersion": "1.21.0",
        "UUID": here.uuid,
        "Product": f"Blockyard {__version__}",
        "Vendor": "Blockyard",
        "ProtocolFeaturesSupported": FEATURES,
        "Links": links,
    }
    return reply(request, resource("ServiceRoot", f"{V1}/", "RootService", "Blockyard", **more, **services))


@routes.get("/v1/odata", None, name="redfish_odata")
async def odata(request: Request) -> Response:
    """The OData service document."""
    places = {"Service": f"{V1}/", "Sessions": uri("SessionService", "Sessions"), "Tasks": uri("TaskService")}
    places |= {name: uri(name) for name in _SERVICES}
    services = [{"name": name, "kind": "Singleton", "url": place} for name, place in places.items()]
    return reply(request, {"@odata.context": f"{V1}/$metadata", "value": services})


@routes.get("/v1/$metadata", None, name="redfish_metadata")
async def metadata() -> Response:
    """The OData metadata document: where the schemas of all types are."""
    references = {kind: [kind, f"{kind}.{version}"] for kind, version in {**TYPES, **PARTS}.items()}
    references |= {f"{kind}Collection": [f"{kind}Collection"] for kind in COLLECTIONS}
    lines = ['<?xml version="1.0" encoding="UTF-8"?>']
    lines.append('<edmx:Edmx xmlns:edmx="http://docs.oasis-open.org/odata/ns/edmx" Version="4.0">')
    for kind, namespaces in references.items():
        lines.append(f"  <edmx:Reference Uri={quoteattr(schema_file(kind) + '_v1.xml')}>")
        lines += [f"    <edmx:Include Namespace={quoteattr(each)}/>" for each in namespaces]
        lines.append("  </edmx:Reference>")
    lines += [
        f'  <edmx:Reference Uri="{SCHEMAS}/v1/RedfishExtensions_v1.xml">',
        '    <edmx:Include Namespace="RedfishExtensions.v1_0_0" Alias="Redfish"/>',
        "  </edmx:Reference>",
        "  <edmx:DataServices>",
        '    <Schema xmlns="http://docs.oasis-open.org/odata/ns/edm" Namespace="Service">',
        f'      <EntityContainer Name="Service" Extends="ServiceRoot.{TYPES["ServiceRoot"]}.ServiceContainer"/>',
        "    </Schema>",
        "  </edmx:DataServices>",
        "</edmx:Edmx>",
    ]
    return Response("\n".join(lines) + "\n", 200, {**FIELDS, "allow": "GET, HEAD"}, "application/xml;charset=utf-8")
