"""Looks at a pool now and then, and tells when it is getting full, has space again, or takes no more writes."""

from __future__ import annotations

from collections.abc import Callable

from blockyard.block.size import format_size
from blockyard.pool.pool import Pool
from blockyard.pool.usage import Level

Notify = Callable[[str, str, str], None]  # severity, what for programs, text for people (control/events.py)


class Watch:
    """`warn` has initiators told that space is getting short."""

    def __init__(self, name: str, pool: Pool, notify: Notify, warn: Callable[[], None]) -> None:
        self._name = name
        self._pool = pool
        self._notify = notify
        self._warn = warn
        self._level = Level.GOOD
        self._failed = False

    def look(self) -> None:
        pool = self._pool
        pool.look_beneath()
        with pool.lock:
            level = pool.ledger.level_after(self._level)
        if level != self._level:
            self._changed(self._level, level)
            self._level = level
        if pool.failed is not None and not self._failed:
            self._failed = True
            why = pool.failed.strerror
            text = f"the pool {self._name} could not make stable what was written ({why}): it takes no more writes until it is "
            self._notify("error", "pool-failed", f"{text}opened anew; see to the disk, then start the server again")

    def _changed(self, before: Level, level: Level) -> None:
        usage, ledger = self._pool.usage, self._pool.ledger
        left = f"{format_size(usage.free)} of {format_size(usage.size)} are free"
        more = f"add a member (`blockyard pool add {self._name}`), or delete something"
        if level < before:
            self._notify("info", "pool-space", f"the pool {self._name} has space again: {left}")
        elif level == Level.FULL:
            self._notify("error", "pool-full", f"the pool {self._name} is full, nothing new is stored: {more}")
        elif level == Level.HARD:
            what = (
                f"the pool {self._name} has reached its hard threshold ({ledger.hard}), nothing new is stored: {left}"
            )
            self._notify("error", "pool-hard-threshold", f"{what}; {more}")
        else:
            what = f"the pool {self._name} has reached its soft threshold ({ledger.soft}): {left}"
            self._notify("warning", "pool-soft-threshold", f"{what}; {more}")
        if level > before:
            self._warn()
