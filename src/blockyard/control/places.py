"""All that a server listens on: portals, where metrics are fetched, and the service that is built on it.

They change together: what is new is opened first, and taken over when the rest of a change has worked.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from dataclasses import dataclass

from blockyard.control.errors import PortalError
from blockyard.control.metrics import Endpoint, Measure
from blockyard.control.portals import Listeners, Opening
from blockyard.control.service import Prepared, Service
from blockyard.worker.configuration import Api, Configuration

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Opened:
    """What is new, and not served yet."""

    portals: Opening
    address: str  # where metrics are fetched
    metrics: socket.socket | None
    service: Prepared

    def undo(self) -> None:
        self.portals.undo()
        if self.metrics is not None:
            self.metrics.close()
        self.service.close()


class Places:
    """The sockets that are listened on."""

    def __init__(self, measure: Measure, service: Service) -> None:
        self.listeners = Listeners()
        self.metrics = Endpoint(measure, self.listeners.inherited)
        self.service = service

    @property
    def kept(self) -> dict[str, socket.socket]:
        """What goes on while control starts again: who connects meanwhile waits."""
        return {**self.listeners.by_name, **self.metrics.listening, **self.service.listening}

    def prepare(self, configuration: Configuration, api: Api | None, *, service_optional: bool = False) -> Opened:
        """Listen wherever it is new. Raises PortalError or StateError; then nothing has changed.

        Where the service is optional, a place of it that is taken is only told of: disks are worth more than a console.
        """
        address = "" if configuration.metrics is None else configuration.metrics.listen
        with contextlib.ExitStack() as undo:
            portals = self.listeners.prepare(configuration.portal_groups)
            undo.callback(portals.undo)
            metrics = self.metrics.prepare(address)
            if metrics is not None:
                undo.callback(metrics.close)
            try:
                service = self.service.prepare(api if api is not None and api.listen else None)
            except PortalError as error:
                if not service_optional:
                    raise
                log.warning("the API and the console are not served: %s", error)
                service = self.service.prepare(None)
            undo.pop_all()
        return Opened(portals, address, metrics, service)

    def commit(self, opened: Opened) -> list[socket.socket]:
        """Take over what was opened; the sockets of portals that are gone, to be closed."""
        self.metrics.commit(opened.address, opened.metrics)
        self.service.commit(opened.service)
        return self.listeners.commit(opened.portals)

    async def start(self) -> None:
        """Answer those who fetch metrics, and serve the service, where that is new."""
        await self.metrics.start()
        await self.service.start()

    async def stop(self) -> None:
        """Serve metrics and the service no more; who is being answered gets the answer."""
        await asyncio.gather(self.metrics.stop(), self.service.stop())

    def close(self) -> None:
        self.listeners.close()
        self.metrics.close()
        self.service.close()
