"""What sessions see that have logged in to a moment (iscsi/travel.py): logical units of their own, to be read only."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple
from uuid import uuid5

from blockyard.iscsi.names import split_moment
from blockyard.iscsi.node import Ports
from blockyard.pool.cdp import NoMoment
from blockyard.pool.instant import show
from blockyard.pool.moment import MomentDevice
from blockyard.pool.pool import Pool
from blockyard.scsi.primary import PrimaryUnit
from blockyard.scsi.target import LunMap
from blockyard.scsi.taskset import Executor, TaskSet
from blockyard.scsi.unit import Identity, LogicalUnit

log = logging.getLogger(__name__)

MEMORY = 300.0  # seconds: as long as initiators try to come back, and longer than Linux does by default


class Source(NamedTuple):
    """Where the data of a logical unit is."""

    pool: Pool
    volume: str


class MomentLunMap(LunMap):
    """Logical units as they were, each at its time (nanoseconds since 1970), and only as long as this is open."""

    def __init__(self, units: Mapping[int, LogicalUnit], times: Mapping[Source, int]) -> None:
        super().__init__(units)
        self.times = dict(times)
        self._own = list(units.values())

    def close(self) -> None:
        _close(self._own)
        self._own.clear()


class Travels:
    """Opens moments. `source` tells where the data of a unit is, if it is a volume of a pool."""

    def __init__(
        self,
        executor: Executor,
        source: Callable[[PrimaryUnit], Source | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._executor = executor
        self._source = source
        self._clock = clock
        self._lost: dict[tuple[str, Ports], tuple[float, LunMap]] = {}  # until when, and what had been seen

    def show(self, name: str, ports: Ports, luns: LunMap, old: LunMap | None) -> LunMap:
        """See iscsi.travel.Guide. What is not protected is not there."""
        self._forget()
        until = self._lost.pop((name, ports), None)
        old = old or (until and until[1])
        times = dict(old.times) if isinstance(old, MomentLunMap) else {}
        moment, now = split_moment(name)[1], dict[Pool, int]()
        units: dict[int, LogicalUnit] = {}
        why = "none of its logical units is protected continuously"
        try:
            for lun, unit in luns.units.items():
                source = self._source(unit)
                if (
                    source is None
                    or source.volume not in source.pool.cdp.journals()
                    or not isinstance(unit, LogicalUnit)
                ):
                    continue
                cdp = source.pool.cdp
                try:
                    if source not in times:
                        times[source] = cdp.when(source.volume, moment, now.setdefault(source.pool, cdp.now()))
                    units[lun] = self._open(unit, source, times[source])
                except LookupError as error:
                    why = str(error.args[0])
                    log.info("%s: LUN %d is not there: %s", name, lun, why)
        except BaseException:
            _close(units.values())
            raise
        if not units:
            raise NoMoment(why)
        return MomentLunMap(units, times)

    def lost(self, name: str, ports: Ports, luns: LunMap) -> None:
        """See iscsi.travel.Guide: under a file system that is mounted, no other moment may appear."""
        self._lost[name, ports] = self._clock() + MEMORY, luns

    def _forget(self) -> None:
        now = self._clock()
        self._lost = {key: lost for key, lost in self._lost.items() if lost[0] > now}

    def _open(self, base: LogicalUnit, source: Source, moment: int) -> LogicalUnit:
        """A unit with its own identity: initiators must not take it for another path to the volume."""
        identity = Identity(uuid5(base.identity.uuid, f"@{moment}"), f"{base.identity.name}@{show(moment)}")
        device = MomentDevice(source.pool, source.volume, moment)
        unit = LogicalUnit(device, block_size=base.block_size, read_only=True, identity=identity)
        unit.tasks = TaskSet(unit, self._executor)
        return unit


def _close(units: Collection[LogicalUnit]) -> None:
    for unit in units:
        unit.close()
