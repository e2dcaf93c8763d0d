"""Virtual write: a session that may write without changing anything (an access right, iscsi/access.py).

Each logical unit that such a session uses is covered by one of the session's own: the same to look at (identity, capacity),
with a task set, mode pages and reservations of its own, over a device that keeps writes to itself (block/overlay.py). All of
that is gone with the session. A unit is covered when it is first used, as most units of a large target never are.
Tapes and media changers cannot be covered: such a session does not see them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from blockyard.block.device import Device
from blockyard.scsi.device_server import Unit
from blockyard.scsi.lun import encode_lun
from blockyard.scsi.primary import PrimaryUnit
from blockyard.scsi.reserving import Reservations
from blockyard.scsi.target import LunMap
from blockyard.scsi.taskset import Executor, TaskSet
from blockyard.scsi.unit import LogicalUnit

if TYPE_CHECKING:
    from blockyard.scsi.cdb import Command
    from blockyard.scsi.nexus import Nexus
    from blockyard.scsi.task import Task

log = logging.getLogger(__name__)

_REASON = "virtual write"


class _Reservations(Reservations):
    """What the session itself reserves binds nobody else; what others have reserved of the base stands against it."""

    def __init__(self, unit: VirtualUnit) -> None:
        super().__init__(unit)
        self._base = unit.base.reservations

    def check(self, command: Command, task: Task) -> None:
        self._base.check(command, task)
        super().check(command, task)


class VirtualUnit(LogicalUnit):
    """Stands before `base` in one session, with its data on `overlay`.

    Its nexus is one of the base's too, so that it is told what happens to the base.
    """

    def __init__(self, base: LogicalUnit, overlay: Device) -> None:
        super().__init__(
            overlay, block_size=base.block_size, thick=not base.thin, removable=base.removable, identity=base.identity
        )
        self.base = base
        self.reservations = _Reservations(self)

    def _begin(self, task: Task) -> None:
        if self.device.size != self.base.device.size:
            self.device.size = self.base.device.size
            self.capacity_changed()
        super()._begin(task)

    def attach(self, nexus: Nexus) -> None:
        if nexus not in self._nexuses:
            self._nexuses.append(nexus)
            self.base.attach(nexus)
            nexus.close(_REASON)  # for good: reservations of both are looked at

    def detach(self, nexus: Nexus) -> None:
        if nexus in self._nexuses:
            self._nexuses.remove(nexus)
            self.base.detach(nexus)


class VirtualLunMap(LunMap):
    """What a session with the right of virtual write sees of `source`. `cover` makes the overlay of a device."""

    def __init__(self, source: LunMap, cover: Callable[[Device], Device], executor: Executor) -> None:
        super().__init__({})
        self.source = source
        self._cover = cover
        self._executor = executor
        self._own: dict[LogicalUnit, VirtualUnit] = {}

    @property
    def units(self) -> dict[int, PrimaryUnit]:
        return {lun: self._covered(unit) for lun, unit in self.source.units.items() if isinstance(unit, LogicalUnit)}

    @units.setter
    def units(self, units: dict[int, PrimaryUnit]) -> None:
        """They are those of the source."""

    def unit(self, lun_field: int) -> Unit:
        base = self.source.unit(lun_field)
        try:
            return self._covered(base) if isinstance(base, LogicalUnit) else self._absent
        except OSError as error:
            log.error("%s cannot be covered for virtual writes, so that it is not there: %s", base, error)
            return self._absent

    def resettable(self) -> Collection[PrimaryUnit]:
        """Those that have been used: the others are as they were at first."""
        return tuple(self._own.values())

    def inventory(self) -> list[int]:
        return [encode_lun(lun) for lun, unit in sorted(self.source.units.items()) if isinstance(unit, LogicalUnit)]

    def close(self) -> None:
        """The session is over: what it has written is gone."""
        for unit in self._own.values():
            unit.close()
        self._own.clear()

    def _covered(self, base: LogicalUnit) -> VirtualUnit:
        """Raises OSError when there can be no overlay."""
        unit = self._own.get(base)
        if unit is None:
            unit = self._own[base] = VirtualUnit(base, self._cover(base.device))
            unit.tasks = TaskSet(unit, self._executor)
        return unit
