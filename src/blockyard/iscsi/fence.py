"""The response fence: what is said before it has arrived before anything after it is said (RFC 7143 §4.2.2.3).

On one connection responses arrive in the order in which they are sent. With several, one of them may overtake. So
where the order matters (a task management function that ends many tasks, on every session that it affects; what
an ACA condition begins and ends with; PREEMPT AND ABORT; §4.2.2.3.3), the fence waits until the initiator has
acknowledged the StatSN of all that was sent on every connection, asking for it by NOP-In. Then the fenced response
is sent, and what comes after it is held until that one is acknowledged too.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from blockyard.scsi.task import Result, Status, Task

if TYPE_CHECKING:
    from blockyard.iscsi.connection import Connection
    from blockyard.iscsi.output import Output
    from blockyard.iscsi.session import Session

_PERSISTENT_RESERVE_OUT, _PREEMPT_AND_ABORT = 0x5F, 0x05  # operation code and service action (SPC-5)
_Response = tuple["Connection", "Output"]


def wants_fence(task: Task, result: Result) -> bool:
    """Whether the response to a command is to stand behind a fence (RFC 7143 §4.2.2.3.3)."""
    if task.cdb[0] == _PERSISTENT_RESERVE_OUT and task.cdb[1] & 0x1F == _PREEMPT_AND_ABORT:
        return True
    if result.status == Status.GOOD:
        return False
    return result.status == Status.ACA_ACTIVE or (result.status == Status.CHECK_CONDITION and task.naca)


class ResponseFence:
    """The fence of one session: down for almost all of its life."""

    def __init__(self, session: Session) -> None:
        self.up = False
        self._session = session
        self._fenced: _Response | None = None  # what is to be sent once the fence's first half is passed
        self._awaited = 0  # connections that have not acknowledged
        self._held: deque[tuple[_Response | None, bool]] = deque()  # responses, and whether each asks for a fence

    def raise_for(self, response: _Response | None) -> None:
        """Send a response with a fence around it; None stands for a fence before whatever comes next."""
        if self.up:
            self._held.append((response, True))
        elif len(self._session.connections) > 1:
            self.up = True
            self._fenced = response
            self._session.look()
            self._await(list(self._session.connections.values()))
        elif response is not None:
            self._session.deliver(*response)

    def hold(self, connection: Connection, output: Output) -> None:
        """Keep a response until the fence is down."""
        self._held.append(((connection, output), False))

    def clear(self) -> None:
        """The session is over."""
        self.up = False
        self._held.clear()
        self._fenced = None

    def _await(self, connections: list[Connection]) -> None:
        self._awaited = len(connections)
        for connection in connections:
            connection.when_acknowledged(self._acknowledged)

    def _acknowledged(self) -> None:
        self._awaited -= 1
        if self._awaited or not self.up:
            return
        if self._fenced is None:
            self._lower()
            return
        connection, output = self._fenced
        self._fenced = None
        self._session.deliver(connection, output)
        self._await([connection])

    def _lower(self) -> None:
        self.up = False
        while self._held and not self.up:
            response, fence = self._held.popleft()
            if fence:
                self.raise_for(response)
            elif response is not None:
                self._session.deliver(*response)
        self._session.look()
