"""Optical drives that a worker has, brought from one configuration to the next (see inventory.py).

They hold nothing that others could not have too: images are shared among all who read them. So a new one need not wait until
an old one is gone.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from blockyard.optical.drive import Image, OpticalDrive
from blockyard.scsi.durable import Durable
from blockyard.scsi.primary import Identity, PrimaryUnit
from blockyard.scsi.taskset import TaskSet
from blockyard.worker.configuration import Drive
from blockyard.worker.executor import ThreadExecutor


class OpenDrive(NamedTuple):
    """A drive as it was configured."""

    configured: Drive
    unit: OpticalDrive


class Drives:
    """Optical drives by their names."""

    def __init__(self, executor: ThreadExecutor) -> None:
        self._executor = executor
        self._open: dict[str, OpenDrive] = {}

    def get(self, name: str) -> OpenDrive | None:
        return self._open.get(name)

    def units(self) -> dict[str, PrimaryUnit]:
        return {name: drive.unit for name, drive in self._open.items()}

    def take_over(self, wanted: Mapping[str, Drive], keep: Path | None) -> list[PrimaryUnit]:
        """These are served from now on. Returns the logical units that have to go."""
        before, self._open = self._open, {}
        for name, configured in wanted.items():
            old = before.get(name)
            if old is not None and old.configured.uuid == configured.uuid:
                before.pop(name)
                self._open[name] = OpenDrive(configured, old.unit)
                if _image(configured) != _image(old.configured):
                    old.unit.configure(_image(configured))
            else:
                self._open[name] = OpenDrive(configured, self._made(configured, keep))
        return [drive.unit for drive in before.values()]

    def _made(self, configured: Drive, keep: Path | None) -> OpticalDrive:
        identity = Identity(uuid.UUID(configured.uuid), configured.name)
        unit = OpticalDrive(identity, Durable(keep, identity.uuid), image=_image(configured))
        unit.tasks = TaskSet(unit, self._executor)
        return unit


def _image(configured: Drive) -> Image | None:
    return Image(configured.image, configured.kind) if configured.image else None
