"""Notifications: where events are delivered to (docs/notifications.md).

Secrets do not pass here: what a receiver needs to know of them are the files of the server in which they stand.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path, Response
from pydantic import BaseModel, Field

from blockyard.api import schemas
from blockyard.api.configured import Table, add_routes, described
from blockyard.api.problems import not_found
from blockyard.api.security import Here, Routes, Who
from blockyard.control.roles import Role
from blockyard.worker.receivers import Mail, Snmp, Syslog, Webhook

routes = Routes("notifications")

_Name = Annotated[str, Path(alias="receiver", max_length=256)]


def _table(way: str, kind: type, *files: str) -> Table:
    return Table(
        f"events.{way}", kind, f"{way} receiver", f"/notifications/{way}/{{receiver}}", "receiver", paths=files
    )


_TABLES = {
    "syslog": _table("syslog", Syslog, "authority"),
    "webhook": _table("webhook", Webhook, "url_file", "secret_file", "authority"),
    "mail": _table("mail", Mail, "password_file", "authority"),
    "snmp": _table("snmp", Snmp, "community_file", "authentication_file", "privacy_file"),
}


class Receiver(BaseModel):
    """Who gets events."""

    way: str = Field(description=", ".join(_TABLES))
    name: str
    severity: str = Field(description="so severe at least: info, warning or error")
    kinds: list[str] = Field(description="of events, with * and ? for any; none: all")
    configuration: dict[str, Any] = Field(description="all of it, as GET /notifications/{way}/{name} has it")


class Tried(BaseModel):
    """An event that was sent to see whether it arrives."""

    way: str
    name: str
    arrived: bool
    problem: str = Field(description="why it has not arrived")


@routes.get("/notifications", Role.VIEWER, of=())
async def list_receivers(here: Here) -> list[Receiver]:
    """All of them."""
    found = here.server.configuration
    return [
        Receiver(
            way=way,
            name=name,
            severity=each.severity,
            kinds=list(each.kinds),
            configuration=schemas.whole(each),
        )
        for way, table in _TABLES.items()
        for name, each in table.records(found).items()
    ]


@routes.post("/notifications/test", Role.OPERATOR)
async def test_receivers(here: Here, who: Who) -> list[Tried]:
    """Send an event to each, and wait whether it arrives."""
    return _tried(await here.command(who, "events test"))


def _tried(told: dict[str, str]) -> list[Tried]:
    return [
        Tried(way=place.partition(".")[0], name=place.partition(".")[2], arrived=not problem, problem=problem)
        for place, problem in told.items()
    ]


def _add(way: str, table: Table) -> None:
    told: dict[int | str, dict[str, Any]] = {
        200: {"description": "as it is now", "content": {"application/json": {"schema": schemas.of(table.kind)}}}
    }

    @routes.get(table.path, Role.VIEWER, name=f"get_{way}_receiver", responses=told,
                text=f"A receiver of events by {way}, as [events.{way}.NAME] in a configuration file.")  # fmt: skip
    async def get(name: _Name, here: Here, response: Response) -> dict[str, Any]:
        found = described(here, table, name, response)
        if found is None:
            raise not_found(f"{table.noun} {name!r}")
        return found

    add_routes(routes, table)

    @routes.post(f"{table.path}/test", Role.OPERATOR, name=f"test_{way}_receiver",
                 text="Send it an event, whatever it is to get otherwise, and wait whether that arrives.")  # fmt: skip
    async def test(name: _Name, here: Here, who: Who) -> Tried:
        if name not in table.records(here.server.configuration):
            raise not_found(f"{table.noun} {name!r}")
        return _tried(await here.command(who, "events test", receiver=f"{way}.{name}"))[0]


for _way, _each in _TABLES.items():
    _add(_way, _each)
