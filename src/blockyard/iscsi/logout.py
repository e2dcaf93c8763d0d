"""Logout of a session, of one of its connections, or of one that is to be recovered (RFC 7143 §11.14, §11.15).

The request may name another connection than the one that it comes on, alive or lost. Tasks that end with a logout have ended
when it is answered; those of a connection that is to be recovered are kept (iscsi/reassign.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from blockyard.iscsi.pdu import LogoutReason, LogoutRequest, LogoutResponse, LogoutResponseCode

if TYPE_CHECKING:
    from blockyard.iscsi.connection import Connection
    from blockyard.iscsi.session import Session

log = logging.getLogger(__name__)

Answer = Callable[[LogoutResponseCode], None]


def log_out(by: Connection, session: Session, pdu: LogoutRequest) -> None:
    """Carry out a logout request that has come on the connection `by`."""
    ends_here = pdu.reason == LogoutReason.CLOSE_SESSION or pdu.cid == by.cid

    def answer(code: LogoutResponseCode) -> None:
        response = LogoutResponse(itt=pdu.itt, final=True, response=code)
        closed = code == LogoutResponseCode.CLOSED
        if closed and pdu.reason == LogoutReason.RECOVERY:
            response.time2wait, response.time2retain = session.parameters.default_time2wait, session.time2retain
        by.send(response)
        if ends_here:
            by.end_logout(closed=closed)

    if ends_here:
        by.begin_logout()
    _carry_out(by, session, pdu, answer)


def _carry_out(by: Connection, session: Session, pdu: LogoutRequest, answer: Answer) -> None:
    """`answer` is called once the tasks that end with it have ended."""

    def closed() -> None:
        answer(LogoutResponseCode.CLOSED)

    connection = session.connections.get(pdu.cid)
    recovery = pdu.reason == LogoutReason.RECOVERY
    if pdu.reason == LogoutReason.CLOSE_SESSION:
        session.leave(by)  # it has an answer to give yet
        session.close(closed)
    elif recovery and session.parameters.error_recovery_level < 2:
        answer(LogoutResponseCode.RECOVERY_UNSUPPORTED)
    elif connection is not None:
        if recovery:
            session.part(connection, closed)
            session.lost.recover(connection.cid)
        else:
            _close(session, connection, closed)
        if connection is not by:
            connection.drop()
    elif pdu.cid not in session.lost:
        answer(LogoutResponseCode.CID_NOT_FOUND)
    elif recovery:
        session.lost.recover(pdu.cid)
        closed()
    else:
        session.lost.give_up(pdu.cid, closed)


def _close(session: Session, connection: Connection, closed: Callable[[], None]) -> None:
    """End a connection with its tasks, and the session with its last connection."""
    commands = session.leave(connection)
    if session.connections:
        session.withdraw_all(commands, closed)
    else:
        session.close(closed)
