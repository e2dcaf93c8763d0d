"""What a worker serves: pools, logical units and targets, brought from one configuration to the next.

`begin` takes over all of a configuration that can be had at once: what is new is opened, LUN maps and rules change,
initiators are told. It returns what has to go: sessions, and logical units that nothing leads to any more (worker/change.py
sees them off). `finish` then opens what could not be opened before, as it takes the place of something that had to go.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from blockyard.block.file import FileDevice
from blockyard.block.formats import RAW
from blockyard.block.layers import Opening
from blockyard.iscsi.session import Session
from blockyard.scsi.primary import PrimaryUnit
from blockyard.scsi.sense import Asc
from blockyard.scsi.tokens import TokenStore
from blockyard.scsi.unit import LogicalUnit
from blockyard.worker.admission import WorkerAdmission
from blockyard.worker.beneath import beneath
from blockyard.worker.configuration import Schedule, Settled, Volume
from blockyard.worker.drives import Drives
from blockyard.worker.executor import ThreadExecutor
from blockyard.worker.jobs import Jobs
from blockyard.worker.later import Answer, Later
from blockyard.worker.libraries import Libraries
from blockyard.worker.opening import Done, Opener, Ready, alike, can_be_put, close_ready, current
from blockyard.worker.pools import OpenPool
from blockyard.worker.targets import Targets
from blockyard.worker.travel import Source, Travels
from blockyard.worker.watch import Notify

log = logging.getLogger(__name__)


class Leaving(NamedTuple):
    """What has to go when a configuration has begun."""

    sessions: list[Session]
    units: list[PrimaryUnit]


class Inventory:
    """Logical units by the names of their volumes: one each, wherever it is a LUN; and the targets that lead to them."""

    def __init__(
        self, executor: ThreadExecutor, admission: WorkerAdmission, notify: Notify = lambda severity, what, text: None
    ) -> None:
        self.units: dict[str, LogicalUnit] = {}
        self.opener = Opener(executor, notify)
        self._executor = executor
        self._notify = notify
        self._admission = admission
        self.pools: dict[str, OpenPool] = {}
        self._closing: list[OpenPool] = []  # pools that have to go as soon as their units have
        self._volumes: dict[str, Volume] = {}  # as they are open
        self._settled = Settled()
        self._looking = False  # for what could not be opened
        self.libraries = Libraries(executor)
        self.drives = Drives(executor)
        self.jobs = Jobs("blockyard layer jobs")  # of layers
        # Of optical drives and tape libraries: by "drive:NAME" and "library:NAME".
        self.media_jobs: dict[str, Jobs] = {}
        self.targets = Targets(admission, Travels(executor, self._source))

    @property
    def tokens(self) -> TokenStore:
        """What units have given out for copies."""
        return self.opener.tokens

    def _source(self, unit: PrimaryUnit) -> Source | None:
        """Where the data of a logical unit is, if it is a volume of a pool."""
        volume = next((self._volumes[name] for name, each in self.units.items() if each is unit), None)
        if volume is None or volume.snapshot or volume.pool not in self.pools:
            return None
        return Source(self.pools[volume.pool].pool, volume.in_pool)

    # ---- changes

    def begin(self, settled: Settled, *, again: bool = False) -> Leaving:
        """Take over what can be had at once. Raises OSError or ValueError; then initiators have noticed nothing.

        With `again`, all of it has been served before, by a process that has died or until a change that has failed: a pool or
        stack that cannot be opened now is left out, so that it does not take the rest with it. `look_again` tries it once more.
        """
        closing = [pool for pool in self.pools.values() if not pool.is_of(settled.pools.get(pool.name))]
        staying = {name for name, volume in settled.volumes.items() if self._stays(volume, closing)}
        leaving = {name: unit for name, unit in self.units.items() if name not in staying}
        occupied = {claim.what for name in leaving for claim in self._volumes[name].claims}
        keep = _directory(settled)
        pools = {pool.name: pool for pool in self.pools.values() if pool not in closing}
        opened: dict[str, LogicalUnit] = {}
        libraries = self.libraries.prepare(settled.libraries)
        try:
            self._open_pools(pools, settled, {pool.directory for pool in closing}, self._leave_out if again else None)
            for name, volume in settled.volumes.items():
                if name in staying:
                    self._adjust(volume)
                elif occupied.isdisjoint(claim.what for claim in volume.claims) and volume.pools <= pools.keys():
                    try:
                        opened[name] = self.opener.open(volume, pools, keep)
                    except (OSError, ValueError) as error:
                        if not again or not volume.stack:
                            raise
                        self._notify(
                            "error", "volume-not-open", f"{name} is not served, as it cannot be opened: {error}"
                        )
        except BaseException:
            self.let_go(opened.values())
            self.libraries.discard(libraries)
            _close(pool for name, pool in pools.items() if self.pools.get(name) is not pool)
            raise
        for name in leaving:
            del self.units[name], self._volumes[name]
        self.units |= opened
        self._volumes |= {name: settled.volumes[name] for name in opened}
        self.pools, self._closing = pools, closing
        self._settled = settled
        self._admission.configure(settled.auth.policy, keep)
        units = [*leaving.values(), *self.libraries.take_over(libraries), *self.drives.take_over(settled.drives, keep)]
        return Leaving(self._arrange(), units)

    def prepare(self, settled: Settled) -> Callable[[], Ready | Exception] | None:
        """What `begin` had better find open, as opening it may wait: to be called in a thread; None where there is nothing.

        It returns what the opener is to have ready then, or what went wrong.
        """
        staying = {name for name, volume in settled.volumes.items() if self._stays(volume, ())}
        occupied = {claim.what for name in self.units if name not in staying for claim in self._volumes[name].claims}
        new = [
            volume for name, volume in settled.volumes.items()
            if volume.stack and name not in staying and occupied.isdisjoint(claim.what for claim in volume.claims)
            and all(name in self.pools and self.pools[name].is_of(settled.pools.get(name)) for name in volume.pools)
        ]  # fmt: skip
        return partial(self._make_ready, new, _directory(settled)) if new else None

    def _make_ready(self, volumes: Sequence[Volume], keep: Path | None) -> Ready | Exception:
        try:
            return self.opener.make_ready(volumes, self.pools, keep)
        except (OSError, ValueError) as error:
            return error

    def finish(self) -> None:
        """What had to go is gone. Raises OSError or ValueError for what cannot be opened in its place."""
        _close(self._closing)
        self._closing = []
        self._open_pools(self.pools, self._settled, set())
        brought = self.libraries.finish(self._settled.libraries)
        missing = self._settled.volumes.keys() - self.units.keys()
        for name in missing:
            volume = self._settled.volumes[name]
            self.units[name] = self.opener.open(volume, self.pools, _directory(self._settled))
            self._volumes[name] = volume
        if missing or brought:
            self._arrange()

    def let_go(self, units: Iterable[PrimaryUnit]) -> None:
        """Close logical units; one that cannot be closed cleanly is logged."""
        self.opener.close(units)

    def close(self) -> None:
        for jobs in (self.jobs, *self.media_jobs.values()):
            jobs.close()
        self.let_go([*self.units.values(), *self.drives.units().values()])
        self.libraries.close()
        _close([*self.pools.values(), *self._closing])

    # ---- pools

    def _open_pools(
        self,
        pools: dict[str, OpenPool],
        settled: Settled,
        occupied: Collection[str],
        leave_out: Callable[[str, Exception], None] | None = None,
    ) -> None:
        """Add those that are not open yet, except those whose directories are occupied.

        Raises OSError or ValueError, or tells `leave_out`.
        """
        for name, pool in settled.pools.items():
            if name not in pools and pool.directory not in occupied:
                try:
                    pools[name] = OpenPool(pool, self._notify, partial(self._warn, name))
                except (OSError, ValueError) as error:
                    if leave_out is None:
                        raise
                    leave_out(name, error)

    def _leave_out(self, pool: str, error: Exception) -> None:
        self._notify("error", "pool-not-open", f"the pool {pool} is not served, as it cannot be opened: {error}")

    @property
    def complete(self) -> bool:
        """Whether all pools and volumes that are to be open are."""
        return self._settled.pools.keys() <= self.pools.keys() and self._settled.volumes.keys() <= self.units.keys()

    def look_again(self) -> None:
        """Open what could not be opened before, if it can be now: stacks in a thread, as that may wait."""
        if self._looking:
            return
        self._looking = True
        settled = self._settled
        stacks = [volume for name, volume in settled.volumes.items() if volume.stack and name not in self.units]

        def finish(ready: Ready | Exception) -> None:
            self._looking = False
            if isinstance(ready, Exception):
                return
            if settled is not self._settled:
                close_ready(ready)
                return
            self.opener.ready = ready
            try:
                self.finish()
            except (OSError, ValueError):  # it has been told when it was first so
                return
            finally:
                self.opener.forget_ready()
            self._notify("info", "pool-open", "all pools and volumes are served again")

        self._executor.submit(partial(self._make_ready, stacks, _directory(settled)), finish)

    def _warn(self, pool: str) -> None:
        """Space is getting short in a pool: initiators that use it are told (SBC-4)."""
        for name, unit in list(self.units.items()):
            volume = self._volumes.get(name)
            if volume is not None and pool in volume.pools and unit.thin:
                unit.attention(Asc.THIN_PROVISIONING_SOFT_THRESHOLD_REACHED)

    # ---- logical units

    @property
    def schedules(self) -> Mapping[str, Schedule]:
        return self._settled.schedules

    def shown(self) -> set[str]:
        """All that a logical unit shows (see Volume.source), and what is beneath one, or is worked on by a job of layers."""
        layers = {what.partition(":")[2] for _, what in beneath(self.units, self._volumes, self.jobs)}
        return layers.union(volume.source for volume in self._volumes.values())

    def units_of(self, source: str) -> list[LogicalUnit]:
        """Those that show a file, a volume or a snapshot (see Volume.source): one at most."""
        return [unit for name, unit in self.units.items() if self._volumes[name].source == source]

    def initiators(self, source: str) -> list[str]:
        """The names of the initiators that use it."""
        found = {nexus.it.initiator for unit in self.units_of(source) for nexus in unit.nexuses}
        return sorted({initiator.partition(",i,")[0] for initiator in found})

    def standing_on(self, source: str) -> list[str]:
        """What has something of a volume or snapshot of a pool beneath it: stacks, and what a job is making."""
        return list(
            dict.fromkeys(
                who for who, what in beneath(self.units, self._volumes, self.jobs) if what == f"pool:{source}"
            )
        )

    def check_free(self, source: str) -> None:
        """Raise ValueError where initiators use it, or something stands on it."""
        using = self.initiators(source)
        if using:
            raise ValueError(f"{source} is in use by {', '.join(using)}: have them log out first")
        standing = self.standing_on(source)
        if standing:
            raise ValueError(f"{source} is beneath {', '.join(standing)}: that has to go first")

    def replace_beneath(self, source: str, work: Callable[[], None], then: Callable[[object], Answer]) -> Answer:
        """Have `work` put something else in the place of what a logical unit shows, while nobody can reach that.

        Raises ValueError when somebody uses it. Not while the configuration changes.
        """
        self.check_free(source)
        gone = {name: self._volumes[name] for name in self.units if self._volumes[name].source == source}
        for name in gone:
            unit = self.units.pop(name)
            del self._volumes[name]
            self.let_go([unit])
        self._arrange()

        def attempt() -> Exception | None:
            try:
                work()
            except Exception as error:  # whatever it is, what was shown is shown again
                return error
            return None

        def go_on(failure: Exception | None) -> Answer:
            for name, volume in gone.items():
                self.units[name] = self.opener.open(volume, self.pools, _directory(self._settled))
                self._volumes[name] = volume
            self._arrange()
            if failure is not None:
                raise failure
            return then(None)

        return Later(attempt, go_on)

    @property
    def stacks(self) -> dict[str, LogicalUnit]:
        """The volumes that are stacks of layers."""
        return {name: unit for name, unit in self.units.items() if self._volumes[name].stack}

    def notice_sizes(self) -> None:
        """Tell initiators of stacks that have got another size by themselves; end moves that were given up."""
        for unit in self.stacks.values():
            if unit.device.size >> unit.shift not in (0, unit.blocks):
                unit.capacity_changed()
        for unit in self.units.values():
            self.opener.end_move(unit)

    def opening(self, name: str) -> Opening:
        """What the layers of a volume are given."""
        return self.opening_for(self._volumes[name])

    def opening_for(self, volume: Volume) -> Opening:
        """The same, for one that is not served."""
        return self.opener.opening(volume, self.pools, _directory(self._settled))

    def _stays(self, volume: Volume, closing: Sequence[OpenPool]) -> bool:
        """Whether the logical unit that is open can become that of `volume`."""
        old = self._volumes.get(volume.name)
        if old is None or volume.protection:  # protection information is laid out for one size
            return old == volume
        if not volume.pools.isdisjoint(pool.name for pool in closing):
            return False
        if volume.layers != old.layers:
            return self._same_disk(volume, old)
        if volume.stack or volume.format != RAW:  # images are marked, and their parents locked, as they are opened
            return volume == replace(old, background_rate=volume.background_rate)
        return volume == replace(
            old, size=volume.size, read_only=volume.read_only, background_rate=volume.background_rate
        )

    def _same_disk(self, volume: Volume, old: Volume) -> bool:
        """Whether only what a volume stands on is another, and that can be put in the place of what there is."""
        unit = self.units[volume.name]
        same = ("path", "format", "backing", "pool", "volume", "snapshot", "stack", "size", "background_rate")
        if replace(volume, **{name: getattr(old, name) for name in same}) != old:
            return False
        return alike(unit, volume) or can_be_put(unit, volume)

    def put(self, name: str, done: Done) -> None:
        """Put what a volume is to stand on in the place of what it does; `done` is told how that went."""
        volume = self._settled.volumes[name]

        def end(error: Exception | None) -> None:
            if error is None:
                self._volumes[name] = volume
            done(error)

        self.opener.put(self.units[name], volume, self.pools, _directory(self._settled), end)

    @property
    def to_be_put(self) -> list[str]:
        """The volumes that do not stand yet on what they are to stand on."""
        return [name for name, volume in self._settled.volumes.items()
                if name in self.units and volume.layers != self._volumes[name].layers]  # fmt: skip

    def _adjust(self, volume: Volume) -> None:
        """Bring an open logical unit up to date, and tell initiators. Raises OSError."""
        if volume == self._volumes[volume.name]:
            return
        unit = self.units[volume.name]
        device = current(unit)
        if volume.layers != self._volumes[volume.name].layers and not alike(unit, volume):
            return  # see to_be_put
        if volume.read_only != self._volumes[volume.name].read_only:
            if isinstance(device, FileDevice):
                device.reopen(read_only=volume.read_only)
            unit.set_read_only(volume.read_only or device.read_only)
        unit.background_rate = volume.background_rate
        device.refresh()
        unit.capacity_changed()
        self._volumes[volume.name] = volume

    def _arrange(self) -> list[Session]:
        """Targets lead to what there is now; the sessions that have to go."""
        return self.targets.arrange(
            self._settled,
            {**self.units, **self.drives.units()},
            self.libraries.luns,
            keep=_directory(self._settled),
            closing=[pool.pool for pool in self._closing],
        )


def _close(pools: Iterable[OpenPool]) -> None:
    for pool in pools:
        try:
            pool.close()
        except OSError as error:
            log.error("%s: closing the pool has failed: %s", pool.name, error)


def _directory(settled: Settled) -> Path | None:
    return Path(settled.units_directory) if settled.units_directory else None
