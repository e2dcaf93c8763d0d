"""The application that answers under /redfish, beside that of the API: with errors of another form, and no OpenAPI document."""

from __future__ import annotations

from fastapi import FastAPI

from blockyard.api.redfish import (
    accounts,
    connections,
    errors,
    events,
    fabric,
    registries,
    root,
    sessions,
    storage,
    systems,
    tasks,
    volumes,
)
from blockyard.api.redfish.door import ROOT

ROUTES = (root, systems, storage, volumes, fabric, connections, tasks, sessions, accounts, events, registries)
STREAMS = frozenset({events.STREAM})


def application() -> FastAPI:
    """All routes of Redfish."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    errors.install(app)
    for module in ROUTES:
        module.routes.add_to(app, ROOT)
    return app
