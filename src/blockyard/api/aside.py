"""What asks disks and file systems something, which may take for ever: a network file system whose server is gone answers nobody.

It is done in threads of its own, of which there are few: those that all others share would be used up by it, and an end of the
process that waits for its threads would never come.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import TypeVar

from blockyard.api.problems import Refused

T = TypeVar("T")

_PATIENCE = 15.0  # seconds: longer than disks take that have to spin up first
_room = threading.BoundedSemaphore(4)


async def aside(function: Callable[[], T], *, patience: float = _PATIENCE) -> T:
    """What a function returns or raises. Raises Refused when there is no answer in time; the function goes on then."""
    if not _room.acquire(blocking=False):
        raise Refused(
            HTTPStatus.SERVICE_UNAVAILABLE, "too many are waiting for disks and file systems that do not answer"
        )
    loop = asyncio.get_running_loop()
    told: asyncio.Future[T] = loop.create_future()

    def tell(outcome: Callable[[], None]) -> None:
        if not told.done():  # else nobody waits for it any more
            outcome()

    def run() -> None:
        try:
            outcome = partial(told.set_result, function())
        except BaseException as error:
            outcome = partial(told.set_exception, error)
        finally:
            _room.release()
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(tell, outcome)

    try:
        threading.Thread(target=run, name="aside", daemon=True).start()
    except RuntimeError:  # there are as many as there may be
        _room.release()
        raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "no thread can be started") from None
    try:
        return await asyncio.wait_for(told, patience)
    except TimeoutError:
        raise Refused(
            HTTPStatus.SERVICE_UNAVAILABLE, f"there was no answer in {patience:g} s: is it on a network?"
        ) from None
