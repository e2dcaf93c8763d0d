"""Errors as Redfish has them (DSP0266 §8.6): an `error` with `@Message.ExtendedInfo`, whatever has gone wrong."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from blockyard.api import problems
from blockyard.api.problems import Refused
from blockyard.control.errors import ControlError

log = logging.getLogger(__name__)

CHALLENGE = {"www-authenticate": 'Basic realm="blockyard"'}  # with every 401 (RFC 9110 §11.6.1)
BASE = "Base.1.18"  # the registry of messages that all services have (DSP8011)
FIELDS = {"odata-version": "4.0"}  # of every answer (DSP0266 §7.8)

_KEYS = {  # of the message registry Base
    HTTPStatus.UNAUTHORIZED: "NoValidSession",
    HTTPStatus.FORBIDDEN: "InsufficientPrivilege",
    HTTPStatus.NOT_FOUND: "ResourceMissingAtURI",
    HTTPStatus.METHOD_NOT_ALLOWED: "OperationNotAllowed",
    HTTPStatus.PRECONDITION_FAILED: "PreconditionFailed",
    HTTPStatus.TOO_MANY_REQUESTS: "ServiceTemporarilyUnavailable",
    HTTPStatus.SERVICE_UNAVAILABLE: "ServiceTemporarilyUnavailable",
    HTTPStatus.INTERNAL_SERVER_ERROR: "InternalError",
}


class Told(Refused):
    """A request that is not done, with which message of the registry Base says so, and the arguments of that."""

    def __init__(self, status: HTTPStatus, key: str, detail: str, *arguments: str) -> None:
        super().__init__(status, detail)
        self.key, self.arguments = key, arguments


def message(key: str, text: str, severity: str, *arguments: str) -> dict[str, Any]:
    """One message of the registry Base."""
    return {
        "@odata.type": "#Message.v1_3_0.Message",
        "MessageId": f"{BASE}.{key}",
        "Message": text,
        "MessageArgs": list(arguments),
        "MessageSeverity": severity,
        "Resolution": text,
    }


def answer(
    status: int,
    detail: str = "",
    headers: Mapping[str, str] | None = None,
    key: str = "",
    arguments: Sequence[str] = (),
) -> JSONResponse:
    """An answer that says what is wrong."""
    key = key or _KEYS.get(HTTPStatus(status), "GeneralError")
    text = detail or HTTPStatus(status).phrase
    severity = "Critical" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "Warning"
    told = message(key, text, severity, *arguments)
    error = {"code": f"{BASE}.{key}", "message": text, "@Message.ExtendedInfo": [told]}
    return JSONResponse(
        {"error": error},
        status,
        headers={**FIELDS, **(headers or {}), **(CHALLENGE if status == HTTPStatus.UNAUTHORIZED else {})},
    )


def install(app: FastAPI) -> None:
    """Have every error of an application told so."""
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(RequestValidationError, _of_problem(problems.of_validation))
    app.add_exception_handler(ControlError, _of_problem(problems.of_control))
    app.add_exception_handler(Exception, _of_problem(problems.of_anything))


async def _of_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = problems.methods(request)
        return answer(error.status_code, f"{request.method} cannot be done to this", {"allow": allowed})
    status = error.status_code
    if isinstance(error, Told):
        return answer(status, error.detail, error.headers, error.key, error.arguments)
    arguments = [request.url.path] if status == HTTPStatus.NOT_FOUND else []
    return answer(
        HTTPStatus.BAD_REQUEST if status == HTTPStatus.UNPROCESSABLE_ENTITY else status,
        error.detail,
        error.headers,
        arguments=arguments,
    )


def _of_problem(handler: problems.Handler) -> problems.Handler:
    """The same as the API tells, in the other form."""

    async def told(request: Request, error: Exception) -> JSONResponse:
        status = (found := await handler(request, error)).status_code
        detail = str(json.loads(bytes(found.body)).get("detail", ""))
        return answer(HTTPStatus.BAD_REQUEST if status == HTTPStatus.UNPROCESSABLE_ENTITY else status, detail)

    return told
