"""The targets in a storage name server's directory: registered, kept there, and taken out again (RFC 4171).

`Registrar` holds one TCP connection to the server for as long as serving lasts. On it go registrations; on listeners of its own,
one at each portal's address, the server asks whether we are alive (ESI) and tells of initiators that come and go (SCN).
The server forgets whom it does not hear of for a while, and may itself be restarted with an empty directory: so
the registration is repeated well before it ends, and anew after every reconnection. Who has stood still while the server
inquired, as a suspended machine does, is taken out of the directory without a word, or is told of no more initiators: the next
repetition mends that, and so it is not left to the end of the period.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import itertools
import logging
import socket
from collections.abc import Callable, Iterable

from blockyard.iscsi import isns
from blockyard.iscsi.directory import IPAddress, Portal
from blockyard.iscsi.isns import Change, Entity, IsnsError, Message, MessageReader, Node, Status, Tag

log = logging.getLogger(__name__)

ESI_INTERVAL = 60  # seconds between two inquiries of the server, asked for
PERIOD = 900  # seconds that a registration holds without a sign of life
PATIENCE = 10.0  # seconds for connecting, and for an answer
FIRST_DELAY, LAST_DELAY = 1.0, 60.0  # seconds between attempts to reach the server; doubles
MAX_VISITORS = 16  # connections that the server may have to us at one address; it needs one
_CHUNK = 64 << 10  # bytes

Targets = list[tuple[str, str, list[tuple[Portal, int]]]]  # name, alias, portals with the tags of their groups


class Registrar:
    """Keeps `targets` registered with one server from `start` to `close`.

    `entity` names this target system in the server's directory: it must differ from every other one's there. `targets` is
    asked anew for each registration; call `changed` when its answer has changed.
    """

    def __init__(
        self,
        server: Portal,
        entity: str,
        targets: Callable[[], Targets],
        *,
        esi_interval: int = ESI_INTERVAL,
        period: int = PERIOD,
    ) -> None:
        self.server = server
        self.registered = False
        self.initiators: set[str] = set()  # that the server has told us of
        self._entity = entity
        self._targets = targets
        self._esi_interval = esi_interval
        self._period = period
        self._repeat = min(period / 3, 3.0 * esi_interval)  # seconds
        self._transactions = itertools.cycle(range(1, 0x10000))
        self._changed = asyncio.Event()
        self._current: Entity | None = None  # as it was registered last
        self._visits: dict[IPAddress, asyncio.Server] = {}
        self._visitors: set[asyncio.Task[None]] = set()
        self._life: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._life = asyncio.create_task(self._live())

    def changed(self) -> None:
        """Targets or portals have come or gone: register anew."""
        self._changed.set()

    async def close(self) -> None:
        """Take everything out of the directory, if the server can be reached, and let go of it."""
        if self._life is not None:
            self._life.cancel()
            await asyncio.gather(self._life, return_exceptions=True)
        for server in self._visits.values():
            server.close()
        for task in self._visitors:
            task.cancel()
        await asyncio.gather(*self._visitors, return_exceptions=True)

    # ---- the connection to the server

    async def _live(self) -> None:
        delay = FIRST_DELAY
        while True:
            try:
                await self._connect()
            except (OSError, EOFError, IsnsError, TimeoutError) as error:
                if self.registered:  # it was well until now
                    delay = FIRST_DELAY
                if delay < LAST_DELAY:
                    why = str(error) or "no answer in time"
                    log.warning("iSNS server %s: %s; it is tried again in %g s", self.server, why, delay)
            self.registered = False
            await asyncio.sleep(delay)
            delay = min(2 * delay, LAST_DELAY)

    async def _connect(self) -> None:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(str(self.server.address), self.server.port)
        try:
            await self._keep_registered(_Session(reader, writer))
        finally:
            writer.close()

    async def _keep_registered(self, session: _Session) -> None:
        """Register, and again before the registration ends or when something has changed; deregister when cancelled."""
        replace = True
        try:
            while True:
                self._changed.clear()
                await self._register(session, replace=replace)
                replace = await self._nap(session)
        except asyncio.CancelledError:
            if self._current is not None:
                with contextlib.suppress(OSError, EOFError, IsnsError, TimeoutError):
                    await session.ask(isns.deregistration(self._current, next(self._transactions)))
                    log.info("iSNS server %s: deregistered", self.server)
            raise

    async def _nap(self, session: _Session) -> bool:
        """Wait until the registration must be repeated; whether it must be made anew. Raises EOFError when the server goes."""
        changed = asyncio.create_task(self._changed.wait())
        gone = asyncio.create_task(session.until_closed())
        try:
            done, _ = await asyncio.wait((changed, gone), timeout=self._repeat, return_when=asyncio.FIRST_COMPLETED)
            if gone in done:
                gone.result()
            return changed in done
        finally:
            for task in (changed, gone):
                task.cancel()
            await asyncio.gather(changed, gone, return_exceptions=True)

    async def _register(self, session: _Session, *, replace: bool) -> None:
        entity = await self._describe(session.local)
        if replace and self._current is not None and self._current != entity:
            await session.ask(isns.deregistration(self._current, next(self._transactions)), missing_ok=True)
            self._current = None
        if not entity.nodes:
            self.registered = False
            return
        message = isns.registration(
            entity, next(self._transactions), esi_interval=self._esi_interval, period=self._period, replace=replace
        )
        await session.ask(message)
        self._current = entity
        for node in entity.nodes:
            await session.ask(isns.change_registration(node, next(self._transactions)))
        await self._learn_initiators(session, entity)
        if replace:
            log.info("iSNS server %s: %d targets registered as %s", self.server, len(entity.nodes), self._entity)
        self.registered = True

    async def _learn_initiators(self, session: _Session, entity: Entity) -> None:
        found = await session.ask(isns.query(entity.nodes[0], next(self._transactions)), missing_ok=True)
        names = {isns.text_of(value) for tag, value in found.attributes if tag == Tag.NODE_NAME and value}
        self.initiators = names - {node.name for node in entity.nodes}

    async def _describe(self, local: IPAddress) -> Entity:
        """What is served now. A wildcard portal stands for the address that faces the server."""
        nodes = []
        for name, alias, served in self._targets():
            portals = []
            for portal, tag in served:
                address = local if portal.wildcard and portal.address.version == local.version else portal.address
                if address.is_unspecified or (address.is_loopback and not self.server.loopback):
                    continue
                portals.append(isns.Portal(address, portal.port, tag, await self._service_port(address)))
            nodes.append(Node(name, alias, tuple(portals)))
        return Entity(self._entity, tuple(nodes))

    # ---- the server's connections to us

    async def _service_port(self, address: IPAddress) -> int:
        """The TCP port at `address` where the server's inquiries are answered; 0 where none can be had."""
        if address not in self._visits:
            try:
                self._visits[address] = await asyncio.start_server(self._visit, str(address), 0)
            except OSError as error:
                log.warning("iSNS: no port for the server's inquiries at %s: %s", address, error.strerror or error)
                return 0
        port: int = self._visits[address].sockets[0].getsockname()[1]
        return port

    async def _visit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")[0]
        task = asyncio.current_task()
        assert task is not None
        if peer != str(self.server.address) or len(self._visitors) >= MAX_VISITORS:
            log.warning("iSNS: a connection from %s, which is not the server, is refused", peer)
            writer.close()
            return
        self._visitors.add(task)
        try:
            messages = MessageReader()
            while data := await reader.read(_CHUNK):
                for message in messages.feed(data):
                    if not message.response:
                        self._hear(message)
                        writer.write(isns.encode(isns.answer(message)))
                        await writer.drain()
        except (OSError, IsnsError) as error:
            log.warning("iSNS server %s: %s", self.server, error)
        finally:
            self._visitors.discard(task)
            writer.close()

    def _hear(self, message: Message) -> None:
        if message.function != isns.Function.STATE_CHANGE:
            return
        for change, name in isns.changes(message):
            gone = change & (Change.OBJECT_REMOVED | Change.DOMAIN_MEMBER_REMOVED)
            log.info("iSNS: %s: %s", name, change.name or "changed")
            if self._current is not None and name in (node.name for node in self._current.nodes):
                if gone:  # somebody has taken us out of the directory
                    self.changed()
            elif gone:
                self.initiators.discard(name)
            else:
                self.initiators.add(name)


