"""Pools that a worker has open: the devices through which they are used, their jobs, and what goes on behind them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import lmdb

from blockyard.block.device import Device
from blockyard.block.file import FileDevice
from blockyard.pool.pool import Pool
from blockyard.pool.upkeep import Upkeep
from blockyard.pool.volume import SnapshotDevice, VolumeDevice
from blockyard.worker.chores import Chores
from blockyard.worker.configuration import Pool as Configured
from blockyard.worker.handoff import Message
from blockyard.worker.jobs import Jobs
from blockyard.worker.watch import Notify, Watch


class OpenPool:
    """A pool. What is to be done in the background begins at once.

    `notify` records events, `warn` tells initiators that space is getting short; both from another thread.
    Raises OSError or ValueError when it cannot be opened.
    """

    def __init__(self, configured: Configured, notify: Notify, warn: Callable[[], None]) -> None:
        self.name = configured.name
        self.directory = configured.directory
        self.pool = _open(Path(configured.directory))
        self.pool.verifier.tell = lambda text: notify("error", "checksum-wrong", f"{configured.name}/{text}")
        self.jobs = Jobs()
        self._upkeep = Upkeep(self.pool)
        self._asked = self._freed = 0  # how often something was left to be freed; how much of that is done
        self._more = False
        self._watch = Watch(self.name, self.pool, notify, warn)
        self._chores = Chores(self.name, self._piece)
        self._chores.start()

    def _piece(self) -> bool:
        """What is done in the background, again at once as long as there is more of it."""
        self._watch.look()
        asked = self._asked
        self._more = self.pool.work_off()
        if not self._more:
            self._freed = asked
        return self._more

    @property
    def freeing(self) -> bool:
        """Whether what was deleted is being worked off."""
        return self._more or self._freed != self._asked

    def is_of(self, configured: Configured | None) -> bool:
        """Whether this is the pool that is to be open."""
        return configured is not None and (configured.name, configured.directory) == (self.name, self.directory)

    def device(self, volume: str, snapshot: str = "") -> Device:
        """A volume or a snapshot of one. Raises OSError (ENOENT) where there is none."""
        try:
            if snapshot:
                return SnapshotDevice(self.pool, self.pool.find_snapshot(volume, snapshot))
            return VolumeDevice(self.pool, volume)
        except KeyError:
            what = f"{self.name}/{volume}{f'@{snapshot}' if snapshot else ''}"
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), what) from None

    def then_work_off(self, result: object) -> Message:
        """The answer to what has left something to be freed."""
        self._asked += 1
        self._chores.wake()
        return {}

    def close(self) -> None:
        """Commit and let go. Raises OSError."""
        self.jobs.close()
        self._chores.close()
        self._upkeep.close()
        self.pool.close()


def _open(directory: Path) -> Pool:
    try:
        return Pool(directory, FileDevice)
    except lmdb.Error as error:
        raise OSError(errno.EIO, str(error), str(directory)) from error
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{directory}: the metadata of this pool is damaged: {error!r}") from error
