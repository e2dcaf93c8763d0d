"""What all resources have in common: identifiers, types, the fields of answers and of what is sent (DSP0266 §7.8, §9)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import quote

from fastapi import Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from blockyard.api import etags
from blockyard.api.problems import methods
from blockyard.api.redfish.errors import FIELDS, Told, message
from blockyard.api.security import Routes

V1 = "/redfish/v1"
SCHEMAS = "http://redfish.dmtf.org/schemas"
SWORDFISH = frozenset(
    {"StoragePool", "StoragePoolCollection", "Volume", "VolumeCollection", "StorageReplicaInfo", "Capacity"}
)
TYPES = {  # whose versions are those of which every property that is told is in
    "ServiceRoot": "v1_21_0",
    "ComputerSystem": "v1_28_0",
    "Manager": "v1_25_0",
    "Storage": "v1_22_0",
    "StoragePool": "v1_9_0",
    "Volume": "v1_10_0",
    "Fabric": "v1_4_0",
    "Endpoint": "v1_8_0",
    "Connection": "v1_4_0",
    "TaskService": "v1_3_0",
    "Task": "v1_7_0",
    "SessionService": "v1_2_0",
    "Session": "v1_8_0",
    "AccountService": "v1_18_0",
    "ManagerAccount": "v1_14_0",
    "Role": "v1_3_0",
    "EventService": "v1_12_0",
    "EventDestination": "v1_17_0",
    "MessageRegistryFile": "v1_1_0",
    "JsonSchemaFile": "v1_1_0",
}
COLLECTIONS = (
    "ComputerSystem", "Manager", "Storage", "StoragePool", "Volume", "Fabric", "Endpoint", "Connection", "Task", "Session",
    "ManagerAccount", "Role", "EventDestination", "MessageRegistryFile", "JsonSchemaFile",
)  # fmt: skip
PARTS = {  # what stands within resources and has a schema of its own
    "Resource": "v1_0_0",
    "Capacity": "v1_2_0",
    "StorageReplicaInfo": "v1_4_0",
    "Message": "v1_3_0",
    "MessageRegistry": "v1_6_0",
    "Event": "v1_9_0",
}
OK = {"State": "Enabled", "Health": "OK"}
SYSTEM, MANAGER, STORAGE = ("Systems", "blockyard"), ("Managers", "blockyard"), ("Storage", "blockyard")

T = TypeVar("T", bound=BaseModel)


class Body(BaseModel):
    """What clients send. They send more than what is known here: what to do about that depends on what it is for."""

    model_config = ConfigDict(extra="allow", str_max_length=4096)

    @property
    def said(self) -> set[str]:
        """The properties that are known and sent."""
        return self.model_fields_set & type(self).model_fields.keys()

    @property
    def others(self) -> list[str]:
        """The properties that are not known or cannot be written, annotations aside (DSP0266 §7.7.2)."""
        return [name for name in self.model_extra or {} if "@" not in name]


class Link(BaseModel):
    """A reference to a resource."""

    id: str = Field(alias="@odata.id", max_length=4096)

    def below(self, *parts: str) -> str | None:
        """What it is called in a collection; None where it leads somewhere else."""
        start = uri(*parts) + "/"
        name = self.id.removeprefix(start).rstrip("/")
        return name if self.id.startswith(start) and name and "/" not in name else None


def new_routes() -> Routes:
    return Routes("redfish")


def uri(*parts: object) -> str:
    """The path of a resource, of the names that lead to it."""
    return "/".join([V1, *(quote(str(part), safe=":~+*,$") for part in parts)])


def link(where: str) -> dict[str, str]:
    return {"@odata.id": where}


def links(where: Iterable[str]) -> list[dict[str, str]]:
    return [link(each) for each in where]


def counted(name: str, where: Iterable[str]) -> dict[str, Any]:
    """An array of references, with their number."""
    found = links(where)
    return {name: found, f"{name}@odata.count": len(found)}


def resource(kind: str, where: str, number: str, name: str, **properties: Any) -> dict[str, Any]:
    full = f"#{kind}.{TYPES[kind]}.{kind}"
    return {"@odata.type": full, "@odata.id": where, "Id": number, "Name": name, **properties}


def collection(kind: str, where: str, members: Iterable[str]) -> dict[str, Any]:
    return {
        "@odata.type": f"#{kind}Collection.{kind}Collection",
        "@odata.id": where,
        "Name": f"{kind} Collection",
        **counted("Members", members),
    }


def schema_file(kind: str) -> str:
    """Where the standard has the schema of a type."""
    return f"{SCHEMAS}/{'swordfish/' if kind in SWORDFISH else ''}v1/{kind}"


# ---- what is sent


def made(kind: type[T], **fields: Any) -> T:
    """What a route of the API takes. Raises Refused for what it does not take."""
    try:
        return kind(**fields)
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()[:3])
        raise Told(HTTPStatus.BAD_REQUEST, "PropertyValueError", said) from None


def refuse_others(body: Body) -> None:
    """That what is to be made is not to have something that is not known. Raises Refused."""
    if body.others:
        raise Told(
            HTTPStatus.BAD_REQUEST, "PropertyUnknown", f"{', '.join(body.others)}: not supported here", body.others[0]
        )


def missing(name: str) -> Told:
    return Told(HTTPStatus.BAD_REQUEST, "PropertyMissing", f"{name} is missing", name)


def wrong(name: str, why: str) -> Told:
    return Told(HTTPStatus.BAD_REQUEST, "PropertyValueError", f"{name}: {why}", name)


def check_change(body: Body) -> None:
    """That something of a PATCH can be done (DSP0266 §7.7.2). Raises Refused."""
    if body.said:
        return
    if not body.others:
        raise Told(HTTPStatus.BAD_REQUEST, "NoOperation", "nothing is to be changed")
    raise Told(
        HTTPStatus.BAD_REQUEST, "PropertyNotWritable", f"{', '.join(body.others)}: cannot be changed", body.others[0]
    )


def check_match(if_match: str | None, state: Any) -> None:
    """That what is to be changed is what was looked at, where the client says so: most do not. Raises Refused."""
    if if_match is not None:
        etags.check(if_match, state)


# ---- answers


def reply(
    request: Request,
    body: dict[str, Any],
    state: object = None,
    status: int = 200,
    change: Body | None = None,
    fields: Mapping[str, str] | None = None,
    *,
    steady: bool = False,
) -> Response:
    """An answer that tells a resource, with the ETag of `state`: what can be changed of it, if that is not all.

    Of a `steady` one `state` says all that is told, so that whoever has it already need not be told again (If-None-Match).
    To the `change` that a PATCH asked for it says of which properties it has done nothing.
    """
    kind = str(body.get("@odata.type", "")).removeprefix("#").rpartition(".")[0]
    etag = etags.etag(body if state is None else state)
    headers = {**FIELDS, "allow": methods(request), "etag": etag, **(fields or {})}
    if "@odata.id" in body:
        body = {**body, "@odata.etag": etag}
        if status == HTTPStatus.CREATED:
            headers.setdefault("location", body["@odata.id"])
    if change is not None and change.others:
        told = [message("PropertyNotWritable", f"{name} cannot be changed", "Warning", name) for name in change.others]
        body = {**body, "@Message.ExtendedInfo": told}
    known = request.headers.get("if-none-match", "") if request.method == "GET" and (steady or state is None) else ""
    if etag in (each.strip() for each in known.split(",")):
        return Response(None, HTTPStatus.NOT_MODIFIED, headers)
    if kind:
        headers["link"] = f"<{schema_file(kind.partition('.')[0])}.json>; rel=describedby"
    return Response(json.dumps(body), status, headers, "application/json;charset=utf-8")


def nothing(request: Request) -> Response:
    """The answer to what is done, and of which there is nothing to tell."""
    return Response(None, HTTPStatus.NO_CONTENT, {**FIELDS, "allow": methods(request)})
