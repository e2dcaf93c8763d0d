"""A worker process: the targets that it was given, and nothing else.

Started as `python -m blockyard.worker FD` with one end of handoff.pair(). Messages from control:

    {"type": "configure", "configuration": {...}, "poll": bool}
                                       first: what to serve (worker/configuration.py); answered by "ready" or "failed"
    {"type": "connection", "portal", "peer", "received", "answered"} + socket
                                       a login whose first bytes (base64) control has read, and
                                       answered so many bytes of
    {"type": "accounts", "users": [...], "groups": {...}, "final": bool}
                                       whom the rules of its targets speak of, with their secrets (base64); not final
                                       where rules that they are for follow
    {"type": "statistics"}             answered by the counters of every logical unit and every session's connections
    {"type": "stop", "grace": seconds} ask initiators to log out, then flush and end

and to control: "ready", "failed" (with "error"), "statistics", "login" (how one has ended: admission.Outcome),
"stopped". A worker whose control goes away ends as if it had been stopped without grace.
"""

from __future__ import annotations

import base64
import ctypes
import logging
import os
import signal
import socket
import sys
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

from blockyard.block.device import Space
from blockyard.block.file import FileDevice
from blockyard.iscsi.directory import Directory, portal_from
from blockyard.iscsi.login import Found, Moved, TargetLogin
from blockyard.iscsi.negotiation import Preferences
from blockyard.iscsi.node import TargetNode
from blockyard.iscsi.pdu import LoginStatus
from blockyard.scsi.durable import Durable
from blockyard.scsi.nexus import target_port
from blockyard.scsi.target import Target
from blockyard.scsi.taskset import TaskSet
from blockyard.scsi.tokens import TokenStore
from blockyard.scsi.unit import Identity, LogicalUnit
from blockyard.worker import records
from blockyard.worker.admission import WorkerAdmission
from blockyard.worker.configuration import Settled, Volume
from blockyard.worker.executor import ThreadExecutor
from blockyard.worker.handoff import Message, receive_message, send_message
from blockyard.worker.loop import Loop

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
_LOOKS = 100  # thin units whose space is looked at in a tick


