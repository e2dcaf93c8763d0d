"""Events: what has happened that somebody may want to look up."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query
from pydantic import BaseModel, Field

from blockyard.api.problems import not_found
from blockyard.api.security import Here, Owners, Routes, Who
from blockyard.control.catalogue import CATALOGUE
from blockyard.control.events import next_events, read_events
from blockyard.control.roles import Role

routes = Routes("events")

_MOST = 10_000


class Event(BaseModel):
    id: int = Field(description="ascending")
    time: str = Field(description="RFC 3339")
    severity: str = Field(description="info, warning or error")
    what: str = Field(description="which kind of the catalogue")
    text: str
    who: str = Field(description="a user, an account or an initiator")
    address: str
    target: str


class Kind(BaseModel):
    what: str
    severity: str = Field(description="info, warning or error")
    meaning: str
    action: str = Field(description="what to do")


@routes.get("/events/catalogue", Role.VIEWER, Owners.THEIRS)
async def list_kinds() -> list[Kind]:
    """Every kind of event that there is."""
    return [Kind(**kind.as_dict()) for kind in CATALOGUE.values()]


@routes.get("/events", Role.VIEWER, Owners.THEIRS, of=())
async def list_events(
    here: Here,
    who: Who,
    after: Annotated[int, Query(ge=0, le=2**62, description="only those with a greater id")] = 0,
    last: Annotated[int, Query(ge=1, le=_MOST, description="so many at most, the newest")] = 1000,
) -> list[Event]:
    """In the order in which they came; for an owner, those of their targets."""
    events = read_events(here.state, after=after, last=last if who.everywhere else _MOST)
    theirs = [event for event in events if who.everywhere or event.target in who.targets]
    return [Event.model_validate(event.as_dict()) for event in theirs[-last:]]


@routes.get("/events/{event}", Role.VIEWER, Owners.THEIRS)
async def get_event(event: Annotated[int, Path(ge=1, le=2**62)], here: Here, who: Who) -> Event:
    """One of them."""
    for found in next_events(here.state, event - 1, 1):
        if found.id == event and (who.everywhere or found.target in who.targets):
            return Event.model_validate(found.as_dict())
    raise not_found(f"event {event} that is kept")
