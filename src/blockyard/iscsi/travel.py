"""Time travel: nodes that show what the logical units of a target were at a moment.

Whoever adds a moment to the name of a target (iqn.2024-01.com.example:disk@-5m) logs in to such a node, under the rules of
the target itself. There is one for each such name while anybody has a session with it; and each session has logical
units of its own, as the same words mean another moment a minute later.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from blockyard.iscsi.login import TargetLogin
from blockyard.iscsi.node import Ports, TargetNode, ports_of
from blockyard.iscsi.pdu import LoginStatus
from blockyard.iscsi.permit import Permit, TargetAccess
from blockyard.scsi.target import LunMap, Target

if TYPE_CHECKING:
    from blockyard.iscsi.session import Session

log = logging.getLogger(__name__)


class Guide(Protocol):
    """Who knows what there was (worker/travel.py)."""

    def show(self, name: str, ports: Ports, luns: LunMap, old: LunMap | None) -> LunMap:
        """What is seen of a LUN map under that name; the same as in `old`, if that is there.

        Raises LookupError where there is no such moment, OSError.
        """

    def lost(self, name: str, ports: Ports, luns: LunMap) -> None:
        """A session has broken that has seen this: who comes back soon is to see the same."""


class TravelNode(TargetNode):
    """The node of the name that a login has: `base` at a moment. It is among `nodes` while it has sessions."""

    def __init__(self, name: str, base: TargetNode, scsi: Target, nodes: dict[str, TargetNode], guide: Guide) -> None:
        self.base = base
        super().__init__(name, scsi, base.relative_ports, nodes)
        self._nodes = nodes
        self._guide = guide
        self._attaching = False

    @property
    def access(self) -> TargetAccess:
        """The rules of the target hold."""
        return self.base.access

    @access.setter
    def access(self, access: TargetAccess) -> None:
        """They are those of the target."""

    def attach(self, login: TargetLogin) -> Session | LoginStatus:
        there = self._nodes.setdefault(self.name, self)
        if there is not self:  # another login has been quicker
            return there.attach(login)
        if self not in self.base.shadows:
            self.base.shadows.append(self)
        self._attaching = True
        try:
            return super().attach(login)
        finally:
            self._attaching = False
            self._leave()

    def furnish(self, permit: Permit, login: TargetLogin) -> Permit | LoginStatus:
        ports = ports_of(login)
        old = self.sessions.get(ports)
        try:
            luns = self._guide.show(self.name, ports, permit.luns.source, old.permit.luns if old is not None else None)
        except LookupError as error:
            log.warning("%s: %s cannot log in: %s", self.name, login.parameters.initiator_name, error.args[0])
            return LoginStatus.NOT_FOUND
        except OSError as error:
            log.error("%s: %s cannot log in: %s", self.name, login.parameters.initiator_name, error)
            return LoginStatus.SERVICE_UNAVAILABLE
        return replace(permit, luns=luns)

    def forget(self, session: Session) -> None:
        super().forget(session)
        if session.broken:
            self._guide.lost(self.name, (session.initiator, session.isid, session.portal_group), session.permit.luns)
        self._leave()

    def _leave(self) -> None:
        """Nobody has a session with it any more: it is made anew when somebody wants to."""
        if not self.sessions and not self._attaching and self._nodes.get(self.name) is self:
            del self._nodes[self.name]
            self.base.shadows.remove(self)
