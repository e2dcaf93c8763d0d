"""Replies to requests that take their time: part of the work is done in another thread, part on the loop's."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from blockyard.worker.executor import ThreadExecutor
from blockyard.worker.handoff import Message

log = logging.getLogger(__name__)

# What whoever has asked can do something about, in another way than by looking at the server
_REFUSALS = frozenset({errno.EBUSY, errno.EEXIST, errno.EINVAL, errno.ENOENT, errno.ENOSPC, errno.ENOTEMPTY})


class Later(NamedTuple):
    """`work` is done in a thread, then `then`, which gets what it has returned, on the loop's thread: it is the answer."""

    work: Callable[[], Any]
    then: Callable[[Any], Answer]


Answer = Message | Later


def nothing_more(result: object) -> Message:
    """The answer to what has nothing to tell but that it is done."""
    return {}


class _Failed(NamedTuple):
    error: Exception


def answer(executor: ThreadExecutor, first: Callable[[], Answer], tell: Callable[[Message], None]) -> None:
    """Have something answered, however many steps that takes; `tell` gets the reply, or what went wrong as "error"."""
    try:
        reply = first()
    except Exception as error:  # a fault of ours in a request must not end those who are served
        tell(_failure(error))
        return
    if isinstance(reply, Later):
        executor.submit(
            partial(_attempt, reply.work), lambda result: answer(executor, partial(_go_on, reply.then, result), tell)
        )
    else:
        tell(reply)


def _attempt(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except Exception as error:
        return _Failed(error)


def _go_on(then: Callable[[Any], Answer], result: Any) -> Answer:
    if isinstance(result, _Failed):
        raise result.error
    return then(result)


def _failure(error: Exception) -> Message:
    if isinstance(error, OSError):
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
        return {"error": text, "refused": error.errno in _REFUSALS}
    if isinstance(error, KeyError) or not isinstance(error, (LookupError, ValueError)):
        log.error("a request has failed", exc_info=error)
        return {"error": f"internal error: {error!r}"}
    return {"error": str(error), "refused": True}
