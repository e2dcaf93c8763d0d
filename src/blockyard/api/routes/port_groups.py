"""Target port groups: which paths to a target initiators are to take (SPC-5, asymmetric logical unit access)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Path, Response
from pydantic import BaseModel, Field

from blockyard.api import etags
from blockyard.api.context import Context
from blockyard.api.etags import IfMatch
from blockyard.api.models import Input
from blockyard.api.problems import Refused, not_found
from blockyard.api.security import Here, Owners, Routes, Who
from blockyard.control.consistency import MAX_TAG
from blockyard.control.roles import NOBODY, Role
from blockyard.scsi.alua import STATES

routes = Routes("target port groups")

_GROUP = "/targets/{target}/port-groups/{tag}"
_Tag = Annotated[int, Path(ge=1, le=MAX_TAG)]


class TargetPortGroup(BaseModel):
    """The ports of a target in one of its portal groups, as initiators find them."""

    tag: int = Field(description="of the portal group")
    state: str = Field(description=", ".join(STATES))
    preferred: bool = Field(description="initiators return to it when they can")
    portals: list[str] = Field(description="ADDR:PORT")
    sessions: int = Field(description="that come by it now")


class TargetPortGroupChange(Input):
    """What is to be different from now on; what is left out stays as it is."""

    state: str | None = Field(None, pattern=f"^({'|'.join(STATES)})$", description=", ".join(STATES))
    preferred: bool | None = None


@routes.get("/targets/{target}/port-groups", Role.VIEWER, Owners.TARGET)
async def list_target_port_groups(target: str, here: Here) -> list[TargetPortGroup]:
    """All portal groups of a target, and how they are now, whoever has changed them: an administrator or an initiator."""
    return await _groups(here, target)


@routes.get(_GROUP, Role.VIEWER, Owners.TARGET)
async def get_target_port_group(target: str, tag: _Tag, here: Here, response: Response) -> TargetPortGroup:
    """One of them."""
    found = await _find(here, target, tag)
    etags.mark(response, _changeable(found))
    return found


@routes.patch(_GROUP, Role.OPERATOR, Owners.TARGET)
async def change_target_port_group(
    target: str,
    tag: _Tag,
    change: TargetPortGroupChange,
    here: Here,
    who: Who,
    response: Response,
    if_match: IfMatch = None,
) -> TargetPortGroup:
    """Another state, or preference; initiators are told, and it outlives a restart."""
    if change.state is None and change.preferred is None:
        raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "there is nothing to change: give a state, or preferred")
    async with here.server.unchanging():  # of two who have read the same one comes second
        etags.check(if_match, _changeable(await _find(here, target, tag)))
        await here.command(who, "alua set", target=target, group=tag, **change.model_dump())
    return await get_target_port_group(target, tag, here, response)


def _changeable(group: TargetPortGroup) -> object:
    return {"state": group.state, "preferred": group.preferred}


async def _find(here: Context, target: str, tag: int) -> TargetPortGroup:
    for group in await _groups(here, target):
        if group.tag == tag:
            return group
    raise not_found(f"portal group {tag} of {target!r}")


async def _groups(here: Context, target: str) -> list[TargetPortGroup]:
    """Raises Refused."""
    settled = here.server.settled
    if target not in settled.targets:
        raise not_found(f"target {target!r}")
    told: dict[str, dict[str, Any]] = await here.command(NOBODY, "alua show", target=target)
    if target not in told:
        raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "the worker of that target is just being started: try again")
    groups = told[target]
    return [
        TargetPortGroup(tag=tag, portals=list(settled.portal_groups[tag].portals), **groups[str(tag)])
        for tag in settled.targets[target].portal_groups
        if str(tag) in groups
    ]
