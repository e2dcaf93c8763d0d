"""What all resources have in common: identifiers, types, the fields of answers (DSP0266 §7.8, §9)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from fastapi import Request, Response

from blockyard.api import etags
from blockyard.api.problems import methods
from blockyard.api.redfish.errors import FIELDS
from blockyard.api.security import Routes

V1 = "/redfish/v1"
SCHEMAS = "http://redfish.dmtf.org/schemas"
SWORDFISH = frozenset({"StoragePool", "StoragePoolCollection"})
TYPES = {  # whose versions are those of which every property that is told is in
    "ServiceRoot": "ServiceRoot.v1_11_0.ServiceRoot",
    "Storage": "Storage.v1_13_0.Storage",
    "StoragePool": "StoragePool.v1_8_0.StoragePool",
    "Volume": "Volume.v1_8_0.Volume",
    "SessionService": "SessionService.v1_1_8.SessionService",
    "Session": "Session.v1_5_0.Session",
}
COLLECTIONS = ("Storage", "StoragePool", "Volume", "Session")
OK = {"State": "Enabled", "Health": "OK"}


def new_routes() -> Routes:
    return Routes("redfish")


def uri(*parts: object) -> str:
    """The path of a resource, of the names that lead to it."""
    return "/".join([V1, *(quote(str(part), safe=":") for part in parts)])


def link(where: str) -> dict[str, str]:
    return {"@odata.id": where}


def resource(kind: str, where: str, number: str, name: str, **properties: Any) -> dict[str, Any]:
    return {"@odata.type": f"#{TYPES[kind]}", "@odata.id": where, "Id": number, "Name": name, **properties}


def collection(kind: str, where: str, members: Iterable[str]) -> dict[str, Any]:
    found = [link(member) for member in members]
    return {
        "@odata.type": f"#{kind}Collection.{kind}Collection",
        "@odata.id": where,
        "Name": f"{kind} Collection",
        "Members": found,
        "Members@odata.count": len(found),
    }


def schema_file(kind: str) -> str:
    """Where the standard has the schema of a type."""
    return f"{SCHEMAS}/{'swordfish/' if kind in SWORDFISH else ''}v1/{kind}"


def reply(request: Request, body: dict[str, Any], state: object = None, status: int = 200, **fields: str) -> Response:
    """An answer that tells a resource, with the ETag of `state`: what can be changed of it, if that is not all."""
    kind = str(body.get("@odata.type", "")).removeprefix("#").rpartition(".")[0]
    headers = {**FIELDS, "allow": methods(request), "etag": etags.etag(body if state is None else state), **fields}
    if kind:
        headers["link"] = f"<{schema_file(kind.partition('.')[0])}.json>; rel=describedby"
    return Response(json.dumps(body), status, headers, "application/json;charset=utf-8")
