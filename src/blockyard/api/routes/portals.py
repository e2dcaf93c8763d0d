"""Portal groups: by which addresses targets are reached."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path, Response
from pydantic import BaseModel, Field

from blockyard.api import schemas
from blockyard.api.configured import Table, add_routes, described
from blockyard.api.context import Context
from blockyard.api.problems import not_found
from blockyard.api.security import Here, Routes
from blockyard.control.consistency import MAX_TAG
from blockyard.control.roles import Role
from blockyard.worker.configuration import PortalGroup as Configured


def _tag(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 6 and 1 <= int(text) <= MAX_TAG):
        raise ValueError(f"the tag of a portal group is from 1 to {MAX_TAG}")
    return int(text)


routes = Routes("portal groups")
TABLE = Table("portal_groups", Configured, "portal group", "/portal-groups/{tag}", "tag", _tag)


class PortalGroup(BaseModel):
    """Network portals that lead to the same sessions (RFC 7143)."""

    tag: int
    portals: list[str] = Field(description="ADDR:PORT, with the ports that they really have")
    targets: list[str] = Field(description="that are reached by it")
    configuration: dict[str, Any] | None = schemas.field(Configured)


@routes.get("/portal-groups", Role.VIEWER)
async def list_portal_groups(here: Here) -> list[PortalGroup]:
    """All of them."""
    return [_group(here, tag) for tag in here.server.settled.portal_groups]


@routes.get("/portal-groups/{tag}", Role.VIEWER)
async def get_portal_group(tag: Annotated[int, Path(ge=1, le=MAX_TAG)], here: Here, response: Response) -> PortalGroup:
    """One of them."""
    if tag not in here.server.settled.portal_groups:
        raise not_found(f"portal group {tag}")
    described(here, TABLE, tag, response)
    return _group(here, tag)


add_routes(routes, TABLE)


def _group(here: Context, tag: int) -> PortalGroup:
    settled = here.server.settled
    targets = [target.name for target in settled.targets.values() if tag in target.portal_groups]
    return PortalGroup(
        tag=tag,
        portals=list(settled.portal_groups[tag].portals),
        targets=sorted(targets),
        configuration=described(here, TABLE, tag),
    )
