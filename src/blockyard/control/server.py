"""Serving, from the first listening socket to the last flush: workers, acceptor, signals, service manager."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blockyard.control.acceptor import Acceptor
from blockyard.control.errors import ControlError
from blockyard.control.gate import Gate
from blockyard.control.isns import Registrar, Targets
from blockyard.control.portals import Listeners
from blockyard.control.settling import Found, settle
from blockyard.control.state import State
from blockyard.control.supervisor import Supervisor
from blockyard.control.systemd import keep_watchdog, notify
from blockyard.iscsi.directory import portal_from
from blockyard.worker.configuration import Configuration, PortalGroup, Settled

log = logging.getLogger(__name__)

REFRESH = 0.5  # seconds between two looks at the users in the state database
GRACE = 5.0  # seconds that initiators have for logging out when serving ends


@dataclass(frozen=True)
class Options:
    """How to serve."""

    state: Path  # the state directory
    workers: int = 1
    poll: bool = False
    verbose: bool = False


class Interrupted(ControlError):
    """Told to stop a second time: it ended without waiting for initiators or flushes."""

    def __init__(self) -> None:
        super().__init__("stopped without waiting for initiators to log out")


class Server:
    """One run of `blockyard serve`: portals are opened, then volumes prepared, then targets served."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.portal_groups: dict[int, PortalGroup] = {}  # with their real ports, once they are open
        self._listeners = Listeners()

    def open(self, groups: Mapping[int, PortalGroup]) -> None:
        """Listen on every portal. Raises PortalError; then none is open."""
        self.portal_groups = self._listeners.open(groups)

    def close(self) -> None:
        self._listeners.close()

    def prepare(self, configuration: Configuration, *, from_file: bool) -> Found:
        """Have volumes checked or made. Raises VolumeError, ConfigurationError or StateError."""
        with contextlib.closing(State(self.options.state)) as state:
            return settle(configuration, self.portal_groups, state, from_file=from_file)

    async def run(self, configuration: Settled, on_ready: Callable[[], None]) -> None:
        """Serve until SIGTERM or SIGINT; `on_ready` is called once initiators can log in.

        Raises VolumeError or WorkerFailed when it cannot begin, Interrupted when it was told to stop twice.
        """
        options = self.options
        _allow_open_files()
        level = "INFO" if options.verbose else "WARNING"
        state = State(options.state)
        gate = Gate(state, configuration)
        supervisor = Supervisor(configuration, options.workers, gate=gate, poll=options.poll, log_level=level)
        acceptor = Acceptor(configuration.directory(), supervisor, self._listeners.sockets, gate=gate)
        registrar = _registrar(configuration, state)
        signals = _Signals()
        watchdog = asyncio.create_task(keep_watchdog())
        refresher = asyncio.create_task(_refresh(gate, supervisor))
        try:
            if await signals.before(supervisor.start()):
                acceptor.start()
                if registrar is not None:
                    registrar.start()
                notify(READY="1", STATUS=f"Serving {_count(len(configuration.targets), 'target')}")
                on_ready()
                await signals.wait()
            notify(STOPPING="1", STATUS="Waiting for initiators to log out, then flushing")
            if registrar is not None:
                await registrar.close()
            await acceptor.close()
            if not await signals.before(supervisor.stop(GRACE)):
                raise Interrupted
        finally:
            self.close()
            watchdog.cancel()
            refresher.cancel()
            await supervisor.close()
            gate.events.flush()
            state.close()


class _Signals:
    """SIGTERM and SIGINT ask to stop; one waiter hears each. SIGHUP is let pass: there is nothing to read anew."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked.set)
        loop.add_signal_handler(signal.SIGHUP, log.info, "SIGHUP: there is nothing to reload")

    async def wait(self) -> None:
        await self._asked.wait()
        self._asked.clear()

    async def before(self, work: Coroutine[Any, Any, None]) -> bool:
        """Do `work`; False when a signal came first, and the work was given up."""
        asked = asyncio.create_task(self.wait())
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait((task, asked), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
                return True
            return False
        finally:
            for each in (asked, task):
                each.cancel()
            with contextlib.suppress(asyncio.CancelledError, ControlError):
                await task


def _registrar(configuration: Configuration, state: State) -> Registrar | None:
    """Who keeps the targets registered with an iSNS server, where there is to be one."""
    if configuration.isns is None:
        return None

    def targets() -> Targets:
        groups = {
            tag: [portal_from(text) for text in group.portals] for tag, group in configuration.portal_groups.items()
        }
        return [
            (target.name, target.alias, [(portal, tag) for tag in target.portal_groups for portal in groups[tag]])
            for target in configuration.targets.values()
        ]

    entity = configuration.isns.entity or state.default_target_name().partition(":")[2]
    return Registrar(portal_from(configuration.isns.server), entity, targets)


async def _refresh(gate: Gate, supervisor: Supervisor) -> None:
    """Have events written, and workers told of users that have changed."""
    while True:
        await asyncio.sleep(REFRESH)
        if gate.refresh():
            await supervisor.send_accounts()


def _allow_open_files() -> None:
    """Raise the soft limit of open files to the hard one: every session is a file, and the soft default is 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
