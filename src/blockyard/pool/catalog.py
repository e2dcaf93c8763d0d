"""What there is in a pool, by name: volumes and snapshots, as they are stored.

`read` is for whoever does not have the pool open: LMDB lets other processes read while one writes, and all that is here is
durable before anybody is told that it is done.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid5

from blockyard.pool.store import Transaction, reading


@dataclass(frozen=True)
class Snapshot:
    """A snapshot of a volume of `size` bytes; `time` is in seconds since 1970."""

    name: str
    tree: int
    generation: int
    size: int
    time: float

    def identity(self, volume: str) -> UUID:
        """Who it is for initiators, as a snapshot of the volume whose identity is `volume`."""
        return uuid5(UUID(volume), f"{self.tree}/{self.generation}")


@dataclass(frozen=True)
class Volume:
    """A volume: the tree that it is now, its size in bytes, and who it is for initiators, whatever happens to it."""

    tree: int
    size: int
    uuid: str
    quota: int = 0  # the most bytes that it may take with its snapshots; 0: all that there are
    reservation: int = 0  # bytes that others leave for it
    zero_detection: bool = False  # a chunk that is written with zeros takes no space


@dataclass(frozen=True)
class Catalog:
    """Volumes by name, and the snapshots of each by theirs."""

    volumes: dict[str, Volume]
    snapshots: dict[str, dict[str, Snapshot]]


def load(transaction: Transaction) -> Catalog:
    """Raises ValueError for what makes no sense."""
    volumes = {key.decode(): Volume(**json.loads(value)) for key, value in transaction.items("volumes")}
    snapshots: dict[str, dict[str, Snapshot]] = {}
    for _, value in transaction.items("snapshots"):
        fields = json.loads(value)
        volume = fields.pop("volume")
        snapshot = Snapshot(**fields)
        snapshots.setdefault(volume, {})[snapshot.name] = snapshot
    return Catalog(volumes, snapshots)


def read(directory: Path) -> Catalog:
    """What there is in the pool in `directory`. Raises OSError, ValueError for what makes no sense."""
    with reading(directory) as transaction:
        return load(transaction)