class Worker:
    """The service that all connections of this process share."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._executor = ThreadExecutor()
        self._tokens = TokenStore()
        self._looks = 0  # at the space of thin units
        self._keep: Path | None = None  # where units and targets keep what outlives the process
        self._nodes: dict[str, TargetNode] = {}
        self._units: dict[str, LogicalUnit] = {}  # by the name of the volume: one each, wherever it is a LUN
        self._directory = Directory((), {})
        self._preferences: dict[str, Preferences] = {}  # by target
        self._loop: Loop | None = None
        self._stop_at: float | None = None
        self._admission = WorkerAdmission(self._executor, self._tell)

    # ---- what connections ask (iscsi.connection.Service)

    def new_login(self, portal: str, peer: str, attach: Callable[[TargetLogin], int | LoginStatus]) -> TargetLogin:
        admission = self._admission
        return TargetLogin(
            self, portal, peer=peer, attach=attach, authenticator=admission.authenticator, ended=admission.ended
        )

    def find(self, name: str, portal: str) -> Found | Moved | LoginStatus:
        found = self._directory.find(name, portal_from(portal))
        if isinstance(found, Found):
            return Found(self._nodes[name], found.portal_group, self._preferences[name])
        return found

    def send_targets(self, name: str | None, portal: str) -> list[tuple[str, str]]:
        return self._directory.send_targets(name, portal_from(portal))

    # ---- life

    def run(self) -> int:
        """Serve until told to stop. Returns the exit status."""
        received = receive_message(self._control)
        if received is None:
            return 0
        message, _ = received
        try:
            self._configure(records.read(Settled, message["configuration"]))
        except (OSError, ValueError) as error:
            text = (
                f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
            )
            send_message(self._control, {"type": "failed", "error": text})
            self._close_units()
            return 1
        self._loop = Loop(self._executor, poll=message.get("poll", False))
        self._loop.on_tick = self._tick
        self._control.setblocking(False)
        self._loop.watch(self._control.fileno(), lambda mask: self._on_message())
        signal.signal(signal.SIGTERM, lambda signum, frame: self._stop(0))
        send_message(self._control, {"type": "ready"})
        self._loop.run()
        self._loop.close()
        self._executor.close()
        self._close_units()
        self._tell({"type": "stopped"})
        return 0

    def _configure(self, configuration: Settled) -> None:
        """Open what is to be served. Raises OSError or ValueError for what cannot be."""
        self._keep = Path(configuration.units_directory) if configuration.units_directory else None
        self._admission.configure(configuration.auth.policy, self._keep)
        for volume in configuration.volumes.values():
            self._units[volume.name] = self._open_unit(volume)
        for target in configuration.targets.values():
            units = {lun: self._units[volume] for lun, volume in target.luns.items()}
            relative = configuration.relative_ports.get(target.name, {})
            ports = [target_port(target.name, tag, relative.get(tag)) for tag in target.portal_groups]
            durable = Durable(self._keep, target.name)
            scsi = Target(target.name, units, ports, durable, target.target_port_groups)
            self._nodes[target.name] = TargetNode(target.name, scsi, relative, self._nodes)
            self._admission.guard(self._nodes[target.name], target.access, self._units)
            self._preferences[target.name] = target.preferences
        self._directory = configuration.directory()

    def _open_unit(self, volume: Volume) -> LogicalUnit:
        device = FileDevice(volume.path, read_only=volume.read_only)
        identity = Identity(uuid=uuid.UUID(volume.uuid), name=volume.name)
        unit = LogicalUnit(
            device,
            block_size=volume.block_size,
            read_only=volume.read_only,
            write_through=volume.write_through,
            thick=volume.thick,
            removable=volume.removable,
            background_rate=volume.background_rate,
            soft_threshold=volume.soft_threshold,
            protection=volume.protection,
            identity=identity,
            durable=Durable(self._keep, identity.uuid),
            tokens=self._tokens,
        )
        unit.tasks = TaskSet(unit, self._executor)
        unit.resume()
        return unit

    def _close_units(self) -> None:
        for unit in self._units.values():
            unit.close()

    # ---- control

    def _on_message(self) -> None:
        try:
            received = receive_message(self._control)
        except BlockingIOError:
            return
        except OSError:
            received = None
        if received is None:
            log.warning("control is gone: this worker ends")
            self._stop(0)
            return
        message, fds = received
        if message["type"] == "connection":
            self._accept(message, fds[0])
        elif message["type"] == "accounts":
            self._admission.take_accounts(message)
        elif message["type"] == "statistics":
            self._tell(self._statistics())
        elif message["type"] == "stop":
            self._stop(message["grace"])

    def _accept(self, message: Message, fd: int) -> None:
        assert self._loop is not None
        link = self._loop.add(socket.socket(fileno=fd), self, message["portal"], message["peer"])
        link.skip = message["answered"]
        link.feed(base64.b64decode(message["received"]))

    def _tell(self, message: Message) -> None:
        try:
            send_message(self._control, message)
        except OSError as error:
            log.warning("control was not told %s: %s", message["type"], error)

    def _statistics(self) -> Message:
        targets = {
            node.name: {str(lun): unit.counters.as_dict() for lun, unit in node.scsi.luns.units.items()}
            for node in self._nodes.values()
        }
        sessions = [
            {
                "target": node.name,
                "initiator": session.initiator,
                "tsih": session.tsih,
                "cid": connection.cid,
                "peer": connection.peer,
            }
            for node in self._nodes.values()
            for session in node.sessions.values()
            for connection in session.connections.values()
        ]
        return {"type": "statistics", "targets": targets, "sessions": sessions}

    def _stop(self, grace: float) -> None:
        """Ask every initiator to log out; after `grace` seconds, or when all have, end (RFC 7143 §11.9.1)."""
        assert self._loop is not None
        if grace <= 0 or not self._loop.links:
            self._loop.running = False
            return
        self._stop_at = self._loop.now + grace
        for link in self._loop.links.values():
            link.connection.request_logout(max(1, int(grace)))

    def _tick(self, now: float) -> None:
        assert self._loop is not None
        for node in self._nodes.values():
            node.tick(now)
        self._tokens.expire()
        self._look_at_space()
        if self._stop_at is not None and (now >= self._stop_at or not self._loop.links):
            self._loop.running = False

    def _look_at_space(self) -> None:
        """Have units compare the space that they have left with their thresholds; of many units some at a time."""
        armed = [unit for unit in self._units.values() if unit.thresholds.armed or unit.health.armed]
        for number in range(min(len(armed), _LOOKS)):
            unit = armed[(self._looks + number) % len(armed)]
            self._executor.submit(partial(_space, unit), partial(_look, unit))
        self._looks += _LOOKS


def _look(unit: LogicalUnit, space: Space | None) -> None:
    for watch in (unit.thresholds, unit.health):
        if watch.armed:
            watch.look(space)


def _space(unit: LogicalUnit) -> Space | None:
    try:
        return unit.device.space()
    except OSError as error:
        log.warning("%s: its free space cannot be told: %s", unit, error)
        return None


def main() -> int:
    """`python -m blockyard.worker FD`."""
    logging.basicConfig(
        stream=sys.stderr, level=os.environ.get("BLOCKYARD_LOG", "WARNING"), format=logging.BASIC_FORMAT
    )
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group: control decides
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    return Worker(socket.socket(fileno=int(sys.argv[1]))).run()
