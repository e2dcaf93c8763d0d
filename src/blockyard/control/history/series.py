"""What is kept, of what, and for how long: the tables that file, API, command line and console go by."""

from __future__ import annotations

import math
from typing import NamedTuple


class Resolution(NamedTuple):
    """A point each `step` seconds, kept for `span` seconds."""

    step: int
    span: int

    @property
    def text(self) -> str:
        return f"{self.step} s" if self.step < 60 else f"{self.step // 60} min"


RESOLUTIONS = (Resolution(10, 2 * 3600), Resolution(60, 2 * 86400), Resolution(900, 60 * 86400))
TICK = RESOLUTIONS[0].step  # seconds between two looks
NONE = math.nan  # there was nothing to measure: no command, no worker that answers

_WORK = {  # of a volume, and of all together
    "reads": "commands a second",
    "writes": "commands a second",
    "read_bytes": "bytes a second",
    "write_bytes": "bytes a second",
    "read_p50": "seconds that half of the commands took at most",
    "read_p99": "seconds that 99 % of the commands took at most",
    "write_p50": "seconds that half of the commands took at most",
    "write_p99": "seconds that 99 % of the commands took at most",
    "depth": "commands in progress, on average",
    "cache_hits": "share of the reads that caches had, from 0 to 1",
}
_POOL = {"used": "bytes", "size": "bytes", "provisioned": "bytes that its volumes have together"}
COLUMNS: dict[str, dict[str, str]] = {"total": _WORK, "volume": _WORK, "pool": _POOL}  # by kind, and what they mean
MOST = {"total": 1, "volume": 2048, "pool": 64}  # objects that there is room for
MOST_TOLD = 16  # in one answer: each may have thousands of points


class SeriesName(NamedTuple):
    """How an object is named where one asks for it: "total", "volume:NAME", "pool:NAME"."""

    kind: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" if self.name else self.kind


def parse(text: str) -> SeriesName:
    """Raises ValueError."""
    kind, colon, name = text.partition(":")
    if kind not in COLUMNS or bool(colon) != (kind != "total") or bool(name) != bool(colon):
        raise ValueError(f"a series is total, volume:NAME or pool:NAME, not {text!r}")
    return SeriesName(kind, name)


def resolution_for(begin: float, now: float) -> Resolution:
    """The finest that goes back so far, or the coarsest."""
    return next((each for each in RESOLUTIONS if begin >= now - each.span), RESOLUTIONS[-1])


def resolution_of(step: int) -> Resolution:
    """Raises ValueError."""
    for each in RESOLUTIONS:
        if each.step == step:
            return each
    raise ValueError(f"a resolution is {', '.join(str(each.step) for each in RESOLUTIONS)} seconds, not {step}")
