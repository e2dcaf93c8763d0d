"""What was measured in the last 60 days."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import Annotated

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from blockyard.api.context import Context
from blockyard.api.problems import Refused, not_found, responses
from blockyard.api.security import Here, Owners, Routes, Who
from blockyard.control.history.recorder import as_message, span
from blockyard.control.history.series import COLUMNS, MOST_TOLD, RESOLUTIONS, SeriesName, parse
from blockyard.control.roles import Identity, Role

routes = Routes("history")

_LIMIT = 1e11  # seconds, about the year 5100
_STEPS = [each.step for each in RESOLUTIONS]
_COLUMNS = "; ".join(f"{kind}: {', '.join(columns)}" for kind, columns in COLUMNS.items())

Name = Annotated[str, StringConstraints(pattern="^(total|(volume|pool):.+)$", max_length=1024)]


class Graph(BaseModel):
    series: str
    times: list[int] = Field(description="when windows began, in seconds since 1970; what is missing was not measured")
    values: dict[str, list[float | None]] = Field(description=f"by column, as long as times ({_COLUMNS})")


class History(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    begin: float = Field(alias="from", description="seconds since 1970")
    end: float = Field(alias="to")
    resolution: int = Field(description="seconds of a window")
    series: list[Graph]


class Series(BaseModel):
    series: str = Field(description="total, volume:NAME or pool:NAME")
    began: int = Field(description="when it was first seen, in seconds since 1970")
    seen: int = Field(description="when it was last seen, give or take a quarter of an hour")


@routes.get("/history", Role.VIEWER, Owners.THEIRS, responses=responses(404))
async def get_history(
    here: Here,
    who: Who,
    series: Annotated[list[Name], Query(min_length=1, max_length=MOST_TOLD, description="total, volume:NAME, pool:NAME")],
    begin: Annotated[
        float,
        Query(alias="from", ge=-_LIMIT, le=_LIMIT, description="seconds since 1970; where negative, before now"),
    ] = -3600,
    end: Annotated[
        float | None, Query(alias="to", ge=-_LIMIT, le=_LIMIT, description="the same; now where it is left out")
    ] = None,
    resolution: Annotated[
        int | None, Query(description="seconds of a window; the finest that goes back so far where it is left out",
                          json_schema_extra={"enum": _STEPS}),
    ] = None,
) -> History:  # fmt: skip
    """Graphs; for an owner, of what their targets show."""
    try:
        names = [parse(name) for name in series]
        wanted = span(begin, end, resolution, time.time())
    except ValueError as error:
        raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from None
    if not all(_may_see(here, who, name) for name in names):
        raise not_found("such series")
    try:
        graphs = await here.server.history.read(names, wanted, here.server.settled)
    except LookupError as error:
        raise not_found(f"history of {error.args[0]}") from None
    return History.model_validate(as_message(wanted, graphs))


@routes.get("/history/series", Role.VIEWER, Owners.THEIRS)
async def list_series(here: Here, who: Who) -> list[Series]:
    """All of which there is a history; for an owner, what their targets show."""
    found = await here.server.history.series()
    return [
        Series(series=str(each.name), began=each.began, seen=each.seen)
        for each in found
        if _may_see(here, who, each.name)
    ]


def _may_see(here: Context, who: Identity, series: SeriesName) -> bool:
    if who.everywhere:
        return True
    targets = here.server.settled.targets
    return series.kind == "volume" and any(
        series.name in targets[name].volumes for name in who.targets if name in targets
    )
