"""A change of what a worker serves, while it serves: sessions and logical units that have to go are seen off.

Initiators are asked to log out and have a grace for that (RFC 7143 §11.9.1, event 1); tasks on a logical unit that is
not there any more come to their end. Whatever is left after the grace is cut off.
"""

from __future__ import annotations

import errno
import resource
from collections.abc import Callable

from blockyard.iscsi.connection import State
from blockyard.scsi.primary import PrimaryUnit
from blockyard.worker.configuration import Settled
from blockyard.worker.inventory import Inventory
from blockyard.worker.loop import Loop
from blockyard.worker.opening import Ready

_LOOK = 0.02  # seconds between two looks at what is still there


class Change:
    """From `begin` until `done`, which gets what went wrong, or "". To be told the time meanwhile, by `tick`."""

    def __init__(self, inventory: Inventory, loop: Loop, grace: float, done: Callable[[str], None]) -> None:
        self._inventory = inventory
        self._loop = loop
        self._grace = grace
        self._deadline = loop.now + grace
        self._done = done
        self._begun = self._closing = False

    def begin(self, settled: Settled, *, again: bool = False) -> None:
        """Raises OSError or ValueError when it cannot be; then nothing has changed, and `done` is not called.

        `again`: see Inventory.begin.
        """
        opening = self._inventory.prepare(settled)
        if opening is None:
            self._take_over(settled, again)
        else:
            self._loop.executor.submit(opening, lambda ready: self._opened(settled, again, ready))

    def _opened(self, settled: Settled, again: bool, ready: Ready | Exception) -> None:
        """What takes its time to open is open, or cannot be."""
        opener = self._inventory.opener
        try:
            if not isinstance(ready, Exception):
                opener.ready = ready
            elif not again:
                raise ready
            self._take_over(settled, again)
        except (OSError, ValueError) as error:
            self._closing = True
            self._done(explain(error))
        finally:
            opener.forget_ready()

    def _take_over(self, settled: Settled, again: bool) -> None:
        self._sessions, self._units = self._inventory.begin(settled, again=again)
        self._begun = True
        self._deadline = self._loop.now + self._grace
        if self._sessions:
            for link in list(self._loop.links.values()):
                if link.connection.state is State.LOGIN:  # it may be on its way to what is not there any more
                    link.close("targets or portals have changed")
        for session in self._sessions:
            for connection in session.connections.values():
                connection.request_logout(max(1, int(self._grace)))
        self.tick(self._loop.now)

    def tick(self, now: float) -> None:
        """Go on if all that has to go is gone, or has had its time."""
        if self._closing or not self._begun:
            return
        self._loop.tick_at = now + _LOOK
        late = now >= self._deadline
        self._sessions = [session for session in self._sessions if not session.over]
        for session in self._sessions:
            if late or not session.connections:
                session.close()
        if not late and (self._sessions or any(map(self._busy, self._units))):
            return
        for unit in self._units:
            for session in self._inventory.targets.commands_on(unit):
                session.close()
        self._closing = True
        self._loop.executor.submit(self._flush, self._end)

    def _busy(self, unit: PrimaryUnit) -> bool:
        return bool(self._inventory.targets.commands_on(unit)) or (unit.tasks is not None and len(unit.tasks) > 0)

    def _flush(self) -> str:
        """In a thread, so that closing does not hold up the loop."""
        for unit in self._units:
            try:
                unit.flush()
            except OSError as error:
                return str(error)
        return ""

    def _end(self, error: str) -> None:
        self._inventory.let_go(self._units)
        try:
            self._inventory.finish()
        except (OSError, ValueError) as failure:
            error = explain(failure)
        self._put(self._inventory.to_be_put, error)

    def _put(self, names: list[str], error: str) -> None:
        """Volumes that are to stand on something else, one after the other."""
        if error or not names:
            self._done(error)
            return
        name, *rest = names
        self._inventory.put(
            name, lambda failure: self._put(rest, "" if failure is None else f"{name}: {explain(failure)}")
        )


def explain(error: Exception) -> str:
    """What went wrong, with the file that it went wrong with."""
    if isinstance(error, OSError) and error.errno == errno.EMFILE:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        return (
            f"{error.filename}: a process may have {limit} files open, and every volume and session is one: raise that with "
            "`ulimit -n` or LimitNOFILE=, or have more --workers"
        )
    return f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
