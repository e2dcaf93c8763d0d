"""Volumes as logical units: what they stand on is opened, put in another's place while it is used, and closed."""

from __future__ import annotations

import errno
import logging
import uuid
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from blockyard.block.building import build, opening_others, understood, written
from blockyard.block.device import Device
from blockyard.block.formats import open_image
from blockyard.block.layers import Opening
from blockyard.block.moving import MovingDevice
from blockyard.block.restack import Failed, Plan, common, plan
from blockyard.block.sharing import Shared
from blockyard.block.switch import Switch
from blockyard.scsi.durable import Durable
from blockyard.scsi.primary import PrimaryUnit
from blockyard.scsi.sense import Asc
from blockyard.scsi.taskset import TaskSet
from blockyard.scsi.tokens import TokenStore
from blockyard.scsi.unit import Identity, LogicalUnit
from blockyard.worker.configuration import Volume
from blockyard.worker.executor import ThreadExecutor, Threads
from blockyard.worker.pools import OpenPool
from blockyard.worker.watch import Notify

log = logging.getLogger(__name__)

Done = Callable[[Exception | None], None]
Ready = dict[str, tuple[Volume, Device]]  # what has been opened in advance, by the names of volumes


class Opener:
    """Opens the volumes of a worker."""

    def __init__(self, executor: ThreadExecutor, notify: Notify = lambda severity, what, text: None) -> None:
        self.tokens = TokenStore()
        self._executor = executor
        self._notify = notify
        self._shared = Shared()  # layers that several volumes have parts of
        self.ready: Ready = {}  # the loop's thread alone looks at it; whoever puts something here has it forgotten, too

    def open(self, volume: Volume, pools: Mapping[str, OpenPool], keep: Path | None) -> LogicalUnit:
        """The logical unit of a volume. Raises OSError, or ValueError for a stack."""
        device = Switch(self.device(volume, pools, keep))
        identity = Identity(uuid=uuid.UUID(volume.uuid), name=volume.name)
        try:
            unit = LogicalUnit(
                device,
                block_size=volume.block_size,
                read_only=volume.read_only or device.read_only,
                write_through=volume.write_through,
                thick=volume.thick,
                removable=volume.removable,
                background_rate=volume.background_rate,
                soft_threshold=volume.soft_threshold,
                protection=volume.protection,
                identity=identity,
                durable=Durable(keep, identity.uuid),
                tokens=self.tokens,
            )
        except BaseException:
            device.close()
            raise
        unit.tasks = TaskSet(unit, self._executor.branch() if volume.stack else self._executor)
        self._watch(unit, device)
        unit.resume()
        return unit

    def make_ready(self, volumes: Iterable[Volume], pools: Mapping[str, OpenPool], keep: Path | None) -> Ready:
        """Open what volumes are, for `open`; in another thread than the loop's, as that may wait. Raises what opening does."""
        ready: Ready = {}
        try:
            for volume in volumes:
                ready[volume.name] = volume, self._device(volume, pools, keep)
        except BaseException:
            close_ready(ready)
            raise
        return ready

    def forget_ready(self) -> None:
        """Close what has been opened and was not wanted after all."""
        close_ready(self.ready)
        self.ready = {}

    def device(self, volume: Volume, pools: Mapping[str, OpenPool], keep: Path | None) -> Device:
        """What a volume is, in the loop's thread. Raises OSError, or ValueError for a stack."""
        if volume.name in self.ready and self.ready[volume.name][0] == volume:
            return self.ready.pop(volume.name)[1]
        return self._device(volume, pools, keep)

    def _device(self, volume: Volume, pools: Mapping[str, OpenPool], keep: Path | None) -> Device:
        if volume.pool:
            device = pools[volume.pool].device(volume.in_pool, volume.snapshot)
        elif volume.stack:
            return build(understood(volume.stack, {}), self.opening(volume, pools, keep))
        else:
            device = open_image(
                volume.path, volume.format, read_only=volume.read_only, backing=volume.backing, notify=self._notify
            )
        if volume.layers:
            device.label = understood(volume.layers, {}).label
        return device

    def opening(self, volume: Volume, pools: Mapping[str, OpenPool], keep: Path | None) -> Opening:
        """What the layers of a volume are given."""

        def of_pool(text: str) -> Device:
            name, _, snapshot = text.partition("@")
            pool, _, name = name.partition("/")
            return pools[pool].device(name, snapshot)

        opening = Opening(
            read_only=volume.read_only, notify=self._notify, directory=keep, volume=of_pool, shared=self._shared
        )
        return opening_others(opening)

    def close(self, units: Iterable[PrimaryUnit]) -> None:
        """Close logical units; one that cannot be closed cleanly is logged."""
        for unit in units:
            if isinstance(unit, LogicalUnit):
                self._unwatch(unit.device)
            try:
                unit.close()
            except OSError as error:
                log.error("%s: closing it has failed: %s", unit, error)
            if unit.tasks is not None and isinstance(unit.tasks.executor, Threads):
                self._executor.cut(unit.tasks.executor)

    def _watch(self, unit: LogicalUnit, device: Switch) -> None:
        device.current.on_replaced = partial(unit.attention, Asc.NOT_READY_TO_READY_CHANGE_MEDIUM_MAY_HAVE_CHANGED)
        if device.overlapped is not None:
            self._executor.watch(device.overlapped.fd, device.overlapped.reap)

    def _unwatch(self, device: Device) -> None:
        if isinstance(device, Switch):
            device.current.on_replaced = None
        if device.overlapped is not None:
            self._executor.forget(device.overlapped.fd)

    # ---- another stack in the place of one that is used

    def put(
        self, unit: LogicalUnit, volume: Volume, pools: Mapping[str, OpenPool], keep: Path | None, done: Done
    ) -> None:
        """Put the stack of a volume in the place of what a unit stands on; `done` is told how that went."""
        opening, old = self.opening(volume, pools, keep), current(unit)

        def prepare() -> Plan | Exception:
            try:
                return plan(old, understood(volume.layers, {}), opening)
            except (OSError, ValueError) as error:
                return error

        def go_on(prepared: Plan | Exception) -> None:
            if isinstance(prepared, Exception):
                done(prepared)
            else:
                self.replace(unit, partial(_carry_out, prepared), done)

        self._executor.submit(prepare, go_on)

    def end_move(self, unit: LogicalUnit) -> None:
        """Where a unit was to be moved, and that was given up: let it stand on the old stack alone again."""
        moving = current(unit)
        if not isinstance(moving, MovingDevice) or not moving.given_up or moving.leaving:
            return
        moving.leaving = True

        def leave(device: Device) -> Device:
            if device is not moving:
                return device
            try:
                moving.new.close()
            except OSError as error:
                log.error("%s: closing it has failed: %s", moving.new.label, error)
            return moving.below

        def done(error: Exception | None) -> None:
            moving.leaving = False

        self.replace(unit, leave, done)

    def replace(self, unit: LogicalUnit, work: Callable[[Device], Device], done: Done) -> None:
        """Have `work` make another device of the one that a unit stands on, in a thread, while nothing reaches that.

        `work` raises Failed with the device that there is instead. Initiators only find that their commands take a while.
        """
        tasks, switch = unit.tasks, unit.device
        assert tasks is not None
        if unit.overhaul is not None or not isinstance(switch, Switch):
            done(
                OSError(
                    errno.EBUSY,
                    "It cannot be changed while it is sanitized or formatted, nor with protection information",
                )
            )
            return

        def attempt() -> tuple[Device, Exception | None]:
            try:
                switch.current.flush()
                return work(switch.current), None
            except Failed as failed:
                return failed.device, failed.error
            except Exception as error:  # whatever it is, the unit goes on with what it has
                return switch.current, error

        def finish(result: tuple[Device, Exception | None]) -> None:
            device, error = result
            self._unwatch(switch)
            switch.current = device
            self._watch(unit, switch)
            unit.update()
            unit.capacity_changed()
            tasks.go_on()
            done(error)

        tasks.pause(lambda: self._executor.submit(attempt, finish))


def close_ready(ready: Ready) -> None:
    """One that cannot be closed cleanly is logged."""
    for _, device in ready.values():
        try:
            device.close()
        except OSError as error:
            log.error("%s: closing it has failed: %s", device.label, error)


def alike(unit: LogicalUnit, volume: Volume) -> bool:
    """Whether a unit stands on what a volume says already."""
    return bool(volume.layers) and written(unit.device) == volume.layers


def can_be_put(unit: LogicalUnit, volume: Volume) -> bool:
    """Whether the stack of a volume can be put in the place of what a unit stands on: both have something in common."""
    return bool(volume.layers and unit.device.label) and bool(common(current(unit), understood(volume.layers, {})))


def current(unit: LogicalUnit) -> Device:
    """What a unit stands on now."""
    return unit.device.current if isinstance(unit.device, Switch) else unit.device


def _carry_out(plan: Plan, device: Device) -> Device:
    """See Plan.carry_out; not if what there is has changed meanwhile."""
    if device is not plan.old:
        plan.give_up()
        raise Failed(OSError(errno.EBUSY, "It has been changed meanwhile"), device)
    return plan.carry_out()
