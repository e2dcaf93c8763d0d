"""A worker process: the targets that it was given, and nothing else.

Started as `python -m blockyard.worker FD [DOOR]` with one end of handoff.pair(), and a bound unix socket by which the next
control comes when this one has gone (worker/tether.py). Messages from control:

    {"type": "configure", "configuration": {...}, "poll": bool, "again": bool, "linger": seconds}
                                       first: what to serve (worker/configuration.py); answered by "ready" or "failed"
    {"type": "configure", "configuration": {...}, "grace": seconds, "again": bool}
                                       later: what to serve from now on; answered by "configured", when all that
                                       is not served any more is gone
    {"type": "connection", "number", "portal", "peer", "received", "answered"} + socket
                                       a login whose first bytes (base64) control has read, and
                                       answered so many bytes of; answered by "reply" with the same number
                                       before anything else happens to it
    {"type": "accounts", "users": [...], "groups": {...}, "final": bool}
                                       whom the rules of its targets speak of, with their secrets (base64); not final
                                       where rules that they are for follow
    {"type": "request", "name", "number", …}
                                       one of worker/requests.py; answered by "reply" with the same number
    {"type": "listening", "first": bool, "names": [...]} + sockets
                                       copies of what control listens on, to be kept for the next one; the first
                                       message of several replaces those from before
    {"type": "log"} + pipe             where stderr goes from now on
    {"type": "stop", "grace": seconds} ask initiators to log out, then flush and end

and to control: "ready", "failed" and "configured" (with "error"), "reply", "login" (how one has ended: admission.Outcome),
"event" (what has happened: "severity", "what", "text"), "stopped"; to one that comes by the door first "adopted" ("version",
"configuration", and as "listening" how many sockets follow in such messages). A worker whose control goes away without a door,
or for too long, ends as if it had been stopped without grace.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from blockyard import __version__
from blockyard.block import records
from blockyard.block.device import Space
from blockyard.iscsi.login import Found, Moved, TargetLogin
from blockyard.iscsi.pdu import LoginStatus
from blockyard.scsi.unit import LogicalUnit
from blockyard.worker.admission import WorkerAdmission
from blockyard.worker.change import Change, explain
from blockyard.worker.configuration import Settled
from blockyard.worker.executor import ThreadExecutor
from blockyard.worker.handoff import Message
from blockyard.worker.inventory import Inventory
from blockyard.worker.job_numbers import NUMBERS
from blockyard.worker.later import answer
from blockyard.worker.loop import Loop
from blockyard.worker.requests import carry_out
from blockyard.worker.schedules import Scheduler
from blockyard.worker.tether import Tether

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # mallopt(3)
_KEPT = 16 << 20  # bytes of freed memory that the allocator does not give back at once
_LOOK_AGAIN = 5.0  # seconds between two attempts to open a pool
_LOOKS = 100  # thin units whose space is looked at in a tick


class Worker:
    """The service that all connections of this process share."""

    def __init__(self, control: socket.socket, door: socket.socket | None = None) -> None:
        self._tether = tether = Tether(control, door)
        self._tell = tether.tell
        tether.on_message, tether.on_lost, tether.greeting = self._on_message, lambda: self._stop(0), self._greeting
        self._executor = ThreadExecutor()
        self._looks = 0  # at the space of thin units
        self._look_again_at = 0.0  # for pools that could not be opened
        self._loop: Loop | None = None
        self._stop_at: float | None = None
        self._admission = WorkerAdmission(self._executor, self._tell)
        self._inventory = Inventory(self._executor, self._admission, self._notify)
        self._scheduler = Scheduler(self._inventory, self._executor, self._notify)
        self._change: Change | None = None  # the one that is under way
        self._serves = self._changes_to = Settled()

    # ---- what connections ask (iscsi.connection.Service)

    def new_login(self, portal: str, peer: str, attach: Callable[[TargetLogin], int | LoginStatus]) -> TargetLogin:
        admission = self._admission
        return TargetLogin(
            self, portal, peer=peer, attach=attach, authenticator=admission.authenticator, ended=admission.ended
        )

    def find(self, name: str, portal: str) -> Found | Moved | LoginStatus:
        return self._inventory.targets.find(name, portal)

    def send_targets(self, name: str | None, portal: str) -> list[tuple[str, str]]:
        return self._inventory.targets.send_targets(name, portal)

    # ---- life

    def run(self) -> int:
        """Serve until told to stop. Returns the exit status."""
        message = self._tether.first_message()
        if message is None:
            return 0
        self._tether.linger = message.get("linger", 0.0)
        try:
            self._serves = records.read(Settled, message["configuration"])
            if self._serves.units_directory:
                NUMBERS.keep_in(Path(self._serves.units_directory))
            self._inventory.begin(self._serves, again=message.get("again", False))
        except (OSError, ValueError) as error:
            self._tell({"type": "failed", "error": explain(error)})
            self._inventory.close()
            return 1
        self._loop = Loop(self._executor, poll=message.get("poll", False))
        self._loop.on_tick = self._tick
        self._tether.begin(self._loop)
        signal.signal(signal.SIGTERM, lambda signum, frame: self._stop(0))
        self._tell({"type": "ready"})
        self._loop.run()
        self._loop.close()
        self._executor.close()
        self._inventory.close()
        self._tell({"type": "stopped"})
        return 0

    # ---- control

    def _on_message(self, message: Message, fds: list[int]) -> None:
        if message["type"] == "connection":
            self._accept(message, fds[0])
        elif message["type"] == "configure":
            self._configure(message)
        elif message["type"] == "accounts":
            self._admission.take_accounts(message)
        elif message["type"] == "request":
            self._reply(message)
        elif message["type"] == "stop":
            self._stop(message["grace"])

    def _configure(self, message: Message) -> None:
        """What is served changes; control waits for the answer before it sends another change."""
        assert self._loop is not None
        change = Change(self._inventory, self._loop, message["grace"], self._configured)
        self._change = change
        try:
            self._changes_to = records.read(Settled, message["configuration"])
            change.begin(self._changes_to, again=message.get("again", False))
        except (OSError, ValueError) as error:
            self._configured(explain(error))

    def _configured(self, error: str) -> None:
        self._change = None
        if not error:
            self._serves = self._changes_to
        self._tell({"type": "configured", "error": error})

    def _greeting(self) -> Message | None:
        """What the next control is told; None as long as a change is under way that the one before has asked for."""
        if self._change is not None:
            return None
        return {"type": "adopted", "version": __version__, "configuration": records.write(self._serves)}

    def _accept(self, message: Message, fd: int) -> None:
        assert self._loop is not None
        self._tell({"type": "reply", "number": message["number"]})  # before a byte of it is answered
        link = self._loop.add(socket.socket(fileno=fd), self, message["portal"], message["peer"])
        link.skip = message["answered"]
        link.feed(base64.b64decode(message["received"]))

    def _notify(self, severity: str, what: str, text: str) -> None:
        """An event for the record; from any thread."""
        self._tell({"type": "event", "severity": severity, "what": what, "text": text})

    def _reply(self, request: Message) -> None:
        """Carry out a request of control's."""
        asked_by = self._tether.link
        answer(
            self._executor,
            lambda: carry_out(self._inventory, request),
            lambda reply: self._tell({"type": "reply", "number": request["number"], **reply}, link=asked_by),
        )

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
        for node in list(self._inventory.targets.nodes.values()):  # some are gone with their last session
            node.tick(now)
        self._tether.tick(now)
        self._inventory.tokens.expire()
        self._inventory.notice_sizes()
        self._look_at_space()
        self._scheduler.tick()
        if self._change is not None:
            self._change.tick(now)
        elif not self._inventory.complete and now >= self._look_again_at:
            self._look_again_at = now + _LOOK_AGAIN
            self._inventory.look_again()
        if self._stop_at is not None and (now >= self._stop_at or not self._loop.links):
            self._loop.running = False

    def _look_at_space(self) -> None:
        """Have units compare the space that they have left with their thresholds; of many units some at a time."""
        armed = [unit for unit in self._inventory.units.values() if unit.thresholds.armed or unit.health.armed]
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


def _keep_freed_memory() -> None:
    """Have the allocator keep what commands of the slow road free: to get the pages of 256 KiB anew costs more than all else.

    Where the C library is not glibc it does as it thinks fit.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _KEPT)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)


def main() -> int:
    """`python -m blockyard.worker FD`."""
    _keep_freed_memory()
    with contextlib.suppress(OSError):  # control may be one that yields to workers (api/service.py), and they are not
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    logging.basicConfig(
        stream=sys.stderr, level=os.environ.get("BLOCKYARD_LOG", "WARNING"), format=logging.BASIC_FORMAT
    )
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group: control decides
    # Of a terminal that is closed, and of a control that dies while this process is stopped (setpgid(2), orphaned groups).
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    control, *door = (socket.socket(fileno=int(fd)) for fd in sys.argv[1:])
    if not door:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    return Worker(control, *door).run()
