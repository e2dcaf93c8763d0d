"""How pools, volumes and snapshots are called, and how people write which one they mean: POOL/VOLUME@SNAPSHOT."""

from __future__ import annotations

import re
from typing import NamedTuple

_LIMIT = 64  # characters
_VOLUME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)  # what an iSCSI name can end with, case aside
_SNAPSHOT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+-]*", re.ASCII)  # a time may be in it


class Name(NamedTuple):
    """A pool, a volume of it, a snapshot of that; "" for what was not said."""

    pool: str
    volume: str = ""
    snapshot: str = ""

    def __str__(self) -> str:
        return f"{self.pool}{self.volume and '/'}{self.volume}{self.snapshot and '@'}{self.snapshot}"


def check_volume_name(name: str) -> None:
    """Raises ValueError for what a pool or a volume of one cannot be called."""
    if len(name) > _LIMIT or not _VOLUME.fullmatch(name):
        raise ValueError(
            f"{name!r}: the name of a pool or of a volume in one has 1 to {_LIMIT} letters, digits, '.', '_' or '-', and "
            "begins with a letter or digit"
        )


def check_snapshot_name(name: str) -> None:
    """Raises ValueError for what a snapshot cannot be called."""
    if len(name) > _LIMIT or not _SNAPSHOT.fullmatch(name):
        raise ValueError(
            f"{name!r}: the name of a snapshot has 1 to {_LIMIT} letters, digits, '.', '_', ':', '+' or '-', and begins with a "
            "letter or digit"
        )


def parse(text: str) -> Name:
    """What POOL, POOL/VOLUME or POOL/VOLUME@SNAPSHOT says; of names no more than that they are there. Raises ValueError."""
    path, at, snapshot = text.partition("@")
    pool, slash, volume = path.partition("/")
    if not pool or (slash and not volume) or (at and not (snapshot and volume)):
        raise ValueError(f"{text!r} is not POOL, POOL/VOLUME or POOL/VOLUME@SNAPSHOT")
    return Name(pool, volume, snapshot)
