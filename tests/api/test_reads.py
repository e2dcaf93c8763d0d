"""Reads go a short road: what comes of it is what FastAPI, which takes what the short road does not, would have told."""

from __future__ import annotations

import re

import httpx

from blockyard.api.app import PREFIX, ROUTES, application
from blockyard.api.reads import Reads
from blockyard.control.roles import Role
from blockyard.initiator import connect
from tests.api.conftest import ApiFactory
from tests.api.serving import TWO
from tests.waiting import eventually

A, B = "iqn.2026-11.test:a", "iqn.2026-11.test:b"
_LONG = {"-": ""}  # a parameter that no route has: FastAPI passes it over
_PATHS = [
    path.removeprefix(PREFIX)
    for path, item in application().openapi()["paths"].items()
    if "get" in item and "{" not in path
]
_MORE = (
    f"/targets/{A}", f"/targets/{B}", f"/targets/{A}/sessions", f"/targets/{A}/luns", "/targets/none", "/volumes/a", "/volumes/b",
    "/volumes/no/such", "/portal-groups/1", "/portal-groups/nonsense", "/portal-groups/0", "/events?last=1", "/events?last=0",
    "/events?last=1&last=2", "/events?after=x", "/configuration/revisions?last=3", "/pools/none", "/jobs/none", "/users/none",
    "/hosts/none", "/accounts/the-admin", "/accounts/none", "/drives/none/images", "/nowhere",
)  # fmt: skip


def _told(answer: httpx.Response) -> tuple[int, bytes, list[tuple[str, str]]]:
    """But for what is free of the file system, which changes all the time: it is everybody's."""
    content = re.sub(rb'"free":\d+', b"", answer.content)
    return answer.status_code, content, sorted(item for item in answer.headers.items() if item[0] != "date")


def test_both_roads_lead_to_the_same_answers(api: ApiFactory) -> None:
    served = api(config=TWO)
    tokens = [None, served.token(Role.VIEWER), served.token(Role.ADMIN), served.token(Role.OWNER, A)]
    with served.local() as client:
        eventually(lambda: client.get("/events").json(), "an event: they are written once a second")
    with connect(f"iscsi://{served.serving.portals[0]}/{A}/0", initiator_name="iqn.2026-11.test:host"):
        for token in tokens:
            with served.local() if token is None else served.client(token) as client:
                client.get("/me")  # the first use of a token is noted, as accounts show
                for path in (*(path for path in _PATHS if path != "/stream"), *_MORE):
                    long = httpx.URL(path).copy_merge_params(_LONG)
                    # The second time it may go the shortest road (repeats.py). Something may happen in between.
                    tries = ([_told(client.get(where)) for where in (path, path, long)] for _ in range(5))
                    assert any(one == two == three for one, two, three in tries), (path, token)


def test_what_is_read_often_goes_the_short_road() -> None:
    reads = Reads((route for module in ROUTES for route in module.routes.added), "")
    often = (
        "/status",
        "/volumes",
        "/targets",
        "/sessions",
        "/me",
        "/events",
        "/jobs",
        "/pools",
        "/volumes/p/v",
        f"/targets/{A}",
    )
    assert all(map(reads.knows, often))
    assert not any(map(reads.knows, ("/stream", "/status/", "/sessions/x", "//status", "/stream/x", "status", "")))
