"""The application: all routes, the console's files, and the OpenAPI document of the former."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.staticfiles import StaticFiles

import blockyard
from blockyard import __version__
from blockyard.api import problems
from blockyard.api.context import Context
from blockyard.api.guard import COOKIE, CSRF, Guard
from blockyard.api.plain import CHALLENGES, answer_challenge
from blockyard.api.problems import Problem
from blockyard.api.reads import Reads
from blockyard.api.redfish import app as redfish
from blockyard.api.redfish.door import is_redfish
from blockyard.api.redfish.queries import Queries
from blockyard.api.routes import (
    accounts,
    cdp,
    configuration,
    devices,
    events,
    files,
    history,
    hosts,
    jobs,
    layers,
    logins,
    notifications,
    optical,
    pool_upkeep,
    pool_volumes,
    pools,
    port_groups,
    portals,
    schedules,
    server,
    sessions,
    snapshots,
    stacks,
    stream,
    tape,
    targets,
    tokens,
    users,
    volumes,
)

PREFIX = "/api/v1"
ROUTES = (
    server,
    logins,
    accounts,
    tokens,
    configuration,
    targets,
    port_groups,
    portals,
    hosts,
    sessions,
    users,
    volumes,
    layers,
    stacks,
    devices,
    files,
    pools,
    pool_volumes,
    snapshots,
    cdp,
    schedules,
    pool_upkeep,
    tape,
    optical,
    jobs,
    events,
    notifications,
    history,
    stream,
)
CONSOLE = Path(blockyard.__file__).with_name("console")

_TEXT = """\
Everything that a Blockyard server can be asked and told. Errors are problem details (RFC 9457). What is changed is changed with
the ETag that it was read with (If-Match), so that nothing gets lost. Programs send a token (Authorization: Bearer); the console
logs in.
"""


def build(context: Context) -> Guard:
    """The application (ASGI), behind its door."""
    app, pages = application(), _pages()
    standard = Queries(redfish.application(), redfish.STREAMS)
    reads = Reads((route for module in ROUTES for route in module.routes.added), PREFIX)

    async def whole(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"].startswith(CHALLENGES):
            await answer_challenge(context.server.options.state, scope, send)
            return
        if is_redfish(scope["path"]):  # whose paths may end with a slash
            await standard({**scope, "path": scope["path"].rstrip("/")}, receive, send)
        elif not scope["path"].startswith(f"{PREFIX}/"):
            await pages(scope, receive, send)
        elif not await reads.answered(scope, receive, send):
            await app(scope, receive, send)

    return Guard(whole, context)


def _pages() -> FastAPI:
    """The console: apart, as what stands at / would have an answer to every method that a path of the API does not know."""
    pages = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    problems.install(pages)
    if (CONSOLE / "index.html").is_file():
        pages.mount("/", StaticFiles(directory=CONSOLE, html=True))
    return pages


def application() -> FastAPI:
    """All routes of the API."""
    app = FastAPI(
        title="Blockyard",
        version=__version__,
        description=_TEXT,
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    problems.install(app)
    for module in ROUTES:
        module.routes.add_to(app, PREFIX)
    _describe(app)
    return app


def _describe(app: FastAPI) -> None:
    """Add to the document what FastAPI does not know of."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            _complete(generate())  # which keeps it
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(document: dict[str, Any]) -> None:
    components = document.setdefault("components", {})
    components.setdefault("schemas", {})["Problem"] = _problem()
    components["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer", "description": "a token: blockyard_ID_SECRET"},
        "session": {
            "type": "apiKey",
            "in": "cookie",
            "name": COOKIE,
            "description": f"of the console; changes need the field {CSRF} as well",
        },
    }
    document["security"] = [{"token": []}, {"session": []}]


def _problem() -> dict[str, Any]:
    schema = Problem.model_json_schema()
    faults = schema.pop("$defs")["Fault"]
    inlined: dict[str, Any] = _inline(schema, faults)
    return inlined


def _inline(schema: Any, faults: Any) -> Any:
    if isinstance(schema, dict):
        return faults if "$ref" in schema else {key: _inline(value, faults) for key, value in schema.items()}
    return [_inline(each, faults) for each in schema] if isinstance(schema, list) else schema
