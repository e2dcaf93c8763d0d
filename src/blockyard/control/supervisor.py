"""All worker processes, and which of them has what.

Each target belongs to one worker for as long as control lives, so a worker that dies takes with it only its own sessions.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import socket
from collections import Counter
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from blockyard.control.acceptor import WorkerUnavailable
from blockyard.control.adoption import Orphan
from blockyard.control.errors import ControlError, UsageError
from blockyard.control.gate import Gate
from blockyard.control.worker import Home, Worker
from blockyard.worker.configuration import Settled, Share, components
from blockyard.worker.handoff import Message

log = logging.getLogger(__name__)

GRACE = 5.0  # seconds that initiators have for logging out of what is not served any more


class Supervisor:
    """All workers. Targets go to them in turn, together with those that they share a volume with."""

    def __init__(
        self,
        configuration: Settled,
        count: int,
        *,
        gate: Gate | None = None,
        poll: bool = False,
        log_level: str = "WARNING",
        home: Home | None = None,
        orphans: Iterable[Orphan] = (),
    ) -> None:
        """`orphans` are workers that run already, and are told what to serve in `start`."""
        self._count = count
        self._listening: dict[str, socket.socket] = {}  # what workers keep for the next control
        self._make = partial(Worker, gate=gate, poll=poll, log_level=log_level, home=home, listening=self._listening)
        self._configuration = configuration
        known = _numbered(orphans)
        self._numbers = itertools.count(max(known, default=-1) + 1)
        self.workers = [self._make(number, orphan.configuration, orphan=orphan) for number, orphan in known.items()]
        self.adopted = len(self.workers)
        if not self.adopted:
            self.workers = list(self._divided(configuration))
        self._owners: dict[str, Worker] = {}
        self.handed_over = 0  # connections
        self.handing_over = 0  # that a worker may have already, and has not told so
        self._take_over()

    def _divided(self, configuration: Settled) -> dict[Worker, Settled]:
        """Which worker is to serve what. Whatever belongs together stays where the most of it is; what is new is spread."""
        now = {name: worker for worker in self.workers for name in _holdings(worker.configuration)}
        shares: dict[Worker, Share] = {worker: Share([], []) for worker in self.workers}
        new = []
        for together in components(configuration):
            owners = Counter(now[name] for name in _holdings(configuration.part(together)) if name in now)
            if owners:
                _give(shares[owners.most_common(1)[0][0]], together)
            else:
                new.append(together)
        for together in new:
            if len(shares) < self._count:
                worker = self._make(next(self._numbers), Settled())
                shares[worker] = Share([], [])
            else:
                worker = min(shares, key=lambda one: sum(map(len, shares[one])))
            _give(shares[worker], together)
        parts = {worker: configuration.part(share) for worker, share in shares.items()}
        for worker, part in parts.items():
            if worker not in self.workers:
                worker.configuration = part
        return parts

    def _take_over(self) -> None:
        self._owners = {name: worker for worker in self.workers for name in worker.configuration.targets}

    async def change(self, configuration: Settled, grace: float) -> None:
        """Serve this from now on. What moves from one worker to another is let go of before it is taken up.

        Raises VolumeError or WorkerFailed when it cannot be; then all is as it was.
        """
        before = {worker: worker.configuration for worker in self.workers}
        parts = self._divided(configuration)
        new = [worker for worker in parts if worker not in before]
        try:
            await _all(worker.change(_without_moved(worker, before, parts), grace) for worker in before)
            self._take_over()
            await _all(
                [*(worker.start() for worker in new), *(worker.change(parts[worker], grace) for worker in before)]
            )
        except ControlError:
            await _all(worker.close() for worker in new)
            back = (worker.change(old, grace, again=True) for worker, old in before.items())
            for error in await asyncio.gather(*back, return_exceptions=True):
                if error is not None:
                    log.error("what was served before the change cannot be served again: %s", error)
            self._take_over()
            raise
        self.workers = [worker for worker in parts if _holdings(worker.configuration)]
        self._take_over()
        await _all(worker.stop(0) for worker in parts if worker not in self.workers)

    async def start(self) -> None:
        """Start all workers and wait until they are ready. Raises VolumeError or WorkerFailed (see Worker.start)."""
        await asyncio.gather(*(worker.start() for worker in self.workers))
        if self.adopted:
            await self.change(self._configuration, GRACE)

    async def keep(self, listening: Mapping[str, socket.socket]) -> None:
        """Have all workers keep copies of these sockets, and no others, for the control after this one."""
        self._listening.clear()
        self._listening.update(listening)
        for worker in self.workers:
            with contextlib.suppress(OSError):
                await worker.send_listening()

    async def release(self) -> None:
        """Let all workers go on without this control."""
        await asyncio.gather(*(worker.release() for worker in self.workers))

    async def stop(self, grace: float) -> None:
        await asyncio.gather(*(worker.stop(grace) for worker in self.workers))

    async def close(self) -> None:
        """End every worker that still runs, at once."""
        await asyncio.gather(*(worker.close() for worker in self.workers))

    async def ask_all(self, request: Message) -> list[Message | None]:
        """What every worker replies; None for one that is just being started again. Raises ControlError."""
        return await asyncio.gather(*(worker.ask(request) for worker in self.workers))

    async def ask(self, target: str, request: Message) -> Message | None:
        """What the owner of `target` replies; None when it is just being started again. Raises ControlError."""
        if target not in self._owners:
            raise UsageError(f"there is no target {target}: `blockyard status` lists them")
        return await self._owners[target].ask(request)

    async def ask_pool(self, pool: str, request: Message) -> Message:
        """What the worker that has a pool open replies. Raises ControlError."""
        owner = next((worker for worker in self.workers if pool in worker.configuration.pools), None)
        if owner is None:
            raise UsageError(f"there is no pool {pool}: `blockyard pool list` lists those that are served")
        return await _ask(owner, f"the pool {pool}", {"name": "pool", "pool": pool, **request})

    async def ask_volume(self, volume: str, request: Message) -> Message:
        """What the worker that has a volume open replies about its layers. Raises ControlError."""
        owner = next((worker for worker in self.workers if volume in worker.configuration.volumes), None)
        if owner is None:
            raise UsageError(f"no target shows a volume {volume}: `blockyard status` lists those that are shown")
        return await _ask(owner, f"the volume {volume}", {"name": "layer", "volume": volume, **request})

    async def ask_library(self, library: str, request: Message) -> Message:
        """What the worker that has a tape library replies. Raises ControlError."""
        owner = next((worker for worker in self.workers if library in worker.configuration.libraries), None)
        if owner is None:
            raise UsageError(f"no tape library {library} is served: `blockyard tape library list` lists those that are")
        return await _ask(owner, f"the library {library}", {"name": "tape", "library": library, **request})

    async def ask_drive(self, drive: str, request: Message) -> Message:
        """What the worker that has an optical drive replies. Raises ControlError."""
        owner = next((worker for worker in self.workers if drive in worker.configuration.drives), None)
        if owner is None:
            raise UsageError(f"no target shows a drive {drive}: `blockyard optical status` lists those that are shown")
        return await _ask(owner, f"the drive {drive}", {"name": "optical", "drive": drive, **request})

    async def send_accounts(self) -> None:
        """Tell all workers who may log in."""
        for worker in self.workers:
            with contextlib.suppress(OSError):  # the next process is told when it starts
                await worker.send_accounts(final=True)

    async def hand_over(self, target: str, message: Message, fd: int) -> None:
        """Send a connection to the owner of `target`. Raises WorkerUnavailable."""
        worker = self._owners.get(target)
        if worker is None:  # it is just moving
            raise WorkerUnavailable
        self.handing_over += 1
        try:
            await worker.hand_over(message, fd)
            self.handed_over += 1
        finally:
            self.handing_over -= 1


async def _ask(owner: Worker, what: str, request: Message) -> Message:
    """The reply of the worker that has something, perhaps of the next process. Raises ControlError."""
    reply = await owner.ask_when_ready(request)
    if reply is None:
        raise ControlError(f"the worker that has {what} has ended: look whether it was done, and try again")
    return reply


async def _all(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do all of it, and then raise the first error, if there was any."""
    for result in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


