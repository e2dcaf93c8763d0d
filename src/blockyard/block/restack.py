"""Another stack in the place of one that is in use: what both have in common stays open, and is never without its data.

`plan` finds out what that is, and opens beforehand what stands on nothing of it. Then, while nobody uses the device, `carry_out`
takes layers out from the top down (Device.detach), and builds the new ones on what is left. Where something fails, the old stack
is built again on what is still there.
"""

from __future__ import annotations

import contextlib
import errno
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from blockyard.block import kinds
from blockyard.block.building import Layer, Reuse, build, understood, written
from blockyard.block.device import Device
from blockyard.block.layers import Absent, Opening

log = logging.getLogger(__name__)


@dataclass
class Plan:
    """What is to be done: `kept` stays, `fresh` is open already."""

    old: Device
    layer: Layer
    opening: Opening
    kept: list[Device]
    fresh: list[Device]

    def give_up(self) -> None:
        """It is not carried out."""
        _close_all(self.fresh)

    def carry_out(self) -> Device:
        """The new stack. Raises Failed, with the old one, and then nothing has changed."""
        back = understood(written(self.old))
        detached: list[Device] = []
        aside: list[Device] = []  # what is not needed any more, and closed when all has gone well
        try:
            self._take_apart(self.old, detached, aside)
            device = build(self.layer, self.opening, Reuse([*self.kept, *self.fresh]))
        except (OSError, ValueError) as error:
            self.give_up()
            try:
                old = build(back, self.opening, Reuse(_intact(self.old, detached)))
            except (OSError, ValueError) as second:
                log.error("%s: what was taken apart cannot be put together again: %s", self.old.label, second)
                old = Absent(self.old.label, second if isinstance(second, OSError) else OSError(errno.EIO, str(second)))
                old.size = self.old.size
            raise Failed(error, old) from error
        _close_all(aside)
        return device

    def _take_apart(self, device: Device, detached: list[Device], aside: list[Device]) -> None:
        if device in self.kept:
            return
        if not any(each in self.kept for each in _within(device)):
            aside.append(device)
            return
        device.detach()
        detached.append(device)
        for child in device.children:
            self._take_apart(child, detached, aside)


class Failed(Exception):
    """The new stack could not be put together: why not, and the old one."""

    def __init__(self, error: OSError | ValueError, device: Device) -> None:
        super().__init__(str(error))
        self.error = error
        self.device = device


def common(old: Device, layer: Layer) -> list[Device]:
    """What is open of `old` and could be part of a new stack: whole stacks, the largest there are.

    Empty where that cannot be while it is in use, since a layer above would have to be taken out that cannot be.
    """
    wanted = Counter(str(each.written) for each in layer)
    return list(_kept(old, wanted))


def _kept(device: Device, wanted: Counter[str]) -> Iterator[Device]:
    text = written(device)
    if wanted[text]:
        wanted[text] -= 1
        yield device
    elif type(device).detach is not Device.detach:
        for child in device.children if not _shares(device) else ():
            yield from _kept(child, wanted)


def plan(old: Device, layer: Layer, opening: Opening) -> Plan:
    """Raises OSError or ValueError for what cannot be opened."""
    kept = common(old, layer)
    fresh: list[Device] = []
    try:
        for each in _apart(layer, {written(device) for device in kept}):
            device = build(each, opening)
            fresh.append(device)
    except BaseException:
        _close_all(fresh)
        raise
    return Plan(old, layer, opening, kept, fresh)


def _apart(layer: Layer, kept: set[str]) -> Iterator[Layer]:
    """The largest parts of a new stack that stand on nothing that is kept."""
    if str(layer.written) in kept or layer.kind.part is not None:
        return
    if not any(str(each.written) in kept for each in layer):
        yield layer
        return
    for child in layer.children:
        yield from _apart(child, kept)


def _shares(device: Device) -> bool:
    return kinds.kind(device.label.partition("(")[0]).part is not None


def _within(device: Device) -> Iterator[Device]:
    yield device
    if not _shares(device):
        for child in device.children:
            yield from _within(child)


def _intact(device: Device, detached: list[Device]) -> Iterator[Device]:
    if device not in detached:
        yield device
        return
    for child in device.children:
        yield from _intact(child, detached)


def _close_all(devices: list[Device]) -> None:
    for device in devices:
        with contextlib.suppress(OSError):
            device.close()
