"""The configuration as a whole, its revisions, who has changed what; and the settings that there is one of."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Path, Query, Request, Response
from pydantic import BaseModel, Field

from blockyard.api import etags, schemas
from blockyard.api.configured import body, change, replaced
from blockyard.api.etags import IfMatch
from blockyard.api.models import Input
from blockyard.api.problems import Refused, not_found, responses
from blockyard.api.security import Here, Routes, Who
from blockyard.block import records
from blockyard.block.records import RecordError
from blockyard.control.configuration_file import dump
from blockyard.control.roles import NOBODY, Role
from blockyard.worker.configuration import (
    Api,
    Authentication,
    Configuration,
    Discovery,
    Isns,
    Metrics,
)
from blockyard.worker.telemetry import Telemetry

routes = Routes("configuration")

_LAST = Query(ge=1, le=1000, description="so many at most, the newest")


class Whole(BaseModel):
    """All that is configured."""

    revision: int | None = Field(
        description="its number; none where the configuration stands in a file or on the command line"
    )
    configuration: dict[str, Any] = Field(description="as a configuration file has it, in JSON")
    toml: str = Field(description="the same, as a configuration file")


class Applied(BaseModel):
    changes: list[str] = Field(
        description="what has changed, or would: + for what has come, - for what is gone, ~ for another value"
    )
    revision: int


class Revision(BaseModel):
    revision: int
    time: str
    who: str
    what: str


class RevisionFile(BaseModel):
    revision: int
    toml: str


class Entry(BaseModel):
    """A change that somebody has made."""

    id: int
    time: str
    who: str
    what: str
    before: Any
    after: Any


class New(Input):
    configuration: dict[str, Any] = Field(description="as a configuration file has it, in JSON")


@routes.get("/configuration", Role.VIEWER)
async def get_configuration(here: Here, response: Response) -> Whole:
    """All of it. Its ETag is its revision."""
    server = here.server
    revision = None if server.managed is None else server.managed.revision
    etags.mark(response, revision)
    configuration = server.configuration
    return Whole(revision=revision, configuration=records.write(configuration), toml=dump(configuration))


@routes.put("/configuration", Role.ADMIN)
async def apply_configuration(
    new: New,
    here: Here,
    who: Who,
    if_match: IfMatch = None,
    dry_run: Annotated[bool, Query(description="only say what would change")] = False,
) -> Applied:
    """Serve another configuration."""
    expected = None if here.server.managed is None else here.server.managed.revision
    if not dry_run:
        etags.check(if_match, expected)
    told = await here.command(who, "config apply", configuration=new.configuration, dry_run=dry_run, expected=expected)
    return Applied(**told)


@routes.get("/configuration/revisions", Role.VIEWER)
async def list_revisions(here: Here, last: Annotated[int, _LAST] = 100) -> list[Revision]:
    """The last ones, in their order."""
    return [Revision(**each) for each in await here.command(NOBODY, "config history", last=last)]


@routes.get("/configuration/revisions/{revision}", Role.VIEWER)
async def get_revision(revision: Annotated[int, Path(ge=1, le=2**62)], here: Here) -> RevisionFile:
    """A configuration that has held."""
    if revision not in {each["revision"] for each in await here.command(NOBODY, "config history", last=1000)}:
        raise not_found(f"revision {revision} that is kept")
    return RevisionFile(revision=revision, toml=await here.command(NOBODY, "config show", revision=revision))


@routes.post("/configuration/revisions/{revision}/rollback", Role.ADMIN)
async def roll_back_configuration(
    revision: Annotated[int, Path(ge=1, le=2**62)], here: Here, who: Who, if_match: IfMatch = None
) -> Applied:
    """Serve what a revision says again. If-Match is the ETag of the configuration that holds."""
    expected = None if here.server.managed is None else here.server.managed.revision
    etags.check(if_match, expected)
    await get_revision(revision, here)
    return Applied(**await here.command(who, "config rollback", revision=revision, expected=expected))


@routes.get("/audit", Role.ADMIN)
async def list_audit(
    here: Here,
    after: Annotated[int, Query(ge=0, le=2**62, description="only those with a greater id")] = 0,
    last: Annotated[int, _LAST] = 100,
) -> list[Entry]:
    """Who has changed what, with what was there before and after; in the order in which it was."""
    return [Entry(**each) for each in await here.command(NOBODY, "audit", after=after, last=last)]


# ---- settings


@dataclass(frozen=True)
class _Setting:
    name: str  # the field of Configuration
    kind: type
    default: Any  # what there is without it


_SETTINGS = (
    _Setting("auth", Authentication, Authentication()),
    _Setting("discovery", Discovery, Discovery()),
    _Setting("isns", Isns, None),
    _Setting("metrics", Metrics, None),
    _Setting("telemetry", Telemetry, None),
    _Setting("api", Api, None),
)


def _add(setting: _Setting) -> None:
    path, schema = f"/settings/{setting.name}", schemas.of(setting.kind)
    told: dict[int | str, dict[str, Any]] = {
        200: {"description": "as it is now", "content": {"application/json": {"schema": schema}}}
    }

    @routes.get(path, Role.VIEWER, name=f"get_{setting.name}_settings", responses={**told, **responses(404)},
                text=f"The settings of `{setting.name}`, as [{setting.name}] in a configuration file.")  # fmt: skip
    async def get(here: Here, response: Response) -> dict[str, Any]:
        record = getattr(here.server.configuration, setting.name)
        if record is None:
            raise not_found(f"setting {setting.name}: it is off")
        etags.mark(response, schemas.whole(record))
        found: dict[str, Any] = schemas.whole(record)
        return found

    @routes.put(path, Role.ADMIN, name=f"put_{setting.name}_settings", body=schema,
                responses={**told}, text=f"Other settings of `{setting.name}`.")  # fmt: skip
    async def put(
        request: Request, here: Here, who: Who, response: Response, if_match: IfMatch = None
    ) -> dict[str, Any]:
        data = await body(request)
        try:
            new: Any = records.read(setting.kind, data)
        except RecordError as error:
            raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from None

        def edit(configuration: Configuration) -> Configuration:
            old = getattr(configuration, setting.name)
            etags.check_put(if_match, None, None if old is None else schemas.whole(old))
            return replaced(configuration, setting.name, new)

        await change(here, who, edit)
        return await get(here, response)

    @routes.delete(path, Role.ADMIN, status_code=204, name=f"delete_{setting.name}_settings",
                   text=f"`{setting.name}` as it is without any settings.")  # fmt: skip
    async def delete(here: Here, who: Who, if_match: IfMatch = None) -> None:
        def edit(configuration: Configuration) -> Configuration:
            old = getattr(configuration, setting.name)
            if old is None:
                raise not_found(f"setting {setting.name}: it is off")
            etags.check(if_match, schemas.whole(old))
            return replaced(configuration, setting.name, setting.default)

        await change(here, who, edit)


for _setting in _SETTINGS:
    _add(_setting)
