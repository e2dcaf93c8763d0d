"""Waiting for what other threads, processes and machines bring about, for as long as a busy machine may take."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

LIMIT = 120.0  # seconds for anything that should take a fraction of one: there are busy machines
_PAUSE = 0.02  # seconds between two looks


def eventually(condition: Callable[[], object], what: Callable[[], str] | str = "") -> None:
    """Return once it is true; fails after LIMIT seconds, saying `what` has not come about."""
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, f"it has not come about: {what() if callable(what) else what or condition}"
        time.sleep(_PAUSE)


async def comes_about(condition: Callable[[], object]) -> None:
    """The same in a task, whose loop goes on meanwhile."""
    async with asyncio.timeout(LIMIT):
        while not condition():
            await asyncio.sleep(_PAUSE / 2)
