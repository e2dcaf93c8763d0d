"""What is beneath volumes, or is worked on by jobs of layers: what nobody may take away, though no logical unit shows it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from blockyard.block.building import understood, written
from blockyard.block.moving import MovingDevice
from blockyard.scsi.unit import LogicalUnit
from blockyard.worker.configuration import Volume
from blockyard.worker.jobs import Job
from blockyard.worker.opening import current


def beneath(
    units: Mapping[str, LogicalUnit], volumes: Mapping[str, Volume], jobs: Iterable[Job]
) -> Iterator[tuple[str, str]]:
    """By whom something is claimed (block/building.py, Claim): stacks, those that volumes move to, and what jobs work on."""
    for name, volume in volumes.items():
        if volume.stack:
            yield from ((name, claim.what) for claim in volume.claims)
        moving = current(units[name]) if name in units else None
        if isinstance(moving, MovingDevice):
            yield from ((name, claim.what) for claim in understood(written(moving.new)).claims())
    for job in jobs:
        if job.state == "running":
            yield from ((f"{job.kind} of {job.subject}", what) for what in job.claims)
