"""Serving, from the first listening socket to the last flush: workers, acceptor, signals, service manager."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from blockyard.block.records import RecordError, key
from blockyard.block.size import Size
from blockyard.control.acceptor import Acceptor
from blockyard.control.administration import ControlSocket, Request
from blockyard.control.adoption import Orphan, find_orphans, keep_nothing, listening_of
from blockyard.control.carrying_out import carry_out
from blockyard.control.configuration_file import load
from blockyard.control.consistency import DEFAULT_API, checked
from blockyard.control.delivery import Deliveries
from blockyard.control.difference import differences
from blockyard.control.errors import ControlError, UsageError
from blockyard.control.gate import Gate
from blockyard.control.history.recorder import History
from blockyard.control.making import Making
from blockyard.control.managed import Adjust, Edit, Managed
from blockyard.control.measurements import ask, measure
from blockyard.control.places import Places
from blockyard.control.registration import Registration
from blockyard.control.service import Nowhere, Service
from blockyard.control.settling import Found, settle
from blockyard.control.signals import Signals
from blockyard.control.state import State
from blockyard.control.supervisor import GRACE, Supervisor
from blockyard.control.systemd import keep_watchdog, notify
from blockyard.control.telemetry import Exports
from blockyard.control.worker import Home
from blockyard.iscsi.directory import Portal
from blockyard.worker.configuration import Api, Configuration, PortalGroup, Settled
from blockyard.worker.job_numbers import NUMBERS

log = logging.getLogger(__name__)

REFRESH = 0.5  # seconds between two looks at the users in the state database
LINGER = 30.0  # seconds that workers go on when control has ended without saying so


@dataclass(frozen=True)
class Options:
    """How to serve."""

    state: Path  # the state directory
    config: Path | None = None  # the configuration file, where there is one
    arguments: Mapping[str, object] | None = None  # of a managed server: those that say what it is to serve
    portals: tuple[str, ...] = ()  # of a configuration file without portal groups
    workers: int = 1
    poll: bool = False
    linger: float = LINGER  # seconds that workers go on without a control
    verbose: bool = False


class Interrupted(ControlError):
    """Told to stop a second time: it ended without waiting for initiators or flushes."""

    def __init__(self) -> None:
        super().__init__("stopped without waiting for initiators to log out")


class Server:
    """One run of `blockyard serve`: portals are opened, then volumes prepared, then targets served."""

    def __init__(self, options: Options, service: Callable[[Server], Service] | None = None) -> None:
        self.options = options
        self.configuration = Configuration()  # as it was asked for
        self.supervisor: Supervisor
        self.gate: Gate
        self.managed = None if options.arguments is None else Managed(options.state)
        self._orphans: list[
            Orphan
        ] = []  # workers that were there before this process; until they have been told what to serve
        self.making = Making()
        self.restarting = False  # it ends so that another one can take over
        self.began = time.time()
        self.changes = 0  # of what is served, commands that may have changed something else, and events
        self._found = Found(Settled(), {})
        self._groups: dict[int, PortalGroup] = {}  # with the ports that they really have
        self._socket: ControlSocket | None = None
        self._changing = asyncio.Lock()
        self._withheld: set[str] = set()  # volumes of pools that are not exported, as they are being deleted
        self._reloads: set[asyncio.Task[None]] = set()
        self._registration = Registration(options.state, lambda: self.settled)
        self._places = Places(partial(measure, self), Nowhere() if service is None else service(self))

    @property
    def settled(self) -> Settled:
        """What is served."""
        return self._found.settled

    def claim(self) -> None:
        """Have the state directory for this server alone. Raises StateError."""
        with contextlib.closing(State(self.options.state)) as state:  # it is made, and can be used
            NUMBERS.keep_in(state.units_directory)
        self._socket = ControlSocket(self.options.state, self._carry_out)
        self._orphans = find_orphans(self.options.state)
        self._places.listeners.inherit(listening_of(self._orphans), partial(keep_nothing, self._orphans))

    def inherited(self, name: str, asked: Portal) -> tuple[socket.socket, Portal] | None:
        """For the service: a copy of what it has listened on by that name before control started again."""
        return self._places.listeners.inherited(name, asked)

    def close(self) -> None:
        self._places.close()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def prepare_stored(self, adjust: Adjust) -> Found:
        """Prepare what the state database has, with what `adjust` makes of it. Raises ControlError."""
        assert self.managed is not None
        *unfinished, wanted = self.managed.candidates(adjust)
        for configuration in unfinished:
            try:
                return self.prepare(configuration)
            except ControlError as error:
                self.managed.given_up(error)
        return self.prepare(wanted)

    def prepare(self, configuration: Configuration) -> Found:
        """Open portals, listen where metrics are fetched, and have volumes checked or made.

        Raises PortalError, VolumeError or StateError; then all is closed.
        """
        opened = self._places.prepare(
            configuration, self._api(configuration), service_optional=self.managed is not None
        )
        try:
            self._found = self._look(configuration, opened.portals.groups, self.keeps_sizes)
        except BaseException:
            opened.undo()
            raise
        self._places.commit(opened)
        self._groups, self.configuration = opened.portals.groups, configuration
        return self._found

    def _api(self, configuration: Configuration) -> Api | None:
        """Where the API is to be."""
        return configuration.api or (None if self.managed is None else DEFAULT_API)

    @property
    def keeps_sizes(self) -> bool:
        """Whether the configuration says how large files are to be, so that they grow to that."""
        return self.options.config is not None or self.managed is not None

    # ---- life

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Serve until SIGTERM or SIGINT; `on_ready` is called once initiators can log in.

        Raises VolumeError or WorkerFailed when it cannot begin, Interrupted when it was told to stop twice.
        """
        options = self.options
        _allow_open_files()
        level = "INFO" if options.verbose else "WARNING"
        state = State(options.state)
        self.gate = gate = Gate(state, self.settled)
        tell = partial(_from_thread, asyncio.get_running_loop(), gate)
        self._deliveries = Deliveries(options.state, tell)
        gate.events.written = self._events_written
        self._exports = Exports(partial(measure, self), tell)
        self.history = History(options.state, lambda: ask(self.supervisor.workers), tell)
        self.supervisor = supervisor = Supervisor(
            self.settled,
            options.workers,
            gate=gate,
            poll=options.poll,
            log_level=level,
            home=Home(options.state.absolute(), options.linger) if options.linger > 0 else None,
            orphans=self._orphans,
        )
        self._acceptor = acceptor = Acceptor(
            self.settled.directory(), supervisor, self._places.listeners.sockets, gate=gate
        )
        self._signals = signals = Signals(self._hang_up)
        tasks = [asyncio.create_task(_refresh(gate, supervisor)), asyncio.create_task(self.history.run())]
        ready = False
        try:
            if await signals.before(supervisor.start()):
                self._orphans.clear()
                self._places.listeners.forget_inherited()
                await supervisor.keep(self._places.kept)
                if self.managed is not None:
                    self.managed.serves(self.configuration, options.arguments or {})
                acceptor.start()
                self._registration.begin()
                assert self._socket is not None
                await self._socket.start()
                async with self.unchanging():
                    await self._places.start()
                self._deliveries.configure(self.configuration.events)
                self._exports.configure(self.configuration.telemetry)
                gate.events.record("server-started", f"serving {_count(len(self.settled.targets), 'target')}")
                gate.events.flush()  # what is recorded by other processes from now on comes after it
                notify(READY="1", STATUS=self._status())
                tasks.append(asyncio.create_task(keep_watchdog()))  # before, nobody waits for it (systemd.service(5))
                on_ready()
                ready = True
                await signals.wait()
                await asyncio.to_thread(self.making.close)  # while there are workers that could have begun some of it
            if self.restarting:
                await self._make_way(acceptor)
                return
            gate.events.record("server-stopped", "stopping: initiators are asked to log out")
            notify(STOPPING="1", STATUS="Waiting for initiators to log out, then flushing")
            await self._registration.end()
            await supervisor.keep({})
            await self._places.service.stop()
            await acceptor.close()
            if not await signals.before(supervisor.stop(GRACE)):
                raise Interrupted
        finally:
            self.close()
            for task in tasks:
                task.cancel()
            if supervisor.adopted and not ready:  # another attempt may do better by them
                await supervisor.release()
            await supervisor.close()
            self._exports.close()
            gate.events.flush()
            await asyncio.to_thread(self._deliveries.close)
            await asyncio.to_thread(self.history.close)
            state.close()

    async def _make_way(self, acceptor: Acceptor) -> None:
        """End without workers, sessions and sockets that are listened on: the next control takes these over."""
        notify(RELOADING="1", MONOTONIC_USEC=str(time.monotonic_ns() // 1000), STATUS="Starting again")
        assert self._socket is not None
        await self._socket.cease()
        async with self._changing:
            await self._places.stop()
            await acceptor.close()
            await self.supervisor.release()

    def restart(self) -> None:
        """End soon, with `restarting` set. Raises UsageError where workers would end with this process."""
        if self.options.linger <= 0:
            raise UsageError("with --linger 0 workers end with the control process: stop it and start it again")
        self.restarting = True
        self._signals.stop()

    def _events_written(self) -> None:
        self.changes += 1
        self._deliveries.wake()

    def _status(self) -> str:
        return f"Serving {_count(len(self.settled.targets), 'target')}"

    # ---- changes while it runs

    async def change(self, edit: Edit, *, expected: int | None, who: str) -> int:
        """Serve what `edit` makes of the configuration; the number of the revision that it has become.

        `expected` is the revision that `edit` is meant for, where that matters. Raises ControlError: a Conflict when another one
        holds by now, UsageError when the configuration stands somewhere else. Then all is as it was.
        """
        if self.managed is None:
            raise UsageError(self.elsewhere())
        return await asyncio.shield(
            self.managed.change(
                edit, lambda: self.configuration, partial(self._apply, grow=True), expected=expected, who=who
            )
        )

    def elsewhere(self) -> str:
        """Where the configuration is to be changed, when not by commands."""
        if self.options.config is not None:
            return f"the configuration stands in {self.options.config}: change it there, then `blockyard reload`"
        return (
            "what is served stands on the command line of `blockyard serve`: only without disks, pools and --config does it keep "
            "a configuration of its own that can be changed (docs/configuration.md)"
        )

    async def reload(self) -> list[str]:
        """Read the configuration file again, and look at the sizes of volumes; what has changed, in lines.

        Raises ControlError; then all is as it was.
        """
        if self.options.config is None:
            configuration = None
        else:
            configuration = await asyncio.to_thread(load, self.options.config, portals=self.options.portals)
        changes = [] if configuration is None else differences(self.configuration, configuration)
        sizes = {name: volume.size for name, volume in self.settled.volumes.items()}
        notify(RELOADING="1", MONOTONIC_USEC=str(time.monotonic_ns() // 1000))
        try:
            async with self._changing:
                await self._serve(configuration or self.configuration, grow=self.keeps_sizes)
        finally:
            notify(READY="1", STATUS=self._status())
        for name, volume in self.settled.volumes.items():
            if volume.size != sizes.get(name, volume.size):
                changes.append(f"~ {key(name)} has {Size(volume.size)} now, after {Size(sizes[name])}")
        for told in await self.supervisor.ask_all({"name": "refresh"}):
            for name, (before, after) in (told or {"sizes": {}})["sizes"].items():
                changes.append(f"~ {key(name)} has {Size(after)} now, after {Size(before)}")
        for line in changes:
            log.info("reload: %s", line)
        return changes

    async def resize(self, name: str, size: Size, *, who: str, force: bool = False) -> None:
        """Give a volume another size: a file grows, a volume of a pool also shrinks (see resizing.py). Raises ControlError."""
        wanted = self.configuration.volumes.get(name)
        pool, _, volume = (name if wanted is None else wanted.source).partition("/")
        if (wanted is None or wanted.pool) and pool in self.settled.pools:
            resize = {"request": "resize volume", "volume": volume, "size": int(size), "force": force}
            async with self._changing:
                await self.supervisor.ask_pool(pool, resize)
            await self.look_again(pool)
            return
        if wanted is None:
            raise UsageError(f"there is no volume {name!r}: `blockyard status` lists them")
        if wanted.size and self.options.config is not None:
            raise UsageError(f"the size of {name} stands in {self.options.config}: change it there, then reload")

        def grown(configuration: Configuration) -> Configuration:
            if configuration.volumes.get(name) != wanted:
                raise ControlError(f"{name} was changed meanwhile: look at it, and try again")
            try:
                return checked(
                    replace(configuration, volumes={**configuration.volumes, name: replace(wanted, size=size)})
                )
            except RecordError as error:
                raise UsageError(str(error)) from None

        if self.managed is not None and wanted.size:
            await self.change(grown, expected=self.managed.revision, who=who)
            return
        async with self._changing:
            before = self.configuration
            await self._serve(grown(before), grow=True)
            if not wanted.size:
                self.configuration = before
                self.changes += 1

    async def look_again(self, pool: str) -> None:
        """Volumes of a pool have come, gone or changed their sizes: serve what is to be served now. Raises ControlError."""
        async with self._changing:  # what is served by then: a change that is under way must not be undone
            of_it = (volume.pool == pool for volume in self.settled.volumes.values())
            if pool in self.settled.pools and (self.settled.pools[pool].export or any(of_it)):
                await self._serve(self.configuration, grow=self.keeps_sizes)

    @contextlib.asynccontextmanager
    async def withheld(self, source: str) -> AsyncIterator[None]:
        """A volume of a pool is not exported while this lasts. Raises ControlError."""
        pool = source.partition("/")[0]
        self._withheld.add(source)
        try:
            await self.look_again(pool)
            yield
        finally:
            self._withheld.discard(source)
            await self.look_again(pool)

    @contextlib.asynccontextmanager
    async def unchanging(self) -> AsyncIterator[None]:
        """What is served does not change while this lasts."""
        async with self._changing:
            yield

    async def _apply(self, configuration: Configuration, *, grow: bool) -> None:
        """`_serve`, when it is this one's turn."""
        async with self._changing:
            await self._serve(configuration, grow=grow)

    async def _serve(self, configuration: Configuration, *, grow: bool) -> None:
        """Serve this from now on; for who has `_changing`. Raises ControlError; then all is as it was."""
        optional = self.managed is not None and configuration.api == self.configuration.api
        opened = self._places.prepare(configuration, self._api(configuration), service_optional=optional)
        groups = opened.portals.groups
        try:
            found = await asyncio.to_thread(self._look, configuration, groups, grow)
            await self._hand_on(found)
        except BaseException:
            opened.undo()
            raise
        before = self.settled
        self._found, self.configuration, self._groups = found, configuration, groups
        self.changes += 1
        gone = self._places.commit(opened)
        await self._places.start()
        for sock, _ in opened.portals.new.values():
            self._acceptor.listen(sock)
        await self.supervisor.keep(self._places.kept)
        for sock in gone:
            await self._acceptor.cease(sock)
        await self._acceptor.drop_stranded()
        await self._registration.changed(before)
        self._deliveries.configure(configuration.events)
        self._exports.configure(configuration.telemetry)

    def _look(self, configuration: Configuration, groups: dict[int, PortalGroup], grow: bool) -> Found:
        """Have volumes checked or made. Raises VolumeError or StateError."""
        with contextlib.closing(State(self.options.state)) as state:
            return settle(
                configuration,
                groups,
                state,
                from_file=self.keeps_sizes,
                grow=grow,
                served={backing.path for backing in self._found.backings.values()} | self._held_by_orphans(),
                withheld=frozenset(self._withheld),
                making=self.making.beneath(),
                before=self.settled.volumes,
            )

    def _held_by_orphans(self) -> set[Path]:
        """Files that workers have had open since before this process was there."""
        settled = (orphan.configuration for orphan in self._orphans)
        return {Path(volume.path) for each in settled for volume in each.volumes.values() if volume.path}

    async def _hand_on(self, found: Found) -> None:
        """Let gate, workers and acceptor go by another configuration. Raises ControlError; then they go by the old one."""
        self.gate.configure(found.settled)
        try:
            await self.supervisor.change(found.settled, GRACE)
        except BaseException:
            self.gate.configure(self.settled)
            found.remove_created()
            raise
        self._acceptor.directory = found.settled.directory()

    def _hang_up(self) -> None:
        """SIGHUP."""
        task = asyncio.create_task(self._reload_and_log())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _reload_and_log(self) -> None:
        try:
            changes = await self.reload()
        except (ControlError, OSError) as error:
            log.error("reload: nothing has changed: %s", error)
        else:
            log.info("reload: %s", _count(len(changes), "change"))

    async def _carry_out(self, request: Request) -> object:
        """What comes by the control socket."""
        try:
            return await carry_out(self, request)
        finally:
            self.changes += 1


async def _refresh(gate: Gate, supervisor: Supervisor) -> None:
    """Have events written, and workers told of users that have changed."""
    while True:
        await asyncio.sleep(REFRESH)
        if gate.refresh():
            await supervisor.send_accounts()


def _from_thread(loop: asyncio.AbstractEventLoop, gate: Gate, what: str, text: str) -> None:
    """Record an event from another thread."""
    with contextlib.suppress(RuntimeError):  # the end is near, and nobody records anything
        loop.call_soon_threadsafe(gate.events.record, what, text)


def _allow_open_files() -> None:
    """Raise the soft limit of open files to the hard one: every session is a file, and the soft default is 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
