"""Signals that a server hears, and what comes first: some work, or one that tells it to stop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from blockyard.control.errors import ControlError


class Signals:
    """SIGTERM and SIGINT ask to stop; one waiter hears each. SIGHUP calls `hang_up`."""

    def __init__(self, hang_up: Callable[[], None]) -> None:
        self._asked = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked.set)
        loop.add_signal_handler(signal.SIGHUP, hang_up)

    def stop(self) -> None:
        """As if SIGTERM had come."""
        self._asked.set()

    async def wait(self) -> None:
        await self._asked.wait()
        self._asked.clear()

    async def before(self, work: Coroutine[Any, Any, None]) -> bool:
        """Do `work`; False when a signal came first, and the work was given up."""
        asked = asyncio.create_task(self.wait())
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait((task, asked), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
                return True
            return False
        finally:
            for each in (asked, task):
                each.cancel()
            with contextlib.suppress(asyncio.CancelledError, ControlError):
                await task
