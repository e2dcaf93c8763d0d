"""The targets of a worker: which LUNs, ports and rules each has, and what logins ask of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from blockyard.iscsi.directory import Directory, portal_from
from blockyard.iscsi.login import Found, Moved
from blockyard.iscsi.node import TargetNode
from blockyard.iscsi.pdu import LoginStatus
from blockyard.iscsi.session import Session
from blockyard.iscsi.travel import TravelNode
from blockyard.pool.pool import Pool
from blockyard.scsi.durable import Durable
from blockyard.scsi.nexus import target_port
from blockyard.scsi.primary import PrimaryUnit
from blockyard.scsi.target import Target as SCSITarget
from blockyard.worker.admission import WorkerAdmission
from blockyard.worker.configuration import Settled, Target
from blockyard.worker.travel import MomentLunMap, Travels

Luns = Callable[[str], dict[int, PrimaryUnit]]


class Targets:
    """Target nodes by their names, and those with a moment added, as long as somebody is logged in to them."""

    def __init__(self, admission: WorkerAdmission, travels: Travels) -> None:
        self.nodes: dict[str, TargetNode] = {}
        self._admission = admission
        self._travels = travels
        self._settled = Settled()
        self._directory = Directory((), {})

    # ---- what logins ask

    def find(self, name: str, portal: str) -> Found | Moved | LoginStatus:
        """The target of that name for a login that has come in on `portal`."""
        found = self._directory.find(name, portal_from(portal))
        if isinstance(found, Found):
            target = self._settled.targets[found.target.name]
            return Found(self._node(name, target), found.portal_group, target.preferences)
        return found

    def _node(self, name: str, target: Target) -> TargetNode:
        """The node of that name: a target, or with a moment added what that was then."""
        if name == target.name or name in self.nodes:
            return self.nodes[name]
        base = self.nodes[target.name]
        ports = [target_port(name, tag, base.relative_ports.get(tag)) for tag in target.portal_groups]
        scsi = SCSITarget(name, {}, ports, port_groups=target.target_port_groups)
        return TravelNode(name, base, scsi, self.nodes, self._travels)

    def send_targets(self, name: str | None, portal: str) -> list[tuple[str, str]]:
        return self._directory.send_targets(name, portal_from(portal))

    # ---- changes

    def arrange(
        self,
        settled: Settled,
        units: Mapping[str, PrimaryUnit],
        of_library: Luns,
        *,
        keep: Path | None,
        closing: Collection[Pool] = (),
    ) -> list[Session]:
        """Targets, their LUNs, ports and rules as the configuration has them; the sessions that have to go.

        `units` are volumes and drives by their names, `of_library` the LUNs of a tape library, `keep` where targets keep what
        outlives a restart, `closing` pools that have to go.
        """
        self._settled, self._directory = settled, settled.directory()
        leaving: list[Session] = []
        for name, node in list(self.nodes.items()):
            if isinstance(node, TravelNode) and node.base.name in settled.targets:
                leaving += self._stranded(node, closing)
            elif name not in settled.targets:
                leaving += self.nodes.pop(name).sessions.values()
                self._admission.forget(name)
        for name, target in settled.targets.items():
            luns = of_library(target.library)
            luns |= {lun: units[volume] for lun, volume in target.luns.items() if volume in units}
            node = self._arranged(target, luns, keep)
            self._admission.guard(node, target.access, units)
            for session in node.sessions.values():
                session.luns_changed()
            leaving += [session for session in node.sessions.values() if not self._reached(name, session)]
        return leaving

    def _stranded(self, node: TravelNode, closing: Collection[Pool]) -> list[Session]:
        """The sessions that cannot go on to see what was: their portals lead elsewhere, or a pool has to go."""
        return [
            session
            for session in node.sessions.values()
            if not self._reached(node.base.name, session)
            or (isinstance(session.luns, MomentLunMap) and any(source.pool in closing for source in session.luns.times))
        ]

    def _arranged(self, target: Target, luns: dict[int, PrimaryUnit], keep: Path | None) -> TargetNode:
        name = target.name
        relative = self._settled.relative_ports.get(name, {})
        ports = [target_port(name, tag, relative.get(tag)) for tag in target.portal_groups]
        node = self.nodes.get(name)
        if node is None:
            scsi = SCSITarget(name, luns, ports, Durable(keep, name), target.target_port_groups)
            node = self.nodes[name] = TargetNode(name, scsi, relative, self.nodes)
        else:
            node.relative_ports = relative
            node.scsi.ports.set_ports(ports, target.target_port_groups)
            node.scsi.luns.change(luns)
        return node

    def _reached(self, name: str, session: Session) -> bool:
        """Whether all connections of a session have come by portals that still lead to where they have led."""
        entry = self._directory.targets[name]
        return session.portal_group in entry.portal_groups and all(
            self._directory.group_of(portal_from(connection.portal)) == session.portal_group
            for connection in session.connections.values()
        )

    # ---- what goes on

    def commands_on(self, unit: PrimaryUnit) -> list[Session]:
        """The sessions that have commands in progress on a unit, whether it leads anywhere or not."""
        nodes = iter(self.nodes.values())
        return list(next(nodes).commands_on([unit])) if self.nodes else []