class _Session:
    """Requests and responses on one connection to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._messages = MessageReader()
        sock: socket.socket = writer.get_extra_info("socket")
        self.local: IPAddress = ipaddress.ip_address(sock.getsockname()[0])

    async def ask(self, request: Message, *, missing_ok: bool = False) -> Message:
        """Send a request; its response. Raises IsnsError when it is refused, unless only for there being no such thing."""
        self._writer.write(isns.encode(request))
        async with asyncio.timeout(PATIENCE):
            await self._writer.drain()
            while True:
                for message in await self._receive():
                    if message.response and message.transaction == request.transaction:
                        return _checked(request, message, missing_ok=missing_ok)

    async def until_closed(self) -> None:
        """Take what comes unasked; raises EOFError when the server closes the connection."""
        while True:
            await self._receive()

    async def _receive(self) -> Iterable[Message]:
        data = await self._reader.read(_CHUNK)
        if not data:
            raise EOFError("the server has closed the connection")
        return self._messages.feed(data)


def _checked(request: Message, response: Message, *, missing_ok: bool) -> Message:
    missing = response.status in (Status.NO_SUCH_ENTRY, Status.SOURCE_UNKNOWN)
    if response.status == Status.SUCCESSFUL or (missing_ok and missing):
        return response
    status = Status(response.status).name if response.status in list(Status) else str(response.status)
    raise IsnsError(f"{isns.Function(request.function).name.replace('_', ' ').lower()} is refused: {status}")
