"""Errors as the API tells them: problem details for HTTP (RFC 9457), whatever has gone wrong."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from blockyard.control.accounts import AccountError, NoSuchAccount
from blockyard.control.errors import ConfigurationError, Conflict, ControlError, StateError, UsageError

log = logging.getLogger(__name__)

Handler = Callable[[Request, Exception], Awaitable[JSONResponse]]
MEDIA_TYPE = "application/problem+json"

_STATUS: dict[type[ControlError], HTTPStatus] = {  # the first that fits
    NoSuchAccount: HTTPStatus.NOT_FOUND,
    AccountError: HTTPStatus.CONFLICT,
    UsageError: HTTPStatus.BAD_REQUEST,
    Conflict: HTTPStatus.CONFLICT,
    ConfigurationError: HTTPStatus.BAD_REQUEST,
    StateError: HTTPStatus.SERVICE_UNAVAILABLE,
    ControlError: HTTPStatus.CONFLICT,
}


class Fault(BaseModel):
    """One thing that is wrong with a request."""

    at: str = Field(description="where: body.size, query.last …")
    problem: str


class Problem(BaseModel):
    """Problem details (RFC 9457)."""

    type: str = "about:blank"
    title: str = Field(description="what the status means")
    status: int
    detail: str = Field("", description="what is wrong, and what to do about it")
    errors: list[Fault] | None = Field(None, description="each thing that is wrong with a request")
    exit_status: int | None = Field(None, description="that of `blockyard`, which may have asked")


class Refused(HTTPException):
    """A request that is not done, and why."""

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        headers: Mapping[str, str] | None = None,
        errors: list[Fault] | None = None,
    ) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.errors = errors


def not_found(what: str) -> Refused:
    return Refused(HTTPStatus.NOT_FOUND, f"there is no {what}")


def problem(
    status: int,
    detail: str = "",
    headers: Mapping[str, str] | None = None,
    errors: list[Fault] | None = None,
    exit_status: int | None = None,
) -> JSONResponse:
    """An answer that says what is wrong."""
    title = HTTPStatus(status).phrase
    found = Problem(title=title, status=status, detail=detail, errors=errors, exit_status=exit_status)
    return JSONResponse(found.model_dump(exclude_none=True), status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Have every error of an application told so."""
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)


async def answer_to(request: Request, error: Exception) -> JSONResponse:
    """What is told of an error."""
    return await next(handler for kind, handler in _HANDLERS.items() if isinstance(error, kind))(request, error)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route's documentation says of these."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in statuses
    }


async def _of_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return _method_not_allowed(request)
    return problem(error.status_code, error.detail, error.headers, getattr(error, "errors", None))


def _method_not_allowed(request: Request) -> JSONResponse:
    """With all methods that the path knows (RFC 9110 §15.5.6)."""
    allowed = methods(request)
    return problem(
        HTTPStatus.METHOD_NOT_ALLOWED, f"{request.method} cannot be done to this: {allowed}", {"allow": allowed}
    )


def methods(request: Request) -> str:
    """All that the path of a request knows: each has a route of its own, and the router tells of the first."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    there = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return ", ".join(sorted({method for route in there for method in route.methods or ()}))


async def of_validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    errors = [Fault(at=".".join(map(str, each["loc"])), problem=str(each["msg"])) for each in error.errors()]
    detail = "; ".join(f"{each.at}: {each.problem}" for each in errors[:3])
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, errors=errors)


async def of_control(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ControlError)
    status = next(status for kind, status in _STATUS.items() if isinstance(error, kind))
    return problem(status, str(error), exit_status=error.exit_status)


async def of_anything(request: Request, error: Exception) -> JSONResponse:
    log.error("%s %s has failed", request.method, request.url.path, exc_info=error)
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "the server has made a mistake: its log says more")


_HANDLERS: dict[type[Exception], Handler] = {  # the first that fits
    HTTPException: _of_http,
    RequestValidationError: of_validation,
    ControlError: of_control,
    Exception: of_anything,
}
