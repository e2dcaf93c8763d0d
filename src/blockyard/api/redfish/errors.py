"""Errors as Redfish has them (DSP0266 §8.6): an `error` with `@Message.ExtendedInfo`, whatever has gone wrong."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from blockyard.api import problems
from blockyard.control.errors import ControlError

log = logging.getLogger(__name__)

CHALLENGE = {"www-authenticate": 'Basic realm="blockyard"'}  # with every 401 (RFC 9110 §11.6.1)
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


def answer(status: int, detail: str = "", headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An answer that says what is wrong."""
    key = _KEYS.get(HTTPStatus(status), "GeneralError")
    text = detail or HTTPStatus(status).phrase
    told = {
        "@odata.type": "#Message.v1_1_2.Message",
        "MessageId": f"Base.1.18.{key}",
        "Message": text,
        "MessageSeverity": "Critical" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "Warning",
        "Resolution": text,
    }
    error = {"code": f"Base.1.18.{key}", "message": text, "@Message.ExtendedInfo": [told]}
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
    return answer(
        HTTPStatus.BAD_REQUEST if status == HTTPStatus.UNPROCESSABLE_ENTITY else status, error.detail, error.headers
    )


def _of_problem(handler: problems.Handler) -> problems.Handler:
    """The same as the API tells, in the other form."""

    async def told(request: Request, error: Exception) -> JSONResponse:
        status = (found := await handler(request, error)).status_code
        detail = str(json.loads(bytes(found.body)).get("detail", ""))
        return answer(HTTPStatus.BAD_REQUEST if status == HTTPStatus.UNPROCESSABLE_ENTITY else status, detail)

    return told
