"""ETags against lost updates (RFC 9110 §8.8.3, §13.1): who changes something says which state of it was looked at.

An ETag is of what can be changed of an object, and not of its counters and whatever else goes on with it.
"""

from __future__ import annotations

import hashlib
import json
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, Header, Response

from blockyard.api.problems import Refused

IfMatch = Annotated[
    str | None, Header(description="the ETag that it was read with, or *: any; needed for every change")
]
IfNoneMatch = Annotated[str | None, Header(description="*: only if there is none yet")]


class Conditions:
    """What is said by If-Match and If-None-Match of what a PUT is to meet."""

    def __init__(self, if_match: IfMatch = None, if_none_match: IfNoneMatch = None) -> None:
        self._if_match = if_match
        self._if_none_match = if_none_match

    def check(self, state: Any) -> None:
        """As `check_put`."""
        check_put(self._if_match, self._if_none_match, state)


Conditional = Annotated[Conditions, Depends(Conditions)]


def etag(state: Any) -> str:
    """Of plain data."""
    text = json.dumps(state, sort_keys=True, separators=(",", ":"), default=str)
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:24]}"'


def mark(response: Response, state: Any) -> None:
    """Have an answer carry the ETag of what it tells."""
    response.headers["ETag"] = etag(state)


def check(if_match: str | None, state: Any) -> None:
    """That what is to be changed is what was looked at. Raises Refused."""
    if if_match is None:
        raise Refused(
            HTTPStatus.PRECONDITION_REQUIRED,
            "say by If-Match which state is to be changed: the ETag that it was read with",
        )
    if if_match.strip() != "*" and etag(state) not in (each.strip() for each in if_match.split(",")):
        raise Refused(
            HTTPStatus.PRECONDITION_FAILED, "it has been changed since it was read: look at it, then try again"
        )


def check_put(if_match: str | None, if_none_match: str | None, state: Any) -> None:
    """The same for what is put in the place of something, or where nothing is (`state` is None then). Raises Refused."""
    if state is None:
        if if_match is not None:
            raise Refused(HTTPStatus.PRECONDITION_FAILED, "there is none any more: leave out If-Match to make one")
    elif if_none_match is not None:
        raise Refused(HTTPStatus.PRECONDITION_FAILED, "there is one already")
    else:
        check(if_match, state)
