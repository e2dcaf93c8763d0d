"""Where a server meets what is built on it, such as the API: control does not import what stands above it.

Like portals, it is prepared first, and takes over when all of a change has worked.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Protocol

from blockyard.worker.configuration import Api


class Prepared(Protocol):
    """A place that is listened on, and not served yet."""

    def close(self) -> None: ...


class Service(Protocol):
    """What a server takes along through its life."""

    @property
    def listening(self) -> Mapping[str, socket.socket]:
        """What the next control is to find, by names of its own (see Server.inherited)."""
        ...

    def prepare(self, wanted: Api | None) -> Prepared:
        """Listen where it is wanted from now on, if that is anywhere new. Raises ControlError; then nothing has changed."""
        ...

    def commit(self, prepared: Prepared) -> None:
        """Take over what was prepared."""
        ...

    async def start(self) -> None:
        """Serve what is listened on from now on, and certificates as they are now. It may be called again."""
        ...

    async def stop(self) -> None:
        """Serve no more; who is being answered gets the answer."""
        ...

    def close(self) -> None:
        """Let go of everything at once."""
        ...


class Nowhere:
    """No service."""

    listening: Mapping[str, socket.socket] = {}

    def prepare(self, wanted: Api | None) -> Prepared:
        return self

    def commit(self, prepared: Prepared) -> None: ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def close(self) -> None: ...
