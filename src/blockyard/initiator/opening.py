"""How a session comes to be: connect, log in, go where the target points."""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import Any

from blockyard.initiator.connection import Connection
from blockyard.initiator.errors import ProtocolError, Redirected
from blockyard.initiator.login import PREFERENCES, InitiatorLogin
from blockyard.initiator.session import DEFAULT_TIMEOUT, RETRY_AFTER, Session, random_isid
from blockyard.iscsi.names import PortalAddress, normalise
from blockyard.iscsi.negotiation import Preferences

MAX_REDIRECTS = 4


class Dialler:
    """A Dial (see connection.py) to one target: where to, and as whom."""

    def __init__(
        self, portal: PortalAddress, initiator_name: str, target: str | None, timeout: float, **login_options: Any
    ) -> None:
        self._portal = portal
        self._names = normalise(initiator_name), target
        self._timeout = timeout
        self._login_options = login_options

    def __call__(
        self, portal: PortalAddress | None = None, *, tsih: int = 0, cid: int = 0, cmd_sn: int = 1, exp_stat_sn: int = 0
    ) -> Connection:
        portal = portal or self._portal
        for _ in range(MAX_REDIRECTS + 1):
            login = InitiatorLogin(
                *self._names, **self._login_options, tsih=tsih, cid=cid, cmd_sn=cmd_sn, exp_stat_sn=exp_stat_sn
            )
            sock = socket.create_connection((portal.host, portal.port), self._timeout)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                return Connection(sock, login, self._timeout)
            except Redirected as redirected:
                portal = redirected.address
        raise ProtocolError(f"the target redirects the login more than {MAX_REDIRECTS} times")


def open_session(
    portal: PortalAddress,
    target: str | None,
    *,
    initiator_name: str,
    timeout: float = DEFAULT_TIMEOUT,
    preferences: Preferences = PREFERENCES,
    isid: bytes | None = None,
    connections: int = 1,
    recover: bool = False,
    retry_after: float = RETRY_AFTER,
    **login_options: Any,
) -> Session:
    """Connect to a portal and log in to a target, or for discovery to none; redirections are followed.

    `connections` is how many connections the session is to have; it gets as many as the target allows. With `recover`
    a session that is lost is replaced by a new one, and its commands are sent anew (see recovery.py); `retry_after` is
    how many seconds a request may make no progress before it is looked after (ErrorRecoveryLevel 1 and 2).
    `login_options` are those of InitiatorLogin. Raises OSError when there is no connection, LoginError, ProtocolError,
    SessionLost or TimeoutError when there is no session.
    """
    preferences = replace(preferences, max_connections=max(connections, preferences.max_connections))
    isid = isid or random_isid()
    dial = Dialler(portal, initiator_name, target, timeout, isid=isid, preferences=preferences, **login_options)
    session = Session(dial(), timeout, dial=dial, recover=recover, retry_after=retry_after)
    try:
        for _ in range(min(connections, session.parameters.max_connections) - 1):
            session.add_connection()
    except BaseException:
        session.close()
        raise
    return session
