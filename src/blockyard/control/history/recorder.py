"""The history of a server that runs: workers are asked every ten seconds, and who asks is told what was."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from blockyard.control.errors import StateError
from blockyard.control.history.sampling import Sampler, look
from blockyard.control.history.series import COLUMNS, TICK, Resolution, SeriesName, resolution_for, resolution_of
from blockyard.control.history.store import Series, Store, Tell
from blockyard.worker.configuration import Settled

T = TypeVar("T")

log = logging.getLogger(__name__)

Gather = Callable[[], Awaitable[list[dict[str, Any] | None]]]


class Graph(NamedTuple):
    """What was of one series: `times`, when windows began, and values by column, None where there was nothing to measure."""

    series: SeriesName
    times: list[int]
    values: dict[str, list[float | None]]


class Span(NamedTuple):
    """From when to when, in seconds since 1970, and how fine."""

    begin: float
    end: float
    resolution: Resolution


def span(begin: float, end: float | None, step: int | None, now: float) -> Span:
    """What is asked for: a negative or no number counts back from now; without a step the finest that goes back so far.

    Raises ValueError.
    """
    first, last = (now + at if at <= 0 else at for at in (begin, 0.0 if end is None else end))
    if not (math.isfinite(first) and math.isfinite(last)) or first >= last:
        raise ValueError("the time to begin with is to be before the one to end with")
    return Span(first, last, resolution_for(first, now) if step is None else resolution_of(step))


class History:
    """`gather` asks all workers for their measurements, `tell` records an event."""

    def __init__(self, directory: Path, gather: Gather, tell: Tell) -> None:
        self._store = Store(directory, tell)
        self._gather = gather
        self._sampler = Sampler()
        self._trouble = ""  # what was told last

    async def run(self) -> None:
        """Look until it is cancelled."""
        while True:
            now = time.time()
            await asyncio.sleep(TICK - now % TICK)
            try:
                await asyncio.to_thread(self._record, await self._gather())
                self._trouble = ""
            except OSError as error:
                if str(error) != self._trouble:
                    log.warning("the history cannot be written: %s", error)
                    self._trouble = str(error)
            except Exception as error:  # a fault of ours in one look must not end the history
                if repr(error) != self._trouble:
                    log.exception("the history cannot be written")
                    self._trouble = repr(error)

    def _record(self, replies: list[dict[str, Any] | None]) -> None:
        now = time.time()
        points = self._sampler.take(look(replies), now, time.monotonic())
        if points:
            self._store.write(points, now)

    async def read(self, names: list[SeriesName], wanted: Span, settled: Settled) -> list[Graph]:
        """Raises StateError; LookupError where there is no such series, and nothing that one could be of."""
        return await _in_thread(lambda: [self._graph(name, wanted, settled) for name in names])

    def _graph(self, name: SeriesName, wanted: Span, settled: Settled) -> Graph:
        try:
            points = self._store.read(name, wanted.resolution, wanted.begin, wanted.end)
        except LookupError:
            served = {"total": {""}, "volume": settled.volumes.keys(), "pool": settled.pools.keys()}
            if name.name not in served[name.kind]:
                raise
            points = []  # it is new
        columns = COLUMNS[name.kind]
        values = zip(*(values for _, values in points), strict=True) if points else ((),) * len(columns)
        told = {column: list(map(_told, found)) for column, found in zip(columns, values, strict=True)}
        return Graph(name, [time for time, _ in points], told)

    async def series(self) -> list[Series]:
        """Raises StateError."""
        return await _in_thread(self._store.series)

    def close(self) -> None:
        self._store.close()


async def _in_thread(work: Callable[[], T]) -> T:
    try:
        return await asyncio.to_thread(work)
    except OSError as error:
        raise StateError(str(error)) from None


def _told(value: float) -> float | None:
    """With the digits that a 32-bit float has."""
    return None if math.isnan(value) else float(f"{value:.7g}")


def as_message(wanted: Span, graphs: list[Graph]) -> Mapping[str, Any]:
    """For JSON."""
    return {
        "from": wanted.begin,
        "to": wanted.end,
        "resolution": wanted.resolution.step,
        "series": [{"series": str(each.series), "times": each.times, "values": each.values} for each in graphs],
    }
