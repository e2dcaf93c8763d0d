"""Having the targets that are served registered with an iSNS server, for as long as the configuration names one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from blockyard.control.isns import Registrar, Targets
from blockyard.control.state import State
from blockyard.iscsi.directory import portal_from
from blockyard.worker.configuration import Settled


class Registration:
    """Of what `settled` says now. `directory`: of the state."""

    def __init__(self, directory: Path, settled: Callable[[], Settled]) -> None:
        self._directory = directory
        self._settled = settled
        self._registrar: Registrar | None = None

    def begin(self) -> None:
        """Keep the targets registered from now on, where there is to be a server for that. Raises StateError."""
        isns = self._settled().isns
        if isns is None:
            self._registrar = None
            return
        with contextlib.closing(State(self._directory)) as state:
            entity = isns.entity or state.default_target_name().partition(":")[2]
        self._registrar = Registrar(portal_from(isns.server), entity, self._targets)
        self._registrar.start()

    async def changed(self, before: Settled) -> None:
        """Targets, portals or the iSNS server itself have changed. Raises StateError."""
        if self._settled().isns != before.isns:
            await self.end()
            self.begin()
        elif self._registrar is not None:
            self._registrar.changed()

    async def end(self) -> None:
        """Take the targets out of the server's directory."""
        if self._registrar is not None:
            await self._registrar.close()

    def _targets(self) -> Targets:
        """What the server is told."""
        settled = self._settled()
        groups = {tag: [portal_from(text) for text in group.portals] for tag, group in settled.portal_groups.items()}
        return [
            (target.name, target.alias, [(portal, tag) for tag in target.portal_groups for portal in groups[tag]])
            for target in settled.targets.values()
        ]