def _without_moved(worker: Worker, before: Mapping[Worker, Settled], after: Mapping[Worker, Settled]) -> Settled:
    """What a worker serves, without the targets, the files and the pools that another one is to take over."""
    others = [part for other, part in after.items() if other is not worker]
    targets = {name for part in others for name in part.targets}
    claimed = {claim.what for part in others for volume in part.volumes.values() for claim in volume.claims}
    directories = {pool.directory for part in others for pool in part.pools.values()}
    drives = {name for part in others for name in part.drives}
    now = before[worker]
    pools = {name: pool for name, pool in now.pools.items() if pool.directory not in directories}
    return replace(
        now,
        pools=pools,
        drives={name: drive for name, drive in now.drives.items() if name not in drives},
        targets={name: target for name, target in now.targets.items() if name not in targets},
        volumes={
            name: volume
            for name, volume in now.volumes.items()
            if claimed.isdisjoint(claim.what for claim in volume.claims) and volume.pools <= pools.keys()
        },
    )


def _holdings(configuration: Settled) -> list[str]:
    """What a worker has, so that it stays there: targets and pools, told apart."""
    return [*configuration.targets, *(f"pool {name}" for name in configuration.pools)]


def _give(share: Share, more: Share) -> None:
    share.targets.extend(more.targets)
    share.pools.extend(more.pools)


def _numbered(orphans: Iterable[Orphan]) -> dict[int, Orphan]:
    """Workers by the numbers that the control before has given them: their jobs and measurements are known by these."""
    there = list(orphans)
    known = {orphan.number: orphan for orphan in there}
    return known if len(known) == len(there) and -1 not in known else dict(enumerate(there))
