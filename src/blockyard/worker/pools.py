"""Pools that a worker has open, and the devices through which they are used."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import lmdb

from blockyard.block.device import Device
from blockyard.block.file import FileDevice
from blockyard.pool.pool import Pool
from blockyard.pool.upkeep import Upkeep
from blockyard.pool.volume import SnapshotDevice, VolumeDevice
from blockyard.worker.configuration import Pool as Configured


class OpenPool:
    """A pool, and one device for each of its volumes that is used, whoever uses it.

    Raises OSError or ValueError when it cannot be opened.
    """

    def __init__(self, configured: Configured) -> None:
        self.name = configured.name
        self.directory = configured.directory
        self.pool = _open(Path(configured.directory))
        self._upkeep = Upkeep(self.pool)
        self._devices: dict[str, VolumeDevice] = {}

    def is_of(self, configured: Configured | None) -> bool:
        """Whether this is the pool that is to be open."""
        return configured is not None and (configured.name, configured.directory) == (self.name, self.directory)

    def device(self, volume: str, snapshot: str = "") -> Device:
        """A volume or a snapshot of one. Raises OSError (ENOENT) where there is none."""
        try:
            if snapshot:
                return SnapshotDevice(self.pool, self.pool.find_snapshot(volume, snapshot))
            if volume not in self._devices:
                self._devices[volume] = VolumeDevice(self.pool, volume)
            return self._devices[volume]
        except KeyError:
            what = f"{self.name}/{volume}{f'@{snapshot}' if snapshot else ''}"
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), what) from None

    def close(self) -> None:
        """Commit and let go. Raises OSError."""
        self._upkeep.close()
        self.pool.close()


def _open(directory: Path) -> Pool:
    try:
        return Pool(directory, FileDevice)
    except lmdb.Error as error:
        raise OSError(errno.EIO, str(error), str(directory)) from error
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{directory}: the metadata of this pool is damaged: {error!r}") from error
