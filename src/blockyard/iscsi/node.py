"""Target nodes: one target name with the SCSI target behind it and the sessions on it (RFC 7143 §4.3, §4.4)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from blockyard.iscsi.command import Command
from blockyard.iscsi.pdu import AsyncEvent, LoginStatus
from blockyard.iscsi.permit import Permit, TargetAccess
from blockyard.iscsi.session import Session
from blockyard.scsi.nexus import TargetPort, target_port

if TYPE_CHECKING:
    from blockyard.iscsi.login import TargetLogin
    from blockyard.scsi.device_server import Unit
    from blockyard.scsi.target import Target

Ports = tuple[str, bytes, int]  # the two ports that a session joins: initiator name and ISID, portal group tag

log = logging.getLogger(__name__)


class TargetNode:
    """One iSCSI target: its name, the SCSI target behind it, and the sessions on it.

    `relative_ports` has the relative target port identifier of each of its ports (SPC-5), by the tag of the portal
    group; a port that it does not name has the tag itself. `fellows` are all targets that may share logical units with
    this one, by name.
    """

    def __init__(
        self,
        name: str,
        scsi: Target,
        relative_ports: Mapping[int, int] | None = None,
        fellows: Mapping[str, TargetNode] | None = None,
    ) -> None:
        self.name = name
        self.scsi = scsi
        self.access = TargetAccess(scsi.luns)
        self.relative_ports = relative_ports or {}
        self.sessions: dict[Ports, Session] = {}
        self.shadows: list[TargetNode] = []  # other nodes with the rules of this one (iscsi/travel.py)
        self._fellows = {name: self} if fellows is None else fellows
        self._next_tsih = 0

    def port(self, portal_group: int) -> TargetPort:
        """The SCSI target port that a portal group is (RFC 7143 §4.4.2)."""
        return target_port(self.name, portal_group, self.relative_ports.get(portal_group))

    def find_session(self, login: TargetLogin) -> Session | None:
        """The session that a login means to join (RFC 7143 §6.3.1)."""
        session = self.sessions.get(ports_of(login))
        return session if session is not None and session.tsih == login.requested_tsih else None

    def attach(self, login: TargetLogin) -> Session | LoginStatus:
        """The session that a login enters (RFC 7143 §6.3.1): the one with its TSIH, or a new one.

        A new one takes the place of one of the same two ports: session reinstatement (§6.3.5).
        """
        permit = self.access.permit(login)
        if isinstance(permit, LoginStatus):
            return permit
        old = self.sessions.get(ports_of(login))
        if old is not None and not old.permit.fits(login):
            return LoginStatus.AUTHORIZATION_FAILURE  # another user may not meddle with the session
        if login.requested_tsih:
            return self._join(login)
        permit = self.furnish(permit, login)
        if isinstance(permit, LoginStatus):
            return permit
        session = Session(self, login, self._new_tsih(), permit)
        if old is not None:
            log.info("%s: %s is reinstated", self.name, old)
            old.close(session.settle())
        self.sessions[ports_of(login)] = session
        return session

    def furnish(self, permit: Permit, login: TargetLogin) -> Permit | LoginStatus:
        """Make ready what a new session is to see; or why it cannot be had."""
        return permit

    def _join(self, login: TargetLogin) -> Session | LoginStatus:
        session = self.find_session(login)
        if session is None:
            return LoginStatus.SESSION_DOES_NOT_EXIST
        if login.cid not in session.connections and len(session.connections) >= session.parameters.max_connections:
            return LoginStatus.TOO_MANY_CONNECTIONS
        return session

    def _new_tsih(self) -> int:
        used = {session.tsih for session in self.sessions.values()}
        while True:
            self._next_tsih = self._next_tsih % 0xFFFF + 1
            if self._next_tsih not in used:
                return self._next_tsih

    def forget(self, session: Session) -> None:
        key = (session.initiator, session.isid, session.portal_group)
        if self.sessions.get(key) is session:
            del self.sessions[key]

    def grant(self, access: TargetAccess, known: Callable[[str], bool] = lambda user: True) -> None:
        """Other rules hold from now on; sessions end that they do not permit as they are. `known` are the users."""
        self.access = access
        for session in [session for node in (self, *self.shadows) for session in node.sessions.values()]:
            if not access.renews(session.permit, known):
                log.warning("%s: %s ends: its right has changed", self.name, session)
                session.announce(AsyncEvent.SESSION_DROPPED)
                session.close(politely=True)

    def drop_sessions(self, *, asked_by: Session | None = None) -> None:
        """End every session, and say so (RFC 7143 §11.9.1, event 3), but not to the one that has asked for it."""
        for session in list(self.sessions.values()):
            if session is not asked_by:
                session.announce(AsyncEvent.SESSION_DROPPED)
            session.close(politely=True)

    def tick(self, now: float) -> None:
        """Tell the sessions that wait for something how late it is, in seconds."""
        for session in [session for session in self.sessions.values() if session.watched]:
            session.tick(now)

    def fellow_sessions(self) -> Iterator[Session]:
        """All sessions with this target and its fellows."""
        return (session for node in self._fellows.values() for session in node.sessions.values())

    def commands_on(self, units: Iterable[Unit]) -> dict[Session, list[Command]]:
        """All that is in progress on these units, whichever target it has come by; by session, where there is any."""
        chosen = set(units)
        found = {
            session: [command for command in session.commands.values() if command.task.nexus.unit in chosen]
            for session in self.fellow_sessions()
        }
        return {session: commands for session, commands in found.items() if commands}


def ports_of(login: TargetLogin) -> Ports:
    """The two ports that a login joins."""
    return login.parameters.initiator_name, login.isid, login.portal_group
