"""Hosts: machines that log in, and what they are known by. Rules of access name them."""

from __future__ import annotations

from typing import Any

from fastapi import Response
from pydantic import BaseModel, Field

from blockyard.api import schemas
from blockyard.api.configured import Table, add_routes, described
from blockyard.api.context import Context
from blockyard.api.problems import not_found
from blockyard.api.security import Here, Routes
from blockyard.control.hosts import users_of
from blockyard.control.roles import Role
from blockyard.worker.configuration import Host as Configured

routes = Routes("hosts")
TABLE = Table("hosts", Configured, "host", "/hosts/{host}", "host")


class Host(BaseModel):
    """A machine that logs in."""

    name: str
    note: str
    initiators: list[str] = Field(description="iSCSI names, or patterns of them")
    addresses: list[str]
    users: list[str] = Field(description="CHAP names")
    targets: list[str] = Field(description="whose rules of access name it")
    configuration: dict[str, Any] | None = schemas.field(Configured)


@routes.get("/hosts", Role.VIEWER)
async def list_hosts(here: Here) -> list[Host]:
    """All of them."""
    return [_host(here, name) for name in here.server.configuration.hosts]


@routes.get("/hosts/{host}", Role.VIEWER)
async def get_host(host: str, here: Here, response: Response) -> Host:
    """One of them."""
    if described(here, TABLE, host, response) is None:
        raise not_found(f"host {host!r}")
    return _host(here, host)


add_routes(routes, TABLE)


def _host(here: Context, name: str) -> Host:
    host = here.server.configuration.hosts[name]
    return Host(
        name=name,
        note=host.note,
        initiators=list(host.initiators),
        addresses=list(host.addresses),
        users=list(host.users),
        targets=users_of(name, here.server.configuration),
        configuration=described(here, TABLE, name),
    )
